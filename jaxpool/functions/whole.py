"""Global pools: one output for all cells of the pooled axes.

Named functions for what `aggregate` does over whole axes.
"""

import jax
from jax.typing import ArrayLike

from jaxpool.functions.by import Average, LogSumExp, Lp, Max, Min, Sum
from jaxpool.functions.over import whole
from jaxpool.geometry.axes import Ints


def global_max_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Maximum over all cells of the pooled axes.

        y[n, c] = max_i x[n, i, c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of an output goes to one cell: the first NaN, else the first
        maximum in row-major order. Integers have no gradient. Reverse mode works to any
        order, and forward mode over it (`jax.hessian`). For forward mode alone
        (`jax.jvp`, `jax.jacfwd`), trace the call inside `with jaxpool.forward_mode():`.

    References:
        `keras.layers.GlobalMaxPooling1D`, which accepts no mask. `jnp.max`, whose
        gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [5.0], [9.0]]])
        >>> print(global_max_pool(x, where=jnp.asarray([[[True], [True], [False]]])))
        [[5.]]
    """
    return Max().aggregate(x, whole(axes, keepdims), where, empty_value)


def global_min_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Minimum over all cells of the pooled axes.

        y[n, c] = min_i x[n, i, c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of an output goes to one cell: the first NaN, else the first
        minimum in row-major order. Integers have no gradient. Reverse mode works to any
        order, and forward mode over it (`jax.hessian`). For forward mode alone
        (`jax.jvp`, `jax.jacfwd`), trace the call inside `with jaxpool.forward_mode():`.

    References:
        `jnp.min`, whose gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_min_pool(jnp.asarray([[3.0, 1.0], [2.0, 4.0]]), axes=1))
        [1. 2.]
    """
    return Min().aggregate(x, whole(axes, keepdims), where, empty_value)


def global_sum_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Sum over all cells of the pooled axes.

        y[n, c] = sum_i x[n, i, c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float, int or complex dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        Linear: each cell gets the cotangent. Integers have no gradient. Reverse and
        forward mode work to any order.

    References:
        `jnp.sum`, which widens small integers.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_sum_pool(jnp.asarray([[3.0, 1.0], [2.0, 4.0]]), axes=1))
        [4. 6.]
    """
    return Sum().aggregate(x, whole(axes, keepdims), where, empty_value)


def global_avg_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Average over all cells of the pooled axes.

        y[n, c] = sum_i x[n, i, c] / number of cells i

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float, int or complex dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        Linear: each cell gets the cotangent divided by the number of cells. Integers
        have no gradient. Reverse and forward mode work to any order.

    References:
        M. Lin, Q. Chen, S. Yan, "Network In Network", ICLR 2014,
        https://arxiv.org/abs/1312.4400. `keras.layers.GlobalAveragePooling1D`, which
        returns NaN where the mask is empty.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [5.0], [9.0]]])
        >>> print(global_avg_pool(x, where=jnp.asarray([[[True], [True], [False]]])))
        [[3.]]
    """
    return Average().aggregate(x, whole(axes, keepdims), where, empty_value)


def global_lp_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    p: ArrayLike = 2.0,
) -> jax.Array:
    """p-norm over all cells of the pooled axes.

        y[n, c] = (sum_i |x[n, i, c]| ** p) ** (1 / p)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        p: Order of the norm, positive; `inf` gives the largest absolute value. Or an
            array that broadcasts to `x`, such as one number for each channel.

    Returns:
        Shape of `x` without the pooled axes, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `p` is not positive.

    Gradient:
        The share of a cell is `sign(x) * (|x| / y) ** (p - 1)`. It is 0 if the cell or
        the norm is 0. Integers have no gradient. Reverse and forward mode work to any
        order. With `p=inf`, trace forward mode inside `with jaxpool.forward_mode():`.
        An array `p` has a gradient too.

    References:
        `jnp.linalg.norm`, whose gradient at 0 is NaN. ONNX `GlobalLpPool`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_lp_pool(jnp.asarray([[3.0, -4.0], [0.0, 0.0]]), axes=1))
        [5. 0.]
    """
    return Lp(p).aggregate(x, whole(axes, keepdims), where, empty_value)


def global_logsumexp_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Logarithm of the sum of exponentials of all cells of the pooled axes.

        y[n, c] = log(sum_i exp(x[n, i, c]))

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

    Gradient:
        The share of a cell is its softmax over all cells, `exp(x - y)`. It is 0 if the
        cell is -inf. Cells of inf have equal shares. Integers have no gradient. Reverse
        and forward mode work to any order.

    References:
        `jax.nn.logsumexp`, whose gradient is NaN where all cells are -inf, or one inf.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_logsumexp_pool(jnp.log(jnp.asarray([[1.0, 3.0]])), axes=1))
        [1.3863]
    """
    return LogSumExp().aggregate(x, whole(axes, keepdims), where, empty_value)
