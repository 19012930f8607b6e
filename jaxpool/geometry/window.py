"""Static window geometry: every user spelling of a window, resolved once to integers.

A pooled axis is described by one `AxisWindow`, a pooling by one `Window`. All of it
is Python integers; this module imports no jax, so no quantity in it can be traced
or rounded. The output size and the divisors follow PyTorch (`aten/native/Pool.h`,
`AvgPoolKernel.cpp`), "SAME" follows TensorFlow and XLA.

Invariants of a resolved `AxisWindow`: sizes, window, stride, dilation and out are at
least 1, and padding on either side is smaller than the extent of the window.

Where a size is symbolic (`_sizes`), so are `out` and a window that covers the axis.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

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
from jaxpool.geometry.sizes import check_no_rest, is_below, is_symbolic, same_pads
from jaxpool.geometry.spelling import spelled

Numbers: TypeAlias = Any  # an array of integers, of NumPy's or of jax's
Padding: TypeAlias = str | int | Sequence[int] | Sequence[tuple[int, int]]

# Devices that an axis may be split over without being gathered: 2, 4 or so many.
SHARDS = 8
MOST = 2**31 - 1  # of int32
PADDINGS = ("VALID", "SAME", "SAME_LOWER", "CAUSAL")


@dataclass(frozen=True)
class AxisWindow:
    """One pooled axis: window `o` covers the cells `o*stride + j*dilation - low`.

    `j` runs over `range(window)`; cells outside `range(size)` are padding. `high` is
    the padding that was asked for; with `ceil_mode` the last window may reach beyond.
    """

    size: int
    window: int
    stride: int
    dilation: int
    low: int
    high: int
    out: int

    @property
    def extent(self) -> int:
        """Cells from the first to the last one of a window, both included."""
        return (self.window - 1) * self.dilation + 1

    @property
    def span(self) -> int:
        """Padded cells from the first one of the first window to the last one read."""
        return (self.out - 1) * self.stride + self.extent

    @property
    def is_identity(self) -> bool:
        """Whether each window is exactly the one cell at its own place."""
        return self.window == 1 and self.out == self.size

    @property
    def is_whole(self) -> bool:
        """Whether there is one window, and it is the whole axis."""
        is_one = self.out == 1 and self.low == 0 and self.dilation == 1
        return is_one and self.window == self.size

    @property
    def may_miss(self) -> bool:
        """Whether a window may lie in the padding alone."""
        return self.dilation > 1 and (is_symbolic(self.low) or self.low > 0)

    @property
    def behind(self) -> int:
        """Padded cells behind the input that windows reach."""
        if is_symbolic(self.high):  # exactly
            return self.span - self.low - self.size
        if is_symbolic(self.size):  # at most
            return self.high
        return max(0, self.span - self.low - self.size)

    def covered(self, o: Numbers, low: int, high: int) -> tuple[Numbers, Numbers]:
        """The first `j` whose cell lies in `range(low, high)`, and the one after.

        For the windows `o`, an array. Of windows far from an edge no more is computed
        than that they are, so that all numbers are about as small as a window.
        """
        before = low + self.low  # cells of the first window before `low`
        within = high + self.low - (self.out - 1) * self.stride  # of the last window
        far = max(0, -(-(self.extent - within) // self.stride))
        starts = o.clip(0, before // self.stride + 1) * self.stride - before
        ends = (self.out - 1 - o).clip(0, far) * self.stride + within
        first = (-(starts // self.dilation)).clip(0, self.window)
        return first, (-(-ends // self.dilation)).clip(first, self.window)

    def clipped(self) -> "AxisWindow":
        """The same windows without the `j` that none of them has in the input.

        So that windows which are much longer than the input cost no more than it.
        """
        if is_symbolic(self.size):
            return self
        last = (self.out - 1) * self.stride - self.low  # where the last one begins
        first = max(0, -(last // self.dilation))
        end = min(self.window, -(-(self.size + self.low) // self.dilation))
        if first >= end:
            return self  # all of them lie in the padding
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
        """Runs of `j` that the same windows have in the input, with those windows.

        Those that no window has are left out, as long as others remain.
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
        """The windows that cover each block of `stride` cells, seen as a window.

        Also the number `j`, in the first of them, of the first cell of the block; it
        is `stride` less in each further one. And the padded cells before the first
        cell in the first block: blocks begin where windows do, unless as few windows
        cover those that begin with the input. The last block may reach beyond the
        last cell.
        """
        if self.stride == 1:
            low, first = self.extent - 1 - self.low, self.window - 1
            dims = AxisWindow(
                self.out, self.window, 1, self.dilation, low, 0, self.size
            )
            return dims, first, 0
        latest = (self.low + self.stride - 1) // self.stride  # starts in the block
        earliest = (self.window - 1 - self.low) // self.stride  # blocks before it
        before, count = 0, latest + earliest + 1
        if count > -(-self.window // self.stride):
            before, count = self.low, -(-self.window // self.stride)
            earliest = count - 1
        first = self.low - before + earliest * self.stride
        out = self.splitting(-(-(self.size + before) // self.stride))
        return AxisWindow(self.out, count, 1, 1, earliest, 0, out), first, before

    def splitting(self, cells: int) -> int:
        """So many cells, or the next number that splits as input and output do.

        Over up to `SHARDS` devices: XLA's partitioner exchanges halos of arrays that
        split evenly, and gathers others.
        """
        shards = math.gcd(self.size, self.out, SHARDS)
        return -(-cells // shards) * shards

    def counts(self, o: Numbers, include_pad: bool) -> Numbers:
        """Cells of the input, for the windows `o`.

        Or also those of the padding asked for, but never of the ceil overhang.
        """
        low, high = (
            (-self.low, self.size + self.high) if include_pad else (0, self.size)
        )
        first, end = self.covered(o, low, high)
        return end - first

    def first_valid(self, o: Numbers) -> Numbers:
        """The first `j` that is a cell of the input (0 if none is), for windows `o`."""
        first, end = self.covered(o, 0, self.size)
        return first * (end > first).astype(first.dtype)


@dataclass(frozen=True)
class Window:
    """The pooled axes of an array, ascending, and the geometry of each."""

    axes: tuple[int, ...]
    dims: tuple[AxisWindow, ...]

    @property
    def is_symbolic(self) -> bool:
        """Whether a pooled axis has a symbolic size."""
        return any(is_symbolic(dim.size) for dim in self.dims)

    @property
    def cells(self) -> int:
        """Number of cells in one window."""
        return math.prod(dim.window for dim in self.dims)

    @property
    def outs(self) -> tuple[int, ...]:
        """The size of the result on each pooled axis."""
        return tuple(dim.out for dim in self.dims)

    def pairs(self) -> tuple[tuple[int, AxisWindow], ...]:
        """`(axis, geometry)` of the axes on which there is something to do."""
        pairs = zip(self.axes, self.dims, strict=True)
        return tuple((axis, dim) for axis, dim in pairs if not dim.is_identity)

    @property
    def is_countable(self) -> bool:
        """Whether int32 can count places in a window, or cells of the input."""
        extent = math.prod(dim.extent for dim in self.dims)
        if is_symbolic(extent) or extent <= 1 << 30:
            return True
        cells = math.prod(dim.size for dim in self.dims)
        return is_symbolic(cells) or cells <= MOST

    def clipped(self) -> "Window":
        """The same windows without cells that none of them has in the input."""
        return Window(self.axes, tuple(dim.clipped() for dim in self.dims))

    def filled(self) -> "Window":
        """The same windows over an input that holds the padding asked for."""
        dims = (
            replace(dim, size=dim.size + dim.low + dim.high, low=0, high=0)
            for dim in self.dims
        )
        return Window(self.axes, tuple(dims))

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the pooled array."""
        out = list(shape)
        for axis, dim in zip(self.axes, self.dims, strict=True):
            out[axis] = dim.out
        return tuple(out)


def resolve(
    shape: Sequence[int],
    window: Ints,
    strides: Ints | None,
    padding: Padding,
    dilation: Ints,
    axes: Ints | None,
    ceil_mode: bool,
) -> Window:
    """The geometry of pooling an array of `shape`; raises on every illegal request."""
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
                f"{spelled('window')} must extend over at most 2**31 - 1 cells on each "
                f"axis; got {spelled('window')}={length} with "
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
    """`shape` as sizes that an array can have."""
    sizes = as_ints("shape", shape)
    if isinstance(sizes, int) or any(size < 0 for size in sizes):
        raise ValueError(f"shape must be a sequence of sizes; got shape={shape}")
    return sizes


def whole(shape: Sequence[int], axes: Ints | None) -> Window:
    """One window that covers all of `axes` (default: all but the first and last)."""
    if axes is None:
        if len(shape) < 3:
            raise ValueError(
                "axes must be given for an input without spatial axes between the "
                "first (batch) and the last (channels) one; got axes=None"
            )
        axes = range(1, len(shape) - 1)
    positions = tuple(sorted(resolve_axes(axes, shape)))
    dims = (
        _axis_window(axis, shape, shape[axis], 1, 1, (0, 0), False)
        for axis in positions
    )
    return Window(positions, tuple(dims))


def check_filled(shape: Sequence[int], axis: int) -> None:
    """Refuse to pool an axis of size 0."""
    if is_below(shape[axis], 1, axis):
        raise ValueError(
            f"{spelled('x')} must have at least one cell on each pooled axis; "
            f"axis {axis} is empty"
        )


def check_countable(name: str, sizes: Iterable[int]) -> None:
    """Refuse more cells than int32 can count."""
    cells = math.prod(sizes)
    if not is_symbolic(cells) and cells > MOST:
        raise ValueError(
            f"{spelled(name)} must have at most 2**31 - 1 cells where int32 counts "
            "them; "
            f"got {cells}"
        )


def _pads(padding: Padding, rank: int) -> str | tuple[tuple[int, int], ...]:
    """The name of a padding rule, or one `(low, high)` pair per pooled axis."""
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
        if type(error) is not TypeError:  # one of jax's, about a value that is traced
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
    """The geometry of one axis, with its output size."""
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
    if by_size:  # a window at each stride: in the form that jax writes it too
        out, fits = -(-size // stride), True
    elif is_symbolic(size):
        if ceil_mode:
            check_no_rest(slack, stride, size, axis)
        fits = not is_below(size, extent - low - high, axis)
    else:
        if ceil_mode:
            out = -(-slack // stride) + 1
            if (out - 1) * stride >= size + low:  # the last starts in the padding
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
    if out == 1:  # no second window: any stride is right, this one tiles
        stride = window if dilation == 1 else 1
    return AxisWindow(size, window, stride, dilation, low, high, out)


def _named_pad(
    name: str, size: int, extent: int, stride: int, axis: int
) -> tuple[int, int]:
    """`(low, high)` of a padding rule."""
    if name == "VALID":
        return 0, 0
    if name == "CAUSAL":
        return extent - 1, 0
    total = same_pads(size, extent, stride, axis)
    less, more = total // 2, total - total // 2
    return (less, more) if name == "SAME" else (more, less)
