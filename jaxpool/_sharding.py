"""Explicit sharding along pooled axes, where each cell must know its neighbours.

With `AxisType.Explicit` meshes the sharding is part of an array's type, and jax refuses
slices and pads of a sharded axis whose result does not divide. A pool is made of
those; how its steps are laid out is nobody's business but XLA's. So it runs in auto
mode over the mesh axes that split its pooled axes, and only the type of its result
is decided here. Anywhere else nothing is done.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
from jax.lax import with_sharding_constraint
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jaxpool._window import Window

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


class Geometry(Protocol):
    """What is asked of a `Window`, or of `Bins`: sizes of the result on pooled axes."""

    @property
    def axes(self) -> tuple[int, ...]:
        """The pooled axes."""

    @property
    def outs(self) -> tuple[int, ...]:
        """The size of the result on each of them."""


class Sizes(NamedTuple):
    """The same as numbers."""

    axes: tuple[int, ...]
    outs: tuple[int, ...]

    @classmethod
    def of_all(
        cls, shape: Sequence[int], axes: Sequence[int], outs: Sequence[int]
    ) -> "Sizes":
        """For a pool that any split axis disturbs, not only those it pools."""
        sizes = dict(enumerate(shape)) | dict(zip(axes, outs, strict=True))
        return cls(tuple(sizes), tuple(sizes.values()))


def in_auto_mode(
    function: Callable[..., T], geometry: Geometry, x: jax.Array, *others: Any
) -> T:
    """`function(x, *others)`, which pools `x`, sharded as `x` is where that divides."""
    arrays = [a for a in jax.tree.leaves((x, others)) if a.ndim == x.ndim]
    split = [array for array in arrays if _splitting(array, geometry.axes)]
    if not split:
        return function(x, *others)
    names = set[str]().union(*(_splitting(array, geometry.axes) for array in split))
    mesh = jax.typeof(split[0]).sharding.mesh
    spec = list(_spec(x))
    for axis, out in zip(geometry.axes, geometry.outs, strict=True):
        shards = math.prod(mesh.shape[name] for name in _names(spec[axis]))
        spec[axis] = None if out % shards else spec[axis]
    splits = [axis for axis in geometry.axes if _spec(x)[axis] is not None]
    if isinstance(geometry, Window) and len(splits) > 1 and spec != list(_spec(x)):
        function = partial(_split_as_before, function, _spec(x), splits)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    automatic = auto_axes(function, axes=tuple(sorted(names)), out_sharding=sharding)
    pooled: T = automatic(x, *others)
    return pooled


def _split_as_before(
    function: Callable[..., T], spec: PartitionSpec, splits: Sequence[int], *arrays: Any
) -> T:
    """Let what is pooled be split as the input is, before that changes.

    Of its own windows XLA's partitioner of jax 0.10 else makes programs that do not
    compile, or it ends the process, where several axes are split.
    """
    layout = [PartitionSpec.UNCONSTRAINED] * len(spec)
    for axis in splits:
        layout[axis] = spec[axis]
    split = partial(with_sharding_constraint, shardings=PartitionSpec(*layout))
    pooled: T = jax.tree.map(split, function(*arrays))
    return pooled


def _splitting(array: jax.Array, axes: Iterable[int]) -> set[str]:
    """The mesh axes that split some axes."""
    spec = _spec(array)
    return {name for axis in axes for name in _names(spec[axis])}


def _spec(array: jax.Array) -> PartitionSpec:
    """What splits each axis, as far as the type says."""
    spec: PartitionSpec = jax.typeof(array).sharding.spec
    return spec


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)
