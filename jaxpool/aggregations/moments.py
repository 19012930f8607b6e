"""The sum of squared deviations from the mean of each output, in two passes.

    m2 = sum_j w_j (x_j - mean)^2 = s2 - s1^2 / n,   s_k = sum_j w_j (x_j - center)^k

`center` is the mean, rounded: numbers near 1e8 lose their fraction there, but not in a
difference. Axes are reduced one after the other, and long windows in two passes: a mean
is kept as `center + rest`, and the parts join by Chan's rule. Their weights `w` are
counts of cells, which have no derivative.

T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", 1979.
"""

from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.shares import Aggregation, Levels, Shares
from jaxpool.aggregations.sums import Sum, kept, window_sum
from jaxpool.engines.contract import Place
from jaxpool.engines.fold import fold
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import Arrays, Lifted
from jaxpool.engines.plan import DomainKernel, Needs, Plan
from jaxpool.geometry.bins import Bins
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Segments
from jaxpool.geometry.window import AxisWindow, Window

# Cells of an overlapping window along one axis that are read one by one.
MOST_UNSPLIT = 32


class Moments(NamedTuple):
    """`weight` cells with the mean `center + rest`, and their squared deviations.

    Single cells have no deviations, and a rest if they are large integers.
    """

    center: jax.Array
    weight: jax.Array
    rest: Any = None
    squares: Any = None


def moments(call: Call, wide: np.dtype) -> Moments:
    """The moments of each output, in the dtype `wide`."""
    x, over, mask = call.x, call.over, call.mask
    rest = None
    if jnp.issubdtype(x.dtype, jnp.integer):
        more = jnp.iinfo(x.dtype).bits - jnp.finfo(wide).nmant - 1
        if more > 0:  # lowest bits, so that both parts are exact
            low = x & np.asarray(2**more - 1, x.dtype)
            x, rest = x - low, low.astype(wide)
    x = x.astype(wide)
    shape = [1] * x.ndim
    for axis in over.axes:
        shape[axis] = x.shape[axis]
    weight = jnp.ones(shape, wide)
    if mask is not None:
        weight = jnp.broadcast_to(mask, np.broadcast_shapes(mask.shape, tuple(shape)))
        x = kept(x, mask)
    found = Moments(x, weight.astype(wide), rest)
    domains: tuple[Domain, ...] = over.clipped().axis_by_axis()
    for number, one in reversed([*enumerate(domains)]):
        found = _reduced(found, one, call.tables[number : number + 1])
    # Where all outputs are cells, 0, or NaN.
    return found if found.squares is not None else found._replace(squares=x - x)


def _reduced(found: Moments, over: Domain, tables: Any) -> Moments:
    """The moments of each output of a domain along one axis."""
    (dim,) = over.dims
    if isinstance(dim, AxisWindow) and dim.is_identity:
        return found
    apart = _is_apart(over)
    if isinstance(dim, AxisWindow) and dim.window > MOST_UNSPLIT and not apart:
        runs, of_runs, last, start = _halves(dim)
        run = _reduced(found, Window(over.axes, (runs,)), ())
        joined = _reduced(run, Window(over.axes, (of_runs,)), ())
        if last is None:
            return joined
        cut = partial(lax.slice_in_dim, start_index=start, limit_index=None)
        ends = jax.tree.map(partial(cut, axis=over.axes[0]), found)
        return _joined(joined, _reduced(ends, Window(over.axes, (last,)), ()))
    center, weight, rest, squares = found
    wide = center.dtype
    total = partial(_sum, over, tables)
    number = total(weight)
    count = jnp.maximum(number, np.ones((), wide))
    # Divided in the kernel: a quotient that XLA writes as a product is not rounded
    # where it is subtracted at once, and the center must be the same everywhere.
    mean = lax.stop_gradient(total(weight * center, count))
    if apart:
        spread = Shares(over, Sum(wide), wide, wide).transpose

        def from_mean(mean: jax.Array) -> jax.Array:
            found = center - bind_linear(spread, (None, ()), tables, mean)
            return found if rest is None else found + rest

        deviation = from_mean(mean)
        if isinstance(over, Segments):
            # A CPU adds up cell after cell: the mean of many is not near enough.
            mean = mean + lax.stop_gradient(total(weight * deviation, count))
            deviation = from_mean(mean)
        firsts = total(weight * deviation)
        seconds = total(weight * deviation * deviation)
    else:
        cells = (center, weight) if rest is None else (center, weight, rest)
        firsts, seconds = _deviations(_Deviations(over), cells, mean, tables)
    more = firsts / count
    around = seconds - firsts * more
    around = around if squares is None else total(squares) + around
    return Moments(mean, number, more, around)


def _joined(one: Moments, other: Moments) -> Moments:
    """Those of two disjoint parts of each output."""
    number = one.weight + other.weight
    count = jnp.maximum(number, np.ones((), number.dtype))
    share = other.weight / count
    apart = (other.center - one.center) + (other.rest - one.rest)
    squares = one.squares + other.squares + apart * one.weight * share * apart
    center = jnp.where(one.weight > 0, one.center, other.center)
    own = jnp.where(one.weight > 0, one.rest + apart * share, other.rest)
    return Moments(center, number, own, squares)


def _sum(over: Domain, tables: Any, x: jax.Array, *divisors: jax.Array) -> jax.Array:
    return window_sum(Call(x, over, tables=tables), x.dtype, x.dtype, divisors)


def _is_apart(over: Domain) -> bool:
    """Whether at most one output reads a cell."""
    if isinstance(over, Window):
        return all(dim.extent <= dim.stride or dim.out == 1 for dim in over.dims)
    if isinstance(over, Bins):
        return all(dim.covers[1] <= 1 for dim in over.dims)
    return isinstance(over, Segments)


def _halves(
    dim: AxisWindow,
) -> tuple[AxisWindow, AxisWindow, AxisWindow | None, int]:
    """A long window as runs of cells, windows of these runs, and cells that remain.

    And how many cells of the input come before those that remain of the first window.
    """
    length = int(dim.window**0.5)
    count, more = divmod(dim.window, length)
    distance = length * dim.dilation
    last = (dim.out - 1) * dim.stride + (count - 1) * distance
    runs = replace(dim, window=length, stride=1, out=last + 1)
    of_runs = AxisWindow(last + 1, count, dim.stride, distance, 0, 0, dim.out)
    start, low = max(count * distance - dim.low, 0), max(dim.low - count * distance, 0)
    rest = replace(dim, window=more, low=low, size=dim.size - start) if more else None
    return runs, of_runs, rest, start


@dataclass(frozen=True)
class _Deviations(DomainKernel):
    """The kernel of the sums of deviations, and of their squares."""

    def types(self, cells: Any, center: Any, tables: Any) -> Any:
        return [center, center]

    def run(self, platform: str, cells: Arrays, center: jax.Array, tables: Any) -> Any:
        chosen = self.plan(platform, center.dtype, Needs(one_step=True), tables)
        (step,) = chosen.steps

        def term(cell: Arrays, output: Arrays, place: Place) -> Arrays:
            deviation = _deviation(cell, output)
            first = cell[1] * deviation
            return first, first * deviation

        def added(one: Arrays, other: Arrays) -> Arrays:
            return tuple(map(lax.add, one, other))

        zero, own = np.zeros(()), Lifted((center,))
        (sums,) = fold(
            step, added, term, zero, [Lifted(cells)], own, boundary=chosen.boundary
        )
        return sums


def _deviation(cell: Arrays, output: Arrays) -> jax.Array:
    """The difference of a cell and a center, which is exact if they are near."""
    deviation: jax.Array = cell[0] - output[0]
    return deviation + cell[2] if len(cell) > 2 else deviation


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _deviations(
    kernel: _Deviations, cells: Arrays, center: jax.Array, tables: Any
) -> tuple[jax.Array, jax.Array]:
    first, second = bind(kernel, cells, center, tables, rule=_deviations)
    return first, second


@_deviations.defjvp
def _deviations_jvp(
    kernel: _Deviations, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Arrays, Arrays]:
    """The center has no derivative: the result does not depend on it."""
    cells, center, tables = primals
    t, _, *rest = tangents[0]
    t = reduce(jnp.add, rest, t)
    wide = center.dtype
    shares = Shares(kernel.over, _Deviation(wide), wide, wide)
    second = bind_linear(shares, (*cells, center), tables, t)
    first = _sum(kernel.over, tables, cells[1] * t)
    return _deviations(kernel, cells, center, tables), (first, second)


@dataclass(frozen=True)
class _Deviation(Aggregation):
    """The share of a cell in the squares is twice its deviation."""

    @property
    def needs(self) -> Needs:
        return Needs(one_step=True)

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        return np.asarray(2, self.wide) * cell[1] * _deviation(cell, output) * t

    def levels(self, chosen: Plan, residual: Arrays) -> Levels:
        *cells, center = residual
        each = [Lifted(tuple(cells)), Lifted((center,))]
        return Levels(each, each)
