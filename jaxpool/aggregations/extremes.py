"""The extreme value of each window, and the first cell that attains it.

The winner of a window is its first NaN, else its first extreme cell in row-major order,
never a padded or masked one. Nothing here has a derivative: `_reduce_max` adds it.
"""

import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, Literal, NamedTuple, TypeAlias

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.dtypes import FLOAT32
from jaxpool.engines import places
from jaxpool.engines.lowering import (
    NATIVE,
    Implementation,
    Lowerings,
    dispatch,
    on_platform,
    portable,
    xla_reduce_window,
)
from jaxpool.engines.numbers import Numbers, numbers
from jaxpool.engines.slices import (
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
from jaxpool.engines.stages import Arrays, Deferred, ready, stage
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.steps import (
    PADS_A_LOOP,
    Step,
    forward_steps,
    pads_of,
)
from jaxpool.geometry.window import Window

Kind: TypeAlias = Literal["max", "min"]


class Config(NamedTuple):
    """What is static about a call."""

    kind: Kind
    window: Window
    empty: float
    implementation: Implementation | None


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


@portable
def extreme_values(config: Config, x: jax.Array, mask: jax.Array | None) -> jax.Array:
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
        dtype = dtypes.ordered(x.dtype)
        cells = _competing(kind, dtype, steps, arrays)
        values = reduce_steps(extreme, cells.pick(0), worst(kind, dtype), steps)
        if len(arrays) > 1:
            valid = reduce_steps(lax.bitwise_or, cells.pick(1), np.False_, steps)
            values = values.beside(valid)
        (result,) = values.then(finished).now()
        return result  # type: ignore[no-any-return]

    def native(extreme: Op, *arrays: jax.Array) -> jax.Array:
        dtype = dtypes.infinite(x.dtype)
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
        plain = partial(native, extreme)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return plain(*arrays)
        ways: dict[str, Op] = dict.fromkeys(NATIVE, plain)
        ways |= {"cpu": partial(native, select), "any": repaired}
        reduced: jax.Array = on_platform(ways, *arrays)
        return reduced

    def repaired(*arrays: jax.Array) -> jax.Array:
        # The same for every platform: whether a window has a NaN is a maximum too.
        values, is_nan = native(extreme, *arrays), arrays[0] != arrays[0]
        is_nan = is_nan & arrays[1] if len(arrays) > 1 else is_nan
        none, count = worst("max", FLOAT32), is_nan.astype(FLOAT32)
        some = xla_reduce_window(count, none, lax.max, window) > 0
        return jnp.where(some, np.asarray(np.nan, x.dtype), values)

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    arrays = (x,) if mask is None else (x, mask)
    values: jax.Array = dispatch(lowerings, window, implementation, *arrays)
    return values


@portable
def find_winners(
    config: Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    kind, window, empty, implementation = config
    if not window.is_countable:
        raise ValueError(
            "x must have at most 2**31 - 1 cells on one axis where a gradient is asked "
            f"for; got x.shape={x.shape}"
        )
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
        wide, masked = dtypes.ordered(x.dtype), len(arrays) > 1
        cells = _competing(kind, wide, steps, arrays)
        fill = worst(kind, wide)
        found = _winners_in_steps(kind, window, steps, cells, fill, masked, dtype)
        return found.then(finished).now()

    def reduce_window(*arrays: jax.Array) -> Arrays:
        wide = dtypes.infinite(x.dtype)
        cells = _cells(kind, wide, *arrays)
        compete = partial(_beats, kind), worst(kind, wide)
        if len(arrays) == 1 and places.packs(window, cells[0]):
            first = partial(places.packed_winners, kind == "max", dtype)
        elif places.has_places(window):
            first = partial(places.first_winners, *compete)
        else:
            first = partial(places.indexed_winners, *compete)
        values, position, *some = first(window, *cells)
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


def _winners_in_steps(
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
    firsts, cells = list[Numbers](), 1
    for axis, dim in reversed(window.pairs()):
        if dim.low:  # else 0 is one
            first = dim.first_valid(numbers(dim.out)) * cells
            shape = [-1 if a == axis else 1 for a in range(position.ndim)]
            firsts.append(first.astype(position.dtype).reshape(shape))
        cells *= dim.window
    if not firsts:
        return (position,)
    return (jnp.maximum(position, reduce(operator.add, firsts)),)
