"""Arrays whose type says how they are split, and over which devices they vary.

With `AxisType.Explicit` meshes the sharding is part of an array's type. jax then
refuses a slice or a pad of a split axis whose result does not divide, and an operation
on arrays that are split differently, as a mask may be. How the steps of a pool are laid
out is XLA's business. So a pool runs in auto mode over the mesh axes that split its
arrays, and only the type of its result is decided here.

In `jax.shard_map`, the arrays of a pool are made to vary over the same mesh axes.
Anywhere else nothing is done.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jaxpool.engines.faults import split_as
from jaxpool.geometry.pooled import PooledAxes
from jaxpool.geometry.window import Window

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


class Sizes(NamedTuple):
    """Sizes of the result on some axes, as numbers."""

    axes: tuple[int, ...]
    outs: tuple[int, ...]

    @classmethod
    def of_all(
        cls, shape: Sequence[int], axes: Sequence[int], outs: Sequence[int]
    ) -> "Sizes":
        """The size of each axis of the result, pooled or not."""
        sizes = dict(enumerate(shape)) | dict(zip(axes, outs, strict=True))
        return cls(tuple(sizes), tuple(sizes.values()))


# What says the sizes of the result on pooled axes.
Geometry: TypeAlias = PooledAxes | Sizes


def in_auto_mode(
    function: Callable[..., T], geometry: Geometry, x: jax.Array, *others: Any
) -> T:
    """`function(x, *others)`, which pools `x`, sharded as `x` is where that divides."""
    arrays = jax.tree.leaves((x, others))
    # As in most calls; the rest of this function takes 20 us of an eager one.
    if all(jax.typeof(array).sharding.mesh.empty for array in arrays):
        return function(x, *others)
    if any(map(_varying, arrays)):
        x, others = _alike_varying(x, others)
    names = set[str]().union(*map(_splitting, arrays))
    if not names:
        return function(x, *others)
    mesh = next(jax.typeof(a).sharding.mesh for a in arrays if _splitting(a))
    spec = list(_spec(x))
    for axis, out in zip(geometry.axes, geometry.outs, strict=True):
        shards = math.prod(mesh.shape[name] for name in _names(spec[axis]))
        spec[axis] = None if out == 1 or out % shards else spec[axis]
    splits = [axis for axis in geometry.axes if _spec(x)[axis] is not None]
    if isinstance(geometry, Window) and splits and spec != list(_spec(x)):
        function = split_as(function, _spec(x), splits)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    automatic = auto_axes(function, axes=tuple(sorted(names)), out_sharding=sharding)
    return automatic(x, *others)


def _alike_varying(*arrays: Any) -> Any:
    """The arrays, each varying over all manual mesh axes that any of them varies over.

    In `jax.shard_map`, `x` may be the same on all devices where a mask is not.
    """
    names = frozenset[str]().union(*map(_varying, jax.tree.leaves(arrays)))

    def cast(array: jax.Array) -> jax.Array:
        missing = tuple(sorted(names - _varying(array)))
        return lax.pcast(array, missing, to="varying") if missing else array

    return jax.tree.map(cast, arrays)


def _varying(array: jax.Array) -> frozenset[str]:
    """The manual mesh axes that an array varies over."""
    kind: Any = jax.typeof(array)
    return (
        kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma
    )


def _splitting(array: jax.Array) -> set[str]:
    """The mesh axes that split an array."""
    return {name for entry in _spec(array) for name in _names(entry)}


def _spec(array: jax.Array) -> PartitionSpec:
    """What splits each axis, as far as the type says."""
    return jax.typeof(array).sharding.spec


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)
