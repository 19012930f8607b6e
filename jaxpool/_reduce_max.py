"""The maximum (or minimum) of each window, and the cell that attains it.

The winner is the first NaN of the window, else its first extreme cell in row-major
order, never a padded or masked one; values, positions and gradients agree on it.

The gradient's residual is the winner's position inside its window, in the smallest
unsigned type that holds it, and nothing else. The rules call only raw kernels,
never `extremum` itself, so that they can be differentiated again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from jaxpool import _dtypes
from jaxpool._lowering import (
    Implementation,
    Lowerings,
    dispatch,
    on_cpu_else,
    stage,
    xla_reduce_window,
)
from jaxpool._passes import (
    Arrays,
    Combine,
    Scalar,
    cut,
    fold_cells,
    reduce_axes,
    route_axes,
    seen,
)
from jaxpool._window import AxisWindow, Window

Kind: TypeAlias = Literal["max", "min"]

POSITION = "jaxpool_position"  # the residual's name, for remat policies


class _Config(NamedTuple):
    """What is static about a call."""

    kind: Kind
    window: Window
    implementation: Implementation | None


def extremum(
    kind: Kind,
    x: jax.Array,
    valid: jax.Array | None,
    window: Window,
    implementation: Implementation | None,
) -> jax.Array:
    """Extreme value of each window, over the `valid` cells where that is given."""
    config = _Config(kind, window, implementation)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return _values(config, x, valid)
    return _extremum(config, x, valid)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _extremum(config: _Config, x: jax.Array, valid: jax.Array | None) -> jax.Array:
    return _values(config, x, valid)


def _extremum_fwd(
    config: _Config, x: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    values, position = winners(config, x, valid)
    return values, checkpoint_name(position, POSITION)


def _extremum_bwd(
    config: _Config, position: jax.Array, g: jax.Array
) -> tuple[jax.Array, None]:
    return _route(config.window, position, g), None


_extremum.defvjp(_extremum_fwd, _extremum_bwd)


def worst(kind: Kind, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """The value that every other value beats or ties: the identity of the reduction."""
    lowest = kind == "max"
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf if lowest else np.inf, dtype)
    info = jnp.iinfo(dtype)
    return np.asarray(info.min if lowest else info.max, dtype)


def _only_valid(kind: Kind, x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """`x` with the worst value where it does not take part."""
    return x if valid is None else jnp.where(valid, x, worst(kind, x.dtype))


def _values(config: _Config, x: jax.Array, valid: jax.Array | None) -> jax.Array:
    """The value of each winner, without its position."""
    kind, window, implementation = config
    x = _only_valid(kind, x, valid)
    fill = worst(kind, x.dtype)
    extreme = lax.max if kind == "max" else lax.min

    def combine(earlier: Arrays, later: Arrays, offset: int) -> Arrays:
        return (extreme(earlier[0], later[0]),)

    def passes(doubling: bool, x: jax.Array) -> jax.Array:
        return reduce_axes(combine, (x,), (fill,), window, doubling)[0]

    def native(x: jax.Array) -> jax.Array:
        reduced: jax.Array = xla_reduce_window(x, fill, extreme, window)
        return reduced

    def nan_safe(x: jax.Array) -> jax.Array:
        # XLA:CPU hands some float windows to a library that drops NaN; a computation
        # that it does not recognise as a maximum stays with XLA.
        def select(m: jax.Array, v: jax.Array) -> jax.Array:
            return lax.select(_beats(kind, v, m), v, m)

        reduced: jax.Array = xla_reduce_window(x, fill, select, window)
        return reduced

    def reduce_window(x: jax.Array) -> jax.Array:
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        reduced: jax.Array = on_cpu_else(nan_safe if is_float else native, native, x)
        return reduced

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    values: jax.Array = dispatch(lowerings, window, implementation, x)
    return values


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def winners(
    config: _Config, x: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The value of each winner, and its position inside the window, row-major.

    `valid`, where given, has the shape of `x`. Where a window holds no valid cell,
    the position is that of some cell. The derivative, in both modes, reads the
    tangents at the winners.
    """
    return _winners(config, x, valid)


@winners.defjvp
def _winners_jvp(
    config: _Config,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, Any],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    values, position = winners(config, *primals)
    tangent = _read(config.window, position, tangents[0], values)
    no_tangent = np.zeros(position.shape, jax.dtypes.float0)
    return (values, position), (tangent, no_tangent)


def _route(window: Window, position: jax.Array, g: jax.Array) -> jax.Array:
    """Send each cotangent to its winner."""

    # The selects are computed again from the position whenever this is transposed;
    # else one boolean mask for each cell of a window would be kept.
    @partial(jax.checkpoint, prevent_cse=False)
    def route(position: jax.Array, g: jax.Array) -> jax.Array:
        wide = g.astype(_dtypes.summed(g.dtype))
        return route_axes(wide, position, window).astype(g.dtype)

    routed: jax.Array = route(position, g)
    return routed


def _read(
    window: Window, position: jax.Array, t: jax.Array, like: jax.Array
) -> jax.Array:
    """Read the tangent at each winner: the transpose of `_route`, and linear in `t`."""

    @partial(jax.checkpoint, prevent_cse=False)
    def read(position: jax.Array, t: jax.Array) -> jax.Array:
        (tangent,) = jax.linear_transpose(partial(_route, window, position), like)(t)
        return tangent  # type: ignore[no-any-return]

    tangent: jax.Array = read(position, t)
    return tangent


def _winners(
    config: _Config, x: jax.Array, valid: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    kind, window, implementation = config
    x = _only_valid(kind, x, valid)
    dtype = position_dtype(window)
    fill = worst(kind, x.dtype)
    masks: Arrays = () if valid is None else (valid,)
    mask_fills = tuple(np.False_ for _ in masks)
    chex.assert_equal_shape([x, *masks])

    def passes(doubling: bool, x: jax.Array, *masks: jax.Array) -> Arrays:
        def at_first_cell(x: jax.Array, *masks: jax.Array) -> Arrays:
            return x, jnp.zeros(x.shape, dtype), *masks

        fills = (fill, dtype.type(0), *mask_fills)
        values, position, *_ = reduce_axes(
            _first_winner(kind),
            (x, *masks),
            fills,
            window,
            doubling,
            at_first_cell,
            partial(_winners_by_slices, kind),
        )
        return values, _never_padding(position, window)

    def reduce_window(x: jax.Array, *masks: jax.Array) -> Arrays:
        # XLA combines in an order of its own, so that the earliest of equal cells
        # must be told by their indices in the input.
        values, index, *_ = xla_reduce_window(
            (x, _cell_indices(window, x.shape), *masks),
            (fill, np.int32(np.iinfo(np.int32).max), *mask_fills),
            _earliest_winner(kind),
            window,
        )
        return values, _position_of(index, window).astype(dtype)

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    values, position = dispatch(lowerings, window, implementation, x, *masks)
    return values, position


def position_dtype(window: Window) -> np.dtype:
    """The smallest unsigned type that holds a position inside the window."""
    return np.min_scalar_type(window.cells - 1)


def _beats(kind: Kind, v: jax.Array, m: jax.Array) -> jax.Array:
    """Whether `v` is more extreme than `m`; NaN beats every number, and no NaN."""
    if not jnp.issubdtype(v.dtype, jnp.floating):
        return v > m if kind == "max" else v < m
    loses = v <= m if kind == "max" else v >= m
    return ~loses & (m == m)


def _first_winner(kind: Kind) -> Combine:
    """Combine `(value, position[, valid])` of two runs of cells in row-major order."""

    def combine(earlier: Arrays, later: Arrays, offset: int) -> Arrays:
        (m, p, *ok), (v, q, *also_ok) = earlier, later
        q = q + np.asarray(offset, q.dtype)
        takes = _beats(kind, v, m)
        if ok:
            takes = also_ok[0] & (takes | ~ok[0])
            ok = [ok[0] | also_ok[0]]
        return jnp.where(takes, v, m), jnp.where(takes, q, p), *ok

    return combine


def _winners_by_slices(
    kind: Kind,
    combine: Combine,
    lift: Callable[..., Arrays],
    fills: tuple[Scalar, ...],
    axis: int,
    dim: AxisWindow,
    cells: int,
    arrays: Arrays,
) -> Arrays:
    """The values first, then the first cell that has them.

    Walking through the cells with value and position together, XLA would compute the
    values twice, once for each of the two.
    """
    extreme = lax.max if kind == "max" else lax.min
    dtype = fills[1].dtype
    # XLA:CPU vectorises this select for 32-bit integers, not for smaller ones.
    last = np.int32(min(np.iinfo(dtype).max, np.iinfo(np.int32).max))

    def find_values(*arrays: jax.Array) -> jax.Array:
        cell = partial(seen, lift(*arrays)[0], axis, dim)
        return fold_cells(extreme, cell, fills[0], axis, dim)

    def find_positions(values: jax.Array, *arrays: jax.Array) -> jax.Array:
        lifted = lift(*arrays)

        def candidates(j: int, windows: range) -> jax.Array:
            v, p, *ok = (seen(array, axis, dim, j, windows) for array in lifted)
            wins = (v == cut(values, axis, windows.start, len(windows))) | (v != v)
            wins = wins & ok[0] if ok else wins
            return jnp.where(wins, p.astype(np.int32) + j * cells, last)

        return fold_cells(lax.min, candidates, last, axis, dim).astype(dtype)

    def find_valid(ok: jax.Array) -> jax.Array:
        cell = partial(seen, ok, axis, dim)
        return fold_cells(lax.bitwise_or, cell, np.False_, axis, dim)

    values = stage(find_values, *arrays)
    valid = (stage(find_valid, ok) for ok in lift(*arrays)[2:])
    return values, stage(find_positions, values, *arrays), *valid


def _earliest_winner(kind: Kind) -> Callable[[Arrays, Arrays], Arrays]:
    """Combine `(value, index[, valid])` of cells in any order."""

    def combine(one: Arrays, other: Arrays) -> Arrays:
        (m, i, *ok), (v, j, *other_ok) = one, other
        takes = _beats(kind, v, m) | ~_beats(kind, m, v) & (j < i)
        if ok:
            takes = other_ok[0] & (takes | ~ok[0])
            ok = [ok[0] | other_ok[0]]
        return jnp.where(takes, v, m), jnp.where(takes, j, i), *ok

    return combine


def _never_padding(position: jax.Array, window: Window) -> jax.Array:
    """Move winners off the padding, where nothing in the window beats it.

    Then the first cell won, at position 0, and the first cell of the input is meant;
    no other winner comes before that one.
    """
    first, cells = np.zeros((1,) * position.ndim, np.int64), 1
    for axis, dim in reversed(window.pairs()):
        firsts = np.asarray(dim.first_valid()) * cells
        first = first + np.expand_dims(
            firsts, [a for a in range(position.ndim) if a != axis]
        )
        cells *= dim.window
    if not first.any():
        return position
    return jnp.maximum(position, first.astype(position.dtype))


def _cell_indices(window: Window, shape: tuple[int, ...]) -> jax.Array:
    """The flat row-major index over the pooled axes of each cell of the input."""
    indices, cells = jnp.zeros(shape, np.int32), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        indices += lax.broadcasted_iota(np.int32, shape, axis) * cells
        cells *= dim.size
    return indices


def _position_of(index: jax.Array, window: Window) -> jax.Array:
    """The position inside its window of each winner, from its index in the input."""
    position, cells = jnp.zeros_like(index), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        start = lax.broadcasted_iota(np.int32, index.shape, axis) * dim.stride - dim.low
        position += (index % dim.size - start) // dim.dilation * cells
        index //= dim.size
        cells *= dim.window
    return jnp.clip(position, 0, window.cells - 1)
