"""What each pool computes, once its window is resolved.

Between the operators, which know how users spell things, and the kernels, which
know unmasked arrays of one dtype: masks, accumulation dtypes, divisors, and windows
without a valid cell are handled here, the same for windowed and global pools.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool import _dtypes
from jaxpool._lowering import Implementation
from jaxpool._reduce_max import Kind, extremum, worst
from jaxpool._reduce_sum import counts, divide, product, window_sum
from jaxpool._window import Window


def extreme(
    kind: Kind,
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
) -> jax.Array:
    """Maximum or minimum of each window, in the dtype of `x`."""
    wide = x.astype(_dtypes.ordered(x.dtype))
    valid = None
    if mask is not None:
        valid = jnp.broadcast_to(mask, x.shape)
        wide = jnp.where(valid, wide, worst(kind, wide.dtype))
    values = extremum(kind, wide, valid, window, implementation).astype(x.dtype)
    return _fill_empty(values, window, _valid_count(mask, window, x), empty)


def total(
    x: jax.Array,
    window: Window,
    mask: jax.Array | None,
    empty: np.ndarray,
    implementation: Implementation | None,
) -> jax.Array:
    """Sum of each window, in the dtype of `x`."""
    wide = _zero_masked(x, mask).astype(_dtypes.summed(x.dtype))
    sums = window_sum(wide, window, implementation).astype(x.dtype)
    return _fill_empty(sums, window, _valid_count(mask, window, x), empty)


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
    wide = _zero_masked(x, mask).astype(_dtypes.averaging(x.dtype, window.cells))
    sums = window_sum(wide, window, implementation)
    sums = sums.astype(_dtypes.summed(dtype))
    valid = _valid_count(mask, window, x)
    real = jnp.finfo(sums.dtype).dtype
    if divisor is not None:
        number = product([np.full((1,) * x.ndim, divisor)], real)
    else:
        number = product(counts(window, x.ndim, count_include_pad), real)
        if valid is not None:
            inside = product(counts(window, x.ndim, False), real)
            number = number - inside + valid.astype(real)
        number = jnp.maximum(number, np.ones((), real))
    averages = divide(sums, number.astype(sums.dtype)).astype(dtype)
    return _fill_empty(averages, window, valid, empty)


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
        norms = extremum("max", sizes, None, window, implementation)
    elif p == 1:
        norms = window_sum(sizes, window, implementation)
    else:
        scale = _power_scale(sizes, window, p)
        sums = window_sum(_power(sizes * scale, p), window, implementation)
        norms = _power(sums, 1 / p) / scale
    valid = _valid_count(mask, window, x)
    return _fill_empty(norms.astype(dtype), window, valid, empty)


def _power(sizes: jax.Array, exponent: float) -> jax.Array:
    """`sizes ** exponent` of non-negative numbers, with gradient 0 where it is 0."""
    is_zero = sizes == 0
    safe = jnp.where(is_zero, np.ones((), sizes.dtype), sizes)
    if exponent == 2:
        powers = safe * safe
    elif exponent == 0.5:
        powers = jnp.sqrt(safe)
    else:
        powers = safe**exponent
    return jnp.where(is_zero, np.zeros((), sizes.dtype), powers)


def _power_scale(sizes: jax.Array, window: Window, p: float) -> jax.Array:
    """A power of two per plane, 1 if it can be, so that sums of powers stay finite."""
    limits = jnp.finfo(sizes.dtype)
    most = max(1, int((limits.maxexp - math.log2(window.cells)) / p) - 1)
    largest = jnp.max(lax.stop_gradient(sizes), window.axes, keepdims=True, initial=0)
    _, exponent = jnp.frexp(largest)
    shift = jnp.where(exponent > most, most - exponent, 0)
    shift = jnp.where(exponent < -most, -exponent, shift)
    shift = jnp.where(jnp.isfinite(largest), shift, 0)
    bound = limits.maxexp - 2
    return jnp.ldexp(jnp.ones_like(largest), jnp.clip(shift, -bound, bound))


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
    cells = jnp.broadcast_to(mask, shape).astype(np.float32)
    return lax.stop_gradient(window_sum(cells, window, None))


def _fill_empty(
    pooled: jax.Array, window: Window, valid: jax.Array | None, empty: np.ndarray
) -> jax.Array:
    """Put `empty` where a window has no valid cell."""
    chex.assert_axis_dimension(pooled, window.axes[0], window.dims[0].out)
    if valid is not None:
        return jnp.where(valid > 0, pooled, empty)
    factors = counts(window, pooled.ndim, False)
    if all(factor.all() for factor in factors):
        return pooled
    filled = math.prod(factors[1:], start=factors[0] > 0) > 0
    return jnp.where(filled, pooled, empty)
