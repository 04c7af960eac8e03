"""What a training costs the machine: its peak memory."""

import resource
import sys

import torch

MIB = 1 << 20


def peak_memory(devices: set[torch.device]) -> dict[str, float]:
    """``system/memory_mib``, and ``system/cuda_memory_mib`` where a device is CUDA's.

    The first is the most memory that this process has had resident so far, earlier steps in it included; the second
    the most that tensors took of the devices since `reset_peak_memory`.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts KiB, macOS bytes.
    found = {"system/memory_mib": peak / (MIB if sys.platform == "darwin" else 1 << 10)}
    allocated = [torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda"]
    return found | ({"system/cuda_memory_mib": sum(allocated) / MIB} if allocated else {})


def reset_peak_memory(devices: set[torch.device]) -> None:
    """Begin to count the peak memory of CUDA devices anew."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
