"""Which cell wins: the kernel of maxima and minima, and of the positions of winners.

The winner of a window is its first NaN, else its first extreme cell in row-major order,
never a padded or masked one.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations import dtypes, places
from jaxpool.aggregations.dtypes import FLOAT32
from jaxpool.engines.contract import Op, Place
from jaxpool.engines.elementwise import is_nan, like, plus, select, widened
from jaxpool.engines.faults import compared_in, with_nan
from jaxpool.engines.fold import Step, first_cell, fold, reduce_steps
from jaxpool.engines.loops import Arrays, Boundary, Lifted, stage
from jaxpool.engines.plan import DomainKernel, Needs, Plan
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry import steps
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.steps import pads_of
from jaxpool.geometry.window import Window

Kind: TypeAlias = Literal["max", "min"]


@dataclass(frozen=True)
class Winners(DomainKernel):
    """The kernel of the values of winners, and of their positions in their windows."""

    kind: Kind
    empty: float
    positions: bool = False

    def types(self, x: Any, mask: Any, tables: Any) -> Sequence[Any]:
        values = x.update(shape=self.over.output_shape(x.shape))
        dtype = position_dtype(self.over, mask is not None)
        return [values, values.update(dtype=dtype)] if self.positions else [values]

    def run(self, platform: str, x: jax.Array, mask: Any, tables: Any) -> Arrays:
        kind, over = self.kind, self.over
        needs = Needs(idempotent=True, alone=x.ndim - 1 if self.positions else None)
        chosen = self.plan(platform, x.dtype, needs, tables)
        dtype = position_dtype(over, mask is not None)
        arrays = (x,) if mask is None else (x, mask)
        if chosen.form == "reduce_window" and isinstance(over, Window):
            if self.positions:
                found = _winners_by_windows(kind, over, arrays)
            else:
                found = _by_windows(kind, over, chosen.is_portable, arrays)
        elif self.positions:
            found = _winners_in_steps(kind, chosen, arrays, dtype)
        else:
            found = _in_steps(kind, chosen, arrays, over.axes)
        values, *others = found
        valid = others[self.positions :]
        values = _or(values, x.dtype, self.empty, valid)
        if not self.positions:
            return (values,)
        return values, _or(others[0], dtype, np.iinfo(dtype).max, valid)


def _or(
    array: jax.Array, dtype: np.dtype, empty: float, valid: Sequence[jax.Array]
) -> jax.Array:
    """The array in a dtype, and `empty` where no cell is valid."""
    array = lax.convert_element_type(array, dtype)
    for some in valid:
        array = jnp.where(some, array, np.asarray(empty, dtype))
    return array


def _cells(
    kind: Kind, dtype: np.dtype, on_cpu: bool, x: jax.Array, *masks: Any
) -> Arrays:
    """Cells as they compete, in `dtype`: the worst where masked.

    Also which of them are valid, where a mask says so.
    """
    wide = widened(x, dtype, on_cpu)
    if not masks:
        return (wide,)
    valid = jnp.broadcast_to(masks[0], x.shape)
    return jnp.where(valid, wide, worst(kind, dtype)), valid


def _of_own_size(mask: jax.Array, x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """The mask, with all cells along pooled axes, and its own along others."""
    sizes = enumerate(zip(x.shape, mask.shape, strict=True))
    shape = [n if axis in axes else own for axis, (n, own) in sizes]
    return jnp.broadcast_to(mask, shape)


def _competing(kind: Kind, chosen: Plan, arrays: Arrays) -> Lifted:
    """The cells for a reduction in steps."""
    dtype = dtypes.ordered(arrays[0].dtype)
    cells = Lifted(arrays, partial(_cells, kind, dtype, chosen.on_cpu))
    # XLA:CPU does not vectorise the reading of a mask behind a pad.
    first = chosen.steps[0] if chosen.steps else None
    slow = len(arrays) > 1 and isinstance(first, steps.Step) and pads_of(first.dims)
    return Lifted(cells.now(chosen.boundary)) if slow else cells


def _in_steps(kind: Kind, chosen: Plan, arrays: Arrays, axes: Sequence[int]) -> Arrays:
    """The values, and whether a mask keeps any cell, step by step."""
    dtype = arrays[0].dtype
    cells = _competing(kind, chosen, arrays)
    wide = dtypes.ordered(dtype)
    reduced = partial(reduce_steps, steps=chosen.steps, boundary=chosen.boundary)
    narrow = Lifted((), lambda values: (lax.convert_element_type(values, dtype),))
    values = reduced(_op(kind), cells.pick(0), worst(kind, wide), finish=narrow)
    if len(arrays) == 1:
        return values
    x, mask = arrays
    kept = Lifted((_of_own_size(mask, x, axes),))
    return *values, *reduced(lax.bitwise_or, kept, np.False_)


def _by_windows(kind: Kind, window: Window, portable: bool, arrays: Arrays) -> Arrays:
    """The same by XLA's own windows."""
    x = arrays[0]
    dtype = compared_in(dtypes.infinite(x.dtype), portable)
    cells, *_ = _cells(kind, dtype, False, *arrays)
    fill = worst(kind, dtype)
    values = reduce_windows(cells, fill, _op(kind), window, portable=portable)
    some = [
        reduce_windows(
            _of_own_size(mask, x, window.axes),
            np.False_,
            lax.bitwise_or,
            window,
            portable=portable,
        )
        for mask in arrays[1:]
    ]
    if portable and jnp.issubdtype(x.dtype, jnp.floating):
        has_nan = reduce(operator.and_, arrays[1:], x != x)
        none = worst("max", FLOAT32)
        maxima = partial(
            reduce_windows,
            fills=none,
            computation=lax.max,
            window=window,
            portable=True,
        )
        values = with_nan(values, has_nan, maxima)
    return values, *some


def _winners_by_windows(kind: Kind, window: Window, arrays: Arrays) -> Arrays:
    """The value and the position of each winner, by XLA's own windows."""
    wide = dtypes.infinite(arrays[0].dtype)
    cells = _cells(kind, wide, False, *arrays)
    beats = partial(_beats, kind)
    return places.first_winners(beats, worst(kind, wide), window, *cells)


def position_dtype(over: Domain, masked: bool) -> np.dtype:
    """The smallest unsigned type that holds a position inside the window.

    And, where a mask may keep no cell of it, one more number that is beyond it.
    """
    if is_symbolic(over.cells):
        return np.dtype(np.uint32)
    return np.min_scalar_type(over.cells - 1 + masked)


def worst(kind: Kind, dtype: jax.typing.DTypeLike) -> np.ndarray:
    """The value that every other value beats or ties: the identity of the reduction."""
    lowest = kind == "max"
    if jnp.issubdtype(dtype, jnp.floating):
        return np.asarray(-np.inf if lowest else np.inf, dtype)
    info = jnp.iinfo(dtype)
    return np.asarray(info.min if lowest else info.max, dtype)


def _op(kind: Kind) -> Op:
    return lax.max if kind == "max" else lax.min


def _beats(kind: Kind, v: jax.Array, m: jax.Array) -> jax.Array:
    """Whether `v` is more extreme than `m`; NaN beats every number, and no NaN."""
    if not jnp.issubdtype(v.dtype, jnp.floating):
        return v > m if kind == "max" else v < m
    loses = v <= m if kind == "max" else v >= m
    return ~loses & (m == m)


def _winners_in_steps(
    kind: Kind, chosen: Plan, arrays: Arrays, dtype: np.dtype
) -> Arrays:
    """The value and the position of each winner, and whether a mask keeps any cell.

    Step by step the value of each window, then the first run of cells that has it.
    Walking through the cells with value and position together, XLA would compute the
    values twice, once for each of the two.
    """
    boundary, wide = chosen.boundary, dtypes.ordered(arrays[0].dtype)
    cells, each = _competing(kind, chosen, arrays), chosen.steps
    if not each:
        values, *valid = cells.now(boundary)
        return values, jnp.zeros(values.shape, dtype), *valid
    join = _Join(kind, boundary, len(arrays) > 1, wide, dtype)
    for step in each:
        joined = partial(join, step, cells.lift, step is each[0])
        # Each step before another is one stage, or else XLA would compute the values of
        # all of them before the winners of the first, and hold them all in memory.
        last: Boundary = "none" if step is each[-1] else boundary
        cells = Lifted(stage(last, joined, *cells.arrays))
    values, *valid, position = cells.arrays
    return values, position, *valid


def _with_int32(*run: Any) -> Arrays:
    """A run with its position as int32."""
    *others, position = run
    return *others, lax.convert_element_type(position, np.int32)


@dataclass(frozen=True)
class _Join:
    """How a step joins runs: their values, whether any is valid, and positions.

    Before the first step, cells have no positions. A run of padding alone has none.
    """

    kind: Kind
    boundary: Boundary
    masked: bool
    wide: np.dtype
    dtype: np.dtype

    def __call__(
        self, step: Step, lift: Callable[..., Arrays], first: bool, *arrays: Any
    ) -> Arrays:
        runs = Lifted(arrays, lift)
        joined = partial(fold, step, boundary=self.boundary)
        fill = worst(self.kind, self.wide)
        values = joined(_op(self.kind), first_cell, fill, [runs.pick(0)])
        # XLA:CPU vectorises these selects for 32-bit integers, not for smaller ones.
        none = np.int32(min(np.iinfo(self.dtype).max, np.iinfo(np.int32).max))

        def earliest(cell: Arrays, output: Arrays, place: Place) -> jax.Array:
            value = cell[0]
            has = lax.bitwise_or(lax.eq(value, output[0]), is_nan(value))
            if self.masked:
                has = lax.bitwise_and(has, cell[1])
            if first:
                return select(has, place.start, none)
            position = cell[-1]
            if self.dtype.itemsize == 4:  # else no sum is beyond int32
                # A run of padding alone has the worst value, and no position.
                has = lax.bitwise_and(has, lax.lt(position, like(none, position)))
            return select(has, plus(position, place.start), none)

        position = joined(
            lax.min,
            earliest,
            none,
            [runs if first else runs.then(_with_int32)],
            Lifted(values),
            few_pads=True,
            dtype=self.dtype,
        )
        if not self.masked:
            return *values, *position
        valid = joined(lax.bitwise_or, first_cell, np.False_, [runs.pick(1)])
        return *values, *valid, *position
