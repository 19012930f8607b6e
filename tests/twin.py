"""The pools once more, as a gather that jax differentiates by itself.

A twin is traced like the pool it mirrors, so any transformation of the one can be
compared with the same transformation of the other. Which cells a window has comes from
the oracle; the winner is chosen from values without a derivative, then gathered.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from tests import oracle


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
    fixed = jax.lax.stop_gradient(cells if kind == "max" else -cells)
    # Not even -inf wins against nothing.
    rank = jnp.where(valid, jnp.nan_to_num(fixed, nan=jnp.inf, neginf=-3e38), -jnp.inf)
    winner = jnp.expand_dims(rank.argmax(-2), -2)
    return jnp.take_along_axis(kept, winner, -2).squeeze(-2)
