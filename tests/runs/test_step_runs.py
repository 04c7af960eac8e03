"""A run a step: what it logs, when it is found again, how it ends, and what a kill leaves."""

import errno
import json
import threading
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils.name_utils import _generate_random_name
from small_data import write_csv

from recdistill.config import BaselineConfig, DataConfig, changed
from recdistill.config.lineage import key_parts, near_key, run_key
from recdistill.data.downloads import cache_dir
from recdistill.data.load import load_data
from recdistill.errors import InputError, Pruned
from recdistill.runs import outbox as outbox_module
from recdistill.runs import step_runs as module
from recdistill.runs.outbox import LostStoreError, outbox, outbox_folder
from recdistill.runs.provenance import code_at_hand
from recdistill.runs.run import (
    COMMIT,
    CONTINUED,
    DIRTY,
    FINGERPRINT,
    KEPT,
    KEY,
    NAME,
    NEAR_KEY,
    REASON,
    REUSED,
    STEP,
    StepRun,
)
from recdistill.runs.step_runs import entry_run, find_finished, find_near, newest, step_run

CONFIG = BaselineConfig(hidden_size=16)
NAMED = "sasrec undistilled · hidden_size 16 · seed 1"


@pytest.fixture
def fingerprint(request: pytest.FixtureRequest) -> str:
    """Data of the test's own, so that no test finds another's runs."""
    return request.node.name.ljust(64, "f")


def finish(fingerprint: str, config: BaselineConfig = CONFIG, step: str = "backbone", **options) -> StepRun:
    """A finished run that keeps a number and a file."""
    with step_run(step, config, data=fingerprint, **options) as run:
        if not run.reused:
            run.log_metrics({"test/hr_at_10": 0.25})
            run.log_text("note.txt", "kept")
    return run


def read(run: StepRun, name: str) -> dict:
    return json.loads(run.artifact(name).read_text())


def test_a_finished_run_is_found_again_and_another_is_not(client: MlflowClient, fingerprint: str) -> None:
    made = finish(fingerprint)
    again = finish(fingerprint)
    assert (made.reused, again.reused, again.run_id) == (False, True, made.run_id)
    assert again.metrics()["test/hr_at_10"] == 0.25
    assert client.get_run(made.run_id).info.status == "FINISHED"
    for other in (changed(CONFIG, hidden_size=8), changed(CONFIG, seed=2), changed(CONFIG, epochs=3)):
        assert finish(fingerprint, other).run_id != made.run_id
    assert finish("e" * 64).run_id != made.run_id


def test_places_do_not_matter(fingerprint: str, client: MlflowClient) -> None:
    made = finish(fingerprint)
    assert finish(fingerprint, changed(CONFIG, device="cpu", register="name")).run_id == made.run_id


def test_force_makes_it_again(client: MlflowClient, fingerprint: str) -> None:
    made = finish(fingerprint)
    again = finish(fingerprint, changed(CONFIG, force=True))
    assert again.run_id != made.run_id
    assert finish(fingerprint).run_id == again.run_id


def measured(client: MlflowClient, step: str, gain: float) -> StepRun:
    """A finished run with a key that all share, as of one that ``force`` made again."""
    run_id = client.create_run("0", tags={STEP: step}).info.run_id
    client.log_metric(run_id, "test/ndcg_at_10", gain)
    client.set_terminated(run_id)
    return StepRun(run_id, "their key", "", reused=True)


def test_what_started_from_a_run_is_not_found_for_another_that_came_out_otherwise(
    client: MlflowClient, fingerprint: str
) -> None:
    before, forced, same = (measured(client, "teacher", gain) for gain in (0.2, 0.3, 0.2))
    made = finish(fingerprint, upstream={"teacher": before})
    of_forced = finish(fingerprint, upstream={"teacher": forced})
    assert of_forced.key == made.key
    assert not of_forced.reused
    assert finish(fingerprint, upstream={"teacher": forced}).run_id == of_forced.run_id
    # That came out as the first one, to the last bit.
    assert finish(fingerprint, upstream={"teacher": same}).run_id == made.run_id
    # Nobody can tell what a deleted run was.
    client.delete_run(before.run_id)
    assert finish(fingerprint, upstream={"teacher": same}).reused


def test_what_is_kept_of_options(client: MlflowClient, fingerprint: str) -> None:
    upstream = {"teacher": StepRun("t" * 32, "key of the teacher", fingerprint, reused=True)}
    run = finish(fingerprint, upstream=upstream)
    assert read(run, "config.json") == CONFIG.values()
    assert read(run, "config.json")["blocks"] == 2
    expected = key_parts("backbone", CONFIG, fingerprint, {"teacher": "key of the teacher"})
    assert read(run, "key.json") == expected
    assert run.key == run_key("backbone", CONFIG, fingerprint, {"teacher": "key of the teacher"})
    logged = client.get_run(run.run_id).data
    assert logged.params == {name: str(value) for name, value in CONFIG.values().items()}
    assert logged.tags["recdistill.teacher_run_id"] == "t" * 32
    assert logged.tags[NEAR_KEY] == near_key("backbone", CONFIG, fingerprint)
    assert read(run, "versions.json")["torch"]


def test_contents_of_files_are_kept_with_the_key(client: MlflowClient, fingerprint: str, tmp_path: Path) -> None:
    (tmp_path / "one.pt").write_text("weights")
    (tmp_path / "two.pt").write_text("other weights")
    one, two = (changed(CONFIG, released=str(tmp_path / name)) for name in ("one.pt", "two.pt"))
    made = finish(fingerprint, one)
    assert len(read(made, "key.json")["options"]["released content"]) == 64
    assert finish(fingerprint, two).run_id != made.run_id
    assert "released" not in read(made, "key.json")["options"]


def test_a_run_that_keeps_results_alone_is_not_found_in_place_of_a_whole_one(
    client: MlflowClient, fingerprint: str
) -> None:
    trial = finish(fingerprint, kept="results")
    assert client.get_run(trial.run_id).data.tags[KEPT] == "results"
    assert read(trial, "key.json")["kept"] == "results"
    assert (trial.kept, finish(fingerprint, kept="results").run_id) == ("results", trial.run_id)
    assert find_near(near_key("backbone", CONFIG, fingerprint)) is None
    assert newest("backbone") != trial.run_id
    whole = finish(fingerprint)
    assert (whole.kept, whole.reused) == ("all", False)
    # Nor the other way: a sweep may count on what a trial has.
    assert finish(fingerprint, kept="results").run_id == trial.run_id


def test_a_near_run_differs_in_seed_budget_or_upstream(client: MlflowClient, fingerprint: str) -> None:
    first = finish(fingerprint)
    last = finish(fingerprint, changed(CONFIG, seed=7, epochs=1))
    finish(fingerprint, changed(CONFIG, hidden_size=8))
    found = find_near(near_key("backbone", CONFIG, fingerprint))
    assert found is not None
    assert (found.run_id, found.key) == (last.run_id, last.key)
    client.delete_run(last.run_id)
    found = find_near(near_key("backbone", CONFIG, fingerprint))
    assert found is not None
    assert found.run_id == first.run_id


def test_a_run_whose_artifacts_are_gone_is_not_found(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finish(fingerprint)
    assert find_finished(made.key) is not None
    monkeypatch.setattr(MlflowClient, "list_artifacts", lambda self, run_id: [])
    assert find_finished(made.key) is None


def test_tags_are_there_from_the_first_moment(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    created, create = [], MlflowClient.create_run
    monkeypatch.setattr(
        MlflowClient,
        "create_run",
        lambda self, *given, tags=None, **named: created.append(dict(tags)) or create(self, *given, tags=tags, **named),
    )
    with entry_run("main"):
        finish(fingerprint)
    main, backbone = created
    assert main[STEP] == "main"
    assert {STEP, FINGERPRINT, COMMIT, DIRTY, NEAR_KEY, "mlflow.parentRunId"} <= backbone.keys()
    assert (backbone[STEP], backbone[FINGERPRINT]) == ("backbone", fingerprint)


def test_the_step_of_its_name_claims_the_entry_run_and_others_nest(client: MlflowClient, fingerprint: str) -> None:
    with entry_run("backbone"):
        entry = mlflow.active_run().info.run_id
        own = finish(fingerprint)
        other = finish(fingerprint, changed(CONFIG, seed=2))
        assert mlflow.active_run().info.run_id == entry
    assert own.run_id == entry
    assert client.get_run(other.run_id).data.tags["mlflow.parentRunId"] == entry
    tags = client.get_run(entry).data.tags
    assert (tags[STEP], tags[FINGERPRINT], tags[KEY]) == ("backbone", fingerprint, own.key)


def test_threads_have_entry_runs_of_their_own(client: MlflowClient, fingerprint: str) -> None:
    found, inside, outside = [], threading.Event(), threading.Event()

    def other() -> None:
        with module.claimable("another", "backbone"):
            inside.set()
            outside.wait(10)
            found.append(module.claimed_entry("backbone"))

    with module.claimable("one", "backbone"):
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait(10)
        found.append(module.claimed_entry("backbone"))
        outside.set()
        thread.join(10)
    assert found == ["one", "another"]
    assert module.claimed_entry("backbone") is None


def test_an_entry_run_that_finds_a_finished_one_says_so(client: MlflowClient, fingerprint: str) -> None:
    made = finish(fingerprint)
    with entry_run("backbone"):
        entry = mlflow.active_run().info.run_id
        assert finish(fingerprint).run_id == made.run_id
    run = client.get_run(entry)
    assert run.data.tags[REUSED] == made.run_id
    assert run.data.metrics == {"test/hr_at_10": 0.25}
    assert run.data.params == client.get_run(made.run_id).data.params != {}
    assert KEY not in run.data.tags


def test_what_mlflow_run_logged_stays(client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launched = client.create_run("0", run_name="gentle-fox-123").info.run_id
    client.log_param(launched, "learning_rate", "0.0020")
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    with entry_run("backbone"):
        finish(fingerprint)
    run = client.get_run(launched)
    assert run.data.params["learning_rate"] == "0.0020"
    assert run.data.params["hidden_size"] == "16"
    assert (run.info.run_name, run.data.tags[STEP]) == (NAMED, "backbone")
    assert run.data.tags[NAME] == NAMED


@pytest.mark.parametrize("name", ["my run", "sasrec-tuned-2"])
def test_a_name_that_a_user_gave_stays(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    launched = client.create_run("0", run_name=name).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", launched)
    with entry_run("backbone"):
        finish(fingerprint)
    assert client.get_run(launched).info.run_name == name
    assert NAME not in client.get_run(launched).data.tags


def test_names_that_mlflow_makes_up_are_known() -> None:
    assert all(module.is_generated(_generate_random_name(max_length=99)) for _ in range(50))


def test_a_run_is_named_by_what_was_asked_also_where_a_finished_one_answers(
    client: MlflowClient, fingerprint: str
) -> None:
    for _ in range(2):
        with entry_run("backbone"):
            finish(fingerprint)
    entries = client.search_runs(["0"], f"tags.`{NAME}` = '{NAMED}'", max_results=2)
    assert [run.info.run_name for run in entries] == [NAMED, NAMED]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("lam=2: too much"), "FAILED", "lam=2: too much"),
        (ValueError("a\nb"), "FAILED", "ValueError: a b"),
        (Pruned("no hope"), "KILLED", "Pruned: no hope"),
        (KeyboardInterrupt(), "KILLED", "KeyboardInterrupt: "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_ends_the_run_with_its_reason(
    client: MlflowClient, fingerprint: str, error: BaseException, status: str, said: str
) -> None:
    begun: list[StepRun] = []

    def fail() -> None:
        with step_run("backbone", CONFIG, data=fingerprint) as run:
            begun.append(run)
            (run.work / "checkpoint").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    (run,) = begun
    ended = client.get_run(run.run_id)
    assert (ended.info.status, ended.data.tags[REASON]) == (status, said)
    assert KEY not in ended.data.tags
    # A pruned trial is not continued by anyone.
    assert (run.work / "checkpoint").exists() == (not isinstance(error, Pruned))
    assert not finish(fingerprint).reused
    assert not run.work.exists()


def test_what_fails_behind_the_results_leaves_the_run_to_be_found(client: MlflowClient, fingerprint: str) -> None:
    made: list[StepRun] = []

    def register() -> None:
        with entry_run("backbone"):
            made.append(finish(fingerprint))
            # A kill would leave it so.
            assert client.get_run(made[0].run_id).info.status == "FINISHED"
            raise InputError("register=films: the registry is away")

    with pytest.raises(InputError, match="the registry is away"):
        register()
    run = client.get_run(made[0].run_id)
    assert (run.info.status, run.data.tags[REASON]) == ("FINISHED", "register=films: the registry is away")
    assert finish(fingerprint).run_id == made[0].run_id


def test_the_registry_is_asked_before_the_work(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.get_registry_uri", lambda: "http://127.0.0.1:9")
    monkeypatch.setattr(MlflowClient, "get_registered_model", lambda self, name: 1 / 0)
    registering = changed(CONFIG, register="films")
    with pytest.raises(InputError, match=r"^MLFLOW_REGISTRY_URI=http://127\.0\.0\.1:9: no server answers"):
        finish(fingerprint, registering)
    made = finish(fingerprint)
    assert not made.reused
    assert finish(fingerprint, registering).run_id == made.run_id


def test_a_killed_run_is_marked_by_the_one_that_goes_on(client: MlflowClient, fingerprint: str) -> None:
    killed = client.create_run("0").info.run_id
    entry = client.create_run("0").info.run_id
    work = cache_dir() / "runs" / run_key("backbone", CONFIG, fingerprint)
    work.mkdir(parents=True)
    (work / "checkpoint").touch()
    # No process has this number: it is above the greatest that there may be.
    (work / "run.json").write_text(json.dumps({"run_id": killed, "entry_run_id": entry, "process": 2**22 + 1}))
    with step_run("backbone", CONFIG, data=fingerprint) as run:
        assert (run.work / "checkpoint").exists()
    for run_id in (killed, entry):
        ended = client.get_run(run_id)
        assert (ended.info.status, ended.data.tags[CONTINUED]) == ("KILLED", run.run_id)


@pytest.mark.parametrize("force", [False, True])
def test_a_checkpoint_of_other_code_is_said_and_not_what_force_asks_for(
    client: MlflowClient,
    fingerprint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    force: bool,
) -> None:
    config = changed(CONFIG, force=force)

    def killed() -> None:
        with step_run("backbone", config, data=fingerprint) as run:
            (run.work / "checkpoint").touch()
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            killed()
    assert "other code" not in capsys.readouterr().out
    here = code_at_hand()
    monkeypatch.setattr(module, "code_at_hand", lambda: replace(here, commit="abc" * 13))
    with step_run("backbone", config, data=fingerprint) as run:
        assert (run.work / "checkpoint").exists() != force
    said = capsys.readouterr().out
    assert "backbone: a killed run's checkpoint was made by other code (commit " in said
    assert ("begun anew" if force else "it goes on from there, force=true begins anew") in said


def test_other_code_is_said_once_and_the_run_is_found_all_the_same(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = finish(fingerprint)
    finish(fingerprint)
    assert capsys.readouterr().out == ""
    here = code_at_hand()
    versions = dict(here.versions) | {"torch": "9.0"}
    monkeypatch.setattr(module, "code_at_hand", lambda: replace(here, commit="abc" * 13, versions=versions))
    assert [finish(fingerprint).run_id for _ in range(2)] == [made.run_id] * 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"backbone: run {made.run_id} was made by other code (commit ")
    assert f"here abcabcabca; torch {here.versions['torch']}, here 9.0); force=true makes it again" in line


@pytest.mark.parametrize("changes", ["", "- a\r\n+ b\n"], ids=["clean", "dirty"])
def test_uncommitted_changes_are_code_too(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes
) -> None:
    here = replace(code_at_hand(), commit="abc" * 13)
    monkeypatch.setattr(module, "code_at_hand", lambda: replace(here, changes=changes))
    run = client.get_run(finish(fingerprint).run_id)
    assert (run.data.tags[COMMIT], run.data.tags[DIRTY]) == ("abc" * 13, "true" if changes else "false")
    finish(fingerprint)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(module, "code_at_hand", lambda: replace(here, changes="+ c"))
    finish(fingerprint)
    assert "(other uncommitted changes)" in capsys.readouterr().out


def test_the_data_are_an_input(client: MlflowClient, tmp_path: Path) -> None:
    data = load_data(DataConfig(**write_csv(tmp_path)))
    with step_run("prepare", DataConfig(**write_csv(tmp_path)), data=data) as run:
        pass
    found = {one.tags[0].value: one.dataset for one in client.get_run(run.run_id).inputs.dataset_inputs}
    assert {(use, one.name) for use, one in found.items()} == {
        ("training", "csv train"),
        ("validation", "csv val"),
        ("test", "csv test"),
    }
    assert {one.digest for one in found.values()} == {data.fingerprint[:32]}
    profiles = {use: json.loads(one.profile) for use, one in found.items()}
    assert profiles["test"]["items"] == data.num_items
    assert {use: one["samples"] for use, one in profiles.items()} == {
        "training": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
    }


def test_a_file_that_cannot_be_read_is_said_before_a_run_is_made(
    client: MlflowClient, fingerprint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self, *given):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "weights.pt").touch()
    before = len(client.search_runs(["0"]))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"released=.*weights.pt: cannot be read"):
        finish(fingerprint, changed(CONFIG, released=str(tmp_path / "weights.pt")))
    assert len(client.search_runs(["0"])) == before


class Lost:
    """Stands for a server that does not answer from one write on, until it is back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
        self.box, self.after, self.away = outbox(), after, True
        self.through = self.box.perform
        monkeypatch.setattr(self.box, "perform", self.perform)
        monkeypatch.setattr(self.box, "sleep", self.sleep)
        monkeypatch.setenv("RECDISTILL_TRACKING_GRACE", "30")
        self.slept, self.back_after = 0.0, 1e9

    def perform(self, write, files) -> None:
        self.after -= 1
        if self.away and self.after < 0:
            raise ConnectionError("Connection refused")
        self.through(write, files)

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.away = self.slept < self.back_after


@pytest.mark.parametrize("after", range(0, 12, 3))
def test_a_store_that_is_back_by_the_end_has_all(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    lost = Lost(monkeypatch, after)
    lost.back_after = 3
    with entry_run("backbone"):
        made = finish(fingerprint)
    run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["test/hr_at_10"], run.data.tags[KEY]) == (0.25, made.key)
    assert (made.artifact("note.txt").read_text(), read(made, "config.json")) == ("kept", CONFIG.values())
    assert not list(outbox_folder().glob("*"))
    assert not (cache_dir() / "runs" / made.key).exists()
    assert finish(fingerprint).run_id == made.run_id


def test_a_store_that_is_lost_for_good_gets_all_from_the_next_command(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = []
    with monkeypatch.context() as patch:
        lost = Lost(patch, 5)
        patch.setattr(lost.box, "clock", lambda: lost.slept)
        said = r"Connection refused\); \d+ writes wait in .*outbox, `recdistill sync`"
        with pytest.raises(LostStoreError, match=said), entry_run("backbone"):
            ids.append(finish(fingerprint).run_id)
        assert lost.slept == 30
        kept = cache_dir() / "runs" / lost_key(client, ids[0])
        assert kept.is_dir()
    assert KEY not in client.get_run(ids[0]).data.tags
    # Its process ends.
    lost.box.queue.lock.close()
    outbox_module._outboxes.clear()
    with entry_run("prepare"):
        assert "writes that earlier commands left" in capsys.readouterr().out
        # Whether or not anybody asks for it again, as for a trial of a sweep nobody does.
        assert not kept.exists()
        again = finish(fingerprint)
    assert (again.run_id, again.reused) == (ids[0], True)
    assert client.get_run(ids[0]).info.status == "FINISHED"
    assert again.metrics()["test/hr_at_10"] == 0.25
    assert not list(outbox_folder().glob("*"))
    assert not (cache_dir() / "runs" / again.key).exists()


def test_metrics_that_wait_count_where_the_store_answers(
    client: MlflowClient, fingerprint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of artifacts that is read-only holds up what comes after it, and the database can be read."""
    box = outbox()
    with monkeypatch.context() as patch:

        def refuse(write, files) -> None:
            raise OSError(errno.EROFS, "Read-only file system")

        patch.setattr(box, "perform", refuse)
        run = StepRun(str(client.create_run("0").info.run_id), "", fingerprint, reused=False)
        run.log_metrics({"test/hr_at_10": 0.5})
        assert run.metrics() == {"test/hr_at_10": 0.5}
    assert box.drain(0)
    assert client.get_run(run.run_id).data.metrics == {"test/hr_at_10": 0.5}


def lost_key(client: MlflowClient, run_id: str) -> str:
    """The key of a run that has no such tag yet: its folder's name."""
    (folder,) = [
        one
        for one in (cache_dir() / "runs").iterdir()
        if (one / "run.json").exists() and json.loads((one / "run.json").read_text())["run_id"] == run_id
    ]
    return folder.name
