"""Thresholds: what the measured constants of the library do to the time of a pass.

Each constant is set to a few values in turn, one of them its own, and cases that depend
on it are timed. The table shows milliseconds, its last row their geometric mean. A
constant is found by its name, in whatever modules of the library have it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxpool
from experiments.shared import report
from experiments.speed.cases import (
    COMMON,
    IMAGE,
    MAPS,
    PLANES,
    STEPS,
    VOLUME,
    WIDE,
    ours,
)
from experiments.speed.peers import PASSES, Pass, prepare_jax
from experiments.speed.timing import clear_caches, interleaved, keep_memory

Geometry = tuple[Any, ...]  # a shape, then the arguments of the pool
LONG = ((MAPS, 8, 1, 0), (MAPS, 9, 1, 4), (WIDE, 15, 1, 7), (WIDE, 63, 1, 31))
SHORT = (*COMMON, (PLANES, 4, 2, 1), (STEPS, 5, 1, 2), (VOLUME, 2, 2, 0))
TILES = ((IMAGE, 2, 2, 0), (IMAGE, 4, 4, 0), (IMAGE, 6, 3, 0), (VOLUME, 2, 2, 0))
UNEVEN = ((IMAGE, 5), (MAPS, 3), (STEPS, 30))
UNIT = "constants"


class Threshold(NamedTuple):
    """A constant, the values to try, and cases that depend on it."""

    name: str
    values: Sequence[int]
    kinds: Sequence[str]
    cases: Sequence[Geometry]
    passes: Sequence[Pass] = PASSES

    @property
    def now(self) -> int:
        """Its own value, the same in every module that has it."""
        (value,) = {getattr(module, self.name) for module in holders(self.name)}
        return int(value)

    def short(self) -> "Threshold":
        """One case, its own value and another one."""
        other = next(value for value in self.values if value != self.now)
        values, kinds, cases = (self.now, other), self.kinds[:1], self.cases[:1]
        return self._replace(
            values=values, kinds=kinds, cases=cases, passes=self.passes[-1:]
        )


THRESHOLDS = (
    Threshold("DOUBLING_FROM", (5, 7, 9, 12, 16), ("max", "avg"), LONG[:3]),
    Threshold("BLOCK", (4, 8, 16), ("max", "avg"), (*LONG[3:], (WIDE, 32, 32, 0))),
    Threshold("MOST_READS", (1, 4, 9), ("max", "avg"), SHORT),
    Threshold("MOST_CELLS", (8, 36, 64), ("max",), ((PLANES, 7, 7, 0), *SHORT[:2])),
    Threshold(
        "MOST_ADDED", (36, 49, 64), ("avg",), ((PLANES, 7, 7, 0), (PLANES, 8, 8, 0))
    ),
    Threshold("MOST_RATIOS", (1, 9, 16, 36), ("lp",), TILES),
    Threshold("CPU_RATIOS", (1, 4, 16), ("lp",), SHORT, ("both",)),
    Threshold("MOST_PADS", (1, 3, 8), ("max", "avg"), SHORT),
    Threshold("STEP_COST", (3, 6, 11), ("max", "avg"), (*LONG[2:], (WIDE, 31, 1, 15))),
    Threshold("MOST_RUNS", (2, 3, 4, 8), ("max",), LONG[1:], ("both",)),
    Threshold(
        "PADS_A_LOOP", (1, 2, 4, 8), ("max",), ((MAPS, 7, 1, 3), *SHORT), ("both",)
    ),
    Threshold("MOST_GATHERS", (8, 16, 32), ("adaptive_max", "adaptive_avg"), UNEVEN),
    Threshold("MOST_SELECTS", (4, 9, 16), ("max",), SHORT, ("both",)),
)


def ticks(job: report.Job) -> int:
    """One tick per threshold."""
    return len(THRESHOLDS)


def run(job: report.Job) -> report.Finding:
    """Try every value of every threshold."""
    if not job.fresh_memory:
        keep_memory()
    found = {}
    chosen = [t.short() if job.quick else t for t in THRESHOLDS]
    for threshold in chosen:
        job.say(f"thresholds: {threshold.name}")
        found[threshold.name] = measure(job, threshold)
        job.tick()
    return report.Finding(
        results={name: dict(rows) for name, rows in found.items()},
        tables=[table(t, found[t.name]) for t in chosen],
        conclusion=[_verdict(t, found[t.name]) for t in chosen],
        files=[],
    )


def measure(job: report.Job, threshold: Threshold) -> dict[str, list[float]]:
    """Milliseconds of every case, one for each value."""
    rows = {}
    for kind in threshold.kinds:
        for case in threshold.cases:
            for passes in threshold.passes:
                calls = {}
                for value in threshold.values:
                    with _set(threshold.name, value):
                        calls[str(value)] = _prepare(kind, case, passes)
                seconds = interleaved(calls, job.full_or_quick(10, 3))
                geometry = "/".join(map(str, case[1:3]))
                name = f"{kind} {len(case[0]) - 2}-D {geometry} {passes}"
                rows[name] = [1e3 * s for s in seconds.values()]
    return rows


def _prepare(kind: str, case: Geometry, passes: Pass) -> Callable[[], Any]:
    """Compile one case under the values that are set now."""
    clear_caches()
    pool = ours(kind, *case)
    x = jax.numpy.asarray(np.random.default_rng(0).random(case[0], np.float32))
    y = jax.eval_shape(pool, x)
    return prepare_jax(pool, passes, x, jax.numpy.ones(y.shape, y.dtype))


def holders(name: str) -> list[ModuleType]:
    """The modules of the library that have a constant of this name."""
    prefix = f"{jaxpool.__name__}."
    modules = [m for n, m in list(sys.modules.items()) if n.startswith(prefix)]
    found = [module for module in modules if name in vars(module)]
    if not found:
        raise LookupError(f"no module of jaxpool has the constant {name}")
    return found


@contextmanager
def _set(name: str, value: int) -> Iterator[None]:
    """Give a constant another value in every module that has it."""
    modules = holders(name)
    before = getattr(modules[0], name)
    for module in modules:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module in modules:
            setattr(module, name, before)


def _means(rows: dict[str, list[float]]) -> list[float]:
    """For each value the geometric mean over the cases."""
    return [float(np.exp(np.mean(np.log(c)))) for c in zip(*rows.values(), strict=True)]


def table(threshold: Threshold, rows: dict[str, list[float]]):
    """Show the milliseconds of every case and value."""
    lines = [[name, *(f"{ms:.2f}" for ms in times)] for name, times in rows.items()]
    lines.append(["geometric mean", *(f"{ms:.2f}" for ms in _means(rows))])
    return report.table(
        f"{threshold.name}: milliseconds", ["case", *map(str, threshold.values)], lines
    )


def _verdict(threshold: Threshold, rows: dict[str, list[float]]) -> str:
    means = _means(rows)
    best = means.index(min(means))
    mine = means[list(threshold.values).index(threshold.now)]
    gain = f"{100 * (mine / means[best] - 1):.0f} %"
    fastest = f"{threshold.values[best]} is the fastest by {gain}"
    return f"{threshold.name} = {threshold.now}; {fastest}"
