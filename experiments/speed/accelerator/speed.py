"""Speed: pools as a share of the bandwidth of a copy, beside `lax` and PyTorch."""

import math
import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from experiments.shared import figures, report
from experiments.speed.accelerator import in_torch, measuring
from experiments.speed.accelerator.cases import Key, cases, of_lax, ours
from experiments.speed.accelerator.measuring import Row
from experiments.speed.peers import PASSES

WORST = 12  # cases listed last
TARGET = 80  # per cent of the bandwidth of a copy
TORCH_SECONDS = 120
SIDES: measuring.SIDES = {"jaxpool": ours, "lax": of_lax}
SHOWN = (*SIDES, "torch")
LOOKS = {
    "jaxpool": ("jaxpool", figures.BLUE, "o"),
    "lax": ("lax", figures.ORANGE, "s"),
    "torch": ("PyTorch", figures.VERMILLION, "v"),
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
    records = [row.record("jaxpool", bandwidth) for row in rows]
    results = {"copies": copies, "rows": records}
    return report.Finding(
        results=results,
        tables=[_table(rows, bandwidth)],
        conclusion=conclusion,
        files=[draw(job, results)],
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


def draw(job: report.Job, results: Mapping[str, Any]) -> Path:
    """Per cent of the bandwidth of a copy, for each case, from what the JSON has."""
    bandwidth = max(results["copies"].values())
    shares: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in results["rows"]:
        # As `Row` names itself: "max 3/2 SAME float32, both passes".
        named, passes = row["case"].rsplit(", ", 1)
        label, dtype = named.rsplit(" ", 1)
        for side, seconds in row["seconds"].items():
            panel = shares.setdefault((dtype, passes), {}).setdefault(side, {})
            panel[label] = 100 * row["bytes"] / seconds / bandwidth
    labels = list(
        dict.fromkeys(x for p in shares.values() for s in p.values() for x in s)
    )
    size = (10.5, 2.6 + 0.27 * len(labels))
    figure, axes = figures.panels(len(shares), size, sharey=True, sharex=True)
    for ax, ((dtype, passes), panel) in zip(
        axes, sorted(shares.items(), reverse=True), strict=True
    ):
        ax.grid()
        ax.axvline(100, color="black", linewidth=1)
        for layer, (side, (name, color, marker)) in enumerate(LOOKS.items()):
            points = panel.get(side, {})
            heights = [labels.index(label) for label in points]
            look = {"color": color, "markersize": 8, "alpha": 0.8, "label": name}
            ax.plot([*points.values()], heights, marker, zorder=5 - layer, **look)
        ax.set(title=f"{dtype}\n{passes}", xticks=range(0, 101, 25), xlim=(0, 110))
        ax.spines["left"].set_visible(False)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(labels)), labels)
    axes[0].set_ylim(len(labels) - 0.4, -0.6)
    axes[0].set_xlabel("per cent of the bandwidth of a copy")
    figures.legend_below(axes[0], columns=3)
    ours = [share for p in shares.values() for share in p["jaxpool"].values()]
    reach = sum(share >= TARGET for share in ours)
    title = f"jaxpool reaches {TARGET} % of a copy in {reach} of {len(ours)} passes"
    figures.headline(figure, title)
    return figures.save(figure, job, "accelerator")
