"""One process at a time in a folder, and nothing left of it afterwards."""

import threading
from pathlib import Path

import pytest

from recdistill.runs.folder_lock import locked

THREADS, TIMES = 6, 40


def test_nothing_is_left(tmp_path: Path) -> None:
    with locked(tmp_path / "runs" / "key"):
        assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["key", "key.lock"]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_checkpoint_stays_after_an_error_and_the_lock_is_free(tmp_path: Path) -> None:
    def failing() -> None:
        with locked(tmp_path / "key"):
            (tmp_path / "key" / "checkpoint").touch()
            raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError, match=r"^$"):
            failing()
        assert [path.name for path in tmp_path.rglob("*")] == ["key", "checkpoint"]


def test_what_a_kill_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "key.lock").touch()
    with locked(tmp_path / "key"):
        assert (tmp_path / "key.lock").exists()
    assert not (tmp_path / "key.lock").exists()


def test_only_one_is_inside_however_many_wait_for_a_file_that_goes(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0
    begin = threading.Barrier(THREADS)

    def work() -> None:
        nonlocal inside, most, entered
        begin.wait()
        for _ in range(TIMES):
            # flock holds between open files, of one process or of several.
            with locked(tmp_path / "key"):
                inside += 1
                most = max(most, inside)
                entered += 1
                (tmp_path / "key" / "work").touch()
                (tmp_path / "key" / "work").unlink()
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, entered) == (1, THREADS * TIMES)
    assert list(tmp_path.iterdir()) == []
