"""How programs are compiled, timed and compared on a device.

The bytes of a pass are those that must move: the input once and the result once, and
with the gradient the cotangent and the gradient too. What a library keeps between the
passes does not count. A program pools several inputs, since a host needs tens of
microseconds to start one; and no cache holds them all. A time is the median over loops
of calls with one wait at the end of each loop.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import report
from experiments.speed.accelerator.cases import Case, Key, Pool, types
from experiments.speed.peers import Pass, both

LOOPS, LOOP_SECONDS, MOST_CALLS = 7, 0.02, 200
SLOW = 0.2  # seconds from which on one call is enough
INPUTS = 3  # of a program, or that take turns
THREADS = 8  # that compile
SIDES = Mapping[str, Callable[[Case], Pool | None]]  # what is timed, by name


class Row(NamedTuple):
    """The seconds of one pass of one case, of each side that was timed."""

    case: Case
    dtype: str
    passes: Pass
    bytes: int
    seconds: dict[str, float]

    def __str__(self) -> str:
        """Name the measurement."""
        passes = "forward" if self.passes == "forward" else "both passes"
        return f"{self.case.kind} {self.case.label} {self.dtype}, {passes}"

    def share(self, side: str, bandwidth: float) -> float:
        """Per cent of the bandwidth of a copy; NaN where nothing was timed."""
        seconds = self.seconds.get(side, math.nan)
        return 100 * self.bytes / seconds / bandwidth

    def record(self, side: str, bandwidth: float) -> dict[str, Any]:
        """What is written of it."""
        share = self.share(side, bandwidth)
        named = {"case": str(self), "shape": self.case.shape, "bytes": self.bytes}
        return named | {"seconds": self.seconds, "per cent": share}

    def ratio(self, side: str) -> float:
        """The seconds of a rival over ours."""
        return self.seconds.get(side, math.nan) / self.seconds.get("jaxpool", math.nan)


def seconds(
    call: Callable[..., Any], inputs: Sequence[Any], wait: Callable[[Any], Any]
) -> float:
    """Seconds of a call: the median over loops of many, with one wait a loop."""
    wait(call(*inputs[0]))
    begin = time.perf_counter()
    wait(call(*inputs[-1]))
    once = time.perf_counter() - begin
    if once > SLOW:
        return once
    count = min(max(len(inputs), math.ceil(LOOP_SECONDS / once)), MOST_CALLS)
    loops = []
    for _ in range(LOOPS):
        begin = time.perf_counter()
        for i in range(count):
            last = call(*inputs[i % len(inputs)])
        wait(last)
        loops.append((time.perf_counter() - begin) / count)
    return statistics.median(loops)


def in_one_program(pool: Pool) -> Pool:
    """The program that calls `pool` with each of several tuples of arguments."""

    def called(*inputs: tuple[jax.Array, ...]) -> list[Any]:
        return [pool(*arrays) for arrays in inputs]

    return called


def copies(job: report.Job) -> dict[str, float]:
    """Bytes a second of programs that read arrays and write others, by name."""
    shape = (32, 112, 112, 64) if not job.quick else (4, 28, 28, 16)
    inputs = [(jnp.full(shape, i, np.float32),) for i in range(INPUTS)]
    found = {}
    for name, copy in (("copy", jnp.copy), ("negation", jnp.negative)):
        program = jax.jit(in_one_program(copy))
        took = seconds(program, [inputs], jax.block_until_ready)
        found[name] = 2 * INPUTS * inputs[0][0].nbytes / took
    return found


def dispatch() -> float:
    """Seconds that the host needs to start a program that does next to nothing."""
    program = jax.jit(jnp.negative)
    return seconds(program, [(jnp.zeros(8),)], jax.block_until_ready)


Programs = Mapping[tuple[Key, str], Any]


def compiled(job: report.Job, keys: Sequence[Key], sides: SIDES) -> Programs:
    """All programs, compiled in several threads; or the exceptions that they raise."""

    def compile_one(key: Key) -> Iterator[tuple[tuple[Key, str], Any]]:
        case, dtype, passes = key
        x, y = types(case, dtype)
        for side, make in sides.items():
            pool = make(case)
            if pool is None:
                continue
            program = partial(both, pool) if passes == "both" else pool
            inputs = [(x, y) if passes == "both" else (x,)] * INPUTS
            try:
                lowered = jax.jit(in_one_program(program)).lower(*inputs)
                yield (key, side), lowered.compile()
            except Exception as error:  # of whatever type a compiler raises
                yield (key, side), error

    found: dict[tuple[Key, str], Any] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        for made in threads.map(lambda key: dict(compile_one(key)), keys):
            job.say("compiling")
            job.tick()
            found |= made
    return found


def timed(
    key: Key, programs: Programs, sides: SIDES
) -> tuple["Row", dict[str, list[str]]]:
    """Time one pass on every side; and what is wrong with each side.

    The results of all sides are compared with those of the last one.
    """
    case, dtype, passes = key
    x, y = types(case, dtype)
    arrays = [_random(i, x, y if passes == "both" else None) for i in range(INPUTS)]
    row = Row(case, dtype, passes, _moved(x, y, passes), {})
    wrong: dict[str, list[str]] = {side: [] for side in sides}
    results: dict[str, list[jax.Array]] = {}
    for side in sides:
        program = programs.get((key, side))
        if program is None:
            continue
        try:
            if isinstance(program, Exception):
                raise program
            results[side] = jax.tree.leaves(program(*arrays)[0])
            took = seconds(program, [arrays], jax.block_until_ready)
            row.seconds[side] = took / INPUTS
        except Exception as error:  # of whatever type a device raises
            text = f"{row}, {side}: {type(error).__name__}: {str(error)[:200]}"
            wrong[side].append(text)
    *others, last = results or [""]
    for side in others:
        pairs = zip(results[side], results[last], strict=True)
        parts = ("values", "gradient")
        if case.segments and case.kind == "max":
            parts = parts[:1]  # jax divides a gradient among ties
        for part, pair in zip(parts, pairs, strict=False):
            error = float(_distance(*pair))
            if not error <= (1e-4 if dtype == "float32" else 2e-2):
                text = f"{row}: {part} of {side} and {last} are {error:.2g} apart"
                wrong[side].append(text)
    return row, wrong


def _moved(x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct, passes: Pass) -> int:
    """The bytes that must move."""
    size = sum(math.prod(t.shape) * t.dtype.itemsize for t in (x, y))
    return size * (2 if passes == "both" else 1)


def _random(
    seed: int, x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct | None
) -> tuple[jax.Array, ...]:
    """An input, and a cotangent of the result."""
    keys = jax.random.split(jax.random.key(seed))
    types = [x] if y is None else [x, y]
    pairs = zip(keys, types, strict=False)
    return tuple(jax.random.normal(k, t.shape, t.dtype) for k, t in pairs)


@jax.jit
def _distance(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    """The norm of the difference over that of the second."""
    a, b = ours.reshape(-1).astype(np.float32), theirs.reshape(-1).astype(np.float32)
    return jnp.sqrt(jnp.sum((a - b) ** 2) / jnp.sum(b**2))
