"""The sum of each window, and how many cells it holds.

The sum is linear. Its gradient is `spread_axes`, which is as fast as the sum itself;
forward mode uses the transpose of `spread_axes`, so that transposing the derivative
for reverse mode gives `spread_axes` back, to any order.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool._lowering import Implementation, Lowerings, dispatch, xla_reduce_window
from jaxpool._passes import add, reduce_axes, spread_axes
from jaxpool._window import Window


def window_sum(
    x: jax.Array, window: Window, implementation: Implementation | None
) -> jax.Array:
    """Sum of each window, accumulated in the dtype of `x`; padded cells are 0."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return _sums(x, window, implementation)
    return _window_sum(x, window, implementation)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _window_sum(
    x: jax.Array, window: Window, implementation: Implementation | None
) -> jax.Array:
    return _sums(x, window, implementation)


@_window_sum.defjvp
def _window_sum_jvp(
    window: Window,
    implementation: Implementation | None,
    primals: tuple[jax.Array],
    tangents: tuple[jax.Array],
) -> tuple[jax.Array, jax.Array]:
    y = _window_sum(primals[0], window, implementation)

    # What the transposes select by is computed again; else it would be kept.
    @partial(jax.checkpoint, prevent_cse=False)
    def spread(g: jax.Array) -> jax.Array:
        return spread_axes(g, window)

    @partial(jax.checkpoint, prevent_cse=False)
    def gather(t: jax.Array) -> jax.Array:
        (sums,) = jax.linear_transpose(spread, y)(t)
        return sums  # type: ignore[no-any-return]

    return y, gather(tangents[0])


def _sums(
    x: jax.Array, window: Window, implementation: Implementation | None
) -> jax.Array:
    zero = np.zeros((), x.dtype)

    def passes(doubling: bool, x: jax.Array) -> jax.Array:
        return reduce_axes(add, (x,), (zero,), window, doubling)[0]

    def reduce_window(x: jax.Array) -> jax.Array:
        reduced: jax.Array = xla_reduce_window(x, zero, lax.add, window)
        return reduced

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    result: jax.Array = dispatch(lowerings, window, implementation, x)
    return result


def counts(window: Window, rank: int, include_pad: bool) -> list[np.ndarray]:
    """Cells in each window as one factor per pooled axis, of a shape that broadcasts.

    With `include_pad`, the padding that was asked for counts too. An axis on which
    all windows hold the same number of cells has a factor of size 1.
    """
    factors = []
    for axis, dim in zip(window.axes, window.dims, strict=True):
        cells = np.asarray(dim.padded_counts() if include_pad else dim.valid_counts())
        cells = cells[:1] if (cells == cells[0]).all() else cells
        others = [other for other in range(rank) if other != axis]
        factors.append(np.expand_dims(cells, others))
    return factors


def product(factors: list[np.ndarray], dtype: jax.typing.DTypeLike) -> jax.Array:
    """The product of the factors, by which `divide` divides."""
    result = jnp.ones((1,) * factors[0].ndim, dtype)
    for factor in factors:
        result *= jnp.asarray(factor, dtype)
    return result


@jax.custom_jvp
def divide(sums: jax.Array, number: jax.Array) -> jax.Array:
    """`sums / number`, rounded once, also where `number` is known when compiling.

    XLA replaces the division by a constant with the product with its reciprocal,
    which makes 77/7 11.000001; a number that hangs on the data it cannot replace.
    """
    return sums / jnp.where(sums == sums, number, jnp.ones_like(number))


@divide.defjvp
def _divide_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    sums, number = primals
    return divide(sums, number), tangents[0] / number
