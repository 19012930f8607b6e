"""Padding that is data: the input's own cells, repeated around it."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from jaxpool._arguments import Call, about
from jaxpool._sharding import in_auto_mode
from jaxpool._sizes import is_below, is_symbolic
from jaxpool._window import Window

PaddingMode: TypeAlias = Literal["reflect", "edge", "wrap"]


def pooled(
    pool: Callable[..., jax.Array], call: Call, mode: PaddingMode | None, *options: Any
) -> jax.Array:
    """The pool of an input that holds its padding, if there is a mode."""
    if mode is None:
        return pool(*call, *options)
    with about(call.x.shape):
        _check_mode(mode, call.window)

    def of_extended(x: jax.Array, mask: jax.Array | None) -> jax.Array:
        return pool(*_extended(call._replace(x=x, mask=mask), mode), *options)

    return in_auto_mode(of_extended, call.window, call.x, call.mask)


def _extended(call: Call, mode: PaddingMode) -> Call:
    """The same windows over an input that holds the padding."""
    x, window, mask, empty, implementation = call
    widths = [(0, 0)] * x.ndim
    for axis, dim in zip(window.axes, window.dims, strict=True):
        widths[axis] = dim.low, dim.high
    x = jnp.pad(x, widths, mode)
    if mask is not None:
        of_all = [
            pad if n != 1 else (0, 0) for pad, n in zip(widths, mask.shape, strict=True)
        ]
        mask = jnp.pad(mask, of_all, mode)
    return Call(x, window.filled(), mask, empty, implementation)


def _check_mode(mode: str, window: Window) -> None:
    """Refuse an unknown mode, and padding of cells that the input does not have."""
    if not isinstance(mode, str) or mode not in get_args(PaddingMode):
        raise ValueError(
            f"padding_mode must be None or one of {', '.join(get_args(PaddingMode))}; "
            f"got padding_mode={mode!r}"
        )
    beside = {"reflect": 1}.get(mode, 0)
    for axis, dim in zip(window.axes, window.dims, strict=True):
        most = max(dim.low, dim.high)
        if mode == "wrap" and most and is_symbolic(dim.size):
            raise ValueError(
                "padding_mode must not be 'wrap' where there is padding for the "
                f"symbolic size {dim.size} of axis {axis}"
            )
        if mode != "edge" and is_below(dim.size, most + beside, axis):
            raise ValueError(
                f"padding must be at most {dim.size - beside} on axis {axis} with "
                f"padding_mode={mode!r}; got padding={(dim.low, dim.high)}"
            )
