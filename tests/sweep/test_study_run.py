"""A sweep's runs in MLflow: nested, tagged, settled after kills, answered. A trial takes milliseconds."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import optuna
import postgresql_server
import pytest
import sweep_stub
from optuna.trial import TrialState
from sweep_runs_seen import children, runs, trials_of
from sweep_store import own_store
from sweep_stub import SPACE, options, start_command, sweep

from recdistill.config import DistillConfig, changed
from recdistill.config.lineage import digest
from recdistill.errors import InputError
from recdistill.runs.step_runs import StepRun
from recdistill.sweep.study_run import Steps

PRUNER = "pruner: {name: median, startup_trials: 2, warmup_epochs: 1}\n"
TWO = SPACE.replace("objective: val/ndcg_at_20", "objectives: [val/ndcg_at_20, latency_ms]")


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with own_store(monkeypatch) as path:
        yield path


def the_study(folder: Path, url: str = "") -> optuna.Study:
    return optuna.load_study(study_name=None, storage=url or f"sqlite:///{folder}/optuna.db")


def test_each_trial_is_a_nested_run_and_the_sweep_has_the_answer(folder: Path) -> None:
    run = sweep(options(folder, trials=5, final_seeds=2))
    trials = trials_of(run.run_id)
    assert sorted(trials) == [0, 1, 2, 3, 4]
    study = the_study(folder)
    for number, trial in trials.items():
        found = study.get_trials()[number]
        assert trial.info.status == "FINISHED"
        assert trial.data.tags["recdistill.state"] == "complete"
        assert trial.data.tags["recdistill.study"] == study.study_name
        assert trial.data.tags["recdistill.step"] == "distill"
        assert trial.data.metrics["val/ndcg_at_20"] == found.value
        assert {name: float(trial.data.params[name]) for name in found.params} == found.params
        assert trial.data.metrics["latency_ms"] == 0.005
        # Each has everything that a distill run has.
        assert "selection_policy" in trial.data.params
        assert "test/ndcg_at_20" in trial.data.metrics
        history = mlflow.MlflowClient().get_metric_history(trial.info.run_id, "val/ndcg_at_20")
        assert len({point.step for point in history}) == sweep_stub.EPOCHS + 1
    parent = mlflow.get_run(run.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.metrics["val/ndcg_at_20"] == study.best_value
    assert parent.data.tags["recdistill.best.trial"] == str(study.best_trial.number)
    assert float(parent.data.tags["recdistill.best.lam"]) == study.best_params["lam"]
    finals = [r for r in children(run.run_id) if "recdistill.final" in r.data.tags]
    assert Counter(r.data.tags["recdistill.final"] for r in finals) == {"best": 2, "default": 2, "undistilled": 2}
    assert {r.data.tags["recdistill.step"] for r in finals} == {"distill", "backbone"}
    table = json.loads(run.artifact("answer/table.json").read_text())
    seeds = table["configurations"]["best"]["val/ndcg_at_20"]["seeds"]
    # Seeds that no trial had: a seed more is 0.0005 better.
    assert seeds == pytest.approx([study.best_value + 0.0005, study.best_value + 0.001])
    assert parent.data.metrics["best/val/ndcg_at_20"] == pytest.approx(study.best_value + 0.00075)
    assert {r.info.run_name.rpartition(" ")[2] for r in finals} == {"2", "3"}
    # The test by user, on the ranks of the final runs: the stub's undistilled student ranks every user worse.
    gain = table["configurations"]["undistilled"]["best_against_it"]
    assert 0 < gain["low"] < gain["difference"] < gain["high"]
    assert gain["p_value"] < 0.001
    assert set(table["configurations"]["default"]["best_against_it"]) == {
        "difference",
        "low",
        "high",
        "p_value",
        "same",
    }
    assert "by the paired permutation test by user" in run.artifact("answer/table.md").read_text()
    assert f"-P lam={study.best_params['lam']}" in run.artifact("answer/command.txt").read_text()
    assert digest(json.loads(run.artifact("key.json").read_text())) == parent.data.tags["recdistill.key"]
    figures = {path.name for path in run.artifact("figures").iterdir()}
    assert {"history.png", "contour.png", "parallel_coordinates.png"} <= figures
    assert run.artifact("space.yaml").read_text() == SPACE


def test_the_first_trial_is_the_default_configuration(folder: Path) -> None:
    sweep(options(folder, trials=1, final_seeds=0))
    defaults = DistillConfig()
    assert the_study(folder).get_trials()[0].params == {"lam": defaults.lam, "ed_weight": defaults.ed_weight}


@pytest.mark.slow
def test_a_trial_given_up_is_marked_so(folder: Path) -> None:
    run = sweep(options(folder, PRUNER + SPACE, trials=12, final_seeds=0))
    states = {number: trial.state for number, trial in enumerate(the_study(folder).get_trials())}
    pruned = [number for number, state in states.items() if state == TrialState.PRUNED]
    assert pruned
    trials = trials_of(run.run_id)
    assert len(trials) == 12
    for number in pruned:
        assert (trials[number].info.status, trials[number].data.tags["recdistill.state"]) == ("KILLED", "pruned")
        assert "test/ndcg_at_20" not in trials[number].data.metrics


@pytest.mark.slow
def test_a_trial_that_fails_is_marked_so_and_the_sweep_goes_on(folder: Path) -> None:
    space = SPACE + "  temperature: {low: 0.5, high: 7.0}\n"
    run = sweep(options(folder, space, trials=8, final_seeds=0))
    trials = trials_of(run.run_id)
    failed = [trial for trial in trials.values() if float(trial.data.params["temperature"]) > 5]
    assert 0 < len(failed) < 8
    assert {(t.info.status, t.data.tags["recdistill.state"]) for t in failed} == {("FAILED", "failed")}
    assert {t.data.tags["recdistill.failure"] for t in failed} == {"RuntimeError: the stub is too hot"}
    assert Counter(t.info.status for t in trials.values()) == {"FINISHED": 8 - len(failed), "FAILED": len(failed)}


@pytest.mark.slow
def test_the_same_command_finds_the_answer_and_a_larger_total_goes_on(folder: Path) -> None:
    first = sweep(options(folder, trials=3))
    again = sweep(options(folder, trials=3))
    assert (again.run_id, again.reused) == (first.run_id, True)
    before = [(t.number, t.params, t.value) for t in the_study(folder).get_trials()]
    larger = sweep(options(folder, trials=5))
    after = [(t.number, t.params, t.value) for t in the_study(folder).get_trials()]
    assert after[:3] == before
    assert len(after) == 5
    # All trials are in the run that has the answer over all of them.
    assert sorted(trials_of(larger.run_id)) == [0, 1, 2, 3, 4]
    assert mlflow.get_run(first.run_id).data.tags["recdistill.continued_in"] == larger.run_id
    assert mlflow.get_run(first.run_id).info.status == "FINISHED"
    assert sweep(options(folder, trials=5)).run_id == larger.run_id


@pytest.mark.slow
def test_the_same_seed_gives_the_same_values(folder: Path) -> None:
    sequences: list[list[object]] = []
    for seed in (1, 1, 2):
        other = folder / str(len(sequences))
        other.mkdir()
        storage = f"sqlite:///{other}/optuna.db"
        sweep(options(folder, trials=6, final_seeds=0, seed=seed, storage=storage, force=True))
        trials = the_study(other).get_trials()
        sequences.append([(trial.params, trial.value) for trial in trials])
    assert sequences[0] == sequences[1]
    assert sequences[0] != sequences[2]


@pytest.mark.slow
def test_force_is_a_new_study(folder: Path) -> None:
    first = sweep(options(folder, trials=2, final_seeds=0))
    second = sweep(options(folder, trials=2, final_seeds=0, force=True))
    assert second.run_id != first.run_id
    assert len(optuna.get_all_study_names(f"sqlite:///{folder}/optuna.db")) == 2
    assert len(trials_of(first.run_id)) == len(trials_of(second.run_id)) == 2


@pytest.mark.slow
def test_several_seeds_a_trial_are_nested_in_it_and_their_mean_counts(folder: Path) -> None:
    run = sweep(options(folder, "seeds: 3\n" + SPACE, trials=2, final_seeds=0))
    for number, trial in trials_of(run.run_id).items():
        inner = children(trial.info.run_id)
        assert sorted(r.data.params["seed"] for r in inner) == ["1", "2", "3"]
        assert {r.info.status for r in inner} == {"FINISHED"}
        mean = sum(r.data.metrics["val/ndcg_at_20"] for r in inner) / 3
        assert trial.data.metrics["val/ndcg_at_20"] == pytest.approx(mean)
        assert the_study(folder).get_trials()[number].value == pytest.approx(mean)


@pytest.mark.slow
def test_two_objectives_give_a_front(folder: Path) -> None:
    run = sweep(options(folder, TWO, trials=4))
    lines = run.artifact("answer/pareto.csv").read_text().splitlines()
    assert lines[0] == "trial,val/ndcg_at_20,latency_ms,lam,ed_weight"
    best = max(trial.values[0] for trial in the_study(folder).get_trials())
    assert float(lines[1].split(",")[1]) == best
    assert (run.artifact("figures") / "pareto.png").is_file()


def test_a_bad_space_is_one_line_before_anything_starts(folder: Path) -> None:
    with pytest.raises(InputError, match=r"space\.yaml:4: lamda: "):
        sweep(options(folder, SPACE.replace("lam:", "lamda:")))
    (failed,) = runs()
    assert failed.info.status == "FAILED"
    assert failed.data.tags["recdistill.failure"].startswith(str(folder / "space.yaml:4: "))
    assert not (folder / "optuna.db").exists()


@pytest.mark.slow
def test_what_the_space_fixes_is_what_the_run_says(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = sweep(options(folder, "fixed: {alpha: 0.25}\n" + SPACE.replace("0.0, high: 2.0", "1.0, high: 2.0"), trials=1))
    params = mlflow.get_run(run.run_id).data.params
    assert params["alpha"] == "0.25"
    # lam is 0.5 by default.
    assert f"{folder / 'space.yaml'} does not hold the default configuration: it is no trial" in capfd.readouterr().out


def teacher_in_store() -> str:
    """A finished run with an artifact, as a teacher's is."""
    client = mlflow.MlflowClient()
    run_id = client.create_run(mlflow.get_experiment_by_name("sweeps").experiment_id).info.run_id
    client.log_text(run_id, "a teacher", "teacher.txt")
    client.set_terminated(run_id)
    return str(run_id)


def test_all_commands_on_a_study_share_its_first_teacher(folder: Path) -> None:
    teachers = [teacher_in_store()]

    def newest(config: DistillConfig) -> DistillConfig:
        return changed(config, teacher_run_id=config.teacher_run_id or teachers[-1])

    steps = Steps(sweep_stub.train, newest, newest, sweep_stub.baseline)
    sweep(options(folder, trials=1, final_seeds=0), steps)
    teachers.append(teacher_in_store())
    run = sweep(options(folder, trials=2, final_seeds=0), steps)
    trials = [StepRun(trial.info.run_id, "", "", reused=True) for trial in trials_of(run.run_id).values()]
    taught = [json.loads(trial.artifact("config.json").read_text())["teacher_run_id"] for trial in trials]
    assert taught == [teachers[0]] * 2
    assert f"-P teacher_run_id={teachers[0]}\n" in run.artifact("answer/command.txt").read_text()
    mlflow.delete_run(teachers[0])
    with pytest.raises(InputError, match=f"its trials share teacher_run_id={teachers[0]}, which is no longer in"):
        sweep(options(folder, trials=3, final_seeds=0), steps)


def test_an_answer_that_was_deleted_is_given_again(folder: Path) -> None:
    first = sweep(options(folder, trials=1, final_seeds=0))
    mlflow.delete_run(first.run_id)
    again = sweep(options(folder, trials=1, final_seeds=0))
    assert again.run_id != first.run_id
    assert again.artifact("answer/command.txt").is_file()
    assert sorted(trials_of(again.run_id)) == [0]


def test_fewer_trials_than_the_study_has_are_refused(folder: Path) -> None:
    sweep(options(folder, trials=2, final_seeds=0))
    with pytest.raises(InputError, match=r"^trials=1: study space-\w+ has 2 finished trials; give that many or more"):
        sweep(options(folder, trials=1, final_seeds=0))


def test_by_force_the_default_that_was_best_is_trained_once(folder: Path) -> None:
    run = sweep(options(folder, trials=1, final_seeds=1, force=True))
    table = json.loads(run.artifact("answer/table.json").read_text())["configurations"]
    assert list(table) == ["best", "default", "undistilled"]
    assert table["default"]["best_against_it"]["same"] is True
    finals = Counter(r.data.tags["recdistill.final"] for r in children(run.run_id) if "recdistill.final" in r.data.tags)
    assert finals == {"best": 1, "undistilled": 1}


def test_the_answers_command_starts_from_what_the_trials_started_from(folder: Path) -> None:
    run = sweep(options(folder, trials=1, final_seeds=0, init_from="models:/films/1"))
    assert "-P init_from=models:/films/1" in run.artifact("answer/command.txt").read_text()
    assert "init_from: models:/films/1" in run.artifact("answer/best.yaml").read_text()


def test_a_student_is_not_registered_by_a_sweep(folder: Path) -> None:
    with pytest.raises(InputError, match="register=best: trials keep no model"):
        sweep(options(folder, register="best"))


@pytest.mark.parametrize("given", [{"teacher_run_id": "one"}, {"teacher_files": "folder"}])
def test_one_teacher_cannot_be_given_where_teachers_are_searched(folder: Path, given: dict[str, str]) -> None:
    space = SPACE + "  experts: {choices: [1, 2]}\n"
    given = {name: str(folder) if name == "teacher_files" else value for name, value in given.items()}
    with pytest.raises(InputError, match=r"is one teacher, and .*space\.yaml searches options of the teacher; leave"):
        sweep(options(folder, space, **given))
    # Without, the steps make the backbone that all trials share.
    sweep(options(folder, SPACE, trials=1, final_seeds=0, **given))


@pytest.mark.parametrize(
    ("searched", "shared"),
    [
        ("  max_length: {choices: [20, 50]}\n", "teacher"),
        ("  experts: {choices: [1, 2]}\n", "backbone"),
        ("  mask_seen: {choices: [true, false]}\n", "backbone"),
        # The same in all trials.
        ("  experts: {choices: [4]}\n", "teacher"),
    ],
)
def test_all_trials_share_what_is_not_searched(folder: Path, searched: str, shared: str) -> None:
    made: list[str] = []

    def making(name: str) -> Callable[[DistillConfig], DistillConfig]:
        def make(config: DistillConfig) -> DistillConfig:
            made.append(name)
            return config

        return make

    steps = Steps(sweep_stub.train, making("teacher"), making("backbone"), sweep_stub.baseline)
    sweep(options(folder, SPACE + searched, trials=1, final_seeds=0), steps)
    assert made == [shared]


def test_a_space_that_comes_with_the_package_is_found_by_name(folder: Path) -> None:
    run = sweep(changed(options(folder, trials=1, final_seeds=0), space="quick"))
    assert mlflow.get_run(run.run_id).data.tags["recdistill.study"].startswith("quick-")
    assert mlflow.get_run(run.run_id).data.params["learning_rate"] == "0.003"


def test_a_study_of_another_space_is_refused(folder: Path) -> None:
    sweep(options(folder, trials=1, final_seeds=0, study="mine"))
    with pytest.raises(InputError, match="study=mine: was made for another space, data or options"):
        sweep(options(folder, SPACE.replace("2.0", "3.0"), study="mine"))
    with pytest.raises(InputError, match="study=mine: was made for another"):
        sweep(options(folder, study="mine", patience=3))
    with pytest.raises(InputError, match="study=mine: is there already; force=true needs a new name"):
        sweep(options(folder, study="mine", trials=1, final_seeds=0, force=True))


def test_a_password_is_not_logged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recdistill.sweep.study.time.sleep", lambda seconds: None)
    with pytest.raises(InputError, match="storage="):
        sweep(options(folder, storage="postgresql://me:secret@127.0.0.1:1/none"))
    (failed,) = runs()
    assert "secret" not in json.dumps(failed.to_dictionary())
    text = "".join(path.read_text() for path in folder.rglob("*.json"))
    assert "127.0.0.1" in text
    assert "secret" not in text


class Killer(threading.Thread):
    """SIGKILLs processes that train, at random moments."""

    def __init__(self, folder: Path, times: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.working, self.times, self.random = folder / "cache" / "working", times, random.Random(seed)
        self.killed: list[int] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        while len(self.killed) < self.times and not self.stopped.wait(self.random.uniform(0.05, 0.6)):
            found = [int(path.name) for path in self.working.glob("*") if int(path.name) not in self.killed]
            if found:
                time.sleep(self.random.uniform(0, 0.9))
                self.killed.append(self.random.choice(found))
                os.kill(self.killed[-1], signal.SIGKILL)

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.join()

    def __enter__(self) -> "Killer":
        self.start()
        return self


def check_settled(parent: str, study: optuna.Study, total: int) -> None:
    """Exactly ``total`` finished trials, each with one finished run, and no run left RUNNING."""
    assert not runs("attributes.status = 'RUNNING'")
    found = study.get_trials()
    assert sum(trial.state == TrialState.COMPLETE for trial in found) == total
    assert all(trial.state.is_finished() for trial in found)
    trials = trials_of(parent)
    finished = [number for number, run in trials.items() if run.info.status == "FINISHED"]
    assert sorted(finished) == [trial.number for trial in found if trial.state == TrialState.COMPLETE]
    assert len(trials) == len([r for r in children(parent) if "recdistill.trial" in r.data.tags])
    for number, run in trials.items():
        assert run.data.tags["recdistill.state"] == ("complete" if number in finished else "killed")
    retried = Counter(number for trial in found for number in trial.system_attrs.get("retry_history", []))
    assert max(retried.values(), default=0) <= 1


@pytest.mark.slow
def test_killed_workers_lose_and_repeat_nothing(folder: Path) -> None:
    with Killer(folder, times=5, seed=3) as killer:
        run = sweep(options(folder, trials=16, jobs=2, dropout=0.15))
    assert len(killer.killed) == 5
    check_settled(run.run_id, the_study(folder), 16)


def printed(folder: Path) -> str:
    """What the commands of `start_command` printed."""
    return "\n".join(path.read_text() for path in sorted(folder.glob("command-*.log")))


def two_commands_and_a_kill(folder: Path, url: str, *, kill_leader: bool) -> None:
    """Two commands on one study; one is killed in the middle, and the other ends the sweep."""
    config = options(folder, trials=10, dropout=0.2, study="shared", storage=url)
    processes = {process.pid: process for process in (start_command(folder, config) for _ in range(2))}
    try:
        working = folder / "cache" / "working"
        deadline = time.monotonic() + 120
        while len(list(working.glob("*"))) < 2:
            assert time.monotonic() < deadline
            assert all(process.poll() is None for process in processes.values()), printed(folder)
            time.sleep(0.1)
        time.sleep(random.Random(5).uniform(0.2, 1.5))
        leader = mlflow.get_run(the_study(folder, url).user_attrs["leader"])
        victim = int(leader.data.tags["recdistill.process"])
        if not kill_leader:
            (victim,) = set(processes) - {victim}
        os.kill(victim, signal.SIGKILL)
        statuses = {pid: process.wait(timeout=240) for pid, process in processes.items()}
        assert statuses == {pid: -signal.SIGKILL if pid == victim else 0 for pid in processes}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    study = the_study(folder, url)
    last = study.user_attrs["leader"]
    assert (last != leader.info.run_id) == kill_leader
    check_settled(last, study, 10)
    sweeps = {run.info.run_id: run for run in runs("tags.`recdistill.step` = 'sweep'")}
    assert sorted(run.info.status for run in sweeps.values()) == ["FINISHED", "KILLED"]
    assert sweeps[last].info.status == "FINISHED"
    assert float(sweeps[last].data.tags["recdistill.best.lam"]) == study.best_params["lam"]
    assert (StepRun(last, "", "", True).artifact("answer") / "table.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kill_leader", [True, False])
def test_a_second_command_joins_and_ends_the_sweep_when_one_is_killed(folder: Path, kill_leader: bool) -> None:
    two_commands_and_a_kill(folder, f"sqlite:///{folder}/optuna.db", kill_leader=kill_leader)


@pytest.mark.slow
@pytest.mark.skipif(bool(postgresql_server.why_not()), reason=postgresql_server.why_not() or "-")
def test_commands_share_a_study_on_postgresql(folder: Path) -> None:
    with postgresql_server.server() as url:
        two_commands_and_a_kill(folder, url, kill_leader=True)
        # The study is there for a larger total, and for workers of one command.
        shared = {"dropout": 0.2, "study": "shared", "storage": url}
        run = sweep(options(folder, trials=12, jobs=2, final_seeds=0, **shared))
        check_settled(run.run_id, the_study(folder, url), 12)
