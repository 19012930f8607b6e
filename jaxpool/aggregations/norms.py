"""The p-norm of each window.

    y = m * (sum_j (|x_j| / m) ** p) ** (1 / p),  m = max_j |x_j|

The share of a cell is `sign(x) * (|x| / y) ** (p - 1)`, 0 for a cell that is 0.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from jaxpool.aggregations.joined import Joined
from jaxpool.engines.elementwise import equals, like, select
from jaxpool.engines.loops import Arrays, Lifted


@dataclass(frozen=True)
class Norm(Joined):
    """Joins absolute values; all ratios are at most 1."""

    p: float

    @property
    def identity(self) -> Arrays:
        """A size of 0."""
        return (np.zeros((), self.wide),)

    def lift(self, x: jax.Array) -> Arrays:
        """Absolute values."""
        return (lax.abs(x.astype(self.wide)),)

    def open_lift(self, x: jax.Array) -> Arrays:
        """The same, with derivative 0 at 0."""
        return (sizes_of(x, self.wide),)

    def relative(self, cell: Arrays, most: jax.Array) -> jax.Array:
        """A power of the ratio."""
        ratio = lax.div(cell[0], select(_is_alone(most), 1, most))
        return _power(ratio, self.p)

    def rejoin(self, most: jax.Array, total: jax.Array) -> Arrays:
        """The largest, times a root."""
        root = _power(total, 1 / self.p)
        return (select(_is_alone(most), most, lax.mul(most, root)),)

    def combine(self, one: Arrays, other: Arrays) -> Arrays:
        """The same with one power, not two."""
        most, least = lax.max(one[0], other[0]), lax.min(one[0], other[0])
        return self.rejoin(most, 1 + self.relative((least,), most))

    def part(self, cell: Arrays, output: Arrays, t: jax.Array) -> jax.Array:
        """By a power of the ratio; 0 for a cell of 0, 1 if the norm is no larger."""
        (size,), (norm,) = cell, output
        is_zero = equals(size, 0)
        alone = lax.bitwise_or(is_zero, lax.ge(size, norm))
        ratio = lax.div(select(alone, 1, size), select(alone, 1, norm))
        return select(is_zero, 0, lax.mul(_power(ratio, self.p - 1), t))

    def at_cells(self, residual: Arrays) -> Lifted:
        """The sign of a cell; 0 where it is 0, also of a NaN that no window reads."""

        def signed(t: jax.Array, x: jax.Array) -> Arrays:
            # A product computes `t` once; a GPU is slower with a selection of two.
            is_negative = lax.lt(x, like(0, x))
            sign = select(is_negative, np.asarray(-1, t.dtype), 1)
            return (select(equals(x, 0), 0, lax.mul(t, sign)),)

        return Lifted(residual[:1], signed)


def sizes_of(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """Absolute values, with gradient 0 at 0."""
    wide = x.astype(dtype)
    return wide * lax.stop_gradient(lax.sign(wide))


def _is_alone(size: jax.Array) -> jax.Array:
    """Whether a norm of which this is the largest size is just that."""
    return lax.bitwise_or(equals(size, 0), equals(size, np.inf))


def _power(x: jax.Array, p: float) -> jax.Array:
    """`x ** p`, by products and roots where that is exact."""
    if p == 1:
        return x
    if p == 2:
        return lax.mul(x, x)
    return lax.sqrt(x) if p == 0.5 else lax.pow(x, like(p, x))
