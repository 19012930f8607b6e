"""Sizes of arrays, which may be symbols of `jax.export` that stand for any number.

A symbol adds, multiplies and divides like an integer, and so do expressions of some. A
comparison raises where it hangs on what a symbol stands for, and there is no `range`.
Like the geometry that is made of sizes, this module imports no jax.
"""

from jaxpool.geometry.spelling import spelled


def is_symbolic(size: int) -> bool:
    """Whether a size is a symbol, or an expression of some."""
    return not isinstance(size, int)


def is_below(size: int, least: int, axis: int) -> bool:
    """Whether a size is; it is an error if that hangs on what a symbol stands for."""
    if not is_symbolic(size):
        return size < least
    try:
        return bool(size < least)
    except Exception:  # of a class of jax's own
        raise ValueError(
            f"{spelled('x')} must have at least {least} cells on axis {axis}, whatever "
            f"its symbolic size {size} stands for: add the constraint "
            f"'{size} >= {least}' to jax.export.symbolic_shape"
        ) from None


def same_pads(size: int, extent: int, stride: int, axis: int) -> int:
    """The cells of padding with which windows begin at each `stride` cells.

    `(out - 1) * stride + extent - size` with `out = ceil(size / stride)`, at least 0.
    """
    if extent == 1:
        return 0
    total = extent - 1 - (size - 1) % stride
    if not is_symbolic(total):
        return max(total, 0)
    if extent < stride:
        raise ValueError(
            "window must be at least as large as strides with padding='SAME', whose "
            f"cells depend on the symbolic size {size} of axis {axis} otherwise; got "
            f"a window of {extent} cells with strides={stride}"
        )
    return total


def check_no_rest(slack: int, stride: int, size: int, axis: int) -> None:
    """Refuse a symbolic size that may leave a rest behind the last window."""
    if -(-slack // stride) != slack // stride:
        raise ValueError(
            f"ceil_mode must be False for the symbolic size {size} of axis {axis}, "
            f"which may leave a rest with strides={stride}; got ceil_mode=True"
        )


def check_known(size: int, axis: int) -> None:
    """Refuse a symbolic size of an axis that is cut into bins."""
    if is_symbolic(size):
        raise ValueError(
            f"{spelled('x')} must have sizes that are known when tracing on axes that "
            f"are cut into bins; got the symbolic size {size} of axis {axis}, which a "
            "global pool or a window takes"
        )
