"""A line of data is said once, on one line, by the first process alone."""

import multiprocessing
import subprocess
import sys

from recdistill.data.notices import notice


def test_a_line_is_said_once(said):
    notice("read a\n file")
    notice("read a file")
    notice("read another")
    assert said() == ["read a file", "read another"]


def test_a_launched_process_that_is_not_the_first_says_nothing(said, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    notice("read a file")
    assert said() == []
    monkeypatch.setenv("RANK", "0")
    notice("read a file")
    assert said() == ["read a file"]


def test_workers_say_nothing(capfd):
    worker = multiprocessing.get_context("fork").Process(target=notice, args=("from a worker",))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert capfd.readouterr().out == ""


def test_a_process_of_its_own_says_it():
    code = "from recdistill.data.notices import notice; notice('x'); notice('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "data: x\n"
