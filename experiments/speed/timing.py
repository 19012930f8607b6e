"""How calls take turns, what memory they get, and how caches are emptied.

Nothing here imports jaxpool, so that a worker can choose which one it measures.
"""

import ctypes
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

CALLS_A_TURN = 3
LONGEST = 0.02  # seconds from which on a call is repeated in few turns only
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def interleaved(calls: Mapping[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Take turns, and return the least seconds of each call."""
    least = dict.fromkeys(calls, math.inf)
    for turn in range(turns):
        for name, call in calls.items():
            if turn >= 3 and least[name] > LONGEST:
                continue
            call()  # threads of the one before may still spin
            for _ in range(CALLS_A_TURN):
                begin = time.perf_counter()
                call()
                least[name] = min(least[name], time.perf_counter() - begin)
    return least


def keep_memory() -> None:
    """Let glibc keep what is freed: no call meets page faults of fresh memory.

    By default it gives back what is above 32 MB or on top of the heap, so that the
    time of a call depends on what was freed before it. Without glibc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)


def clear_caches() -> None:
    """Forget what jax and jaxpool have traced, planned and compiled."""
    jax.clear_caches()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "jaxpool":
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()
