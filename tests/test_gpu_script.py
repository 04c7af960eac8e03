"""`benchmarks/gpu.sh` and what it measures, without a GPU."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent, Kernel

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS)]

import device_speed  # noqa: E402


def event(name, start, end, *, device=DeviceType.CUDA, annotation=False):
    """An event of a profile, from microsecond to microsecond."""
    about = {"device_type": device, "use_device": "cuda", "is_legacy": False, "is_user_annotation": annotation}
    return FunctionEvent(id=1, name=name, thread=0, start_us=start, end_us=end, stack=[], **about)


def test_a_kernel_counts_once_and_not_for_the_operator_that_started_it():
    operator = event("aten::mm", 0, 50, device=DeviceType.CPU)
    operator.kernels = [Kernel("gemm", 0, 100)]
    assert device_speed.busy_seconds([operator, event("gemm", 10, 110)]) == pytest.approx(100e-6)


def test_work_that_overlaps_counts_once_and_annotations_not_at_all():
    events = [event("a", 200, 300), event("b", 0, 100), event("c", 50, 120), event("d", 60, 70)]
    events += [event("step", 0, 1000, annotation=True)]
    assert device_speed.busy_seconds(events) == pytest.approx(220e-6)
    assert device_speed.busy_seconds([]) == 0


def test_the_parts_may_take_eight_minutes_in_all():
    limits = re.findall(r"^ *kept \S+ ([1-9]\d*) ", (BENCHMARKS / "gpu.sh").read_text(), re.MULTILINE)
    assert len(limits) == 5
    assert sum(map(int, limits)) <= 480


@pytest.mark.parametrize("failing", ["pytest", "--compile", "none"])
def test_the_others_run_after_a_part_that_fails_and_the_status_tells(tmp_path, failing):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@"\ncase "$*" in *"{failing}"*) exit 3;; esac\n')
    python.chmod(0o755)
    environment = os.environ | {"DEVICE": "cpu", "PYTHON": str(python), "OUT": str(tmp_path / "out")}
    done = subprocess.run(
        ["sh", str(BENCHMARKS / "gpu.sh")], env=environment, capture_output=True, text=True, check=False
    )
    parts = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert parts == ["compiled.jsonl", "seeds.jsonl", "speed.jsonl", "tests.txt"]
    names = {"pytest": " tests.txt (status 3)", "--compile": " compiled.jsonl (status 3)", "none": ""}
    assert done.returncode == (failing != "none")
    assert done.stderr == (f"failed:{names[failing]}\n" if names[failing] else "")
    assert "seeds.py" in done.stdout
