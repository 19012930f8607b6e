"""Aggregations that join cells relative to the largest one: norms, log-sum-exp.

    state = rejoin(m, sum_j relative(state_j, m)),  m = max_j of the first of state_j

So no power and no exponential of a cell is ever computed, only of what is relative to
the largest, which cannot overflow. A run of cells joins to a state of the same kind as
that of a cell; so runs join like cells, and the share of a cell follows from its state
and that of the output. Only the first array of a state has a derivative.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.shares import Aggregation, Levels, Shares
from jaxpool.engines.contract import Place
from jaxpool.engines.fold import Step, first_cell, fold, sources_of
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import Arrays, Lifted, stage
from jaxpool.engines.plan import DomainKernel, Needs, Plan
from jaxpool.engines.symbolic import reduce_cells
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import Window


@dataclass(frozen=True)
class Joined(Aggregation):
    """An aggregation by `relative` and `rejoin`; it accumulates in `wide`."""

    @property
    def needs(self) -> Needs:
        """Each cell costs a division or an exponential, and so does its share."""
        return Needs(divides=True)

    @property
    def identity(self) -> Arrays:
        """The identity, which stands for padding."""
        raise NotImplementedError

    def lift(self, x: jax.Array) -> Arrays:
        """The states of cells."""
        raise NotImplementedError

    def open_lift(self, x: jax.Array) -> Arrays:
        """The same, with the derivative that it has."""
        return self.lift(x)

    def relative(self, cell: Arrays, most: jax.Array) -> jax.Array:
        """What a state adds, relative to the largest."""
        raise NotImplementedError

    def rejoin(self, most: jax.Array, total: jax.Array) -> Arrays:
        """The state of a run of cells."""
        raise NotImplementedError

    def result(self, state: Arrays) -> Any:
        """What an output's state says."""
        return state[0]

    def part(self, cell: Arrays, output: Arrays, t: jax.Array) -> jax.Array:
        """`t` times the derivative of an output by one of its cells."""
        raise NotImplementedError

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        """`t` times the derivative of an output by one of its cells."""
        return self.part(cell, output, t)

    def levels(self, chosen: Plan, residual: Arrays) -> Levels:
        """The cells, what each step joins of them, and the outputs."""
        x, *state = residual
        each = [*self.chain(chosen, chosen.back[:-1], x), Lifted(tuple(state))]
        return Levels(each, each)

    def chain(self, chosen: Plan, steps: Sequence[Step], x: jax.Array) -> list[Lifted]:
        """The cells, and what each step joins of them."""
        cells = Lifted((x,), self.lift)
        join = _open_join if chosen.is_open else join_cells
        if chosen.is_open:
            cells = Lifted(self.open_lift(x))
        found = [cells]
        for step, sources in sources_of(steps):
            arrays, lifts = zip(*(found[source] for source in sources), strict=True)
            joined = partial(join, self, step, lifts)
            found.append(Lifted(stage(chosen.boundary, joined, *arrays)))
        return found

    def combine(self, one: Arrays, other: Arrays) -> Arrays:
        """Two of them joined, as XLA's own windows do it."""
        most = lax.max(one[0], other[0])
        return self.rejoin(most, self.relative(one, most) + self.relative(other, most))

    def without_steps(
        self, window: Window, residual: Arrays, t: jax.Array, back: bool
    ) -> jax.Array:
        """The rule for one window that is all cells."""
        x, *state = residual
        shared: jax.Array = self.share(self.lift(x), tuple(state), Place(0, 1), t)
        return shared if back else shared.sum(window.axes, keepdims=True, dtype=t.dtype)


def joined(by: Joined, call: Call) -> jax.Array:
    """The cells of each output joined, in the dtype of `x`, without a mask."""
    x, over = call.x, call.over
    if isinstance(over, Window) and over.is_symbolic and not is_symbolic(over.cells):
        # The way back keeps the lifted cells, not what each step makes.
        combine = partial(_open_combine, by)
        cells = partial(reduce_cells, combine, window=over)
        kept = jax.checkpoint(cells, prevent_cse=False)
        state = kept(by.open_lift(x), init=by.identity)
    else:
        state = joined_state(join_kernel(by, call), x, call.tables)
    return by.result(state).astype(x.dtype)


def join_kernel(by: Joined, call: Call) -> "_Joins":
    """The kernel for the domain of a call."""
    return _Joins(call.over.clipped(), by, implementation=call.implementation)


@dataclass(frozen=True)
class _Joins(DomainKernel):
    """The kernel of the states of outputs."""

    by: Joined

    def types(self, x: Any, tables: Any) -> Sequence[Any]:
        shape = self.over.output_shape(x.shape)
        return [x.update(shape=shape, dtype=one.dtype) for one in self.by.identity]

    def run(self, platform: str, x: jax.Array, tables: Any) -> Arrays:
        by = self.by
        chosen = self.plan(platform, by.wide, by.needs, tables)
        if chosen.form == "reduce_window" and isinstance(self.over, Window):
            return reduce_windows(by.lift(x), by.identity, by.combine, self.over)
        (*_, outputs) = by.chain(chosen, chosen.steps, x)
        return outputs.now(chosen.boundary)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def joined_state(kernel: _Joins, x: jax.Array, tables: Any) -> Arrays:
    return tuple(bind(kernel, x, tables, rule=joined_state))


@joined_state.defjvp
def _joined_jvp(
    kernel: _Joins, primals: tuple[jax.Array, Any], tangents: tuple[jax.Array, Any]
) -> tuple[Arrays, Arrays]:
    (x, tables), (t, _) = primals, tangents
    state = joined_state(kernel, x, tables)
    by, wide = kernel.by, state[0].dtype
    name = kernel.implementation
    shares = Shares(kernel.over, by, x.dtype, wide, implementation=name)
    return state, _tangents(state, bind_linear(shares, (x, *state), tables, t))


def _tangents(state: Arrays, t: jax.Array) -> Arrays:
    """Those of a state whose first array has the tangent `t`."""
    return t, *map(jnp.zeros_like, state[1:])


def join_cells(
    by: Joined, step: Step, lifts: tuple[Callable[..., Arrays], ...], *cells: Arrays
) -> Arrays:
    """What a step joins, in one loop."""
    sources = [Lifted(*pair) for pair in zip(cells, lifts, strict=True)]

    def relative(cell: Arrays, output: Arrays, place: Place) -> jax.Array:
        return by.relative(cell, output[0])

    joined = partial(fold, step, boundary="none")
    (most,) = joined(lax.max, first_cell, by.identity[0], sources)
    zero = np.zeros((), by.wide)
    (total,) = joined(lax.add, relative, zero, sources, Lifted((most,)))
    return by.rejoin(most, total)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _open_join(by: Joined, step: Step, lifts: Any, *cells: Arrays) -> Arrays:
    """The same with a derivative, of cells that are lifted."""
    return join_cells(by, step, lifts, *cells)


@_open_join.defjvp
def _open_join_jvp(
    by: Joined, step: Step, lifts: Any, primals: Arrays, tangents: Arrays
) -> tuple[Arrays, Arrays]:
    state = _open_join(by, step, lifts, *primals)

    def shared(cell: Arrays, output: Arrays, place: Place) -> Any:
        return by.part(cell[:-1], output, cell[-1])

    pairs = zip(primals, tangents, strict=True)
    sources = [Lifted((*cell, tangent[0])) for cell, tangent in pairs]
    zero = np.zeros((), by.wide)
    (t,) = fold(step, lax.add, shared, zero, sources, Lifted(state), boundary="none")
    return state, _tangents(state, t)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _open_combine(by: Joined, one: Arrays, other: Arrays) -> Arrays:
    """Two joined, with a derivative."""
    return by.combine(one, other)


@_open_combine.defjvp
def _open_combine_jvp(
    by: Joined, primals: Arrays, tangents: Arrays
) -> tuple[Arrays, Arrays]:
    state, each = _open_combine(by, *primals), zip(primals, tangents, strict=True)
    parts = (by.part(cell, state, tangent[0]) for cell, tangent in each)
    return state, _tangents(state, reduce(lax.add, parts))
