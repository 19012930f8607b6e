"""Adaptive pools: as many bins on each axis as the result is to have places.

Each checks its arguments, resolves its bins, and says what to compute.
"""

from typing import Any

import jax
from jax.typing import ArrayLike

from jaxpool.functions import binning
from jaxpool.functions.arguments import Kinds, about, as_array
from jaxpool.functions.docs import documented
from jaxpool.functions.entry import enter
from jaxpool.geometry.bins import Bins, OptionalInts, adaptive_bins
from jaxpool.geometry.window import Ints, check_countable


@documented(extreme="maximum", dtype="that of `x`")
def adaptive_max_pool(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> jax.Array:
    """Maximum over bins, as many as the result is to have.

        y[n, o, c] = max_i x[n, i, c],
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Args:
        {x}
        {adaptive}

    Returns:
        {bins_returns}

    Raises:
        {bins_raises}

    Gradient:
        {bins_winner_gradient}

    References:
        `torch.nn.functional.adaptive_max_pool2d`; of two NaN in a bin, PyTorch's
        gradient goes to the last. `keras.ops.adaptive_max_pool` has the same bins,
        and on JAX NaN where they do not divide the input.

    Example:
        >>> import jax.numpy as jnp
        >>> print(adaptive_max_pool(jnp.arange(10.0), 4, axes=0))
        [2. 4. 7. 9.]
    """
    x, bins = _check(x, output_shape, axes)
    return enter(binning.maxima, bins, bins, x)


@documented(extreme="maximum", dtype="that of `x`")
def adaptive_max_pool_with_indices(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> tuple[jax.Array, jax.Array]:
    """Maximum over bins, and the index of the cell that is it.

        y[n, o, c] = x[n, index[n, o, c], c] = max_i x[n, i, c],
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Args:
        {x}
        {adaptive}

    Returns:
        {bins_returns}
        {indices}

    Raises:
        {bins_raises}

    Gradient:
        {bins_winner_gradient}

    References:
        `torch.nn.functional.adaptive_max_pool2d` with `return_indices=True`, which are
        int64, and point at the last NaN of a bin.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([3.0, 1.0, 2.0, 4.0, 0.0])
        >>> y, index = adaptive_max_pool_with_indices(x, 2, axes=0)
        >>> print(y, index)
        [3. 4.] [0 3]
    """
    x, bins = _check(x, output_shape, axes)
    with about(x.shape):
        check_countable("x", (dim.size for dim in bins.dims))
    return enter(binning.winners, bins, bins, x)


@documented(
    dtype="that of `x`, of integers float32",
    rule="a cell gets the sum of its bins' cotangents, divided as they were",
)
def adaptive_avg_pool(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> jax.Array:
    """Average over bins, as many as the result is to have.

        y[n, o, c] = sum_i x[n, i, c] / number of cells i,
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Args:
        {x}
        {adaptive}

    Returns:
        {bins_returns}

    Raises:
        {bins_raises}

    Gradient:
        {linear_gradient}

    References:
        `torch.nn.functional.adaptive_avg_pool2d`. `equinox.nn.AdaptiveAvgPool2d` has
        other bins, which do not overlap. K. He et al., "Spatial Pyramid Pooling in Deep
        Convolutional Networks for Visual Recognition", ECCV 2014,
        https://arxiv.org/abs/1406.4729

    Example:
        >>> import jax.numpy as jnp
        >>> print(adaptive_avg_pool(jnp.arange(10.0), 4, axes=0))
        [1. 3. 6. 8.]
    """
    x, bins = _check(x, output_shape, axes, "number")
    return enter(binning.averages, bins, bins, x)


def _check(
    x: Any, output_shape: OptionalInts, axes: Ints | None, kinds: Kinds = "real"
) -> tuple[jax.Array, Bins]:
    """Check what the adaptive pools have in common."""
    x = as_array(x, kinds)
    with about(x.shape):
        bins = adaptive_bins(x.shape, output_shape, axes)
    return x, bins
