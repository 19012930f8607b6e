"""Cells of arrays: to cut out, gather or pad some, to split an axis, to merge two."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines import faults
from jaxpool.geometry.window import Numbers

Scalar: TypeAlias = np.ndarray | np.generic | jax.Array

ZERO = np.zeros(())


def cut(array: jax.Array, places: Mapping[int, tuple[int, int, int]]) -> jax.Array:
    """The cells `(start, length, stride)` of each of some axes."""
    starts, stops = [0] * array.ndim, list(array.shape)
    strides = [1] * array.ndim
    for axis, (start, length, stride) in places.items():
        starts[axis] = start if length else 0
        strides[axis] = faults.stride_of(stride, length)
        stops[axis] = start + (length - 1) * stride + 1 if length else 0
    if not any(starts) and tuple(stops) == array.shape and set(strides) == {1}:
        return array
    return lax.slice(array, starts, stops, strides)


def pad(
    array: jax.Array,
    fill: Scalar,
    around: Mapping[int, tuple[int, int]],
    between: int = 0,
) -> jax.Array:
    """Pad some axes with `fill`; a negative amount crops."""
    config = [(0, 0, 0)] * array.ndim
    for axis, (low, high) in around.items():
        config[axis] = low, high, between
    return faults.pad(array, fill, config)


def with_next(array: jax.Array, axis: int) -> jax.Array:
    """Merge an axis with the one after it."""
    shape = array.shape
    both = shape[axis] * shape[axis + 1]
    return lax.reshape(array, (*shape[:axis], both, *shape[axis + 2 :]))


def split(array: jax.Array, axis: int, length: int) -> jax.Array:
    """Split an axis in two: its parts, and the `length` cells of each."""
    shape = array.shape
    parts = shape[axis] // length
    return lax.reshape(array, (*shape[:axis], parts, length, *shape[axis + 1 :]))


def take(array: jax.Array, axis: int, places: Numbers) -> jax.Array:
    """The cells at some places of an axis.

    The axes before it are a batch, each with the same places: otherwise XLA:CPU moves
    the axis to the front, and copies the result to move it back.
    """
    shape, batch = array.shape, tuple(range(axis))
    each = jnp.asarray(places)[(None,) * axis + (slice(None), None)]
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=tuple(range(axis + 1, array.ndim)),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )
    return lax.gather(
        array,
        jnp.broadcast_to(each, (*shape[:axis], *each.shape[axis:])),
        dimensions,
        [*(1 for _ in range(axis + 1)), *shape[axis + 1 :]],
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def along(axis: int, numbers: Any, rank: int) -> Any:
    """One number for each place of an axis, broadcasting to all of an array."""
    return numbers.reshape([-1 if other == axis else 1 for other in range(rank)])
