"""`aggregate`: each aggregation over each domain, beside plain formulas of jax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool import (
    Average,
    LogSumExp,
    Lp,
    Max,
    Min,
    PowerMean,
    Softmax,
    Sum,
    bins,
    whole,
    windows,
)
from tests import oracle
from tests.cases import distinct, mask

SHAPE = (2, 7, 5, 3)
CHANNELS = np.float32([0.5, 1, 2])
LOGITS = np.cos(np.arange(np.prod(SHAPE), dtype=np.float32)).reshape(SHAPE)

# For each aggregation, the same of the cells of one output: `where` says which count,
# `at` gives the part of an array beside the cells.
AGGREGATIONS = {
    "max": (Max(), lambda x, where, n, at: jnp.where(where, x, -jnp.inf).max()),
    "Min()": (Min(), lambda x, where, n, at: jnp.where(where, x, jnp.inf).min()),
    "Sum()": (Sum(), lambda x, where, n, at: (x * n).sum()),
    "Average()": (Average(), lambda x, where, n, at: (x * n).sum() / n.sum()),
    "Average(w)": (
        Average(LOGITS + 2),
        lambda x, where, n, at: (
            (x * at(LOGITS + 2) * n).sum() / (at(LOGITS + 2) * n).sum()
        ),
    ),
    "Lp(3)": (Lp(3), lambda x, where, n, at: ((abs(x) ** 3) * n).sum() ** (1 / 3)),
    "LogSumExp()": (
        LogSumExp(),
        lambda x, where, n, at: jax.nn.logsumexp(x, where=where),
    ),
    "LogSumExp(scale, mean)": (
        LogSumExp(CHANNELS, mean=True),
        lambda x, where, n, at: (
            (jax.nn.logsumexp(at(CHANNELS) * x, where=where) - jnp.log(n.sum()))
            / at(CHANNELS)[0]
        ),
    ),
    "Softmax()": (
        Softmax(),
        lambda x, where, n, at: (jax.nn.softmax(x, where=where) * x).sum(),
    ),
    "Softmax(logits, scale)": (
        Softmax(LOGITS, CHANNELS),
        lambda x, where, n, at: (
            jax.nn.softmax(at(LOGITS) * at(CHANNELS), where=where) * x
        ).sum(),
    ),
    "PowerMean(3)": (
        PowerMean(3),
        lambda x, where, n, at: (((abs(x) ** 3) * n).sum() / n.sum()) ** (1 / 3),
    ),
    "PowerMean(p)": (
        PowerMean(CHANNELS + 1),
        lambda x, where, n, at: (
            (((abs(x) ** (at(CHANNELS) + 1)) * n).sum() / n.sum())
            ** (1 / (at(CHANNELS)[0] + 1))
        ),
    ),
    "PowerMean(-1)": (
        PowerMean(-1),
        lambda x, where, n, at: 1 / ((n / abs(x)).sum() / n.sum()),
    ),
    "PowerMean(3, eps)": (
        PowerMean(3.0, eps=0.5),
        lambda x, where, n, at: (
            (((jnp.maximum(x, 0.5) ** 3) * n).sum() / n.sum()) ** (1 / 3)
        ),
    ),
}
DOMAINS = {
    "windows": windows((3, 2), (2, 1), ((1, 0), (0, 1))),
    "long windows": windows((7, 4), 1, "SAME"),
    "whole": whole(),
    "bins": bins((3, 2)),
}


def cells_of(over):
    """The result's sizes on the pooled axes, and the cells of each output."""
    if isinstance(over, whole):
        over = windows(SHAPE[1:3])
    if isinstance(over, bins):
        ranges = [
            oracle.adaptive_bins(n, out)
            for n, out in zip(SHAPE[1:3], over.output_shape, strict=True)
        ]
        table = {
            (i, j): [(h, w) for h in rows for w in columns]
            for i, rows in enumerate(ranges[0])
            for j, columns in enumerate(ranges[1])
        }
        return over.output_shape, table
    out, table = oracle.windows(SHAPE, over.window, over.strides, over.padding)
    return out, {o: cells for o, (cells, _) in table.items()}


def plain(formula, over, where):
    """The same pool, cell by cell of the result, as jax differentiates it."""
    out, table = cells_of(over)

    def one(array, index, b, c):
        rows, columns = np.asarray(index).T
        array = jnp.broadcast_to(array, SHAPE)
        return array[b, rows, columns, c]

    def pooled(x):
        y = [
            formula(
                one(x, cells, b, c),
                one(where, cells, b, c),
                one(where, cells, b, c).astype(jnp.float32),
                lambda array, cells=cells, b=b, c=c: one(array, cells, b, c),
            )
            for b in range(SHAPE[0])
            for cells in table.values()
            for c in range(SHAPE[-1])
        ]
        y = jnp.stack(y).reshape(SHAPE[0], *out, SHAPE[-1])
        return y.squeeze((1, 2)) if isinstance(over, whole) else y

    return pooled


@pytest.mark.share(8)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_over_every_domain(name, domain, masked):
    """Values, and derivatives in both modes to second order."""
    (by, formula), over = AGGREGATIONS[name], DOMAINS[domain]
    where = mask(SHAPE, keep=0.8) | (np.arange(7) % 2 == 0)[:, None, None]
    where = where if masked else np.ones(SHAPE, bool)
    x = distinct(SHAPE) / 32 + 0.03
    t = jnp.asarray(LOGITS[:, ::-1])
    pool = functools.partial(
        jaxpool.aggregate, by=by, over=over, where=where if masked else None
    )

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(pool, x):
        loss = lambda x: (pool(x) ** 2).sum()  # noqa: E731
        with jaxpool.forward_mode():
            y, ty = jax.jvp(pool, (x,), (t,))
            forward = jax.jvp(jax.grad(loss), (x,), (t,))[1]
        return y, ty, jax.grad(loss)(x), forward

    wants = derivatives(plain(formula, over, where), x)
    gots = derivatives(pool, x)
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 2e-4, 2e-4)
    np.testing.assert_allclose(pool(x), gots[0], 1e-5, 1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gradients_of_what_people_learn(domain):
    """Exponents, scales, logits and weights."""
    x, over = jnp.asarray(distinct(SHAPE) / 32 + 0.03), DOMAINS[domain]
    each = {
        "PowerMean(p)": (lambda p: PowerMean(p + 1), CHANNELS),
        "LogSumExp(scale, mean)": (lambda s: LogSumExp(s, mean=True), CHANNELS),
        "Softmax(logits, scale)": (lambda s: Softmax(LOGITS, s), CHANNELS),
    }
    for name, (made, start) in each.items():
        formula = AGGREGATIONS[name][1]

        def ours(array, made=made):
            return (jaxpool.aggregate(x, made(array), over) ** 2).sum()

        def theirs(array, formula=formula):
            at = lambda a, of: of(array if a is CHANNELS else a)  # noqa: E731
            moved = lambda x, where, n, of: formula(x, where, n, lambda a: at(a, of))  # noqa: E731
            return (plain(moved, over, np.ones(SHAPE, bool))(x) ** 2).sum()

        got, want = (jax.jit(jax.grad(f))(jnp.asarray(start)) for f in (ours, theirs))
        np.testing.assert_allclose(got, want, 1e-3, 1e-3, err_msg=name)
