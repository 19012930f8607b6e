"""Pooling over segments of one axis: packed sequences, graphs, tokens with positions.

Named functions for what `aggregate` does over `segments`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxpool.functions.aggregate import Name, aggregate
from jaxpool.functions.arguments import about, as_array, as_given, as_links
from jaxpool.functions.by import By
from jaxpool.functions.over import Linked, segments
from jaxpool.geometry.axes import Ints, check_at_least, check_at_most, per_axis
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Segments, linked_axis
from jaxpool.geometry.pooled import MOST


def segment_max_pool(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: int,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Maximum of the cells of each segment of one axis.

        y[s, c] = max over i with segment_ids[i] = s of x[i, c]

    Shared rules (segments, masks, dtypes, ties): "Segments" in docs/conventions.md.

    Args:
        x: Input of any shape; float or int dtype.
        segment_ids: Segment of each cell, an int array of shape `[size of axis]`, or
            the shape of `x` up to `axis`. Negative ids are ignored.
        num_segments: Number of segments, an int.
        axis: Pooled axis, an int.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        indices_are_sorted: Whether ids do not decrease, which saves a sort on a GPU.

    Returns:
        Shape of `x` with `num_segments` in place of the axis, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a concrete id is too
            large.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a segment goes to one cell: the first NaN, else the first
        maximum along the axis. Integers have no gradient. Both modes work, to any
        order.

    References:
        `jax.ops.segment_max`, whose gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> x, ids = jnp.asarray([5, 1, 2, 4]), jnp.asarray([1, 0, 1, -1])
        >>> segment_max_pool(x, ids, 2)
        Array([1, 5], dtype=int32)
    """
    over = segments(
        segment_ids, num_segments, axis=axis, indices_are_sorted=indices_are_sorted
    )
    return aggregate(x, "max", over, where=where, empty_value=empty_value)


def segment_min_pool(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: int,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Minimum of the cells of each segment of one axis.

        y[s, c] = min over i with segment_ids[i] = s of x[i, c]

    Shared rules (segments, masks, dtypes, ties): "Segments" in docs/conventions.md.

    Args:
        x: Input of any shape; float or int dtype.
        segment_ids: Segment of each cell, an int array of shape `[size of axis]`, or
            the shape of `x` up to `axis`. Negative ids are ignored.
        num_segments: Number of segments, an int.
        axis: Pooled axis, an int.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        indices_are_sorted: Whether ids do not decrease, which saves a sort on a GPU.

    Returns:
        Shape of `x` with `num_segments` in place of the axis, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a concrete id is too
            large.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a segment goes to one cell: the first NaN, else the first
        minimum along the axis. Integers have no gradient. Both modes work, to any
        order.

    References:
        `jax.ops.segment_min`, whose gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> x, ids = jnp.asarray([5, 1, 2, 4]), jnp.asarray([1, 0, 1, -1])
        >>> segment_min_pool(x, ids, 2)
        Array([1, 2], dtype=int32)
    """
    over = segments(
        segment_ids, num_segments, axis=axis, indices_are_sorted=indices_are_sorted
    )
    return aggregate(x, "min", over, where=where, empty_value=empty_value)


def segment_sum_pool(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: int,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Sum of the cells of each segment of one axis.

        y[s, c] = sum over i with segment_ids[i] = s of x[i, c]

    Shared rules (segments, masks, dtypes, ties): "Segments" in docs/conventions.md.

    Args:
        x: Input of any shape; float, int or complex dtype.
        segment_ids: Segment of each cell, an int array of shape `[size of axis]`, or
            the shape of `x` up to `axis`. Negative ids are ignored.
        num_segments: Number of segments, an int.
        axis: Pooled axis, an int.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        indices_are_sorted: Whether ids do not decrease, which saves a sort on a GPU.

    Returns:
        Shape of `x` with `num_segments` in place of the axis, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a concrete id is too
            large.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        A cell gets the cotangent of its segment. Integers have no gradient. Reverse and
        forward mode work to any order.

    References:
        `jax.ops.segment_sum`, which adds up bfloat16 in bfloat16.

    Example:
        >>> import jax.numpy as jnp
        >>> x, ids = jnp.asarray([5, 1, 2, 4]), jnp.asarray([1, 0, 1, -1])
        >>> segment_sum_pool(x, ids, 2)
        Array([1, 7], dtype=int32)
    """
    over = segments(
        segment_ids, num_segments, axis=axis, indices_are_sorted=indices_are_sorted
    )
    return aggregate(x, "sum", over, where=where, empty_value=empty_value)


def segment_avg_pool(
    x: ArrayLike,
    segment_ids: ArrayLike,
    num_segments: int,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    indices_are_sorted: bool = False,
) -> jax.Array:
    """Average of the cells of each segment of one axis.

        y[s, c] = mean over i with segment_ids[i] = s of x[i, c]

    Shared rules (segments, masks, dtypes, ties): "Segments" in docs/conventions.md.

    Args:
        x: Input of any shape; float, int or complex dtype.
        segment_ids: Segment of each cell, an int array of shape `[size of axis]`, or
            the shape of `x` up to `axis`. Negative ids are ignored.
        num_segments: Number of segments, an int.
        axis: Pooled axis, an int.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        indices_are_sorted: Whether ids do not decrease, which saves a sort on a GPU.

    Returns:
        Shape of `x` with `num_segments` in place of the axis, dtype of `x` (float32 for
        integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a concrete id is too
            large.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        A cell gets the cotangent of its segment, divided by the number of cells.
        Integers have no gradient. Reverse and forward mode work to any order.

    References:
        PyTorch Geometric `global_mean_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, ids = jnp.asarray([5, 1, 2, 4]), jnp.asarray([1, 0, 1, -1])
        >>> segment_avg_pool(x, ids, 2)
        Array([1. , 3.5], dtype=float32)
    """
    over = segments(
        segment_ids, num_segments, axis=axis, indices_are_sorted=indices_are_sorted
    )
    return aggregate(x, "avg", over, where=where, empty_value=empty_value)


def pool_by_positions(
    x: ArrayLike,
    positions: ArrayLike,
    window: Ints,
    output_shape: Ints,
    *,
    by: Name | By = "avg",
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Aggregate tokens in tiles of a grid, by the position of each token.

        y[n, r, k, c] = by(x[n, t, c] for t with positions[n, t] // window = (r, k))

    Shared rules (segments, masks, dtypes, ties): "Segments" in docs/conventions.md.

    Args:
        x: Tokens in any order, shape `[*batch, tokens, channels]`.
        positions: Position of each token, ints of shape `[*batch, tokens, axes]`, or
            the same for all: `[tokens, axes]`. Negative ones are ignored.
        window: Size of a tile, an int or one per axis of `positions`.
        output_shape: Number of tiles, an int or one per axis. Tokens beyond the tiles
            are ignored.
        by: Aggregation: a name or an object, as `aggregate` takes it.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape `[*batch, *output_shape, channels]`; dtype as of `aggregate`.

    Raises:
        ValueError: If an argument does not fit `x.shape`.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        That of the aggregation. Backward has no scatter: each token reads its tile.

    References:
        The pooler of SigLIP and Gemma vision encoders, a product with one-hot tiles.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[1.0], [3.0], [5.0]])  # three tokens, one channel
        >>> positions = jnp.asarray([[0, 0], [1, 1], [0, 2]])  # row and column
        >>> print(pool_by_positions(x, positions, 2, (1, 2))[..., 0])
        [[2. 5.]]
    """
    if isinstance(by, tuple):
        raise TypeError(f"by must be one aggregation, not a tuple; got by={by!r:.80}")
    tokens = as_array(x, "any")
    with about(tokens.shape):
        given = jnp.shape(as_given("positions", positions))
        if tokens.ndim < 2 or (len(given) > 1 and given[-2] != tokens.shape[-2]):
            raise ValueError(
                "positions must have the positions of each token on its last axis; "
                f"got positions.shape={given}"
            )
        rank = given[-1] if given else 0
        sides = per_axis("window", window, rank)
        outs = per_axis("output_shape", output_shape, rank)
        check_at_least("window", sides, 1)
        check_at_most("window", sides, MOST)
        check_at_least("output_shape", outs, 1)
    over = _Tiles(positions, sides, outs, tokens.ndim - 2)
    pooled = aggregate(tokens, by, over, where=where, empty_value=empty_value)
    return pooled.reshape(*tokens.shape[:-2], *outs, tokens.shape[-1])


@dataclass(frozen=True, repr=False, eq=False)
class _Tiles(Linked):
    """Segments by the positions of tokens."""

    arrays: ClassVar[tuple[str, ...]] = ("positions",)
    positions: ArrayLike
    window: tuple[int, ...]
    output_shape: tuple[int, ...]
    axis: int

    def resolve(self, shape: Sequence[int]) -> Domain:
        name, count = "output_shape", math.prod(self.output_shape)
        return Segments(*linked_axis(shape, self.axis, count, name))

    def links(self, size: int) -> jax.Array:
        places = as_links("positions", self.positions, 2)
        return _tiles((self.window, self.output_shape), places)


@partial(jax.jit, static_argnums=0)
def _tiles(geometry: tuple[tuple[int, ...], ...], positions: jax.Array) -> jax.Array:
    """The number of the tile of each token, -1 outside of the grid."""
    ids = jnp.zeros(positions.shape[:-1], np.int32)
    is_inside = ids == 0
    for axis, (side, out) in enumerate(zip(*geometry, strict=True)):
        tile = positions[..., axis] // np.int32(side)
        is_inside = is_inside & (tile >= 0) & (tile < np.int32(out))
        ids = ids * np.int32(out) + tile
    return jnp.where(is_inside, ids, np.int32(-1))
