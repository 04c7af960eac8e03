"""A sweep over real trainings: a tiny random LLM teaches students of a small data set."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from sweep_runs_seen import children, runs, trials_of
from sweep_store import own_store
from sweep_stub import options
from tiny_llm import write_tiny_llm

from recdistill.runs.step_runs import entry_run
from recdistill.steps.sweep import sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
TEACHER = """\
objective: val/ndcg_at_20
parameters:
  experts: {choices: [1, 2]}
  lam: {low: 0.0, high: 1.0}
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_store(monkeypatch) as path:
        yield path


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny_llm(tmp_path_factory.mktemp("llm")))


def swept(folder: Path, space: str, llm: str, **changed: object) -> str:
    small = {"llm": llm, "token_budget": 500, "outputs_token_budget": 500, "tokens_per_batch": 200, "final_seeds": 1}
    with entry_run("sweep"):
        return sweep(options(folder, space, **(small | changed))).run_id


@pytest.mark.slow
def test_the_quick_space_shares_one_teacher(folder: Path, llm: str) -> None:
    parent = swept(folder, (SWEEPS / "quick.yaml").read_text(), llm, trials=3)
    trials = trials_of(parent)
    assert sorted(trials) == [0, 1, 2]
    steps = Counter(run.data.tags["recdistill.step"] for run in runs())
    # Three trials, and the best and the default once more; the undistilled student beside the frozen backbone.
    assert steps == {"sweep": 1, "teacher": 1, "distill": 5, "backbone": 2}
    (teacher,) = runs("tags.`recdistill.step` = 'teacher'")
    for trial in trials.values():
        assert trial.info.status == "FINISHED"
        assert trial.data.tags["recdistill.teacher_run_id"] == teacher.info.run_id
        assert {"val/ndcg_at_20", "test/ndcg_at_20", "test/hr_at_10", "latency_ms"} <= set(trial.data.metrics)
        artifacts = {item.path for item in mlflow.MlflowClient().list_artifacts(trial.info.run_id)}
        assert {"student", "ranks", "config.json"} <= artifacts
    assert teacher.data.tags["mlflow.parentRunId"] == parent


@pytest.mark.slow
def test_a_teacher_space_shares_the_backbone(folder: Path, llm: str) -> None:
    parent = swept(folder, TEACHER, llm, trials=4, final_seeds=0)
    trials = trials_of(parent)
    taught_by = {number: run.data.tags["recdistill.teacher_run_id"] for number, run in trials.items()}
    experts = {number: run.data.params["experts"] for number, run in trials.items()}
    # As many teachers as settings of a teacher, each made in the first trial that needs it.
    assert {taught_by[a] == taught_by[b] for a in experts for b in experts if experts[a] == experts[b]} == {True}
    teachers = runs("tags.`recdistill.step` = 'teacher'")
    assert {run.info.run_id for run in teachers} == set(taught_by.values())
    assert {run.data.params["experts"] for run in teachers} == set(experts.values())
    (backbone,) = runs("tags.`recdistill.step` = 'backbone'")
    assert backbone.info.run_id in {run.info.run_id for run in children(parent)}
