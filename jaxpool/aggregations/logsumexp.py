"""The logarithm of the sum of exponentials of each window.

    y = m + log(s),  m = max_j x_j,  s = sum_j exp(x_j - m)

The state is the pair `m, s`. The share of a cell is `exp(x - m) / s`, the softmax of
the cells of its window; `exp(x - y)` would be wrong where `y` is rounded. A cell of
-inf has share 0. Cells of inf have equal shares.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.joined import Joined, joined
from jaxpool.engines.contract import Place
from jaxpool.engines.elementwise import equals, like, pair, select
from jaxpool.engines.loops import Arrays, Lifted


@dataclass(frozen=True)
class LogSumExp(Joined):
    """Joins pairs; all differences from the largest are at most 0."""

    @property
    def identity(self) -> Arrays:
        return np.full((), -np.inf, self.wide), np.zeros((), self.wide)

    def lift(self, x: jax.Array) -> Arrays:
        cells = x.astype(self.wide)
        return cells, like(1, cells)

    def relative(self, cell: Arrays, most: jax.Array) -> jax.Array:
        return lax.mul(cell[1], ratio(cell[0], most))

    def rejoin(self, most: jax.Array, total: jax.Array) -> Arrays:
        return most, total

    def result(self, state: Arrays) -> Any:
        return state[0] + lax.log(lax.stop_gradient(state[1]))

    def part(self, cell: Arrays, output: Arrays, t: jax.Array) -> jax.Array:
        share = ratio(cell[0], output[0]) * cell[1] / _positive(output[1])
        return _shared(cell[0], share, t)

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        """Without the division by `s`, which comes once for each output."""
        return _shared(cell[0], ratio(cell[0], output[0]), t)

    def at_outputs(self, residual: Arrays, back: bool) -> Lifted:
        return Lifted(residual[2:], lambda t, total: (lax.div(t, _positive(total)),))


def log_sum_exp(call: Call, logits: jax.Array) -> jax.Array:
    """Log-sum-exp of the logits that the mask keeps."""
    by, logits = kept_logits(call, logits)
    return joined(by, call._replace(x=logits))


def kept_logits(call: Call, logits: jax.Array) -> tuple[LogSumExp, jax.Array]:
    """The aggregation, and the logits with -inf where the mask is False."""
    if call.mask is not None:
        logits = jnp.where(call.mask, logits, np.asarray(-np.inf, logits.dtype))
    return LogSumExp(dtypes.summed(logits.dtype)), logits


def _shared(x: jax.Array, share: jax.Array, t: jax.Array) -> jax.Array:
    """`share * t`; 0 where the cell is -inf, in both modes, also of NaN."""
    is_none = equals(x, -np.inf)
    return lax.mul(select(is_none, 0, share), select(is_none, 0, t))


def _positive(total: jax.Array) -> jax.Array:
    """The sum of a window; 1 if it has no cell."""
    return lax.max(*pair(total, 1))


def ratio(cell: jax.Array, most: jax.Array) -> jax.Array:
    """`exp(cell - most)`, and 1 of two infinities; never more than 1."""
    less = lax.sub(cell, most)
    at_most = lax.bitwise_and(lax.ge(cell, most), lax.ne(*pair(less, 0)))
    return lax.exp(select(at_most, 0, less))
