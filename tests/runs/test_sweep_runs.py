"""Runs nested in a sweep's: how they end, and how they are set right after a kill."""

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from recdistill.config import BaselineConfig
from recdistill.errors import Pruned
from recdistill.runs.run import REASON, STEP
from recdistill.runs.step_runs import step_run
from recdistill.runs.sweep_runs import PARENT, STATE, STUDY_ID, TRIAL, adopt, child_run, is_there, settle_trials


@pytest.mark.parametrize(
    ("error", "status", "state"),
    [
        (None, "FINISHED", "complete"),
        (Pruned("no hope"), "KILLED", "pruned"),
        (KeyboardInterrupt(), "KILLED", "killed"),
        (ValueError("bad"), "FAILED", "failed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_trial_ends_as_its_training_did(client: MlflowClient, error, status: str, state: str) -> None:
    parent = client.create_run("0").info.run_id
    made = []

    def train() -> None:
        with child_run("backbone", parent, "trial 0", {TRIAL: "0"}, {"lam": 0.5}) as run_id:
            made.append(run_id)
            # The step of that name writes to it.
            with step_run("backbone", BaselineConfig(force=True), data="f" * 64, kept="results") as run:
                assert run.run_id == run_id
                assert mlflow.active_run().info.run_id == run_id
            if error is not None:
                raise error

    if error is None:
        train()
    else:
        with pytest.raises(type(error)):
            train()
    run = client.get_run(made[0])
    assert (run.info.status, run.data.tags[STATE], run.info.run_name) == (status, state, "trial 0")
    assert (run.data.tags[PARENT], run.data.tags[STEP]) == (parent, "backbone")
    assert run.data.params["lam"] == "0.5"
    assert (REASON in run.data.tags) == (error is not None)
    assert mlflow.active_run() is None


def test_runs_are_made_to_agree_with_the_storage(client: MlflowClient) -> None:
    def trial(number: int) -> str:
        own = {STUDY_ID: "study", TRIAL: str(number), STATE: "running"}
        return str(client.create_run("0", tags=own).info.run_id)

    dead, alive = trial(0), trial(1)
    nested = client.create_run("0", tags={PARENT: dead}).info.run_id
    settle_trials("study", {0: "killed"})
    assert [client.get_run(run_id).info.status for run_id in (dead, nested, alive)] == ["KILLED", "KILLED", "RUNNING"]
    assert client.get_run(dead).data.tags[STATE] == "killed"


def test_another_process_takes_the_trials_over(client: MlflowClient) -> None:
    before, now = (client.create_run("0").info.run_id for _ in range(2))
    trial = client.create_run("0", tags={STUDY_ID: "other", TRIAL: "0", PARENT: before}).info.run_id
    assert is_there(before)
    adopt("other", now, before)
    assert client.get_run(trial).data.tags[PARENT] == now
    assert not is_there(before)
    assert not is_there("nothing")
    # A study may be kept where the store was begun anew.
    adopt("other", now, "0" * 32)


def test_an_answer_is_there_while_its_run_and_its_artifacts_are(client: MlflowClient) -> None:
    bare, whole = (client.create_run("0").info.run_id for _ in range(2))
    client.log_text(whole, "the answer", "said.md")
    assert is_there(bare)
    for run_id in (bare, whole):
        client.set_terminated(run_id)
    assert (is_there(bare), is_there(whole)) == (False, True)
    client.delete_run(whole)
    assert not is_there(whole)
    trial = client.create_run("0", tags={STUDY_ID: "kept", TRIAL: "0", PARENT: whole}).info.run_id
    # A deleted run takes no tags.
    adopt("kept", bare, whole)
    assert client.get_run(trial).data.tags[PARENT] == bare
