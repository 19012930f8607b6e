"""Statistics of windows: variance, standard deviation, median.

Named functions for what `aggregate` does over windows and whole axes.
"""

import jax
from jax.typing import ArrayLike

from jaxpool.engines.plan import Implementation
from jaxpool.functions.by import Median, StandardDeviation, Variance
from jaxpool.functions.over import whole, windows
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.resolve import Padding


def var_pool(
    x: ArrayLike,
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    ddof: int = 0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Variance of each window.

        y[n, o, c] = sum_j (x_j - mean_o) ** 2 / (n_o - ddof),  j: its n_o cells

    Padded cells are not counted. Two passes keep it accurate for numbers near 1e8.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        ddof: Subtracted from the number of cells, an int of at least 0. Where
            no more than `ddof` cells count, the result is `empty_value`.
        implementation: Must be `None`: there is only one form.

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        NotImplementedError: If an implementation is named, or the size of a pooled
            axis is symbolic.

    Gradient:
        The share of a cell is `2 * (x - mean) / (n - ddof)`. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `numpy.var`. T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a
        pairwise algorithm for computing sample variances", 1979.

    Example:
        >>> import jax.numpy as jnp
        >>> print(var_pool(jnp.asarray([1.0, 3.0, 5.0, 5.0]), 2, axes=0))
        [1. 0.]
    """
    over = windows(
        window, strides, padding, dilation=dilation, axes=axes, ceil_mode=ceil_mode
    )
    return Variance(ddof).aggregate(x, over, where, empty_value, implementation)


def global_var_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    ddof: int = 0,
) -> jax.Array:
    """Variance of all cells of the pooled axes.

        y[n, c] = sum_i (x[n, i, c] - mean) ** 2 / (number of cells - ddof)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        ddof: Subtracted from the number of cells, an int of at least 0. Where
            no more than `ddof` cells count, the result is `empty_value`.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        NotImplementedError: If the size of a pooled axis is symbolic.

    Gradient:
        The share of a cell is `2 * (x - mean) / (n - ddof)`. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `numpy.var`. T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a
        pairwise algorithm for computing sample variances", 1979.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_var_pool(jnp.asarray([[1e8, 1e8 + 16]]), axes=1))
        [64.]
    """
    by, over = Variance(ddof), whole(axes, keepdims)
    return by.aggregate(x, over, where, empty_value)


def std_pool(
    x: ArrayLike,
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    ddof: int = 0,
    eps: float = 0.0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Standard deviation of each window.

        y[n, o, c] = sqrt(variance_o + eps),  variance_o as in `var_pool`

    Padded cells are not counted.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        ddof: Subtracted from the number of cells, an int of at least 0. Where
            no more than `ddof` cells count, the result is `empty_value`.
        eps: A number of at least 0 that is added to the variance before the root.
        implementation: Must be `None`: there is only one form.

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `eps` is negative.
        NotImplementedError: If an implementation is named, or the size of a pooled
            axis is symbolic.

    Gradient:
        The share of a cell is `(x - mean) / ((n - ddof) * y)`, and 0 where `y` is 0.
        Integers have no gradient. Reverse and forward mode work to any order.

    References:
        `numpy.std`, whose gradient in jax is NaN where all cells are equal. D. Snyder
        and others, "X-vectors: robust DNN embeddings for speaker recognition", ICASSP
        2018.

    Example:
        >>> import jax.numpy as jnp
        >>> print(std_pool(jnp.asarray([1.0, 3.0, 5.0, 5.0]), 2, axes=0))
        [1. 0.]
    """
    over = windows(
        window, strides, padding, dilation=dilation, axes=axes, ceil_mode=ceil_mode
    )
    by = StandardDeviation(ddof, eps)
    return by.aggregate(x, over, where, empty_value, implementation)


def global_std_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    ddof: int = 0,
    eps: float = 0.0,
) -> jax.Array:
    """Standard deviation of all cells of the pooled axes.

        y[n, c] = sqrt(variance + eps),  the variance of `global_var_pool`

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        ddof: Subtracted from the number of cells, an int of at least 0. Where
            no more than `ddof` cells count, the result is `empty_value`.
        eps: A number of at least 0 that is added to the variance before the root.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `eps` is negative.
        NotImplementedError: If the size of a pooled axis is symbolic.

    Gradient:
        The share of a cell is `(x - mean) / ((n - ddof) * y)`, and 0 where `y` is 0.
        Integers have no gradient. Reverse and forward mode work to any order.

    References:
        `numpy.std`, whose gradient in jax is NaN where all cells are equal. D. Snyder
        and others, "X-vectors: robust DNN embeddings for speaker recognition", ICASSP
        2018.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_std_pool(jnp.asarray([[1.0, 5.0], [2.0, 2.0]]), axes=1))
        [2. 0.]
    """
    by, over = StandardDeviation(ddof, eps), whole(axes, keepdims)
    return by.aggregate(x, over, where, empty_value)


def median_pool(
    x: ArrayLike,
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Median of each window.

        y[n, o, c] = median of the cells of window o

    Padded cells are not counted. Of an even number, the two middle cells are averaged.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        implementation: Must be `None`: there is only one form.

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        NotImplementedError: If an implementation is named, or the size of a pooled
            axis is symbolic.

    Gradient:
        The cotangent of a window goes to its middle cell, or half of it to each of
        two. Equal cells are sorted in row-major order. If a cell
        is NaN, so is the result, and the first NaN gets the gradient. Integers have
        no gradient. Reverse and forward mode work to any order.

    References:
        `numpy.median`. `jaxpool.aggregate` with `Quantile(q)` for others.

    Example:
        >>> import jax.numpy as jnp
        >>> print(median_pool(jnp.asarray([1.0, 9.0, 2.0, 4.0, 8.0]), 3, 2, axes=0))
        [2. 4.]
    """
    over = windows(
        window, strides, padding, dilation=dilation, axes=axes, ceil_mode=ceil_mode
    )
    return Median().aggregate(x, over, where, empty_value, implementation)


def global_median_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Median of all cells of the pooled axes.

        y[n, c] = median of x[n, i, c] over all i

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        NotImplementedError: If the size of a pooled axis is symbolic.

    Gradient:
        The cotangent of a window goes to its middle cell, or half of it to each of
        two. Equal cells are sorted in row-major order. If a cell
        is NaN, so is the result, and the first NaN gets the gradient. Integers have
        no gradient. Reverse and forward mode work to any order.

    References:
        `numpy.median`. `jaxpool.aggregate` with `Quantile(q)` for others.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_median_pool(jnp.asarray([[1.0, 9.0, 2.0, 4.0]]), axes=1))
        [3.]
    """
    by, over = Median(), whole(axes, keepdims)
    return by.aggregate(x, over, where, empty_value)
