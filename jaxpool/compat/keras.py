"""The pools of `keras.ops`, and of the global pooling layers of Keras as functions.

Same arguments, `[batch, *spatial, channels]` or, with `data_format="channels_first"`,
`[batch, channels, *spatial]`. `data_format=None` means "channels_last"; the Keras
configuration is not read.

Values equal those of Keras, with these exceptions, where its JAX backend is wrong:
default strides, some sizes of adaptive pools, averages of half floats and integers,
and averages without a valid cell, which are 0.

Maxima and minima have forward mode (`jax.jvp`) inside `with jaxpool.forward_mode():`.
"""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import jaxpool
from jaxpool.functions.arguments import as_array, as_given
from jaxpool.geometry.axes import Ints, as_ints
from jaxpool.geometry.resolve import PaddingName
from jaxpool.geometry.spelling import renamed

__all__ = [
    "DataFormat",
    "Padding",
    "adaptive_average_pool",
    "adaptive_max_pool",
    "average_pool",
    "global_average_pooling",
    "global_max_pooling",
    "max_pool",
]

DataFormat: TypeAlias = Literal["channels_last", "channels_first"]
Padding: TypeAlias = Literal["valid", "same"]


_named = renamed(x="inputs", window="pool_size", output_shape="output_size")


@_named
def max_pool(
    inputs: ArrayLike,
    pool_size: Ints,
    strides: Ints | None = None,
    padding: Padding = "valid",
    data_format: DataFormat | None = None,
) -> jax.Array:
    """`keras.ops.max_pool`; see `jaxpool.max_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[3.0], [1.0], [2.0]]])
        >>> print(max_pool(x, 2, padding="same").ravel())
        [3. 2.]
    """
    axes = _axes(inputs, data_format)
    return jaxpool.max_pool(inputs, pool_size, strides, _padding(padding), axes=axes)


@_named
def average_pool(
    inputs: ArrayLike,
    pool_size: Ints,
    strides: Ints | None = None,
    padding: Padding = "valid",
    data_format: DataFormat | None = None,
) -> jax.Array:
    """`keras.ops.average_pool`; see `jaxpool.avg_pool`."""
    axes = _axes(inputs, data_format)
    return jaxpool.avg_pool(inputs, pool_size, strides, _padding(padding), axes=axes)


@_named
def adaptive_max_pool(
    inputs: ArrayLike, output_size: Ints, data_format: DataFormat | None = None
) -> jax.Array:
    """`keras.ops.adaptive_max_pool`; see `jaxpool.adaptive_max_pool`."""
    axes, sizes = _axes(inputs, data_format), as_ints("output_size", output_size)
    return jaxpool.adaptive_max_pool(inputs, sizes, axes=axes)


@_named
def adaptive_average_pool(
    inputs: ArrayLike, output_size: Ints, data_format: DataFormat | None = None
) -> jax.Array:
    """`keras.ops.adaptive_average_pool`; see `jaxpool.adaptive_avg_pool`."""
    axes, sizes = _axes(inputs, data_format), as_ints("output_size", output_size)
    return jaxpool.adaptive_avg_pool(inputs, sizes, axes=axes)


@_named
def global_max_pooling(
    inputs: ArrayLike,
    mask: ArrayLike | None = None,
    data_format: DataFormat | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`keras.layers.GlobalMaxPooling1D` to `3D`; see `jaxpool.global_max_pool`.

    Keras takes no `mask` here. This function does, as `global_average_pooling`. The
    first of equal maxima gets the gradient; Keras on JAX divides it.
    """
    axes, where = _masked(inputs, mask, data_format)
    return jaxpool.global_max_pool(inputs, axes=axes, keepdims=keepdims, where=where)


@_named
def global_average_pooling(
    inputs: ArrayLike,
    mask: ArrayLike | None = None,
    data_format: DataFormat | None = None,
    keepdims: bool = False,
) -> jax.Array:
    """`keras.layers.GlobalAveragePooling1D` to `3D`; see `jaxpool.global_avg_pool`.

    `mask` says which steps take part: booleans, or integers, of shape
    `[batch, *spatial]`, in 2-D and 3-D too. Without any, the result is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([[[3.0], [1.0], [7.0]]])
        >>> print(global_average_pooling(x, mask=jnp.asarray([[True, True, False]])))
        [[2.]]
    """
    axes, where = _masked(inputs, mask, data_format)
    return jaxpool.global_avg_pool(inputs, axes=axes, keepdims=keepdims, where=where)


def _axes(inputs: Any, data_format: Any) -> tuple[int, ...]:
    """The spatial axes."""
    shape = as_array(inputs, "any", "inputs").shape
    if len(shape) < 3:
        raise ValueError(
            "inputs must have a batch axis, a channels axis and at least one more; "
            f"got inputs.shape={shape}"
        )
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(
            'data_format must be "channels_last" or "channels_first"; '
            f"got data_format={data_format!r} for inputs.shape={shape}"
        )
    first = 2 if data_format == "channels_first" else 1
    return tuple(range(first, first + len(shape) - 2))


def _padding(padding: Any) -> PaddingName:
    names: tuple[PaddingName, ...] = "VALID", "SAME"
    for name in names:
        if isinstance(padding, str) and padding.upper() == name:
            return name
    raise ValueError(f'padding must be "valid" or "same"; got padding={padding!r}')


def _masked(
    inputs: Any, mask: Any, data_format: Any
) -> tuple[tuple[int, ...], jax.Array | None]:
    """The spatial axes, and the mask as one of `inputs`."""
    axes = _axes(inputs, data_format)
    if mask is None:
        return axes, None
    mask = as_given("mask", mask, "an array of booleans or integers")
    if mask.dtype != np.bool_ and not jnp.issubdtype(mask.dtype, jnp.integer):
        raise TypeError(
            "mask must be an array of booleans or integers; "
            f"got mask.dtype={mask.dtype}"
        )
    shape = as_array(inputs, "any", "inputs").shape
    wanted = tuple(shape[axis] for axis in (0, *axes))
    if mask.shape != wanted:
        raise ValueError(
            f"mask must have shape {wanted}, the batch and spatial axes of inputs; "
            f"got mask.shape={mask.shape} for inputs.shape={shape}"
        )
    channels = 1 if axes[0] == 2 else -1
    return axes, jnp.expand_dims(jnp.asarray(mask, bool), channels)
