"""Peak memory of a training."""

import os
import resource
import sys
from pathlib import Path

import torch

MIB = 1 << 20
KIB = 1 << 10
#: What Linux tells of this process.
STATUS = Path("/proc/self/status")
#: The most memory that a process has told, by its id: Linux counts pages roughly, and its mark may sink by some.
_told: dict[int, int] = {}


def peak_resident() -> int:
    """Bytes that this process had resident at most, since its program was started.

    Of Linux the high-water mark of its own memory (``VmHWM``). Elsewhere what ``getrusage`` tells, which may count the
    memory of the process that started it.
    """
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * KIB
    # Linux counts KiB, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def peak_memory(devices: set[torch.device]) -> dict[str, float]:
    """``system/memory_mib``, and ``system/cuda_memory_mib`` where a device is CUDA's.

    The first is the greatest resident memory of this process so far, earlier steps included; the second the greatest
    memory of tensors on the devices since `reset_peak_memory`. Both in MiB.
    """
    _told[os.getpid()] = max(peak_resident(), _told.get(os.getpid(), 0))
    found = {"system/memory_mib": _told[os.getpid()] / MIB}
    allocated = [torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda"]
    return found | ({"system/cuda_memory_mib": sum(allocated) / MIB} if allocated else {})


def reset_peak_memory(devices: set[torch.device]) -> None:
    """Start the peak memory of CUDA devices again at what is in use now."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
