"""What each pool computes, once its window is resolved.

Between the operators, which know how users spell things, and the kernels, which
know unmasked arrays of one dtype: masks, accumulation dtypes, divisors, and windows
without a valid cell are handled here, the same for windowed and global pools.
"""

import math
import operator
from functools import partial, reduce
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool import _dtypes
from jaxpool._dtypes import FLOAT32
from jaxpool._extremes import Kind
from jaxpool._lowering import Implementation
from jaxpool._reduce_any import reduce_any
from jaxpool._reduce_max import extremum, indexed_extremum
from jaxpool._reduce_sum import counts, window_sum
from jaxpool._sharding import sharded
from jaxpool._sizes import is_symbolic
from jaxpool._window import Window


@sharded
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


@sharded
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
    none = np.asarray(-1, indices.dtype)
    return (
        _fill_empty(values, window, None, empty),
        _fill_empty(indices, window, None, none),
    )


@sharded
def total(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
) -> jax.Array:
    """Sum of each window, in the dtype of `x`."""
    dtypes = _dtypes.summed(x.dtype), x.dtype
    sums = window_sum(x, mask, (), window, *dtypes, implementation)
    if empty == 0:  # as they are
        return sums
    return _fill_empty(sums, window, _valid_count(mask, window, x), empty)


@sharded
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
    dtype = _dtypes.averaged(x.dtype)
    wide = _dtypes.summed(dtype)
    valid = _valid_count(mask, window, x)
    if divisor is not None:
        numbers: tuple[Any, ...] = (np.full((1,) * x.ndim, divisor, wide),)
    elif valid is None:
        factors = counts(window, x.ndim, count_include_pad)
        numbers = tuple(factor.clip(1).astype(wide) for factor in factors)
    else:
        some = valid.astype(jnp.finfo(wide).dtype)
        if count_include_pad:
            padded, inside = (
                math.prod(counts(window, x.ndim, b)) for b in (True, False)
            )
            some += jnp.asarray(padded - inside, some.dtype)
        numbers = (jnp.maximum(some, np.ones((), some.dtype)).astype(wide),)
    dtypes = _dtypes.averaging(x.dtype, window.cells), dtype
    averages = window_sum(x, mask, numbers, window, *dtypes, implementation)
    if empty == 0:  # as they are
        return averages
    return _fill_empty(averages, window, valid, empty)


@sharded
def norm(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
    p: float,
) -> jax.Array:
    """p-norm of each window, in the dtype of `x`, of integers in float32."""
    dtype = _dtypes.averaged(x.dtype)
    signed = _zero_masked(x, mask).astype(_dtypes.summed(dtype))
    sizes = signed * lax.stop_gradient(lax.sign(signed))  # |x|, with gradient 0 at 0
    if math.isinf(p):
        norms = extremum("max", sizes, None, window, 0, implementation)
    elif p == 1:
        dtypes = sizes.dtype, sizes.dtype
        norms = window_sum(sizes, None, (), window, *dtypes, implementation)
    else:
        norms = _joined_windows(p, sizes, window, implementation)
    valid = _valid_count(mask, window, x)
    return _fill_empty(norms.astype(dtype), window, valid, empty)


def _joined_windows(
    p: float, sizes: jax.Array, window: Window, implementation: Implementation | None
) -> jax.Array:
    """p-norm of non-negative sizes, joining two at a time."""
    if is_symbolic(window.cells):
        return _whole_norm(p, window, sizes)
    join = partial(_join, p)
    none = jnp.zeros((), sizes.dtype)

    @partial(jax.checkpoint, prevent_cse=False)  # keeps the sizes, not each step
    def by_passes(sizes: jax.Array) -> jax.Array:
        name = "slices" if implementation == "reduce_window" else implementation
        return reduce_any(sizes, none, join, window, name)

    @jax.custom_jvp
    def by_xla(sizes: jax.Array) -> jax.Array:
        return reduce_any(sizes, none, join, window, "reduce_window")

    by_xla.defjvp(lambda primals, tangents: jax.jvp(by_passes, primals, tangents))
    norms: jax.Array = (by_xla if implementation == "reduce_window" else by_passes)(
        sizes
    )
    return norms


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _whole_norm(p: float, window: Window, sizes: jax.Array) -> jax.Array:
    """p-norm of one window that has no known number of cells to join."""
    none = jnp.zeros((), sizes.dtype)
    return reduce_any(sizes, none, partial(_join, p), window, "reduce_window")


@_whole_norm.defjvp
def _whole_norm_jvp(
    p: float, window: Window, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    norm = _whole_norm(p, window, *primals)
    shares = _share(p, primals[0], norm) * tangents[0]
    return norm, shares.sum(window.axes, keepdims=True, dtype=norm.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _join(p: float, one: jax.Array, other: jax.Array) -> jax.Array:
    """p-norm of two sizes, from their ratio: no power of a size can overflow."""
    most, least = lax.max(one, other), lax.min(one, other)
    alone = (least == 0) | jnp.isinf(most)
    ratio = least / jnp.where(alone, jnp.ones_like(most), most)
    joined = jnp.sqrt(1 + ratio * ratio) if p == 2 else (1 + ratio**p) ** (1 / p)
    return jnp.where(alone, most, most * joined)


@_join.defjvp
def _join_jvp(
    p: float,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    norm = _join(p, *primals)
    pairs = zip(primals, tangents, strict=True)
    one, other = (_share(p, x, norm) * t for x, t in pairs)
    return norm, one + other


def _share(p: float, size: jax.Array, norm: jax.Array) -> jax.Array:
    """The derivative of a norm by one of its sizes."""
    apart = (size != 0) & (size != norm)
    one = jnp.ones_like(size)
    ratio = jnp.where(apart, size, one) / jnp.where(apart, norm, one)
    return jnp.where(size == 0, jnp.zeros_like(size), ratio ** (p - 1))


def _zero_masked(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`x` with zeros where it does not take part."""
    return x if mask is None else jnp.where(mask, x, np.zeros((), x.dtype))


def _valid_count(
    mask: jax.Array | None, window: Window, x: jax.Array
) -> jax.Array | None:
    """How many unmasked cells each window holds; broadcasts to the result."""
    if mask is None:
        return None
    shape = list(mask.shape)
    for axis in window.axes:
        shape[axis] = x.shape[axis]
    cells = jnp.broadcast_to(mask, shape)
    return window_sum(cells, None, (), window, FLOAT32, FLOAT32, None)


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
    if all(isinstance(some, np.ndarray) and some.all() for some in filled):
        return pooled
    return jnp.where(reduce(operator.and_, filled), pooled, empty)
