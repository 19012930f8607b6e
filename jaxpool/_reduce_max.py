"""The maximum (or minimum) of each window, and the cell that attains it.

The winner is the first NaN of the window, else its first extreme cell in row-major
order, never a padded or masked one; values, positions and gradients agree on it.

The gradient's residual is the winner's position inside its window, in the smallest
unsigned type that holds it, and nothing else. The rules call only raw kernels,
never `extremum` itself, so that they can be differentiated again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import zero_from_primal

from jaxpool import _dtypes, _native
from jaxpool._forward_mode import is_forward_mode
from jaxpool._linear import linear
from jaxpool._lowering import (
    AT_ONCE,
    Implementation,
    Lowerings,
    dispatch,
    dispatch_back,
    is_doubling,
    on_cpu_else,
    xla_reduce_window,
)
from jaxpool._passes import (
    Cell,
    Op,
    Windows,
    dims_of,
    fold,
    of_windows,
    reduce_steps,
    seen,
    select,
    widened,
)
from jaxpool._routes import read, route
from jaxpool._sizes import is_symbolic
from jaxpool._stages import Arrays, Deferred, ready, stage
from jaxpool._steps import (
    PADS_A_LOOP,
    Step,
    forward_steps,
    pads_of,
)
from jaxpool._symbolic import as_number
from jaxpool._window import Window

Kind: TypeAlias = Literal["max", "min"]

POSITION = "jaxpool_position"  # the residual's name, for remat policies


class _Config(NamedTuple):
    """What is static about a call."""

    kind: Kind
    window: Window
    empty: float
    implementation: Implementation | None


def extremum(
    kind: Kind,
    x: jax.Array,
    mask: jax.Array | None,
    window: Window,
    empty: float,
    implementation: Implementation | None,
) -> jax.Array:
    """Extreme value of each window, over the cells that `mask` keeps, if there is one.

    The mask broadcasts to the shape of `x`. Where it keeps no cell of a window, the
    value is `empty`, and there is no winner.
    """
    config = _Config(kind, window, empty, implementation)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return _values(config, x, mask)
    rule = _extremum_both_modes if is_forward_mode() else _extremum
    return rule(config, x, mask)


def indexed_extremum(
    kind: Kind,
    x: jax.Array,
    mask: jax.Array | None,
    window: Window,
    empty: float,
    implementation: Implementation | None,
) -> tuple[jax.Array, jax.Array]:
    """The same, and the flat index of each winner over the pooled axes.

    It is -1 where the mask keeps no cell.
    """
    config = _Config(kind, window, empty, implementation)
    values, position = winners(config, x, mask)
    indices = _index_of(position, window)
    if mask is not None:
        some = position < as_number(window.cells, position.dtype)
        indices = jnp.where(some, indices, np.int32(-1))
    return values, indices


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _extremum(config: _Config, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return _values(config, x, mask)


def _extremum_fwd(
    config: _Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    values, position = winners(config, x, mask)
    return values, checkpoint_name(position, POSITION)


def _extremum_bwd(
    config: _Config, position: jax.Array, g: jax.Array
) -> tuple[jax.Array, None]:
    functions = partial(_route, config), partial(_read, config)
    return linear(*functions, position, g), None


_extremum.defvjp(_extremum_fwd, _extremum_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _extremum_both_modes(
    config: _Config, x: jax.Array, mask: jax.Array | None
) -> jax.Array:
    return _values(config, x, mask)


@_extremum_both_modes.defjvp
def _extremum_jvp(
    config: _Config,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, Any],
) -> tuple[jax.Array, jax.Array]:
    (values, _), (tangent, _) = _winners_jvp(config, primals, tangents)
    return values, tangent


def worst(kind: Kind, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """The value that every other value beats or ties: the identity of the reduction."""
    lowest = kind == "max"
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf if lowest else np.inf, dtype)
    info = jnp.iinfo(dtype)
    return np.asarray(info.min if lowest else info.max, dtype)


def _cells(kind: Kind, dtype: np.dtype, x: jax.Array, *masks: jax.Array) -> Arrays:
    """Cells as they compete, in `dtype`: the worst where masked.

    Also which of them are valid, where a mask says so.
    """
    wide = widened(x, dtype)
    if not masks:
        return (wide,)
    valid = jnp.broadcast_to(masks[0], x.shape)
    return jnp.where(valid, wide, worst(kind, dtype)), valid


def _competing(
    kind: Kind, dtype: np.dtype, steps: Sequence[Step], arrays: Arrays
) -> Deferred:
    """The cells for a reduction in steps."""
    cells = Deferred(partial(_cells, kind, dtype), arrays)
    # XLA:CPU does not vectorise the reading of a mask behind a pad.
    slow = len(arrays) > 1 and steps and pads_of(steps[0].dims)
    return cells.stored() if slow else cells


def _values(config: _Config, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The value of each winner, without its position."""
    kind, window, empty, implementation = config
    extreme = lax.max if kind == "max" else lax.min

    def finished(values: jax.Array, *valid: jax.Array) -> Arrays:
        values = values.astype(x.dtype)
        return (
            (jnp.where(valid[0], values, np.asarray(empty, x.dtype)),)
            if valid
            else (values,)
        )

    def passes(doubling: bool, *arrays: jax.Array) -> jax.Array:
        steps = forward_steps(window, doubling, idempotent=True)
        dtype = _dtypes.ordered(x.dtype)
        cells = _competing(kind, dtype, steps, arrays)
        values = reduce_steps(extreme, cells.pick(0), worst(kind, dtype), steps)
        if len(arrays) > 1:
            valid = reduce_steps(lax.bitwise_or, cells.pick(1), np.False_, steps)
            values = values.beside(valid)
        (result,) = values.then(finished).now()
        return result  # type: ignore[no-any-return]

    def native(extreme: Op, *arrays: jax.Array) -> jax.Array:
        dtype = _dtypes.infinite(x.dtype)
        cells, *valid = _cells(kind, dtype, *arrays)
        fill = worst(kind, dtype)
        values = xla_reduce_window(cells, fill, extreme, window)
        some = (
            xla_reduce_window(ok, np.False_, lax.bitwise_or, window) for ok in valid
        )
        result: jax.Array = finished(values, *some)[0]
        return result

    def select(m: jax.Array, v: jax.Array) -> jax.Array:
        # XLA:CPU hands some float windows to a library that drops NaN; a computation
        # that it does not recognise as a maximum stays with XLA.
        return lax.select(_beats(kind, v, m), v, m)

    def reduce_window(*arrays: jax.Array) -> jax.Array:
        is_float = jnp.issubdtype(x.dtype, jnp.floating)
        safe = partial(native, select if is_float else extreme)
        reduced: jax.Array = on_cpu_else(safe, partial(native, extreme), *arrays)
        return reduced

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    arrays = (x,) if mask is None else (x, mask)
    values: jax.Array = dispatch(lowerings, window, implementation, *arrays)
    return values


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def winners(
    config: _Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The value of each winner, and its position inside the window, row-major.

    Where a mask keeps no cell of a window, the position is beyond the window. The
    derivative, in both modes, reads the tangents at the winners.
    """
    return _winners(config, x, mask)


@winners.defjvp
def _winners_jvp(
    config: _Config,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, Any],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    values, position = winners(config, *primals)
    named = checkpoint_name(position, POSITION)
    tangent = _at_winners(config, named, tangents[0])
    no_tangent = zero_from_primal(position)
    return (values, position), (tangent, no_tangent)


def _at_winners(config: _Config, position: jax.Array, t: jax.Array) -> jax.Array:
    """The tangent at each winner; linear, the transpose of `_route`."""
    functions = partial(_read, config), partial(_route, config)
    return linear(*functions, position, t)


def _read(config: _Config, position: jax.Array, t: jax.Array) -> jax.Array:
    """Read the tangent at each winner."""
    return _along(read, config, position, t)


def _route(config: _Config, position: jax.Array, g: jax.Array) -> jax.Array:
    """Send each cotangent to its winner."""
    window, name = config.window, config.implementation
    in_steps = partial(_along, route, config)

    def at_once(position: jax.Array, g: jax.Array) -> jax.Array:
        routed = _native.route(window, _dtypes.summed(g.dtype), position, g)
        return routed.astype(g.dtype)

    pays = not window.is_symbolic and _native.selects(window) <= AT_ONCE
    routed: jax.Array = dispatch_back(pays, name, in_steps, at_once, position, g)
    return routed


def _along(
    way: Callable[..., Deferred], config: _Config, position: jax.Array, t: jax.Array
) -> jax.Array:
    """From cells to windows, or back."""
    doubling = is_doubling(config.window, config.implementation)
    wide = Deferred(lambda t: (t.astype(_dtypes.summed(t.dtype)),), (t,))
    moved = way(wide, position, config.window, doubling)
    (result,) = moved.then(lambda moved: (moved.astype(t.dtype),)).now()
    return result  # type: ignore[no-any-return]


def _winners(
    config: _Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    kind, window, empty, implementation = config
    dtype = position_dtype(window, mask is not None)

    def finished(values: jax.Array, position: jax.Array, *valid: jax.Array) -> Arrays:
        values = values.astype(x.dtype)
        if valid:
            values = jnp.where(valid[0], values, np.asarray(empty, x.dtype))
            none = np.asarray(np.iinfo(dtype).max, dtype)
            position = jnp.where(valid[0], position, none)
        return values, position

    def passes(doubling: bool, *arrays: jax.Array) -> Arrays:
        # XLA:CPU does not vectorise selects from strided cells of an array's last axis.
        steps = forward_steps(window, doubling, idempotent=True, alone=x.ndim - 1)
        wide, masked = _dtypes.ordered(x.dtype), len(arrays) > 1
        cells = _competing(kind, wide, steps, arrays)
        fill = worst(kind, wide)
        found = _find_winners(kind, window, steps, cells, fill, masked, dtype)
        return found.then(finished).now()

    def reduce_window(*arrays: jax.Array) -> Arrays:
        wide = _dtypes.infinite(x.dtype)
        cells = _cells(kind, wide, *arrays)
        fill, beats = worst(kind, wide), partial(_beats, kind)
        if window.is_symbolic:
            found = _native.symbolic_winners(beats, fill, window, *cells)
            values, position, *some = found
        else:
            found = _native.first_winners(beats, fill, window, *cells)
            values, position, *some = found
            (position,) = _never_padding(window, position)
        return finished(values, position.astype(dtype), *some)

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    arrays = (x,) if mask is None else (x, mask)
    values, position = dispatch(lowerings, window, implementation, *arrays)
    chex.assert_equal_shape([values, position])
    return values, position


def position_dtype(window: Window, masked: bool) -> np.dtype:
    """The smallest unsigned type that holds a position inside the window.

    And, where a mask may keep no cell of it, one more number that is beyond it.
    """
    if is_symbolic(window.cells):
        return np.dtype(np.uint32)
    return np.min_scalar_type(window.cells - 1 + masked)


def _beats(kind: Kind, v: jax.Array, m: jax.Array) -> jax.Array:
    """Whether `v` is more extreme than `m`; NaN beats every number, and no NaN."""
    if not jnp.issubdtype(v.dtype, jnp.floating):
        return v > m if kind == "max" else v < m
    loses = v <= m if kind == "max" else v >= m
    return ~loses & (m == m)


def _find_winners(
    kind: Kind,
    window: Window,
    steps: Sequence[Step],
    cells: Deferred,
    fill: np.ndarray,
    masked: bool,
    dtype: np.dtype,
) -> Deferred:
    """The value and the position of each winner, and whether a mask keeps any cell.

    Step by step the value of each window, then the first run of cells that has it.
    Walking through the cells with value and position together, XLA would compute the
    values twice, once for each of the two.
    """

    def started(values: jax.Array, *valid: jax.Array) -> Arrays:
        return values, None if steps else jnp.zeros(values.shape, dtype), *valid

    def reduced(step: Step, lift: Callable[..., Arrays], *arrays: Any) -> Arrays:
        runs = Deferred(lift, arrays)
        (values,) = _step_values(kind, step, runs, fill).now()
        first = _step_winners(step, values, runs, dtype)
        if step is steps[-1]:
            first = first.then(partial(_never_padding, window))
        valid = _step_valid(step, runs).now() if masked else ()
        return (values, *first.now(), *valid)

    # Each step is one stage, or else XLA would compute the values of all of them before
    # it finds the winners of the first, and hold them all in memory.
    runs = cells.then(started)
    for step in steps:
        runs = ready(*stage(partial(reduced, step, runs.function), *runs.arrays))
    return runs


def _step_values(kind: Kind, step: Step, runs: Deferred, fill: np.ndarray) -> Deferred:
    """The extreme value of each window, from those of its runs."""
    dims = dims_of(step)

    def value(cell: Cell, windows: Windows, values: jax.Array, *_: Any) -> jax.Array:
        return seen(values, dims, cell, windows)

    extreme = lax.max if kind == "max" else lax.min
    return fold(extreme, value, fill, dims, runs)


def _step_winners(
    step: Step, found: jax.Array, runs: Deferred, dtype: np.dtype
) -> Deferred:
    """The position of the first cell, in row-major order, that has the value found."""
    dims = dims_of(step)
    # XLA:CPU vectorises these selects for 32-bit integers, not for smaller ones.
    none = np.int32(min(np.iinfo(dtype).max, np.iinfo(np.int32).max))

    def first(
        cell: Cell,
        windows: Windows,
        found: jax.Array,
        values: jax.Array,
        position: jax.Array | None,
        *valid: jax.Array,
    ) -> jax.Array:
        value = seen(values, dims, cell, windows)
        has = (value == of_windows(found, dims, windows)) | (value != value)
        for ok in valid:
            has = has & seen(ok, dims, cell, windows)
        start = np.int32(step.start(cell))
        if position is None:
            return select(has, start, none)
        inside = seen(position, dims, cell, windows).astype(np.int32)
        return select(has, inside + start, none)

    return fold(
        lax.min, first, none, dims, ready(found).beside(runs), PADS_A_LOOP, dtype
    )


def _step_valid(step: Step, runs: Deferred) -> Deferred:
    """Whether any of the runs has a valid cell."""
    dims = dims_of(step)

    def ok(
        cell: Cell, windows: Windows, values: Any, position: Any, valid: jax.Array
    ) -> jax.Array:
        return seen(valid, dims, cell, windows)

    return fold(lax.bitwise_or, ok, np.False_, dims, runs)


def _never_padding(window: Window, position: jax.Array) -> Arrays:
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
        return (position,)
    return (jnp.maximum(position, first.astype(position.dtype)),)


def _index_of(position: jax.Array, window: Window) -> jax.Array:
    """The index in the input of each winner, from its position inside its window."""
    rest = position.astype(np.int32)
    index, cells = jnp.zeros_like(rest), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        start = lax.broadcasted_iota(np.int32, rest.shape, axis)
        start = start * as_number(dim.stride) - dim.low
        inside = rest % as_number(dim.window)
        index += (start + inside * dim.dilation) * as_number(cells)
        rest //= as_number(dim.window)
        cells *= dim.size
    return index
