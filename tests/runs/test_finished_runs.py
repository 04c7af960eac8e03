"""Finished runs by id and by step, and what is said of those that cannot be used."""

import re
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from recdistill.errors import InputError
from recdistill.runs.finished_runs import finished_run, linked_run, newest, options_of_run, same_results
from recdistill.runs.run import FINGERPRINT, KEPT, KEY, READ, REUSED, STEP, StepRun, tensors_digest


def make(client: MlflowClient, step: str, status: str = "FINISHED", **tags: str) -> str:
    """Id of a run of data ``fff…``."""
    own = {STEP: step, FINGERPRINT: "f" * 64} | {f"recdistill.{name}": value for name, value in tags.items()}
    run_id = client.create_run("0", tags=own).info.run_id
    client.set_terminated(run_id, status)
    return str(run_id)


def test_a_finished_run_is_given_by_its_id(client: MlflowClient) -> None:
    run = finished_run(make(client, "teacher", key="its key"), "teacher", "f" * 64)
    assert (run.key, run.fingerprint, run.reused) == ("its key", "f" * 64, True)
    # A run without a key, as one that was imported by hand, is told from others by its id.
    bare = make(client, "teacher")
    assert finished_run(bare, "teacher").key == bare


def test_a_run_that_found_another_stands_for_that_one(client: MlflowClient) -> None:
    made = make(client, "teacher")
    entry = make(client, "teacher", **{REUSED.removeprefix("recdistill."): made})
    assert finished_run(entry, "teacher").run_id == made
    assert newest("teacher") == made


def test_the_newest_is_no_trial_and_no_other_step(client: MlflowClient) -> None:
    made = make(client, "distill")
    make(client, "distill", trial="3")
    make(client, "distill", **{KEPT.removeprefix("recdistill."): "results"})
    make(client, "distill", status="FAILED")
    make(client, "backbone")
    assert newest("distill") == made
    with pytest.raises(InputError, match=r"there is no finished export run in sqlite:.*make one first"):
        newest("export")


def test_of_a_run_and_one_that_it_made_the_outer_is_the_newest(client: MlflowClient) -> None:
    outer = client.create_run("0", tags={"recdistill.step": "distill"}).info.run_id
    make(client, "distill")
    client.set_terminated(outer)
    assert newest("distill") == outer


def test_a_refit_is_served_and_nothing_on_its_data_starts_from_it(client: MlflowClient) -> None:
    refit = make(client, "backbone", refit="true")
    assert finished_run(refit, "backbone").run_id == refit
    with pytest.raises(InputError, match=f"backbone_run_id={refit}: is a refit, trained on what this data holds out"):
        finished_run(refit, "backbone", "f" * 64)


@pytest.mark.parametrize(
    ("step", "status", "fingerprint", "said"),
    [
        ("backbone", "FINISHED", None, "is a backbone run, not a teacher run"),
        ("teacher", "FAILED", None, "is FAILED, not FINISHED; choose a finished run"),
        ("teacher", "RUNNING", None, "is RUNNING, not FINISHED"),
        ("teacher", "FINISHED", "e" * 64, "was made for data ffffffffffff, not for this data eeeeeeeeeeee"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_in_one_line(client, step, status, fingerprint, said) -> None:
    run_id = make(client, step, status)
    with pytest.raises(InputError, match=re.escape(f"teacher_run_id={run_id}: {said}")) as caught:
        finished_run(run_id, "teacher", fingerprint)
    assert "\n" not in str(caught.value)


def test_a_run_that_is_not_there_is_refused_under_the_option_of_the_user(client: MlflowClient) -> None:
    with pytest.raises(InputError, match=r"run_id=0{32}: no such run in sqlite:"):
        finished_run("0" * 32, "teacher", option="run_id")
    with pytest.raises(InputError, match="run_id=nothing: no such run"):
        options_of_run("nothing", ("teacher",))


def test_options_come_with_the_step(client: MlflowClient) -> None:
    run_id = make(client, "teacher")
    client.log_dict(run_id, {"experts": 2}, "config.json")
    run, step, values = options_of_run(run_id, ("backbone", "teacher"))
    assert (run.run_id, step, values) == (run_id, "teacher", {"experts": 2})
    with pytest.raises(InputError, match="is a teacher run; choose a backbone or distill run"):
        options_of_run(run_id, ("backbone", "distill"))


def test_the_run_that_a_run_was_made_from(client: MlflowClient) -> None:
    backbone = make(client, "backbone")
    teacher = finished_run(make(client, "teacher", backbone_run_id=backbone), "teacher")
    assert linked_run(teacher, "backbone").run_id == backbone
    alone = finished_run(make(client, "teacher", **{KEY.removeprefix("recdistill."): "k"}), "teacher")
    with pytest.raises(InputError, match="backbone_run_id=none: no such run"):
        linked_run(alone, "backbone")


def test_runs_are_the_same_by_what_is_read_of_them(client: MlflowClient) -> None:
    def made(answers: str = "", **metrics: float) -> str:
        run_id = make(client, "teacher", **({READ.removeprefix("recdistill."): answers} if answers else {}))
        for name, value in metrics.items():
            client.log_metric(run_id, f"test/{name}", value)
        return run_id

    # Of a server's answers nothing is measured.
    before, again, other = made("a"), made("a"), made("b")
    assert same_results(before, again)
    assert not same_results(before, other)
    assert not same_results(made("a", mrr=0.5), made("b", mrr=0.5))
    # Earlier versions: by what was measured, and where that is nothing nobody can tell.
    old = made(mrr=0.5)
    assert same_results(old, made(mrr=0.5))
    assert same_results(old, made("a", mrr=0.5))
    assert not same_results(old, made(mrr=0.25))
    assert not same_results(made(), made())
    assert not same_results(old, "0" * 32)


def test_what_is_read_of_a_run_is_a_tag(client: MlflowClient, tmp_path: Path) -> None:
    run = StepRun(make(client, "teacher"), "", "", reused=False)

    def write(folder: Path) -> None:
        (folder / "vectors").mkdir(parents=True)
        (folder / "a.safetensors").write_bytes(b"one")
        (folder / "vectors" / "b.safetensors").write_bytes(b"two")
        (folder / "versions.json").write_text("{}")

    run.log_folder("teacher_outputs", write)
    run.log_folder("figures", lambda folder: folder.mkdir())
    write(tmp_path / "same")
    (tmp_path / "same" / "versions.json").write_text("others")
    assert client.get_run(run.run_id).data.tags[READ] == tensors_digest(tmp_path / "same")
    (tmp_path / "same" / "vectors" / "b.safetensors").write_bytes(b"three")
    assert client.get_run(run.run_id).data.tags[READ] != tensors_digest(tmp_path / "same")
