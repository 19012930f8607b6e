"""Sizes of arrays: integers, or symbols of `jax.export` such as `h`.

A symbol, or an expression of symbols, adds, multiplies and divides like an integer. It
has no `range`. A comparison raises if the answer depends on the value of the symbol.
Like all of `geometry`, this module imports no jax.
"""

from jaxpool.geometry.spelling import spelled


def is_symbolic(size: int) -> bool:
    """Whether a size is a symbol or an expression of symbols."""
    return not isinstance(size, int)


def is_below(size: int, least: int, axis: int) -> bool:
    """Whether `size < least`. Raises if this depends on the value of a symbol."""
    if not is_symbolic(size):
        return size < least
    try:
        return bool(size < least)
    except Exception:  # its class is in jax
        raise ValueError(
            f"{spelled('x')} must have at least {least} cells on axis {axis}; got the "
            f"symbolic size {size}: add the constraint '{size} >= {least}' to "
            "jax.export.symbolic_shape"
        ) from None


def same_pads(size: int, extent: int, stride: int, axis: int) -> int:
    """The number of padded cells of "SAME", so that each `stride` cells start a window.

    `(out - 1) * stride + extent - size` with `out = ceil(size / stride)`, at least 0.
    """
    if extent == 1:
        return 0
    total = extent - 1 - (size - 1) % stride
    if not is_symbolic(total):
        return max(total, 0)
    if extent < stride:
        raise ValueError(
            "window must be at least as large as strides with padding='SAME' and the "
            f"symbolic size {size} of axis {axis}; got "
            f"a window of {extent} cells with strides={stride}"
        )
    return total


def check_no_rest(slack: int, stride: int, size: int, axis: int) -> None:
    """Raise if a symbolic size may leave cells after the last window."""
    if -(-slack // stride) != slack // stride:
        raise ValueError(
            f"ceil_mode must be False for the symbolic size {size} of axis {axis}, "
            f"which strides={stride} may not divide; got ceil_mode=True"
        )


def check_known(size: int, axis: int) -> None:
    """Raise for a symbolic size of an axis of bins, segments or neighbors."""
    if is_symbolic(size):
        raise ValueError(
            f"{spelled('x')} must have constant sizes on axes of bins, segments and "
            f"neighbors; got the symbolic size {size} of axis {axis} (global and "
            "windowed pools accept it)"
        )
