"""The pools once more, as a gather that jax differentiates by itself.

A twin is traced like the pool it mirrors, so any transformation of the one can be
compared with the same transformation of the other. Which cells a window has comes from
the oracle; the winner is chosen from values without a derivative, then gathered.
`OPERATORS` has each public pool beside its twin.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

import jaxpool
from tests import oracle
from tests.cases import GEOMETRY, KINDS, mask

SHAPE = (1, 5, 4, 2)  # of what the operators below pool


def twin(kind, shape, window, *, where=None, empty_value=0, p=2, **geometry):
    """`x -> pooled x`, for `x` of one shape with the pooled axes before the last.

    Of the norms only those of p = 2 and p = inf.
    """
    out, table = oracle.windows(shape, window, **geometry)
    each = [cells for cells, _ in table.values()]
    return _gathering(kind, shape, out, each, where, empty_value, p)


def twin_of_bins(kind, shape, bins):
    """The same for bins: for each pooled axis the range of cells of each bin."""
    each = [list(itertools.product(*cells)) for cells in itertools.product(*bins)]
    return _gathering(kind, shape, tuple(map(len, bins)), each)


def _gathering(kind, shape, out, each, where=None, empty_value=0, p=2):
    """The pool of the given cells of each window."""
    first = len(shape) - 1 - len(out)
    most = max(map(len, each))
    spatial = shape[first:-1]
    index = np.zeros((len(each), most), np.int32)
    inside = np.zeros((len(each), most), bool)
    for row, cells in enumerate(each):
        index[row, : len(cells)] = [np.ravel_multi_index(c, spatial) for c in cells]
        inside[row, : len(cells)] = True

    def gathered(array, batch):
        flat = array.reshape(*batch, -1, shape[-1])
        return jnp.take(flat, index.ravel(), axis=-2).reshape(
            *batch, *index.shape, shape[-1]
        )

    def pooled(x):
        batch = x.shape[:first]
        cells = gathered(x.astype(jnp.float32), batch)
        mask = jnp.ones(x.shape, bool) if where is None else where
        valid = gathered(jnp.broadcast_to(mask, x.shape), batch)
        valid &= np.broadcast_to(inside[..., None], valid.shape)
        some = valid.any(-2)
        y = _reduced(kind, cells, valid, p)
        y = jnp.where(some, y, empty_value).astype(x.dtype)
        return y.reshape(*batch, *out, shape[-1])

    return pooled


def _reduced(kind, cells, valid, p):
    if kind == "lp" and p == np.inf:
        cells, kind = jnp.abs(cells), "max"
    kept = jnp.where(valid, cells, 0)
    if kind == "sum":
        return kept.sum(-2)
    if kind == "avg":
        return kept.sum(-2) / jnp.maximum(valid.sum(-2), 1).astype(cells.dtype)
    if kind == "lp":
        return jnp.sqrt((kept**2).sum(-2))
    if kind == "logsumexp":
        return jax.nn.logsumexp(cells, -2, where=valid)
    fixed = jax.lax.stop_gradient(cells if kind == "max" else -cells)
    # Not even -inf wins against nothing.
    rank = jnp.where(valid, jnp.nan_to_num(fixed, nan=jnp.inf, neginf=-3e38), -jnp.inf)
    winner = jnp.expand_dims(rank.argmax(-2), -2)
    return jnp.take_along_axis(kept, winner, -2).squeeze(-2)


def _operators():
    """Name, public pool and its twin, of each."""

    def windowed(kind, operator, **kwargs):
        reference = twin(kind, SHAPE, **kwargs)
        return functools.partial(operator, **kwargs), reference

    def whole(kind):
        reference = twin(kind, SHAPE, SHAPE[1:-1])
        operator = getattr(jaxpool, f"global_{kind}_pool")
        pooled = functools.partial(operator, axes=(-3, -2))
        return pooled, lambda x: reference(x).squeeze((-3, -2))

    def unpooling():
        places = np.tile(np.arange(30)[:, None], 2)
        rows = np.random.default_rng(0).permuted(places, axis=0)[:20]

        def scattered(x):
            zeros = jnp.zeros((30, 2), x.dtype)
            return zeros.at[rows, np.arange(2)[None]].set(x.reshape(20, 2))[None]

        unpool = lambda x: jaxpool.max_unpool(x, rows.reshape(SHAPE), (6, 5))  # noqa: E731
        return unpool, lambda x: scattered(x).reshape(1, 6, 5, 2)

    for kind in KINDS:
        operator = getattr(jaxpool, f"{kind}_pool")
        yield kind, *windowed(kind, operator, **GEOMETRY)
        yield f"global {kind}", *whole(kind)
    masked = GEOMETRY | {"where": mask(SHAPE)}
    for kind in ("max", "avg"):
        operator = getattr(jaxpool, f"{kind}_pool")
        yield f"{kind} masked", *windowed(kind, operator, **masked)
    dilated = GEOMETRY | {"dilation": (1, 2)}
    yield "max dilated", *windowed("max", jaxpool.max_pool, **dilated)
    yield "lp inf", *windowed("lp", jaxpool.lp_pool, **GEOMETRY, p=np.inf)
    indexed = lambda x, **kwargs: jaxpool.max_pool_with_indices(x, **kwargs)[0]  # noqa: E731
    yield "max with indices", *windowed("max", indexed, **GEOMETRY)
    yield "unpool", *unpooling()
    minima = lambda x, **kwargs: jaxpool.min_pool_with_indices(x, **kwargs)[0]  # noqa: E731
    yield "min with indices", *windowed("min", minima, **GEOMETRY)
    u = np.float32([0.3, 0.8])
    adapted = [oracle.adaptive_bins(5, 3), oracle.adaptive_bins(4, 3)]
    drawn = [
        oracle.fractional_windows(size, out, 2, v)
        for size, out, v in zip((5, 4), (3, 2), u, strict=True)
    ]
    draw = {"window": 2, "output_shape": (3, 2), "samples": u, "axes": (-3, -2)}
    smooth = functools.partial(
        jaxpool.adaptive_logsumexp_pool, output_shape=3, axes=(-3, -2)
    )
    yield "adaptive logsumexp", smooth, twin_of_bins("logsumexp", SHAPE, adapted)
    for kind in ("max", "avg"):
        adaptive = getattr(jaxpool, f"adaptive_{kind}_pool")
        pooled = functools.partial(adaptive, output_shape=3, axes=(-3, -2))
        yield f"adaptive {kind}", pooled, twin_of_bins(kind, SHAPE, adapted)
        fractional = getattr(jaxpool, f"fractional_{kind}_pool")
        pooled = functools.partial(fractional, **draw)
        yield f"fractional {kind}", pooled, twin_of_bins(kind, SHAPE, drawn)
    added = functools.partial(jaxpool.pool, init=0.0, op=jnp.add)
    yield "pool", *windowed("sum", added, **GEOMETRY)


OPERATORS = {name: pair for name, *pair in _operators()}
