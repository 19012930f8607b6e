"""Pooling in plain NumPy: explicit loops over output positions, in float64.

Written from PyTorch's and XLA's rules (output size, ceil mode, divisor, owner of
a maximum), sharing nothing with the library: no jax and no jaxpool is imported.
A window is the list of its valid cells in row-major order; padded and masked
cells are simply not in the list. `pool` is the value, `grad` the exact gradient
of `sum(g * pool(x))`.
"""

import itertools
import math
from fractions import Fraction

import numpy as np


def _per_axis(value, count):
    return tuple(value) if np.iterable(value) else (value,) * count


def _pads(padding, size, win, stride, dil):
    """(low, high) cells of padding of one axis; `padding` a name, int or pair."""
    span = (win - 1) * dil + 1
    if padding == "VALID":
        return 0, 0
    if padding == "CAUSAL":
        return span - 1, 0
    if padding in ("SAME", "SAME_LOWER"):
        total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
        small, large = total // 2, total - total // 2
        return (small, large) if padding == "SAME" else (large, small)
    return _per_axis(padding, 2)


def _axis_windows(size, win, stride, padding, dil, ceil_mode):
    """One (valid cells, number of cells not in the ceil overhang) per output."""
    lo, hi = _pads(padding, size, win, stride, dil)
    room = size + lo + hi - (win - 1) * dil - 1
    out = (math.ceil(room / stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (out - 1) * stride >= size + lo:  # starts in the right padding
        out -= 1
    for o in range(out):
        cells = [o * stride - lo + k * dil for k in range(win)]
        valid = [i for i in cells if 0 <= i < size]
        yield valid, sum(i < size + hi for i in cells)


def windows(
    shape, window, strides=None, padding="VALID", dilation=1, axes=None, ceil_mode=False
):
    """Output shape over the pooled axes, and per output its cells and pool size.

    Returns `(out, table)`: `table[o]` for each output index `o` is the list of
    valid cell indices in row-major order and the number of cells counted when
    padding counts (the ceil overhang never does).
    """
    axes = _pooled_axes(len(shape), window, axes)
    ndim = len(axes)
    strides = window if strides is None else strides
    paddings = (padding,) * ndim if isinstance(padding, str) else padding
    rows = [
        list(_axis_windows(shape[a], win, stride, pad, dil, ceil_mode))
        for a, win, stride, pad, dil in zip(
            axes,
            *(_per_axis(v, ndim) for v in (window, strides, paddings, dilation)),
            strict=True,
        )
    ]
    out = tuple(len(row) for row in rows)
    table = {}
    for o in np.ndindex(*out):
        per_axis = [row[i] for row, i in zip(rows, o, strict=True)]
        cells = list(itertools.product(*(valid for valid, _ in per_axis)))
        table[o] = cells, math.prod(count for _, count in per_axis)
    return out, table


def _pooled_axes(rank, window, axes):
    if axes is None:
        return tuple(range(rank - 1 - len(window), rank - 1))
    return tuple(a % rank for a in _per_axis(axes, 1))


def _reduce(v, kind, divisor, p):
    """Value of one non-empty window `v` (1-D) and its derivative by each cell."""
    if kind in ("max", "min"):
        owner = v.argmax() if kind == "max" else v.argmin()  # first NaN, else first
        return v[owner], np.eye(v.size)[owner]
    if kind == "sum":
        return v.sum(), np.ones(v.size)
    if kind == "avg":
        return v.sum() / divisor, np.full(v.size, 1 / divisor)
    if math.isinf(p):
        y, owner = _reduce(np.abs(v), "max", divisor, p)
        return y, owner * np.sign(v)
    y = (np.abs(v) ** p).sum() ** (1 / p)
    return y, np.sign(v) * (np.abs(v) / y) ** (p - 1) if y else np.zeros(v.size)


def pool_and_grad(
    x,
    g,
    kind,
    window,
    *,
    where=None,
    empty_value=0,
    count_include_pad=False,
    divisor=None,
    p=2.0,
    axes=None,
    **geometry,
):
    """`pool(x)` and the gradient of `sum(g * pool(x))`; `g=None` means all ones."""
    x = np.asarray(x)
    axes = _pooled_axes(x.ndim, window, axes)
    last = range(-len(axes), 0)
    out, table = windows(x.shape, window, axes=axes, **geometry)

    cells = np.moveaxis(x.astype(np.result_type(x.dtype, np.float64)), axes, last)
    mask = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    mask = np.moveaxis(mask, axes, last)
    batch = cells.shape[: -len(axes)]
    y = np.full(batch + out, empty_value, cells.dtype)
    g = np.ones(y.shape) if g is None else np.moveaxis(np.asarray(g), axes, last)
    dx = np.zeros(cells.shape, cells.dtype)

    for b, o in itertools.product(np.ndindex(*batch), table):
        inside, pool_size = table[o]
        valid = [b + i for i in inside if mask[b + i]]
        if not valid:
            continue
        count = len(valid)
        if count_include_pad:  # masked cells never count, padded ones do
            count += pool_size - len(inside)
        v = np.array([cells[i] for i in valid])
        y[b + o], slope = _reduce(v, kind, divisor or count, p)
        for i, slope_i in zip(valid, slope, strict=True):
            dx[i] += slope_i * g[b + o]
    return np.moveaxis(y, last, axes), np.moveaxis(dx, last, axes)


def pool(x, kind, window, **kwargs):
    """Pool `x` by `kind`: "max", "min", "sum", "avg" or "lp"."""
    return pool_and_grad(x, None, kind, window, **kwargs)[0]


def grad(x, g, kind, window, **kwargs):
    """Exact gradient of `sum(g * pool(x, kind, window, ...))` by `x`."""
    return pool_and_grad(x, g, kind, window, **kwargs)[1]


def adaptive_bins(size, out):
    """PyTorch's bins of one axis, each a range of cells."""
    return [
        range(math.floor(o * size / out), math.ceil((o + 1) * size / out))
        for o in range(out)
    ]


def bins_and_grad(x, g, kind, bins, axes):
    """Pool bins: the value, the gradient of `sum(g * value)`, each winner's flat index.

    `bins(b)` is a list of ranges of cells for each pooled axis, `b` being an index into
    the other axes. `kind` is "max" or "avg", which has no winner: its index is -1.
    """
    x, axes = np.asarray(x), tuple(a % x.ndim for a in axes)
    last = range(-len(axes), 0)
    cells = np.moveaxis(x.astype(np.result_type(x.dtype, np.float64)), axes, last)
    batch, sizes = cells.shape[: -len(axes)], cells.shape[-len(axes) :]
    out = tuple(map(len, bins((0,) * len(batch))))
    y, index = np.zeros(batch + out, cells.dtype), np.full(batch + out, -1)
    g = np.ones(y.shape) if g is None else np.moveaxis(np.asarray(g), axes, last)
    dx = np.zeros_like(cells)
    for b in np.ndindex(*batch):
        ranges = bins(b)
        for o in np.ndindex(*out):
            inside = list(
                itertools.product(*(r[i] for r, i in zip(ranges, o, strict=True)))
            )
            v = np.array([cells[b + i] for i in inside])
            y[b + o], slope = _reduce(v, kind, len(v), None)
            for i, slope_i in zip(inside, slope, strict=True):
                dx[b + i] += slope_i * g[b + o]
            if kind == "max":
                index[b + o] = np.ravel_multi_index(inside[v.argmax()], sizes)
    return tuple(np.moveaxis(a, last, axes) for a in (y, dx, index))


def adaptive(x, g, kind, output_shape, axes=None):
    """Adaptive pool: value, gradient and indices."""
    axes = _pooled_axes(x.ndim, output_shape, axes)
    outs = _per_axis(output_shape, len(axes))
    bins = [
        adaptive_bins(x.shape[a], x.shape[a] if out is None else out)
        for a, out in sorted(zip(axes, outs, strict=True))
    ]
    return bins_and_grad(x, g, kind, lambda b: bins, sorted(axes))


def fractional_windows(size, out, window, u):
    """PyTorch's places for windows of one axis, in the floating-point type of `u`."""
    number = u.dtype.type
    starts = []
    for o in range(out - 1):
        alpha = number(size - window) / number(out - 1)
        starts.append(int((number(o) + u) * alpha) - int(u * alpha))
    return [range(start, start + window) for start in [*starts, size - window]]


def fractional_steps(size, out, u, overlapping=False):
    """TensorFlow's pseudo-random bins of one axis, in exact arithmetic; 0 < u < 1."""
    alpha, least = Fraction(size, out), size // out
    most = min((least + 2) / alpha - 1, (size + 1 - least) / alpha - (out - 1))
    edges = [math.ceil(alpha * (o + Fraction(float(u)) * most)) - 1 for o in range(out)]
    edges = [0, *edges[1:], size]
    return [
        range(start, min(end + overlapping, size))
        for start, end in itertools.pairwise(edges)
    ]


def fractional(
    x,
    g,
    kind,
    window,
    output_shape,
    *,
    samples,
    axes=None,
    rule="window",
    overlapping=False,
):
    """Fractional pool: value, gradient and indices."""
    given = _pooled_axes(x.ndim, output_shape, axes)
    axes, outs = sorted(given), _per_axis(output_shape, len(given))
    others = [n for a, n in enumerate(x.shape) if a not in axes]
    samples = np.broadcast_to(samples, (*others, len(axes)))
    windows = _per_axis(window, len(axes))

    def axis_bins(a, u):
        i = given.index(a)
        if rule == "window":
            return fractional_windows(x.shape[a], outs[i], windows[i], u[i])
        return fractional_steps(x.shape[a], outs[i], u[i], overlapping)

    def bins(b):
        return [axis_bins(a, samples[b]) for a in axes]

    return bins_and_grad(x, g, kind, bins, axes)
