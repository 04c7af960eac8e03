"""What a tracking store could not take waits on disk, in order, and is sent when the store is back.

A process has one queue for a store, a folder of the cache: ``outbox/<name>/`` holds ``store.json``, the lock of the
process and a folder for each write, ``00000001`` and on, with ``write.json`` and the files of the write. A folder is
there whole or not at all. A write is made at once where nothing waits, else behind those that wait. The queue of a
process that has ended is sent by the next command on the same store, or by ``recdistill sync``.
"""

import fcntl
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from recdistill.data.downloads import cache_dir
from recdistill.errors import InputError
from recdistill.runs.store_address import absolute, noted_address
from recdistill.runs.tracking_store import answers, is_mistake, is_of_files, is_silence, reason_of, tracking_address
from recdistill.runs.writes import RUN_KEY, Write, perform

Answer = TypeVar("Answer")
#: Seconds that a command waits for a store that does not answer, at its end and where it must read from it.
GRACE_VARIABLE, GRACE_SECONDS = "RECDISTILL_TRACKING_GRACE", 600.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
WRITE_FILE, STORE_FILE, LOCK_FILE, FILES = "write.json", "store.json", "lock", "files"
#: Begins the folder of a write that was set aside.
REFUSED = "refused-"


class LostStoreError(InputError):
    """The tracking store does not answer; what was written waits on disk."""


def grace_seconds() -> float:
    """``$RECDISTILL_TRACKING_GRACE``, else ten minutes. Raises InputError where it is no number."""
    given = os.environ.get(GRACE_VARIABLE, "")
    try:
        return max(0.0, float(given)) if given else GRACE_SECONDS
    except ValueError:
        raise InputError(f"{GRACE_VARIABLE}={given}: must be a number of seconds") from None


class Queue:
    """Writes on disk, in order. Whoever has made or taken a queue holds its lock.

    Attributes:
        folder: of the queue.
        address: of the store that they are for.
    """

    def __init__(self, folder: Path, address: str, lock: IO[str]) -> None:
        self.folder, self.address, self.lock = folder, address, lock
        self.last = max((int(one.name) for one in self.waiting()), default=0)

    @classmethod
    def made(cls, parent: Path, address: str) -> "Queue":
        """A new one."""
        folder = parent / f"{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        lock = (folder / LOCK_FILE).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / STORE_FILE).write_text(json.dumps({"address": address}), encoding="utf-8")
        return cls(folder, address, lock)

    @classmethod
    def taken(cls, folder: Path) -> "Queue | None":
        """The queue in a folder; None where a running process has it, or it is none."""
        try:
            lock = (folder / LOCK_FILE).open("r+")
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            address = json.loads((folder / STORE_FILE).read_text(encoding="utf-8"))["address"]
            return cls(folder, str(address), lock)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def waiting(self) -> list[Path]:
        """The folders of the writes, in order."""
        return sorted(one for one in self.folder.iterdir() if one.name.isdecimal())

    def add(self, write: Write, files: Path | None) -> None:
        """Keep a write and a copy of its files behind the others."""
        partial = self.folder / f".partial-{self.last + 1:08d}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if files is not None:
            shutil.copytree(files, partial / FILES)
        (partial / WRITE_FILE).write_text(write.text(), encoding="utf-8")
        partial.rename(self.folder / f"{self.last + 1:08d}")
        self.last += 1

    def remove(self, place: Path) -> None:
        """Remove a write. A kill leaves it whole, or out of the order."""
        gone = place.with_name(f".sent-{place.name}")
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def set_aside(self, place: Path) -> Path:
        """Keep a write that the store refuses, out of the order. Returns where."""
        refused = place.with_name(f"{REFUSED}{place.name}")
        place.rename(refused)
        return refused

    def refused(self) -> list[Path]:
        """The folders of the writes that were set aside."""
        return sorted(self.folder.glob(f"{REFUSED}*"))

    def close(self) -> None:
        """Give the lock back; a queue of which nothing is left is removed."""
        with suppress(OSError):
            if not self.waiting() and not self.refused():
                shutil.rmtree(self.folder, ignore_errors=True)
        self.lock.close()


@dataclass
class Loss:
    """A store that did not take a write: since when, what it said last, and when it is asked again.

    Attributes:
        mends: it may be mended without anybody here, as a server that is started again.
    """

    since: float
    reason: str
    mends: bool
    pause: float = 0.0
    again: float = 0.0


class Outbox:
    """The writes of this process to one store.

    Args:
        address: of the store, as messages name it.
        parent: folder of the queues.
        perform: makes a write, see `writes.perform`.
        answers: whether the store answers at all.
        clock, sleep: of time.
    """

    def __init__(
        self,
        address: str,
        parent: Path,
        *,
        perform: Callable[[Write, Path], None] = perform,
        answers: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.address, self.parent, self.perform, self.answers = address, parent, perform, answers
        self.clock, self.sleep = clock, sleep
        self.queue: Queue | None = None
        self.loss: Loss | None = None
        self.patient = True
        self.lock = threading.RLock()
        self.metrics: dict[str, dict[str, tuple[int, int, float]]] = {}
        self.then: list[Callable[[], None]] = []

    def afterwards(self, act: Callable[[], None]) -> None:
        """Act once nothing waits any more: now, or as the last write that waits has been sent."""
        with self.lock:
            if self.queue is None:
                act()
            else:
                self.then.append(act)

    def write(self, write: Write, files: Path | None = None) -> None:
        """Make a write, or keep it on disk behind those that wait.

        Raises what the store says where it refuses the write, and InputError where it can be kept nowhere.
        """
        with self.lock:
            self.note(write)
            if self.flush():
                try:
                    self.perform(write, files or Path())
                    return
                except Exception as error:
                    if is_mistake(error):
                        raise
                    self.lost(error)
            self.keep(write, files)

    def note(self, write: Write) -> None:
        """Remember the last value of each metric."""
        for name, value, moment, step in write.values.get("metrics", ()):
            last = self.metrics.setdefault(write.run_id, {})
            last[name] = max(last.get(name, (step, moment, value)), (step, moment, value))

    def keep(self, write: Write, files: Path | None) -> None:
        """Keep a write on disk."""
        try:
            if self.queue is None:
                self.queue = Queue.made(self.parent, self.address)
            self.queue.add(write, files)
        except OSError as error:
            raise InputError(
                f"tracking store {self.address} does not take what is logged, and {self.parent} cannot keep it "
                f"({error.strerror}); set RECDISTILL_CACHE to a folder that can be written, and start again"
            ) from None

    def lost(self, error: BaseException) -> None:
        """The store did not take something: ask again later, each time after twice as long."""
        now, reason = self.clock(), reason_of(error)
        if self.loss is None:
            self.loss = Loss(now, reason, mends=True)
            print(
                f"tracking store {self.address} does not take what is logged ({reason}): the work goes on, and what "
                f"is logged waits in {self.parent}",
                flush=True,
            )
        self.loss.reason, self.loss.mends = reason, not is_of_files(error) or is_silence(error)
        self.loss.pause = min(LONGEST_PAUSE, 2 * self.loss.pause or FIRST_PAUSE)
        self.loss.again = now + self.loss.pause

    def flush(self, *, now: bool = False) -> bool:
        """Send what waits, where it is time to try, or ``now``. Returns whether nothing waits any more."""
        with self.lock:
            if self.loss is None:
                return True
            if not now and self.clock() < self.loss.again:
                return False
            if not self.answers():
                self.lost(ConnectionError(f"{self.address} does not answer"))
                return False
            sent = 0
            for place in self.queue.waiting() if self.queue is not None else ():
                assert self.queue is not None
                try:
                    sent += send(self.queue, place, self.perform) is not None
                except Exception as error:
                    self.lost(error)
                    return False
            if self.queue is not None:
                self.queue.close()
            self.queue, self.loss, self.patient = None, None, True
            while self.then:
                self.then.pop(0)()
            if sent:
                print(f"tracking store {self.address} is back: sent {sent} writes that waited", flush=True)
            return True

    def drain(self, seconds: float) -> bool:
        """Send what waits, and wait at most ``seconds`` for the store. Returns whether nothing waits any more."""
        deadline = self.clock() + seconds
        while not self.flush(now=True):
            assert self.loss is not None
            left = deadline - self.clock()
            if left <= 0 or not self.loss.mends:
                return False
            self.sleep(min(self.loss.pause, left))
        return True

    def waits_for(self, run_id: str) -> bool:
        """Whether a write to the run waits."""
        for place in self.queue.waiting() if self.queue is not None else ():
            with suppress(ValueError):  # a damaged one, which is set aside as it is sent
                if read_write(place).run_id == run_id:
                    return True
        return False

    def error(self) -> LostStoreError:
        """The one line that says what waits where, and how it is sent."""
        waiting = len(self.queue.waiting()) if self.queue is not None else 0
        reason = self.loss.reason if self.loss is not None else "no answer"
        kept = f"; {waiting} writes wait in {self.parent}, `recdistill sync` sends them" if waiting else ""
        return LostStoreError(
            f"tracking store {self.address} does not take what is logged ({reason.rstrip('.')}){kept or '; start it'} "
            "when it is back, and the same command goes on from there"
        )

    def read(self, ask: Callable[[], Answer], patience: float | None = None) -> Answer:
        """What the store says, after it has taken what waits.

        Args:
            ask: asks it.
            patience: seconds to wait where it does not answer; None for `grace_seconds`, once.

        Raises:
            LostStoreError: it did not answer for so long.
        """
        if patience is None:
            patience = grace_seconds() if self.patient else 0.0
        deadline = self.clock() + patience
        while True:
            if self.flush(now=True) or (self.loss is not None and not self.loss.mends):
                try:
                    return ask()
                except Exception as error:
                    if not is_silence(error):
                        raise
                    self.lost(error)
            assert self.loss is not None
            left = deadline - self.clock()
            if left <= 0:
                # Whoever reads next does not wait as long again.
                self.patient = self.patient and not patience
                raise self.error() from None
            self.sleep(min(self.loss.pause, left))


def read_write(place: Path) -> Write:
    """The write of a folder."""
    return Write.of((place / WRITE_FILE).read_text(encoding="utf-8"))


def send(queue: Queue, place: Path, perform: Callable[[Write, Path], None]) -> str | None:
    """Send a write of a queue and remove it; one that the store refuses is set aside, with a line that says so.

    Returns the key that the write gives its run, which has all its results then; '' where it gives none, None where
    the write was set aside. Raises what the store says where it does not take it now.
    """
    key = None
    try:
        write = read_write(place)
        perform(write, place / FILES)
        key = str(write.values.get("tags", {}).get(RUN_KEY, ""))
    except Exception as error:
        if not is_mistake(error) and not isinstance(error, ValueError):
            raise
        refused = queue.set_aside(place)
        print(f"tracking store {queue.address} refuses a write that waited ({reason_of(error)}): {refused}", flush=True)
    else:
        queue.remove(place)
    return key


_outboxes: dict[tuple[int, str, Path], Outbox] = {}


def outbox() -> Outbox:
    """That of this process for the tracking store at hand."""
    uri, parent = mlflow.get_tracking_uri(), outbox_folder()
    place = (os.getpid(), absolute(uri), parent)
    if place not in _outboxes:
        _outboxes[place] = Outbox(tracking_address(), parent, answers=lambda: answers(uri))
    return _outboxes[place]


def outbox_folder() -> Path:
    """Where the queues are."""
    return cache_dir() / "outbox"


def post(write: Write, files: Path | None = None) -> None:
    """Make a write to the store at hand, see `Outbox.write`."""
    outbox().write(write, files)


def read(ask: Callable[[], Answer], patience: float | None = None) -> Answer:
    """What the store at hand says, see `Outbox.read`."""
    return outbox().read(ask, patience)


@contextmanager
def left_behind() -> Iterator[list[Queue]]:
    """The queues of processes that have ended, the oldest first, held while it lasts."""
    parent = outbox_folder()
    folders = sorted(one for one in parent.iterdir() if one.is_dir()) if parent.is_dir() else []
    queues = [queue for queue in map(Queue.taken, folders) if queue is not None]
    try:
        yield queues
    finally:
        for queue in queues:
            queue.close()


@dataclass(frozen=True)
class Unsent:
    """Writes of ended commands that still wait.

    Attributes:
        address: of the store that they are for.
        writes: how many.
        reason: why the store did not take them; empty where it is not the store at hand.
    """

    address: str
    writes: int
    reason: str


def send_left_behind() -> list[Unsent]:
    """Send what ended commands left for the store at hand, in order, up to the first that it does not take.

    Checkpoints of runs that have all their results then are removed. Returns what still waits, by store; what a store
    refused, and was set aside, waits for whoever mends or removes it.
    """
    waiting: dict[str, int] = {}
    refused: dict[str, int] = {}
    reasons: dict[str, str] = {}
    reason, sent, here = "", 0, tracking_address()
    with left_behind() as queues:
        for queue in queues:
            places, keys = queue.waiting(), list[str]()
            ours = bool(places) and is_for(queue, here)
            while places and ours and not reason:
                try:
                    key = send(queue, places[0], perform)
                except Exception as error:
                    reason = reason_of(error)
                else:
                    places, sent = places[1:], sent + (key is not None)
                    keys.append(key or "")
            for key in () if places else filter(None, keys):
                shutil.rmtree(cache_dir() / "runs" / key, ignore_errors=True)
            if ours:
                reasons[queue.address] = reason
            for found, left in ((waiting, len(places)), (refused, len(queue.refused()))):
                if left:
                    found[queue.address] = found.get(queue.address, 0) + left
    if sent:
        print(f"tracking store {here}: sent {sent} writes that earlier commands left", flush=True)
    return [Unsent(address, count, reasons.get(address, "")) for address, count in waiting.items()] + [
        Unsent(address, count, f"refused, and set aside as {REFUSED}*; remove them once they are of no use")
        for address, count in refused.items()
    ]


def is_for(queue: Queue, here: str) -> bool:
    """Whether a queue is for the store at hand, ``here``.

    Of an address as earlier versions noted it, of a file from whatever folder, the store must have the first run.
    """
    if queue.address == here or noted_address(queue.address) != here:
        return queue.address == here
    for place in queue.waiting():
        with suppress(ValueError):  # a damaged one
            return is_there(read_write(place).run_id)
    return False


def is_there(run_id: str) -> bool:
    """Whether the store at hand has a run, and says so."""
    try:
        return bool(read(lambda: mlflow.get_run(run_id), patience=0))
    except (MlflowException, InputError):
        return False


def wait_until_it_answers(seconds: float) -> None:
    """Wait, at most so long, until the tracking server at hand answers."""
    deadline = time.monotonic() + seconds
    while not answers(mlflow.get_tracking_uri()) and time.monotonic() < deadline:
        time.sleep(min(FIRST_PAUSE, max(0.0, deadline - time.monotonic())))
