"""Long axes and long windows: programs do not grow with them, and sizes are checked.

Nothing large is run here: long axes are traced, and short ones are pooled by what long
ones take.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxpool
from jaxpool.aggregations import sums
from jaxpool.engines import gathers, numbers
from jaxpool.geometry import bins
from jaxpool.geometry.resolve import resolve
from jaxpool.geometry.window import AxisWindow
from tests import oracle
from tests.cases import (
    NAMED_CASES,
    check_against_oracle,
    cotangent,
    distinct,
    every_extreme,
)
from tests.geometry.axis_windows import places

U = np.float32([0.3])
WINDOW = {"window": 3, "strides": 1, "padding": "SAME", "axes": 0}
PARTS = {"axes": 0, "samples": U}


def named(name, *args, **kwargs):
    """A pool of one axis, by name."""
    return functools.partial(getattr(jaxpool, name), *args, **kwargs)


def values(pool):
    """The first result of a pool that has two."""
    return lambda x: pool(x)[0]


POOLS = {
    "D6-max": lambda x: jaxpool.max_pool(x, **WINDOW),
    "D6-max-reduce_window": named("max_pool", **WINDOW, implementation="reduce_window"),
    "D6-max-dilated": named("max_pool", **WINDOW | {"dilation": 2, "strides": 2}),
    "D6-max-masked": lambda x: jaxpool.max_pool(x, **WINDOW, where=x > 0),
    "D6-max-apart": named("max_pool", window=3, strides=100_000, axes=0),
    "D6-max-tiles": named("max_pool", window=100_003, axes=0),
    "D6-max-indices": values(named("max_pool_with_indices", **WINDOW)),
    "D6-avg": named("avg_pool", **WINDOW),
    "D6-avg-padding": named("avg_pool", **WINDOW, count_include_pad=True),
    "D6-avg-masked": lambda x: jaxpool.avg_pool(x, **WINDOW, where=x > 0),
    "D6-avg-tiles": named("avg_pool", window=100_003, axes=0),
    "D6-avg-slices": named("avg_pool", **WINDOW, implementation="slices"),
    "D6-lp": named("lp_pool", **WINDOW),
    "D6-global-max": named("global_max_pool", axes=0),
    "D6-global-avg": named("global_avg_pool", axes=0),
    "D6-adaptive-max": named("adaptive_max_pool", output_shape=101, axes=0),
    "D6-adaptive-avg": named("adaptive_avg_pool", output_shape=100, axes=0),
    "D6-adaptive-avg-many": named("adaptive_avg_pool", output_shape=300_007, axes=0),
    "D6-fractional": named(
        "fractional_max_pool", window=3, output_shape=100_003, **PARTS
    ),
    "D6-fractional-steps": named(
        "fractional_avg_pool",
        window=None,
        output_shape=100_003,
        rule="pseudorandom",
        **PARTS,
    ),
    "D6-unpool": lambda x: jaxpool.max_unpool(
        x, jnp.zeros(x.shape, jnp.int32), 2 * x.size, axes=0
    ),
    "D6-pool": named("pool", init=0.0, op=jnp.add, **WINDOW),
}


@pytest.mark.share(8)
@pytest.mark.parametrize("name", POOLS)
def test_programs_do_not_grow_with_an_axis(name):
    """D6: neither their texts nor the time to trace them, back included."""
    loss = lambda x: (POOLS[name](x) ** 2).sum()  # noqa: E731

    def text(size):
        x = jax.ShapeDtypeStruct((size,), jnp.float32)
        return jax.jit(jax.value_and_grad(loss)).lower(x).as_text()

    start = time.process_time()
    short, long = text(1_000_000), text(16_000_000)
    assert time.process_time() - start < 15  # it was a minute or more
    assert len(long) < min(1.5 * len(short) + 20_000, 400_000)


def test_no_number_of_a_cell_of_a_bin_is_a_constant():
    """Each piece of a long bin asks for the winner of its bin."""
    loss = lambda x: POOLS["D6-adaptive-max"](x).sum()  # noqa: E731
    x = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    lines = jax.jit(jax.grad(loss)).lower(x).as_text().splitlines()
    assert max(map(len, lines)) < 10_000


@given(
    st.integers(1, 900),
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**31),
    st.integers(1, 2**31 - 1),
)
def test_quotients_of_products_that_int32_does_not_hold(count, factor, plus, by):
    factor = min(factor, by * 2**20)  # so that quotients fit
    plus = min(plus, by)
    want = np.asarray([divmod(o * factor + plus, by) for o in range(count)])
    got = numbers.divided(count, factor, plus, by)
    np.testing.assert_array_equal(np.stack(got, -1), want)


@pytest.mark.share(8)
@pytest.mark.parametrize(("size", "out"), [(2_000_003, 3001), (3001, 2_000_003)])
def test_places_of_many_bins(size, out):
    got = jax.jit(lambda: gathers._equal(size, out))()
    o = np.arange(out)
    np.testing.assert_array_equal(got[0], o * size // out)
    np.testing.assert_array_equal(got[1], -(-(o + 1) * size // out))


@given(st.integers(1, 60), st.integers(1, 60))
def test_the_least_and_the_most_cells_of_a_bin(size, out):
    (dim,) = bins.adaptive_bins((size,), out, 0).dims
    each = oracle.adaptive_bins(size, out)
    lengths = [len(cells) for cells in each]
    assert dim.cells == (min(lengths), max(lengths))
    covers = [sum(h in cells for cells in each) for h in range(size)]
    assert dim.covers == (min(covers), max(covers))


@pytest.fixture
def every_axis_is_long(monkeypatch):
    """Take what long axes take."""
    for module, name in (
        (numbers, "LONG"),
        (sums, "LONG"),
        (gathers, "FEW"),
    ):
        monkeypatch.setattr(module, name, 2)
    monkeypatch.setattr(numbers, "_DIGIT", 3)
    jax.clear_caches()
    yield
    jax.clear_caches()


LONG_CASES = [
    case
    for case in NAMED_CASES
    if case.id
    in {
        "overlap_2d",
        "padding_low_only",
        "causal_dilated",
        "dilated_strided",
        "dilated_window_of_padding_only",
        "ceil_pad_overhang",
        "axes_apart",
        "long_window_with_stride",
        "long_windows_tiling",
        "tiles_dilated",
    }
]


@pytest.mark.share(8)
@pytest.mark.parametrize("case", LONG_CASES)
@pytest.mark.parametrize("implementation", [None, "reduce_window"])
@pytest.mark.usefixtures("every_axis_is_long")
def test_what_long_axes_take_is_right(case, implementation):
    """D6: each number along an axis is computed by the program."""
    x = distinct(case.shape)
    kwargs = case.kwargs() | {"implementation": implementation}
    padded = kwargs | {"count_include_pad": True}
    checks = [(kind, x, kwargs) for kind in ("max", "avg", "lp")]
    check_against_oracle([*checks, ("avg", x, padded)], rtol=1e-5, atol=1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize("outs", [(3, 7), (4, 2), (11, 5)])
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.usefixtures("every_axis_is_long")
def test_what_bins_of_long_axes_take_is_right(kind, outs):
    """D6: adaptive pools, and those whose bins are drawn."""
    x, g = distinct((1, 41, 5, 2)), cotangent((1, *outs, 2))
    y, dx, _ = oracle.adaptive(x, g, kind, outs)
    pool = functools.partial(
        getattr(jaxpool, f"adaptive_{kind}_pool"), output_shape=outs
    )
    got, pull = jax.vjp(pool, x)
    np.testing.assert_allclose(got, y, 1e-5, 1e-5)
    np.testing.assert_allclose(pull(g.astype(np.float32))[0], dx, 1e-5, 1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize("rule", ["window", "pseudorandom"])
@pytest.mark.usefixtures("every_axis_is_long")
def test_what_drawn_bins_of_long_axes_take_is_right(rule):
    """D6."""
    x, g = distinct((41, 2)), cotangent((7, 2))
    kwargs = {"samples": U, "axes": (0,), "rule": rule}
    window = 20 if rule == "window" else None
    y, dx, _ = oracle.fractional(x, g, "avg", window, (7,), **kwargs)
    pool = functools.partial(
        jaxpool.fractional_avg_pool, window=window, output_shape=7, **kwargs
    )
    got, pull = jax.vjp(pool, x)
    np.testing.assert_allclose(got, y, 1e-5, 1e-5)
    np.testing.assert_allclose(pull(g.astype(np.float32))[0], dx, 1e-5, 1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize("implementation", [None, "slices"])
@pytest.mark.parametrize("kind", ["max", "avg", "lp"])
def test_long_windows_that_no_block_divides(kind, implementation):
    """D6: a prime number of cells, of which there are only few windows."""
    x = distinct((1100, 1))
    kwargs = {"window": (521,), "strides": (541,), "implementation": implementation}
    check_against_oracle([(kind, x, kwargs)], rtol=1e-4, atol=1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "dilation"),
    [
        (5, 9, 1, (4, 4), 1),
        (5, 40, 3, (30, 25), 1),
        (4, 7, 2, (15, 16), 3),
        (6, 9, 5, (8, 0), 1),
        (1, 5, 1, (2, 2), 1),
        (3, 3, 1, (2, 2), 2),
    ],
)
def test_windows_without_what_none_of_them_sees(
    size, window, stride, padding, dilation
):
    """D7: the same cells of the input, in no more places than there can be."""
    geometry = (window, stride, [padding], dilation, 0, False)
    (dim,) = resolve((size,), *geometry).dims
    clipped = dim.clipped()
    assert isinstance(clipped, AxisWindow)
    assert clipped.out == dim.out
    assert clipped.window <= min(dim.window, size + (dim.out - 1) * dim.stride)
    for o in range(dim.out):
        inside = [h for h in places(dim, o) if 0 <= h < size]
        assert [h for h in places(clipped, o) if 0 <= h < size] == inside
    x = distinct((size,))
    kwargs = dict(zip(("window", "strides", "padding"), geometry, strict=False))
    kwargs |= {"dilation": dilation, "axes": (0,), "window": (window,)}
    padded = kwargs | {"count_include_pad": True}
    checks = [(kind, x, kwargs) for kind in ("max", "sum", "lp")]
    check_against_oracle([*checks, ("avg", x, padded)], rtol=1e-5, atol=1e-5)


X = np.ones((1, 4, 4, 3), np.float32)
ONE = np.float32([0.5, 0.5])
HUGE = {
    "D7-adaptive": ("output_shape", lambda n: jaxpool.adaptive_avg_pool(X, (n, 4))),
    "D7-adaptive-indices": (
        "output_shape",
        lambda n: jaxpool.adaptive_max_pool_with_indices(X, (4, n)),
    ),
    "D7-window": ("window", lambda n: jaxpool.max_pool(X, (n, 2), 1, "SAME")),
    "D7-window-pool": (
        "window",
        lambda n: jaxpool.pool(X, 0.0, jnp.add, (n, 2), 1, "SAME"),
    ),
    "D7-window-padded": (
        "window",
        lambda n: jaxpool.avg_pool(X, (n, 2), n, [(n - 1, n - 1), (0, 0)]),
    ),
    "D7-strides": ("strides", lambda n: jaxpool.lp_pool(X, (2, 2), (n, 1))),
    "D7-dilation": (
        "dilation",
        lambda n: jaxpool.max_pool(X, (2, 2), 1, "SAME", dilation=(n, 1)),
    ),
    "D7-padding": ("padding", lambda n: jaxpool.max_pool(X, (2, 2), 1, n)),
    "D7-fractional": (
        "output_shape",
        lambda n: jaxpool.fractional_max_pool(X, 2, (n, 2), samples=ONE),
    ),
    "D7-fractional-window": (
        "window",
        lambda n: jaxpool.fractional_max_pool(X, n, (2, 2), samples=ONE),
    ),
    "D7-unpool": (
        "output_shape",
        lambda n: jaxpool.max_unpool(X, np.zeros(X.shape, np.int32), (n, 4)),
    ),
    "D7-output_shape": (
        "window",
        lambda n: jaxpool.output_shape(X.shape, (n, 2), 1, "SAME"),
    ),
}


@pytest.mark.share(8)
@pytest.mark.parametrize("number", [2**31, 2**33, 2**40, 10**30])
@pytest.mark.parametrize("name", HUGE)
def test_sizes_that_nothing_can_have_are_refused_at_once(name, number):
    argument, call = HUGE[name]
    start = time.process_time()
    with pytest.raises(ValueError, match=argument):
        call(number)
    assert time.process_time() - start < 2


def test_windows_of_a_milliard_cells_cost_no_more_than_the_input():
    """D7: all but the cells of the input is padding."""
    got = jaxpool.avg_pool(jnp.arange(4.0), 10**9, 1, "SAME", axes=0)
    np.testing.assert_array_equal(got, [1.5] * 4)


PLANE = (1, 46_400, 46_400, 1)
LARGE_INDEXED = {
    "D8-adaptive": named("adaptive_max_pool_with_indices", output_shape=(3, 3)),
    "D8-windows": named("max_pool_with_indices", window=(3, 3)),
    "D8-global": named("global_max_pool_with_indices"),
    "D8-fractional": named(
        "fractional_max_pool_with_indices", window=2, output_shape=(3, 3), samples=ONE
    ),
}
LARGE = {
    "D8-global": named("global_max_pool"),
    "D8-global-masked": lambda x: jaxpool.global_max_pool(x, where=x > 1),
    "D8-global-inf": named("global_lp_pool", p=np.inf),
    "D8-global-lp": named("global_lp_pool"),
    "D8-global-avg": named("global_avg_pool"),
    "D8-windows": named("max_pool", window=(3, 3)),
    "D8-long-windows": named("max_pool", window=(40_000, 40_000)),
    "D8-adaptive": named("adaptive_max_pool", output_shape=(3, 3)),
    "D8-fractional": named(
        "fractional_max_pool", window=2, output_shape=(3, 3), samples=ONE
    ),
}


@pytest.mark.share(8)
@pytest.mark.parametrize("name", LARGE_INDEXED)
def test_indices_of_more_cells_than_int32_counts_are_refused(name):
    x = jax.ShapeDtypeStruct(PLANE, np.uint8)
    with pytest.raises(ValueError, match=r"^x must have at most 2\*\*31 - 1"):
        jax.eval_shape(LARGE_INDEXED[name], x)


@pytest.mark.share(8)
@pytest.mark.parametrize("name", LARGE)
def test_gradients_over_more_cells_than_int32_counts(name):
    x = jax.ShapeDtypeStruct(PLANE, np.float16)
    loss = lambda x: LARGE[name](x).astype(np.float32).sum()  # noqa: E731
    assert jax.eval_shape(jax.grad(loss), x).shape == PLANE


@pytest.mark.share(8)
@pytest.mark.parametrize("masked", [False, True])
@every_extreme
def test_what_such_planes_take_is_right(kind, masked, monkeypatch):
    """D8: axis by axis, the first winner, NaN included."""
    monkeypatch.setattr(
        jaxpool.geometry.window.Window, "is_countable", property(one_axis)
    )
    jax.clear_caches()
    x = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.float32)
    x[1, 2, 3] = x[4, 3, 1] = np.nan
    where = np.random.default_rng(1).random(x.shape) < 0.5 if masked else None
    kwargs = {"window": (2, 3, 2), "strides": (2, 1, 1), "padding": "SAME"}
    kwargs |= {"axes": (0, 1, 2), "where": where, "empty_value": 7}
    check_against_oracle([(kind, x, kwargs)])
    jax.clear_caches()


def one_axis(window):
    return len(window.axes) == 1


def test_what_bins_of_such_planes_take_is_right(monkeypatch):
    """D8."""
    monkeypatch.setattr(bins, "MOST", 20)
    jax.clear_caches()
    x = np.random.default_rng(0).integers(0, 3, (1, 7, 5, 2)).astype(np.float32)
    x[0, 2, 3] = x[0, 4, 1] = np.nan
    g = cotangent((1, 3, 3, 2))
    y, dx, _ = oracle.adaptive(x, g, "max", (3, 3))
    got, pull = jax.vjp(lambda x: jaxpool.adaptive_max_pool(x, (3, 3)), x)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(pull(g.astype(np.float32))[0], dx)
    jax.clear_caches()


@pytest.mark.share(8)
@pytest.mark.parametrize("pool", [jaxpool.sum_pool, jaxpool.avg_pool])
def test_the_gradient_of_a_window_that_is_the_image_is_copies(pool):
    """A14: no steps, and so no pads between them."""
    x = jax.ShapeDtypeStruct((2, 14, 14, 3), np.float32)
    back = jax.linear_transpose(lambda x: pool(x, (14, 14)), x)
    text = jax.jit(back).lower(jnp.ones((2, 1, 1, 3))).as_text()
    assert "stablehlo.pad" not in text
    y = distinct((2, 14, 14, 3))
    kwargs = {"window": (14, 14), "padding": ((3, 0), (0, 2)), "strides": 5}
    checks = [("avg", y, {"window": (14, 14)}), ("avg", y[:, :11], kwargs)]
    check_against_oracle([*checks, ("lp", y[:, :11], kwargs | {"p": 1})], rtol=1e-4)
