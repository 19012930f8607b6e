"""Global pools: the windowed oracle with a window of the whole input."""

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import (
    CLOSE,
    EXTREMES,
    KINDS,
    SPECIALS,
    cotangent,
    distinct,
    every_extreme,
    every_kind,
    every_smooth,
    mask,
    tied,
    value_and_vjp,
)

AXES = (
    pytest.param((2, 4, 5, 3), None, (1, 2), id="spatial_2d"),
    pytest.param((2, 7, 3), None, (1,), id="spatial_1d"),
    pytest.param((1, 3, 2, 4, 2), None, (1, 2, 3), id="spatial_3d"),
    pytest.param((2, 3, 4, 5), (2, 3), (2, 3), id="nchw"),
    pytest.param((2, 3, 4, 5), (-1, 0), (0, 3), id="first_and_last"),
    pytest.param((2, 7, 3), 1, (1,), id="time"),
    pytest.param((7,), 0, (0,), id="everything"),
    pytest.param((3, 4), (0, 1), (0, 1), id="every_axis"),
    pytest.param((2, 1, 1, 3), None, (1, 2), id="one_cell"),
    pytest.param((0, 4, 3), None, (1,), id="empty_batch"),
    pytest.param((2, 4, 0), None, (1,), id="zero_channels"),
    pytest.param((1, 20, 20, 1), None, (1, 2), id="above_256_cells"),
)


def op_of(kind):
    return getattr(jaxpool, f"global_{kind}_pool")


def expected(x, kind, axes, keepdims=False, **kwargs):
    """The oracle's value, and its gradient for `cotangent(value.shape)`."""
    window = tuple(x.shape[a] for a in axes)
    shape = oracle.pool(x, kind, window, axes=axes, **kwargs).shape
    g = cotangent(shape)
    y, dx = oracle.pool_and_grad(x, g, kind, window, axes=axes, **kwargs)
    return (y if keepdims else y.squeeze(axes)), dx


def check(checks):
    """Compare each `(kind, x, axes as given, axes, kwargs)` with the oracle."""
    wants, calls = [], []
    for kind, x, axes, resolved, kwargs in checks:
        want = expected(x, kind, resolved, **kwargs)
        calls.append(
            (op_of(kind), kwargs | {"axes": axes}, x, cotangent(want[0].shape))
        )
        wants.append(want)
    results = value_and_vjp(calls)
    for (kind, *_, kwargs), got, want in zip(checks, results, wants, strict=True):
        assert got[0].shape == want[0].shape
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, err_msg=f"{kind} {kwargs}", **CLOSE)


@pytest.mark.share(10)
@pytest.mark.parametrize(("shape", "axes", "resolved"), AXES)
def test_against_oracle(shape, axes, resolved):
    masked = {"where": mask(shape, keep=0.3), "empty_value": -7, "keepdims": True}
    special = tied(shape, specials=SPECIALS)
    checks = []
    for kind in KINDS:
        x = special if kind in EXTREMES else tied(shape)
        checks += [(kind, x, axes, resolved, {}), (kind, x, axes, resolved, masked)]
    check(checks)


@pytest.mark.share(10)
@pytest.mark.parametrize("p", [1, 3.5, np.inf])
def test_lp_powers(p):
    shape, axes = (2, 4, 5, 3), (1, 2)
    masked = {"p": p, "where": mask(shape)}
    check(
        [
            ("lp", distinct(shape), None, axes, {"p": p}),
            ("lp", tied(shape), None, axes, masked),
        ]
    )


@pytest.mark.share(10)
@every_kind
def test_equals_the_windowed_pool_of_the_whole_input(kind):
    x = distinct((2, 5, 4, 3))
    windowed = getattr(jaxpool, f"{kind}_pool")(x, (5, 4))
    whole = op_of(kind)(x, keepdims=True)
    np.testing.assert_allclose(whole, windowed, rtol=1e-6)


@pytest.mark.share(10)
@every_kind
def test_keepdims(kind):
    x = distinct((2, 5, 4, 3))
    assert op_of(kind)(x).shape == (2, 3)
    assert op_of(kind)(x, keepdims=True).shape == (2, 1, 1, 3)
    assert op_of(kind)(x, axes=(0, -1), keepdims=True).shape == (1, 5, 4, 1)
    assert op_of(kind)(x, axes=2).shape == (2, 5, 3)


@pytest.mark.share(10)
@every_kind
def test_every_row_masked_is_empty_value_with_zero_gradient(kind):
    x = np.full((2, 3, 1), np.nan, np.float32)
    x[1] = 4
    where = np.zeros(x.shape, bool)
    where[1, 0] = True
    kwargs = {"where": where, "empty_value": 0.5}
    ((y, dx),) = value_and_vjp([(op_of(kind), kwargs, x, np.ones((2, 1)))])
    np.testing.assert_allclose(y.ravel(), [0.5, 4], rtol=1e-6)
    np.testing.assert_allclose(dx.ravel(), [0, 0, 0, 1, 0, 0], rtol=1e-6)


@pytest.mark.share(10)
@every_kind
def test_where_broadcasts_over_channels(kind):
    x = distinct((2, 7, 3))
    lengths = np.array([[5], [2]])
    where = (np.arange(7) < lengths)[..., None]
    got = op_of(kind)(x, where=where)
    want = np.concatenate(
        [op_of(kind)(x[i : i + 1, :n]) for i, n in enumerate(lengths.ravel())]
    )
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.share(10)
@every_kind
def test_jit_and_vmap(kind):
    x = distinct((3, 2, 4, 5, 2))
    want = np.stack([op_of(kind)(row) for row in x])
    got = jax.jit(jax.vmap(op_of(kind)))(x)
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.share(10)
@every_smooth
def test_forward_mode(kind):
    # float32 has no small differences of the logarithm of large sums.
    x = distinct((2, 4, 3)) / (8 if kind == "logsumexp" else 1) + 0.5
    jax.test_util.check_grads(jax.jit(op_of(kind)), (x,), order=2, rtol=2e-2)


@pytest.mark.share(10)
@every_extreme
def test_reverse_mode(kind):
    x = distinct((2, 4, 3))
    jax.test_util.check_grads(jax.jit(op_of(kind)), (x,), 2, ["rev"], eps=0.1)


def test_average_of_a_large_half_precision_input():
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.full((1, 300, 300, 2), 3, dtype)
        y = jaxpool.global_avg_pool(x)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y.astype(jnp.float32), [[3, 3]])


@pytest.mark.share(10)
@every_extreme
def test_masked_gradient_of_a_window_whose_positions_need_32_bits(kind):
    x = tied((1, 260, 260, 2), seed=3)
    where = x < 1 if kind == "max" else x > -1
    where[..., 1] = False
    dx = jax.jit(jax.grad(lambda x: op_of(kind)(x, where=where).sum()))(x)
    first = np.flatnonzero(where[..., 0] & (x[..., 0] == 0))
    expected = np.zeros(260 * 260)
    expected[first[0]] = 1
    np.testing.assert_array_equal(dx[..., 0].ravel(), expected)
    np.testing.assert_array_equal(dx[..., 1], 0)
