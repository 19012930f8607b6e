"""`max_unpool`: from values and indices back to the input. `convert_indices`.

Indices are checked if they are concrete. Traced indices that are not cells are dropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxpool.aggregations import dtypes
from jaxpool.engines.kernel import bind_linear
from jaxpool.engines.sharding import Sizes
from jaxpool.engines.symbolic import as_number
from jaxpool.functions.arguments import about, as_array, as_given, as_indices, as_sizes
from jaxpool.functions.entry import enter
from jaxpool.geometry.axes import (
    Ints,
    as_ints,
    check_at_least,
    pooled_axes,
    resolve_axes,
)
from jaxpool.geometry.pooled import check_countable
from jaxpool.geometry.sizes import is_symbolic

Convention: TypeAlias = Literal[
    "jaxpool", "torch", "tf", "tf_with_batch", "onnx", "onnx_column_major"
]


def max_unpool(
    values: ArrayLike,
    indices: ArrayLike,
    output_shape: Ints,
    *,
    axes: Ints | None = None,
) -> jax.Array:
    """Write each value to the cell at its index, and 0 to all other cells.

        y[n, indices[n, o, c], c] = values[n, o, c]

    This inverts max pooling, for every pool that returns indices. Padding, strides,
    dilation and `ceil_mode` are not needed: the indices contain them.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        values: Values, shape `[*batch, *out, channels]`; float, int or complex dtype.
        indices: Integers with the shape of `values`, flat and row-major over the axes
            of `output_shape`; -1 means no cell.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`).
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `values`. If several indices
        name one cell, it holds the last of their values in row-major order. Traced
        indices are not checked: a value whose index is not a cell is dropped.

    Raises:
        ValueError: If an argument does not fit `values.shape`, or an index is neither
            -1 nor a cell.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        Linear in `values`: a value gets the cotangent of the cell that holds it, or 0
        if it was dropped or overwritten. Reverse and forward mode work to any order.
        `checkify` with index checks does not support this gradient for several batches
        or channels.

    References:
        `torch.nn.functional.max_unpool2d`, which is not deterministic on a GPU if
        windows overlap. M. Zeiler, R. Fergus, "Visualizing and Understanding
        Convolutional Networks", ECCV 2014, https://arxiv.org/abs/1311.2901

    Example:
        >>> import jax.numpy as jnp, jaxpool
        >>> x = jnp.asarray([3.0, 1.0, 2.0, 4.0])
        >>> values, indices = jaxpool.max_pool_with_indices(x, 2, axes=0)
        >>> print(max_unpool(values, indices, 4, axes=0))
        [3. 0. 0. 4.]
    """
    values = as_array(values, "number", "values")
    if not dtypes.has_zero(values.dtype):
        raise TypeError(
            "values must have a dtype that can represent 0, for the other cells; got "
            f"values.dtype={values.dtype} for values.shape={values.shape}"
        )
    with about(values.shape, "values"):
        wanted = as_ints("output_shape", output_shape)
        found = pooled_axes("output_shape", wanted, axes, values.shape)
        positions, sizes = zip(*sorted(zip(*found, strict=True)), strict=True)
        check_at_least("output_shape", sizes, 1)
        check_countable("output_shape", sizes)
        indices = as_indices(indices, values.shape, math.prod(sizes))
    geometry = Sizes.of_all(values.shape, positions, sizes)
    return enter(_unpooled, (positions, sizes), geometry, values, indices)


def _unpooled(
    static: tuple[tuple[int, ...], tuple[int, ...]],
    values: jax.Array,
    indices: jax.Array,
) -> jax.Array:
    positions, sizes = static
    last = range(-len(positions), 0)
    count = math.prod(values.shape[axis] for axis in positions)
    batch = [n for axis, n in enumerate(values.shape) if axis not in positions]

    def flat(array: jax.Array) -> jax.Array:
        return jnp.moveaxis(array, positions, last).reshape(*batch, count)

    placement = _placement(flat(indices), math.prod(sizes))
    placed = bind_linear(_Placing(math.prod(sizes)), placement, flat(values))
    return jnp.moveaxis(placed.reshape(*batch, *sizes), last, positions)


class _Placement(NamedTuple):
    """The cell of each value, and for each cell 1 + the number of its value.

    A value without a cell points to any cell, which has another value. So no index is
    out of bounds.
    """

    cell: jax.Array
    holds: jax.Array


def _placement(indices: jax.Array, cells: int) -> _Placement:
    """The last value wins a cell, by a maximum, so no order of writes matters."""
    is_cell = (indices >= 0) & (indices < cells)
    numbers = jnp.where(is_cell, _numbers(indices.shape), np.int32(0))

    def claims(cell: jax.Array, numbers: jax.Array) -> jax.Array:
        nothing = jnp.zeros(cells, np.int32)
        return nothing.at[cell].max(numbers, mode="promise_in_bounds")

    for _ in indices.shape[:-1]:
        claims = jax.vmap(claims)
    cell = jnp.clip(indices, 0, cells - 1)
    return _Placement(cell, claims(cell, numbers))


@dataclass(frozen=True)
class _Placing:
    """The kernel that puts values in cells, or `back`: that picks them up."""

    size: int
    back: bool = False

    portable: ClassVar[bool] = False

    @property
    def transpose(self) -> "_Placing":
        return replace(self, back=not self.back)

    def types(self, placement: _Placement, values: Any) -> list[Any]:
        size = placement.cell.shape[-1] if self.back else self.size
        return [values.update(shape=(*values.shape[:-1], size))]

    def run(
        self, platform: str, placement: _Placement, values: jax.Array
    ) -> tuple[jax.Array]:
        if self.back:
            holds, found = (
                _take(array, placement.cell) for array in (placement.holds, values)
            )
            has = holds == _numbers(holds.shape)
        else:
            found, has = (
                _take(values, jnp.maximum(placement.holds - 1, 0)),
                placement.holds > 0,
            )
        return (jnp.where(has, found, jnp.zeros_like(found)),)


def _numbers(shape: Sequence[int]) -> jax.Array:
    """1, 2, 3, ... along the last axis."""
    return lax.broadcasted_iota(np.int32, shape, len(shape) - 1) + 1


def _take(array: jax.Array, places: jax.Array) -> jax.Array:
    """The elements of the last axis at the given positions."""
    return jnp.take_along_axis(array, places, -1, mode="promise_in_bounds")


def convert_indices(
    indices: ArrayLike,
    shape: Sequence[int],
    source: Convention,
    target: Convention,
    *,
    axes: Ints | None = None,
) -> jax.Array:
    """Convert the indices of a pool from one library's convention to another.

        index = sum_a coordinate_a * stride_a,  over the axes a that count

    "jaxpool" and "torch" count over the pooled axes, "tf" over all axes except the
    first, "tf_with_batch" and "onnx" over all axes; each is row-major.
    "onnx_column_major" counts over all axes, with the pooled ones column-major
    (`storage_order=1`).
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        indices: Integers, one per window of the pool; -1 means no cell and stays -1.
        shape: Shape of the input of the pool: for TensorFlow `[batch, *spatial,
            channels]`, for ONNX `[batch, channels, *spatial]` with `axes`.
        source: Convention of `indices`.
        target: Convention of the result.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        int32 indices with the shape of `indices`. A traced index that is not a cell
        becomes -1.

    Raises:
        ValueError: If a convention does not exist, `indices` does not fit `shape`, an
            index is not -1 or a cell, or int32 cannot count the cells.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        None: indices are integers.

    References:
        `torch.nn.MaxPool2d(return_indices=True)`, `tf.nn.max_pool_with_argmax`
        (`include_batch_in_index`), ONNX `MaxPool` (`storage_order`).

    Example:
        >>> import jax.numpy as jnp
        >>> indices = jnp.asarray([[[[5]], [[7]]]])  # [n, h, w, c]
        >>> print(convert_indices(indices, (1, 4, 4, 1), "torch", "onnx_column_major"))
        [[[[ 5]]
        <BLANKLINE>
          [[13]]]]
    """
    sizes = as_sizes(shape)
    with about(sizes):
        for name, convention in (("source", source), ("target", target)):
            if convention not in get_args(Convention):
                raise ValueError(
                    f"{name} must be one of {', '.join(get_args(Convention))}; "
                    f"got {name}={convention!r}"
                )
        pooled = resolve_axes(range(1, len(sizes) - 1) if axes is None else axes, sizes)
        pooled = tuple(sorted(pooled))
        order = _counted(sizes, pooled, source)
        if not set(pooled) <= set(order):
            raise ValueError(
                'source must not be "tf" if the first axis is pooled: "tf" does not '
                f"count that axis; got pooled axes {pooled}"
            )
        check_countable("shape", sizes)
        cells = math.prod(sizes[axis] for axis in order)
        given = as_given("indices", indices)
        others = [axis for axis in range(len(sizes)) if axis not in pooled]
        if given.ndim != len(sizes) or any(
            given.shape[axis] != sizes[axis] for axis in others
        ):
            raise ValueError(
                "indices must have the shape of x except on the pooled axes; "
                f"got indices.shape={given.shape} with pooled axes {pooled}"
            )
        places = as_indices(given, cells=cells)
    old, new = (
        _index_strides(sizes, _counted(sizes, pooled, name))
        for name in (source, target)
    )
    # In this order: an axis of size 1 has the same stride as another axis.
    axes_found = tuple(axis for axis in order if axis in pooled)
    static = _Conversion(old, new, tuple(others), axes_found, cells)
    if any(is_symbolic(size) for size in sizes):
        return _converted(static, places)
    outs = tuple(places.shape[axis] for axis in pooled)
    geometry = Sizes.of_all(places.shape, pooled, outs)
    return enter(_converted, static, geometry, places)


class _Conversion(NamedTuple):
    """The static data of a conversion: the strides of all axes, before and after.

    The pooled axes are in descending order of their strides.
    """

    old: tuple[int, ...]
    new: tuple[int, ...]
    others: tuple[int, ...]
    pooled: tuple[int, ...]
    cells: int


def _converted(static: _Conversion, indices: jax.Array) -> jax.Array:
    _, _, others, pooled, cells = static
    old, new = ([as_number(n) for n in strides] for strides in static[:2])
    rest, converted = indices, jnp.zeros_like(indices)
    for axis in others:
        own = lax.broadcasted_iota(np.int32, indices.shape, axis)
        rest, converted = rest - own * old[axis], converted + own * new[axis]
    for axis in pooled:
        converted += rest // old[axis] * new[axis]
        rest %= old[axis]
    is_cell = (indices >= 0) & (indices < as_number(cells))
    return jnp.where(is_cell, converted, np.int32(-1))


def _counted(
    sizes: Sequence[int], pooled: Sequence[int], convention: Convention
) -> Sequence[int]:
    """The axes that count, in descending order of their strides."""
    every = range(len(sizes))
    return {
        "tf": every[1:],
        "tf_with_batch": every,
        "onnx": every,
        "onnx_column_major": [a for a in every if a not in pooled] + [*pooled][::-1],
    }.get(convention, pooled)


def _index_strides(sizes: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """The step of the index along each axis; 0 for an axis that does not count."""
    strides, cells = [0] * len(sizes), 1
    for axis in reversed(order):
        strides[axis] = cells
        cells *= sizes[axis]
    return tuple(strides)
