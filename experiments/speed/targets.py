"""Targets: what the speed of the library is measured by, besides other libraries.

Each target names a piece of work, what it is compared with and a bound for the ratio of
the two times (or sizes). All cases are in float32 and channels-last unless said
otherwise; the calls of a case take turns, and the least time of each counts.
"""

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.shared import report
from experiments.speed import programs, ratios
from experiments.speed.cases import Measure
from experiments.speed.timing import keep_memory

ANY = float("inf")
UNIT = "targets"


class Target(NamedTuple):
    """Bounds for the ratios that `measure` yields, each with the name of its case."""

    work: str
    against: str
    least: float
    most: float
    measure: Measure
    most_on_average: float = ANY

    @property
    def bound(self) -> str:
        """The bounds, for a table."""
        if self.least:
            return f">= {self.least:g}"
        mean = self.most_on_average
        return f"<= {self.most:g}" + (f", mean <= {mean:g}" if mean < ANY else "")


def ticks(job: report.Job) -> int:
    """One tick per target."""
    return len(TARGETS)


def run(job: report.Job) -> report.Finding:
    """Measure every target."""
    if not job.fresh_memory:
        keep_memory()
    found = {}
    for target in TARGETS:
        job.say(f"targets: {target.work}")
        cases = target.measure(job)
        found[target] = dict(itertools.islice(cases, 1) if job.quick else cases)
        job.tick()
    missed = [t for t, measured in found.items() if not _is_met(t, measured)]
    return report.Finding(
        results=[
            {"work": t.work, "against": t.against, "least": t.least, "most": t.most}
            | {"most_on_average": t.most_on_average, "ratios": measured}
            for t, measured in found.items()
        ],
        tables=[_table(found)],
        conclusion=[f"{t.work}: {_misses(t, found[t])}" for t in missed]
        or ["every target is met"],
        files=[],
    )


def _mean(measured: Mapping[str, float]) -> float:
    return float(np.mean(list(measured.values())))


def _is_met(target: Target, measured: Mapping[str, float]) -> bool:
    each = all(target.least <= ratio <= target.most for ratio in measured.values())
    return each and _mean(measured) <= target.most_on_average


def _misses(target: Target, measured: Mapping[str, float]) -> str:
    """The cases that miss a target."""
    cases = [
        f"{case} {ratio:.2f}"
        for case, ratio in measured.items()
        if not target.least <= ratio <= target.most
    ]
    lines = [f"missed in {len(cases)} of {len(measured)}: {', '.join(cases)}"]
    mean = _mean(measured)
    if mean > target.most_on_average:
        lines.append(f"mean {mean:.2f}, at most {target.most_on_average:g}")
    return "; ".join(lines if cases else lines[1:])


def _table(found: Mapping[Target, Mapping[str, float]]) -> Any:
    rows = []
    for target, measured in found.items():
        values = list(measured.values())
        rows.append([f"{target.work} / {target.against}", target.bound])
        rows[-1] += [f"{f(values):.2f}" for f in (min, np.mean, max)]
        rows[-1] += ["met" if _is_met(target, measured) else "missed"]
    columns = ["ratio of times", "target", "least", "mean", "most", ""]
    return report.table("Targets", columns, rows)


TARGETS = (
    Target("window 63", "window 3", 0, 8, ratios.long_windows),
    Target("Flax, window 15, forward", "jaxpool", 100, ANY, ratios.window_15),
    Target("tiling windows, forward", "a copy", 0, 3, ratios.copies),
    Target("short floats", "float32", 0, 1.5, ratios.short_floats),
    Target("windows 3/2, SAME", "padding 1", 0, 1.3, ratios.same_paddings),
    Target("channels first", "moving the channels", 0, 1, ratios.channels_first),
    Target("with a mask", "without", 0, 3, ratios.masks),
    Target("global pools", "jnp.max and jnp.mean", 0, 1.2, ratios.whole_axes),
    Target("adaptive pools", "products with matrices", 0, 1.5, ratios.bins),
    Target("window 63, soft and any", "window 3", 0, 8, ratios.long_monoids),
    Target("softmax averages", "two averages", 0, 2, ratios.softmaxes, 1),
    Target("segments, forward", "jax.ops", 0, 1.1, ratios.segment_values),
    Target("segments, both passes", "jax.ops", 0, 0.8, ratios.segment_gradients),
    Target("medians", "a sort of patches", 0, 1, ratios.medians),
    Target("tracing and lowering", "plain pools", 0, 4, programs.tracing, 2),
    Target("compiling", "compiling Flax's", 0, 3, programs.compiling),
    Target("first step of ten pools", "with Flax's", 0, 1.5, programs.first_values),
    Target(
        "first gradients of ten pools", "with Flax's", 0, 1, programs.first_gradients
    ),
    Target("eager calls", "Flax's", 0, 1.5, ratios.eager_calls),
    Target("bytes of temporaries", "of the input", 0, 1.01, programs.temporaries),
    Target(
        "training step with Flax's pools",
        "with compat.flax",
        1.7,
        ANY,
        ratios.training_steps,
    ),
)
