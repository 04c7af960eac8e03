"""The teacher's run: what it keeps, from which backbone, and which teacher a student finds."""

import json
import math
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from safetensors import safe_open
from small_data import write_csv
from workplace import run_step

from recdistill.config import MainConfig, StudentConfig, TeacherConfig, changed
from recdistill.errors import InputError
from recdistill.runs.step_runs import StepRun, finished_run, step_run
from recdistill.steps import student_start
from recdistill.steps import teacher as module
from recdistill.steps.backbone import backbone
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.teacher import find_backbone, find_teacher, teacher, texts_read
from recdistill.students.build import WEIGHTS_FILE

BUDGETS = ("token_budget", "outputs_token_budget")


def config_of(taught, **changes):
    return TeacherConfig(**{name: str(v) if name == "llm" else v for name, v in (taught.options | changes).items()})


def ranks(run, part):
    return pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")["rank"].tolist()


def test_it_keeps_what_was_trained_and_what_students_read(taught):
    run, config = finished_run(taught.run_id, "teacher"), config_of(taught)
    data = data_of(config)
    outputs = teacher_outputs_of(run, data)
    assert outputs.sample.tolist() == data.trainable(exclude_seen=True).tolist()
    assert (outputs.top_n, outputs.item_embedding.shape[0]) == (12, data.num_items)
    assert outputs.sequence_embedding.shape == (len(outputs.sample), outputs.item_embedding.shape[1])
    assert bool((outputs.distance.diff(dim=1) >= 0).all())
    for row, sample in enumerate(outputs.sample.tolist()):
        seen = data.train.items[data.train.start[sample] : data.train.end[sample]].tolist()
        assert not set(outputs.ranking[row].tolist()) & set(seen)
    assert run.metrics()["covered_share"] == outputs.covered_share == len(outputs.sample) / len(data.train)
    names = set()
    for path in run.artifact("teacher").rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names |= set(file.keys())
    assert names
    assert [
        name for name in names if ".lora_" not in name and not name.startswith(("gate.", "projector.", "head."))
    ] == []


def test_it_names_its_backbone_a_sasrec_of_default_options(taught):
    run = mlflow.get_run(taught.run_id)
    frozen = mlflow.get_run(run.data.tags["recdistill.backbone_run_id"])
    defaults = StudentConfig(**{name: taught.options[name] for name in ("dataset", "interactions", "items")})
    assert frozen.data.params["student"] == "sasrec"
    assert frozen.data.params["hidden_size"] == str(defaults.hidden_size)
    assert frozen.data.params["force"] == "False"
    assert find_backbone(config_of(taught), data_of(config_of(taught))).run_id == frozen.info.run_id


def test_an_untrained_teacher_is_its_frozen_backbone(taught):
    config = config_of(taught, token_budget=0, outputs_token_budget=1)
    untrained, frozen = teacher(config), find_backbone(config, data_of(config))
    for part in ("val", "test"):
        assert ranks(untrained, part) == ranks(frozen, part)
        assert ranks(finished_run(taught.run_id, "teacher"), part) != ranks(frozen, part)
    # The reading of the titles is all that it costs.
    assert untrained.metrics()["train_seconds"] < finished_run(taught.run_id, "teacher").metrics()["train_seconds"]


@pytest.mark.parametrize(
    "changes",
    [
        {
            "packing": False,
            "gate": "resnet",
            "backbone_residual": False,
            "exclude_seen": False,
            "split": "chronological",
        },
        {"gate": "topk", "lora_dropout": 0.1, "experts": 2, "query_policy": "uncertainty", "warmup": 0.0},
    ],
)
def test_other_teachers_run_the_whole_step(taught, changes):
    config = config_of(taught, token_budget=600, outputs_token_budget=900, **changes)
    run, data = teacher(config), data_of(config)
    assert 0 < teacher_outputs_of(run, data).covered_share < 1
    assert run.metrics()["covered_share"] == teacher_outputs_of(run, data).covered_share
    assert len(ranks(run, "test")) == len(data.test)


@pytest.mark.parametrize("student", ["gru4rec", "caser"])
def test_another_students_run_as_backbone(taught, student):
    config = config_of(taught)
    data = data_of(config)
    files = {name: taught.options[name] for name in ("dataset", "interactions", "items")}
    other = backbone(StudentConfig(**files, student=student, epochs=1, hidden_size=16, max_length=12))
    named = changed(config, backbone_run_id=other.run_id, token_budget=300, outputs_token_budget=300)
    if student == "caser":
        # Its states look at the whole window: they cannot stand at a boundary inside it.
        with pytest.raises(InputError, match=f"backbone_run_id={other.run_id}: is a caser.*choose a sasrec or gru4rec"):
            teacher(named)
    else:
        run = teacher(named)
        assert mlflow.get_run(run.run_id).data.tags["recdistill.backbone_run_id"] == other.run_id
        assert len(ranks(run, "test")) == len(data.test)


def test_a_backbone_of_other_data_is_refused(taught):
    config = config_of(taught)
    other = backbone(
        StudentConfig(
            **{name: taught.options[name] for name in ("dataset", "interactions", "items")}, max_users=9, epochs=1
        )
    )
    with pytest.raises(InputError, match=f"backbone_run_id={other.run_id}: was made for data") as caught:
        teacher(changed(config, backbone_run_id=other.run_id))
    assert data_of(config).fingerprint[:12] in str(caught.value)
    assert other.fingerprint[:12] in str(caught.value)


@pytest.fixture
def pretend(taught, monkeypatch):
    """Adds finished teacher runs without training them; making a new one is only noted."""
    data = data_of(config_of(taught))
    frozen = find_backbone(config_of(taught), data)

    def add(**changes) -> str:
        config = config_of(taught, **changes)
        upstream = {"backbone": frozen}
        with step_run("teacher", config, data=data, upstream=upstream) as run:
            run.log_text("note.txt", "a teacher")
        return run.run_id

    monkeypatch.setattr(module, "teacher", lambda config: StepRun("new", "", "", False))
    return add


def found_by(taught, **changes):
    config = config_of(taught, **changes)
    return find_teacher(config, "", data_of(config)).run_id


def test_a_student_finds_the_teacher_of_exactly_its_options(taught, pretend):
    assert found_by(taught) == taught.run_id
    first = pretend(lora_alpha=17.0, token_budget=777)
    pretend(lora_alpha=17.0, token_budget=778)
    assert found_by(taught, lora_alpha=17.0, token_budget=777) == first
    assert found_by(taught, lora_alpha=17.0, token_budget=777, force=True) == first
    assert found_by(taught, lora_alpha=17.0, token_budget=779) == "new"


def test_without_a_budget_of_its_own_it_takes_the_newest_of_the_kind(taught, pretend):
    unasked = {name: getattr(TeacherConfig(), name) for name in BUDGETS}
    pretend(lora_alpha=19.0, token_budget=777)
    newest = pretend(lora_alpha=19.0, token_budget=778, seed=5)
    assert found_by(taught, lora_alpha=19.0, **unasked) == newest
    assert found_by(taught, lora_alpha=19.5, **unasked) == "new"
    assert found_by(taught, lora_alpha=19.0, top_n=13, **unasked) == "new"
    exact = pretend(lora_alpha=19.0, **unasked)
    pretend(lora_alpha=19.0, token_budget=779)
    assert found_by(taught, lora_alpha=19.0, **unasked) == exact


def fail(config, data):
    with step_run("teacher", config, data=data) as run:
        run.log_text("note.txt", "half a teacher")
        raise InputError("it went wrong")


def test_a_failed_teacher_is_not_found(taught, pretend):
    config = config_of(taught, lora_alpha=23.0)
    with pytest.raises(InputError, match="it went wrong"):
        fail(config, data_of(config))
    failed = taught.place.newest("teacher")
    assert failed.info.status == "FAILED"
    assert failed.data.tags["recdistill.failure"] == "it went wrong"
    unasked = {name: getattr(TeacherConfig(), name) for name in BUDGETS}
    assert found_by(taught, lora_alpha=23.0, **unasked) == "new"


def test_a_deleted_teacher_is_not_found(taught, pretend):
    run_id = pretend(lora_alpha=29.0)
    assert found_by(taught, lora_alpha=29.0) == run_id
    MlflowClient().delete_run(run_id)
    assert found_by(taught, lora_alpha=29.0) == "new"


@pytest.mark.parametrize("budgets", [{}, {name: getattr(TeacherConfig(), name) for name in BUDGETS}])
def test_another_llm_at_the_same_path_has_another_teacher(taught, pretend, tmp_path, budgets):
    folder = tmp_path / "llm"
    shutil.copytree(str(taught.options["llm"]), folder)
    run_id = pretend(llm=folder, lora_alpha=31.0)
    assert found_by(taught, llm=folder, lora_alpha=31.0, **budgets) == run_id
    weights = folder / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert found_by(taught, llm=folder, lora_alpha=31.0, **budgets) == "new"
    weights.write_bytes(before)
    assert found_by(taught, llm=folder, lora_alpha=31.0, **budgets) == run_id


def test_its_run_keeps_the_gate_of_users_and_clusters(taught):
    run, config = finished_run(taught.run_id, "teacher"), config_of(taught)
    data, experts = data_of(config), [f"expert_{expert}" for expert in range(config.experts)]
    users = pd.read_parquet(run.artifact("gate/weights.parquet"))
    assert sorted(users["user"]) == sorted(data.user_ids)
    assert list(users.columns) == ["user", "cluster", *experts]
    clusters = pd.read_csv(run.artifact("gate/weights.csv"), keep_default_na=False)
    assert list(clusters.columns) == ["cluster", "users", *experts, "titles"]
    assert clusters["users"].sum() == len(users)
    assert run.artifact("figures/gate_weights.png").read_bytes()[:4] == b"\x89PNG"


def test_the_curve_of_the_gate_is_logged(taught):
    client, experts = MlflowClient(), TeacherConfig().experts
    curves = [
        [point.value for point in client.get_metric_history(taught.run_id, name)]
        for name in ("train/gate_entropy", *(f"train/expert_usage_{expert}" for expert in range(experts)))
    ]
    assert len(curves[0]) == len(client.get_metric_history(taught.run_id, "train/total")) > 1
    assert all(0 < entropy <= math.log(experts) + 1e-6 for entropy in curves[0])
    assert [sum(shares) for shares in zip(*curves[1:], strict=True)] == pytest.approx([1] * len(curves[0]), abs=1e-5)


def test_a_teacher_is_refused_before_it_is_trained(taught, tmp_path):
    folder = Path(shutil.copytree(str(taught.options["llm"]), tmp_path / "llm"))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"max_position_embeddings": 200}))
    with pytest.raises(InputError, match=r"^teacher_window=10: makes prompts of up to \d+ tokens, .* reads 200; set"):
        teacher(config_of(taught, llm=folder))
    run = taught.place.newest("teacher")
    assert run.info.status == "FAILED"
    assert MlflowClient().get_metric_history(run.info.run_id, "train/total") == []


@pytest.mark.parametrize("step", ["teacher", "distill", "main"])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"llm": "/no/such/model"}, "llm=/no/such/model: "),
        ({"query_policy": "custom", "policy_file": "/no/policy.py", "outputs_token_budget": 500}, "/no/policy.py"),
    ],
)
def test_what_can_be_known_is_refused_before_a_backbone_is_trained(small_files, place, capsys, step, options, said):
    assert run_step(step, **small_files, **options) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    runs = MlflowClient().search_runs(["0"])
    assert [(run.data.tags["recdistill.step"], run.info.status) for run in runs] == [(step, "FAILED")]


def test_the_items_texts_of_a_users_files_are_in_a_teachers_key(tmp_path):
    """The fingerprint of data is of titles alone, and a teacher reads all columns."""
    found = []
    for name in ("Drama", "Comedy"):
        folder = tmp_path / name
        folder.mkdir()
        options = write_csv(folder)
        table = pd.read_csv(options["items"])
        table.assign(genres=name).to_csv(options["items"], index=False)
        config = TeacherConfig(**options)
        data = data_of(config)
        found.append((data.fingerprint, texts_read(config, data)))
        assert texts_read(TeacherConfig(teacher="generative", **options), data) == {}
    (fingerprint, texts), (other_fingerprint, other_texts) = found
    assert fingerprint == other_fingerprint
    assert texts != other_texts
    assert texts.keys() == {"item texts"}
    config = TeacherConfig(max_users=40)
    # A pinned data set has one items file.
    assert texts_read(config, data_of(config)) == {}


def test_a_whole_path_starts_from_what_its_student_is_and_not_from_its_name(monkeypatch, tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    monkeypatch.setattr(student_start, "student_folder", lambda name: (served, name))
    config = MainConfig(max_users=40, init_from="models:/films@champion")
    found = []
    for weights in (b"1", b"2"):
        (served / WEIGHTS_FILE).write_bytes(weights)
        found.append(student_start.whole_path_contents(config, data_of(config))["earlier student"])
    assert found[0] != found[1]
    assert "earlier student" not in student_start.whole_path_contents(changed(config, init_from=""), data_of(config))


def test_it_can_rank_some_users_alone_and_says_so(taught, capsys):
    few = {**taught.options, "ranked_users": 7, "token_budget": 300, "outputs_token_budget": 300}
    assert run_step("teacher", **few) == 0
    assert ", of 7 users, val NDCG@20 " in capsys.readouterr().out
    run = finished_run(taught.place.newest("teacher").info.run_id, "teacher")
    metrics, data = run.metrics(), data_of(config_of(taught))
    # No number of some users has the name of one of all.
    assert not [name for name in metrics if re.match("(val|test)/(hr|ndcg|mrr)", name)]
    of_some = [name for name in metrics if name.startswith("test/some_users/")]
    assert {"test/some_users/ndcg_at_10", "test/some_users/mrr", "test/some_users/users"} <= set(of_some)
    assert metrics["test/some_users/users"] == 7
    frozen = StepRun(mlflow.get_run(run.run_id).data.tags["recdistill.backbone_run_id"], "", "", reused=True)
    for part, samples in (("val", data.validation), ("test", data.test)):
        own = pd.read_parquet(run.artifact("ranks") / f"{part}.parquet")
        assert own["user"].nunique() == 7
        assert 0 < len(own) < len(samples)
        assert metrics[f"{part}/some_users/hr_at_10"] == pytest.approx((own["rank"] <= 10).mean())
        whole = pd.read_parquet(frozen.artifact("ranks") / f"{part}.parquet")
        # Its users' samples, all of them and in their order.
        wanted = whole[whole["user"].isin(own["user"])].reset_index(drop=True)
        assert own[["user", "item", "history_length"]].equals(wanted[["user", "item", "history_length"]])
    gains = 1 / np.log2(1 + wanted["rank"])
    same = gains.where(wanted["rank"] <= 10, 0).mean()
    note = mlflow.get_run(run.run_id).data.tags["mlflow.note.content"]
    own_ndcg = metrics["test/some_users/ndcg_at_10"]
    assert f"Test NDCG@10, of 7 users {own_ndcg:.4f}, its frozen SASRec {same:.4f}." in note
    # The gate's picture is of all users.
    assert len(pd.read_parquet(run.artifact("gate") / "weights.parquet")) == len(data.user_ids)
    capsys.readouterr()
    assert run_step("compare", runs=run.run_id, resamples=100) == 0
    assert f"compared on the {len(own):,} of {len(whole):,} samples that all runs ranked" in capsys.readouterr().out
    assert taught.place.newest("compare").data.metrics["compare/samples"] == len(own)
    # And all of them, when it is asked again.
    assert run_step("evaluate", run_id=run.run_id) == 0
    again = finished_run(taught.place.newest("evaluate").info.run_id, "evaluate")
    ranked = pd.read_parquet(again.artifact("ranks") / "test.parquet")
    assert len(ranked) == len(whole)
    assert ranked[ranked["user"].isin(own["user"])]["rank"].tolist() == own["rank"].tolist()
