"""`padding_mode`: padding that is data, with cells of the input.

The input and the mask are extended first; then the pool has no padding.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.functions.arguments import about
from jaxpool.functions.entry import enter
from jaxpool.geometry.sizes import is_below, is_symbolic
from jaxpool.geometry.window import AxisWindow, Window

PaddingMode: TypeAlias = Literal["reflect", "edge", "wrap"]


def pooled(
    pool: Callable[..., jax.Array], call: Call, mode: PaddingMode | None, *options: Any
) -> jax.Array:
    """The pool of the input, extended by its padding if there is a mode."""
    if mode is None:
        return pool(call, *options)
    window: Any = call.over  # no bins have a padding
    with about(call.x.shape):
        check_mode(mode, window)
    static = (pool, mode, window, call.empty, call.implementation, options)
    return enter(_of_extended, static, window, call.x, call.mask)


def _of_extended(
    static: tuple[Any, ...], x: jax.Array, mask: jax.Array | None
) -> jax.Array:
    pool, mode, window, empty, implementation, options = static
    for axis, dim in zip(window.axes, window.dims, strict=True):
        x = _with_sides(x, axis, dim, mode)
        if mask is not None and mask.shape[axis] != 1:
            mask = _with_sides(mask, axis, dim, mode)
    extended = Call(x, window.filled(), mask, empty, implementation)
    return pool(extended, *options)


def _with_sides(
    array: jax.Array, axis: int, dim: AxisWindow, mode: PaddingMode
) -> jax.Array:
    """The array with padding on both sides of one axis.

    Not `jnp.pad`: some versions refuse symbolic sizes, even on axes without padding.
    """
    if not (dim.low or dim.high):
        return array
    size, low, high = dim.size, dim.low, dim.high
    cells = partial(lax.slice_in_dim, array, axis=axis)
    if mode == "reflect":
        before = lax.rev(cells(1, low + 1), [axis])
        behind = lax.rev(cells(size - 1 - high, size - 1), [axis])
    elif mode == "wrap":
        before, behind = cells(size - low, size), cells(0, high)
    else:
        before = jnp.repeat(cells(0, 1), low, axis)
        behind = jnp.repeat(cells(size - 1, size), high, axis)
    return lax.concatenate([before, array, behind], axis)


def check_mode(mode: str, window: Window) -> None:
    """Raise for another mode, or if the input has too few cells for the padding."""
    if not isinstance(mode, str) or mode not in get_args(PaddingMode):
        raise ValueError(
            f"padding_mode must be None or one of {', '.join(get_args(PaddingMode))}; "
            f"got padding_mode={mode!r}"
        )
    edge = {"reflect": 1}.get(mode, 0)
    for axis, dim in zip(window.axes, window.dims, strict=True):
        if is_symbolic(dim.low) or is_symbolic(dim.high):
            raise ValueError(
                f"padding must be numbers, as the symbolic size of axis {axis} decides "
                f"what is padded with padding_mode={mode!r}; got padding="
                f"{(dim.low, dim.high)}"
            )
        least = max(dim.low, dim.high) + edge
        if mode != "edge" and is_below(dim.size, least, axis):
            raise ValueError(
                f"padding must be at most {dim.size - edge} on axis {axis} with "
                f"padding_mode={mode!r}; got padding={(dim.low, dim.high)}"
            )
