"""Memory that is freed stays in the process, for what is asked for next, or is given back where that is over.

A small student's training asks for the same pieces of some megabytes over and over. glibc gives such pieces back to
the system, which hands them out again page by page, each cleared and mapped anew: an eighth of the training's time
(``benchmarks/freed_memory.py``). With other limits it keeps them. What is computed stays the same, bit for bit.
"""

import ctypes
import os
import sys

#: Names of glibc's parameters, of ``malloc.h``.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
#: Bytes: of a piece that the system is asked for, and gets back, by itself; and of freed memory that a process keeps.
PIECE, KEPT = 2**26, 2**29
#: Where one of these sets the limits, they are the user's.
OF_USER = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")


def keep_freed_memory() -> bool:
    """Set glibc's limits, unless the environment has. Returns whether it did; other C libraries have no such limits."""
    if any(os.environ.get(name) for name in OF_USER) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if not sys.platform.startswith("linux"):
        return False
    set_limit = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_limit is None:
        return False
    return bool(set_limit(MMAP_THRESHOLD, PIECE)) and bool(set_limit(TRIM_THRESHOLD, KEPT))


def give_back_freed_memory() -> None:
    """Give the system all memory that was freed: for behind a step, as reading, that needed more than what it leaves.

    Of NumPy and Python with glibc, and of Arrow.
    """
    # Not imported here: it takes long, and who has not done so holds nothing of it.
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
