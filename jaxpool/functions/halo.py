"""`halo_exchange`: the edge cells of neighbouring shards, for `jax.shard_map`.

One permute for each side of a split axis from which windows read. Cases that need cells
of a shard further away raise an error.
"""

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxpool.engines.cells import pad
from jaxpool.functions.arguments import about, as_array
from jaxpool.geometry.axes import Ints, as_ints, pooled_axes
from jaxpool.geometry.resolve import Padding, resolve
from jaxpool.geometry.window import AxisWindow

MeshAxis: TypeAlias = str | tuple[str, ...]  # one mesh axis, or several


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
    """Add to a shard the cells of its neighbours that its windows read.

        padded[i] = x_global[start + i - low],  start: the first cell of the shard

    Call it inside `jax.shard_map`. Then pool `padded` with padding "VALID"; the result
    is the shard of the pooled global array:

    - `max_pool`, `min_pool`, `avg_pool`, and all that are not below: pass
      `where=inside`;
    - `sum_pool`, `lp_pool`, `avg_pool(..., count_include_pad=True)`: pass no mask;
    - `pool`: pool `jnp.where(inside, padded, init)`;
    - with a mask of your own: exchange it too, with the rank of `x`. Pass it as
      `where`, or `where=mask | ~inside` with `count_include_pad=True`.

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Shard of this device, shape `[*batch, *spatial, channels]`; any dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        axis_names: For each pooled axis, the mesh axis that splits it (a tuple if
            several do), or `None`. For one pooled axis, the name alone.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        `(padded, inside)`. `padded` is `x` with the cells of its neighbours, and zeros
        for padding; axes that are not split are padded too. `inside` is a boolean mask
        that broadcasts to it, False at the padding. It is `None` if no cells were
        added.

    Raises:
        ValueError: If the pool of the global array raises it; if `strides` does not
            divide a shard; if shards get different numbers of windows; if a window
            reaches beyond the next shard; if a mesh axis does not exist.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        Linear: the cotangent of a neighbour's cell is sent back and added there.
        Reverse and forward mode work to any order.

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
        around, first = (dim.low, dim.behind), jnp.int32(0)
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
    """The mesh axis of each pooled axis that is split."""
    if not isinstance(axis_names, (str, tuple, list)):
        raise TypeError(
            "axis_names must be a name, or a sequence with one entry per pooled axis; "
            f"got axis_names={axis_names!r}"
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
    """The number of shards along a mesh axis."""
    try:
        return 1 if name is None else lax.axis_size(name)
    except NameError:
        raise ValueError(
            "axis_names must name axes of the mesh of the enclosing jax.shard_map; "
            f"got {name!r}"
        ) from None


def _check_shard(axis: int, size: int, dim: AxisWindow) -> None:
    """Raise for what an exchange between neighbours cannot provide."""
    if size % dim.stride:
        raise ValueError(
            f"strides must divide the size of a shard, {size} on axis {axis}; "
            f"got strides={dim.stride}"
        )
    if dim.out * dim.stride != dim.size:
        raise ValueError(
            "padding must give size / strides windows, the same number per shard, as "
            f'"SAME" does; got {dim.out} windows for {dim.size} cells with '
            f"strides={dim.stride} on axis {axis}"
        )
    halo = max(dim.low, dim.behind)
    if halo > size:
        raise ValueError(
            f"window must not reach beyond the next shard: it reads {halo} cells, "
            f"and a shard has {size}; got window={dim.window} with "
            f"dilation={dim.dilation} on axis {axis}"
        )


def _with_neighbours(
    x: jax.Array, axis: int, around: tuple[int, int], name: MeshAxis
) -> jax.Array:
    """The shard with the last cells of the previous and the first of the next."""
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
