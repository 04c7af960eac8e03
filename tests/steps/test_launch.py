"""``accelerate launch -m recdistill teacher`` on two processes: the curve and the outputs of one."""

import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.tracking import MlflowClient
from workplace import arguments, subprocess_environment

from recdistill import __main__ as module
from recdistill.config import BaselineConfig, DistillConfig, TeacherConfig, changed, narrow
from recdistill.runs.step_runs import finished_run
from recdistill.steps.backbone import backbone
from recdistill.steps.distill import distill
from recdistill.steps.inputs import data_of, teacher_outputs_of
from recdistill.steps.teacher import teacher

ACCELERATE = [
    sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
SECONDS = 300
SMALL_STUDENT = {
    "hidden_size": 16, "blocks": 1, "max_length": 8, "epochs": 2, "patience": 2, "dropout": 0.0, "batch_size": 64,
    "candidate_topk": 4, "baselines": "itemknn",
}  # fmt: skip
#: Options by which no student is told from another.
TEACHER_ALONE = (
    "token_budget",
    "tokens_per_batch",
    "sequence_embeddings",
    "teacher_window",
    "teacher_history",
    "top_n",
)


def config_of(taught, **changes):
    return TeacherConfig(**{name: str(v) if name == "llm" else v for name, v in (taught.options | changes).items()})


def curve(run_id, name):
    return [point.value for point in MlflowClient().get_metric_history(run_id, name)]


def launched(launcher, taught, options, step="teacher"):
    """A step on two processes."""
    return subprocess.run(
        [*launcher, "-m", "recdistill", *arguments(step, options)],
        env=subprocess_environment(taught.place),
        cwd=taught.place.folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--multi_gpu", "--use_fsdp"])
def test_two_processes_train_and_score_as_one(taught, how):
    # Not the options of any other test: what it finds must be its own.
    budgets = {"token_budget": 3000, "tokens_per_batch": 400, "accumulation": 2, "outputs_token_budget": 6000}
    options = (
        taught.options | budgets | {"gate_scale": 0.31 if how == "--use_fsdp" else 0.32, "contrast_token_budget": 600}
    )
    alone = teacher(config_of(taught, **options))
    before = {run.info.run_id for run in MlflowClient().search_runs(["0"])}
    done = launched([*ACCELERATE, how], taught, options | {"force": True})
    assert done.returncode == 0, done.stderr[-3000:]
    # The second process has no run.
    condition = "tags.`recdistill.step` = 'teacher'"
    (run,) = [run for run in MlflowClient().search_runs(["0"], condition) if run.info.run_id not in before]
    assert run.info.status == "FINISHED"
    together = finished_run(run.info.run_id, "teacher")
    assert run.data.tags["recdistill.key"] == alone.key

    # Sums over two processes round otherwise than sums over one, and Adam makes steps of tiny gradients large.
    for name in ("train/total", "train/gate_entropy", "train/expert_usage_0"):
        found, expected = curve(together.run_id, name), curve(alone.run_id, name)
        assert len(found) == len(expected) == 4
        assert found == pytest.approx(expected, rel=1e-4)
    assert len(set(curve(together.run_id, "train/total"))) == 4

    data = data_of(config_of(taught, **options))
    found, expected = teacher_outputs_of(together, data), teacher_outputs_of(alone, data)
    assert 0 < len(expected.sample) < len(data.train)
    assert torch.equal(found.sample, expected.sample)
    torch.testing.assert_close(found.distance, expected.distance, atol=0.01, rtol=0.01)
    torch.testing.assert_close(found.item_embedding, expected.item_embedding, atol=0.02, rtol=0.02)
    assert (found.ranking == expected.ranking).float().mean() > 0.98
    for part in ("val", "test"):
        ranks = [pd.read_parquet(one.artifact("ranks") / f"{part}.parquet")["rank"] for one in (together, alone)]
        assert np.abs(ranks[0] - ranks[1]).max() <= 1
    assert together.artifact("teacher").is_dir()
    assert not list(taught.place.checkpoints("outputs"))


@pytest.mark.slow
def test_two_processes_go_the_whole_path_as_one(taught):
    options = (
        SMALL_STUDENT
        | {"teacher_run_id": taught.run_id}
        | {name: taught.options[name] for name in taught.options if name not in TEACHER_ALONE}
    )
    before = {run.info.run_id for run in MlflowClient().search_runs(["0"])}
    done = launched(TORCHRUN, taught, options, step="main")
    assert done.returncode == 0, done.stderr[-3000:]
    made = [run for run in MlflowClient().search_runs(["0"]) if run.info.run_id not in before]
    # Each step has one run, of the main process.
    steps = Counter(run.data.tags["recdistill.step"] for run in made)
    assert steps == {"main": 1, "prepare": 1, "backbone": 2, "teacher": 1, "distill": 2}
    assert {run.info.status for run in made} == {"FINISHED"}
    assert done.stdout.count("Highest test NDCG@10") == 1
    # The control is of another teacher.
    own = [run for run in made if run.data.tags.get("recdistill.teacher_run_id") in (None, taught.run_id)]
    of_step = {run.data.tags["recdistill.step"]: run for run in own if run.data.params.get("student") != "itemknn"}
    config = DistillConfig(
        **{name: str(v) if name == "llm" else v for name, v in options.items() if name != "baselines"}
    )
    alone = {
        "distill": distill(changed(config, force=True)),
        "backbone": backbone(changed(narrow(config, BaselineConfig), force=True)),
    }
    for step, run in alone.items():
        launched_run = of_step[step]
        assert launched_run.data.tags["recdistill.key"] == run.key
        for name in ("train/total", "val/ndcg_at_10"):
            found, expected = curve(launched_run.info.run_id, name), curve(run.run_id, name)
            assert len(found) == len(expected) >= options["epochs"]
            assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert not list(taught.place.checkpoints("student.safetensors"))


@pytest.mark.slow
def test_two_processes_make_a_teacher_on_the_way_and_refit(taught):
    student = {name: value for name, value in SMALL_STUDENT.items() if name != "baselines"}
    options = taught.options | student | {
        "base_loss": "sampled", "negatives": 20, "output_weight": 0.5, "refit": True,
        "gate_scale": 0.33, "gradient_checkpointing": True,
    }  # fmt: skip
    before = {run.info.run_id for run in MlflowClient().search_runs(["0"])}
    done = launched(TORCHRUN, taught, options, step="distill")
    assert done.returncode == 0, done.stderr[-3000:]
    made = [run for run in MlflowClient().search_runs(["0"]) if run.info.run_id not in before]
    assert {run.info.status for run in made} == {"FINISHED"}
    steps = Counter(run.data.tags["recdistill.step"] for run in made)
    # The student, and the same trained again on all interactions.
    assert (steps["distill"], steps["teacher"]) == (2, 1)
    (first,) = [
        run for run in made if "test/ndcg_at_10" in run.data.metrics and "teacher_covered_share" in run.data.metrics
    ]
    again = [run for run in made if run.data.tags.get("recdistill.refit") == "true"]
    assert len(again) == 1
    own = {name: str(value) if name == "llm" else value for name, value in options.items()}
    (learnt,) = [run for run in made if run.data.tags["recdistill.step"] == "teacher"]
    alone = distill(DistillConfig(**own | {"refit": False, "force": True, "teacher_run_id": learnt.info.run_id}))
    found, expected = curve(first.info.run_id, "train/total"), curve(alone.run_id, "train/total")
    assert len(found) == len(expected) == options["epochs"]
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_other_steps_are_refused_under_a_launch(rank, monkeypatch, capsys):
    waited = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert module.main(["sweep"]) == 1
    said = (
        "recdistill sweep: runs in one process; launch main, backbone, teacher, distill alone, and start sweep by "
        "itself\n"
    )
    assert capsys.readouterr().err == said
    # The main process has the first word.
    assert waited == ([] if rank == "0" else [module.GRACE_SECONDS])


@pytest.mark.slow
def test_a_mistake_is_said_once_and_ends_all(taught):
    started = time.monotonic()
    done = launched(TORCHRUN, taught, taught.options | {"backbone_run_id": "nonsense"})
    assert done.returncode != 0
    assert time.monotonic() - started < SECONDS / 2
    said = [line for line in done.stderr.splitlines() if line.startswith("recdistill teacher: ")]
    assert len(said) == 1
    assert "backbone_run_id=nonsense: no such run" in said[0]
    run = taught.place.newest("teacher")
    assert run.info.status == "FAILED"
    assert "nonsense" in run.data.tags["recdistill.failure"]
