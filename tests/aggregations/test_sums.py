"""sum_pool, avg_pool and lp_pool: every geometry against the oracle."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxpool
from tests.cases import (
    CLOSE,
    NAMED_RUNS,
    Case,
    cases,
    check_against_oracle,
    distinct,
    every_implementation,
    every_smooth,
    mask,
    tied,
    value_and_vjp,
)


def check(case, implementation, seed=0):
    """Sums of the unmasked cells, averages that count padding, in one program."""
    kwargs = case.kwargs() | {"implementation": implementation}
    masked = kwargs | {"where": mask(case.shape, seed), "empty_value": -7}
    x = distinct(case.shape)
    check_against_oracle(
        [
            ("sum", x, masked),
            ("avg", x, kwargs | {"count_include_pad": True}),
        ],
        **CLOSE,
    )


@pytest.mark.share(8)
@pytest.mark.parametrize(("case", "implementation"), NAMED_RUNS)
def test_named_case(case, implementation):
    check(case, implementation)


@pytest.mark.share(8)
@every_implementation
@settings(max_examples=5)
@given(case=cases(), seed=st.integers(0, 99))
def test_random_case(case, seed, implementation):
    check(case, implementation, seed)


@pytest.mark.share(8)
@every_implementation
@pytest.mark.parametrize(
    "case",
    [
        Case((2, 9, 8, 3), (3, 3), (2, 2), 1),
        Case((2, 9, 8, 3), (3, 2), (1, 1), "SAME"),
        Case((2, 9, 8, 3), (3, 3), (1, 1), ((0, 1), (2, 0))),
        Case((2, 9, 8, 3), (5, 4), (1, 2), "SAME"),
        Case((1, 5, 6, 7, 2), (3, 3, 3), (2, 2, 2), "SAME"),
        Case((1, 12, 9, 2), (3, 2), (1, 1), 0, (2, 3)),
        Case((2, 6, 5, 3), (6, 5)),
    ],
    ids=str,
)
def test_half_floats_are_added_up_in_float32(case, implementation):
    """Exactly, as the numbers are small; and rounded once, in both directions."""
    x = tied(case.shape).astype(jnp.bfloat16)
    kwargs = case.kwargs() | {"implementation": implementation}
    check_against_oracle([("sum", x, kwargs)], rtol=0)
    check_against_oracle([("avg", x, kwargs)], rtol=2**-8, atol=1e-6)


OPTIONS = [
    ("sum", {"where": True, "empty_value": 3}),
    ("avg", {"where": True}),
    ("avg", {"count_include_pad": True, "where": True}),
    ("avg", {"divisor": 3}),
    ("avg", {"divisor": 2.5, "where": True, "empty_value": -1}),
    ("lp", {"where": True, "empty_value": np.nan}),
    ("lp", {}),
    ("lp", {"p": 1}),
    ("lp", {"p": 3.5, "where": True}),
    ("lp", {"p": np.inf}),
]


@pytest.mark.share(8)
@pytest.mark.parametrize("implementation", [None])
@pytest.mark.parametrize(("kind", "options"), OPTIONS)
def test_options(kind, options, implementation):
    checks = []
    for case in (
        Case((1, 7, 5, 2), (3, 2), (2, 1), ((2, 0), (1, 1))),
        Case((1, 8, 6, 1), (2, 3), (3, 2), (1, 0), (3, 2), ceil_mode=True),
        Case((2, 2, 6, 5), (3, 3), (1, 1), "SAME", axes=(-2, -1)),
    ):
        kwargs = case.kwargs() | {"implementation": implementation} | options
        if "where" in options:
            kwargs["where"] = mask(case.shape)
        checks += [(kind, x(case.shape), kwargs) for x in (distinct, tied)]
    check_against_oracle(checks, **CLOSE)


@pytest.mark.share(8)
@every_smooth
def test_masked_cells_never_leak(kind):
    """NaN and inf behind the mask reach neither the value nor the gradient."""
    x = distinct((2, 7, 6, 3))
    where = mask(x.shape)
    args = {"window": (3, 3), "strides": (2, 1), "padding": "SAME", "where": where}
    op = getattr(jaxpool, f"{kind}_pool")
    g = np.ones(jaxpool.output_shape(x.shape, (3, 3), (2, 1), "SAME"))
    clean, *dirty = value_and_vjp(
        [
            (op, args, np.where(where, x, fill).astype(np.float32), g)
            for fill in (0, np.nan, np.inf, -np.inf)
        ]
    )
    for got in dirty:
        np.testing.assert_array_equal(got[0], clean[0])
        np.testing.assert_array_equal(got[1], clean[1])


def test_divisor_divides_masked_windows_too():
    x = np.array([2.0, 4, 6, 8], np.float32)[:, None]
    where = np.array([True, False, False, False])[:, None]
    y = jaxpool.avg_pool(x, (2,), where=where, divisor=4, empty_value=-1)
    np.testing.assert_array_equal(y.ravel(), [0.5, -1])


def test_average_is_the_sum_over_the_count():
    x = distinct((1, 6, 6, 2))
    np.testing.assert_allclose(
        jaxpool.avg_pool(x, (3, 2)), jaxpool.sum_pool(x, (3, 2)) / 6, rtol=1e-6
    )
    np.testing.assert_array_equal(
        jaxpool.avg_pool(x, (3, 2), divisor=1), jaxpool.sum_pool(x, (3, 2))
    )


def test_linear():
    x, y = distinct((1, 7, 5, 2)), tied((1, 7, 5, 2))
    for op in (jaxpool.sum_pool, jaxpool.avg_pool):
        both = op(4 * x + y, (3, 2), (1, 2), "SAME")
        parts = 4 * op(x, (3, 2), (1, 2), "SAME") + op(y, (3, 2), (1, 2), "SAME")
        np.testing.assert_allclose(both, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize("p", [1, 2, 3, np.inf])
def test_lp_of_signed_input_is_a_norm(p):
    x = np.array([-3, 1, 0, -2], np.float32)
    y = jaxpool.lp_pool(x[:, None], (4,), p=p)
    np.testing.assert_allclose(y[0, 0], np.linalg.norm(x, p), rtol=1e-6)


@pytest.mark.share(8)
@pytest.mark.parametrize("p", [1, 1.5, 2, 3, np.inf])
def test_lp_gradient_of_a_zero_window_is_zero(p):
    x = np.array([0, 0, 3, 0], np.float32)[:, None]
    kwargs = {"window": (2,), "p": p}
    ((y, dx),) = value_and_vjp([(jaxpool.lp_pool, kwargs, x, np.ones((2, 1)))])
    np.testing.assert_allclose(y.ravel(), [0, 3], rtol=1e-6)
    np.testing.assert_allclose(dx.ravel(), [0, 0, 1, 0], atol=1e-6)


def test_lp_fractional_power():
    x = np.array([1.0, -4, 9, 16], np.float32)[:, None]
    y = jaxpool.lp_pool(x, (2,), p=0.5)
    np.testing.assert_allclose(y.ravel(), [9, 49], rtol=1e-5)


@pytest.mark.share(8)
@pytest.mark.parametrize("scale", [1e20, 1e-30])
def test_lp_neither_overflows_nor_underflows(scale):
    x = (np.array([3, 4], np.float32) * np.float32(scale))[:, None]
    np.testing.assert_allclose(jaxpool.lp_pool(x, (2,)), [[5 * scale]], rtol=1e-5)


@pytest.mark.share(8)
@every_implementation
@pytest.mark.parametrize(
    ("x", "p", "y", "dx"),
    [
        (
            [1, 1, 1e25, 1e25],
            3,
            [2 ** (1 / 3), 2 ** (1 / 3) * 1e25],
            [2 ** (-2 / 3)] * 4,
        ),
        ([1e-4, 1e-4, 1, 1], 10, [2**0.1 * 1e-4, 2**0.1], [2**-0.9] * 4),
        ([1.5, 1, 3e38, 1], 300, [1.5, 3e38], [1, 0, 1, 0]),
        ([1e-30, 0, np.inf, 1], 2, [1e-30, np.inf], [1, 0, 1, 0]),
    ],
)
def test_lp_of_any_magnitudes_beside_each_other(x, p, y, dx, implementation):
    def pool(x):
        return jaxpool.lp_pool(x, 2, axes=0, p=p, implementation=implementation)

    x = jnp.asarray(x, jnp.float32)
    got, vjp = jax.vjp(pool, x)
    np.testing.assert_allclose(got, np.float32(y), rtol=2e-6)
    np.testing.assert_allclose(vjp(jnp.ones(2))[0], dx, rtol=2e-6, atol=1e-30)


def rounded(total, number):
    """The float32 next to a quotient of integers, the even one of two."""
    exact = Fraction(int(total), int(number))
    near = np.float32(float(exact))
    beside = [np.nextafter(near, np.float32(end)) for end in (-np.inf, np.inf)]

    def distance(value):
        is_odd = int(np.abs(value).view(np.uint32)) & 1
        return abs(Fraction(float(value)) - exact), is_odd

    return min([near, *beside], key=distance)


def test_an_average_of_integers_that_is_an_integer():
    """D13: sums that no float32 holds."""
    x = jnp.asarray([16777217, -16777215, 7, 8])
    np.testing.assert_array_equal(jaxpool.avg_pool(x, 2, axes=0), [1, 7.5])
    np.testing.assert_array_equal(jaxpool.global_avg_pool(x[:2], axes=0), 1)
    np.testing.assert_array_equal(jaxpool.adaptive_avg_pool(x[:3], 2, axes=0)[:1], [1])
    drawn = jaxpool.fractional_avg_pool(x, 2, 2, axes=0, samples=np.float32([0.1]))
    np.testing.assert_array_equal(drawn, [1, 7.5])
    where = jnp.asarray([True, True, False, False])
    kwargs = {"window": 3, "strides": 1, "padding": "SAME", "axes": 0, "where": where}
    got = jaxpool.avg_pool(x, **kwargs, empty_value=9)
    np.testing.assert_array_equal(got, [1, 1, -16777215, 9])
    got = jaxpool.avg_pool(x, **kwargs, count_include_pad=True)
    np.testing.assert_array_equal(got, [np.float32(2 / 3), 1, -16777215, 0])
    got = jaxpool.avg_pool(x, 2, axes=0, padding_mode="edge", padding=((1, 1),))
    np.testing.assert_array_equal(got, [16777216, -8388604, 8])


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("divisor", "want"),
    [(1, [2, 15]), (-2, [-1, -7.5]), (0.5, [4, 30]), (4, [0.5, 3.75])],
)
def test_divisors_of_sums_that_no_float32_holds(divisor, want):
    """D13."""
    x = jnp.asarray([16777217, -16777215, 7, 8])
    got = jaxpool.avg_pool(x, 2, axes=0, divisor=divisor)
    np.testing.assert_array_equal(got, want)


@pytest.mark.share(8)
@pytest.mark.parametrize("cells", [2, 7, 1000])
@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32", "int64"])
def test_averages_of_any_integers_are_rounded_once(dtype, cells):
    """D13: the extremes, of all of which the sum is, and random ones."""
    info, rng = np.iinfo(dtype), np.random.default_rng(cells)
    x = rng.integers(info.min, info.max, (9, cells), dtype=dtype, endpoint=True)
    x[0], x[1], x[2] = info.min, info.max, 1 - (info.min < 0) * 2
    wants = [rounded(sum(map(int, row)), cells) for row in x]
    with jax.enable_x64(dtype == "int64"):
        pools = [
            functools.partial(jaxpool.global_avg_pool, axes=1),
            functools.partial(jaxpool.adaptive_avg_pool, output_shape=1, axes=1),
            functools.partial(jaxpool.avg_pool, window=cells, axes=1),
        ]
        for y in jax.jit(lambda x: [pool(x) for pool in pools])(x):
            assert y.dtype == np.float32
            np.testing.assert_array_equal(np.ravel(y), wants)


def test_an_average_of_more_integers_than_a_digit_counts():
    """D13: digits of fewer bits."""
    x = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, (70_001,), np.int32)
    got = jaxpool.global_avg_pool(jnp.asarray(x), axes=0)
    assert got == rounded(x.astype(object).sum(), x.size)


@pytest.mark.share(8)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every_smooth
def test_gradients_of_half_floats_in_a_portable_program(kind, dtype):
    """jax differentiates that program itself: through bits it sees no derivative.

    And windows with a NaN divide their cotangents like others.
    """
    x = jnp.asarray(distinct((1, 7, 6, 2)), dtype).at[0, 3, 3, 0].set(jnp.nan)
    pool = getattr(jaxpool, f"{kind}_pool")

    def gradient(name):
        options = {"padding": "SAME", "dilation": 2, "implementation": name}
        return jax.grad(lambda x: pool(x, (3, 3), 1, **options).sum())(x)

    want = np.asarray(gradient("slices"), np.float32)
    assert np.count_nonzero(want) > want.size // 2
    got = np.asarray(gradient("reduce_window"), np.float32)
    np.testing.assert_allclose(got, want, rtol=2**-7, atol=1e-3)


def test_long_windows_that_need_single_cells_read_them_from_the_input():
    x = jnp.arange(60.0)
    for window in (11, 13):
        both = jax.value_and_grad(
            lambda x, form, n=window: (
                jaxpool.sum_pool(x, n, axes=0, strides=1, implementation=form) ** 2
            ).sum()
        )
        jax.tree.map(
            np.testing.assert_allclose, both(x, "doubling"), both(x, "reduce_window")
        )
