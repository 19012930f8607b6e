"""What it costs to make a program, and what memory the program takes.

Nothing is run: each function yields the name of a case and a ratio, of the seconds of
tracing, lowering and compiling, or of the bytes of temporaries.
"""

import gc
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import report
from experiments.speed.cases import (
    COMMON,
    KINDS,
    MAPS,
    STEPS,
    VOLUME,
    WIDE,
    Measured,
    flax,
    ours,
)
from experiments.speed.peers import PASSES, Pass, Pool, compiled, softmax_formula
from experiments.speed.timing import clear_caches

# Each window with its strides and its padding.
TRACED = (
    (2, 2, "VALID"),
    (3, 2, "SAME"),
    (3, 1, "SAME"),
    (7, 7, "VALID"),
    (9, 1, "SAME"),
)


def tracing(job: report.Job) -> Measured:
    """The same for Flax's pools; for norms and softmax, formulas of its averages."""
    x = jax.ShapeDtypeStruct(MAPS, np.float32)
    for kind in (*KINDS, "lp", "softmax"):
        for case in TRACED:
            pools = ours(kind, MAPS, *case), _plain(kind, case)
            work = [partial(_trace_and_lower, pool, x) for pool in pools]
            one, other = _least_seconds(work, job.full_or_quick(9, 3))
            yield f"{kind} {'/'.join(map(str, case[:2]))} {case[2]}", one / other


def _plain(kind: str, case: tuple[Any, ...]) -> Pool:
    """A pool of Flax's, or a formula of its averages."""
    if kind in KINDS:
        return flax(kind, MAPS, *case)
    average = flax("avg", MAPS, *case)
    if kind == "lp":
        cells = case[0] ** 2
        return lambda x: jnp.sqrt(average(x * x) * cells)
    return partial(softmax_formula, average, jnp.exp)


def _trace_and_lower(pool: Pool, x: Any) -> None:
    jax.jit(jax.grad(lambda x: pool(x).sum())).trace(x).lower()


def compiling(job: report.Job) -> Measured:
    """Compiling Flax's."""
    for kind in KINDS:
        for case in (*COMMON, (VOLUME, 3, 1, 1), (WIDE, 63, 1, 31)):
            x = jax.ShapeDtypeStruct(case[0], np.float32)
            y = jax.eval_shape(ours(kind, *case), x)
            for passes in PASSES:
                pools = ours(kind, *case), flax(kind, *case)
                work = [partial(compiled, pool, passes, x, y) for pool in pools]
                one, other = _least_seconds(work, 3)
                yield f"{kind} {case[1]}/{case[2]} {passes} ({one:.2f} s)", one / other


def first_values(job: report.Job) -> Measured:
    """Tracing, lowering and compiling ten pools of Flax, forward."""
    return _first_step(job, "forward")


def first_gradients(job: report.Job) -> Measured:
    """The same, forward and backward."""
    return _first_step(job, "both")


def _first_step(job: report.Job, passes: Pass) -> Measured:
    shapes = [jax.ShapeDtypeStruct(MAPS, np.float32)]
    cases = [(kind, MAPS, *case) for kind in KINDS for case in TRACED]

    def summed(makers: Callable[..., Pool], x: jax.Array) -> jax.Array:
        return sum(makers(*case)(x).sum() for case in cases)

    derived = jax.value_and_grad if passes == "both" else (lambda model: model)
    models = [jax.jit(derived(partial(summed, makers))) for makers in (ours, flax)]
    work = [lambda m=m: m.trace(*shapes).lower().compile() for m in models]
    one, other = _least_seconds(work, job.full_or_quick(3, 1))
    yield f"{passes} ({one:.1f} s)", one / other


def _least_seconds(works: Sequence[Callable[[], Any]], repeats: int) -> Sequence[float]:
    """The least seconds of some works, in turn; each meets empty caches each time."""
    least = [math.inf] * len(works)
    for _ in range(repeats):
        for number, work in enumerate(works):
            clear_caches()
            gc.collect()
            begin = time.perf_counter()
            work()
            least[number] = min(least[number], time.perf_counter() - begin)
    return least


def temporaries(job: report.Job) -> Measured:
    """The input's bytes."""
    for kind in KINDS:
        for case in (*COMMON, (VOLUME, 2, 2, 0), (STEPS, 3, 1, 1)):
            for passes in PASSES:
                x = jax.ShapeDtypeStruct(case[0], np.float32)
                pool = ours(kind, *case)
                program = compiled(pool, passes, x, jax.eval_shape(pool, x))
                size = program.memory_analysis().temp_size_in_bytes
                yield (
                    f"{kind} {len(case[0]) - 2}-D {case[1]}/{case[2]} {passes}",
                    size / (4 * np.prod(case[0])),
                )
