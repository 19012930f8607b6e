"""Speed: pools as a share of the bandwidth of a copy, beside `lax` and PyTorch."""

import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax

from experiments.shared import figures, report
from experiments.speed.accelerator import in_torch, measuring
from experiments.speed.accelerator.cases import Key, cases, of_lax, ours
from experiments.speed.accelerator.measuring import Row
from experiments.speed.peers import PASSES

WORST = 12  # cases listed last
TORCH_SECONDS = 120
SIDES: measuring.SIDES = {"jaxpool": ours, "lax": of_lax}
SHOWN = (*SIDES, "torch")
COLORS = {
    "jaxpool, bfloat16": figures.SKY,
    "jaxpool, float32": figures.BLUE,
    "lax, bfloat16": figures.YELLOW,
    "lax, float32": figures.ORANGE,
    "torch, bfloat16": figures.PURPLE,
    "torch, float32": figures.VERMILLION,
}


def _keys(job: report.Job) -> list[Key]:
    return [(c, d, p) for c, d in cases(job.quick) for p in PASSES]


def ticks(job: report.Job) -> int:
    """One tick a pass to compile, and one to time."""
    return 2 * len(_keys(job))


def run(job: report.Job, deadline: float) -> report.Finding:
    """Measure a copy, compile everything, and time it."""
    copies = measuring.copies(job)
    bandwidth = max(copies.values())
    keys = _keys(job)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as other:
        torch = other.submit(in_torch.every_case, job.quick, job.cpu, TORCH_SECONDS)
        programs = measuring.compiled(job, keys, SIDES)
        theirs, said = in_torch.collected(torch)
    rows: list[Row] = []
    wrong: dict[str, list[str]] = {side: [] for side in SIDES}
    for key in keys:
        job.say(f"speed: {key[0].kind} {key[0].label}")
        if time.monotonic() < deadline:
            row, lines = measuring.timed(key, programs, SIDES)
            row.seconds.update({"torch": theirs[key]} if key in theirs else {})
            rows.append(row)
            for side in SIDES:
                wrong[side] += lines[side]
        job.tick()
    left = len(keys) - len(rows)
    speeds = (f"{b / 1e9:.0f} GB/s ({name})" for name, b in copies.items())
    conclusion = [
        f"a copy moves {', '.join(speeds)}",
        f"the host takes {1e6 * measuring.dispatch():.0f} us to start a program",
        said,
        *wrong["lax"],
        *([f"{left} measurements were left out for lack of time"] if left else []),
        *_worst(rows, bandwidth),
    ]
    return report.Finding(
        results={
            "copies": copies,
            "rows": [row.record("jaxpool", bandwidth) for row in rows],
        },
        tables=[_table(rows, bandwidth)],
        conclusion=conclusion,
        files=[_drawn(job, rows, bandwidth)],
        failures=wrong["jaxpool"],
    )


def _worst(rows: list[Row], bandwidth: float) -> list[str]:
    """The cases that are furthest from a copy, and those where a rival is faster."""
    lines = []
    shares = sorted((row.share("jaxpool", bandwidth), str(row)) for row in rows)
    text = "; ".join(f"{name} {share:.0f} %" for share, name in shares[:WORST])
    lines.append(f"furthest from the copy: {text}")
    for side in SHOWN[1:]:
        ratios = sorted(
            (row.ratio(side), str(row)) for row in rows if side in row.seconds
        )
        slower = [f"{name} {ratio:.2f}" for ratio, name in ratios[:WORST]]
        behind = sum(ratio < 1 for ratio, _ in ratios)
        text = f"{side} is faster in {behind} of {len(ratios)}"
        lines.append(f"{text}; its time over ours is least in {'; '.join(slower)}")
    return lines


def _table(rows: list[Row], bandwidth: float) -> Any:
    """Microseconds, per cent of the copy, and ratios."""
    columns = ["", "MB", *(f"{side}, us" for side in SHOWN)]
    columns += [f"{side}, %" for side in SHOWN] + ["lax/ours", "torch/ours"]
    lines = []
    for row in rows:
        times = (row.seconds.get(side, math.nan) for side in SHOWN)
        shares = (row.share(side, bandwidth) for side in SHOWN)
        cells = [f"{row.bytes / 1e6:.0f}", *(f"{1e6 * t:.0f}" for t in times)]
        cells += [f"{share:.0f}" for share in shares]
        cells += [f"{row.ratio(side):.2f}" for side in SHOWN[1:]]
        lines.append([str(row), *("-" if cell == "nan" else cell for cell in cells)])
    title = f"Time, and share of {bandwidth / 1e9:.0f} GB/s"
    return report.table(title, columns, lines)


def _drawn(job: report.Job, rows: list[Row], bandwidth: float) -> Path:
    """Per cent of the bandwidth of a copy, for each case."""
    figure, axes = figures.panels(2, (12, 13))
    for ax, passes in zip(axes, PASSES, strict=True):
        series: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            if row.passes == passes:
                for side in SHOWN:
                    if side in row.seconds:
                        label = f"{row.case.kind} {row.case.label}"
                        name = f"{side}, {row.dtype}"
                        share = row.share(side, bandwidth)
                        series.setdefault(name, {})[label] = [share]
        ordered = {name: series[name] for name in sorted(series)}
        if ordered:
            figures.grouped_bars(ax, ordered, [COLORS[name] for name in ordered])
        ax.margins(y=0.01)
        ax.axvline(100, color="black", linewidth=0.8)
        title = "Forward" if passes == "forward" else "Forward and backward"
        ax.set(title=title, xlabel="per cent of the bandwidth of a copy")
    figures.legend_below(*axes, columns=3)
    axes[1].set_yticklabels([])
    device = jax.devices()[0].device_kind
    title = f"Bytes a second, against a copy ({device}: {bandwidth / 1e9:.0f} GB/s)"
    figures.headline(figure, title)
    return figures.save(figure, job, "accelerator")
