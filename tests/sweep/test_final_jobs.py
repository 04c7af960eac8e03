"""How many processes do a sweep's final trainings, and that a seed trained in one of them is the seed trained alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from seed_training import digest_of_seed
from sweep_stub import Options

from recdistill.sweep import final_jobs as module
from recdistill.sweep.final_jobs import final_jobs, free_memory, jobs_that_fit, resident_memory
from recdistill.sweep.workers import map_tasks


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads, and memory without end."""
    monkeypatch.setattr(module.torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(module, "free_memory", lambda: 1 << 50)
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: False)


def options(**values: object) -> Options:
    return Options(**values)  # type: ignore[arg-type]


def test_there_is_a_process_a_thread() -> None:
    assert final_jobs(options(), trainings=15) == 4
    assert final_jobs(options(device="cpu"), trainings=3) == 3
    assert final_jobs(options(), trainings=0) == 1


def test_what_is_asked_for_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert final_jobs(options(final_jobs=1), trainings=15) == 1
    assert final_jobs(options(final_jobs=7), trainings=15) == 7
    assert final_jobs(options(jobs=2), trainings=15) == 2
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    assert final_jobs(options(), trainings=15) == 1


def test_no_more_processes_than_memory_holds() -> None:
    # This process is larger than a mebibyte, and smaller than a tebibyte.
    assert jobs_that_fit(8, 0) == 1
    assert jobs_that_fit(8, 1 << 20) == 1
    assert jobs_that_fit(8, 1 << 50) == 8


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_what_a_process_has_given_back_does_not_count() -> None:
    before = resident_memory()
    held = np.ones(2**26)
    assert resident_memory() > before + 2**28
    del held
    assert resident_memory() < before + 2**28


def test_free_memory_is_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 0 <= free_memory() < 1 << 50


@pytest.mark.slow
def test_a_seed_trained_beside_others_is_the_seed_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    before = torch.get_num_threads()
    # Another number of threads adds in another order: alone, too, a seed has one thread.
    torch.set_num_threads(1)
    try:
        alone = [digest_of_seed(seed) for seed in (3, 4, 5)]
        # By jobs=1 in this process, one after the other; by jobs=2 in two others.
        assert map_tasks(digest_of_seed, [5, 3, 4], 1) == [alone[2], alone[0], alone[1]]
        assert map_tasks(digest_of_seed, [3, 4, 5], 2) == alone
    finally:
        torch.set_num_threads(before)
    assert len(set(alone)) == 3
    assert hashlib.sha256(b"").hexdigest() not in alone
