"""Every cell of the table of aggregations and domains, under what people do with it.

Values and derivatives of each cell are in `test_aggregate`. The table is that of
README.md and docs/conventions.md.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxpool
from jaxpool import By, Monoid, aggregate, stream, whole
from tests.cases import distinct, mask
from tests.functions.test_aggregate import AGGREGATIONS, DOMAINS, SHAPE

LONG = "long windows"
CELLS = [
    *((name, domain) for name in AGGREGATIONS for domain in (*DOMAINS, "stream")),
    *(
        (name, domain)
        for name in ("Softmax(bias)", "Monoid(add)")
        for domain in ("windows", LONG, "whole", "stream")
    ),
]
CAUSAL = jaxpool.windows(3, 1, "CAUSAL", axes=1)
BIASED = {"windows": (3, 2), LONG: (7, 4), "whole": SHAPE[1:3], "stream": 3}
every_cell = pytest.mark.parametrize(("name", "domain"), CELLS)
ROOT = Path(__file__).parents[2]
PAGES = ROOT / "README.md", ROOT / "docs" / "conventions.md"


def rule(name, domain):
    """The aggregation of a cell of the table."""
    if name == "Softmax(bias)":
        cells = np.arange(np.prod(BIASED[domain]), dtype=np.float32)
        return jaxpool.Softmax(bias=np.sin(cells).reshape(BIASED[domain]))
    return Monoid(0.0, jnp.add) if name == "Monoid(add)" else AGGREGATIONS[name][0]


def cell(name, domain):
    return functools.partial(pooled, domain, rule(name, domain))


def pooled(domain, by, x, where=None):
    if domain == "stream":
        return streamed(by, x, where)
    return aggregate(x, by, DOMAINS[domain], where=where)


def streamed(by, x, where=None):
    """In two chunks; arrays with a number for each cell are cut as `x` is."""
    names = [n for n in by.arrays if np.ndim(getattr(by, n)) == x.ndim]
    init, step = stream(by, CAUSAL, arrays=names)
    state, found = init(x.shape, x.dtype), []
    for part in (slice(0, 3), slice(3, None)):
        arrays = {name: getattr(by, name)[:, part] for name in names}
        valid = None if where is None else where[:, part]
        state, outputs = step(state, x[:, part], where=valid, **arrays)
        found.append(outputs)
    return jnp.concatenate(found, 1)


def per_item(name):
    """Whether an aggregation has an array with a number for each cell."""
    by = rule(name, "whole")
    return any(np.ndim(leaf) > 2 for leaf in jax.tree.leaves(by))


def test_every_aggregation_is_in_the_table():
    kinds = {type(by) for by, _ in AGGREGATIONS.values()}
    public = {k for k in vars(jaxpool).values() if isinstance(k, type)}
    assert kinds == {k for k in public if issubclass(k, By)} - {By, Monoid}


def answer(by, domain):
    """Whether a cell of the table gives a result, or is refused by name."""
    x = jnp.ones((2, 8, 3))
    rows = jnp.asarray([[0, 1], [2, -1]])
    over = {
        "windows": jaxpool.windows(3, 1, axes=1),
        "whole": whole(1),
        "bins": jaxpool.bins(3, axes=1),
        "segments": jaxpool.segments(jnp.arange(8) % 3, 3, axis=1),
        "neighbors": jaxpool.neighbors(rows, axis=1),
        "stream": jaxpool.windows(3, 1, "CAUSAL", axes=1),
    }[domain]
    if domain == "whole" and by == "bias":
        by = jaxpool.Softmax(bias=np.zeros(8, np.float32))
    elif by == "bias":
        by = jaxpool.Softmax(bias=np.zeros(3, np.float32))
    said = ""
    try:
        if domain == "stream":
            init, step = stream(by, over)
            step(init(x.shape, x.dtype), x)
        else:
            aggregate(x, by, over)
    except NotImplementedError as error:
        said = str(error)
    named = type(by).__name__ in said and domain in said
    return "yes" if not said else "no" if named else said


@pytest.mark.slow
def test_the_table_of_the_docs_is_true():
    """Each row is an aggregation, each column a domain."""
    kinds = {
        "`Max`, `Min`": jaxpool.Max(),
        "`Sum`, `Average`": jaxpool.Sum(),
        "`Lp`, `PowerMean`": jaxpool.Lp(3),
        "`LogSumExp`": jaxpool.LogSumExp(),
        "`Softmax`": jaxpool.Softmax(),
        "`Softmax(bias=)`": "bias",
        "`Variance`, `StandardDeviation`": jaxpool.Variance(),
        "`Median`, `Quantile`, `TopKMean`": jaxpool.Median(),
        "`Monoid`": Monoid(0.0, jnp.add),
    }
    domains = ("windows", "whole", "bins", "segments", "neighbors", "stream")
    lines = [f"| | {' | '.join(f'`{domain}`' for domain in domains)} |"]
    lines.append(f"|---{'|---' * len(domains)}|")
    for title, by in kinds.items():
        row = " | ".join(answer(by, domain) for domain in domains)
        lines.append(f"| {title} | {row} |")
    for page in PAGES:
        assert "\n".join(lines) in page.read_text()


@pytest.mark.share(6)
@every_cell
def test_vmap_and_half_floats(name, domain):
    """Over a batch, and in both half floats beside float32."""
    pool, x = cell(name, domain), jnp.asarray(distinct(SHAPE) / 32 + 0.03)
    want = pool(x)
    if not per_item(name):
        one = jax.vmap(lambda x: pool(x[None])[0])(x)
        np.testing.assert_allclose(one, want, rtol=1e-5, atol=1e-5)
    for dtype in (jnp.bfloat16, np.float16):
        half = x.astype(dtype)
        got = pool(half)
        assert got.dtype == dtype
        rounded = pool(half.astype(np.float32)).astype(dtype)
        close = {"rtol": 0.01, "atol": 1e-3}
        np.testing.assert_allclose(
            got.astype(np.float32), rounded.astype(np.float32), **close
        )


@pytest.mark.share(6)
@every_cell
def test_nan_stays_with_its_readers(name, domain):
    pool, x = cell(name, domain), distinct(SHAPE) / 32 + 0.03
    want, spoiled = pool(x), x.copy()
    spoiled[0, 2, 3, 1] = np.nan
    got = np.asarray(pool(spoiled))
    where = np.asarray(cell("Sum()", domain)(spoiled))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(where))
    others = ~np.isnan(where)
    np.testing.assert_allclose(got[others], np.asarray(want)[others], rtol=1e-6)


@pytest.mark.share(6)
@every_cell
def test_masked_cells_may_hold_anything(name, domain):
    """Values, and gradients of cells and of what may be learned."""
    where = jnp.asarray(mask(SHAPE, keep=0.7))
    waste = np.resize(np.float32([np.nan, np.inf, -np.inf, 1e38]), SHAPE)

    def spoiled(array):
        return jnp.where(where, array, waste) if np.shape(array) == SHAPE else array

    @jax.jit
    def results(by, x):
        loss = lambda by, x: (pooled(domain, by, x, where) ** 2).sum()  # noqa: E731
        return loss(by, x), jax.grad(loss, (0, 1))(by, x)

    by, x = rule(name, domain), distinct(SHAPE) / 32 + 0.03
    want = results(by, x)
    got = results(*jax.tree.map(spoiled, (by, x)))
    for one, other in zip(*map(jax.tree.leaves, (got, want)), strict=True):
        assert np.isfinite(other).all()
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert not np.where(where, 0, jax.tree.leaves(got)[-1]).any()


@pytest.mark.slow
@pytest.mark.share(12)
@every_cell
def test_both_modes_agree_to_second_order(name, domain):
    """Of cells and of what may be learned, under a mask."""
    where = jnp.asarray(mask(SHAPE, keep=0.8))
    by, x = rule(name, domain), jnp.asarray(distinct(SHAPE) / 32 + 0.03)
    pool = lambda args: pooled(domain, *args, where)  # noqa: E731
    loss = lambda args: (pool(args) ** 2).sum()  # noqa: E731
    args = jax.tree.map(lambda a: jnp.asarray(a, np.float32), (by, x))
    t = jax.tree.map(lambda a: jnp.cos(1 + jnp.arange(a.size, dtype=a.dtype)), args)
    t = jax.tree.map(lambda t, a: t.reshape(a.shape), t, args)

    def inner(one, other):
        pairs = zip(*map(jax.tree.leaves, (one, other)), strict=True)
        return sum((a * b).sum() for a, b in pairs)

    @jax.jit
    def both(args, t):
        with jaxpool.forward_mode():
            y, ty = jax.jvp(pool, (args,), (t,))
            forward = jax.jvp(jax.grad(loss), (args,), (t,))[1]
        backward = jax.grad(lambda args: inner(jax.grad(loss)(args), t))(args)
        g = jnp.sin(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
        (gx,) = jax.vjp(pool, args)[1](g)
        return (inner(g, ty), forward), (inner(gx, t), backward)

    ours, same = (jax.tree.leaves(one) for one in both(args, t))
    for one, other in zip(ours, same, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", [n for n in AGGREGATIONS if n != "Average(w)"])
def test_padding_that_is_masked_is_as_if_cut_off(name):
    by, x = AGGREGATIONS[name][0], distinct(SHAPE) / 32 + 0.03
    valid = np.broadcast_to((np.arange(7) < 4)[:, None, None], SHAPE)
    padded = np.where(valid, x, np.float32(np.nan))
    got = aggregate(padded, by, whole(1), where=valid)
    short = jax.tree.map(lambda a: a[:, :4] if np.shape(a) == SHAPE else a, by)
    np.testing.assert_allclose(got, aggregate(x[:, :4], short, whole(1)), rtol=2e-6)


@pytest.mark.share(6)
@every_cell
def test_export(name, domain):
    pool, x = cell(name, domain), distinct(SHAPE) / 32 + 0.03
    program = jax.jit(lambda x: jax.value_and_grad(lambda x: pool(x).sum())(x))
    exported = jax.export.export(program, platforms=["cpu", "cuda", "tpu"])(x)
    got = jax.export.deserialize(exported.serialize()).call(x)
    for one, other in zip(got, program(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.share(6)
@every_cell
def test_a_split_batch_sends_nothing(name, domain):
    pool, x = cell(name, domain), jnp.asarray(distinct(SHAPE) / 32 + 0.03)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("b",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("b"))

    def both(x):
        y, pull = jax.vjp(pool, x)
        return y, pull(jnp.ones_like(y))[0]

    program = jax.jit(both, in_shardings=split).lower(x).compile()
    for one, other in zip(program(jax.device_put(x, split)), both(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    text = program.as_text()
    assert not [w for w in ("all-gather", "permute", "all-reduce") if w in text]
