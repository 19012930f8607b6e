"""Maxima and minima with the indices of their cells.

An index is int32, so the pooled axes must have fewer than 2**31 cells.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxpool.aggregations.call import Call
from jaxpool.engines.plan import Implementation
from jaxpool.functions import pooling
from jaxpool.functions.arguments import about, as_call, check_flag
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.pooled import check_countable
from jaxpool.geometry.resolve import Padding, resolve, whole


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
    """Maximum over each window, and the index of its cell.

        i[n, o, c] = the first argmax_i x[n, i, c] of the cells i of window o
        y[n, o, c] = x[n, i[n, o, c], c]

    Padded cells are never the maximum.
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
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        `(values, indices)`, each of shape `[*batch, *out, channels]` with `out` as in
        `jaxpool.max_pool`. Values have the dtype of `x`. Indices are int32, flat and
        row-major over the pooled axes of `x`; -1 for a window without a valid cell.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a value goes to the cell at its index. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `torch.nn.functional.max_pool2d` with `return_indices=True`, whose index points
        to the last of several NaN. `tf.nn.max_pool_with_argmax` and ONNX count
        differently: see `jaxpool.convert_indices`.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
        >>> print(max_pool_with_indices(jnp.asarray(rows), 2, axes=(0, 1))[1])
        [[ 1  2]
         [12 10]]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = _check(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme_with_indices(call, "max")


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
    """Minimum over each window, and the index of its cell.

        i[n, o, c] = the first argmin_i x[n, i, c] of the cells i of window o
        y[n, o, c] = x[n, i[n, o, c], c]

    Padded cells are never the minimum.
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
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        `(values, indices)`, each of shape `[*batch, *out, channels]` with `out` as in
        `jaxpool.max_pool`. Values have the dtype of `x`. Indices are int32, flat and
        row-major over the pooled axes of `x`; -1 for a window without a valid cell.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a value goes to the cell at its index. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        It equals `jaxpool.max_pool_with_indices` of `-x`, with
        the values negated.

    Example:
        >>> import jax.numpy as jnp
        >>> print(min_pool_with_indices(jnp.asarray([3, 1, 2, 2]), 2, axes=0)[1])
        [1 2]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = _check(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme_with_indices(call, "min")


def global_max_pool_with_indices(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> tuple[jax.Array, jax.Array]:
    """Maximum over all cells of the pooled axes, and the index of its cell.

        i[n, c] = the first argmax_i x[n, i, c],  y[n, c] = x[n, i[n, c], c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        `(values, indices)`, each with the shape of `x` without the pooled axes. Values
        have the dtype of `x`. Indices are int32, flat and row-major over the pooled
        axes of `x`; -1 if there is no valid cell.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a value goes to the cell at its index. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `jnp.argmax` over one axis. `torch.max(x, dim)`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [9.0], [5.0]]])
        >>> print(global_max_pool_with_indices(x))
        (Array([[9.]], dtype=float32), Array([[1]], dtype=int32))
    """
    call = _check(x, whole, (axes,), where, empty_value, keepdims=keepdims)
    return _finish(pooling.extreme_with_indices(call, "max"), call, keepdims)


def global_min_pool_with_indices(
    x: ArrayLike,
    *,
    axes: Ints | None = None,
    keepdims: bool = False,
    where: ArrayLike | None = None,
    empty_value: float = 0,
) -> tuple[jax.Array, jax.Array]:
    """Minimum over all cells of the pooled axes, and the index of its cell.

        i[n, c] = the first argmin_i x[n, i, c],  y[n, c] = x[n, i[n, c], c]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[batch, *spatial, channels]`; float or int dtype.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        keepdims: Whether to keep the pooled axes, with size 1.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        `(values, indices)`, each with the shape of `x` without the pooled axes. Values
        have the dtype of `x`. Indices are int32, flat and row-major over the pooled
        axes of `x`; -1 if there is no valid cell.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a value goes to the cell at its index. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `jnp.argmin` over one axis. `torch.min(x, dim)`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[1.0], [9.0], [5.0]]])
        >>> print(global_min_pool_with_indices(x))
        (Array([[1.]], dtype=float32), Array([[0]], dtype=int32))
    """
    call = _check(x, whole, (axes,), where, empty_value, keepdims=keepdims)
    return _finish(pooling.extreme_with_indices(call, "min"), call, keepdims)


def _check(*arguments: Any, keepdims: bool = True) -> Call:
    """Check the arguments, and that int32 can count the cells."""
    call = as_call(*arguments)
    with about(call.x.shape):
        check_flag("keepdims", keepdims)
        check_countable("x", (dim.size for dim in call.over.dims))
    return call


def _finish(
    pooled: tuple[jax.Array, jax.Array], call: Call, keepdims: bool
) -> tuple[jax.Array, jax.Array]:
    """Remove the pooled axes, which have size 1, unless `keepdims`."""
    values, indices = pooled
    if keepdims:
        return values, indices
    axes = call.over.axes
    return jnp.squeeze(values, axes), jnp.squeeze(indices, axes)
