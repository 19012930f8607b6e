"""Pools over sliding windows: `max_pool`, `min_pool`, `sum_pool`, `avg_pool`, ...

Each checks its arguments, resolves its window, and says what to compute.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.monoid import Reduction
from jaxpool.aggregations.operation import traced
from jaxpool.engines.lowering import Implementation, check_implementation
from jaxpool.functions import pooling
from jaxpool.functions.arguments import (
    about,
    as_array,
    as_call,
    as_divisor,
    as_identity,
    as_order,
    check_flag,
)
from jaxpool.functions.docs import documented
from jaxpool.functions.entry import enter
from jaxpool.functions.padding import PaddingMode, pooled
from jaxpool.geometry.window import Ints, Padding, resolve


@documented(padding="it never wins", dtype="that of `x`", extreme="maximum")
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

    Args:
        {x}
        {geometry}
        {where}
        {implementation}

    Returns:
        {returns}

    Raises:
        {raises}

    Gradient:
        {winner_gradient}

    References:
        `torch.nn.functional.max_pool2d`; of two NaN in a window, PyTorch's
        gradient goes to the last. `flax.linen.max_pool`, whose default stride is 1.

    Example:
        >>> import jax.numpy as jnp
        >>> rows = [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]]
        >>> print(max_pool(jnp.asarray(rows), 2, axes=(0, 1)))
        [[ 20  30]
         [112  37]]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme(*call, "max")


@documented(padding="it never wins", dtype="that of `x`", extreme="minimum")
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

    Args:
        {x}
        {geometry}
        {where}
        {implementation}

    Returns:
        {returns}

    Raises:
        {raises}

    Gradient:
        {winner_gradient}

    References:
        `flax.nnx.min_pool`, whose default stride is 1. On an image, the grey erosion of
        mathematical morphology.

    Example:
        >>> import jax.numpy as jnp
        >>> print(min_pool(jnp.asarray([3.0, 1.0, 2.0, 5.0]), 2, axes=0))
        [1. 2.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(x, resolve, geometry, where, empty_value, implementation)
    return pooling.extreme(*call, "min")


@documented(
    padding="it adds nothing",
    dtype="that of `x`, in which sums of integers wrap: widen small ones first",
    rule="a cell gets the sum of its windows' cotangents",
)
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

    Args:
        {x}
        {geometry}
        {where}
        {padding_mode}
        {implementation}

    Returns:
        {returns}

    Raises:
        {raises}
        ValueError: If `padding_mode` is unknown, or `padding` too large for it.

    Gradient:
        {linear_gradient}

    References:
        `lax.reduce_window` with `lax.add`, but types of less than 32 bits accumulate in
        32; `torch.nn.functional.avg_pool2d` with `divisor_override=1`.

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


@documented(
    padding="it is not counted, unless `count_include_pad`",
    dtype="that of `x`, of integers float32",
    rule="a cell gets the sum of its windows' cotangents, divided as they were",
)
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

    Args:
        {x}
        {geometry}
        {where}
        {padding_mode}
        count_include_pad: Whether padded cells count in the divisor. The overhang of
            `ceil_mode` never does.
        divisor: Divide every window by this number instead, clipped ones included.
        {implementation}

    Returns:
        {returns}

    Raises:
        {raises}
        ValueError: If `padding_mode` is unknown, or `padding` too large for it.
        ValueError: If `divisor` is 0.

    Gradient:
        {linear_gradient}

    References:
        `torch.nn.functional.avg_pool2d`, where `count_include_pad` is True by default.
        `flax.linen.avg_pool`, likewise, and with a default stride of 1.

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


@documented(padding="it adds nothing", dtype="that of `x`, of integers float32")
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
    p: float = 2.0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """p-norm of each window.

        y[n, o, c] = (sum_j |x[n, strides * o + dilation * j - low, c]| ** p) ** (1 / p)

    Args:
        {x}
        {geometry}
        {where}
        {padding_mode}
        p: Order of the norm, positive; inf gives the largest absolute value.
        {implementation}

    Returns:
        {returns}

    Raises:
        {raises}
        ValueError: If `padding_mode` is unknown, or `padding` too large for it.
        ValueError: If `p` is not positive.

    Gradient:
        `sign(x) * (|x| / y) ** (p - 1)` per cell, and 0, to any order, for cells that
        are 0 (the second derivative of a 2-norm is 1 / y there, and is 0 here) and for
        windows whose norm is 0; NaN for cells that are, and for others
        but 0 in windows with a NaN. `p=1`, `p=inf`: as `sum_pool`, `max_pool` of
        `|x|`. Both modes; with `p=inf` forward mode inside
        `with jaxpool.forward_mode():`.

    References:
        `torch.nn.functional.lp_pool2d`, which takes no absolute value, and scales a
        window clipped by `ceil_mode` up to a full one. C. Gulcehre et al.,
        "Learned-Norm Pooling for Deep Feedforward and Recurrent Neural Networks",
        ECML 2014, https://arxiv.org/abs/1311.1780

    Example:
        >>> import jax.numpy as jnp
        >>> print(lp_pool(jnp.asarray([3.0, -4.0, 0.0, 0.0]), 2, axes=0))
        [5. 0.]
    """
    geometry = (window, strides, padding, dilation, axes, ceil_mode)
    call = as_call(
        x, resolve, geometry, where, empty_value, implementation, averaged=True
    )
    with about(call.x.shape):
        order = as_order(p)
    return pooled(pooling.norm, call, padding_mode, order)


@documented(padding="it holds `init`", dtype="that of `x`")
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
) -> jax.Array:
    """Reduce each window by any associative operation.

        y[n, o, c] = op(... op(op(x_0, x_1), x_2) ..., x_k),  the cells of the window

    Args:
        {x}
        init: Value of padded cells, a scalar; must be an identity of `op`.
        op: Associative function of two scalars of the dtype of `x`, to one of them.
            Cells enter in row-major order; how they are bracketed is not specified.
        {geometry}
        implementation: `None` means "slices", and "doubling" for windows long for
            their strides, on every platform; or a name, "reduce_window" too.

    Returns:
        {returns}

    Raises:
        {raises}
        TypeError: If `op` is not callable or does not keep the dtype.

    Gradient:
        That of the calls of `op`, in both modes. "reduce_window" has none, but for
        `lax.add`, and without dilation `lax.max` and `lax.min`.

    References:
        `lax.reduce_window`; `flax.linen.pool`, whose default stride is 1.

    Example:
        >>> import jax.numpy as jnp
        >>> print(pool(jnp.arange(1.0, 7.0), 1.0, jnp.multiply, 3, axes=0))
        [  6. 120.]
    """
    x = as_array(x, kinds="any")
    with about(x.shape):
        resolved = resolve(x.shape, window, strides, padding, dilation, axes, ceil_mode)
        check_implementation(implementation, resolved)
        identity = as_identity(init, x.dtype)
    operation, arrays = traced(op, x)
    is_known = isinstance(identity, np.ndarray)
    static = resolved, implementation, identity if is_known else None
    moved = None if is_known else identity
    return enter(Reduction(operation), static, resolved, x, moved, *arrays)
