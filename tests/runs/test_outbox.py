"""Writes to a store that fails in any pattern: in the end the same content, once each, in order."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from recdistill.config import SyncConfig
from recdistill.errors import InputError
from recdistill.runs import outbox as module
from recdistill.runs.outbox import LostStoreError, Outbox, Queue, read_write, send
from recdistill.runs.tracking_store import tracking_address
from recdistill.runs.writes import Write, batch
from recdistill.steps.sync import sync

RUN = "r" * 32
#: What a call of the store does: takes the write, fails, or takes it and its answer is lost.
TAKES, FAILS, ANSWER_LOST = "takes", "fails", "answer lost"


class FakeStore:
    """Takes and loses calls by a pattern, after whose end it takes all."""

    def __init__(self, pattern=()):
        self.pattern, self.calls = list(pattern), []
        self.now = 0.0

    def perform(self, write, files):
        does = self.pattern.pop(0) if self.pattern else TAKES
        if does != FAILS:
            listed = sorted(files.iterdir()) if write.kind == "files" else []
            content = {one.name: one.read_text() for one in listed}
            self.calls.append((write.kind, write.run_id, dict(write.values), content))
        if does != TAKES:
            raise ConnectionError("Connection refused")

    @property
    def content(self):
        """The calls that it took, a repeated one once: MLflow's store keeps the same of both."""
        return [call for place, call in enumerate(self.calls) if place == 0 or self.calls[place - 1] != call]

    def outbox(self, folder, **options):
        return Outbox("http://store", folder, perform=self.perform, clock=lambda: self.now, sleep=self.sleep, **options)

    def sleep(self, seconds):
        self.now += seconds


def writes_of(folder, number):
    """A write of any kind, and its files where it has some."""
    if number % 3 == 0:
        files = folder / f"files-{number}"
        files.mkdir()
        (files / "content.txt").write_text(f"content {number}")
        return Write("files", RUN, {"path": f"folder{number}"}), files
    if number % 3 == 1:
        return batch(RUN, metrics=[("val/mrr", number / 7, 1000 + number, number)], tags={"t": number}), None
    return Write("text", RUN, {"name": f"{number}.txt", "text": "a\nb"}), None


@settings(max_examples=150, deadline=None)
@given(
    pattern=st.lists(st.sampled_from([TAKES, FAILS, ANSWER_LOST]), max_size=40),
    pauses=st.lists(st.sampled_from([0.0, 0.5, 5.0, 100.0]), min_size=1, max_size=12),
    killed_after=st.none() | st.integers(0, 11),
)
def test_any_pattern_of_failures_ends_with_the_same_content_once_each_in_order(pattern, pauses, killed_after):
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        asked = [writes_of(folder, number) for number in range(len(pauses))]
        undisturbed, store = FakeStore(), FakeStore(pattern)
        for write, files in asked:
            undisturbed.perform(write, files or Path())
        box = store.outbox(folder / "outbox")
        for place, ((write, files), pause) in enumerate(zip(asked, pauses, strict=True)):
            store.now += pause
            box.write(write, files)
            if place == killed_after:
                # Its process is gone; the next command sends what it left.
                if box.queue is not None:
                    box.queue.lock.close()
                for one in sorted((folder / "outbox").glob("*")):
                    queue = Queue.taken(one)
                    store.pattern = []
                    for waiting in queue.waiting():
                        send(queue, waiting, store.perform)
                    queue.close()
                box = store.outbox(folder / "outbox")
        store.pattern = store.pattern[:20]
        assert box.drain(10_000)
        assert store.content == undisturbed.content
        assert not list((folder / "outbox").glob("*"))
        assert box.metrics.get(RUN, {}).keys() <= {"val/mrr"}


def test_a_lost_store_is_asked_again_after_longer_and_longer(tmp_path):
    store = FakeStore([FAILS] * 1000)
    box, asked = store.outbox(tmp_path), []
    for _ in range(600):
        before = len(store.pattern)
        box.write(batch(RUN, tags={"a": "b"}))
        asked += [store.now] if len(store.pattern) < before else []
        store.now += 1
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[6:]) == {60}


def test_a_server_that_is_away_is_not_written_to(tmp_path):
    store, there = FakeStore([FAILS]), []
    box = store.outbox(tmp_path, answers=lambda: bool(there))
    box.write(batch(RUN, tags={"a": "1"}))
    assert not box.drain(100)
    assert store.now == 100
    assert store.calls == []
    there.append(True)
    assert box.drain(0)
    assert len(store.calls) == 1


def test_what_is_done_afterwards_comes_after_the_last_write(tmp_path):
    store, done = FakeStore([FAILS]), []
    box = store.outbox(tmp_path)
    box.afterwards(lambda: done.append(len(store.calls)))
    box.write(batch(RUN, tags={"a": "1"}))
    box.write(batch(RUN, tags={"b": "1"}))
    box.afterwards(lambda: done.append(len(store.calls)))
    assert done == [0]
    assert box.drain(10)
    assert done == [0, 2]


def test_what_waits_for_whom(tmp_path):
    store = FakeStore([FAILS] * 3)
    box = store.outbox(tmp_path)
    box.write(batch(RUN, metrics=[("val/mrr", 0.5, 1, 1)]))
    assert (box.waits_for(RUN), box.waits_for("other")) == (True, False)
    assert str(box.error()) == (
        f"tracking store http://store does not take what is logged (Connection refused); 1 writes wait in {tmp_path}, "
        "`recdistill sync` sends them when it is back, and the same command goes on from there"
    )
    assert box.drain(100)
    assert not box.waits_for(RUN)


def test_a_write_that_the_store_refuses_is_raised_at_once_and_set_aside_later(tmp_path, capsys):
    refused = MlflowException("Run not found", RESOURCE_DOES_NOT_EXIST)

    def perform(write, files):
        if write.values["tags"] == {"no": "1"}:
            raise refused
        store.perform(write, files)

    store = FakeStore([FAILS])
    box = Outbox("http://store", tmp_path, perform=perform, clock=lambda: store.now, sleep=store.sleep)
    with pytest.raises(MlflowException, match="Run not found"):
        box.write(batch(RUN, tags={"no": "1"}))
    for name in ("yes", "no", "also"):
        box.write(batch(RUN, tags={name: "1"}))
    assert box.drain(10)
    assert [call[2]["tags"] for call in store.calls] == [{"yes": "1"}, {"also": "1"}]
    (kept,) = tmp_path.glob("*/refused-*")
    assert read_write(kept).values["tags"] == {"no": "1"}
    assert "refuses a write that waited (Run not found)" in capsys.readouterr().out


def left_for(address, run_id):
    """A queue with a write to a run, as a command that ended left it."""
    queue = Queue.made(module.outbox_folder(), address)
    queue.add(batch(run_id, tags={"left": "1"}), None)
    queue.close()
    return queue.folder


def test_what_waits_for_a_file_of_another_folder_is_not_sent_here(client, capsys):
    run_id = client.create_run("0").info.run_id
    # As earlier versions noted an address: from here, too, the text is that of the store at hand.
    for name in ("sqlite:///mlflow.db", f"sqlite:///{Path.cwd().parent}/mlflow.db"):
        folder = left_for(name, "0" * 32)
        assert module.send_left_behind() == [module.Unsent(name, 1, "")]
        shutil.rmtree(folder)
    folder = left_for("sqlite:///mlflow.db", run_id)
    assert module.send_left_behind() == []
    assert client.get_run(run_id).data.tags["left"] == "1"
    assert not folder.exists()
    assert "sent 1 writes that earlier commands left" in capsys.readouterr().out


def test_what_was_set_aside_is_told_until_somebody_removes_it(client, capsys):
    here = tracking_address()
    folder = left_for(here, "0" * 32)
    for _ in range(2):
        (unsent,) = module.send_left_behind()
        assert (unsent.address, unsent.writes) == (here, 1)
        assert unsent.reason.startswith("refused, and set aside as refused-*")
    assert "sent" not in capsys.readouterr().out.replace("sent by", "")
    with pytest.raises(InputError, match=r"1 writes wait for .*refused, and set aside"):
        sync(SyncConfig(wait=0))
    shutil.rmtree(folder)
    sync(SyncConfig(wait=0))


def test_a_full_disk_is_not_waited_for(tmp_path):
    def perform(write, files):
        raise OSError(28, "No space left on device")

    store = FakeStore()
    box = Outbox("sqlite:///x", tmp_path, perform=perform, clock=lambda: store.now, sleep=store.sleep)
    box.write(batch(RUN, tags={"a": "1"}))
    assert not box.drain(600)
    assert store.now == 0
    # The database may be read all the same.
    assert box.read(lambda: "answer") == "answer"


def test_a_mistake_of_the_caller_does_not_wait(tmp_path):
    def perform(write, files):
        raise KeyError("metrics")

    with pytest.raises(KeyError):
        Outbox("http://store", tmp_path, perform=perform).write(batch(RUN))
    assert not list(tmp_path.iterdir())


def test_a_read_waits_once_for_the_grace_and_then_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv(module.GRACE_VARIABLE, "50")
    store, asked = FakeStore(), []
    box = store.outbox(tmp_path)

    def ask():
        asked.append(store.now)
        if store.now < mended:
            raise ConnectionError("Connection refused")
        return "answer"

    mended = 20.0
    assert box.read(ask) == "answer"
    mended = 1e9
    began = store.now
    with pytest.raises(LostStoreError, match=r"Connection refused\); start it when it is back"):
        box.read(ask)
    assert store.now - began == 50
    with pytest.raises(LostStoreError):
        box.read(ask)
    assert store.now - began == 50
    mended = 0.0
    assert box.read(ask) == "answer"


def test_a_read_comes_after_what_waits(tmp_path):
    store = FakeStore([FAILS] * 4)
    box = store.outbox(tmp_path)
    box.write(batch(RUN, tags={"a": "1"}))
    assert box.read(lambda: len(store.calls), patience=60) == 1


def test_what_is_no_silence_is_raised_as_it_is(tmp_path):
    def ask():
        raise MlflowException("no such run", RESOURCE_DOES_NOT_EXIST)

    with pytest.raises(MlflowException, match="no such run"):
        FakeStore().outbox(tmp_path).read(ask)


def test_a_cache_that_cannot_be_written_is_said_in_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    box = FakeStore([FAILS]).outbox(tmp_path / "file" / "outbox")
    with pytest.raises(InputError, match="set RECDISTILL_CACHE to a folder that can be written") as raised:
        box.write(batch(RUN, tags={"a": "1"}))
    assert "\n" not in str(raised.value)


def test_the_queue_of_a_running_process_is_left_to_it(tmp_path):
    program = "import sys; from pathlib import Path; from recdistill.runs.outbox import Queue; "
    program += "Queue.made(Path(sys.argv[1]), 'http://store'); print('made', flush=True); sys.stdin.read()"
    held = "queue = "
    process = subprocess.Popen(
        [sys.executable, "-c", program.replace("Queue.made", held + "Queue.made"), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout.readline() == "made\n"
    (folder,) = tmp_path.iterdir()
    assert Queue.taken(folder) is None
    process.kill()
    process.wait()
    taken = Queue.taken(folder)
    assert taken is not None
    taken.close()
    assert not folder.exists()


DAMAGED = ["", "[]", "{}", '{"kind": "shell", "run_id": "r", "values": {}}', '{"kind": ["end"]}']


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_write_is_set_aside(tmp_path, text):
    store = FakeStore([FAILS])
    box = store.outbox(tmp_path)
    box.write(batch(RUN, tags={"a": "1"}))
    (box.queue.waiting()[0] / "write.json").write_text(text)
    box.write(batch(RUN, tags={"b": "1"}))
    assert box.drain(10)
    assert [call[2]["tags"] for call in store.calls] == [{"b": "1"}]
