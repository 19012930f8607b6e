"""Explicit sharding along pooled axes, where each cell must know its neighbours.

With `AxisType.Explicit` meshes the sharding is part of an array's type, and jax refuses
slices and pads of a sharded axis whose result does not divide. A pool is made of
those; how its steps are laid out is nobody's business but XLA's. So it runs in auto
mode over the mesh axes that split its pooled axes, and only the type of its result
is decided here. Anywhere else nothing is done.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from jaxpool._window import Window

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


def in_auto_mode(
    function: Callable[..., T],
    window: Window,
    x: jax.Array,
    *others: jax.Array | None,
) -> T:
    """`function(x, *others)`, which pools `x`, sharded as `x` is where that divides."""
    arrays = [a for a in (x, *others) if a is not None and a.ndim == x.ndim]
    split = [array for array in arrays if _splitting(array, window)]
    if not split:
        return function(x, *others)
    names = set[str]().union(*(_splitting(array, window) for array in split))
    mesh = jax.typeof(split[0]).sharding.mesh
    spec = list(_spec(x))
    for axis, dim in zip(window.axes, window.dims, strict=True):
        shards = math.prod(mesh.shape[name] for name in _names(spec[axis]))
        spec[axis] = None if dim.out % shards else spec[axis]
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    pooled: T = auto_axes(function, axes=tuple(sorted(names)), out_sharding=sharding)(
        x, *others
    )
    return pooled


def _splitting(array: jax.Array, window: Window) -> set[str]:
    """The mesh axes that split pooled axes."""
    spec = _spec(array)
    return {name for axis in window.axes for name in _names(spec[axis])}


def _spec(array: jax.Array) -> PartitionSpec:
    """What splits each axis, as far as the type says."""
    spec: PartitionSpec = jax.typeof(array).sharding.spec
    return spec


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a spec."""
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def sharded(pool: Callable[..., T]) -> Callable[..., T]:
    """The pool of `(x, window, mask, *options)`, in auto mode where that is needed."""

    @wraps(pool)
    def anywhere(
        x: jax.Array, window: Window, mask: jax.Array | None, *options: Any
    ) -> T:
        def pooled(x: jax.Array, mask: jax.Array | None) -> T:
            return pool(x, window, mask, *options)

        return in_auto_mode(pooled, window, x, mask)

    return anywhere
