import subprocess
import sys

import pytest
import torch

from recdistill.training import resources
from recdistill.training.resources import peak_memory, reset_peak_memory

CUDA = [torch.device("cuda", 0), torch.device("cuda", 1)]


def test_memory_that_was_held_once_stays_in_the_peak():
    before = peak_memory({torch.device("cpu")})["system/memory_mib"]
    held = torch.ones(32, 1 << 20)  # 128 MiB, every page of them written
    after = peak_memory({torch.device("cpu")})
    assert after.keys() == {"system/memory_mib"}
    assert after["system/memory_mib"] >= max(before, held.nbytes / resources.MIB)
    del held
    assert peak_memory(set())["system/memory_mib"] >= after["system/memory_mib"]


@pytest.mark.skipif(not resources.STATUS.exists(), reason="only Linux tells a process's own peak")
def test_a_process_does_not_inherit_the_peak_of_the_one_that_started_it():
    held = bytearray(256 * resources.MIB)
    held[:: 1 << 12] = b"1" * len(held[:: 1 << 12])
    program = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    program += f"import pathlib, runpy; print(pathlib.Path({str(resources.STATUS)!r}).read_text())"
    # Without PyTorch, which needs more than the test holds: the lines that the function reads.
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    own = next(int(line.split()[1]) for line in told.splitlines() if line.startswith("VmHWM:"))
    assert own < 128 << 10
    assert resources.peak_resident() >= len(held)


def test_the_peak_is_the_mark_that_linux_keeps_of_the_process_itself(monkeypatch, tmp_path):
    status = tmp_path / "status"
    status.write_text("VmPeak:\t 9000 kB\nVmHWM:\t 2048 kB\nVmRSS:\t 1000 kB\n")
    monkeypatch.setattr(resources, "STATUS", status)
    monkeypatch.setattr(resources, "_told", {})
    assert resources.peak_resident() == 2048 << 10
    assert peak_memory(set())["system/memory_mib"] == 2
    # Linux counts pages roughly: what is logged does not sink.
    status.write_text("VmHWM:\t 2040 kB\n")
    assert peak_memory(set())["system/memory_mib"] == 2


def test_kib_on_linux_and_bytes_on_macos_where_no_mark_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(resources, "STATUS", tmp_path / "none")
    usage = type("Usage", (), {"ru_maxrss": 3 << 20})
    monkeypatch.setattr(resources.resource, "getrusage", lambda who: usage)
    for platform, expected in (("linux", 3 << 10), ("darwin", 3)):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(resources, "_told", {})
        assert peak_memory(set())["system/memory_mib"] == expected


def test_cuda_devices_are_summed_and_counted_anew(monkeypatch):
    allocated = {CUDA[0]: 5 << 20, CUDA[1]: 7 << 20}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: allocated.update({device: 0}))
    devices = {torch.device("cpu"), *CUDA}
    assert peak_memory(devices)["system/cuda_memory_mib"] == 12
    reset_peak_memory(devices)
    assert peak_memory(devices)["system/cuda_memory_mib"] == 0
