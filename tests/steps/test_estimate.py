"""What a command would make, and how long; token budgets out of a time."""

import json

import mlflow
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.config import (
    STEPS,
    BaselineConfig,
    DataConfig,
    DistillConfig,
    EvaluateConfig,
    MainConfig,
    MapItemsConfig,
    SweepConfig,
    TeacherConfig,
    changed,
    option_table,
)
from recdistill.errors import InputError
from recdistill.steps import paces, time_budget
from recdistill.steps.distill import distill
from recdistill.steps.estimate import Estimate, Part, estimate, estimate_alone
from recdistill.steps.inputs import data_of
from recdistill.steps.map_items import map_items
from recdistill.steps.path_bar import PathBar
from recdistill.steps.teacher import known_teacher
from recdistill.steps.time_budget import LEARNT, budgets_of, within_time
from recdistill.teachers.pace import TeacherPace

PACE = TeacherPace(
    learn=500.0, score=1000.0, tokens_a_sample=10.0, evaluated_tokens=40_000.0, text_tokens=20_000.0, memory_mib=2048.0
)


def config_of(taught, kind=TeacherConfig, **changes):
    return kind(**taught.options | {"llm": str(taught.options["llm"])} | changes)


def test_budgets_are_one_definition_for_all_steps():
    for kind in (TeacherConfig, DistillConfig, MainConfig, SweepConfig):
        config = kind()
        assert (config.token_budget, config.outputs_token_budget) == (50_000, 100_000)


def test_what_is_finished_is_named_and_not_timed(taught, monkeypatch):
    monkeypatch.setattr(paces, "teacher_pace", pytest.fail)
    monkeypatch.setattr(paces, "student_pace", pytest.fail)
    found = estimate("teacher", config_of(taught))
    assert [part.found for part in found.parts] == [taught.run_id]
    assert (found.missing, found.seconds) == ((), 0)
    assert found.lines()[0] == "teacher: everything is finished"


@pytest.mark.parametrize(
    "start",
    [{}, {"item_init": "views", "views": "tfidf", "item_text": "title", "view_directions": 9}, {"output_weight": 0.1}],
    ids=str,
)
def test_a_distilled_student_is_timed_beside_its_finished_teacher(taught, start):
    config = config_of(taught, DistillConfig, hidden_size=8, heads=1, epochs=7, **start)
    found = estimate("distill", config)
    assert [bool(part.found) for part in found.parts] == [True, False]
    (student,) = found.missing
    assert student.seconds > 0
    assert "7 epochs at most of" in student.work
    run = distill(config)
    again = estimate("distill", config)
    assert [part.found for part in again.parts] == [taught.run_id, run.run_id]


def test_a_teacher_that_is_missing_is_timed_with_its_tokens_and_memory(taught):
    found = estimate("teacher", config_of(taught, token_budget=77_000, outputs_token_budget=500))
    (part,) = found.missing
    assert "77,000 tokens to learn from" in part.work
    assert part.seconds > 0
    assert found.memory_mib > 50
    # Of a pace that is kept: more tokens take longer, in proportion.
    more = estimate("teacher", config_of(taught, token_budget=770_000, outputs_token_budget=500))
    assert more.seconds > 5 * found.seconds


def test_an_estimate_makes_no_run_and_leaves_the_random_numbers(taught, capsys):
    before = len(MlflowClient().search_runs(["0"]))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    options = {**taught.options, "token_budget": 5555, "lora_rank": 4, "estimate": True}
    assert run_step("teacher", **options) == 0
    assert torch.equal(torch.rand(3), expected)
    assert len(MlflowClient().search_runs(["0"])) == before
    said = capsys.readouterr().out
    assert "teacher: about" in said
    assert "GiB of memory" in said


def test_main_counts_its_whole_path(taught):
    small = {"hidden_size": 8, "heads": 1, "epochs": 2, "cheap_views": "", "sequence_embeddings": True}
    found = estimate("main", config_of(taught, MainConfig, **small))
    names = [part.name for part in found.parts]
    assert names[0] == "data"
    assert "itemknn, seed 1" in names
    assert "sasrec undistilled, seed 1" in names
    assert names[-2:] == ["sasrec distilled, seed 1", "sasrec control, seed 1"]


@pytest.mark.parametrize(("changes", "students"), [({}, 1), ({"batch_size": 64}, 2)], ids=["the defaults", "others"])
def test_a_run_that_two_parts_need_counts_once(taught, changes, students):
    # The undistilled student of the defaults is the teacher's backbone, too.
    options = {"baselines": "", "cheap_views": "", "token_budget": 5_000, "outputs_token_budget": 500, "seed": 5}
    found = estimate("main", config_of(taught, MainConfig, **(options | changes)))
    assert [part.name for part in found.parts].count("sasrec undistilled, seed 5") == students


def test_a_sweep_multiplies_its_trials(taught):
    small = {"hidden_size": 8, "heads": 1, "epochs": 2, "sequence_embeddings": True}
    one, ten = (
        estimate("sweep", config_of(taught, SweepConfig, trials=trials, final_seeds=0, **small)) for trials in (1, 10)
    )
    assert ten.seconds == pytest.approx(10 * one.seconds)
    assert [part.times for part in ten.missing] == [10]


def test_a_sweep_trains_what_its_space_fixes(taught):
    """The space quick fixes eight epochs; the command's own value wins."""
    small = {"hidden_size": 8, "heads": 1, "sequence_embeddings": True, "trials": 1, "final_seeds": 1}
    quick = [part.work for part in estimate("sweep", config_of(taught, SweepConfig, **small)).missing]
    assert [f"of {8} epochs at most" in work for work in quick] == [True, False]
    own = estimate("sweep", config_of(taught, SweepConfig, **small, epochs=3)).missing
    assert "of 3 epochs at most" in own[0].work
    # One teacher cannot be that of trials that search its options.
    with pytest.raises(InputError, match=r"^teacher_run_id=.*: is one teacher, and .* searches options of the teacher"):
        estimate("sweep", config_of(taught, SweepConfig, **small, space="teacher", teacher_run_id=taught.run_id))


@pytest.mark.parametrize("changes", [{"seed": 9}, {"force": True}], ids=str)
def test_a_teacher_that_the_step_finds_is_listed_as_finished(taught, monkeypatch, changes):
    monkeypatch.setattr(paces, "teacher_pace", pytest.fail)
    budgets = {name: TeacherConfig().value(name) for name in ("token_budget", "outputs_token_budget")}
    config = config_of(taught, DistillConfig, hidden_size=8, heads=1, epochs=7, **budgets, **changes)
    known = known_teacher(config, "", data_of(config))
    found = estimate("distill", config)
    assert [part.found for part in found.parts] == [known.run_id, ""]


def test_map_items_lists_the_student_that_it_would_train_and_finds_what_it_made(taught):
    data = {name: value for name, value in taught.options.items() if name in ("dataset", "interactions", "items")}
    config = MapItemsConfig(**data, views="tfidf", hidden_size=8, heads=1, blocks=1, epochs=1)
    student = estimate("map_items", config).missing[0]
    assert "1 epochs at most" in student.work
    run = map_items(config)
    assert [part.found for part in estimate("map_items", config).parts][1] == run.run_id
    with pytest.raises(InputError, match=r"^views=teacher: the student was not distilled"):
        estimate("map_items", changed(config, views="teacher"))


@pytest.mark.parametrize(
    ("step", "option"),
    [
        ("distill", "teacher_run_id"),
        ("main", "teacher_run_id"),
        ("worth", "teacher_run_id"),
        ("sweep", "teacher_run_id"),
        ("teacher", "backbone_run_id"),
    ],
)
def test_an_estimate_refuses_a_run_that_is_not_there_as_the_step_does(taught, capsys, step, option):
    options = {name: value for name, value in taught.options.items() if name in option_table(STEPS[step])}
    said = []
    for estimate_only in (False, True):
        assert run_step(step, **options, **{option: "nonsense"}, estimate=estimate_only) == 1
        said.append(capsys.readouterr().err)
    assert said[1].startswith(f"recdistill {step}: {option}=nonsense: no such run in ")
    assert said[1] == said[0].splitlines(keepends=True)[-1]


@pytest.mark.parametrize("store", ["sqlite:///{}/notes.txt", "foo://x"])
def test_an_estimate_refuses_a_store_in_one_line_as_the_step_does(tmp_path, store):
    (tmp_path / "notes.txt").write_text("no database, but a few lines of notes")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store.format(tmp_path))
    try:
        with pytest.raises(InputError, match=r"^MLFLOW_TRACKING_URI=.*; (give the file of|set MLFLOW_TRACKING_URI)"):
            estimate_alone("backbone", BaselineConfig())
    finally:
        mlflow.set_tracking_uri(before)


def test_a_step_that_trains_nothing_says_so():
    assert estimate("evaluate", EvaluateConfig()).lines() == [
        "evaluate: reads finished runs or files, and trains nothing"
    ]


def test_prepare_and_backbone_have_one_part(taught):
    data = {name: value for name, value in taught.options.items() if name in ("dataset", "interactions", "items")}
    assert [part.name for part in estimate("prepare", DataConfig(**data)).parts] == ["data"]
    assert [part.name for part in estimate("backbone", BaselineConfig(**data, student="ease")).parts] == [
        "ease, seed 1"
    ]


def test_lines_by_hand():
    parts = (Part("a", "r" * 32), Part("long name", work="10 samples", seconds=30.0, times=5), Part("b", work="maps"))
    lines = Estimate("main", parts, measured=12.3).lines()
    assert lines[0].startswith(
        "main: about 2 min at most, and some seconds a run to start, log and draw; what is not timed comes on top "
        "(measured in 12 s; "
    )
    assert lines[1:] == [
        f"  a          finished, run {'r' * 32}",
        "  long name  5 times 10 samples, 2 min",
        "  b          maps, not timed",
    ]


def test_a_time_becomes_budgets_that_take_so_long(taught, monkeypatch):
    monkeypatch.setattr(time_budget, "pace_of_teacher", lambda config, data: PACE)
    learnt, scored = budgets_of(config_of(taught, time_budget="20m"))
    assert PACE.seconds(learnt, scored) == pytest.approx(1200, rel=0.01)
    assert learnt / (learnt + scored) == pytest.approx(LEARNT, abs=0.01)
    with pytest.raises(InputError, match=r"time_budget=30s: .*60 s here; give"):
        budgets_of(config_of(taught, time_budget="30s"))
    # What is learnt by contrast is paid for first.
    contrast = {"contrast_token_budget": 100_000}
    learnt, scored = budgets_of(config_of(taught, time_budget="20m", **contrast))
    assert PACE.seconds(100_000 + learnt, scored) == pytest.approx(1200, rel=0.01)
    with pytest.raises(InputError, match=r"time_budget=4m: .*, the contrast and .* 4 min here; give 5 min or more"):
        budgets_of(config_of(taught, time_budget="4m", **contrast))


def test_a_time_is_measured_once_and_its_budgets_are_kept_for_every_step(taught, monkeypatch, capsys):
    monkeypatch.setattr(time_budget, "pace_of_teacher", lambda config, data: PACE)
    first = within_time(config_of(taught, time_budget="9m"))
    monkeypatch.setattr(time_budget, "pace_of_teacher", pytest.fail)
    assert within_time(config_of(taught, time_budget="9m")) == first
    other = within_time(config_of(taught, DistillConfig, time_budget="9m", sequence_embeddings=False))
    assert (other.token_budget, other.outputs_token_budget) == (first.token_budget, first.outputs_token_budget)
    assert f"token_budget={first.token_budget:,}" in capsys.readouterr().out
    assert changed(first, time_budget="").token_budget == first.token_budget != TeacherConfig().token_budget


def test_a_teacher_that_is_named_needs_no_time(taught, monkeypatch):
    monkeypatch.setattr(time_budget, "pace_of_teacher", pytest.fail)
    config = config_of(taught, DistillConfig, time_budget="9m", teacher_run_id=taught.run_id)
    assert within_time(config) == config


def test_a_run_shows_the_time_and_the_budgets_that_came_of_it(taught, monkeypatch):
    slow = TeacherPace(
        learn=2.0, score=2.0, tokens_a_sample=10.0, evaluated_tokens=0.0, text_tokens=0.0, memory_mib=1.0
    )
    monkeypatch.setattr(time_budget, "pace_of_teacher", lambda config, data: slow)
    options = {**taught.options, "lora_alpha": 3.0, "time_budget": "25m"}
    assert run_step("teacher", **{name: value for name, value in options.items() if name != "token_budget"}) == 0
    run = taught.place.newest("teacher")
    assert run.data.params["time_budget"] == "25m"
    assert run.data.params["token_budget"] == "1000"
    key = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/key.json"))
    assert key["options"]["token_budget"] == 1000


def test_the_bar_tells_time_left_and_the_present_metric():
    with PathBar("main", 3, seconds=600).shown() as bar:
        bar.heard({"val/ndcg_at_10": 0.08123, "train/total": 4.0})
        bar.done()
        assert bar.postfix() == "about 10 min left, val NDCG@10 0.0812"
