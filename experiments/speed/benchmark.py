"""Benchmark: pools against those of Flax, Equinox, Keras and PyTorch, in one process.

Every case is run by all peers that are installed (the extra `peers` installs them):
values and gradients are compared first, then the peers take turns, each with one call
that is not timed and a few that are, and the least time of all turns counts. "both" is
forward and backward in one compiled call. Tensors have at most 26 MB. Freed memory is
kept for the next call; with `--fresh-memory` it is given back by glibc's
own rules, and many calls meet page faults, which cost more than the pooling.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.shared import figures, report
from experiments.speed import peers
from experiments.speed.cases import (
    BINS,
    IMAGE,
    KINDS,
    MAPS,
    PLANES,
    STEPS,
    VOLUME,
    WIDE,
)
from experiments.speed.peers import PASSES, Bins, Pass, Problem, Segments, Windows
from experiments.speed.timing import interleaved, keep_memory

SAME_KERNELS = ("min", "sum")  # on fewer geometries
NORM = "lp"  # of the peers PyTorch has it, without padding
SOFT = "softmax"
MEDIANS = ((4, 56, 56, 32), (3, 5))  # an array, and windows at stride 1
SEGMENTS = ((65536, 64), 700)  # an array, and the number of segments
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
SLOW = 0.3  # seconds; a peer that takes longer is not tried with longer windows
# Of a pool, a pass and a library, in the figures.
NAMES = {
    "max": "max",
    "avg": "average",
    "min": "min",
    "sum": "sum",
    "lp": "2-norm",
    "softmax": "softmax",
    "median": "median",
    "adaptive_max": "adaptive max",
    "adaptive_avg": "adaptive average",
    "segment_sum": "segments, sum",
    "segment_max": "segments, max",
}
PASS_NAMES = {"forward": "forward", "both": "forward and backward"}
LOOKS = {
    "jaxpool": ("jaxpool", figures.BLUE, "o"),
    "jax": ("plain JAX", figures.SKY, "P"),
    "flax": ("Flax", figures.ORANGE, "s"),
    "equinox": ("Equinox", figures.GREEN, "^"),
    "keras": ("Keras", figures.PURPLE, "D"),
    "torch": ("PyTorch", figures.VERMILLION, "v"),
}
UNIT = "measurements"


class Row(NamedTuple):
    """The least seconds of each peer for one problem."""

    problem: Problem
    passes: Pass
    seconds: Mapping[str, float]

    def ratio(self, peer: str) -> float:
        """How many times longer a peer takes."""
        return self.seconds[peer] / self.seconds["jaxpool"]

    def record(self) -> dict[str, Any]:
        """What the JSON says of it."""
        names = {"case": self.problem.label, "passes": self.passes}
        return names | asdict(self.problem) | {"seconds": self.seconds}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "Row":
        """The row of a record."""
        kinds = {"num_segments": Segments, "output_shape": Bins, "window": Windows}
        kind: Any = next(kind for name, kind in kinds.items() if name in record)
        sizes = {field.name: record[field.name] for field in fields(kind)}
        sizes = {n: tuple(v) if isinstance(v, list) else v for n, v in sizes.items()}
        return cls(kind(**sizes), record["passes"], record["seconds"])


Ratios = Mapping[tuple[str, Pass, str], list[float]]  # of a pool, a pass and a peer


def ticks(job: report.Job) -> int:
    """One tick per problem and pass."""
    return len(PASSES) * (len(_problems(job)) + len(KINDS) * len(_windows(job)))


def run(job: report.Job) -> report.Finding:
    """Compare and time everything."""
    if not job.fresh_memory:
        keep_memory()
    names = peers.importable()
    rows = [_row(job, p, s, names) for p in _problems(job) for s in PASSES]
    windows = _window_rows(job, names)
    ratios = _ratios(rows)
    return report.Finding(
        results={
            "fresh_memory": job.fresh_memory,
            "cases": [row.record() for row in rows],
            "windows": [row.record() for row in windows],
        },
        tables=[_summary(ratios), _details(rows, names)],
        conclusion=_conclude(rows, names),
        files=[_draw_ratios(job, ratios), _draw_windows(job, windows)],
    )


def _problems(job: report.Job) -> list[Problem]:
    few = [GEOMETRIES[i] for i in QUICK]
    cases = [(k, g) for g in (few[::2] if job.quick else GEOMETRIES) for k in KINDS]
    if not job.quick:
        cases += [(kind, g) for g in few for kind in SAME_KERNELS]
        cases += [(NORM, g) for g in GEOMETRIES if not g[-1]]
    cases += [(SOFT, g) for g in (few[:1] if job.quick else few)]
    shape, sides = MEDIANS
    sides = sides[:1] if job.quick else sides
    cases += [("median", (shape, side, 1, 0)) for side in sides]
    bins = [
        Bins(f"adaptive_{kind}", shape, (out, out))
        for shape, out in (BINS[:1] if job.quick else BINS)
        for kind in KINDS
    ]
    segments = [Segments(f"segment_{kind}", *SEGMENTS) for kind in ("sum", "max")]
    windows = (_problem(kind, *geometry) for kind, geometry in cases)
    return [*windows, *bins, *segments]


def _windows(job: report.Job) -> Sequence[int]:
    return WINDOWS[:2] if job.quick else WINDOWS


def _window_rows(job: report.Job, names: list[str]) -> list[Row]:
    """Time windows that grow, and leave out a peer once it is slow."""
    rows = []
    for kind, passes in itertools.product(KINDS, PASSES):
        fast = names
        for window in _windows(job):
            problem = _problem(kind, WIDE, window, 1, window // 2)
            rows.append(_row(job, problem, passes, fast))
            fast = [n for n in fast if rows[-1].seconds.get(n, 0) < SLOW]
    return rows


def _problem(
    kind: str, shape: tuple[int, ...], window: int, stride: int, pad: int
) -> Windows:
    rank = len(shape) - 2
    return Windows(kind, shape, (window,) * rank, (stride,) * rank, (pad,) * rank)


def _row(job: report.Job, problem: Problem, passes: Pass, names: list[str]) -> Row:
    """Prepare, compare and time one problem."""
    job.say(f"benchmark: {problem.label}")
    arrays = problem.input(), problem.cotangent()
    in_jax = [jnp.asarray(array) for array in (*arrays, *problem.others)]
    calls = {"jaxpool": peers.prepare_jax(peers.ours(problem), passes, *in_jax)}
    for name in names:
        pool = peers.PEERS[name](problem)
        if pool is None:
            continue
        if name == "torch":
            calls[name] = peers.prepare_torch(pool, passes, *arrays)
        else:
            calls[name] = peers.prepare_jax(pool, passes, *in_jax)
    results = {name: peers.as_arrays(call()) for name, call in calls.items()}
    for name, found in results.items():
        for ours, theirs in zip(results["jaxpool"], found, strict=True):
            np.testing.assert_allclose(
                theirs.reshape(ours.shape), ours, 2e-5, 2e-5, err_msg=name
            )
    seconds = interleaved(calls, job.full_or_quick(15, 4))
    job.tick()
    return Row(problem, passes, seconds)


def _ratios(rows: Sequence[Row]) -> Ratios:
    """The ratios of all cases, for each pool, pass and peer that has any."""
    keys = itertools.product(NAMES, PASSES, peers.PEERS)
    found = {
        (kind, passes, peer): [
            row.ratio(peer)
            for row in rows
            if (row.problem.kind, row.passes) == (kind, passes) and peer in row.seconds
        ]
        for kind, passes, peer in keys
    }
    return {key: ratios for key, ratios in found.items() if ratios}


def _summary(ratios: Ratios) -> Any:
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
            f"{LOOKS[name][0]} is faster than jaxpool in {len(behind)} of {len(timed)} "
            f"cases{', most in ' if shown else ''}{', '.join(shown)}."
        )
    return lines


def _mean(ratios: list[float]) -> float:
    return float(np.exp(np.mean(np.log(ratios))))


def draw(job: report.Job, results: Mapping[str, Any]) -> list[Path]:
    """Draw the figures of results that the JSON has."""
    rows, windows = (
        [Row.of(record) for record in results[name]] for name in ("cases", "windows")
    )
    return [_draw_ratios(job, _ratios(rows)), _draw_windows(job, windows)]


def _draw_ratios(job: report.Job, ratios: Ratios) -> Path:
    """Draw the ratio of each case, in a row for each pool and peer."""
    kinds = list(dict.fromkeys(kind for kind, _, _ in ratios))
    rows = list(dict.fromkeys((kind, peer) for kind, _, peer in ratios))
    height = {row: i + 0.8 * kinds.index(row[0]) for i, row in enumerate(rows)}
    every = [ratio for values in ratios.values() for ratio in values]
    size = (10, 2.2 + 0.3 * len(rows))
    figure, axes = figures.panels(len(PASSES), size, sharex=True, sharey=True)
    for ax, passes in zip(axes, PASSES, strict=True):
        ax.grid(axis="x")
        ax.axvspan(min(every) / 2, 1, color="0.92", label="the peer is faster")
        for (kind, peer), y in height.items():
            values = ratios[kind, passes, peer]
            name, color, marker = LOOKS[peer]
            look = {"color": color, "alpha": 0.6, "markeredgewidth": 0, "label": name}
            ax.plot(values, [y] * len(values), marker, **look)
            mean = _mean(values)
            ax.plot(mean, y, "k|", markersize=14, markeredgewidth=2)
            place = {"xycoords": ("axes fraction", "data"), "va": "center"}
            ax.annotate(f"{mean:.1f}", (1.01, y), **place)
        ax.axvline(1, color="black", linewidth=1)
        label = "time of the peer / time of jaxpool\nbar and number: geometric mean"
        ax.set(xscale="log", title=PASS_NAMES[passes].capitalize(), xlabel=label)
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
        figures.plain_ticks(ax.xaxis, (0.5, 1, 2, 5, 10, 20, 50, 100))
        ax.set_xlim(min(every) / 1.3, max(every) * 1.3)
    middles = [np.mean([height[row] for row in rows if row[0] == k]) for k in kinds]
    axes[0].set_yticks(middles, [NAMES[kind] for kind in kinds])
    axes[0].invert_yaxis()
    ahead = sum(ratio > 1 for ratio in every)
    title = f"jaxpool is faster in {ahead} of {len(every)} comparisons"
    figures.headline(figure, title)
    figures.legend_below(*axes, columns=6)
    return figures.save(figure, job, "benchmark_ratios")


def _draw_windows(job: report.Job, rows: Sequence[Row]) -> Path:
    """Draw the time over the window, in a panel for each pool and pass."""
    layout = [[f"{kind} {passes}" for passes in PASSES] for kind in KINDS]
    figure, axes = figures.mosaic(layout, (10, 7), sharex=True, sharey=True)
    sizes, growth = " x ".join(map(str, WIDE)), []
    for kind, passes in itertools.product(KINDS, PASSES):
        ax = axes[f"{kind} {passes}"]
        mine = [r for r in rows if (r.problem.kind, r.passes) == (kind, passes)]
        for library, (name, color, marker) in LOOKS.items():
            line = [
                (row.problem.window[0], 1e3 * row.seconds[library])
                for row in mine
                if library in row.seconds
            ]
            if line:
                look = {"color": color, "marker": marker, "label": name}
                ax.plot(*zip(*line, strict=True), **look)
                if library == "jaxpool":
                    growth.append(line[-1][1] / line[0][1])
        ax.grid()
        title = f"{NAMES[kind].capitalize()}, {PASS_NAMES[passes]}"
        ax.set(xscale="log", yscale="log", title=title)
        figures.plain_ticks(ax.xaxis, WINDOWS)
        figures.plain_ticks(ax.yaxis, (1, 3, 10, 30, 100, 300, 1000))
        if passes == PASSES[0]:
            ax.set_ylabel("milliseconds")
        if kind == KINDS[-1]:
            ax.set_xlabel(f"window n x n, stride 1; input {sizes}")
    reach = f"{min(growth):.1f} to {max(growth):.1f} times as long"
    title = f"jaxpool: a window of {WINDOWS[-1]} takes {reach} as one of {WINDOWS[0]}"
    figures.headline(figure, title)
    figures.legend_below(*axes.values(), columns=5)
    return figures.save(figure, job, "benchmark_windows")
