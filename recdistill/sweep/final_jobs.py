"""How many processes do a sweep's final trainings: the seeds of a student cost least in processes of one thread each.

A student's small steps gain little from a second thread; `benchmarks/seeds.py` measures what processes gain.
"""

import resource
import sys
from pathlib import Path

import torch

from recdistill.config import SweepConfig

KIB = 1024


def final_jobs(config: SweepConfig, trainings: int) -> int:
    """Processes for so many trainings.

    One where seeds train together; ``final_jobs`` where it is given; else ``jobs`` where that is above 1 or a GPU
    trains; else one a thread, as many as memory holds. No clock decides: threads add in another order, and the same
    command shall give the same numbers.
    """
    if config.final_together:
        return 1
    if config.final_jobs:
        return config.final_jobs
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    if config.jobs > 1 or not on_cpu:
        return config.jobs
    return jobs_that_fit(max(1, min(trainings, torch.get_num_threads())), free_memory())


def jobs_that_fit(most: int, free: int) -> int:
    """Processes as large as this one is now that fit in half of ``free`` bytes: at least 1, ``most`` at most."""
    return max(1, min(most, free // 2 // resident_memory()))


def resident_memory() -> int:
    """Bytes that this process holds now, as Linux tells: not what it held while it timed an LLM; elsewhere the most."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def free_memory() -> int:
    """Bytes that further processes may take, as Linux tells; 0 where the system does not."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return KIB * found[0] if found else 0
