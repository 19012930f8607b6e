"""Pools over whole axes: one result for everything that `axes` cover."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpool.functions import pooling
from jaxpool.functions.arguments import Call, about, as_call, as_order, check_flag
from jaxpool.functions.docs import documented
from jaxpool.geometry.window import Ints, whole


@documented(extreme="maximum", dtype="that of `x`")
def global_max_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Maximum over whole axes.

        y[n, c] = max_i x[n, i, c]

    Args:
        {global}
        {where}

    Returns:
        {global_returns}

    Raises:
        {global_raises}

    Gradient:
        {winner_gradient}

    References:
        `keras.layers.GlobalMaxPooling1D`, which takes no mask. `jnp.max`, whose
        gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [5.0], [9.0]]])
        >>> print(global_max_pool(x, where=jnp.asarray([[[True], [True], [False]]])))
        [[5.]]
    """
    call = _check(x, axes, keepdims, where, empty_value)
    pooled = pooling.extreme(*call, "max")
    return _finish(pooled, call, keepdims)


@documented(extreme="minimum", dtype="that of `x`")
def global_min_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Minimum over whole axes.

        y[n, c] = min_i x[n, i, c]

    Args:
        {global}
        {where}

    Returns:
        {global_returns}

    Raises:
        {global_raises}

    Gradient:
        {winner_gradient}

    References:
        `jnp.min`, whose gradient is divided among ties.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_min_pool(jnp.asarray([[3.0, 1.0], [2.0, 4.0]]), axes=1))
        [1. 2.]
    """
    call = _check(x, axes, keepdims, where, empty_value)
    pooled = pooling.extreme(*call, "min")
    return _finish(pooled, call, keepdims)


@documented(dtype="that of `x`", rule="each cell gets the cotangent")
def global_sum_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Sum over whole axes.

        y[n, c] = sum_i x[n, i, c]

    Args:
        {global}
        {where}

    Returns:
        {global_returns}

    Raises:
        {global_raises}

    Gradient:
        {linear_gradient}

    References:
        `jnp.sum`, which widens small integers.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_sum_pool(jnp.asarray([[3.0, 1.0], [2.0, 4.0]]), axes=1))
        [4. 6.]
    """
    call = _check(x, axes, keepdims, where, empty_value, kinds="number")
    pooled = pooling.total(*call)
    return _finish(pooled, call, keepdims)


@documented(
    dtype="that of `x`, of integers float32",
    rule="each cell gets the cotangent divided by their number",
)
def global_avg_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> jax.Array:
    """Average over whole axes.

        y[n, c] = sum_i x[n, i, c] / number of cells i

    Args:
        {global}
        {where}

    Returns:
        {global_returns}

    Raises:
        {global_raises}

    Gradient:
        {linear_gradient}

    References:
        M. Lin, Q. Chen, S. Yan, "Network In Network", ICLR 2014,
        https://arxiv.org/abs/1312.4400. `keras.layers.GlobalAveragePooling1D`, which
        is NaN where the mask is empty.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [5.0], [9.0]]])
        >>> print(global_avg_pool(x, where=jnp.asarray([[[True], [True], [False]]])))
        [[3.]]
    """
    call = _check(x, axes, keepdims, where, empty_value, kinds="number", averaged=True)
    pooled = pooling.mean(*call)
    return _finish(pooled, call, keepdims)


@documented(dtype="that of `x`, of integers float32")
def global_lp_pool(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    p: float = 2.0,
) -> jax.Array:
    """p-norm over whole axes.

        y[n, c] = (sum_i |x[n, i, c]| ** p) ** (1 / p)

    Args:
        {global}
        {where}
        p: Order of the norm, positive; inf gives the largest absolute value.

    Returns:
        {global_returns}

    Raises:
        {global_raises}
        ValueError: If `p` is not positive.

    Gradient:
        `sign(x) * (|x| / y) ** (p - 1)` per cell, and 0 for cells that are 0 and for
        windows whose norm is 0. Both modes; with `p=inf` forward mode inside
        `with jaxpool.forward_mode():`.

    References:
        `jnp.linalg.norm`, whose gradient at 0 is NaN. ONNX `GlobalLpPool`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(global_lp_pool(jnp.asarray([[3.0, -4.0], [0.0, 0.0]]), axes=1))
        [5. 0.]
    """
    call = _check(x, axes, keepdims, where, empty_value, averaged=True)
    with about(call.x.shape):
        order = as_order(p)
    pooled = pooling.norm(*call, order)
    return _finish(pooled, call, keepdims)


def _check(
    x: Any,
    axes: Ints | None,
    keepdims: bool,
    where: Any,
    empty_value: Any,
    **options: Any,
) -> Call:
    """Check what the global pools have in common."""
    call = as_call(x, whole, (axes,), where, empty_value, **options)
    with about(call.x.shape):
        check_flag("keepdims", keepdims)
    return call


def _finish(pooled: jax.Array, call: Call, keepdims: bool) -> jax.Array:
    """Drop the pooled axes, which have size 1 by now, unless they are to be kept."""
    return pooled if keepdims else jnp.squeeze(pooled, call.window.axes)
