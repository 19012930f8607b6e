"""Maxima and minima together with the places they were found at."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpool.engines.lowering import Implementation
from jaxpool.functions import pooling
from jaxpool.functions.arguments import Call, about, as_call, check_flag
from jaxpool.functions.docs import documented
from jaxpool.geometry.window import Ints, Padding, check_countable, resolve, whole


@documented(padding="it never wins", dtype="that of `x`")
def max_pool_with_indices(
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
) -> tuple[jax.Array, jax.Array]:
    """Maximum over each window, and where in the input it is.

        i[n, o, c] = the first argmax_i x[n, i, c] of the cells i of window o
        y[n, o, c] = x[n, i[n, o, c], c]

    Args:
        {x}
        {geometry}
        {where}
        {implementation}

    Returns:
        {indexed_returns}

    Raises:
        {raises}

    Gradient:
        {indexed_gradient}

    References:
        `torch.nn.functional.max_pool2d(..., return_indices=True)`, whose index of a
        window with several NaN is that of the last. `tf.nn.max_pool_with_argmax` and
        ONNX count differently: see `jaxpool.convert_indices`.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
        >>> print(max_pool_with_indices(jnp.asarray(rows), 2, axes=(0, 1))[1])
        [[ 1  2]
         [12 10]]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = _check(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme_with_indices(*call, "max")


@documented(padding="it never wins", dtype="that of `x`")
def min_pool_with_indices(
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
) -> tuple[jax.Array, jax.Array]:
    """Minimum over each window, and where in the input it is.

        i[n, o, c] = the first argmin_i x[n, i, c] of the cells i of window o
        y[n, o, c] = x[n, i[n, o, c], c]

    Args:
        {x}
        {geometry}
        {where}
        {implementation}

    Returns:
        {indexed_returns}

    Raises:
        {raises}

    Gradient:
        {indexed_gradient}

    References:
        None elsewhere; `jaxpool.max_pool_with_indices` of `-x`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(min_pool_with_indices(jnp.asarray([3, 1, 2, 2]), 2, axes=0)[1])
        [1 2]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = _check(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme_with_indices(*call, "min")


@documented(extreme="maximum", dtype="that of `x`")
def global_max_pool_with_indices(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> tuple[jax.Array, jax.Array]:
    """Maximum over whole axes, and where it is.

        i[n, c] = the first argmax_i x[n, i, c],  y[n, c] = x[n, i[n, c], c]

    Args:
        {global}
        {where}

    Returns:
        {global_indexed_returns}

    Raises:
        {global_raises}

    Gradient:
        {indexed_gradient}

    References:
        `jnp.argmax`, over one axis; `torch.max(x, dim)`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [9.0], [5.0]]])
        >>> print(global_max_pool_with_indices(x))
        (Array([[9.]], dtype=float32), Array([[1]], dtype=int32))
    """
    call = _check(x, whole, (axes,), where, empty_value, keepdims=keepdims)
    return _finish(pooling.extreme_with_indices(*call, "max"), call, keepdims)


@documented(extreme="minimum", dtype="that of `x`")
def global_min_pool_with_indices(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> tuple[jax.Array, jax.Array]:
    """Minimum over whole axes, and where it is.

        i[n, c] = the first argmin_i x[n, i, c],  y[n, c] = x[n, i[n, c], c]

    Args:
        {global}
        {where}

    Returns:
        {global_indexed_returns}

    Raises:
        {global_raises}

    Gradient:
        {indexed_gradient}

    References:
        `jnp.argmin`, over one axis; `torch.min(x, dim)`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [9.0], [5.0]]])
        >>> print(global_min_pool_with_indices(x))
        (Array([[1.]], dtype=float32), Array([[0]], dtype=int32))
    """
    call = _check(x, whole, (axes,), where, empty_value, keepdims=keepdims)
    return _finish(pooling.extreme_with_indices(*call, "min"), call, keepdims)


def _check(*arguments: Any, keepdims: bool = True) -> Call:
    """The arguments of any pool, of which int32 can count the cells."""
    call = as_call(*arguments)
    with about(call.x.shape):
        check_flag("keepdims", keepdims)
        check_countable("x", (dim.size for dim in call.window.dims))
    return call


def _finish(
    pooled: tuple[jax.Array, jax.Array], call: Call, keepdims: bool
) -> tuple[jax.Array, jax.Array]:
    """Drop the pooled axes, which have size 1 by now, unless they are to be kept."""
    values, indices = pooled
    if keepdims:
        return values, indices
    axes = call.window.axes
    return jnp.squeeze(values, axes), jnp.squeeze(indices, axes)
