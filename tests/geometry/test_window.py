"""Geometry: integer tables, and properties of every window. No jax."""

import itertools

import numpy as np
import pytest
from hypothesis import given

from jaxpool.geometry.resolve import resolve, whole
from jaxpool.geometry.window import AxisWindow
from tests.geometry.axis_windows import axes, axis, places


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        ((7, 3, 2), 3),
        ((8, 3, 2), 3),  # the last cell is in no window
        ((8, 3, 2, 1, (0, 0), True), 4),
        ((3, 2, 2, 1, (1, 1), True), 2),  # a third window would start in the padding
        ((6, 2, 5, 1, (0, 0), True), 2),
        ((9, 3, 2, 2), 3),
        ((5, 3, 3, 1, (1, 1), True), 2),
    ],
)
def test_output_sizes(arguments, out):
    assert axis(*arguments).out == out


@pytest.mark.parametrize(
    ("name", "size", "window", "stride", "pads"),
    [
        ("SAME", 5, 2, 2, (0, 1)),
        ("SAME_LOWER", 5, 2, 2, (1, 0)),
        ("SAME", 7, 3, 2, (1, 1)),
        ("SAME", 8, 3, 2, (0, 1)),
        ("SAME", 4, 1, 3, (0, 0)),
        ("CAUSAL", 6, 4, 1, (3, 0)),
        ("VALID", 6, 4, 1, (0, 0)),
    ],
)
def test_named_padding(name, size, window, stride, pads):
    dim = resolve((size,), window, stride, name, 1, 0, False).dims[0]
    assert (dim.low, dim.high) == pads


def test_axes_are_sorted_with_their_windows():
    window = resolve((5, 6, 7), (3, 2), (1, 2), [(1, 0), (0, 1)], 1, (2, 0), False)
    assert window.axes == (0, 2)
    assert [dim.window for dim in window.dims] == [2, 3]
    assert [(dim.low, dim.high) for dim in window.dims] == [(0, 1), (1, 0)]


def test_whole_window_is_one_output_per_axis():
    window = whole((2, 5, 6, 3), None)
    assert window.axes == (1, 2)
    assert window.output_shape((2, 5, 6, 3)) == (2, 1, 1, 3)
    assert window.cells == 30


@given(axes())
def test_counts_by_definition(dim):
    cells = [places(dim, o) for o in range(dim.out)]
    inside = [[0 <= h < dim.size for h in hs] for hs in cells]
    padded = [[-dim.low <= h < dim.size + dim.high for h in hs] for hs in cells]
    o = np.arange(dim.out)
    assert list(dim.counts(o, include_pad=False)) == [sum(row) for row in inside]
    assert list(dim.counts(o, include_pad=True)) == [sum(row) for row in padded]


@given(axes())
def test_seeing_by_definition(dim):
    for j in range(dim.window):
        sees = [o for o in range(dim.out) if 0 <= places(dim, o)[j] < dim.size]
        assert list(dim.seeing(j)) == sees


@given(axes())
def test_ceil_mode_keeps_no_window_that_starts_in_the_padding(dim):
    assert (dim.out - 1) * dim.stride - dim.low < dim.size


@given(axes())
def test_regions_are_cells_that_the_same_windows_see(dim):
    regions = dim.regions()
    seen = [j for js, _ in regions for j in js]
    assert seen == sorted(set(seen))
    for js, windows in regions:
        assert windows == range(0) or all(dim.seeing(j) == windows for j in js)
    unseen = set(range(dim.window)) - set(seen)
    assert not any(dim.seeing(j) for j in unseen)


@given(axes())
def test_covering_by_definition(dim):
    if dim.dilation > 1 and dim.stride > 1:
        return
    covering, first, before = dim.covering()
    for place in range(dim.size):
        block, r = divmod(place + before, dim.stride)
        covered_by = {
            (o, first - i * dim.stride + r)
            for i, o in enumerate(places(covering, block))
            if 0 <= o < dim.out and 0 <= first - i * dim.stride + r < dim.window
        }
        assert covered_by == {
            (o, j)
            for o in range(dim.out)
            for j, cell in enumerate(places(dim, o))
            if cell == place
        }


def test_a_window_is_hashable_and_equal():
    one, other = (resolve((8, 8), [2, 2], None, "SAME", 1, (0, 1), False) for _ in "ab")
    assert one == other
    assert hash(one) == hash(other)
    assert isinstance(one.dims[0], AxisWindow)


def test_windows_without_what_none_of_them_sees_have_the_same_cells():
    """The first one still reaches the input, and the last one begins in it."""
    sizes, tried = itertools.product(range(1, 6), range(1, 5), range(1, 4)), 0
    for (size, window, stride), dilation in itertools.product(sizes, (1, 2, 3)):
        extent = (window - 1) * dilation + 1
        for low, high, ceil in itertools.product(
            range(extent), range(extent), (False, True)
        ):
            try:
                (dim,) = resolve(
                    (size,), window, stride, ((low, high),), dilation, 0, ceil
                ).dims
            except ValueError:  # no window fits
                continue
            short, tried = dim.clipped(), tried + 1
            for o in range(dim.out):
                cells = [
                    {
                        cell
                        for j in range(d.window)
                        if 0 <= (cell := o * d.stride + j * d.dilation - d.low) < size
                    }
                    for d in (dim, short)
                ]
                assert cells[0] == cells[1], (dim, short)
            if short != dim:
                assert (short.out - 1) * short.stride - short.low < size, (dim, short)
                assert short.low < short.extent, (dim, short)
    assert tried > 5000
