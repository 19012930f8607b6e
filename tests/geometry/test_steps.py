"""The steps of a reduction: that they amount to the window, and are as few as pays."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxpool.geometry.resolve import resolve
from jaxpool.geometry.steps import BLOCK, backward_steps, forward_steps, links_of
from tests.geometry.axis_windows import axes, places


def runs_of(dim, cells, o):
    """The cells that window `o` combines, `cells[i]` being those of run `i`."""
    inside = (h for h in places(dim, o) if 0 <= h < dim.size)
    return [cell for h in inside for cell in cells[h]]


@given(axes(longest=40), st.booleans(), st.booleans())
def test_steps_amount_to_the_window(dim, doubling, idempotent):
    window = resolve(
        (dim.size,),
        dim.window,
        dim.stride,
        [(dim.low, dim.high)],
        dim.dilation,
        0,
        False,
    )
    (dim,) = window.dims
    cells = single = [[h] for h in range(dim.size)]
    for step in forward_steps(window, doubling, idempotent=idempotent):
        (level,) = step.dims
        single = cells if step.begins else single
        reduced = [runs_of(level, cells, o) for o in range(level.out)]
        if step.rest:
            for o, run in enumerate(reduced):
                run += runs_of(step.rest, single, o)
        cells = reduced
    for o, reduced in enumerate(cells):
        expected = [h for h in places(dim, o) if 0 <= h < dim.size]
        found = set(reduced) if idempotent else reduced
        assert sorted(found) == expected
        assert idempotent or reduced == expected  # in order, for any operation


@given(st.integers(1, 300), st.booleans())
def test_links_cost_like_the_logarithm(window, overlap):
    links = links_of(window, overlap, BLOCK)
    reads = sum(count + rest for count, _, rest in links)
    assert reads <= max(8, 5 * math.log2(window))
    run = 1
    for count, apart, rest in links:
        assert apart <= run if overlap else apart == run
        run += (count - 1) * apart + rest
    assert run == window


def test_few_long_links_are_cheaper_than_many_short_ones():
    assert links_of(15, True, 2) == ((8, 1, 0), (2, 7, 0))
    assert links_of(31, True, 8) == ((6, 1, 0), (6, 5, 0))


@pytest.mark.parametrize(
    ("window", "strides", "padding", "forward", "backward"),
    [
        ((2, 2), 2, 0, 1, 1),
        ((3, 3), 2, 1, 1, 1),
        ((3, 3), 1, 0, 2, 2),
        ((3, 3), 1, 1, 2, 2),
        ((5, 5), 2, 2, 2, 2),
        ((7, 7), 1, 3, 2, 2),
        ((7, 7), 7, 0, 2, 1),
        ((2, 2, 2), 2, 0, 1, 1),
        ((3, 3, 3), 2, 1, 2, 2),
    ],
)
def test_short_windows_of_several_axes_are_one_step(
    window, strides, padding, forward, backward
):
    shape = (1, *(28 for _ in window), 3)
    resolved = resolve(shape, window, strides, padding, 1, None, False)
    assert len(forward_steps(resolved, doubling=False, idempotent=True)) == forward
    assert len(backward_steps(resolved, doubling=False)) == backward


@pytest.mark.parametrize(("side", "steps"), [(4, 1), (5, 2)])
def test_more_cells_are_added_in_one_step(side, steps):
    resolved = resolve((1, 20, 20, 20, 3), (4, 4, side), None, 0, 1, None, False)
    assert len(forward_steps(resolved, doubling=False)) == steps


def test_an_ordered_reduction_goes_axis_by_axis_from_the_last():
    resolved = resolve((1, 8, 8, 3), (2, 2), 2, 0, 1, None, False)
    steps = forward_steps(resolved, doubling=False, ordered=True)
    assert [step.axes for step in steps] == [(2,), (1,)]


def test_any_other_goes_from_the_first():
    resolved = resolve((1, 9, 9, 3), (3, 3), 1, 0, 1, None, False)
    assert [step.axes for step in forward_steps(resolved, False)] == [(1,), (2,)]


def test_an_axis_that_is_to_stay_alone_does():
    resolved = resolve((1, 3, 8, 8), (2, 2), 2, 0, 1, (2, 3), False)
    for steps in (forward_steps, backward_steps):
        assert [step.axes for step in steps(resolved, False)] == [(2, 3)]
        assert [s.axes for s in steps(resolved, False, alone=3)] == [(2,), (3,)]
