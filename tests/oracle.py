"""Pooling in plain NumPy: explicit loops over output positions, in float64.

Written from PyTorch's and XLA's rules (output size, ceil mode, divisor, owner of
a maximum), sharing nothing with the library: no jax and no jaxpool is imported.
A window is the list of its valid cells in row-major order; padded and masked
cells are simply not in the list. `pool` is the value, `grad` the exact gradient
of `sum(g * pool(x))`; `pull`, `push` and `curve` are the derivatives of what
`windowed` or `binned` returns.
"""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

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


def _repeated(i, size, mode):
    """The cell that padding which is data repeats at place `i`."""
    if mode == "reflect":
        return -i if i < 0 else min(i, 2 * (size - 1) - i)
    return i % size if mode == "wrap" else min(max(i, 0), size - 1)


def _axis_windows(size, win, stride, padding, dil, ceil_mode, mode=None):
    """One (valid cells, number of cells not in the ceil overhang) per output."""
    lo, hi = _pads(padding, size, win, stride, dil)
    room = size + lo + hi - (win - 1) * dil - 1
    out = (math.ceil(room / stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (out - 1) * stride >= size + lo:  # starts in the right padding
        out -= 1
    for o in range(out):
        cells = [o * stride - lo + k * dil for k in range(win)]
        valid = [i for i in cells if 0 <= i < size]
        if mode is not None:
            valid = [_repeated(i, size, mode) for i in cells if -lo <= i < size + hi]
        yield valid, sum(i < size + hi for i in cells)


def windows(
    shape,
    window,
    strides=None,
    padding="VALID",
    dilation=1,
    axes=None,
    ceil_mode=False,
    padding_mode=None,
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
        list(_axis_windows(shape[a], win, stride, pad, dil, ceil_mode, padding_mode))
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


@np.errstate(invalid="ignore")  # inf - inf
def _reduce(v, kind, divisor, p):
    """Value of one non-empty window `v` (1-D) and its derivative by each cell."""
    if kind in ("max", "min"):
        owner = v.argmax() if kind == "max" else v.argmin()  # first NaN, else first
        return v[owner], np.eye(v.size)[owner]
    if kind == "sum":
        return v.sum(), np.ones(v.size)
    if kind == "avg":
        return v.sum() / divisor, np.full(v.size, 1 / divisor)
    if kind == "logsumexp":
        most = v.max()
        y = most + np.log(np.exp(v - (most if np.isfinite(most) else 0)).sum())
        at_most = np.where(v == -np.inf, 0, 1)  # what a single infinite cell gets
        return y, np.where(v >= y, at_most, np.exp(v - y))
    if kind == "prod":
        return v.prod(), np.array([np.delete(v, i).prod() for i in range(v.size)])
    if math.isinf(p):
        y, owner = _reduce(np.abs(v), "max", divisor, p)
        return y, owner * np.sign(v)
    y = (np.abs(v) ** p).sum() ** (1 / p)
    with np.errstate(all="ignore"):
        ratio = np.where(np.abs(v) == y, 1, np.abs(v) / y)  # also of infinities
        return y, np.where(v == 0, 0, np.sign(v) * ratio ** (p - 1))


class Pooled(NamedTuple):
    """A pool, cell by cell.

    `index` is each winner's flat index over the pooled axes, -1 where there is none.
    A row says for one output, with those axes last, which cells it has, their values,
    and its derivative by each. Outputs without a valid cell have no row.
    """

    y: np.ndarray
    index: np.ndarray
    rows: list
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def _pooled(
    x,
    kind,
    axes,
    out,
    table_of,
    where=True,
    empty_value=0,
    count_include_pad=False,
    divisor=None,
    p=2.0,
):
    """Pool the cells that `table_of(b)` has for index `b` into the other axes."""
    x, last = np.asarray(x), range(-len(axes), 0)
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    cells = np.moveaxis(x.astype(wide), axes, last)
    mask = np.moveaxis(np.broadcast_to(where, x.shape), axes, last)
    batch, sizes = cells.shape[: -len(axes)], cells.shape[-len(axes) :]
    y = np.full(batch + out, empty_value, wide)
    index, rows = np.full(batch + out, -1), []
    for b in np.ndindex(*batch):
        for o, (inside, pool_size) in table_of(b).items():
            valid = [i for i in inside if mask[b + i]]
            if not valid:
                continue
            count = len(valid)
            if count_include_pad:  # masked cells never count, padded ones do
                count += pool_size - len(inside)
            v = np.array([cells[b + i] for i in valid])
            y[b + o], slopes = _reduce(v, kind, divisor or count, p)
            rows.append((b + o, [b + i for i in valid], v, slopes))
            if kind in ("max", "min"):
                index[b + o] = np.ravel_multi_index(valid[slopes.argmax()], sizes)
    y, index = (np.moveaxis(a, last, axes) for a in (y, index))
    return Pooled(y, index, rows, x.shape, tuple(axes))


def _moved(pooled, array):
    """Pooled axes last."""
    return np.moveaxis(np.asarray(array), pooled.axes, range(-len(pooled.axes), 0))


def pull(pooled, g=None):
    """The gradient of `sum(g * y)`; `g=None` means all ones."""
    g = _moved(pooled, np.ones(pooled.y.shape) if g is None else g)
    dx = _moved(pooled, np.zeros(pooled.shape, pooled.y.dtype)).copy()
    for o, cells, _, slopes in pooled.rows:
        for cell, slope in zip(cells, slopes, strict=True):
            if slope and g[o] != 0:  # nothing of nothing, even if the slope is NaN
                dx[cell] += slope * g[o]
    return np.moveaxis(dx, range(-len(pooled.axes), 0), pooled.axes)


def push(pooled, t):
    """The tangent of `y` for the tangent `t` of `x`."""
    t, ty = _moved(pooled, t), _moved(pooled, np.zeros_like(pooled.y)).copy()
    for o, cells, _, slopes in pooled.rows:
        ty[o] = sum(s * t[c] for c, s in zip(cells, slopes, strict=True) if s)
    return np.moveaxis(ty, range(-len(pooled.axes), 0), pooled.axes)


def curve(pooled, g, t, p):
    """The derivative of `pull(g)` along `t`, of p-norms of cells that are not 0."""
    g, t = _moved(pooled, g), _moved(pooled, t)
    norms = _moved(pooled, pooled.y)
    ddx = _moved(pooled, np.zeros(pooled.shape)).copy()
    for o, cells, v, slopes in pooled.rows:
        tv = np.array([t[c] for c in cells])
        dy, ratio = slopes @ tv, np.abs(v) / norms[o]
        ds = (p - 1) * (ratio ** (p - 2) * tv - slopes * dy) / norms[o]
        for cell, d in zip(cells, ds, strict=True):
            ddx[cell] += d * g[o]
    return np.moveaxis(ddx, range(-len(pooled.axes), 0), pooled.axes)


def windowed(x, kind, window, *, axes=None, where=None, **options):
    """Pool `x` by windows; see `Pooled`. `kind` may be "prod" too."""
    names = ("strides", "padding", "dilation", "ceil_mode", "padding_mode")
    geometry = {name: options.pop(name) for name in names if name in options}
    axes = _pooled_axes(np.ndim(x), window, axes)
    out, table = windows(np.shape(x), window, axes=axes, **geometry)
    where = True if where is None else where
    return _pooled(x, kind, axes, out, lambda b: table, where=where, **options)


def binned(x, kind, bins, axes):
    """Pool `x` by bins; see `Pooled`, and `bins_and_grad`."""
    axes = tuple(a % np.ndim(x) for a in axes)
    others = np.ndim(x) - len(axes)
    out = tuple(map(len, bins((0,) * others)))

    def table_of(b):
        ranges = bins(b)
        inside = {
            o: list(itertools.product(*(r[i] for r, i in zip(ranges, o, strict=True))))
            for o in np.ndindex(*out)
        }
        return {o: (cells, len(cells)) for o, cells in inside.items()}

    return _pooled(x, kind, axes, out, table_of)


def pool_and_grad(x, g, kind, window, **options):
    """`pool(x)` and the gradient of `sum(g * pool(x))`; `g=None` means all ones."""
    pooled = windowed(x, kind, window, **options)
    return pooled.y, pull(pooled, g)


def pool(x, kind, window, **kwargs):
    """Pool `x` by `kind`: "max", "min", "sum", "avg", "lp" or "logsumexp"."""
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
    pooled = binned(x, kind, bins, axes)
    return pooled.y, pull(pooled, g), pooled.index


def adaptive(x, g, kind, output_shape, axes=None):
    """Adaptive pool: value, gradient and indices."""
    return bins_and_grad(x, g, kind, *adapted(x.shape, output_shape, axes))


def adapted(shape, output_shape, axes=None):
    """The bins of an adaptive pool, and its axes, as `bins_and_grad` takes them."""
    axes = _pooled_axes(len(shape), output_shape, axes)
    outs = _per_axis(output_shape, len(axes))
    bins = [
        adaptive_bins(shape[a], shape[a] if out is None else out)
        for a, out in sorted(zip(axes, outs, strict=True))
    ]
    return lambda b: bins, sorted(axes)


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


def fractional(x, g, kind, window, output_shape, **draw):
    """Fractional pool: value, gradient and indices."""
    return bins_and_grad(x, g, kind, *drawn(x.shape, window, output_shape, **draw))


def drawn(
    shape,
    window,
    output_shape,
    *,
    samples,
    axes=None,
    rule="window",
    overlapping=False,
):
    """The bins of a fractional pool, and its axes, as `bins_and_grad` takes them."""
    given = _pooled_axes(len(shape), output_shape, axes)
    axes, outs = sorted(given), _per_axis(output_shape, len(given))
    others = [n for a, n in enumerate(shape) if a not in axes]
    samples = np.broadcast_to(samples, (*others, len(axes)))
    windows = _per_axis(window, len(axes))

    def axis_bins(a, u):
        i = given.index(a)
        if rule == "window":
            return fractional_windows(shape[a], outs[i], windows[i], u[i])
        return fractional_steps(shape[a], outs[i], u[i], overlapping)

    def bins(b):
        return [axis_bins(a, samples[b]) for a in axes]

    return bins, axes


def unpooled(values, indices, output_shape, axes):
    """Each value where its flat index over the ascending `axes` says; see `Pooled`.

    The last of several values of one cell wins. -1 stands for no cell.
    """
    x, last = np.asarray(values), range(-len(axes), 0)
    places = np.moveaxis(np.arange(x.size).reshape(x.shape), axes, last)
    flat = np.moveaxis(np.asarray(indices), axes, last)
    batch = flat.shape[: -len(axes)]
    held = np.full(batch + tuple(output_shape), -1)
    for b in np.ndindex(*batch):
        for place, index in zip(places[b].ravel(), flat[b].ravel(), strict=True):
            if index >= 0:
                held[b + np.unravel_index(index, output_shape)] = place
    held = np.moveaxis(held, last, axes)
    y = np.zeros(held.shape, np.complex128 if x.dtype.kind == "c" else np.float64)
    rows = []
    for o, place in np.ndenumerate(held):
        if place >= 0:
            cell = np.unravel_index(place, x.shape)
            y[o] = x[cell]
            rows.append((o, [cell], np.array([y[o]]), np.ones(1)))
    return Pooled(y, np.full(y.shape, -1), rows, x.shape, ())


def counted_axes(rank, pooled, convention):
    """The axes that indices count over, the slowest first."""
    if convention in ("jaxpool", "torch"):
        return list(pooled)
    if convention == "tf":
        return list(range(1, rank))
    if convention == "onnx_column_major":
        return [a for a in range(rank) if a not in pooled] + list(pooled)[::-1]
    return list(range(rank))


def convert(indices, shape, source, target, pooled):
    """Indices of one convention in another, through the coordinates of each cell."""
    converted = np.array(indices)
    for place, index in np.ndenumerate(indices):
        if index < 0:
            continue
        cell = list(place)  # right on the axes that are not pooled
        counted = counted_axes(len(shape), pooled, source)
        found = np.unravel_index(index, [shape[a] for a in counted])
        for axis, coordinate in zip(counted, found, strict=True):
            cell[axis] = coordinate
        counted = counted_axes(len(shape), pooled, target)
        converted[place] = np.ravel_multi_index(
            [cell[a] for a in counted], [shape[a] for a in counted]
        )
    return converted
