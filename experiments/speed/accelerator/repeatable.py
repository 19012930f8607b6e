"""Repeatable: whether a gradient has the same bits in every run.

Each program is compiled with and without XLA's deterministic mode, in which XLA refuses
operations that are not deterministic.
"""

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from experiments.shared import report
from experiments.speed.peers import both

RUNS = 3
SHAPE, QUICK_SHAPE = (8, 56, 56, 64), (2, 12, 12, 4)
FLAG = "xla_gpu_deterministic_ops"
SAMPLES = np.asarray([0.3, 0.6], np.float32)


def _unpooled(x: jax.Array) -> jax.Array:
    """Windows overlap, so that several values meet in one cell."""
    values, indices = jaxpool.max_pool_with_indices(x, (3, 3), 2)
    return jaxpool.max_unpool(values, indices, x.shape[1:3])


def _of_lax(x: jax.Array) -> jax.Array:
    """The maxima of `lax`, for comparison."""
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    lowest = np.asarray(-np.inf, x.dtype)
    return lax.reduce_window(x, lowest, lax.max, window, strides, "SAME")


def _in_segments(pool: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """Pixels of all images in 300 segments, in no order."""
    pixels = x.reshape(-1, x.shape[-1])
    ids = lax.iota(np.int32, len(pixels)) * np.int32(7) % np.int32(300)
    return pool(pixels, ids, 300)


POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    **{
        f"{kind}_pool {window}/{strides}": partial(
            getattr(jaxpool, f"{kind}_pool"),
            window=(window, window),
            strides=strides,
            padding="SAME",
        )
        for kind in ("max", "avg", "lp")
        for window, strides in ((2, 2), (3, 2), (3, 1))
    },
    "max_pool 9/1": partial(jaxpool.max_pool, window=(9, 9), strides=1, padding="SAME"),
    "max_pool, dilated": partial(jaxpool.max_pool, window=(3, 3), dilation=2),
    "global_max_pool": jaxpool.global_max_pool,
    "global_avg_pool": jaxpool.global_avg_pool,
    "adaptive_max_pool": partial(jaxpool.adaptive_max_pool, output_shape=(7, 5)),
    "adaptive_avg_pool": partial(jaxpool.adaptive_avg_pool, output_shape=(7, 5)),
    "fractional_max_pool": partial(
        jaxpool.fractional_max_pool, window=2, output_shape=(5, 5), samples=SAMPLES
    ),
    "max_unpool": _unpooled,
    **{
        f"{name} 3/2": partial(getattr(jaxpool, name), window=(3, 3), strides=2)
        for name in ("softmax_pool", "logsumexp_pool", "var_pool", "median_pool")
    },
    **{
        name: partial(_in_segments, getattr(jaxpool, name))
        for name in ("segment_max_pool", "segment_sum_pool")
    },
    "pool logaddexp": partial(
        jaxpool.pool, init=-np.inf, op=jnp.logaddexp, window=(3, 3), strides=2
    ),
}
RIVALS = {"lax max 3/2": _of_lax}
DTYPES = ("float32", "bfloat16")
MODES = (False, True)


def ticks(job: report.Job) -> int:
    """One tick a program."""
    return len(_programs(job))


def _programs(job: report.Job) -> list[tuple[str, str, bool]]:
    """The pool, the dtype and the mode of each program."""
    every = list(itertools.product(POOLS | RIVALS, DTYPES, MODES))
    return every[::9] if job.quick else every


def run(job: report.Job, deadline: float) -> report.Finding:
    """Run every program several times, and compare bits."""
    found = {}
    for name, dtype, mode in _programs(job):
        job.say(f"repeatable: {name}")
        if time.monotonic() < deadline:
            pool = (POOLS | RIVALS)[name]
            found[name, dtype, mode] = _repeated(job, pool, dtype, mode)
        job.tick()
    texts = {key: text for key, text in found.items() if text}
    lines = [
        f"{name} {dtype}{', deterministic mode' if mode else ''}: {text}"
        for (name, dtype, mode), text in texts.items()
    ]
    ours = [line for line in lines if not line.startswith(tuple(RIVALS))]
    rivals = [line for line in lines if line.startswith(tuple(RIVALS))]
    count = sum(name in POOLS for name, _, _ in found)
    return report.Finding(
        results={"programs": count, "runs": RUNS, "differ": ours, "of lax": rivals},
        tables=[],
        conclusion=[
            f"{count} programs of values and gradients ran {RUNS} times with and "
            f"without {FLAG}: {len(ours)} are not bit-equal",
            *(f"for comparison, {line}" for line in rivals),
        ],
        files=[],
        failures=ours,
    )


def _repeated(job: report.Job, pool: Callable[..., Any], dtype: str, mode: bool) -> str:
    """Say what is not the same in every run."""
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], QUICK_SHAPE if job.quick else SHAPE, dtype)
    g = jax.random.normal(keys[1], jax.eval_shape(pool, x).shape, dtype)
    try:
        program = jax.jit(partial(both, pool), compiler_options={FLAG: mode})
        runs = [jax.device_get(program(x, g)) for _ in range(RUNS)]
    except Exception as error:  # of whatever type a compiler raises
        return f"{type(error).__name__}: {str(error)[:200]}"
    differ = [
        part
        for part, *arrays in zip(("values", "gradient"), *runs, strict=True)
        if len({array.tobytes() for array in arrays}) > 1
    ]
    return " and ".join([*differ]) + " differ" if differ else ""
