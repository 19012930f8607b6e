"""The edges of neighbouring shards, for pools inside `jax.shard_map`."""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxpool.engines.slices import pad
from jaxpool.functions.arguments import about, as_array
from jaxpool.geometry.axes import Ints, as_ints, pooled_axes
from jaxpool.geometry.window import AxisWindow, Padding, resolve

MeshAxis: TypeAlias = str | tuple[str, ...]  # one that splits an axis, or several


def halo_exchange(
    x: ArrayLike,
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    axis_names: str | Sequence[MeshAxis | None],
    dilation: Ints = 1,
    axes: Ints | None = None,
) -> tuple[jax.Array, jax.Array | None]:
    """A shard with the cells around it that the windows of its part of a pool read.

        padded[i] = x_global[start + i - low],  start: where the shard begins

    To be called in `jax.shard_map`. Pooling what it returns with padding "VALID" gives
    the shard's part of the pooled global array:

    - `max_pool`, `min_pool`, `avg_pool`: `where=inside`;
    - `sum_pool`, `lp_pool`, `avg_pool(..., count_include_pad=True)`: no mask;
    - `pool`: of `jnp.where(inside, padded, init)`;
    - with a mask of the cells, of the rank of `x`, which needs an exchange too: it, for
      `where`, and `mask | ~inside` for `count_include_pad=True`.

    Args:
        x: This device's shard, `[*batch, *spatial, channels]`, or any shape if `axes`
            is given; of any dtype, booleans included.
        window: Cells of the window that will be pooled, as every pool takes them.
        strides: Cells from one window to the next; `None` means the window itself.
        padding: Padding of the global array, by a name or by numbers.
        axis_names: For each pooled axis, in the order of `axes`, the axis of the mesh
            that splits it (a tuple, if several do), or `None`. A single pooled axis
            needs no sequence.
        dilation: Distance between the cells of a window.
        axes: The pooled axes. `None`: the `len(window)` axes before the last one.

    Returns:
        `(padded, inside)`. `padded` is `x` with the cells of its neighbours, and with
        zeros where the padding is, also along axes that are not split. `inside` is a
        boolean array that broadcasts to it, and False at the padding; or `None`, if no
        cells were added.

    Raises:
        ValueError: As the pool of the global array would; if `strides` does not divide
            a shard; if the padding does not give as many windows to each shard; if a
            window reaches beyond the next shard; or if a mesh axis is not there.
        TypeError: If `x` is not an array, if `axis_names` does not hold names, or if a
            static argument is traced.

    Gradient:
        Linear, in both modes, to any order: the cotangents of cells that came from a
        neighbour go back to it, and are added there.

    References:
        `lax.ppermute`, one for each side of a split axis from which windows read. N.
        Dryden et al., "Improving Strong-Scaling of CNN Training by Exploiting
        Finer-Grained Parallelism", IPDPS 2019, https://arxiv.org/abs/1903.06681

    Example:
        >>> from jax.sharding import PartitionSpec as P
        >>> from jaxpool import max_pool
        >>> mesh = jax.make_mesh((1,), ("h",), axis_types=(jax.sharding.AxisType.Auto,))
        >>> def pooled(x):
        ...     x, inside = halo_exchange(x, 3, 1, "SAME", axes=0, axis_names="h")
        ...     return max_pool(x, 3, 1, axes=0, where=inside)
        >>> split = jax.shard_map(pooled, mesh=mesh, in_specs=P("h"), out_specs=P("h"))
        >>> print(split(jnp.asarray([3.0, 1.0, 2.0, 5.0])))
        [3. 3. 5. 5.]
    """
    x = as_array(x, kinds="any")
    with about(x.shape):
        names = _by_axis(axis_names, _positions(x.ndim, window, axes))
        whole = [n * _shards(names.get(axis)) for axis, n in enumerate(x.shape)]
        resolved = resolve(whole, window, strides, padding, dilation, axes, False)
        dims = dict(zip(resolved.axes, resolved.dims, strict=True))
        split = [axis for axis, dim in dims.items() if dim.size > x.shape[axis]]
        for axis in split:
            _check_shard(axis, x.shape[axis], dims[axis])
    padded, inside = x, None
    for axis, dim in dims.items():
        around, first = _around(dim), jnp.int32(0)
        if axis in split:
            padded = _with_neighbours(padded, axis, around, names[axis])
            first = lax.axis_index(names[axis]) * x.shape[axis]
        else:
            padded = pad(padded, np.zeros((), x.dtype), {axis: around})
        if any(around):
            cells = jnp.arange(padded.shape[axis], dtype=np.int32) + (first - dim.low)
            is_cell = jnp.expand_dims(
                (cells >= 0) & (cells < dim.size),
                [a for a in range(x.ndim) if a != axis],
            )
            inside = is_cell if inside is None else inside & is_cell
    return padded, inside


def _positions(rank: int, window: Ints, axes: Ints | None) -> tuple[int, ...]:
    """The pooled axes, in the order of the arguments."""
    return pooled_axes("window", as_ints("window", window), axes, range(rank))[0]


def _by_axis(
    axis_names: str | Sequence[MeshAxis | None], positions: tuple[int, ...]
) -> dict[int, MeshAxis]:
    """What splits each pooled axis that is split."""
    if not isinstance(axis_names, (str, tuple, list)):
        raise TypeError(
            "axis_names must be a name, or a sequence with one entry for each pooled "
            f"axis; got axis_names={axis_names!r}"
        )
    names = (axis_names,) if isinstance(axis_names, str) else axis_names
    if len(names) != len(positions):
        raise ValueError(
            f"axis_names must have one entry for each of the {len(positions)} pooled "
            f"axes, None where an axis is not split; got axis_names={axis_names!r}"
        )
    each = zip(positions, names, strict=True)
    return {axis: name for axis, name in each if name is not None}


def _shards(name: MeshAxis | None) -> int:
    """How many shards there are along mesh axes."""
    try:
        return 1 if name is None else lax.axis_size(name)
    except NameError:
        raise ValueError(
            "axis_names must name axes of the mesh of the jax.shard_map around this "
            f"call; got {name!r}"
        ) from None


def _around(dim: AxisWindow) -> tuple[int, int]:
    """The cells before a shard, and after it, that its windows read."""
    return dim.low, max(0, dim.span - dim.low - dim.size)


def _check_shard(axis: int, size: int, dim: AxisWindow) -> None:
    """Refuse what no exchange between neighbours can provide."""
    if size % dim.stride:
        raise ValueError(
            f"strides must divide the cells of a shard, {size} on axis {axis}; "
            f"got strides={dim.stride}"
        )
    if dim.out * dim.stride != dim.size:
        raise ValueError(
            "padding must give size / strides windows, as many to each shard, as "
            f'"SAME" does; got {dim.out} windows for {dim.size} cells with '
            f"strides={dim.stride} on axis {axis}"
        )
    halo = max(_around(dim))
    if halo > size:
        raise ValueError(
            f"window must not reach beyond the next shard, {halo} cells away where a "
            f"shard has {size}; got window={dim.window} with "
            f"dilation={dim.dilation} on axis {axis}"
        )


def _with_neighbours(
    x: jax.Array, axis: int, around: tuple[int, int], name: MeshAxis
) -> jax.Array:
    """With the last cells of the shard before and the first of the one after."""
    low, high = around
    size, shards = x.shape[axis], lax.axis_size(name)
    up = [(i, i + 1) for i in range(shards - 1)]
    down = [(i + 1, i) for i in range(shards - 1)]
    parts = [x]
    if low:
        last = lax.slice_in_dim(x, size - low, size, axis=axis)
        parts.insert(0, lax.ppermute(last, name, up))
    if high:
        first = lax.slice_in_dim(x, 0, high, axis=axis)
        parts.append(lax.ppermute(first, name, down))
    return lax.concatenate(parts, axis) if len(parts) > 1 else x
