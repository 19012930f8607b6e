"""Benchmark: pools against those of Flax, Equinox, Keras and PyTorch, in one process.

Every case is run by all peers that are installed (the extra `peers` installs them):
values and gradients are compared first, then the peers take turns, each with one call
that is not timed and a few that are, and the least time of all turns counts. "both" is
forward and backward in one compiled call. Tensors have at most 26 MB. Freed memory is
kept for the next call; with `--fresh-memory` it is given back by glibc's
own rules, and many calls meet page faults, which cost more than the pooling.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.shared import figures, report
from experiments.speed import peers
from experiments.speed.cases import IMAGE, KINDS, MAPS, PLANES, STEPS, VOLUME, WIDE
from experiments.speed.peers import PASSES, Pass, Problem
from experiments.speed.timing import interleaved, keep_memory

SAME_KERNELS = ("min", "sum")  # on fewer geometries
NORM = "lp"  # of the peers PyTorch has it, without padding
# (shape, window, strides, padding), each number for all axes
GEOMETRIES = (
    (STEPS, 2, 2, 0),
    (STEPS, 3, 2, 1),
    (STEPS, 3, 1, 1),
    (STEPS, 5, 1, 2),
    (STEPS, 8, 4, 0),
    (STEPS, 8, 8, 0),
    (IMAGE, 2, 2, 0),
    (IMAGE, 2, 1, 0),
    (IMAGE, 3, 2, 1),
    (PLANES, 3, 1, 1),
    (IMAGE, 3, 3, 0),
    (IMAGE, 4, 2, 1),
    (IMAGE, 4, 4, 0),
    (MAPS, 5, 1, 2),
    (IMAGE, 5, 2, 2),
    (IMAGE, 6, 3, 0),
    ((32, 28, 28, 256), 7, 7, 0),
    (MAPS, 8, 1, 0),
    (MAPS, 8, 4, 0),
    (IMAGE, 8, 8, 0),
    (VOLUME, 2, 2, 0),
    (VOLUME, 3, 2, 1),
    (VOLUME, 3, 1, 1),
    (VOLUME, 4, 4, 0),
)
QUICK = (0, 6, 8, 9, 20)
WINDOWS = (3, 5, 9, 15, 31, 63)  # at stride 1


class Row(NamedTuple):
    """The least seconds of each peer for one problem."""

    problem: Problem
    passes: Pass
    seconds: Mapping[str, float]

    def ratio(self, peer: str) -> float:
        """How many times longer a peer takes."""
        return self.seconds[peer] / self.seconds["jaxpool"]


def ticks(job: report.Job) -> int:
    """One tick per problem and pass."""
    return len(PASSES) * (len(_problems(job)) + len(_windows(job)))


def run(job: report.Job) -> report.Finding:
    """Compare and time everything."""
    if not job.fresh_memory:
        keep_memory()
    names = peers.importable()
    rows = [_row(job, p, s, names) for p in _problems(job) for s in PASSES]
    windows = [_row(job, p, s, []) for p in _windows(job) for s in PASSES]
    keys = [
        (k, s, n) for k in (*KINDS, *SAME_KERNELS, NORM) for s in PASSES for n in names
    ]
    ratios = {key: found for key in keys if (found := _ratios(rows, *key))}
    return report.Finding(
        results={
            "fresh_memory": job.fresh_memory,
            "cases": [
                {"case": r.problem.label, "shape": r.problem.shape, "passes": r.passes}
                | {"seconds": r.seconds}
                for r in [*rows, *windows]
            ],
        },
        tables=[_summary(ratios), _details(rows, names)],
        conclusion=_conclude(rows, names),
        files=[_draw_ratios(job, ratios), _draw_windows(job, windows)],
    )


def _problems(job: report.Job) -> list[Problem]:
    few = [GEOMETRIES[i] for i in QUICK]
    cases = [(kind, g) for g in (few if job.quick else GEOMETRIES) for kind in KINDS]
    if not job.quick:
        cases += [(kind, g) for g in few for kind in SAME_KERNELS]
        cases += [(NORM, g) for g in GEOMETRIES if not g[-1]]
    return [_problem(kind, *geometry) for kind, geometry in cases]


def _windows(job: report.Job) -> list[Problem]:
    windows = WINDOWS[::2] if job.quick else WINDOWS
    return [_problem(k, WIDE, w, 1, w // 2) for k in KINDS for w in windows]


def _problem(
    kind: str, shape: tuple[int, ...], window: int, stride: int, pad: int
) -> Problem:
    rank = len(shape) - 2
    return Problem(kind, shape, (window,) * rank, (stride,) * rank, (pad,) * rank)


def _row(job: report.Job, problem: Problem, passes: Pass, names: list[str]) -> Row:
    """Prepare, compare and time one problem."""
    job.say(f"benchmark: {problem.label}")
    arrays = problem.input(), problem.cotangent()
    calls = {"jaxpool": peers.prepare_jax(peers.ours(problem), passes, *_jax(arrays))}
    for name in names:
        pool = peers.PEERS[name](problem)
        if pool is None:
            continue
        if name == "torch":
            calls[name] = peers.prepare_torch(pool, passes, *arrays)
        else:
            calls[name] = peers.prepare_jax(pool, passes, *_jax(arrays))
    results = {name: peers.as_arrays(call()) for name, call in calls.items()}
    for name, found in results.items():
        for ours, theirs in zip(results["jaxpool"], found, strict=True):
            np.testing.assert_allclose(
                theirs.reshape(ours.shape), ours, 2e-5, 2e-5, err_msg=name
            )
    seconds = interleaved(calls, job.full_or_quick(15, 4))
    job.tick()
    return Row(problem, passes, seconds)


def _jax(arrays: tuple[np.ndarray, np.ndarray]) -> list[Any]:
    return [jnp.asarray(array) for array in arrays]


def _ratios(rows: list[Row], kind: str, passes: Pass, peer: str) -> list[float]:
    return [
        row.ratio(peer)
        for row in rows
        if (row.problem.kind, row.passes) == (kind, passes) and peer in row.seconds
    ]


def _summary(ratios: Mapping[tuple[str, Pass, str], list[float]]) -> Any:
    columns = ["pool, pass, peer", "cases", "mean", "worst", "best"]
    rows = [
        [", ".join(key), str(len(r)), *(f"{f(r):.2f}" for f in (_mean, min, max))]
        for key, r in ratios.items()
    ]
    title = "Time of the peer / time of jaxpool (geometric mean)"
    return report.table(title, columns, rows)


def _details(rows: list[Row], names: list[str]) -> Any:
    made = []
    for row in rows:
        times = [row.seconds.get(name) for name in ("jaxpool", *names)]
        cells = ["-" if t is None else f"{1e3 * t:.2f}" for t in times]
        made.append([f"{row.problem.label}, {row.passes}", *cells])
    return report.table("Milliseconds", ["case", "jaxpool", *names], made)


def _conclude(rows: list[Row], names: list[str]) -> list[str]:
    """Say where a peer is faster."""
    lines = []
    for name in names:
        timed = [row for row in rows if name in row.seconds]
        behind = [row for row in timed if row.ratio(name) < 1]
        worst = sorted(behind, key=lambda row: row.ratio(name))[:3]
        shown = [f"{r.problem.label} {r.passes} ({r.ratio(name):.2f})" for r in worst]
        lines.append(
            f"{name} is faster in {len(behind)} of {len(timed)} cases"
            + (f", most in {', '.join(shown)}" if shown else "")
        )
    return lines or ["no peer is installed: nothing to compare with"]


def _mean(ratios: list[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


def _draw_ratios(
    job: report.Job, ratios: Mapping[tuple[str, Pass, str], list[float]]
) -> Path:
    figure, (ax,) = figures.panels(1, (8, 6))
    for i, values in enumerate(ratios.values()):
        ax.plot(values, [i] * len(values), "o", alpha=0.5)
        ax.plot(_mean(values), i, "k|", markersize=14)
    ax.set_yticks(range(len(ratios)), [", ".join(key) for key in ratios])
    ax.axvline(1, color="black", linewidth=0.8)
    ax.set(xscale="log", xlabel="time of the peer / time of jaxpool, for each case")
    return figures.save(figure, job, "benchmark_ratios")


def _draw_windows(job: report.Job, rows: list[Row]) -> Path:
    figure, (ax,) = figures.panels(1, (7, 4.5))
    for kind in KINDS:
        for passes in PASSES:
            line = [
                (row.problem.window[0], 1e3 * row.seconds["jaxpool"])
                for row in rows
                if (row.problem.kind, row.passes) == (kind, passes)
            ]
            ax.plot(*zip(*line, strict=True), "o-", label=f"{kind}, {passes}")
    ax.set(xscale="log", yscale="log", xlabel="window, at stride 1")
    ax.set(ylabel="milliseconds", title=f"jaxpool, input {WIDE}")
    ax.legend()
    return figures.save(figure, job, "benchmark_windows")
