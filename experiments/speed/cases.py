"""The arrays that are pooled when speed is measured, and the pools of two libraries.

A geometry is `(shape, window, strides, padding)`; each number is that of every pooled
axis. Arrays have at most 26 MB, so that fresh memory does not decide.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxpool
from experiments.shared import report
from experiments.speed.peers import Pass, Pool, prepare_jax
from experiments.speed.timing import interleaved

IMAGE, PLANES, MAPS = (8, 112, 112, 64), (16, 56, 56, 64), (8, 56, 56, 64)
WIDE, STEPS, VOLUME = (4, 128, 128, 32), (32, 2048, 64), (2, 16, 56, 56, 32)
COMMON = ((IMAGE, 2, 2, 0), (IMAGE, 3, 2, 1), (PLANES, 3, 1, 1), (MAPS, 5, 1, 2))
# (shape, size of the result)
BINS = ((IMAGE, 7), (IMAGE, 50), (MAPS, 29), (MAPS, 64), ((32, 28, 28, 256), 13))
KINDS = ("max", "avg")
# What the measurement of a target yields: the name of a case, and a ratio.
Measured = Iterator[tuple[str, float]]
Measure = Callable[[report.Job], Measured]


def random(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.Array:
    """Values to pool."""
    return jnp.asarray(np.random.default_rng(0).random(shape, np.float32), dtype)


def ours(kind: str, *args: Any, **kwargs: Any) -> Pool:
    """A pool of the library, of `(shape, window, strides, padding)`."""
    pool = getattr(jaxpool, f"{kind}_pool")
    shape, window, *rest = args
    window = (window,) * (len(shape) - 2)
    return lambda x: pool(x, window, *rest, **kwargs)


def flax(kind: str, *args: Any) -> Pool:
    """The same of Flax."""
    shape, window, stride, pad = args
    rank = len(shape) - 2
    pool = getattr(nnx, f"{kind}_pool")
    padding = pad if isinstance(pad, str) else ((pad, pad),) * rank
    return lambda x: pool(x, (window,) * rank, (stride,) * rank, padding)


def times(
    job: report.Job, passes: Pass, pools: Mapping[str, tuple[Any, ...]]
) -> dict[str, float]:
    """The least seconds of each `(pool, array, further arguments of the pool)`."""
    calls = {}
    for name, (pool, *arrays) in pools.items():
        y = jax.eval_shape(pool, *arrays)
        g = jnp.ones(y.shape, y.dtype)
        calls[name] = prepare_jax(pool, passes, arrays[0], g, *arrays[1:])
    return interleaved(calls, job.full_or_quick(12, 4))


def over(seconds: Mapping[str, float], one: str, other: str) -> float:
    """The time of one call over that of another."""
    return seconds[one] / seconds[other]
