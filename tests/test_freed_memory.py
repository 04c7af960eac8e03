"""Memory that is freed stays in the process, unless the user's environment says otherwise."""

import ctypes
import os
import subprocess
import sys

import pytest

from recdistill.freed_memory import OF_USER, keep_freed_memory

PIECES = """
import recdistill, resource
import numpy as np
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    one, two = np.ones(5_000_000, np.uint8), np.ones(9_000_000, np.uint8)
    del one, two
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES_OF_ALL = 100 * 14_000_000 // 4096
of_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library"
)


@of_glibc
def test_pieces_that_are_freed_are_handed_out_again_by_the_process():
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", PIECES], env=given, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 0.1 * PAGES_OF_ALL


GIVEN_BACK = """
import numpy as np, psutil
from recdistill.freed_memory import give_back_freed_memory
resident = lambda: psutil.Process().memory_info().rss
# Pieces below the limit above which the system has them back by itself, and one behind them that stays.
pieces = [np.ones(9_000_000, np.uint8) for _ in range(40)]
stays, held = np.ones(1000, np.uint8), resident()
del pieces
kept = resident()
give_back_freed_memory()
print(held, kept, resident(), int(stays.sum()))
"""


@of_glibc
def test_freed_memory_is_given_back_where_it_is_asked_for():
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], env=given, capture_output=True, text=True, check=True)
    held, kept, after, sum_of_what_stays = map(int, done.stdout.split())
    assert kept > held - 100_000_000
    assert after < held - 300_000_000
    assert sum_of_what_stays == 1000


@of_glibc
@pytest.mark.parametrize(
    ("given", "set_here"),
    [
        ({}, True),
        ({"GLIBC_TUNABLES": "glibc.cpu.x86_ibt=off"}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "4096"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.top_pad=4096"}, False),
    ],
)
def test_the_users_own_limits_stand(given, set_here, monkeypatch):
    for name in (*OF_USER, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert keep_freed_memory() == set_here
