"""Averages with softmax weights.

    y = sum_j w_j x_j,    w = softmax(logits)
    by x: w_j,  by logits: w_j (x_j - y),  by their scale: sum_j w_j (x_j - y) l_j

`y` is the derivative of log-sum-exp of the logits, along `x`. A cell with a logit of
-inf takes no part, whatever it holds.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.joined import Joined, join_kernel, joined, joined_state
from jaxpool.aggregations.shares import Shares
from jaxpool.engines.kernel import call_linear
from jaxpool.engines.loops import Arrays
from jaxpool.geometry.window import Window


def weighted(by: Joined, logits: jax.Array, call: Call) -> tuple[jax.Array, jax.Array]:
    """The average of `x` over each output; also its largest logit, or near it."""
    x, over, tables = call.x, call.over, call.tables
    if isinstance(over, Window) and over.is_symbolic:

        def pooled(logits: jax.Array) -> jax.Array:
            return joined(by, call._replace(x=logits))

        most, average = jax.jvp(pooled, (logits,), (x,))
        return most, average
    kernel = join_kernel(by, call)
    state = joined_state(kernel, logits, tables)
    shares = Shares(kernel.over, kernel.implementation, by, x.dtype, x.dtype)
    return state[0], _weighted(shares, logits, state, x, tables)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _weighted(
    shares: Shares, logits: jax.Array, state: Arrays, x: jax.Array, tables: Any
) -> jax.Array:
    return call_linear(shares, (logits, *state), tables, x)


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


def scaled_logits(logits: jax.Array, scale: jax.Array, call: Call) -> jax.Array:
    """`scale * logits`, where 0 times infinity is 0."""
    if not is_uniform(scale, call):
        return scaled(logits, scale)
    return scaled(logits, scale, lax.stop_gradient(_center(logits, call)))


def is_uniform(scale: jax.Array | None, call: Call) -> bool:
    """Whether all cells of an output have the same scale."""
    return scale is None or all(scale.shape[axis] == 1 for axis in call.over.axes)


def _center(logits: jax.Array, call: Call) -> jax.Array:
    """The largest finite logit along the pooled axes."""
    none, counts = np.asarray(-np.inf, logits.dtype), jnp.isfinite(logits)
    counts = counts if call.mask is None else counts & call.mask
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
