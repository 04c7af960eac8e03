"""`benchmarks/growth.py`: its table, what it refuses, and one small size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS)]

import growth  # noqa: E402

LINE = {
    "interactions": 10**6, "items": 10**5, "train": 9 * 10**5, "read_s": 1.0, "read_and_split_s": 2.0,
    "epoch_sasrec_sampled_s": 60.0, "recommend_10k_s": 5.0, "peak_gib": 1.5,
}  # fmt: skip
LARGE = LINE | {"interactions": 10**7, "train": 9 * 10**6, "read_s": 12.0, "read_and_split_s": 20.0}


def test_a_line_in_which_reading_took_longer_than_with_splitting_is_refused():
    assert growth.checked([LINE, LARGE]).startswith("reading: 1.20 times")
    with pytest.raises(ValueError, match=r"1,000,000 interactions, 100,000 items: reading took 2\.5 s"):
        growth.checked([LINE | {"read_s": 2.5}, LARGE])


def test_lines_that_are_refused_end_the_check_with_a_status(tmp_path):
    (tmp_path / "lines.jsonl").write_text(json.dumps(LINE | {"read_s": 2.5}) + "\n")
    command = [sys.executable, str(BENCHMARKS / "growth.py"), "--table", str(tmp_path / "lines.jsonl"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("measure this size again")


def test_the_table_tells_memory_of_training_and_the_checkpoint_and_leaves_out_what_older_lines_lack():
    trained = {"epoch_sasrec_sampled_peak_mib": 2048, "epoch_sasrec_sampled_checkpoint_mib": 512}
    rows = [row.split(" | ") for row in growth.table([LINE, LARGE | trained]).splitlines()]
    assert rows[0][-3:] == ["SASRec trained, sampled, peak GiB", "its checkpoint, GiB", "peak of all, GiB |"]
    assert rows[2][-3:-1] == ["-", "-"]
    assert rows[3][-3:-1] == ["2", "0.5"]


def test_a_step_that_is_done_again_keeps_the_least_seconds_and_the_most_memory(monkeypatch):
    measured = growth.Measured()
    for seconds, peak in ((3.0, 100.0), (2.0, 300.0), (4.0, 200.0)):
        monkeypatch.setattr(growth, "peak_mib", lambda peak=peak: peak)
        measured.keep("read", seconds)
    assert measured.found == {"read_s": 2.0, "read_peak_mib": 300}
    assert measured.peak == 300


@pytest.mark.slow
def test_a_small_size_is_measured_through_the_training_loop(tmp_path):
    command = [sys.executable, str(BENCHMARKS / "growth.py"), "--sizes", "4000x300", "--samples", "1100"]
    command += ["--histories", "20", "--teacher-samples", "20", "--students", "sasrec"]
    done = subprocess.run([*command, "--results", str(tmp_path / "r")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = json.loads((tmp_path / "r").read_text())
    assert 0 < line["read_s"] <= line["read_and_split_s"]
    for loss, least in (("sampled", 1100), ("ce", 512)):
        assert line[f"epoch_sasrec_{loss}_samples"] >= least
        assert line[f"epoch_sasrec_{loss}_checkpoint_mib"] > 0
        assert line[f"epoch_sasrec_{loss}_peak_mib"] <= line["peak_gib"] * 1024 + 10
    assert growth.checked([line]) == ""
