"""One MLflow run a step: opened, found again, continued after a kill, and marked FAILED with its reason.

The *entry run* is the one a user started, by ``mlflow run`` or from the command line. The step of that name claims
it; every other step it needs is a run nested in it.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.entities import DatasetInput, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.time import get_current_time_millis

from recdistill.config import Config
from recdistill.data.downloads import cache_dir
from recdistill.data.sequences import SequenceData
from recdistill.errors import InputError, Pruned
from recdistill.runs.artifacts import local_artifact
from recdistill.runs.datasets import SplitDataset
from recdistill.runs.folder_lock import locked
from recdistill.runs.provenance import git_state, run_key, versions

STEP, KEY, FINGERPRINT, REASON = "recdistill.step", "recdistill.key", "recdistill.fingerprint", "recdistill.failure"
REUSED, CONTINUED = "recdistill.reused_run_id", "recdistill.continued_in"
KIND = "recdistill.kind"
CONFIG_FILE = "config.json"
#: Tags of a sweep's trials, which keep no model to serve.
OF_TRIALS = ("recdistill.trial", "recdistill.kept")
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


@dataclass
class StepRun:
    """A run that a step writes to, or a finished one that it found.

    Attributes:
        run_id: of the run that holds the step's results.
        key: what equal runs share; see `provenance.run_key`.
        fingerprint: of the data.
        reused: the run was finished before; there is nothing to do.
        work: folder for checkpoints, kept after a kill and removed in the end.
    """

    run_id: str
    key: str
    fingerprint: str
    reused: bool
    work: Path = field(default_factory=Path)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log numbers at an epoch."""
        now = get_current_time_millis()
        MlflowClient().log_batch(self.run_id, [Metric(name, value, now, step) for name, value in metrics.items()])

    def log_folder(self, name: str, write: Callable[[Path], None]) -> None:
        """Have ``write`` fill a temporary folder, and keep it as the artifact folder ``name``."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / name
            write(folder)
            MlflowClient().log_artifacts(self.run_id, str(folder), name)

    def log_file(self, path: Path, folder: str) -> None:
        """Keep a file in the artifact folder ``folder``."""
        MlflowClient().log_artifact(self.run_id, str(path), folder)

    def log_text(self, name: str, text: str) -> None:
        """Keep a text as the artifact ``name``."""
        MlflowClient().log_text(self.run_id, text, name)

    def log_ranks(self, ranks: Mapping[str, pd.DataFrame]) -> None:
        """Keep each evaluated sample's rank as ``ranks/<part>.parquet``; parts are ``val`` and ``test``."""

        def write(folder: Path) -> None:
            folder.mkdir()
            for part, frame in ranks.items():
                frame.to_parquet(folder / f"{part}.parquet", index=False)

        self.log_folder("ranks", write)

    def describe(self, text: str) -> None:
        """Set the run's description, which the UI shows on top."""
        MlflowClient().set_tag(self.run_id, "mlflow.note.content", text)

    def tag(self, name: str, value: Any) -> None:
        """Set the tag ``recdistill.<name>``."""
        MlflowClient().set_tag(self.run_id, f"recdistill.{name}", str(value))

    def artifact(self, name: str) -> Path:
        """Local path of an artifact. Raises InputError where the run has none of that name."""
        try:
            # In place: MLflow copies what is asked for by a run's id.
            return local_artifact(f"{mlflow.get_run(self.run_id).info.artifact_uri}/{name}")
        except (MlflowException, OSError):
            raise InputError(f"run {self.run_id}: has no artifact {name}; choose another run") from None

    def metrics(self) -> dict[str, float]:
        """The run's last metrics."""
        return dict(mlflow.get_run(self.run_id).data.metrics)


@dataclass
class EntryRun:
    """The run a user started; ``claimed`` once its own step writes to it."""

    run_id: str
    step: str
    claimed: bool = False


_entries: list[EntryRun] = []


@contextmanager
def entry_run(step: str) -> Iterator[None]:
    """The user's run of ``step``: that of ``mlflow run``, or a new one. An error marks it FAILED and is raised."""
    launched = bool(os.environ.get("MLFLOW_RUN_ID"))
    with mlflow.start_run(run_name=None if launched else step) as run:
        client = MlflowClient()
        if GENERATED_NAME.fullmatch(run.info.run_name or ""):
            client.set_tag(run.info.run_id, "mlflow.runName", step)
        client.set_tag(run.info.run_id, STEP, step)
        _entries.append(EntryRun(run.info.run_id, step))
        try:
            yield
        except BaseException as error:
            client.set_tag(run.info.run_id, REASON, reason(error))
            raise
        finally:
            _entries.pop()


@contextmanager
def step_run(
    step: str,
    config: Config,
    *,
    data: SequenceData | str,
    settings: Iterable[str],
    code: Iterable[str],
    upstream: Mapping[str, StepRun] | None = None,
    effort: Iterable[str] = (),
    content: Mapping[str, str] | None = None,
) -> Iterator[StepRun]:
    """The run that holds this step's results: a finished one that fits (``reused``), or one to write to.

    Args:
        step: its name.
        config: its options, all of them logged.
        data: what it reads, or only the fingerprint of what the runs it reads were made for.
        settings: names of the options that its result depends on; the seed is always one.
        code: folders and files of the package that it runs.
        upstream: runs it starts from, by step.
        effort: settings that say how much is done, not what; see `find_kind`.
        content: digests of files that options name, by a name of their own.

    An error marks the run FAILED (`Pruned` and an interrupt: KILLED), with the reason as a tag, and is raised again.
    """
    upstream, settings, code = upstream or {}, tuple(settings), tuple(code)
    fingerprint = data if isinstance(data, str) else data.fingerprint
    key = key_of(step, config, fingerprint, settings, code, upstream, content)
    entry = _entries[-1] if _entries and not _entries[-1].claimed and _entries[-1].step == step else None
    if entry is not None:
        entry.claimed = True
    work = cache_dir() / "runs" / key
    with locked(work):
        found = None if config.force else find_finished(key)
        if found is not None:
            reused = StepRun(found.info.run_id, key, fingerprint, reused=True)
            if entry is not None:
                client = MlflowClient()
                client.set_tag(entry.run_id, REUSED, reused.run_id)
                StepRun(entry.run_id, key, fingerprint, False).log_metrics(reused.metrics())
            yield reused
            return
        nested = mlflow.active_run() is not None
        run_id = entry.run_id if entry else mlflow.start_run(run_name=step, nested=nested).info.run_id
        run = StepRun(run_id, key, fingerprint, reused=False, work=work)
        try:
            describe(run, step, config, upstream, data)
            run.tag("kind", kind_of(step, config, fingerprint, settings, code, effort, content))
            continue_from_killed(run)
            yield run
        except BaseException as error:
            MlflowClient().set_tag(run.run_id, REASON, reason(error))
            if isinstance(error, Pruned):
                # Nobody goes on with it.
                shutil.rmtree(work, ignore_errors=True)
            if entry is None:
                failed = isinstance(error, Exception) and not isinstance(error, Pruned)
                mlflow.end_run("FAILED" if failed else "KILLED")
            raise
        # The key makes a run findable: only finished ones carry it.
        MlflowClient().set_tag(run.run_id, KEY, key)
        if entry is None:
            mlflow.end_run("FINISHED")
        shutil.rmtree(work, ignore_errors=True)


def key_of(
    step: str,
    config: Config,
    fingerprint: str,
    settings: Iterable[str],
    code: Iterable[str],
    upstream: Mapping[str, StepRun],
    content: Mapping[str, str] | None = None,
) -> str:
    """The key of a run of these options; see `provenance.run_key`."""
    values = asdict(config)
    chosen = {name: values[name] for name in {*settings, "seed"}} | {"fingerprint": fingerprint}
    chosen |= content or {}
    return run_key(step, chosen, code, {name: run.key for name, run in upstream.items()})


def kind_of(
    step: str,
    config: Config,
    fingerprint: str,
    settings: Iterable[str],
    code: Iterable[str],
    effort: Iterable[str],
    content: Mapping[str, str] | None = None,
) -> str:
    """What runs share that differ only in seed, effort and upstream runs."""
    values = asdict(config)
    chosen = {name: values[name] for name in settings if name not in {*effort, "seed"}} | {"fingerprint": fingerprint}
    chosen |= content or {}
    return run_key(step, chosen, code, {})


def describe(
    run: StepRun, step: str, config: Config, upstream: Mapping[str, StepRun], data: SequenceData | str
) -> None:
    """Log options, data, versions, code and the runs it came from."""
    client = MlflowClient()
    logged = mlflow.get_run(run.run_id).data.params
    # mlflow run has logged what the user gave, as text; logging it again in another spelling is refused.
    options = [Param(name, str(value)) for name, value in asdict(config).items() if name not in logged]
    client.log_batch(run.run_id, params=options)
    commit, changes = git_state()
    tags = {STEP: step, FINGERPRINT: run.fingerprint, "recdistill.git_commit": commit}
    tags |= {"recdistill.git_dirty": str(bool(changes)).lower()}
    tags |= {f"recdistill.{name}_run_id": other.run_id for name, other in upstream.items() if other.run_id}
    for name, text in tags.items():
        client.set_tag(run.run_id, name, text)
    client.log_dict(run.run_id, asdict(config), CONFIG_FILE)
    client.log_dict(run.run_id, versions(), "versions.json")
    if changes:
        client.log_text(run.run_id, changes, "code.diff")
    if not isinstance(data, str):
        client.log_inputs(run.run_id, [DatasetInput(dataset=SplitDataset(data).entity(), tags=[])])


def continue_from_killed(run: StepRun) -> None:
    """Mark the killed run whose checkpoints are here KILLED, and note this one as the next."""
    note = run.work / "run.json"
    run.work.mkdir(parents=True, exist_ok=True)
    client = MlflowClient()
    entry_run_id = _entries[-1].run_id if _entries else run.run_id
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
        stale = {before["run_id"]: run.run_id}
        if not alive(before["process"]):
            stale.setdefault(before["entry_run_id"], entry_run_id)
        for run_id, next_run_id in stale.items():
            if run_id != next_run_id and client.get_run(run_id).info.status == "RUNNING":
                client.set_tag(run_id, CONTINUED, next_run_id)
                client.set_terminated(run_id, "KILLED")
    except (OSError, ValueError, KeyError, MlflowException):
        # No note, or of another tracking store: the checkpoint is good all the same.
        pass
    note.write_text(json.dumps({"run_id": run.run_id, "entry_run_id": entry_run_id, "process": os.getpid()}))


def alive(process: int) -> bool:
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def ui_command() -> str:
    """The command that opens the MLflow UI on the store at hand."""
    uri = mlflow.get_tracking_uri()
    return f"mlflow ui --backend-store-uri {uri}" if "://" in uri and not uri.startswith("http") else f"open {uri}"


def reason(error: BaseException) -> str:
    """One line that says what went wrong."""
    text = " ".join(str(error).split())[:450]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def find_finished(key: str) -> Run | None:
    """The newest finished run with this key, in any experiment, whose artifacts are still there."""
    for run in search(f"tags.`{KEY}` = '{key}' and attributes.status = 'FINISHED'"):
        if MlflowClient().list_artifacts(run.info.run_id):
            return run
    return None


def find_kind(kind: str) -> StepRun | None:
    """The newest finished run of this kind (`kind_of`)."""
    for run in search(f"tags.`{KIND}` = '{kind}' and attributes.status = 'FINISHED'"):
        tags = run.data.tags
        if KEY in tags and MlflowClient().list_artifacts(run.info.run_id):
            return StepRun(run.info.run_id, tags[KEY], tags.get(FINGERPRINT, ""), reused=True)
    return None


def options_of_run(run_id: str, steps: Iterable[str]) -> tuple[StepRun, str, dict[str, Any]]:
    """A finished run of one of ``steps``, its step and its options. Raises InputError where it is another."""
    try:
        tags = mlflow.get_run(run_id).data.tags
    except MlflowException:
        raise InputError(f"run_id={run_id}: no such run in {mlflow.get_tracking_uri()}") from None
    step = tags.get(STEP, "foreign")
    if step not in steps:
        raise InputError(f"run_id={run_id}: is a {step} run; choose a {' or '.join(steps)} run")
    run = finished_run(run_id, step, option="run_id")
    return run, step, json.loads(run.artifact(CONFIG_FILE).read_text(encoding="utf-8"))


def linked_run(run: StepRun, step: str) -> StepRun:
    """The run of ``step`` that a run was made from. Raises InputError where it is gone."""
    made_from = mlflow.get_run(run.run_id).data.tags.get(f"recdistill.{step}_run_id", "none")
    return finished_run(made_from, step, run.fingerprint)


def newest(step: str) -> str:
    """Id of the newest finished run of a step, or of the one that it found; trials of sweeps do not count.

    Raises InputError where there is none.
    """
    found = search(f"tags.`{STEP}` = '{step}' and attributes.status = 'FINISHED'")
    found = [run for run in found if run.data.tags.keys().isdisjoint(OF_TRIALS)]
    if not found:
        raise InputError(f"run_id=: there is no finished {step} run in {mlflow.get_tracking_uri()}; make one first")
    return str(found[0].data.tags.get(REUSED, found[0].info.run_id))


def search(condition: str) -> list[Run]:
    """Runs of all experiments that fit an MLflow filter, newest first."""
    found = mlflow.search_runs(
        filter_string=condition, search_all_experiments=True, order_by=["start_time DESC"], output_format="list"
    )
    return [run for run in found if isinstance(run, Run)]


def finished_run(run_id: str, step: str, fingerprint: str | None = None, option: str = "") -> StepRun:
    """The run a user named by ``option``. Raises InputError unless it is a finished one of ``step`` and this data."""
    option = option or f"{step}_run_id"
    try:
        run = mlflow.get_run(run_id)
    except MlflowException:
        raise InputError(f"{option}={run_id}: no such run in {mlflow.get_tracking_uri()}") from None
    tags = run.data.tags
    if REUSED in tags:
        return finished_run(tags[REUSED], step, fingerprint, option)
    if tags.get(STEP) != step:
        raise InputError(f"{option}={run_id}: is a {tags.get(STEP, 'foreign')} run, not a {step} run")
    if run.info.status != "FINISHED":
        raise InputError(f"{option}={run_id}: is {run.info.status}, not FINISHED; choose a finished run")
    made_for = tags.get(FINGERPRINT, "")
    if fingerprint is not None and made_for != fingerprint:
        raise InputError(
            f"{option}={run_id}: was made for data {made_for[:12]}, not for this data {fingerprint[:12]}; "
            f"choose a {step} run of this data, or leave {option} empty"
        )
    return StepRun(run_id, tags.get(KEY, run_id), made_for, reused=True)
