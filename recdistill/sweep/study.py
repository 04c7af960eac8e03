"""The study in its storage: how a process opens it, and how often each trial says that its process is alive.

Heartbeats are Optuna's own (they work with ``Study.optimize``): a trial whose process was killed is stale; it is marked
failed and queued once more.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from recdistill.errors import InputError, one_line
from recdistill.runs.store_address import without_secrets
from recdistill.sweep.samplers import SeededByTrial, build_pruner
from recdistill.sweep.space import Space

RETRIES = 1
#: SQLite lets one process write at a time; the others wait as long as this.
LOCK_SECONDS = 120
#: Driver and its package, where a URL names none: what SQLAlchemy takes then depends on its version.
DRIVERS = {"postgresql": ("psycopg", "psycopg[binary]"), "mysql": ("pymysql", "pymysql")}

optuna.logging.set_verbosity(optuna.logging.ERROR)
# Heartbeats and grouped sampling have been experimental since 2020; the versions are pinned.
warnings.filterwarnings("ignore", category=ExperimentalWarning)


@dataclass(frozen=True)
class StudyPlace:
    """Where a study is, as any process needs to know it.

    Attributes:
        url: SQLAlchemy URL of the storage.
        name: of the study.
        heartbeat_seconds: between two heartbeats of a running trial.
        grace_seconds: a trial without a heartbeat for so long is stale.
    """

    url: str
    name: str
    heartbeat_seconds: int = 10
    grace_seconds: int = 60


#: Told of a stale trial: one whose process was killed.
OnStale = Callable[[Study, FrozenTrial], None]


class OpenStudy(NamedTuple):
    """A study, its storage, and whether it was made just now."""

    study: Study
    storage: RDBStorage
    created: bool


def open_study(
    place: StudyPlace, space: Space, seed: int, epochs: int, *, on_stale: OnStale | None = None, create: bool = False
) -> OpenStudy:
    """Open the study.

    Args:
        place: where.
        space: its objectives, sampler and pruner.
        seed: of the values.
        epochs: most epochs of a trial, for Hyperband.
        on_stale: called for each stale trial, before it is queued again.
        create: make it where it is not there.

    Raises InputError where the storage cannot be used, or holds no such study and ``create`` is false.
    """
    storage = open_storage(place, on_stale)
    sampler, pruner = SeededByTrial(space, seed), build_pruner(space, epochs)
    created = False
    if create:
        try:
            directions = [objective.direction for objective in space.objectives]
            optuna.create_study(storage=storage, study_name=place.name, directions=directions)
            created = True
        except DuplicatedStudyError:
            pass
    try:
        study = optuna.load_study(study_name=place.name, storage=storage, sampler=sampler, pruner=pruner)
    except KeyError:
        raise InputError(f"study={place.name}: is not in {without_secrets(place.url)}") from None
    return OpenStudy(study, storage, created)


def open_storage(place: StudyPlace, on_stale: OnStale | None = None) -> RDBStorage:
    """Optuna's storage. Raises InputError, one line and without the password, where it cannot be used."""
    retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)

    def end_stale(study: Study, trial: FrozenTrial) -> None:
        if on_stale is not None:
            on_stale(study, trial)
        retry(study, trial)

    sqlite = place.url.startswith("sqlite:")
    shown = without_secrets(place.url)
    for attempt in range(5):
        try:
            storage = RDBStorage(
                with_driver(place.url),
                engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}} if sqlite else {"pool_pre_ping": True},
                heartbeat_interval=place.heartbeat_seconds,
                grace_period=place.grace_seconds,
                heartbeat_stale_trial_callback=end_stale,
            )
            return for_processes(storage) if sqlite else storage
        except ImportError:
            kind = make_url(place.url).get_backend_name()
            _, package = DRIVERS.get(kind, ("", "a driver"))
            raise InputError(f"storage={shown}: {kind} needs a driver; pip install '{package}'") from None
        except (ArgumentError, NoSuchModuleError):
            raise InputError(f"storage={shown}: must be sqlite:///FILE, postgresql://… or mysql+pymysql://…") from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
            # Two processes that open a new storage at once both make its tables: the second finds them in the end.
            if attempt == 4:
                said = without_secrets(str(error), with_driver(place.url), place.url)
                raise InputError(f"storage={shown}: cannot be opened ({one_line(said)})") from None
            time.sleep(0.2 * 2**attempt)
    raise AssertionError


def for_processes(storage: RDBStorage) -> RDBStorage:
    """Have SQLite serve several processes.

    A transaction holds the database from its start, for SQLite reads ``SELECT ... FOR UPDATE``, by which Optuna gives
    a queued trial to one process only, as a plain ``SELECT``. A write-ahead log saves waits for the disk: a killed
    process loses nothing; a machine that loses power may lose its last moments.
    """

    @event.listens_for(storage.engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # The driver begins no transactions of its own: `begin` does.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(storage.engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.scoped_session.remove()
    storage.engine.dispose()
    return storage


def with_driver(url: str) -> str:
    """The URL with the driver of `DRIVERS`, where it names none. Raises ArgumentError where it is no URL."""
    parsed = make_url(url)
    if parsed.drivername not in DRIVERS:
        return url
    chosen = parsed.set(drivername=f"{parsed.drivername}+{DRIVERS[parsed.drivername][0]}")
    return chosen.render_as_string(hide_password=False)
