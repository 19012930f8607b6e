"""Limits: which aggregation becomes which other one at the ends of its parameter?

Papers introduce a pool as "between average and maximum". Each row of the table is such
an identity. The left side is computed by jaxpool, over windows, whole axes and
segments; the right side by NumPy in float64. A row whose sides differ by more than its
tolerance is a failure. No model is trained.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.table import Table

import jaxpool
from experiments.shared import figures, report
from jaxpool import LogSumExp, Lp, PowerMean, Quantile, Softmax, TopKMean

GROUPS, SIZE = 4, 6
FAR = 1e6  # stands for infinity
EXACT, ROUNDED, NEAR = 0.0, 1e-6, 1e-5  # tolerances; the cells are 0.1 to 2.4


class Identity(NamedTuple):
    """An aggregation, and the plain formula that it should equal."""

    name: str
    by: jaxpool.By
    formula: Callable[[np.ndarray], np.ndarray]  # of [group, cell]
    says: str
    tolerance: float


def _least(x: np.ndarray) -> np.ndarray:
    return x.min(1)


def _mean(x: np.ndarray) -> np.ndarray:
    return x.mean(1)


def _most(x: np.ndarray) -> np.ndarray:
    return x.max(1)


IDENTITIES = [
    Identity("softmax, scale -> -inf", Softmax(scale=-FAR), _least, "minimum", EXACT),
    Identity("softmax, scale = 0", Softmax(scale=0.0), _mean, "average", ROUNDED),
    Identity("softmax, scale -> inf", Softmax(scale=FAR), _most, "maximum", EXACT),
    Identity(
        "log-mean-exp, scale -> -inf",
        LogSumExp(-FAR, mean=True),
        _least,
        "minimum",
        NEAR,
    ),
    Identity(
        "log-mean-exp, scale -> 0", LogSumExp(1e-3, mean=True), _mean, "average", 1e-3
    ),
    Identity(
        "log-mean-exp, scale -> inf", LogSumExp(FAR, mean=True), _most, "maximum", NEAR
    ),
    Identity("log-sum-exp, scale -> inf", LogSumExp(FAR), _most, "maximum", NEAR),
    Identity("power mean, p -> -inf", PowerMean(-FAR), _least, "minimum", NEAR),
    Identity(
        "power mean, p = -1",
        PowerMean(-1.0),
        lambda x: 1 / (1 / x).mean(1),
        "harmonic mean",
        ROUNDED,
    ),
    Identity(
        "power mean, p -> 0",
        PowerMean(np.float32(1e-3)),
        lambda x: np.exp(np.log(x).mean(1)),
        "geometric mean",
        1e-3,
    ),
    Identity("power mean, p = 1", PowerMean(1.0), _mean, "average", ROUNDED),
    Identity("power mean, p -> inf", PowerMean(FAR), _most, "maximum", NEAR),
    Identity("norm, p = 1", Lp(1.0), lambda x: x.sum(1), "sum", NEAR),
    Identity("norm, p = inf", Lp(np.inf), _most, "maximum", EXACT),
    Identity("mean of the k = 1 largest", TopKMean(1), _most, "maximum", EXACT),
    Identity("mean of the k = n largest", TopKMean(SIZE), _mean, "average", ROUNDED),
    Identity("quantile 0", Quantile(0.0), _least, "minimum", EXACT),
    Identity(
        "quantile 0.5", Quantile(0.5), lambda x: np.median(x, 1), "median", ROUNDED
    ),
    Identity("quantile 1", Quantile(1.0), _most, "maximum", EXACT),
]


def ticks(job: report.Job) -> int:
    """One tick per domain, and one for the figure."""
    return 4


def run(job: report.Job) -> report.Finding:
    """Check every identity over every domain, and draw the ways between the ends."""
    cells = make_cells()
    found = {}
    for name, (x, over) in domains(cells).items():
        job.say(f"limits: {name}")
        found[name] = differences(x, over, cells)
        job.tick()
    results = {"difference": found}
    path = draw(job, results)
    job.tick()
    failures = broken(found)
    held = len(IDENTITIES) * len(found) - len(failures)
    exact = [
        row.name for row in IDENTITIES if not any(d[row.name] for d in found.values())
    ]
    return report.Finding(
        results=results,
        tables=[identity_table(found)],
        conclusion=[
            f"Limits: {held} of {len(IDENTITIES) * len(found)} hold "
            f"({len(IDENTITIES)} identities over {', '.join(found)}). "
            f"{len(exact)} identities hold bit for bit."
        ],
        files=[path],
        failures=failures,
    )


def make_cells() -> np.ndarray:
    """Return `[group, cell]`: different float32 numbers from 0.1 to 2.4, shuffled."""
    numbers = np.arange(1, GROUPS * SIZE + 1) / 10
    shuffled = np.random.default_rng(0).permutation(numbers)
    return shuffled.reshape(GROUPS, SIZE).astype(np.float32)


def domains(cells: np.ndarray) -> dict[str, tuple[np.ndarray, jaxpool.Over]]:
    """The same groups of cells as three domains, each with its array."""
    row, ids = cells.ravel(), np.repeat(np.arange(GROUPS), SIZE)
    return {
        "windows": (row, jaxpool.windows(SIZE, axes=0)),
        "whole axes": (cells, jaxpool.whole(1)),
        "segments": (row, jaxpool.segments(ids, GROUPS, axis=0)),
    }


def differences(
    x: np.ndarray, over: jaxpool.Over, cells: np.ndarray
) -> dict[str, float]:
    """Return the largest difference between the sides of each identity."""
    by = tuple(row.by for row in IDENTITIES)
    left = jax.jit(lambda x: jaxpool.aggregate(x, by, over))(x)
    # Both sides in float32: results that are equal to the last bit differ by 0.
    right = [
        row.formula(cells.astype(np.float64)).astype(np.float32) for row in IDENTITIES
    ]
    return {
        row.name: float(abs(np.asarray(a) - b).max())
        for row, a, b in zip(IDENTITIES, left, right, strict=True)
    }


def broken(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say which identities do not hold; NaN is not within any tolerance."""
    return [
        f"{row.name}, {name}: differs from the {row.says} by {values[row.name]:.1e}"
        for row in IDENTITIES
        for name, values in found.items()
        if not values[row.name] <= row.tolerance
    ]


def identity_table(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Show the largest differences."""
    rows = [
        [row.name, row.says, *(f"{values[row.name]:.1e}" for values in found.values())]
        for row in IDENTITIES
    ]
    title = f"Largest difference, {FAR:g} standing for infinity"
    return report.table(title, ["aggregation", "equals", *found], rows)


def draw(job: report.Job, results: Mapping[str, Any]) -> Path:
    """Draw what one group of cells gives as a scale or an exponent grows."""
    cells = make_cells()
    numbers = np.geomspace(0.01, 100, 60, dtype=np.float32)
    numbers = np.concatenate([-numbers[::-1], numbers])
    group, each = cells[0], numbers[:, None]
    groups = np.broadcast_to(group, (len(numbers), SIZE))
    by = Softmax(scale=each), LogSumExp(each, mean=True), PowerMean(each)
    softmax, log_mean_exp, power = jaxpool.aggregate(groups, by, jaxpool.whole(1))
    figure, (left, right) = figures.panels(2, (11, 4.2))
    left.plot(numbers, softmax, label="softmax-weighted mean, by its scale")
    left.plot(numbers, log_mean_exp, "--", label="log-mean-exp, by its scale")
    right.plot(
        numbers, power, color=figures.GREEN, label="power mean, by its exponent p"
    )
    left.set_xlabel("scale; linear from -1 to 1, logarithmic beyond")
    right.set_xlabel("exponent p; the same axis")
    ends = [group.min(), group.mean(), group.max()]
    for ax in (left, right):
        ax.set_xscale("symlog", linthresh=1)
        figures.plain_ticks(ax.xaxis, [-100, -10, -1, 0, 1, 10, 100])
        ax.set_yticks(ends, ["minimum", "average", "maximum"])
        ax.grid(axis="y")
    figures.headline(
        figure, "Scales and exponents lead from the minimum to the maximum"
    )
    figures.legend_below(left, right, columns=3)
    return figures.save(figure, job, "papers_limits")
