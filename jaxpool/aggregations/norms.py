"""The p-norm of each window.

    y = m * (sum_j (|x_j| / m) ** p) ** (1 / p),  m = max_j |x_j|

The share of a cell is `sign(x) * (|x| / y) ** (p - 1)`, 0 for a cell that is 0.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.joined import Joined
from jaxpool.engines.loops import Arrays, Lifted


@dataclass(frozen=True)
class Norm(Joined):
    """Joins absolute values; all ratios are at most 1."""

    p: float

    @property
    def none(self) -> np.ndarray:
        """No size."""
        return np.zeros((), self.wide)

    def lift(self, x: jax.Array) -> jax.Array:
        """Absolute values."""
        return sizes_of(x, self.wide)

    def relative(self, cell: jax.Array, most: jax.Array) -> jax.Array:
        """A power of the ratio."""
        ratio = cell / jnp.where(_is_alone(most), jnp.ones_like(most), most)
        return ratio * ratio if self.p == 2 else ratio**self.p

    def rejoin(self, most: jax.Array, total: jax.Array) -> jax.Array:
        """The largest, times a root."""
        root = jnp.sqrt(total) if self.p == 2 else total ** (1 / self.p)
        return jnp.where(_is_alone(most), most, most * root)

    def derivative(self, cell: jax.Array, output: jax.Array) -> jax.Array:
        """A power of the ratio; 0 for a cell of 0, 1 if the norm is no larger."""
        apart = (cell != 0) & ~(cell >= output)
        one = jnp.ones_like(cell)
        ratio = jnp.where(apart, cell, one) / jnp.where(apart, output, one)
        power = ratio if self.p == 2 else ratio ** (self.p - 1)
        return jnp.where(cell == 0, jnp.zeros_like(power), power)

    def at_cells(self, residual: Arrays) -> Lifted:
        """The sign of a cell; 0 where it is 0, also of a NaN that no window reads."""

        def signed(t: jax.Array, x: jax.Array) -> Arrays:
            # A product computes `t` once; a GPU is slower with a selection of two.
            sign = jnp.where(x < 0, np.asarray(-1, t.dtype), np.asarray(1, t.dtype))
            return (jnp.where(x == 0, jnp.zeros_like(t), t * sign),)

        return Lifted(residual[:1], signed)


def sizes_of(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """Absolute values, with gradient 0 at 0."""
    wide = x.astype(dtype)
    return wide * lax.stop_gradient(lax.sign(wide))


def _is_alone(size: jax.Array) -> jax.Array:
    """Whether a norm of which this is the largest size is just that."""
    return (size == 0) | jnp.isinf(size)
