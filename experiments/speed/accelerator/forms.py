"""Forms: the pools of the library in each form that `implementation` can name.

Beside them the form that the device gets when none is named. Where another one is
faster, the rule that chooses is not the best one for this device.
"""

import math
import time
from functools import partial
from typing import Any

from experiments.shared import report
from experiments.speed.accelerator import measuring
from experiments.speed.accelerator.cases import Key, ours, windowed_cases
from experiments.speed.accelerator.measuring import Row
from experiments.speed.peers import PASSES

FORMS = ("reduce_window", "slices", "doubling")
SIDES: measuring.SIDES = {
    "chosen": ours,
    **{name: partial(ours, implementation=name) for name in FORMS},
}
SLOWER = 1.1  # from which on a choice is worth a line


def _keys(job: report.Job) -> list[Key]:
    return [(c, d, p) for c, d in windowed_cases(job.quick) for p in PASSES]


def ticks(job: report.Job) -> int:
    """One tick a pass to compile, and one to time."""
    return 2 * len(_keys(job))


def run(job: report.Job, deadline: float) -> report.Finding:
    """Time every form of every windowed case."""
    bandwidth = max(measuring.copies(job).values())
    programs = measuring.compiled(job, _keys(job), SIDES)
    rows: list[Row] = []
    failures: list[str] = []
    for key in _keys(job):
        job.say(f"forms: {key[0].kind} {key[0].label}")
        if time.monotonic() < deadline:
            row, wrong = measuring.timed(key, programs, SIDES)
            rows.append(row)
            failures += [line for lines in wrong.values() for line in lines]
        job.tick()
    return report.Finding(
        results=[row.record("chosen", bandwidth) for row in rows],
        tables=[_table(rows, bandwidth)],
        conclusion=[line for row in rows if (line := _better(row))],
        files=[],
        failures=failures,
    )


def _better(row: Row) -> str:
    """Say which form is faster than the one that is chosen, if any is."""
    chosen = row.seconds.get("chosen", math.nan)
    named = {name: row.seconds[name] for name in FORMS if name in row.seconds}
    best = min(named, key=lambda name: named[name], default="")
    if not best or not chosen > SLOWER * named[best]:
        return ""
    return f"{row}: {best} is {chosen / named[best]:.2f} times as fast as the choice"


def _table(rows: list[Row], bandwidth: float) -> Any:
    """Microseconds of each form, and the best one as per cent of a copy."""
    lines = []
    for row in rows:
        times = [row.seconds.get(side, math.nan) for side in SIDES]
        best = 100 * row.bytes / min(times) / bandwidth
        cells = [f"{1e6 * took:.0f}" for took in times]
        lines.append([str(row), *cells, f"{best:.0f}"])
    columns = ["microseconds", *SIDES, "best, %"]
    return report.table(f"Forms; {bandwidth / 1e9:.0f} GB/s is 100 %", columns, lines)
