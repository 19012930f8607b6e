"""Elementwise operations of `lax`; those of `jnp` take four times as long to trace.

Numbers, and arrays with axes of one cell, broadcast to the shape of an array.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxpool.geometry.sizes import is_symbolic


def like(value: Any, array: Any) -> jax.Array:
    """A number, or an array that broadcasts, in the shape and dtype of an array."""
    if not isinstance(value, jax.Array):
        value = np.asarray(value, array.dtype)
    elif value.dtype != array.dtype:
        value = lax.convert_element_type(value, array.dtype)
    if isinstance(value, jax.Array) and value.shape == array.shape:
        return value
    return lax.broadcast_in_dim(value, array.shape, tuple(range(value.ndim)))


def pair(array: jax.Array, value: Any) -> tuple[jax.Array, jax.Array]:
    """An array and a value, both in their common shape and the dtype of the array."""
    shape = _common(array, value)
    whole = jax.ShapeDtypeStruct(shape, array.dtype)
    return like(array, whole), like(value, whole)


def select(mask: jax.Array, one: Any, other: Any) -> jax.Array:
    """`one` where the mask is True, else `other`; one of both is an array or typed."""
    dtype = (one if hasattr(one, "dtype") else other).dtype
    shape = _common(mask, one, other)
    whole = jax.ShapeDtypeStruct(shape, dtype)
    mask = like(mask, jax.ShapeDtypeStruct(shape, np.dtype(bool)))
    return lax.select(mask, like(one, whole), like(other, whole))


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


def _common(*values: Any) -> tuple[int, ...]:
    """The shape to which all broadcast."""
    shapes = {value.shape for value in values if getattr(value, "shape", ())}
    if len(shapes) == 1:
        return shapes.pop()  # type: ignore[no-any-return]
    return tuple(map(_longest, zip(*shapes, strict=True)))


def _longest(sizes: Iterable[int]) -> int:
    """The size of an axis to which others of one cell broadcast; it may be 0."""
    return next((n for n in sizes if is_symbolic(n) or n != 1), 1)
