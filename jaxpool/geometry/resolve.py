"""Windows as users write them, resolved once to integers.

The output size follows PyTorch (`aten/native/Pool.h`), "SAME" follows TensorFlow and
XLA. Everything is checked before a `Window` is made.
"""

from collections.abc import Sequence
from typing import Literal, SupportsIndex, TypeAlias, get_args

from jaxpool.geometry.axes import (
    Ints,
    as_int,
    as_ints,
    as_items,
    check_at_least,
    check_at_most,
    check_flag,
    no_ints,
    per_axis,
    pooled_axes,
    resolve_axes,
)
from jaxpool.geometry.pooled import MOST, check_countable, check_filled
from jaxpool.geometry.sizes import check_no_rest, is_below, is_symbolic, same_pads
from jaxpool.geometry.spelling import spelled
from jaxpool.geometry.window import AxisWindow, Window

PaddingName: TypeAlias = Literal["VALID", "SAME", "SAME_LOWER", "CAUSAL"]
Padding: TypeAlias = PaddingName | Ints | Sequence[tuple[SupportsIndex, SupportsIndex]]

PADDINGS: tuple[PaddingName, ...] = get_args(PaddingName)


def resolve(
    shape: Sequence[int],
    window: Ints,
    strides: Ints | None,
    padding: Padding,
    dilation: Ints,
    axes: Ints | None,
    ceil_mode: bool,
) -> Window:
    """The geometry of pooling an array of `shape`. Raises for invalid arguments."""
    positions, lengths = pooled_axes("window", as_ints("window", window), axes, shape)
    rank = len(positions)
    if isinstance(strides, str) and strides.upper() in PADDINGS:
        raise TypeError(
            "strides must be an int or a sequence of ints; "
            f"got strides={strides!r}: did you mean padding={strides.upper()!r}?"
        )
    steps = lengths if strides is None else per_axis("strides", strides, rank)
    dilations = per_axis("dilation", dilation, rank)
    for name, values in (
        ("window", lengths),
        ("strides", steps),
        ("dilation", dilations),
    ):
        check_at_least(name, values, 1)
    check_at_most("window", lengths, MOST)
    check_at_most("strides", steps, MOST)
    for length, distance in zip(lengths, dilations, strict=True):
        if not is_symbolic(length) and (length - 1) * distance >= MOST:
            raise ValueError(
                f"{spelled('window')} must span at most 2**31 - 1 cells on each axis; "
                f"got {spelled('window')}={length} with "
                f"{spelled('dilation')}={distance}"
            )
    pads = _pads(padding, rank)
    check_flag("ceil_mode", ceil_mode)
    dims = {}
    for i, axis in enumerate(positions):
        check_countable("x", shape[axis : axis + 1])
        pad = pads if isinstance(pads, str) else pads[i]
        numbers = (lengths[i], steps[i], dilations[i])
        dims[axis] = _axis_window(axis, shape, *numbers, pad, ceil_mode)
    ordered = tuple(sorted(dims))
    return Window(ordered, tuple(dims[axis] for axis in ordered))


def whole(shape: Sequence[int], axes: Ints | None) -> Window:
    """One window over `axes`. `None`: all axes except the first and the last."""
    if axes is None:
        if len(shape) < 3:
            raise ValueError(
                "axes must be given for an input without spatial axes between the "
                "first axis (batch) and the last axis (channels); got axes=None"
            )
        axes = range(1, len(shape) - 1)
    positions = tuple(sorted(resolve_axes(axes, shape)))
    dims = (
        _axis_window(axis, shape, shape[axis], 1, 1, (0, 0), False)
        for axis in positions
    )
    return Window(positions, tuple(dims))


def _pads(padding: Padding, rank: int) -> str | tuple[tuple[int, int], ...]:
    """A named padding, or one `(low, high)` pair per pooled axis."""
    if isinstance(padding, str):
        if padding not in PADDINGS:
            raise ValueError(
                f"padding must be one of {', '.join(PADDINGS)}, an int, or ints; "
                f"got padding={padding!r}"
            )
        return padding
    try:
        pairs = tuple(tuple(map(as_int, as_items(pair))) for pair in as_items(padding))
    except TypeError as error:
        if type(error) is not TypeError:  # a class of jax, for a traced value
            raise no_ints("padding", padding, error) from None
        pairs = tuple((n, n) for n in per_axis("padding", padding, rank))
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise ValueError(
            f"padding must have one int or one (low, high) pair for each of the {rank} "
            f"pooled axes; got padding={padding}"
        )
    if any(n < 0 for pair in pairs for n in pair):
        name = spelled("padding")
        raise ValueError(f"{name} must not be negative; got {name}={padding}")
    return tuple((low, high) for low, high in pairs)


def _axis_window(
    axis: int,
    shape: Sequence[int],
    window: int,
    stride: int,
    dilation: int,
    pad: str | tuple[int, int],
    ceil_mode: bool,
) -> AxisWindow:
    """The geometry of one axis, including the output size."""
    check_filled(shape, axis)
    size = shape[axis]
    extent = (window - 1) * dilation + 1
    if isinstance(pad, str):
        low, high = _named_pad(pad, size, extent, stride, axis)
    else:
        low, high = pad
    by_size = is_symbolic(low) or is_symbolic(high)
    if not by_size and max(low, high) >= extent:
        raise ValueError(
            f"{spelled('padding')} must be smaller than the {extent} cells that a "
            f"window spans; got {spelled('padding')}={(low, high)} with "
            f"{spelled('window')}={window} and {spelled('dilation')}={dilation} "
            f"on axis {axis}"
        )
    slack = size + low + high - extent
    out = slack // stride + 1
    if by_size:  # as jax writes it
        out, fits = -(-size // stride), True
    elif is_symbolic(size):
        if ceil_mode:
            check_no_rest(slack, stride, size, axis)
        fits = not is_below(size, extent - low - high, axis)
    else:
        if ceil_mode:
            out = -(-slack // stride) + 1
            if (out - 1) * stride >= size + low:
                out -= 1  # the last window starts in the padding
        fits = out >= 1
    if not fits:
        raise ValueError(
            f"{spelled('window')} must not be larger than the padded input; "
            f"got {spelled('window')}={window} with {spelled('dilation')}={dilation} "
            f"and {spelled('padding')}={(low, high)} on axis {axis}"
        )
    if window == 1:
        dilation = 1
    if out == 1:  # one window: any stride is valid, and this one tiles
        stride = window if dilation == 1 else 1
    return AxisWindow(size, window, stride, dilation, low, high, out)


def _named_pad(
    name: str, size: int, extent: int, stride: int, axis: int
) -> tuple[int, int]:
    """`(low, high)` of a named padding."""
    if name == "VALID":
        return 0, 0
    if name == "CAUSAL":
        return extent - 1, 0
    total = same_pads(size, extent, stride, axis)
    less, more = total // 2, total - total // 2
    return (less, more) if name == "SAME" else (more, less)
