"""The sum of each window, divided or not, and how many cells it holds.

The sum is linear: it is its own derivative, to any order. The share of a cell is 1, or
1 over the divisor of its window.
"""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.dtypes import INT32
from jaxpool.aggregations.shares import Aggregation, Shares
from jaxpool.engines import gathers, links, symbolic
from jaxpool.engines.cells import along
from jaxpool.engines.contract import Place
from jaxpool.engines.faults import divide, zero_where_empty
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import NOTHING, Arrays, Lifted
from jaxpool.engines.numbers import LONG, is_known, numbers
from jaxpool.engines.plan import Needs
from jaxpool.engines.xla import add_windows_back, reduce_windows
from jaxpool.geometry.bins import Bins
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Links, Segments
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import AxisWindow, Window


def window_sum(
    call: Call, accumulator: np.dtype, result: np.dtype, divisors: Arrays = ()
) -> jax.Array:
    """Sum of each output, divided by the product of `divisors`, which broadcast.

    It is added up in the dtype `accumulator`, and returned in the dtype `result`.
    Padded cells count as 0, as do those that are not in the mask.
    """
    by, x = Sum(accumulator), call.x
    over, implementation = call.over.clipped(), call.implementation
    kernel = Shares(over, by, x.dtype, result, implementation=implementation)
    operands = (call.mask, divisors), call.tables, x
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return bind_linear(kernel, *operands)
    (sums,) = bind(kernel, *operands)
    return sums


@dataclass(frozen=True)
class Sum(Aggregation):
    """Sums, and quotients of them by what does not depend on the cells."""

    @property
    def needs(self) -> Needs:
        return Needs(back="copies")

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        return t

    def at_cells(self, residual: Arrays) -> Lifted:
        mask, _ = residual
        if mask is None:
            return NOTHING
        return Lifted((mask,), lambda t, mask: (kept(t, mask),))

    def at_outputs(self, residual: Arrays, back: bool) -> Lifted:
        _, divisors = residual

        def divided(t: jax.Array, *divisors: Any) -> Arrays:
            if not divisors:
                return (t,)
            t, number = t.astype(divisors[0].dtype), reduce(jnp.multiply, divisors)
            return (t / number if back else divide(t, number),)

        return Lifted(tuple(divisors), divided)

    def by_windows(
        self, window: Window, t: jax.Array, back: bool, portable: bool
    ) -> Any:
        if back:
            return add_windows_back(window, t)
        sums = reduce_windows(
            t, np.zeros((), t.dtype), lax.add, window, portable=portable
        )
        if portable and any(dim.may_miss for dim in window.dims):
            cells = math.prod(counts(window, (), t.ndim, False))
            sums = zero_where_empty(sums, cells)
        return sums

    def without_steps(
        self, window: Window, residual: Arrays, t: jax.Array, back: bool
    ) -> jax.Array:
        if back:
            return symbolic.route(window, t, None)
        return reduce_windows(t, np.zeros((), t.dtype), lax.add, window)


def ones(over: Links, rank: int, dtype: Any) -> jax.Array:
    """1 for each cell along the pooled axis, of a shape that broadcasts."""
    return along(over.axis, jnp.ones(over.dim.size, dtype), rank)


def kept(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`x` with zeros where it does not take part."""
    return x if mask is None else jnp.where(mask, x, np.zeros((), x.dtype))


def cells_read(call: Call) -> jax.Array | None:
    """Which cells some output reads, of a shape that broadcasts; `None`: all.

    Also `None` for axes of symbolic sizes, where it is not known.
    """
    over, read = call.over, list[jax.Array]()
    if isinstance(over, Bins) or over.is_symbolic:
        return None
    # By name, the program is of standard operations of jax.
    name = call.implementation if call.implementation == "reduce_window" else None
    domains: tuple[Domain, ...] = over.axis_by_axis()
    for one in domains:
        (axis,), (dim,) = one.axes, one.dims
        if isinstance(dim, AxisWindow) and dim.reads_all:
            continue
        outputs = along(axis, jnp.ones(dim.out, INT32), call.x.ndim)
        back = Shares(one, Sum(INT32), INT32, INT32, implementation=name).transpose
        (number,) = bind(back, (None, ()), call.tables, outputs)
        read.append(number > 0)
    return reduce(jnp.logical_and, read) if read else None


def counts(over: Domain, tables: Any, rank: int, include_pad: bool) -> list[Any]:
    """Cells in each window as one factor per pooled axis, of a shape that broadcasts.

    So no constant in a program is as large as its arrays, or as a long axis.

    With `include_pad`, the padding that was asked for counts too. An axis on which
    all windows hold the same number of cells has a factor of size 1.
    """
    if isinstance(over, Bins):
        return gathers.counts(over, tables, rank)
    if isinstance(over, Links):
        if isinstance(over, Segments) and over.are_sorted:
            return [along(over.axis, links.lengths(over, tables), rank)]
        kernel = Shares(over, Sum(INT32), INT32, INT32)
        return [*bind(kernel, (None, ()), tables, ones(over, rank, INT32))]
    factors: list[Any] = []
    for axis, dim in zip(over.axes, over.dims, strict=True):
        if is_symbolic(dim.size):
            factors.append(symbolic.counts(axis, dim, rank, include_pad))
            continue
        ends = np.asarray([0, dim.out - 1])
        if dim.out > LONG and (dim.counts(ends, include_pad) == dim.window).all():
            cells = np.asarray([dim.window])  # then windows between them are full too
        else:
            cells = dim.counts(numbers(dim.out), include_pad)
        if is_known(cells) and (cells == cells[0]).all():
            cells = cells[:1]
        shape = [-1 if a == axis else 1 for a in range(rank)]
        factors.append(cells.astype(np.int32).reshape(shape))
    return factors
