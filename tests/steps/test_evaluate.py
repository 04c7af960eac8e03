"""Ranking again with a finished run's model gives the run's own numbers, on its own data alone."""

import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from registered_parts import registries_restored
from small_data import write_csv
from tiny_llm import write_tiny_llm
from workplace import run_step

import recdistill as rd
from recdistill import plugins
from recdistill.config import BaselineConfig, EvaluateConfig, StudentConfig, TeacherConfig
from recdistill.errors import InputError
from recdistill.plugins import load_plugins
from recdistill.runs.logged_models import model_id_of_run
from recdistill.runs.plugins_of_runs import same_code
from recdistill.runs.step_runs import finished_run
from recdistill.steps import teacher as teacher_module
from recdistill.steps.backbone import backbone
from recdistill.steps.evaluate import evaluate
from recdistill.steps.prepare import prepare

RANKED = ("/hr_at_", "/ndcg_at_", "/mrr")


def ranking(metrics):
    # What decided when training stopped is of the training.
    kept = (name for name in metrics if any(part in name for part in RANKED) and not name.endswith("_smoothed"))
    return {name: metrics[name] for name in kept}


def newest_of(finished, step):
    return finished.place.newest(step).info.run_id


@pytest.mark.parametrize("step", ["backbone", "teacher", "distill"])
def test_a_run_evaluated_again_has_its_own_numbers(finished, step, capsys):
    run_id = newest_of(finished, step)
    run = evaluate(EvaluateConfig(run_id=run_id))
    of = finished_run(run_id, step)
    assert ranking(run.metrics()) == ranking(of.metrics())
    for part in ("val", "test"):
        ours, theirs = (pd.read_parquet(one.artifact("ranks") / f"{part}.parquet") for one in (run, of))
        pd.testing.assert_frame_equal(ours, theirs)
    ours, theirs = (pd.read_parquet(one.artifact("recommendations") / "test.parquet")["items"] for one in (run, of))
    # Of a distilled student the projection is folded into the table since, which rounds otherwise.
    assert sum(list(a) != list(b) for a, b in zip(ours, theirs, strict=True)) <= (2 if step == "distill" else 0)
    assert f"test/ndcg_at_10 {run.metrics()['test/ndcg_at_10']:.4f}" in capsys.readouterr().out
    assert MlflowClient().get_run(run.run_id).data.tags["recdistill.evaluated_run_id"] == of.run_id


def test_a_metric_of_ones_own_that_has_changed_since_is_measured_again_from_the_ranks(place, small_files, capsys):
    config, values = BaselineConfig(**small_files, new_items=0.3, student="itemknn"), []
    before = backbone(config)
    for at_least in (1, 2):
        with registries_restored():
            # A process imports a module once: another file stands for one that was edited.
            plugin = place.folder / f"metric_of_mine_{at_least}.py"
            plugin.write_text(
                "from recdistill.registry import METRICS\n\n\n"
                "@METRICS.register('all_hit', cut_offs=())\n"
                f"def all_hit(ranks):\n    return (ranks >= {at_least}).double()\n"
            )
            load_plugins(str(plugin))
            found = backbone(config)
            assert found.run_id == before.run_id
            assert "was measured without all_hit as it is now" in capsys.readouterr().out
            again = evaluate(EvaluateConfig(run_id=found.run_id))
            assert not again.reused
            names = [f"{part}/{group}all_hit" for part in ("val", "test") for group in ("", "warm/", "new/")]
            ours, theirs = ({name: one.metrics()[name] for name in names} for one in (found, again))
            assert ours == theirs
            values.append(ours["test/all_hit"])
            assert backbone(config).run_id == before.run_id
            assert evaluate(EvaluateConfig(run_id=found.run_id)).reused
            assert "was measured without" not in capsys.readouterr().out
    assert values[0] == 1
    assert values[1] < 1


def test_new_items_are_measured_of_students_of_both_kinds_and_again(place, small_files):
    options = {**small_files, "new_items": 0.3}
    sasrec = StudentConfig(**options, student="sasrec", epochs=1, hidden_size=8)
    for config in (sasrec, BaselineConfig(**options, student="itemknn")):
        run = backbone(config)
        again = evaluate(EvaluateConfig(run_id=run.run_id))
        assert ranking(run.metrics()) == ranking(again.metrics())
        assert {"test/warm/ndcg_at_20", "val/new/mrr", "test/new_among_new/hr_at_1"} <= run.metrics().keys()
        ours, theirs = (pd.read_parquet(one.artifact("ranks") / "test.parquet") for one in (again, run))
        pd.testing.assert_frame_equal(ours, theirs)
        assert (ours["rank_among_new"][ours["new"]] <= ours["rank"][ours["new"]]).all()


OWN_PARTS = (Path(__file__).parents[1] / "plugin" / "parts_of_a_stranger.py").read_text(encoding="utf-8")


@contextmanager
def another_process(*modules):
    """Nothing of a user's is registered or imported inside, nor of these modules after it."""
    loaded = dict(plugins._loaded)
    plugins._loaded.clear()
    try:
        with registries_restored():
            yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        plugins._loaded.clear()
        plugins._loaded.update(loaded)


@pytest.fixture
def of_own_code(place, small_files):
    """A student of a user's own, trained: its run's id and the file of its module."""
    file = place.folder / "parts_of_mine.py"
    file.write_text(OWN_PARTS, encoding="utf-8")
    with another_process(file.stem):
        load_plugins(str(file))
        options = {"student": "decayed_mean", "hidden_size": 8, "epochs": 1, "plugin": str(file)}
        run = backbone(BaselineConfig(**small_files, **options))
    return run.run_id, file


def test_a_student_of_ones_own_is_evaluated_by_the_plugin_of_its_run(of_own_code):
    run_id, file = of_own_code
    with another_process(file.stem):
        again = evaluate(EvaluateConfig(run_id=run_id))
        assert not again.reused
        of = finished_run(run_id, "backbone")
        assert ranking(again.metrics()) == ranking(of.metrics())
        parts = json.loads(again.artifact("key.json").read_text())["options"]
        assert parts["student decayed_mean"] == same_code(of)["student decayed_mean"]
    with another_process(file.stem):
        assert rd.load_run(run_id).shape.student == "decayed_mean"


def test_a_run_whose_plugin_has_moved_says_which_it_is(of_own_code):
    run_id, file = of_own_code
    moved = file.rename(file.with_name("moved_parts.py"))
    said = rf"^run_id={run_id}: was made with student=decayed_mean, a part of plugin={file}; give plugin= with"
    with another_process(file.stem, moved.stem):
        for ask in (lambda: evaluate(EvaluateConfig(run_id=run_id)), lambda: rd.load_run(run_id)):
            with pytest.raises(InputError, match=said):
                ask()
        load_plugins(str(moved))
        assert "test/mrr" in evaluate(EvaluateConfig(run_id=run_id)).metrics()
        assert rd.load_run(run_id, plugin=str(moved)).shape.student == "decayed_mean"
    file.write_text(
        "import recdistill\n\n\n@recdistill.METRICS.register('other', cut_offs=())\ndef other(ranks): pass\n"
    )
    with another_process(file.stem), pytest.raises(InputError, match=r"which has no student=decayed_mean now; give"):
        evaluate(EvaluateConfig(run_id=run_id))


def test_code_that_was_edited_since_gives_no_other_numbers(of_own_code):
    run_id, file = of_own_code
    file.write_text(OWN_PARTS.replace("return mean + ", "return 2 * mean - "), encoding="utf-8")
    said = rf"run {run_id}: its student decayed_mean is no longer the code that it was trained with \(parts_of_mine.py"
    with another_process(file.stem):
        for ask in (lambda: evaluate(EvaluateConfig(run_id=run_id)), lambda: rd.load_run(run_id)):
            with pytest.raises(InputError, match=said):
                ask()
    # A run of before, which says nothing of its student's module beside the weights, is known by its key alone.
    with another_process(file.stem):
        load_plugins(str(file))
        with pytest.raises(InputError, match=said):
            same_code(finished_run(run_id, "backbone"))


def metrics_of_model(run_id):
    """Of the model of a run: name, value, run and data set of each metric that ranks."""
    model = MlflowClient().get_logged_model(model_id_of_run(run_id))
    return {(one.key, one.value, one.run_id, one.dataset_name) for one in model.metrics if "_at_" in one.key}


@pytest.mark.parametrize("step", ["backbone", "teacher", "distill"])
def test_what_is_measured_again_is_a_metric_of_the_model(finished, step):
    run_id = newest_of(finished, step)
    of_training = {one for one in metrics_of_model(run_id) if one[2] == run_id}
    run = evaluate(EvaluateConfig(run_id=run_id))
    assert {name.partition("/")[0]: data for name, _, _, data in of_training} == {
        "val": "ml-100k val",
        "test": "ml-100k test",
    }
    again = {(name, value, run_id, data) for name, value, of, data in metrics_of_model(run_id) if of == run.run_id}
    assert again == of_training
    # Ranked otherwise than it was trained for: its own, but of no data set, whose best it would be mixed with.
    other = evaluate(EvaluateConfig(run_id=run_id, exclude_seen=False))
    found = {one for one in metrics_of_model(run_id) if one[2] == other.run_id}
    assert {name for name, *_ in found} == {name for name, *_ in of_training}
    assert {data for *_, data in found} == {None}


def test_the_best_model_of_a_data_set_is_found_by_what_its_runs_measured(finished):
    run_id = newest_of(finished, "distill")
    evaluate(EvaluateConfig(run_id=run_id, exclude_seen=False))
    client, name = MlflowClient(), "metrics.test/ndcg_at_20"
    run = client.get_run(run_id)
    digest = next(one.dataset.digest for one in run.inputs.dataset_inputs if one.dataset.name == "ml-100k test")
    found = client.search_logged_models(
        [run.info.experiment_id],
        filter_string="model_type = 'student'",
        datasets=[{"dataset_name": "ml-100k test", "dataset_digest": digest}],
        order_by=[{"field_name": name, "ascending": False, "dataset_name": "ml-100k test"}],
    )
    values = [client.get_run(one.source_run_id).data.metrics["test/ndcg_at_20"] for one in found]
    assert len(values) > 1
    assert values == sorted(values, reverse=True)
    assert {one.model_type for one in found} == {"student"}


def test_a_second_evaluation_is_found_and_printed_again(finished, capsys):
    config = EvaluateConfig(run_id=newest_of(finished, "distill"))
    first = evaluate(config)
    printed = capsys.readouterr().out
    again = evaluate(config)
    assert (again.run_id, again.reused) == (first.run_id, True)
    assert capsys.readouterr().out == printed != ""


def test_seen_items_can_be_ranked_too(finished):
    run_id = newest_of(finished, "distill")
    without = evaluate(EvaluateConfig(run_id=run_id))
    with_seen = evaluate(EvaluateConfig(run_id=run_id, exclude_seen=False))
    ours, theirs = (pd.read_parquet(run.artifact("ranks") / "test.parquet")["rank"] for run in (with_seen, without))
    assert (ours >= theirs).all()
    assert (ours > theirs).any()


def test_a_teacher_is_put_beside_the_backbone_it_was_made_with(finished, monkeypatch):
    def other(*_, **__):
        raise AssertionError("another backbone was looked for")

    monkeypatch.setattr(teacher_module, "backbone", other)
    evaluate(EvaluateConfig(run_id=newest_of(finished, "teacher"), force=True))


def test_no_run_id_is_the_newest_distillation_and_a_reused_one_leads_on(finished):
    assert run_step("evaluate") == 0
    run = finished.place.newest("evaluate")
    newest = MlflowClient().search_runs(
        ["0"], "tags.`recdistill.step` = 'distill'", order_by=["attributes.start_time DESC"]
    )
    # Nor is a control what somebody asked for.
    passed_over = {"recdistill.reused_run_id", "recdistill.control"}
    kept = next(one for one in newest if passed_over.isdisjoint(one.data.tags))
    evaluated = run.data.tags.get("recdistill.reused_run_id", run.info.run_id)
    assert MlflowClient().get_run(evaluated).data.tags["recdistill.evaluated_run_id"] == kept.info.run_id


@pytest.mark.parametrize(
    ("run_id", "said"),
    [("0" * 32, "run_id=0{32}: no such run in sqlite"), ("{prepare}", "is a prepare run; choose a backbone or")],
)
def test_runs_that_have_no_model_are_refused(finished, run_id, said):
    with pytest.raises(InputError, match=said):
        evaluate(EvaluateConfig(run_id=run_id.format(prepare=newest_of(finished, "prepare"))))


def test_in_an_empty_store_it_says_what_is_missing(place):
    with pytest.raises(InputError, match="there is no finished distill run in sqlite"):
        evaluate(EvaluateConfig())


def test_files_that_changed_since_are_refused(place, tmp_path):
    run = backbone(StudentConfig(**write_csv(tmp_path), epochs=1, hidden_size=8))
    write_csv(tmp_path, seed=1)
    # As in a new process, which has not read the files before.
    from recdistill.steps import inputs

    inputs._load_data.cache_clear()
    with pytest.raises(
        InputError, match=f"run_id={run.run_id}: was made for data {run.fingerprint[:12]}, not for this"
    ):
        evaluate(EvaluateConfig(run_id=run.run_id))


@pytest.mark.slow
def test_a_teacher_in_4_bits_is_ranked_again_in_4_bits(taught, tmp_path):
    pytest.importorskip("bitsandbytes")
    llm = {"llm": str(write_tiny_llm(tmp_path / "llm", hidden_size=64)), "load_in_4bit": True}
    of = teacher_module.teacher(TeacherConfig(**(taught.options | llm | {"token_budget": 1000})))
    again = evaluate(EvaluateConfig(run_id=of.run_id))
    # On a CPU the kernels of weights that were trained over and of weights just read round otherwise.
    assert ranking(again.metrics()) == pytest.approx(ranking(of.metrics()), abs=0.1)
    assert MlflowClient().get_run(of.run_id).data.params["load_in_4bit"] == "True"


def test_an_unfinished_run_is_refused(place, small_files):
    run = prepare(StudentConfig(**small_files))
    client = MlflowClient()
    unfinished = client.create_run("0", tags={"recdistill.step": "backbone"}).info.run_id
    with pytest.raises(InputError, match=f"run_id={unfinished}: is RUNNING, not FINISHED"):
        evaluate(EvaluateConfig(run_id=unfinished))
    assert run.run_id != unfinished
