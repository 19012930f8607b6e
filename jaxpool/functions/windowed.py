"""Pools over sliding windows: `max_pool`, `min_pool`, `sum_pool`, `avg_pool`, ...

Each function checks its arguments, resolves its window, and calls an aggregation.
Rules that all pools share are in docs/conventions.md.
"""

from collections.abc import Callable
from typing import Any, overload

import jax
from jax.typing import ArrayLike

from jaxpool.aggregations import dtypes
from jaxpool.engines.plan import Implementation
from jaxpool.functions import pooling
from jaxpool.functions.arguments import about, as_call, check_flag
from jaxpool.functions.monoids import reduce_by
from jaxpool.functions.padding import PaddingMode, pooled
from jaxpool.functions.parameters import as_divisor, as_order_or_array
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.resolve import Padding, resolve


def max_pool(
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
    """Maximum over each window.

        y[n, o, c] = max_j x[n, strides * o + dilation * j - low, c],  0 <= j < window

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
        Shape `[*batch, *out, channels]`, dtype of `x`, with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a window goes to one cell: the first NaN, else the first
        maximum in row-major order. Integers have no gradient. Reverse mode works to any
        order, and forward mode over it (`jax.hessian`). For forward mode alone
        (`jax.jvp`, `jax.jacfwd`), trace the call inside `with jaxpool.forward_mode():`.

    References:
        `torch.nn.functional.max_pool2d`, whose gradient goes to the last of several
        NaN. `flax.linen.max_pool`, whose default stride is 1.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
        >>> print(max_pool(jnp.asarray(rows), 2, axes=(0, 1)))
        [[ 20  30]
         [112  37]]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme(call, "max")


def min_pool(
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
    """Minimum over each window.

        y[n, o, c] = min_j x[n, strides * o + dilation * j - low, c],  0 <= j < window

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
        Shape `[*batch, *out, channels]`, dtype of `x`, with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a window goes to one cell: the first NaN, else the first
        minimum in row-major order. Integers have no gradient. Reverse mode works to any
        order, and forward mode over it (`jax.hessian`). For forward mode alone
        (`jax.jvp`, `jax.jacfwd`), trace the call inside `with jaxpool.forward_mode():`.

    References:
        `flax.nnx.min_pool`, whose default stride is 1. The grey erosion of mathematical
        morphology.

    Example:
        >>> import jax.numpy as jnp
        >>> print(min_pool(jnp.asarray([3.0, 1.0, 2.0, 5.0]), 2, axes=0))
        [1. 2.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme(call, "min")


def sum_pool(
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
    padding_mode: PaddingMode | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Sum over each window.

        y[n, o, c] = sum_j x[n, strides * o + dilation * j - low, c],  0 <= j < window

    Padded cells add 0. Integer sums wrap in the dtype of `x`: widen small dtypes first.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float, int or complex dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        padding_mode: `None`, or cells of `x` as padding: "reflect", "edge" or "wrap".
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x`, with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `padding_mode` is not a mode, or needs more cells than `x` has.

    Gradient:
        Linear: a cell gets the sum of the cotangents of its windows. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `lax.reduce_window` with `lax.add`, which accumulates in the dtype of `x`; here
        small dtypes accumulate in 32 bits. `torch.nn.functional.avg_pool2d` with
        `divisor_override=1`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(sum_pool(jnp.arange(6.0), 3, axes=0))
        [ 3. 12.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(
        x, resolve, geometry, where, empty_value, implementation, kinds="number"
    )
    return pooled(pooling.total, call, padding_mode)


def avg_pool(
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
    padding_mode: PaddingMode | None = None,
    count_include_pad: bool = False,
    divisor: float | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Average over each window.

        y[n, o, c] = sum_j x[n, strides * o + dilation * j - low, c] / number of cells

    Padded cells do not count, unless `count_include_pad` is True.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float, int or complex dtype.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        padding_mode: `None`, or cells of `x` as padding: "reflect", "edge" or "wrap".
        count_include_pad: Whether padded cells count in the divisor. Cells that only
            `ceil_mode` adds never count.
        divisor: Number that divides the sum of every window, instead of the count.
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `padding_mode` is not a mode, or needs more cells than `x` has.
        ValueError: If `divisor` is 0.

    Gradient:
        Linear: a cell gets the sum over its windows of cotangent / divisor. Integers
        have no gradient. Reverse and forward mode work to any order.

    References:
        `torch.nn.functional.avg_pool2d` and `flax.linen.avg_pool`, which count padded
        cells by default. Flax's default stride is 1.

    Example:
        >>> import jax.numpy as jnp
        >>> print(avg_pool(jnp.arange(5.0), 3, 2, "SAME", axes=0))
        [0.5 2.  3.5]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(
        x,
        resolve,
        geometry,
        where,
        empty_value,
        implementation,
        kinds="number",
        averaged=True,
    )
    with about(call.x.shape):
        check_flag("count_include_pad", count_include_pad)
        number = as_divisor(divisor, dtypes.summed(dtypes.averaged(call.x.dtype)))
    return pooled(pooling.mean, call, padding_mode, count_include_pad, number)


def lp_pool(
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
    padding_mode: PaddingMode | None = None,
    p: ArrayLike = 2.0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """p-norm of each window.

        y[n, o, c] = (sum_j |x[n, strides * o + dilation * j - low, c]| ** p) ** (1 / p)

    Padded cells add 0.
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
        padding_mode: `None`, or cells of `x` as padding: "reflect", "edge" or "wrap".
        p: Order of the norm, positive; `inf` gives the largest absolute value. Or an
            array that broadcasts to `x`, such as one number for each channel.
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `padding_mode` is not a mode, or needs more cells than `x` has.
        ValueError: If `p` is not positive.

    Gradient:
        The share of a cell is `sign(x) * (|x| / y) ** (p - 1)`. Where a cell or the
        norm is 0, derivatives of every order are 0. For example, the second derivative
        of a 2-norm at a cell of 0 is 0, where the exact one is `1 / y`. If the window
        has a NaN, the share is NaN for every cell that is not 0. `p=1` and `p=inf`
        follow `sum_pool` and `max_pool` of `|x|`. Integers have no gradient. Reverse
        and forward mode work to any order. With `p=inf`, trace forward mode inside
        `with jaxpool.forward_mode():`. An array `p` has a gradient too.

    References:
        `torch.nn.functional.lp_pool2d`, which does not take the absolute value, and
        scales up a window that `ceil_mode` cuts off. C. Gulcehre et al.,
        "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks", ECML
        2014, https://arxiv.org/abs/1311.1780

    Example:
        >>> import jax.numpy as jnp
        >>> print(lp_pool(jnp.asarray([3.0, -4.0, 0.0, 0.0]), 2, axes=0))
        [5. 0.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(
        x, resolve, geometry, where, empty_value, implementation, averaged=True
    )
    call, order = as_order_or_array(p, call)
    return pooled(pooling.norm, call, padding_mode, order)


def logsumexp_pool(
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
    padding_mode: PaddingMode | None = None,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Logarithm of the sum of exponentials of each window, a smooth maximum.

        y[n, o, c] = log(sum_j exp(x[n, strides * o + dilation * j - low, c]))

    Padded cells add nothing. No exponential overflows.
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
        padding_mode: `None`, or cells of `x` as padding: "reflect", "edge" or "wrap".
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x` (float32 for integers), with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `padding_mode` is not a mode, or needs more cells than `x` has.

    Gradient:
        The share of a cell is its softmax in the window, `exp(x - y)`. It is 0, to any
        order, if the cell is -inf. Cells of inf have equal shares. If the window has a
        NaN, the share is NaN for every cell that is not -inf. Integers have no
        gradient. Reverse and forward mode work to any order.

    References:
        `jax.nn.logsumexp`, whose gradient is NaN where all cells are -inf. P. O.
        Pinheiro, R. Collobert, "From Image-level to Pixel-level Labeling with
        Convolutional Networks", CVPR 2015, https://arxiv.org/abs/1411.6228

    Example:
        >>> import jax.numpy as jnp
        >>> print(logsumexp_pool(jnp.log(jnp.asarray([1.0, 3.0, 2.0, 2.0])), 2, axes=0))
        [1.3863 1.3863]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(
        x, resolve, geometry, where, empty_value, implementation, averaged=True
    )
    return pooled(pooling.logsumexp, call, padding_mode)


@overload
def pool(
    x: ArrayLike,
    init: ArrayLike,
    op: Callable[[Any, Any], Any],
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    implementation: Implementation | None = None,
) -> jax.Array: ...
@overload
def pool(
    x: Any,
    init: Any,
    op: Callable[[Any, Any], Any],
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    implementation: Implementation | None = None,
) -> Any: ...
def pool(
    x: Any,
    init: Any,
    op: Callable[[Any, Any], Any],
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    implementation: Implementation | None = None,
) -> Any:
    """Reduce each window with any associative operation.

        y[n, o, c] = op(... op(op(x_0, x_1), x_2) ..., x_k),  x_j: cells of the window

    Padded cells hold `init`. A cell may be a pytree, for example a value and its time.
    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; any number dtype, or bool. Or a
            pytree of such arrays of one shape.
        init: Value of padded cells, a scalar, or a pytree of scalars like `x`; it must
            be an identity of `op`.
        op: Associative function of two cells, scalars with the dtype of `x` or pytrees
            of them, which returns one. Cells are combined in row-major order.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        implementation: `None` selects "slices", or "doubling" for long windows, on
            every platform; "reduce_window", "slices" or "doubling" forces one.

    Returns:
        Shape `[*batch, *out, channels]`, dtype of `x`, with
        `out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, a window is larger than the
            padded input, or padding is at least as large as a window.
        TypeError: If a dtype is not supported, or a static argument is traced.
        TypeError: If `op` is not callable or changes a dtype.

    Gradient:
        The gradient of the calls of `op`. Reverse and forward mode work to any order.
        "reduce_window" has a gradient only for `lax.add`, and without dilation for
        `lax.max` and `lax.min`.

    References:
        `lax.reduce_window`. `flax.linen.pool`, whose default stride is 1.

    Example:
        >>> import jax.numpy as jnp
        >>> print(pool(jnp.arange(1.0, 7.0), 1.0, jnp.multiply, 3, axes=0))
        [  6. 120.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    reduced, _ = reduce_by(x, init, op, resolve, geometry, None, implementation)
    return reduced
