"""Peak memory of a training."""

import resource
import sys

import torch

MIB = 1 << 20


def peak_memory(devices: set[torch.device]) -> dict[str, float]:
    """``system/memory_mib``, and ``system/cuda_memory_mib`` where a device is CUDA's.

    The first is the greatest resident memory of this process so far, earlier steps included; the second the greatest
    memory of tensors on the devices since `reset_peak_memory`. Both in MiB.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    found = {"system/memory_mib": peak / (MIB if sys.platform == "darwin" else 1 << 10)}
    allocated = [torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda"]
    return found | ({"system/cuda_memory_mib": sum(allocated) / MIB} if allocated else {})


def reset_peak_memory(devices: set[torch.device]) -> None:
    """Start the peak memory of CUDA devices again at what is in use now."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
