"""Maxima and minima, with their derivatives: the share of the winner is 1.

`winners.py` says which cell that is; values, positions and gradients agree on it. A
gradient keeps the position of the winner inside its window, in the smallest unsigned
type that holds it, and nothing else. The rules call kernels only, never `extremum`
itself, so that they can be differentiated again.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import zero_from_primal

from jaxpool.aggregations import dtypes, places
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.forward_mode import is_forward_mode
from jaxpool.aggregations.shares import Aggregation, Levels, Shares
from jaxpool.aggregations.winners import Kind, Winners
from jaxpool.engines import symbolic
from jaxpool.engines.contract import Place
from jaxpool.engines.elementwise import select
from jaxpool.engines.fold import fold_back
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import NOTHING, Arrays, Lifted
from jaxpool.engines.plan import Needs, Plan
from jaxpool.engines.symbolic import as_number
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.window import Window

POSITION = "jaxpool_position"  # the residual's name, for remat policies


def extremum(call: Call, kind: Kind) -> jax.Array:
    """Extreme value of each output, over the cells that the mask keeps.

    Where it keeps no cell of an output, the value is `empty`, and there is no winner.
    """
    call = call._replace(over=call.over.clipped())
    if len(call.over.axes) > 1 and not call.over.is_countable:
        return _axis_by_axis(call, kind)
    kernel = _kernel(call, kind)
    if not jnp.issubdtype(call.x.dtype, jnp.floating):
        return _values(kernel, call.x, call.mask, call.tables)
    both_modes = call.both_modes or is_forward_mode()
    rule = _extremum_both_modes if both_modes else _extremum
    return rule(kernel, call.x, call.mask, call.tables)


def _axis_by_axis(call: Call, kind: Kind) -> jax.Array:
    """The same where int32 cannot count the cells.

    The first winner of the winners along the last axis is the first in row-major order.
    """
    domains: tuple[Domain, ...] = call.over.axis_by_axis()
    x, mask = call.x, call.mask
    for number, each in reversed([*enumerate(domains)]):
        tables = call.tables[number : number + 1]
        cells = None if mask is None else jnp.broadcast_to(mask, x.shape)
        one = call._replace(x=x, over=each, mask=cells, tables=tables)
        x = extremum(one, kind)
        if cells is not None:
            kernel = Winners(each, "max", 0, implementation=call.implementation)
            counts = _values(kernel, cells.astype(np.uint8), None, tables)
            mask = counts > np.uint8(0)
    return x


def indexed_extremum(call: Call, kind: Kind) -> tuple[jax.Array, jax.Array]:
    """The same, and the flat index of each winner over the pooled axes.

    It is -1 where the mask keeps no cell.
    """
    kernel = _kernel(call._replace(over=call.over.clipped()), kind)
    values, position = values_and_positions(kernel, call.x, call.mask, call.tables)
    indices = places.index_of(position, kernel.over, call.tables)
    if call.mask is not None:
        some = position < as_number(kernel.over.cells, position.dtype)
        indices = jnp.where(some, indices, np.int32(-1))
    return values, indices


def _kernel(call: Call, kind: Kind) -> Winners:
    name = call.implementation
    return Winners(call.over, kind, call.empty.item(), implementation=name)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _extremum(
    kernel: Winners, x: jax.Array, mask: jax.Array | None, tables: Any
) -> jax.Array:
    return _values(kernel, x, mask, tables)


def _extremum_fwd(
    kernel: Winners, x: jax.Array, mask: jax.Array | None, tables: Any
) -> tuple[jax.Array, Any]:
    values, position = values_and_positions(kernel, x, mask, tables)
    return values, (checkpoint_name(position, POSITION), tables)


def _extremum_bwd(
    kernel: Winners, residual: tuple[jax.Array, Any], g: jax.Array
) -> tuple[jax.Array, None, None]:
    position, tables = residual
    shares = _shares(kernel, g).transpose
    return bind_linear(shares, (position,), tables, g), None, None


_extremum.defvjp(_extremum_fwd, _extremum_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _extremum_both_modes(
    kernel: Winners, x: jax.Array, mask: jax.Array | None, tables: Any
) -> jax.Array:
    return _values(kernel, x, mask, tables)


@_extremum_both_modes.defjvp
def _extremum_jvp(
    kernel: Winners,
    primals: tuple[jax.Array, jax.Array | None, Any],
    tangents: tuple[jax.Array, Any, Any],
) -> tuple[jax.Array, jax.Array]:
    (values, _), (tangent, _) = _winners_jvp(kernel, primals, tangents)
    return values, tangent


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def values_and_positions(
    kernel: Winners, x: jax.Array, mask: jax.Array | None, tables: Any
) -> tuple[jax.Array, jax.Array]:
    """The value of each winner, and its position inside the window, row-major.

    Where a mask keeps no cell of a window, the position is beyond the window. The
    derivative, in both modes, reads the tangents at the winners.
    """
    if not kernel.over.is_countable:
        raise ValueError(
            "x must have at most 2**31 - 1 cells on one axis where a gradient is asked "
            f"for; got x.shape={x.shape}"
        )
    indexed = replace(kernel, positions=True)
    values, position = bind(indexed, x, mask, tables, rule=values_and_positions)
    return values, position


@values_and_positions.defjvp
def _winners_jvp(
    kernel: Winners,
    primals: tuple[jax.Array, jax.Array | None, Any],
    tangents: tuple[jax.Array, Any, Any],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    values, position = values_and_positions(kernel, *primals)
    named = checkpoint_name(position, POSITION)
    tangent = bind_linear(_shares(kernel, values), (named,), primals[2], tangents[0])
    no_tangent = zero_from_primal(position)
    return (values, position), (tangent, no_tangent)


def _values(
    kernel: Winners, x: jax.Array, mask: jax.Array | None, tables: Any
) -> jax.Array:
    (values,) = bind(kernel, x, mask, tables, rule=_with_derivative)
    return values


def _with_derivative(kernel: Winners, *operands: Any) -> Arrays:
    return (_extremum_both_modes(kernel, *operands),)


def _shares(kernel: Winners, x: Any) -> Shares:
    """The kernel that reads tangents at the winners; its transpose sends them back."""
    by = Winner(dtypes.summed(x.dtype), x.ndim - 1)
    name = kernel.implementation
    return Shares(kernel.over, by, x.dtype, x.dtype, implementation=name)


@dataclass(frozen=True)
class Winner(Aggregation):
    """The share of a winner is 1, that of all other cells 0."""

    # XLA:CPU does not vectorise selects from strided cells of an array's last axis.
    last_axis: int

    @property
    def needs(self) -> Needs:
        return Needs(back="places", alone=self.last_axis, few_pads=True)

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        return select(place.has(output[0]), t, 0)

    def levels(self, chosen: Plan, residual: Arrays) -> Levels:
        """The position of the winner in each window, and in each of its runs.

        Two windows that pick cells of one run pick the same cell of it.
        """

        def inner(cell: Arrays, output: Arrays, place: Place) -> jax.Array:
            has, inside = place.inside(output[0])
            return select(has, inside, 0)

        found = [Lifted(residual)]
        for step in reversed(chosen.back[1:]):
            position = fold_back(
                step,
                lax.max,
                inner,
                found[0],
                boundary=chosen.boundary,
                few_pads=True,
            )
            found.insert(0, Lifted(position))
        return Levels([NOTHING] * (len(found) + 1), [NOTHING, *found])

    def without_steps(
        self, window: Window, residual: Arrays, t: jax.Array, back: bool
    ) -> jax.Array:
        move = symbolic.route if back else symbolic.read
        return move(window, t, *residual)
