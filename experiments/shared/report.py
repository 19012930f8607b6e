"""What every part shares around its numbers: progress, tables, verdicts and JSON.

A part is a module with `UNIT`, what its progress counts, `ticks(job)`, how many of
these it will make, and `run(job)`, which returns a `Finding`. Nothing here knows what a
part measures.
"""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table

import jaxpool

LIBRARIES = ("jaxpool", "jax", "jaxlib", "flax", "optax", "numpy", "scikit-learn")
LIBRARIES += ("sktime", "mnist1d", "mlxtend", "equinox", "keras", "torch")


@dataclass(frozen=True)
class Job:
    """The settings of one part, its output folder and its line of progress."""

    quick: bool
    seeds: int
    out: Path
    bar: Progress
    task: TaskID
    fresh_memory: bool = False
    baseline: Path | None = None
    gpu_target: Path | None = None
    cpu: bool = False
    only: tuple[str, ...] = ()

    def expect(self, ticks: int) -> None:
        """Show the bar, and set how many units of work it stands for."""
        self.bar.update(self.task, total=ticks, visible=True)

    def say(self, note: str) -> None:
        """Show what is being done beside the bar."""
        self.bar.update(self.task, description=note)

    def tick(self) -> None:
        """Advance the bar by one unit."""
        self.bar.advance(self.task)

    def full_or_quick(self, full: int, quick: int) -> int:
        """Choose a size or a count by the mode of this run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Finding:
    """What a part found: numbers, tables to print, conclusion and files.

    And what failed, where the part checks anything: then the command fails.
    """

    results: Mapping[str, Any]
    tables: Sequence[RenderableType]
    conclusion: Sequence[str]
    files: Sequence[Path]
    failures: Sequence[str] = ()


def progress_bar(console: Console) -> Progress:
    """Return the progress of the job: a line for each part, with the time left.

    A task of it has a field `unit`, what it counts.
    """
    column = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Progress(
        TextColumn("{task.description}", table_column=column),
        BarColumn(12),
        TextColumn("{task.completed:.0f}/{task.total} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        expand=True,
        speed_estimate_period=120,
    )


def run_part(
    name: str, run: Callable[[Job], Finding], job: Job, command: str
) -> tuple[Finding, float]:
    """Run one part, write its JSON, and return its finding and its seconds."""
    begin = time.perf_counter()
    finding = run(job)
    seconds = time.perf_counter() - begin
    record = {
        "part": name,
        "quick": job.quick,
        "seeds": job.seeds,
        "command": command,
        "seconds": round(seconds, 1),
        **environment(),
        "figures": [path.name for path in finding.files],
        "conclusion": finding.conclusion,
        "failures": finding.failures,
        "results": finding.results,
    }
    text = json.dumps(record, indent=1, default=_plain)
    (job.out / f"{name}.json").write_text(text + "\n")
    return finding, seconds


def environment() -> dict[str, Any]:
    """Say which versions and which device made the numbers."""
    device = jax.devices()[0]
    versions = {name: _version(name) for name in LIBRARIES}
    return {
        "versions": {"python": platform.python_version()} | versions,
        "device": f"{device.platform}: {device.device_kind}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _version(name: str) -> str:
    """Return the version that runs: that of a checkout may not be installed."""
    if name == "jaxpool":
        return jaxpool.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """Turn arrays and NumPy scalars into lists and numbers for JSON."""
    return np.asarray(value).tolist()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a rich table whose first column is text and whose others are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left")
    for row in rows:
        made.add_row(*row)
    return made


def spread(values: Sequence[float]) -> str:
    """Write values over seeds as mean ± standard deviation."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def percent(values: Sequence[float]) -> str:
    """Write fractions over seeds as mean ± standard deviation, in per cent."""
    shares = 100 * np.asarray(values)
    if len(values) == 1:
        return f"{shares[0]:.1f} %"
    return f"{shares.mean():.1f} ± {shares.std():.1f} %"


def leaders(
    scores: Mapping[str, Sequence[float]], *, lowest: bool = False
) -> list[str]:
    """Return the best name by mean over seeds, then those it does not always beat.

    `scores` holds one value per seed, in the same order of seeds for each name.
    """
    value = {n: np.asarray(s) * (-1 if lowest else 1) for n, s in scores.items()}
    best, *others = sorted(scores, key=lambda name: -value[name].mean())
    return [best, *(n for n in others if np.any(value[n] >= value[best]))]


def verdict(scores: Mapping[str, Sequence[float]], *, lowest: bool = False) -> str:
    """Say in one sentence who is best, by how much, and whether with every seed.

    Scores are fractions, which differ by points, or errors, of which the `lowest` is
    best.
    """
    best, *level = leaders(scores, lowest=lowest)
    mean = {name: np.mean(values) for name, values in scores.items()}
    gaps = {name: abs(mean[best] - mean[name]) for name in scores if name != best}
    second = min(gaps, key=gaps.__getitem__)
    by = f"by {100 * gaps[second]:.1f} points"
    if lowest:
        by = f"(error {mean[best]:.3f}, not {mean[second]:.3f})"
    seeds = len(scores[best])
    if seeds == 1:
        return f"{best} beats {second} {by}. One seed decides nothing."
    if not level:
        return f"{best} beats {second} {by} with each of {seeds} seeds."
    write = spread if lowest else percent
    shown = [f"{name} ({write(scores[name])})" for name in (best, *level)]
    return f"{' and '.join(shown)} are level: none is ahead with every seed."


def print_finding(console: Console, name: str, found: tuple[Finding, float]) -> None:
    """Print what a part found: its tables, then its conclusion."""
    finding, seconds = found
    console.rule(f"[bold]{name}[/] ({seconds:.0f} s)")
    for item in finding.tables:
        console.print(item)
    for line in finding.conclusion:
        console.print(f"[bold green]-[/] {line}", highlight=False)
    for line in finding.failures:
        console.print(f"[bold red]failed:[/] {line}", highlight=False)
    console.print()


def print_closing(
    console: Console, job: Job, found: Mapping[str, tuple[Finding, float]]
) -> None:
    """Say how the run was made and where its files are."""
    mode = "quick run, too short to conclude from" if job.quick else "full run"
    total = sum(seconds for _, seconds in found.values())
    console.rule(f"{mode}; seeds: {job.seeds}; {total:.0f} s")
    names = [path.name for finding, _ in found.values() for path in finding.files]
    names += [f"{name}.json" for name in found]
    console.print("Figures and JSON:", ", ".join(names), highlight=False)
    console.print(f"Written to {job.out}", highlight=False, soft_wrap=True)
