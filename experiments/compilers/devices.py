"""Devices: what the programs for TPUs and a GPU move, without having either.

Every operator is compiled, values alone and with the gradient, for each device, and so
is plain `lax`. Nothing is run, so nothing here says how fast anything is.
"""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.table import Table

from experiments.compilers.compiling import (
    H100,
    V5E,
    V6E,
    Program,
    Target,
    compiled,
    missing,
    prepare,
)
from experiments.compilers.operators import COMMON, OPERATORS, WHOLE, WINDOWED, Pool
from experiments.shared import report

TARGETS, QUICK_TARGETS = (V5E, V6E, H100), (V5E, H100)
DTYPES = ("float32", "bfloat16")
PASSES = ("forward", "both")  # both: values and gradient

# On a GPU, the most kernels for both passes of a common window; atomics of any program.
MOST_KERNELS, MOST_ATOMICS = 4, 0
SMOOTH, MOST_KERNELS_OF_SMOOTH = ("logsumexp_pool", "softmax_pool", "median_pool"), 6
# On a TPU, the most bytes of both passes, as a multiple of those of plain lax, to two
# digits: what the plain forms of maxima need (docs/notes/compilers.md).
MOST_BYTES = {"float32": 1.7, "bfloat16": 2.8}
MOST_BYTES_ROUNDED = 1.4  # of lax that adds up half floats as such
SCATTERS = ("max_unpool",)  # puts values wherever indices say
OTHER_FUNCTIONS = ("lp_pool", "global_lp_pool")  # lax has no norm but the naive one


QUICK = {
    "max_pool": (*COMMON, "3/1, dilated by 2"),
    "avg_pool": ("2/2", "3/2"),
    "lp_pool": ("3/2",),
    "softmax_pool": ("3/2",),
    "global_softmax_pool": tuple(WHOLE),
    "var_pool": ("3/2",),
    "median_pool": ("3/2",),
    "Max() over segments": tuple(WHOLE),
    "Max() over neighbors": tuple(WHOLE),
    "pool": ("3/2",),
    "global_max_pool": tuple(WHOLE),
    "global_avg_pool": tuple(WHOLE),
}
UNIT = "programs"


class Request(NamedTuple):
    """One program to compile."""

    target: Target
    operator: str
    case: str
    dtype: str
    passes: str
    side: str = "jaxpool"
    deterministic: bool = False

    def __str__(self) -> str:
        """Name the program."""
        names = self.target.name, self.operator, self.case, self.dtype, self.passes
        return " ".join(names) + " deterministic" * self.deterministic


Found = Mapping[Request, Program | str]


def ticks(job: report.Job) -> int:
    """One tick per program."""
    return len(_requests(job))


def run(job: report.Job) -> report.Finding:
    """Compile everything, and hold it against the limits."""
    prepare()
    requests = _requests(job)
    found: dict[Request, Program | str] = {}
    workers = ProcessPoolExecutor(
        os.cpu_count(), mp_context=multiprocessing.get_context("spawn")
    )
    with workers:
        futures = {workers.submit(measure, r, job.gpu_target): r for r in requests}
        for future in as_completed(futures):
            found[futures[future]] = future.result()
            job.say(f"devices: {futures[future].target.name}")
            job.tick()
    wanted = {t: missing(t, job.gpu_target) for t in _targets(job)}
    failures = [line for request in requests for line in _failures(request, found)]
    skipped = [f"{t.name} skipped: {why}" for t, why in wanted.items() if why]
    return report.Finding(
        results=[_record(request, found[request]) for request in requests],
        tables=[_table(t, found) for t, why in wanted.items() if not why],
        conclusion=[*skipped, f"{len(requests)} programs, {len(failures)} failures"],
        files=[],
        failures=failures,
    )


def measure(request: Request, gpu_target: Path | None) -> Program | str:
    """Compile one program and count, or say why it does not compile."""
    operator = OPERATORS[request.operator]
    make, case = operator.maker(request.side), operator.cases[request.case]
    pool, x = make(case), jax.ShapeDtypeStruct(case.shape, request.dtype)
    function, arrays = (
        (pool, [x])
        if request.passes == "forward"
        else (values_and_gradient(pool), [x, jax.eval_shape(pool, x)])
    )
    try:
        return compiled(
            request.target, gpu_target, function, arrays, request.deterministic
        )
    except Exception as error:  # of whatever type a compiler raises
        return f"{type(error).__name__}: {str(error)[:200]}"


def values_and_gradient(pool: Pool) -> Callable[..., Any]:
    """Both passes of a pool in one program."""

    def both(x: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        y, back = jax.vjp(pool, x)
        return y, back(g)[0]

    return both


def _targets(job: report.Job) -> tuple[Target, ...]:
    return QUICK_TARGETS if job.quick else TARGETS


def _requests(job: report.Job) -> list[Request]:
    """Every program of this run, for the targets that can be compiled for."""
    found = []
    targets = [t for t in _targets(job) if not missing(t, job.gpu_target)]
    passes = PASSES[1:] if job.quick else PASSES
    for target, (name, operator) in itertools.product(targets, OPERATORS.items()):
        cases = QUICK.get(name, ()) if job.quick else tuple(operator.cases)
        if target == V6E:  # compiled as for the v5e, but for the layouts
            cases = tuple(c for c in cases if c in COMMON or c not in WINDOWED)
        for case, dtype, which in itertools.product(cases, DTYPES, passes):
            request = Request(target, name, case, dtype, which)
            found.append(request)
            if target.platform == "cuda" and which == "both":
                found.append(request._replace(deterministic=True))
            if operator.has_rival(case, which, target):
                found.append(request._replace(side="lax"))
                if operator.rounded and dtype == "bfloat16":
                    found.append(request._replace(side="rounded"))
    return found


def _failures(request: Request, found: Found) -> Iterator[str]:
    """Which limits a program of the library breaks."""
    program = found[request]
    if request.side != "jaxpool":
        return
    if isinstance(program, str):
        yield f"{request} does not compile: {program}"
        return
    atomics = program.atomics or 0
    if request.operator not in SCATTERS and atomics > MOST_ATOMICS:
        yield f"{request}: {atomics} atomics, at most {MOST_ATOMICS}"
    kernels = program.kernels or 0
    is_smooth = request.operator in SMOOTH
    most_kernels = MOST_KERNELS_OF_SMOOTH if is_smooth else MOST_KERNELS
    if request.case in COMMON and kernels > most_kernels:
        yield f"{request}: {kernels} kernels, at most {most_kernels}"
    ratio = _ratio(request, found)
    if request.target.platform == "tpu" and request.passes == "both" and ratio:
        held, most = request.operator not in OTHER_FUNCTIONS, MOST_BYTES[request.dtype]
        if held and round(ratio, 2) > most:
            yield f"{request}: {ratio:.2f} times the bytes of lax, at most {most}"
        rounded, most = _ratio(request, found, "rounded"), MOST_BYTES_ROUNDED
        if rounded and rounded > most:
            yield f"{request}: {rounded:.2f} times rounded sums, at most {most}"


def _ratio(request: Request, found: Found, side: str = "lax") -> float | None:
    """The bytes of the library's program over those of plain lax."""
    ours = found[request]
    lax = found.get(request._replace(side=side, deterministic=False))
    if isinstance(ours, Program) and isinstance(lax, Program):
        return ours.bytes / lax.bytes
    return None


def _record(request: Request, program: Program | str) -> dict[str, Any]:
    """What is written of a program."""
    counted = program._asdict() if isinstance(program, Program) else {"error": program}
    return request._asdict() | {"target": request.target.name} | counted


def _table(target: Target, found: Found) -> Table:
    """The programs of one target; those of plain lax in brackets."""
    columns = ["(plain lax)", "seconds", "MB accessed", "ratio", "rounded"]
    columns += ["MB of temporaries"]
    columns += ["kernels", "deterministic", "atomics"] * (target.platform == "cuda")
    rows = []
    for request, program in sorted(found.items(), key=lambda pair: str(pair[0])):
        is_row = request.side == "jaxpool" and not request.deterministic
        if request.target != target or not is_row:
            continue
        lax = found.get(request._replace(side="lax"))
        fixed = found.get(request._replace(deterministic=True))
        cells = {
            "seconds": _cell(program, lax, "seconds", 1),
            "MB accessed": _cell(program, lax, "bytes", 1e6),
            "ratio": _times(_ratio(request, found)),
            "rounded": _times(_ratio(request, found, "rounded")),
            "MB of temporaries": _cell(program, lax, "temporaries", 1e6),
            "kernels": _cell(program, lax, "kernels"),
            "deterministic": _cell(fixed, None, "kernels"),
            "atomics": _cell(program, lax, "atomics"),
        }
        name = f"{request.operator} {request.case} {request.dtype} {request.passes}"
        rows.append([name, *(cells[column] for column in columns[1:])])
    return report.table(target.name, columns, rows)


def _times(ratio: float | None) -> str:
    """A ratio, if there is one."""
    return "" if ratio is None else f"{ratio:.2f}"


def _cell(
    program: Program | str | None,
    lax: Program | str | None,
    field: str,
    unit: float = 1,
) -> str:
    """One count of a program and in brackets of that of lax, if there are such."""

    def count(counted: Program | str | None) -> str:
        if not isinstance(counted, Program):
            return "" if counted is None else "fails"
        number = getattr(counted, field)
        return f"{number}" if unit == 1 else f"{number / unit:.1f}"

    return count(program) + (f" ({count(lax)})" if lax is not None else "")
