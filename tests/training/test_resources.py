import sys

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


def test_kib_on_linux_and_bytes_on_macos(monkeypatch):
    usage = type("Usage", (), {"ru_maxrss": 3 << 20})
    monkeypatch.setattr(resources.resource, "getrusage", lambda who: usage)
    for platform, expected in (("linux", 3 << 10), ("darwin", 3)):
        monkeypatch.setattr(sys, "platform", platform)
        assert peak_memory(set())["system/memory_mib"] == expected


def test_cuda_devices_are_summed_and_counted_anew(monkeypatch):
    allocated = {CUDA[0]: 5 << 20, CUDA[1]: 7 << 20}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", allocated.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: allocated.update({device: 0}))
    devices = {torch.device("cpu"), *CUDA}
    assert peak_memory(devices)["system/cuda_memory_mib"] == 12
    reset_peak_memory(devices)
    assert peak_memory(devices)["system/cuda_memory_mib"] == 0
