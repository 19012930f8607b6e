"""Elementwise operations of `lax`; those of `jnp` take four times as long to trace.

Numbers, and arrays with axes of one cell, broadcast to the shape of an array.
"""

from typing import Any

import jax
import numpy as np
from jax import lax


def like(value: Any, array: Any) -> jax.Array:
    """A number, or an array that broadcasts, in the shape and dtype of an array."""
    _, value = pair(array, value)
    if value.shape == array.shape and isinstance(value, jax.Array):
        return value
    return lax.broadcast_in_dim(value, array.shape, tuple(range(value.ndim)))


def pair(array: jax.Array, value: Any) -> tuple[jax.Array, Any]:
    """An array and a value of its dtype; operations of two broadcast by themselves."""
    if isinstance(value, jax.Array):
        return array, lax.convert_element_type(value, array.dtype)
    value = np.asarray(value, array.dtype)
    return array, value if value.size > 1 else value.reshape(())


def select(mask: jax.Array, one: Any, other: Any) -> jax.Array:
    """`one` where the mask is True, else `other`; one of both is an array or typed."""
    dtype = (one if hasattr(one, "dtype") else other).dtype
    shapes = (getattr(value, "shape", ()) for value in (mask, one, other))
    shape = lax.broadcast_shapes(*shapes)
    whole = jax.ShapeDtypeStruct(shape, dtype)
    mask = like(mask, jax.ShapeDtypeStruct(shape, np.dtype(bool)))
    return lax.select(mask, like(one, whole), like(other, whole))


def plus(array: jax.Array, value: Any) -> jax.Array:
    """The sum of an array and a value, in the dtype of the array."""
    return array if _is_zero(value) else lax.add(*pair(array, value))


def minus(array: jax.Array, value: Any) -> jax.Array:
    """The difference of an array and a value, in the dtype of the array."""
    return array if _is_zero(value) else lax.sub(*pair(array, value))


def equals(array: jax.Array, value: Any) -> jax.Array:
    """Where an array has a value."""
    return lax.eq(*pair(array, value))


def is_nan(array: jax.Array) -> jax.Array:
    """Where an array is NaN; nowhere if it has integers."""
    return lax.ne(array, array)


def widened(array: jax.Array, dtype: np.dtype, on_cpu: bool) -> jax.Array:
    """`array` in a dtype that holds all of its values.

    Of converted float16, LLVM takes the maximum before it converts, which it does not
    vectorise. Here it does not see that the bits it would lose are all 0.
    """
    wide: jax.Array = lax.convert_element_type(array, dtype)
    if array.dtype == np.float16 and dtype == np.float32 and on_cpu:
        bits = lax.bitcast_convert_type(wide, np.int32) & np.int32(-(1 << 13))
        wide = lax.bitcast_convert_type(bits, np.float32)
    return wide


def _is_zero(value: Any) -> bool:
    """Whether a value is one number, known while tracing, and 0."""
    return (
        not isinstance(value, jax.Array) and np.size(value) == 1 and not np.any(value)
    )
