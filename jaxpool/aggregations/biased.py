"""Softmax averages with a bias for each place in the window.

    y = sum_j softmax_j(logits_j + bias_j) * x_j

The logit of a cell differs from window to window, so all places of a window are read at
once, one strided slice each, and jax differentiates what is computed of them.
"""

import itertools
import math
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.logsumexp import ratio
from jaxpool.engines.cells import cut, pad
from jaxpool.geometry.window import Window


def biased_average(
    logits: jax.Array, x: jax.Array, bias: jax.Array, window: Window
) -> tuple[jax.Array, jax.Array]:
    """The largest logit of each window, without the bias; and the average.

    The average is 0 where all logits with their bias are -inf.

    `bias` has an axis for each pooled axis, and may have one more for the channels.
    """
    sides = tuple(dim.window for dim in window.dims)
    flat = bias.reshape(math.prod(sides), *bias.shape[len(sides) :])
    places = [*itertools.product(*map(range, sides))]
    own = _cells(logits, -np.inf, window, places)
    each = [cell + _along(flat[number], cell) for number, cell in enumerate(own)]
    most = lax.stop_gradient(reduce(jnp.maximum, each))
    most = jnp.where(most == -np.inf, np.zeros((), most.dtype), most)
    weights = [ratio(logit, most) for logit in each]
    total = reduce(jnp.add, weights)
    # A cell whose logit is -inf takes no part, even if it is NaN.
    cells = [
        jnp.where(logit == -np.inf, np.zeros((), cell.dtype), cell)
        for logit, cell in zip(each, _cells(x, 0, window, places), strict=True)
    ]
    summed = reduce(jnp.add, (w * c for w, c in zip(weights, cells, strict=True)))
    largest = lax.stop_gradient(reduce(jnp.maximum, own))
    return largest, summed / jnp.where(total == 0, np.ones((), total.dtype), total)


def _along(bias: jax.Array, cell: jax.Array) -> jax.Array:
    """One number, or one for each channel, in the rank of the cells."""
    return bias.reshape((1,) * (cell.ndim - bias.ndim) + bias.shape).astype(cell.dtype)


def _cells(
    x: jax.Array, fill: float, window: Window, places: list[tuple[int, ...]]
) -> list[jax.Array]:
    """The cell of each place, of all windows."""
    pairs = [*zip(window.axes, window.dims, strict=True)]
    number = np.asarray(fill, x.dtype)
    padded = pad(x, number, {axis: (dim.low, dim.behind) for axis, dim in pairs})
    found = []
    for place in places:
        starts = {
            axis: (j * dim.dilation, dim.out, dim.stride)
            for (axis, dim), j in zip(pairs, place, strict=True)
        }
        found.append(cut(padded, starts))
    return found
