"""Baseline: the pools of this checkout against those of another one, in turn.

Two processes have one checkout each. Both compile a case once; then they take turns.
The least times of two turns that follow each other make a ratio, and the median of
these ratios counts: the least time of all is a matter of luck on a busy machine. Cases
whose ratio is far from 1 are measured again in new processes, where arrays lie
elsewhere in memory. All ratios are new over old: below 1 is faster, or less memory.
Arrays have at most 26 MB, and freed memory is kept for the next call
(`--fresh-memory` leaves it to glibc). The results of both are compared too.
"""

import itertools
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import jaxpool
from experiments.shared import report
from experiments.speed.benchmark import GEOMETRIES
from experiments.speed.cases import BINS, COMMON, KINDS, WIDE
from experiments.speed.peers import PASSES, Pass, Windows
from experiments.speed.timing import LONGEST
from experiments.speed.worker import Case, Program, Worker

MOST_ON_AVERAGE, MOST_COMMON = 1.03, 1.15  # the targets
TOLERANCE = 2e-5  # of results, as in the comparison with the peers
AGAIN = 2  # times that the cases whose ratio is far from 1 are measured once more
SEVEN = ((32, 28, 28, 256), 7, 7, 0)
LONG = ((WIDE, 15, 1, 7), (WIDE, 63, 1, 31))
WINDOWED, ADAPTIVE = (*KINDS, "lp"), "adaptive"
UNIT = "cases"


class Row(NamedTuple):
    """One case: the least seconds of every turn, and the program of each side.

    `difference`: how far the results are from each other, as a share of the largest.
    """

    case: Case
    seconds: Mapping[str, list[float]]
    programs: Mapping[str, Program]
    difference: float

    @property
    def ratio(self) -> float:
        """The time, new over old: the median over all turns."""
        pairs = zip(self.seconds["new"], self.seconds["old"], strict=True)
        return float(np.median([new / old for new, old in pairs]))

    @property
    def is_far_from_one(self) -> bool:
        """Whether it is beyond the limit for common cases, or its inverse."""
        return not 1 / MOST_COMMON < self.ratio < MOST_COMMON

    def joined(self, other: "Row | None") -> "Row":
        """The row with the seconds of another measurement of the same case."""
        if other is None:
            return self
        seconds = {s: [*mine, *other.seconds[s]] for s, mine in self.seconds.items()}
        return self._replace(seconds=seconds)

    def grown(self, field: str) -> int:
        """By how many bytes the new program takes more, or less."""
        new, old = (getattr(self.programs[side], field) for side in ("new", "old"))
        return new - old


def ticks(job: report.Job) -> int:
    """One tick per case."""
    return len(_cases(job))


def run(job: report.Job) -> report.Finding:
    """Measure every case in both checkouts, those far from 1 again."""
    baseline = (job.baseline or Path()).resolve()
    checkouts = {"new": Path(jaxpool.__file__).resolve().parents[1], "old": baseline}
    cases = _cases(job)
    rows, errors = _measure(job, checkouts, cases)
    for _ in range(0 if job.quick else AGAIN):
        checkouts = dict(reversed(checkouts.items()))
        doubtful = [row.case for row in rows if row.is_far_from_one]
        cases += doubtful
        job.expect(len(cases))
        again = {row.case.label: row for row in _measure(job, checkouts, doubtful)[0]}
        rows = [row.joined(again.get(row.case.label)) for row in rows]
    lines = [f"{c}: {s}: {text}" for c, e in errors.items() for s, text in e.items()]
    failed = [f"{case}: {e['new']}" for case, e in errors.items() if "new" in e]
    return report.Finding(
        results={
            "fresh_memory": job.fresh_memory,
            "commits": {side: _commit(path) for side, path in checkouts.items()},
            "groups": {" ".join(key): _ratios(group) for key, group in _groups(rows)},
            "not measured": lines,
            "cases": [_record(row) for row in rows],
        },
        tables=[_summary(rows), _details(rows)],
        conclusion=[*_conclude(rows), *lines],
        files=[],
        failures=failed,
    )


def _measure(
    job: report.Job, checkouts: Mapping[str, Path], cases: Sequence[Case]
) -> tuple[list[Row], dict[str, dict[str, str]]]:
    """Rows, and what was raised on which side by the cases that have none."""
    rows, errors = [], {}
    if not cases:
        return rows, errors
    workers = {s: Worker(p, not job.fresh_memory) for s, p in checkouts.items()}
    for case in cases:
        job.say(f"baseline: {case.function}")
        row = _row(job, workers, case)
        if isinstance(row, Row):
            rows.append(row)
        else:
            errors[case.label] = row
        job.tick()
    for worker in workers.values():
        worker.stop()
    return rows, errors


def _cases(job: report.Job) -> list[Case]:
    """Every function, geometry and pass; one geometry of each function if quick."""
    calls = [
        *itertools.product(WINDOWED, COMMON[:1] if job.quick else (*GEOMETRIES, *LONG)),
        *itertools.product(KINDS, BINS[:1] if job.quick else BINS),
    ]
    return [_case(*call, passes) for call in calls for passes in PASSES]


def _case(kind: str, geometry: tuple[Any, ...], passes: Pass) -> Case:
    """One case; a geometry without strides and padding is that of an adaptive pool."""
    shape, size, *rest = geometry
    rank = len(shape) - 2
    if not rest:
        label = f"{ADAPTIVE} {kind} {shape[1]} to {size} {passes}"
        call = f"adaptive_{kind}_pool", shape, {"output_shape": (size,) * rank}
        return Case(label, ADAPTIVE, passes, *call, is_common=size == 7)
    window, strides, padding = ((n,) * rank for n in (size, *rest))
    label = f"{Windows(kind, shape, window, strides, padding).label} {passes}"
    options = {"window": window, "strides": strides, "padding": padding}
    is_common = geometry in (*COMMON, SEVEN)
    return Case(label, kind, passes, f"{kind}_pool", shape, options, is_common)


def _row(
    job: report.Job, workers: Mapping[str, Worker], case: Case
) -> Row | dict[str, str]:
    """Measure one case, or say on which side it cannot be measured and why."""
    programs, results, errors = {}, {}, {}
    for worker in workers.values():  # both compile at the same time
        worker.send(case)
    for side, worker in workers.items():
        try:
            programs[side], results[side] = worker.receive()
        except RuntimeError as error:
            errors[side] = str(error)
    if errors:
        return errors
    pairs = zip(results["new"], results["old"], strict=True)
    difference = max(_difference(new, old) for new, old in pairs)
    row = Row(case, {side: [] for side in workers}, programs, difference)
    _take_turns(workers, row.seconds, job.full_or_quick(20, 3))
    return row


def _take_turns(
    workers: Mapping[str, Worker], seconds: Mapping[str, list[float]], turns: int
) -> None:
    """One side, the other side, and so on; long calls get few turns only."""
    for turn in range(turns):
        if turn >= 7 and min(map(min, seconds.values())) > LONGEST:
            return
        for side, worker in workers.items():
            seconds[side].append(min(worker.seconds()))


def _difference(new: np.ndarray, old: np.ndarray) -> float:
    if (new.shape, new.dtype) != (old.shape, old.dtype):
        return float("inf")
    return float(np.max(np.abs(new - old)) / max(np.max(np.abs(old)), 1e-30))


def _commit(checkout: Path) -> str:
    """The commit of a checkout, if git can tell."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return told.stdout.strip()


def _groups(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """The rows of each kind of pool and pass."""
    for key in itertools.product((*WINDOWED, ADAPTIVE), PASSES):
        group = [row for row in rows if (row.case.kind, row.case.passes) == key]
        if group:
            yield key, group


def _mean(rows: Sequence[Row]) -> float:
    return float(np.exp(np.mean([np.log(row.ratio) for row in rows])))


def _worst(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: row.ratio)


def _common(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.case.is_common]


def _ratios(group: Sequence[Row]) -> dict[str, float]:
    """The ratios of one kind of pool and pass, new over old."""
    found = {"mean": _mean(group), "worst": _worst(group).ratio}
    common = _common(group)
    return found | ({"worst common": _worst(common).ratio} if common else {})


def _record(row: Row) -> dict[str, Any]:
    """What is written of a case."""
    case = row.case._asdict() | {"ratio": row.ratio, "difference": row.difference}
    for side, seconds in row.seconds.items():
        program = row.programs[side]
        case[side] = {
            "least seconds": min(seconds),
            "median seconds": float(np.median(seconds)),
            "turns": len(seconds),
            "temporaries": program.temporaries,
            "kept": program.kept,
        }
    return case


def _summary(rows: Sequence[Row]) -> Any:
    columns = ["pool, pass", "cases", "mean", "worst common", "worst"]
    lines = []
    for key, group in _groups(rows):
        ratios = _ratios(group)
        names = "mean", "worst common", "worst"
        cells = [f"{ratios[n]:.2f}" if n in ratios else "-" for n in names]
        lines.append([", ".join(key), str(len(group)), *cells])
    return report.table("Time, new / old (geometric mean)", columns, lines)


def _details(rows: Sequence[Row]) -> Any:
    columns = ["case", "ms old", "ms new", "new / old"]
    columns += ["MB temporaries", "MB kept for backward"]
    lines = []
    for row in rows:
        old, new = (1e3 * np.median(row.seconds[side]) for side in ("old", "new"))
        lines.append([row.case.label, f"{old:.2f}", f"{new:.2f}", f"{row.ratio:.2f}"])
        lines[-1] += [_megabytes(row, field) for field in ("temporaries", "kept")]
    return report.table("Every case", columns, lines)


def _megabytes(row: Row, field: str) -> str:
    """Bytes of the old program, and of the new one where they differ."""
    if field == "kept" and row.case.passes == "forward":
        return "-"
    old, new = (getattr(row.programs[s], field) / 1e6 for s in ("old", "new"))
    return f"{old:.1f}" + (f" -> {new:.1f}" if row.grown(field) else "")


def _conclude(rows: Sequence[Row]) -> list[str]:
    """Compare with the targets, and say where memory or results changed."""
    means = {" ".join(key): _mean(group) for key, group in _groups(rows)}
    above = [f"{k} {mean:.3f}" for k, mean in means.items() if mean > MOST_ON_AVERAGE]
    lines = [f"mean at most {MOST_ON_AVERAGE}: {_verdict(above)}"]
    common = sorted(_common(rows), key=lambda row: -row.ratio)
    slow = [row for row in common if row.ratio > MOST_COMMON]
    shown = [f"{row.case.label} {row.ratio:.2f}" for row in slow]
    lines.append(f"no common case above {MOST_COMMON}: {_verdict(shown)}")
    lines += [f"worst common case: {r.case.label} {r.ratio:.2f}" for r in common[:1]]
    lines.append(_more_bytes(rows, "temporaries", "temporaries"))
    lines.append(_more_bytes(rows, "kept", "kept for backward"))
    differ = [row.case.label for row in rows if not row.difference <= TOLERANCE]
    return lines + [f"results differ: {label}" for label in differ]


def _more_bytes(rows: Sequence[Row], field: str, text: str) -> str:
    """In how many cases there are more bytes, and in which the most."""
    more = [row for row in rows if row.grown(field) > 0]
    less = sum(row.grown(field) < 0 for row in rows)
    more.sort(key=lambda row: -row.grown(field))
    worst = [f"{row.case.label} {_megabytes(row, field)} MB" for row in more[:3]]
    line = f"{text}: more bytes in {len(more)} of {len(rows)} cases, fewer in {less}"
    return line + (f"; most: {'; '.join(worst)}" if worst else "")


def _verdict(missed: Sequence[str]) -> str:
    return f"missed by {', '.join(missed)}" if missed else "met"
