"""Means with weights of their own: softmax pooling and power means.

Named functions for what `aggregate` does over windows and whole axes.
"""

import jax
from jax.typing import ArrayLike

from jaxpool.engines.plan import Implementation
from jaxpool.functions.by import PowerMean, Softmax
from jaxpool.functions.over import whole, windows
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.resolve import Padding


def softmax_pool(
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
    logits: ArrayLike | None = None,
    scale: ArrayLike = 1.0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Average over each window with softmax weights.

        y[n, o, c] = sum_j softmax_j(scale * logits_j) * x_j,  j: the cells of window o

    Padded cells have no weight. No exponential overflows.
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
        logits: Numbers that broadcast to `x`, of equal rank, or one for each channel.
            `None`: `x` (SoftPool).
        scale: A number, or an array that broadcasts to `x`, such as one number for
            each channel (AutoPool). 0 gives the average, large numbers the maximum.
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `logits` or `scale` does not broadcast to `x`.

    Gradient:
        For `x`, the weight `w` of a cell; for its logit, `scale * w * (x - y)`. With
        `logits=None` a cell gets both. A cell of weight 0 gets 0. Reverse and forward
        mode work to any order, also for `logits` and `scale`.

    References:
        A. Stergiou, R. Poppe, G. Kalliatakis, "Refining activation downsampling with
        SoftPool", ICCV 2021, https://arxiv.org/abs/2101.00440. B. McFee, J. Salamon,
        J. P. Bello, "Adaptive pooling operators for weakly labeled sound event
        detection", 2018, https://arxiv.org/abs/1804.10070. Z. Gao, L. Wang, G. Wu,
        "LIP: Local Importance-Based Pooling", ICCV 2019,
        https://arxiv.org/abs/1908.04156

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([0.0, 1.0, 3.0, 3.0])
        >>> print(softmax_pool(x, 2, axes=0, scale=100.0))
        [1. 3.]
    """
    over = windows(
        window, strides, padding, dilation=dilation, axes=axes, ceil_mode=ceil_mode
    )
    return Softmax(logits, scale).aggregate(x, over, where, empty_value, implementation)


def global_softmax_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    logits: ArrayLike | None = None,
    scale: ArrayLike = 1.0,
) -> jax.Array:
    """Average of all cells of the pooled axes, with softmax weights.

        y[n, c] = sum_i softmax_i(scale * logits[n, i, c]) * x[n, i, c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        logits: Numbers that broadcast to `x`, of equal rank, or one for each channel.
            `None`: `x` (SoftPool).
        scale: A number, or an array that broadcasts to `x`, such as one number for
            each channel (AutoPool). 0 gives the average, large numbers the maximum.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `logits` or `scale` does not broadcast to `x`.

    Gradient:
        For `x`, the weight `w` of a cell; for its logit, `scale * w * (x - y)`. With
        `logits=None` a cell gets both. A cell of weight 0 gets 0. Reverse and forward
        mode work to any order, also for `logits` and `scale`.

    References:
        A. Stergiou, R. Poppe, G. Kalliatakis, "Refining activation downsampling with
        SoftPool", ICCV 2021, https://arxiv.org/abs/2101.00440. B. McFee, J. Salamon,
        J. P. Bello, "Adaptive pooling operators for weakly labeled sound event
        detection", 2018, https://arxiv.org/abs/1804.10070. Z. Gao, L. Wang, G. Wu,
        "LIP: Local Importance-Based Pooling", ICCV 2019,
        https://arxiv.org/abs/1908.04156

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[1.0, 2.0], [3.0, 8.0]])
        >>> print(global_softmax_pool(x, axes=0, scale=jnp.asarray([0.0, 100.0])))
        [2. 8.]
    """
    by, over = Softmax(logits, scale), whole(axes, keepdims)
    return by.aggregate(x, over, where, empty_value)


def power_mean_pool(
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
    p: ArrayLike = 3.0,
    eps: float | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Power mean of each window; with `eps`, GeM pooling.

        y[n, o, c] = (sum_j |x_j| ** p / n_o) ** (1 / p),  j: the n_o cells of window o

    Padded cells are not counted. No power overflows.
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
        p: Exponent: `inf`, a number with `|p| >= 0.001`, or an array that broadcasts to
            `x`. The relative error grows as `1 / |p|` near 0.
        eps: If given, `max(x, eps)` takes the place of `|x|`, as in GeM.
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `p` is -inf or a number with `|p| < 0.001`, or does not broadcast
            to `x`.

    Gradient:
        The share of a cell is `sign(x) * (|x| / y) ** (p - 1) / n`, 0 for a cell of
        0; with `eps`, 0 for cells up to `eps`. An array `p` has a gradient. Reverse
        and forward mode work to any order; with `p=inf`, trace forward mode inside
        `with jaxpool.forward_mode():`.

    References:
        F. Radenovic, G. Tolias, O. Chum, "Fine-tuning CNN Image Retrieval with No
        Human Annotation", 2018, https://arxiv.org/abs/1711.02512

    Example:
        >>> import jax.numpy as jnp
        >>> print(power_mean_pool(jnp.asarray([1.0, 7.0, 5.0, 5.0]), 2, axes=0, p=2.0))
        [5. 5.]
    """
    over = windows(
        window, strides, padding, dilation=dilation, axes=axes, ceil_mode=ceil_mode
    )
    return PowerMean(p, eps).aggregate(x, over, where, empty_value, implementation)


def global_power_mean_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    p: ArrayLike = 3.0,
    eps: float | None = None,
) -> jax.Array:
    """Power mean of all cells of the pooled axes; with `eps`, GeM pooling.

        y[n, c] = (sum_i |x[n, i, c]| ** p / number of cells) ** (1 / p)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        p: Exponent: `inf`, a number with `|p| >= 0.001`, or an array that broadcasts to
            `x`. The relative error grows as `1 / |p|` near 0.
        eps: If given, `max(x, eps)` takes the place of `|x|`, as in GeM.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `p` is -inf or a number with `|p| < 0.001`, or does not broadcast
            to `x`.

    Gradient:
        The share of a cell is `sign(x) * (|x| / y) ** (p - 1) / n`, 0 for a cell of
        0; with `eps`, 0 for cells up to `eps`. An array `p` has a gradient. Reverse
        and forward mode work to any order; with `p=inf`, trace forward mode inside
        `with jaxpool.forward_mode():`.

    References:
        F. Radenovic, G. Tolias, O. Chum, "Fine-tuning CNN Image Retrieval with No
        Human Annotation", 2018, https://arxiv.org/abs/1711.02512

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_power_mean_pool(jnp.asarray([[1.0, 7.0]]), axes=1, p=2.0))
        [5.]
    """
    by, over = PowerMean(p, eps), whole(axes, keepdims)
    return by.aggregate(x, over, where, empty_value)
