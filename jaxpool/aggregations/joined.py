"""Aggregations that join cells relative to the largest one: norms, log-sum-exp.

    y = rejoin(m, sum_j relative(c_j, m)),  m = max_j c_j

So no power and no exponential of a cell is ever computed, only of what is relative to
the largest, which cannot overflow. A run of cells joins to a number of the same kind as
a cell; so runs join like cells, and the share of a cell follows from the cell and the
output alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import numpy as np
from jax import lax

from jaxpool.aggregations.shares import Aggregation, Levels, Shares, sources_of
from jaxpool.engines.fold import Place, Step, first_cell, fold
from jaxpool.engines.kernel import ANY, OPEN, call, call_linear
from jaxpool.engines.loops import Arrays, Lifted, stage
from jaxpool.engines.plan import Implementation, Needs, Plan, is_portable, plan_for
from jaxpool.engines.symbolic import reduce_cells
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.bins import Domain
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import Window


@dataclass(frozen=True)
class Joined(Aggregation):
    """An aggregation by `relative` and `rejoin`; it accumulates in `wide`."""

    @property
    def needs(self) -> Needs:
        """Each cell costs a division or an exponential, and so does its share."""
        return Needs(divides=True, has_cost=False)

    @property
    def none(self) -> np.ndarray:
        """The identity, which stands for padding."""
        raise NotImplementedError

    def lift(self, x: jax.Array) -> jax.Array:
        """Cells as they join."""
        return x.astype(self.wide)

    def open_lift(self, x: jax.Array) -> jax.Array:
        """The same, with the derivative that it has."""
        return self.lift(x)

    def relative(self, cell: jax.Array, most: jax.Array) -> jax.Array:
        """What a cell adds, relative to the largest."""
        raise NotImplementedError

    def rejoin(self, most: jax.Array, total: jax.Array) -> jax.Array:
        """The result, from the largest cell and the sum."""
        raise NotImplementedError

    def part(self, cell: jax.Array, output: jax.Array, t: jax.Array) -> jax.Array:
        """`t` times the derivative of an output by one of its cells."""
        raise NotImplementedError

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        """`t` times the derivative by a cell; 0 if the cell is not in the output."""
        return place.only(self.part(cell[0], output[0], t))

    def levels(self, chosen: Plan, residual: Arrays) -> Levels:
        """The cells, what each step joins of them, and the outputs."""
        x, y = residual
        return [*self.chain(chosen, chosen.back[:-1], x), Lifted((y,))]

    def chain(self, chosen: Plan, steps: Sequence[Step], x: jax.Array) -> Levels:
        """The cells, and what each step joins of them."""
        cells = Lifted((x,), lambda x: (self.lift(x),))
        is_open = chosen.platform in (ANY, OPEN)
        join = _open_join if is_open else _join
        if is_open:
            cells = Lifted((self.open_lift(x),))
        found = [cells]
        for step, sources in sources_of(steps):
            lifts = tuple(found[source].lift for source in sources)
            arrays = (array for source in sources for array in found[source].arrays)
            joined = partial(join, self, step, lifts)
            found.append(Lifted((stage(chosen.boundary, joined, *arrays),)))
        return found

    def combine(self, one: jax.Array, other: jax.Array) -> jax.Array:
        """Two of them joined, as XLA's own windows do it."""
        most = lax.max(one, other)
        return self.rejoin(most, 1 + self.relative(lax.min(one, other), most))

    def anywhere(
        self, window: Window, residual: Arrays, t: jax.Array, back: bool
    ) -> jax.Array:
        """The rule for one window that is all cells."""
        x, y = residual
        shared: jax.Array = self.share((self.lift(x),), (y,), Place(0, 1), t)
        return shared if back else shared.sum(window.axes, keepdims=True, dtype=t.dtype)


def joined(
    by: Joined,
    x: jax.Array,
    over: Domain,
    implementation: Implementation | None,
    tables: Any = (),
) -> jax.Array:
    """The cells of each window joined, in the dtype of `x`."""
    if isinstance(over, Window) and over.is_symbolic and not is_symbolic(over.cells):
        # Of the cells are kept the lifted ones, not each step.
        combine = partial(_open_combine, by)
        cells = partial(reduce_cells, combine, window=over)
        kept = jax.checkpoint(cells, prevent_cse=False)
        reduced: jax.Array = kept(by.open_lift(x), init=by.none)
        return reduced.astype(x.dtype)
    pooled: jax.Array = _joined(_Joins(by, over.clipped(), implementation), x, tables)
    return pooled.astype(x.dtype)


@dataclass(frozen=True)
class _Joins:
    """The kernel of the values, in the wide dtype."""

    by: Joined
    over: Domain
    implementation: Implementation | None

    @property
    def portable(self) -> bool:
        return is_portable(self.over, self.implementation)

    def types(self, x: Any, tables: Any) -> Sequence[Any]:
        shape = self.over.output_shape(x.shape)
        return [x.update(shape=shape, dtype=self.by.wide)]

    def run(self, platform: str, x: jax.Array, tables: Any) -> Arrays:
        by, name = self.by, self.implementation
        chosen = plan_for(self.over, platform, by.wide, name, by.needs, tables)
        if chosen.form == "reduce_window" and isinstance(self.over, Window):
            return (reduce_windows(by.lift(x), by.none, by.combine, self.over),)
        (*_, outputs) = by.chain(chosen, chosen.steps, x)
        return outputs.now(chosen.boundary)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _joined(kernel: _Joins, x: jax.Array, tables: Any) -> jax.Array:
    (y,) = call(kernel, x, tables)
    return y  # type: ignore[no-any-return]


@_joined.defjvp
def _joined_jvp(
    kernel: _Joins, primals: tuple[jax.Array, Any], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    (x, tables), (t, _) = primals, tangents
    y = _joined(kernel, x, tables)
    shares = Shares(kernel.by, kernel.over, kernel.implementation, x.dtype, y.dtype)
    return y, call_linear(shares, (x, y), tables, t)


def _join(
    by: Joined, step: Step, lifts: tuple[Callable[..., Arrays], ...], *arrays: jax.Array
) -> jax.Array:
    """What a step joins, in one loop."""
    pairs = zip(arrays, lifts, strict=True)
    sources = [Lifted((array,), lift) for array, lift in pairs]

    def relative(cell: Arrays, output: Arrays, place: Place) -> jax.Array:
        return by.relative(cell[0], output[0])

    joined = partial(fold, step, boundary="none")
    (most,) = joined(lax.max, first_cell, by.none, sources)
    zero = np.zeros((), by.wide)
    (total,) = joined(lax.add, relative, zero, sources, Lifted((most,)))
    return by.rejoin(most, total)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _open_join(by: Joined, step: Step, lifts: Any, *arrays: jax.Array) -> jax.Array:
    """The same with a derivative, of cells that are lifted."""
    return _join(by, step, lifts, *arrays)


@_open_join.defjvp
def _open_join_jvp(
    by: Joined, step: Step, lifts: Any, primals: Arrays, tangents: Arrays
) -> tuple[jax.Array, jax.Array]:
    y = _open_join(by, step, lifts, *primals)

    def shared(cell: Arrays, output: Arrays, place: Place) -> Any:
        return by.share(cell[:1], output, place, cell[1])

    sources = [Lifted(pair) for pair in zip(primals, tangents, strict=True)]
    zero = np.zeros((), by.wide)
    (t,) = fold(step, lax.add, shared, zero, sources, Lifted((y,)), boundary="none")
    return y, t


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _open_combine(by: Joined, one: jax.Array, other: jax.Array) -> jax.Array:
    """Two joined, with a derivative."""
    return by.combine(one, other)


@_open_combine.defjvp
def _open_combine_jvp(
    by: Joined, primals: Arrays, tangents: Arrays
) -> tuple[jax.Array, jax.Array]:
    y, place = _open_combine(by, *primals), Place(0, 1)
    each = zip(primals, tangents, strict=True)
    return y, reduce(lax.add, (by.share((c,), (y,), place, t) for c, t in each))
