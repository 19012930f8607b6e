"""Static window geometry: each user spelling of a window, resolved once to integers.

An `AxisWindow` describes one pooled axis, a `Window` all of them. All values are Python
integers, and this module imports no jax, so nothing in it can be traced or rounded. The
output size and the divisors follow PyTorch (`aten/native/Pool.h`,
`AvgPoolKernel.cpp`); "SAME" follows TensorFlow and XLA.

Invariants of a resolved `AxisWindow`: size, window, stride, dilation and out are at
least 1, and padding on each side is smaller than the extent of the window.

If a size is symbolic (`jaxpool.geometry.sizes`), `out` is symbolic too, and so is a
window that covers the axis.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, SupportsIndex, TypeAlias, get_args

from jaxpool.geometry.axes import Ints as Ints
from jaxpool.geometry.axes import (
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
from jaxpool.geometry.pooled import MOST, PooledAxes
from jaxpool.geometry.sizes import check_no_rest, is_below, is_symbolic, same_pads
from jaxpool.geometry.spelling import spelled

Numbers: TypeAlias = Any  # a NumPy or jax array of integers
PaddingName: TypeAlias = Literal["VALID", "SAME", "SAME_LOWER", "CAUSAL"]
Padding: TypeAlias = PaddingName | Ints | Sequence[tuple[SupportsIndex, SupportsIndex]]

# An axis can be split over up to 8 devices (2, 4 or 8) without being gathered.
SHARDS = 8
PADDINGS: tuple[PaddingName, ...] = get_args(PaddingName)


@dataclass(frozen=True)
class AxisWindow:
    """One pooled axis: window `o` reads the cells `o*stride + j*dilation - low`.

    `j` runs over `range(window)`. Cells outside `range(size)` are padding. `high` is
    the padding that the user passed; the last window may reach further (`ceil_mode`).
    """

    size: int
    window: int
    stride: int
    dilation: int
    low: int
    high: int
    out: int

    @property
    def length(self) -> int:
        """Number of cells of a window."""
        return self.window

    @property
    def extent(self) -> int:
        """Number of cells from the first to the last cell of a window, inclusive."""
        return (self.window - 1) * self.dilation + 1

    @property
    def span(self) -> int:
        """Number of cells from the first to the last cell that windows read."""
        return (self.out - 1) * self.stride + self.extent

    @property
    def is_identity(self) -> bool:
        """Whether window `o` reads exactly cell `o`."""
        return self.window == 1 and self.out == self.size

    @property
    def is_whole(self) -> bool:
        """Whether the only window reads all cells of the axis."""
        is_one = self.out == 1 and self.low == 0 and self.dilation == 1
        return is_one and self.window == self.size

    @property
    def reads_all(self) -> bool:
        """Whether each cell of the axis is in a window, as far as is easy to see."""
        is_dense = self.dilation == 1 and (self.stride <= self.window or self.out == 1)
        return is_dense and self.low >= 0 and self.span - self.low >= self.size

    @property
    def may_miss(self) -> bool:
        """Whether a window may read only padding."""
        return self.dilation > 1 and (is_symbolic(self.low) or self.low > 0)

    @property
    def behind(self) -> int:
        """Number of padded cells after the input that windows reach."""
        if is_symbolic(self.high):  # exact
            return self.span - self.low - self.size
        if is_symbolic(self.size):  # an upper bound
            return self.high
        return max(0, self.span - self.low - self.size)

    def covered(self, o: Numbers, low: int, high: int) -> tuple[Numbers, Numbers]:
        """First and end of the `j` whose cells lie in `range(low, high)`.

        `o` is an array of windows. Windows far from an edge are clipped, so no number
        is much larger than a window.
        """
        before = low + self.low  # cells of the first window before `low`
        within = high + self.low - (self.out - 1) * self.stride  # of the last window
        far = max(0, -(-(self.extent - within) // self.stride))
        starts = o.clip(0, before // self.stride + 1) * self.stride - before
        ends = (self.out - 1 - o).clip(0, far) * self.stride + within
        first = (-(starts // self.dilation)).clip(0, self.window)
        return first, (-(-ends // self.dilation)).clip(first, self.window)

    def clipped(self) -> "AxisWindow":
        """The same windows without each `j` that is padding in every window.

        So a window much longer than the input costs no more than the input.
        """
        if is_symbolic(self.size):
            return self
        last = (self.out - 1) * self.stride - self.low  # where the last window starts
        first = max(0, -(last // self.dilation))
        end = min(self.window, -(-(self.size + self.low) // self.dilation))
        if first >= end:
            return self  # all windows read only padding
        first = min(first, self.low // self.dilation)
        window, low = end - first, self.low - first * self.dilation
        ends_before = low >= (window - 1) * self.dilation + 1
        begins_behind = (self.out - 1) * self.stride - low >= self.size
        if window == self.window or ends_before or begins_behind:
            return self
        dilation = self.dilation if window > 1 else 1
        stride = self.stride if self.out > 1 else window if dilation == 1 else 1
        numbers = (self.size, window, stride, dilation, low, self.high, self.out)
        return AxisWindow(*numbers)

    def seeing(self, j: int) -> range:
        """The windows whose cell `j` is a cell of the input."""
        place = j * self.dilation - self.low
        first = max(0, -(place // self.stride))
        last = min(self.out, (self.size - 1 - place) // self.stride + 1)
        return range(first, last) if first < last else range(0)

    def regions(self) -> tuple[tuple[range, range], ...]:
        """Runs of `j` that are input cells in the same windows, with these windows.

        A `j` that is padding in every window is left out, unless all are.
        """
        found: list[tuple[range, range]] = []
        for j in range(self.window):
            js, windows = range(j, j + 1), self.seeing(j)
            if found and found[-1][1] == windows:
                js = range(found.pop()[0].start, j + 1)
            if windows:
                found.append((js, windows))
        return tuple(found) or ((range(self.window), range(0)),)

    def covering(self) -> tuple["AxisWindow", int, int]:
        """The windows that read each block of `stride` cells, described as a window.

        Returns it, and the place `j` of the block's first cell in the first of these
        windows; in each further window `j` is `stride` less. Also returns the number of
        padded cells in the first block: blocks start where windows start, or with the
        input if no more windows cover a block then. The last block may reach beyond the
        input.
        """
        if self.stride == 1:
            low, first = self.extent - 1 - self.low, self.window - 1
            dims = AxisWindow(
                self.out, self.window, 1, self.dilation, low, 0, self.size
            )
            return dims, first, 0
        latest = (
            self.low + self.stride - 1
        ) // self.stride  # windows that start in the block
        earliest = (
            self.window - 1 - self.low
        ) // self.stride  # blocks before it that they start in
        before, count = 0, latest + earliest + 1
        if count > -(-self.window // self.stride):
            before, count = self.low, -(-self.window // self.stride)
            earliest = count - 1
        first = self.low - before + earliest * self.stride
        out = self.splitting(-(-(self.size + before) // self.stride))
        return AxisWindow(self.out, count, 1, 1, earliest, 0, out), first, before

    def splitting(self, cells: int) -> int:
        """`cells`, rounded up to a size that splits evenly if input and output do.

        Over up to `SHARDS` devices. XLA's partitioner exchanges only edges of arrays
        that split evenly, and gathers other arrays.
        """
        shards = math.gcd(self.size, self.out, SHARDS)
        return -(-cells // shards) * shards

    def counts(self, o: Numbers, include_pad: bool) -> Numbers:
        """Number of input cells in each window `o`.

        `include_pad` counts `low` and `high` padding too, but never the cells that only
        `ceil_mode` adds.
        """
        low, high = (
            (-self.low, self.size + self.high) if include_pad else (0, self.size)
        )
        first, end = self.covered(o, low, high)
        return end - first


@dataclass(frozen=True)
class Window(PooledAxes):
    """The pooled axes of an array, and windows along each."""

    dims: tuple[AxisWindow, ...]

    @property
    def are_apart(self) -> bool:
        """Whether no two windows overlap."""
        return all(dim.extent <= dim.stride for dim in self.dims)

    @property
    def is_countable(self) -> bool:
        """Whether int32 can count the places of a window, or the cells of the input."""
        extent = math.prod(dim.extent for dim in self.dims)
        return is_symbolic(extent) or extent <= 1 << 30 or super().is_countable

    def clipped(self) -> Self:
        """The same windows without places that are padding in every window."""
        return replace(self, dims=tuple(dim.clipped() for dim in self.dims))

    def filled(self) -> Self:
        """The same windows over an input that already has its padding."""
        dims = (
            replace(dim, size=dim.size + dim.low + dim.high, low=0, high=0)
            for dim in self.dims
        )
        return replace(self, dims=tuple(dims))


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


def as_shape(shape: Ints) -> tuple[int, ...]:
    """`shape` as sizes of an array."""
    sizes = as_ints("shape", shape)
    if isinstance(sizes, int) or any(size < 0 for size in sizes):
        raise ValueError(f"shape must be a sequence of sizes; got shape={shape}")
    return sizes


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


def check_filled(shape: Sequence[int], axis: int) -> None:
    """Raise if a pooled axis has size 0."""
    if is_below(shape[axis], 1, axis):
        raise ValueError(
            f"{spelled('x')} must have at least one cell on each pooled axis; "
            f"axis {axis} is empty"
        )


def check_countable(name: str, sizes: Iterable[int]) -> None:
    """Raise for more cells than int32 can count."""
    cells = math.prod(sizes)
    if not is_symbolic(cells) and cells > MOST:
        raise ValueError(
            f"{spelled(name)} must have at most 2**31 - 1 cells, so that int32 can "
            "count them; "
            f"got {cells}"
        )


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
            if (
                out - 1
            ) * stride >= size + low:  # the last window starts in the padding
                out -= 1
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
