"""A short kill campaign: `benchmarks/kill_campaign.py` at a few of its moments."""

import itertools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "kill_campaign.py"
sys.path.insert(0, str(SCRIPT.parent))

import kill_campaign  # noqa: E402

SECONDS = 1800
#: Few, for each takes its undisturbed command first.
CASES = ("teacher, scoring", "study", "add_items")


@pytest.mark.slow
def test_commands_killed_at_random_moments_end_as_undisturbed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{kill_campaign.MARKS[0]}\nold\n{kill_campaign.MARKS[1]}\nAfter.\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--moments", "3", "--seed", "3", "--cases", *CASES, "--write", str(page)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"moments": 3, "failed": 0}
    text = page.read_text(encoding="utf-8")
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "3 moments, seed 3" in text
    assert "old" not in text


FORKS = """
import threading
from pathlib import Path

import torch
from faulty_process import in_fork

torch.set_num_threads(1)
numbers = torch.ones(1 << 16).mul_(1.0)


def compute_in_threads() -> int:
    failures = []
    barrier = threading.Barrier(8)

    def compute() -> None:
        barrier.wait()
        try:
            numbers.mul_(1.0)
        except RuntimeError as error:
            failures.append(error)

    threads = [threading.Thread(target=compute) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(failures)


print(sum(in_fork(compute_in_threads, Path("said").absolute(), 60) != 0 for _ in range(40)))
"""


@pytest.mark.slow
def test_threads_of_a_fork_can_compute_at_once(tmp_path: Path) -> None:
    # Without care a quarter of such forks fail: each thread would renew torch's pool of threads.
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(SCRIPT.parent)},
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    assert done.stdout == "0\n"


def test_the_table_counts_what_ended_as_undisturbed() -> None:
    name = kill_campaign.CASES[0].name
    results = [{"case": name, "fault": "SIGKILL", "wrong": wrong} for wrong in ([], ["metrics differ"], [])]
    assert f"| {name} | 2 of 3 |  |  |  |" in kill_campaign.table(results, 1)


def test_a_half_artifact_is_found(tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text("{}")
    assert kill_campaign.unreadable(tmp_path) == []
    for name in ("half.json", "half.parquet", "half.safetensors"):
        (tmp_path / name).write_bytes(b'{"a": ')
    assert len(kill_campaign.unreadable(tmp_path)) == 3


def test_other_metrics_are_told_from_the_same_ones() -> None:
    one = [{"val/mrr": 0.5}]
    assert kill_campaign.same(one, [{"val/mrr": 0.5}])
    for other in ([], [{"val/mrr": 0.5000001}], [{"val/ndcg": 0.5}], one * 2, [{"val/mrr": math.nan}]):
        assert not kill_campaign.same(one, other)
    assert kill_campaign.same([{"val/mrr": math.nan}], [{"val/mrr": math.nan}])


def test_every_case_has_another_fault_each_time() -> None:
    turns = kill_campaign.pairs_in_turn(list(kill_campaign.CASES), random.Random(1))
    every = len(kill_campaign.CASES) * len(kill_campaign.FAULTS)
    pairs = [(case.name, fault) for case, fault in itertools.islice(turns, every)]
    assert len(set(pairs)) == every
    few = pairs[: kill_campaign.MOMENTS]
    assert {name for name, _ in few} == {case.name for case in kill_campaign.CASES}
    assert {fault for _, fault in few} == set(kill_campaign.FAULTS)


def test_moments_are_of_the_case_and_before_the_next_write() -> None:
    case = kill_campaign.Case("logging", "teacher", {}, ("/mlruns/",))
    events = [(-1.0, ""), (0.0, "/a/cache/x"), (1.0, "/a/mlruns/y"), (1.5, "/a/cache/z"), (9.0, "/a/mlruns/y")]
    found = kill_campaign.Undisturbed(kill_campaign.Place(Path("/a")), events)
    drawn = random.Random(0)
    for _ in range(20):
        event, delay = kill_campaign.drawn_moment(case, found, drawn)
        assert event in (2, 4)
        assert 0 <= delay <= (0.5 if event == 2 else 0)
