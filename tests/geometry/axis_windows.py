"""Windows of one axis: by numbers, any of them, and the cells of each."""

from hypothesis import strategies as st

from jaxpool.geometry.resolve import resolve


def axis(size, window, stride, dilation=1, padding=(0, 0), ceil_mode=False):
    """One axis as `resolve` has it."""
    shape = (size,)
    return resolve(shape, window, stride, [padding], dilation, 0, ceil_mode).dims[0]


@st.composite
def axes(draw, longest=4):
    """Any legal axis with windows of at most `longest` cells."""
    window, dilation = draw(st.integers(1, longest)), draw(st.integers(1, 3))
    extent = (window - 1) * dilation + 1
    low, high = draw(st.integers(0, extent - 1)), draw(st.integers(0, extent - 1))
    size = draw(st.integers(max(1, extent - low - high), 3 * extent + 3))
    stride = draw(st.integers(1, longest + 2))
    return axis(size, window, stride, dilation, (low, high), draw(st.booleans()))


def places(dim, o):
    """The padded cells of window `o`, by definition."""
    return [o * dim.stride + j * dim.dilation - dim.low for j in range(dim.window)]
