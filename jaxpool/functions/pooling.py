"""What each pool computes, once its window is resolved.

Between the operators, which know how users spell things, and the kernels, which
know unmasked arrays of one dtype: masks, accumulation dtypes, divisors, and windows
without a valid cell are handled here, the same for windowed and global pools.
"""

import math
import operator
from functools import reduce
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxpool.aggregations import dtypes, integers
from jaxpool.aggregations.dtypes import INT32
from jaxpool.aggregations.extremes import Kind, extremum, indexed_extremum
from jaxpool.aggregations.forward_mode import explaining
from jaxpool.aggregations.norms import sizes_of, window_norm
from jaxpool.aggregations.sums import counts, kept, window_sum
from jaxpool.engines.lowering import Implementation
from jaxpool.engines.numbers import is_known
from jaxpool.functions.entry import entered
from jaxpool.geometry.window import Window


@explaining
@entered
def extreme(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
    kind: Kind,
) -> jax.Array:
    """Maximum or minimum of each window, in the dtype of `x`."""
    values = extremum(kind, x, mask, window, empty.item(), implementation)
    return _fill_empty(values, window, None, empty)


@entered
def extreme_with_indices(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
    kind: Kind,
) -> tuple[jax.Array, jax.Array]:
    """The same, and the flat index over the pooled axes; -1 where there is none."""
    found = indexed_extremum(kind, x, mask, window, empty.item(), implementation)
    values, indices = found
    return (
        _fill_empty(values, window, None, empty),
        _fill_empty(indices, window, None, np.asarray(-1, indices.dtype)),
    )


@entered
def total(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
) -> jax.Array:
    """Sum of each window, in the dtype of `x`."""
    kinds = dtypes.summed(x.dtype), x.dtype
    sums = window_sum(x, mask, (), window, *kinds, implementation)
    if empty == 0:  # as they are
        return sums
    return _fill_empty(
        sums, window, _valid_count(mask, window, x, implementation), empty
    )


@entered
def mean(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
    count_include_pad: bool = False,
    divisor: float | None = None,
) -> jax.Array:
    """Average of each window, in the dtype of `x`, of integers in float32."""
    dtype = dtypes.averaged(x.dtype)
    wide = dtypes.summed(dtype)
    valid = _valid_count(mask, window, x, implementation)
    if integers.needs_digits(x.dtype, window.cells):

        def total(x: jax.Array) -> jax.Array:
            return window_sum(x, mask, (), window, x.dtype, x.dtype, implementation)

        number = _cell_count(valid, window, x.ndim, count_include_pad)
        averages = integers.average(total, x, window.cells, number, divisor)
        return averages if empty == 0 else _fill_empty(averages, window, valid, empty)
    if divisor is not None:
        numbers: tuple[Any, ...] = (np.full((1,) * x.ndim, divisor, wide),)
    elif valid is None:
        factors = counts(window, x.ndim, count_include_pad)
        numbers = tuple(factor.clip(1).astype(wide) for factor in factors)
    else:
        numbers = (_cell_count(valid, window, x.ndim, count_include_pad).astype(wide),)
    kinds = dtypes.averaging(x.dtype, window.cells), dtype
    averages = window_sum(x, mask, numbers, window, *kinds, implementation)
    if empty == 0:  # as they are
        return averages
    return _fill_empty(averages, window, valid, empty)


@explaining
@entered
def norm(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
    p: float,
) -> jax.Array:
    """p-norm of each window, in the dtype of `x`, of integers in float32."""
    x = kept(x, mask).astype(dtypes.averaged(x.dtype))
    wide = dtypes.summed(x.dtype)
    if math.isinf(p):
        norms = extremum("max", sizes_of(x, x.dtype), None, window, 0, implementation)
    elif p == 1 or (not window.is_symbolic and window.cells == 1):
        sizes = sizes_of(x, wide)
        norms = window_sum(sizes, None, (), window, wide, x.dtype, implementation)
    else:
        norms = window_norm(p, x, window, wide, implementation)
    valid = _valid_count(mask, window, x, implementation)
    return _fill_empty(norms, window, valid, empty)


def _cell_count(
    valid: jax.Array | None, window: Window, rank: int, include_pad: bool
) -> Any:
    """How many cells each window counts, at least 1; broadcasts to the result."""
    count = math.prod(counts(window, rank, include_pad))
    if valid is None:
        return count.clip(1)
    if include_pad:  # masked cells do not count, padded ones do
        valid = valid + (count - math.prod(counts(window, rank, False)))
    return jnp.maximum(valid, np.ones((), valid.dtype))


def _valid_count(
    mask: jax.Array | None,
    window: Window,
    x: jax.Array,
    implementation: Implementation | None,
) -> jax.Array | None:
    """How many unmasked cells each window holds; broadcasts to the result."""
    if mask is None:
        return None
    shape = list(mask.shape)
    for axis in window.axes:
        shape[axis] = x.shape[axis]
    cells = jnp.broadcast_to(mask, shape)
    return window_sum(cells, None, (), window, INT32, INT32, implementation)


def _fill_empty(
    pooled: jax.Array, window: Window, valid: jax.Array | None, empty: np.ndarray
) -> jax.Array:
    """Put `empty` where a window has no valid cell."""
    chex.assert_axis_dimension(pooled, window.axes[0], window.dims[0].out)
    if valid is not None:
        return jnp.where(valid > 0, pooled, empty)
    factors = counts(window, pooled.ndim, False)
    pairs = zip(factors, window.dims, strict=True)
    filled = [factor > 0 for factor, dim in pairs if dim.may_miss]
    if all(is_known(some) and some.all() for some in filled):
        return pooled
    return jnp.where(reduce(operator.and_, filled), pooled, empty)
