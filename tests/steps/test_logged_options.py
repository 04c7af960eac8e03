"""A run shows as parameters what made its numbers."""

import mlflow
from mlflow.tracking import MlflowClient
from workplace import run_step

from recdistill.__main__ import main
from recdistill.config import TeacherConfig

SMALL = {"hidden_size": 8, "blocks": 1, "epochs": 1, "candidate_topk": 5}


def test_a_distillation_shows_the_teacher_that_it_found_and_not_its_own_defaults(taught) -> None:
    """The teachers of `taught` had budgets of their own; the command asks for none."""
    options = {name: value for name, value in taught.options.items() if name not in ("token_budget",)}
    assert run_step("distill", **options, **SMALL) == 0
    run = taught.place.newest("distill")
    params = run.data.params
    teacher = MlflowClient().get_run(run.data.tags["recdistill.teacher_run_id"]).data.params
    assert params["teacher.token_budget"] == teacher["token_budget"] != str(TeacherConfig().token_budget)
    assert params["teacher.top_n"] == "12"
    assert "token_budget" not in params
    assert (params["lam"], params["blocks"], params["split"]) == ("0.5", "1", "user-holdout")
    assert "teacher.seed" in params
    assert "teacher.dataset" not in params


def test_what_mlflow_run_logged_before_and_was_not_used_is_told(taught, monkeypatch) -> None:
    with mlflow.start_run() as run:
        pass
    client = MlflowClient()
    for name, text in {"epochs": "1.0e0", "hidden_size": "64", "lam": "0.50"}.items():
        client.log_param(run.info.run_id, name, text)
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    options = {**taught.options, **SMALL, "seed": 3, "teacher_run_id": taught.run_id}
    assert run_step("distill", **options) == 0
    params = client.get_run(run.info.run_id).data.params
    assert (params["hidden_size"], params["used.hidden_size"]) == ("64", "8")
    assert params["lam"] == "0.50"
    assert "used.lam" not in params


def test_a_run_that_found_another_shows_its_options_too(taught) -> None:
    options = {**taught.options, **SMALL, "seed": 4, "teacher_run_id": taught.run_id}
    assert run_step("distill", **options) == run_step("distill", **options) == 0
    again = taught.place.newest("distill")
    assert "recdistill.reused_run_id" in again.data.tags
    first = MlflowClient().get_run(again.data.tags["recdistill.reused_run_id"])
    assert again.data.params == first.data.params


def test_the_help_of_a_step_needs_no_store() -> None:
    assert main(["distill", "--help"]) == 0
