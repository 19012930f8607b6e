"""How calls are timed beside each other, and what memory they get."""

import ctypes
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

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
    time of a call hangs on what was freed before it. Without glibc, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_ARENA_MAX, 1)
