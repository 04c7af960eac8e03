"""A sweep whose final seeds train as one batched model, by real trainings of a teacher that lies in files."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Run
from sweep_runs_seen import children, runs
from sweep_store import own_store
from sweep_stub import options

from recdistill.config import DataConfig, narrow
from recdistill.errors import InputError
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.step_runs import entry_run
from recdistill.steps.inputs import data_of
from recdistill.steps.sweep import sweep
from recdistill.students.together import COMPANY, Stacked
from recdistill.sweep import figures
from recdistill.teachers.outputs import Manifest, TeacherOutputs, write_teacher_outputs

SPACE = """\
objective: val/ndcg_at_20
parameters:
  lam: {low: 0.1, high: 1.0}
"""
#: Seed 0 is that of the trials.
SEEDS, GROUP = (1, 2, 3), "1, 2, 3"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_store(monkeypatch) as path:
        monkeypatch.setattr(figures, "draw_png", lambda figure, path: path.touch())
        yield path


def swept(folder: Path, space: str = SPACE, **changed: Any) -> str:
    """Id of the run of a sweep."""
    place = folder / "teacher"
    small = {"epochs": 2, "trials": 1, "final_seeds": 3, "teacher_files": str(place), "final_together": True}
    config = options(folder, space, **(small | {"seed": 0, "learning_rate": 5e-4, "batch_size": 32} | changed))
    if not place.exists():
        data = data_of(narrow(config, DataConfig))
        sample = torch.arange(len(data.train))
        generator = torch.Generator().manual_seed(1)
        draw = torch.rand(len(sample), data.num_items, generator=generator)
        write_teacher_outputs(
            place,
            TeacherOutputs(
                Manifest(data.fingerprint, "tiny", data.num_items, len(sample), data.split),
                sample,
                draw.argsort(dim=1)[:, :12],
                draw[:, :12].sort(dim=1).values,
                torch.randn(data.num_items, 6, generator=generator),
                None,
            ),
        )
    with entry_run("sweep"):
        return sweep(config).run_id


def finals(parent: str) -> dict[tuple[str, int], Run]:
    """The final trainings' runs, by configuration and seed."""
    found = [run for run in children(parent) if "recdistill.final" in run.data.tags]
    return {
        (run.data.tags["recdistill.final"], int(run.data.tags["recdistill.name"].split()[-1])): run for run in found
    }


def key_parts(run: Run) -> dict[str, Any]:
    """What the key of a run, or of the one found in its place, is made of."""
    run = next((one for one in runs() if one.info.run_id == run.data.tags.get("recdistill.reused_run_id")), run)
    found: dict[str, Any] = json.loads(local_artifact(f"{run.info.artifact_uri}/key.json").read_text())
    return found


def test_final_seeds_train_together_each_in_a_run_of_its_own(folder: Path) -> None:
    parent = swept(folder)
    together = finals(parent)
    assert sorted(together) == [(name, seed) for name in ("best", "default", "undistilled") for seed in SEEDS]
    for run in together.values():
        assert (run.info.status, run.data.tags["recdistill.state"]) == ("FINISHED", "complete")
        assert key_parts(run)["options"][COMPANY] == GROUP
        assert run.data.metrics["test/ndcg_at_10"] > 0
    # Another sweep of the same final seeds, whose trial has another seed and name, finds the undistilled ones.
    again = finals(swept(folder, study="another", trials=2))
    for seed in SEEDS:
        found = again["undistilled", seed].data.tags["recdistill.reused_run_id"]
        assert found == together["undistilled", seed].info.run_id
    # Alone they are others, with the same result where there is no dropout.
    alone = finals(swept(folder, final_together=False, final_jobs=1, study="alone"))
    for place, run in alone.items():
        # The first trial is the default's, whose finals are then those of the best.
        assert ("recdistill.reused_run_id" in run.data.tags) == (place[0] == "default")
        assert COMPANY not in key_parts(run)["options"]
        assert run.data.tags.get("recdistill.reused_run_id") not in {one.info.run_id for one in together.values()}
        for name in ("val/ndcg_at_20", "test/ndcg_at_20", "val/mrr"):
            assert run.data.metrics[name] == pytest.approx(together[place].data.metrics[name], rel=1e-4), (place, name)


def test_a_seed_that_fails_stops_the_others_and_the_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, calls = Stacked.compute, []

    def fails(self: Stacked) -> Any:
        calls.append(self)
        if len(calls) < 3:
            return compute(self)
        self.members[1].error = InputError("no seed 2 today")
        return self.members[1]

    with monkeypatch.context() as patched:
        patched.setattr(Stacked, "compute", fails)
        with pytest.raises(InputError, match="no seed 2 today"):
            swept(folder)
    (parent,) = runs("tags.`recdistill.step` = 'sweep'")
    ended = {place: run.info.status for place, run in finals(parent.info.run_id).items()}
    assert ended == {("best", 1): "KILLED", ("best", 2): "FAILED", ("best", 3): "KILLED"}
    # The same command goes on.
    assert {run.info.status for run in finals(swept(folder)).values()} == {"FINISHED"}


def test_an_interrupt_stops_all_and_those_that_have_finished_are_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute, calls = Stacked.compute, []

    def interrupted(self: Stacked) -> Any:
        calls.append(self)
        # Of the second group that is trained, the undistilled.
        if calls[0].members[0] is not self.members[0]:
            raise KeyboardInterrupt
        return compute(self)

    with monkeypatch.context() as patched:
        patched.setattr(Stacked, "compute", interrupted)
        with pytest.raises(KeyboardInterrupt):
            swept(folder)
    (parent,) = runs("tags.`recdistill.step` = 'sweep'")
    before = finals(parent.info.run_id)
    assert {place: run.info.status for place, run in before.items()} == {
        (name, seed): "KILLED" if name == "undistilled" else "FINISHED"
        for name in ("best", "default", "undistilled")
        for seed in SEEDS
    }
    after = finals(swept(folder))
    for seed in SEEDS:
        assert after["best", seed].data.tags["recdistill.reused_run_id"] == before["best", seed].info.run_id
        assert after["undistilled", seed].info.status == "FINISHED"


def test_a_single_seed_has_the_key_of_a_seed_alone(folder: Path) -> None:
    runs_of = finals(swept(folder, final_seeds=1))
    assert len(runs_of) == 3
    for run in runs_of.values():
        assert COMPANY not in key_parts(run)["options"]


@pytest.mark.parametrize(
    ("space", "given", "said"),
    [
        (
            SPACE,
            {"final_jobs": 2},
            "final_jobs=2: final_together=true trains seeds in one process; leave one of them out",
        ),
        (SPACE + "  student: {choices: [sasrec, gru4rec]}\n", {}, "student=gru4rec cannot be batched; use one of"),
        (SPACE, {"base_loss": "sampled"}, "base_loss=sampled has sparse gradients, which are not batched; use ce"),
    ],
)
def test_what_cannot_train_together_is_refused_before_any_work(
    folder: Path, space: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        swept(folder, space, **given)
    assert "\n" not in str(refused.value)
    assert not runs("tags.`recdistill.step` = 'distill'")
    if "final_jobs" not in given:
        with pytest.raises(InputError, match=said):
            swept(folder, space, estimate=True, **given)
        # Alone they are taken.
        swept(folder, space, final_together=False, final_seeds=0, **given)
