"""Adaptive pools: the output size is given, and one bin of cells makes each output.

Named functions for what `aggregate` does over bins.
"""

import jax
from jax.typing import ArrayLike

from jaxpool.functions import pooling
from jaxpool.functions.arguments import about, as_call
from jaxpool.functions.by import Average, LogSumExp, Max
from jaxpool.functions.over import bins
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.bins import OptionalInts
from jaxpool.geometry.pooled import check_countable


def adaptive_max_pool(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> jax.Array:
    """Maximum over bins, for a given output size.

        y[n, o, c] = max_i x[n, i, c],
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`);
            `None` keeps the size of an axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a bin goes to one cell: the first NaN, else the first maximum
        in row-major order. Integers have no gradient. Reverse and forward mode work to
        any order.

    References:
        `torch.nn.functional.adaptive_max_pool2d`, whose gradient goes to the last of
        several NaN. `keras.ops.adaptive_max_pool` has the same bins, but on JAX it
        returns NaN for some sizes, such as 14 to 7.

    Example:
        >>> import jax.numpy as jnp
        >>> print(adaptive_max_pool(jnp.arange(10.0), 4, axes=0))
        [2. 4. 7. 9.]
    """
    return Max().aggregate(x, bins(output_shape, axes=axes))


def adaptive_max_pool_with_indices(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> tuple[jax.Array, jax.Array]:
    """Maximum over bins, for a given output size, and the index of its cell.

        y[n, o, c] = x[n, index[n, o, c], c] = max_i x[n, i, c],
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`);
            `None` keeps the size of an axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        `(values, indices)`, each of shape `[*batch, *output_shape, channels]`. Values
        have the dtype of `x`. Indices are int32, flat and row-major over the pooled
        axes of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The cotangent of a bin goes to one cell: the first NaN, else the first maximum
        in row-major order. Integers have no gradient. Reverse and forward mode work to
        any order.

    References:
        `torch.nn.functional.adaptive_max_pool2d` with `return_indices=True`, whose
        indices are int64 and point to the last of several NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([3.0, 1.0, 2.0, 4.0, 0.0])
        >>> y, index = adaptive_max_pool_with_indices(x, 2, axes=0)
        >>> print(y, index)
        [3. 4.] [0 3]
    """
    call = as_call(x, bins(output_shape, axes=axes).resolve, (), None, 0)
    with about(call.x.shape):
        check_countable("x", (dim.size for dim in call.over.dims))
    return pooling.extreme_with_indices(call, "max")


def adaptive_avg_pool(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> jax.Array:
    """Average over bins, for a given output size.

        y[n, o, c] = sum_i x[n, i, c] / number of cells i,
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float, int or complex dtype.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`);
            `None` keeps the size of an axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        Linear: a cell gets the sum over its bins of cotangent / number of cells.
        Integers have no gradient. Reverse and forward mode work to any order.

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
    return Average().aggregate(x, bins(output_shape, axes=axes))


def adaptive_logsumexp_pool(
    x: ArrayLike, output_shape: OptionalInts, *, axes: Ints | None = None
) -> jax.Array:
    """Logarithm of the sum of exponentials over bins, for a given output size.

        y[n, o, c] = log(sum_i exp(x[n, i, c])),
        floor(o * size / out) <= i < ceil((o + 1) * size / out)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`);
            `None` keeps the size of an axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `x` (float32
        for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.

    Gradient:
        The share of a cell is its softmax in the bin, `exp(x - y)`. It is 0 if the cell
        is -inf. Cells of inf have equal shares. Integers have no gradient. Reverse and
        forward mode work to any order.

    References:
        `jax.nn.logsumexp` of each bin of `torch.nn.functional.adaptive_max_pool2d`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.log(jnp.asarray([1.0, 3.0, 2.0, 2.0]))
        >>> print(adaptive_logsumexp_pool(x, 2, axes=0))
        [1.3863 1.3863]
    """
    return LogSumExp().aggregate(x, bins(output_shape, axes=axes))
