"""The pools of `flax.linen` and `flax.nnx`: same arguments, default stride 1.

Values and gradients equal Flax's, with these exceptions, where Flax is wrong: averages
of half floats and integers; several batch axes with explicit padding; NaN, which wins
its window and gets the gradient. Every size may be one int. A window larger than the
padded input, and padding as wide as the window, raise an error.

Maxima and minima have forward mode (`jax.jvp`) inside `with jaxpool.forward_mode():`.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike

import jaxpool
from jaxpool.functions.arguments import as_array
from jaxpool.geometry.axes import Ints, as_ints
from jaxpool.geometry.resolve import PADDINGS, Padding
from jaxpool.geometry.spelling import renamed

__all__ = ["avg_pool", "max_pool", "min_pool", "pool"]

_PADDINGS = PADDINGS[:3]  # Flax has no "CAUSAL"
_named = renamed(x="inputs", window="window_shape", op="reduce_fn")


@_named
def max_pool(
    inputs: ArrayLike,
    window_shape: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """`flax.linen.max_pool`; see `jaxpool.max_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(max_pool(jnp.asarray([[[3.0], [1.0], [2.0]]]), (2,)).ravel())
        [3. 2.]
    """
    geometry = _geometry(inputs, window_shape, strides, padding)
    return jaxpool.max_pool(inputs, *geometry)


@_named
def min_pool(
    inputs: ArrayLike,
    window_shape: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
) -> jax.Array:
    """`flax.nnx.min_pool`; see `jaxpool.min_pool`."""
    geometry = _geometry(inputs, window_shape, strides, padding)
    return jaxpool.min_pool(inputs, *geometry)


@_named
def avg_pool(
    inputs: ArrayLike,
    window_shape: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> jax.Array:
    """`flax.linen.avg_pool`; see `jaxpool.avg_pool`."""
    geometry = _geometry(inputs, window_shape, strides, padding)
    return jaxpool.avg_pool(inputs, *geometry, count_include_pad=count_include_pad)


@_named
def pool(
    inputs: ArrayLike,
    init: ArrayLike,
    reduce_fn: Callable[[Any, Any], Any],
    window_shape: Ints,
    strides: Ints | None,
    padding: Padding,
) -> jax.Array:
    """`flax.linen.pool`, differentiable if `reduce_fn` is; see `jaxpool.pool`.

    `init` must be an identity of `reduce_fn`, of the dtype of `inputs`.
    """
    geometry = _geometry(inputs, window_shape, strides, padding)
    return jaxpool.pool(inputs, init, reduce_fn, *geometry)


def _geometry(
    inputs: Any, window_shape: Ints, strides: Ints | None, padding: Padding
) -> tuple[Ints, Ints, Padding]:
    """Window, strides and padding as the native pools take them.

    An int as the window means all axes but the first, batch, and the last, channels.
    """
    window = as_ints("window_shape", window_shape)
    ndim = as_array(inputs, "any", "inputs").ndim
    if isinstance(window, int):
        if ndim < 3:
            raise ValueError(
                f"window_shape must have one int for each spatial axis where inputs "
                f"have no batch axis; got window_shape={window} for inputs of "
                f"{ndim} axes"
            )
        window = (window,) * (ndim - 2)
    if isinstance(padding, str):
        names = [name for name in _PADDINGS if name == padding.upper()]
        if not names:
            raise ValueError(
                f"padding must be one of {', '.join(_PADDINGS)}, or a (low, high) pair "
                f"for each spatial axis; got padding={padding.upper()!r}"
            )
        padding = names[0]
    return window, 1 if strides is None else strides, padding
