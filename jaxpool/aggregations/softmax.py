"""Averages with softmax weights.

    y = sum_j w_j x_j,    w = softmax(logits)
    by x: w_j,  by logits: w_j (x_j - y),  by their scale: sum_j w_j (x_j - y) l_j

`y` is the derivative of log-sum-exp of the logits, along `x`. A cell with a logit of
-inf takes no part, whatever it holds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.joined import (
    Joined,
    join_cells,
    join_kernel,
    joined,
    joined_state,
)
from jaxpool.aggregations.shares import Shares
from jaxpool.aggregations.sums import cells_read
from jaxpool.engines.contract import Place
from jaxpool.engines.fold import fold
from jaxpool.engines.kernel import bind, bind_linear
from jaxpool.engines.loops import Arrays, Lifted, as_they_are, stage
from jaxpool.engines.plan import DomainKernel, Needs, averages_in_one_loop
from jaxpool.geometry.window import Window


def weighted(by: Joined, logits: jax.Array, call: Call) -> tuple[jax.Array, jax.Array]:
    """The largest logit of each output, or near it; and the average of `x`."""
    x, over = call.x, call.over
    if isinstance(over, Window) and over.is_symbolic:

        def pooled(logits: jax.Array) -> jax.Array:
            return joined(by, call._replace(x=logits))

        most, average = jax.jvp(pooled, (logits,), (x,))
        return most, average
    over = over.clipped()
    if averages_in_one_loop(over, call.implementation):
        return _averaged(_Averages(over, by), logits, x)
    return _by_states(by, logits, call)


def _by_states(
    by: Joined, logits: jax.Array, call: Call
) -> tuple[jax.Array, jax.Array]:
    """By the states of the logits, which derivatives need."""
    joins = join_kernel(by, call)
    state = joined_state(joins, logits, call.tables)
    dtype = call.x.dtype
    name = joins.implementation
    shares = Shares(joins.over, by, dtype, dtype, implementation=name)
    return state[0], _weighted(shares, logits, state, call.x, call.tables)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _weighted(
    shares: Shares, logits: jax.Array, state: Arrays, x: jax.Array, tables: Any
) -> jax.Array:
    return bind_linear(shares, (logits, *state), tables, x)


@_weighted.defjvp
def _weighted_jvp(
    shares: Shares, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[jax.Array, jax.Array]:
    """By the derivative of a weight, `share * (t of the logit - t of the output)`."""
    (logits, state, x, tables), (of_logits, of_state, of_x, _) = primals, tangents
    y = _weighted(shares, logits, state, x, tables)
    x = jnp.where(logits == -np.inf, np.zeros((), x.dtype), x)  # which takes no part
    moved = _weighted(shares, logits, state, of_x + x * of_logits, tables)
    return y, moved - y * of_state[0]


@dataclass(frozen=True)
class _Averages(DomainKernel):
    """The kernel of largest logits and averages of windows, all cells in one loop."""

    by: Joined

    def types(self, logits: Any, x: Any) -> Any:
        shape = self.over.output_shape(x.shape)
        return [array.update(shape=shape) for array in (logits, x)]

    def run(self, platform: str, logits: jax.Array, x: jax.Array) -> Arrays:
        by = self.by
        if not averages_in_one_loop(self.over, None, platform):
            return _by_states(by, logits, Call(x, self.over))
        chosen = self.plan(platform, by.wide, Needs(one_step=True), ())
        (step,) = chosen.steps
        zero = np.zeros((), by.wide)

        def shared(cell: Arrays, output: Arrays, place: Place) -> Any:
            return by.share(cell[:-1], output, place, cell[-1])

        def averaged(logits: jax.Array, x: jax.Array) -> Arrays:
            cells = by.lift(logits)
            most, total = join_cells(by, step, (as_they_are,), cells)
            each, outputs = [Lifted((*cells, x))], Lifted((most,))
            (sums,) = fold(step, lax.add, shared, zero, each, outputs, boundary="none")
            end = by.at_outputs((logits, most, total), back=False)
            return most, *end.lift(sums, *end.arrays)

        return tuple(stage(chosen.boundary, averaged, logits, x))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _averaged(
    kernel: _Averages, logits: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    most, y = bind(kernel, logits, x, rule=_averaged)
    return most, y


@_averaged.defjvp
def _averaged_jvp(
    kernel: _Averages, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Arrays, Arrays]:
    """That of two kernels, by states, which values alone do not need."""

    def by_states(logits: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _by_states(kernel.by, logits, Call(x, kernel.over))

    return jax.jvp(by_states, primals, tangents)


def scaled_logits(logits: jax.Array, scale: jax.Array, call: Call) -> jax.Array:
    """`scale * logits`, where 0 times infinity is 0."""
    if not is_uniform(scale, call):
        return scaled(logits, scale)
    return scaled(logits, scale, lax.stop_gradient(_center(logits, call)))


def is_uniform(scale: jax.Array | None, call: Call) -> bool:
    """Whether all cells of an output have the same scale."""
    return scale is None or all(scale.shape[axis] == 1 for axis in call.over.axes)


def _center(logits: jax.Array, call: Call) -> jax.Array:
    """The largest finite logit along the pooled axes, of the cells that count."""
    none, counts = np.asarray(-np.inf, logits.dtype), jnp.isfinite(logits)
    for keep in (call.mask, cells_read(call)):
        counts = counts if keep is None else counts & keep
    most = jnp.where(counts, logits, none).max(call.over.axes, keepdims=True)
    return jnp.where(most == none, np.zeros((), logits.dtype), most)


def scaled(logits: jax.Array, scale: jax.Array, center: Any = None) -> jax.Array:
    """`scale * logits`; infinite ones have no derivative by the scale."""
    if center is None:
        center = jnp.zeros((1,) * logits.ndim, logits.dtype)
    return _scaled(logits, scale, center)


@jax.custom_jvp
def _scaled(logits: jax.Array, scale: jax.Array, center: jax.Array) -> jax.Array:
    is_none = (scale == 0) & jnp.isinf(logits)
    return jnp.where(is_none, np.zeros((), logits.dtype), logits) * scale


@_scaled.defjvp
def _scaled_jvp(primals: Arrays, tangents: Arrays) -> tuple[jax.Array, jax.Array]:
    """The tangent of the scale leaves out `center`.

    The weights do not change if all logits change alike. With the center, derivatives
    of large logits would lose digits where they cancel.
    """
    (logits, scale, center), (of_logits, of_scale, _) = primals, tangents
    apart = jnp.where(jnp.isfinite(logits), logits - center, np.zeros((), logits.dtype))
    return _scaled(logits, scale, center), scale * of_logits + apart * of_scale
