"""Every operator under every transformation, beside a twin that jax differentiates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import checkpoint_policies as policies
from jax import lax

import jaxpool
import jaxpool.linen as pools
from tests.cases import (
    GEOMETRY,
    KINDS,
    distinct,
    every_extreme,
    mask,
    pooling,
    quick_jit,
)
from tests.twin import OPERATORS, SHAPE

POLICIES = {
    "nothing": policies.nothing_saveable,
    "everything": policies.everything_saveable,
    "positions": policies.save_only_these_names("jaxpool_position"),
    "no positions": policies.save_anything_except_these_names("jaxpool_position"),
}


def transformed(pooled, x, v):
    """What jax's transformations make of a pool, by name."""

    def loss(x):
        return (pooled(x) ** 3).sum() / 64

    def repeated(policy):
        model = lambda x: loss(jnp.tanh(x / 8) * 8)  # noqa: E731
        return jax.grad(jax.checkpoint(model, policy=policy))(x)

    def scanned(xs):
        return lax.scan(lambda total, x: (total + loss(x), pooled(x)), loss(x), xs)

    def looped(x):
        def turn(state):
            i, total = state
            return i + 1, total + pooled(x * i.astype(x.dtype))

        return lax.while_loop(lambda s: s[0] < 3, turn, (1, pooled(x)))[1]

    y, pull = jax.vjp(pooled, x)
    xs = jnp.stack([x, v])
    moved = jnp.moveaxis(xs, 0, -1)
    nested = jnp.stack([xs, xs[::-1]])
    with jaxpool.forward_mode():
        both_modes = {
            "jvp": jax.jvp(pooled, (x,), (v,)),
            "jacfwd": jax.jacfwd(pooled)(x),
            "linearize": jax.linearize(pooled, x)[1](v),
            "jvp of vmap": jax.jvp(jax.vmap(pooled), (xs,), (xs[::-1],)),
            "vmap of jvp": jax.vmap(lambda t: jax.jvp(pooled, (x,), (t,))[1])(xs),
            "jvp of jvp": jax.jvp(
                lambda x: jax.jvp(loss, (x,), (v,))[1], (x,), (v[:, ::-1],)
            ),
            "grad of jvp": jax.grad(lambda x: jax.jvp(loss, (x,), (v,))[1])(x),
            "Gauss-Newton": jax.vjp(pooled, x)[1](jax.jvp(pooled, (x,), (v,))[1]),
            "reverse inside": jax.grad(loss)(x),
        }
    return both_modes | {
        "value": y,
        "vjp": pull(jnp.flip(y)),
        "vmap": jax.vmap(pooled)(xs),
        "vmap over the last axis": jax.vmap(pooled, -1, -1)(moved),
        "nested vmap of grad": jax.vmap(jax.vmap(jax.grad(loss)))(nested),
        "grad of grad": jax.grad(lambda x: (jax.grad(loss)(x) * v).sum())(x),
        "hessian": jax.hessian(loss)(x),
        "jvp of grad": jax.jvp(jax.grad(loss), (x,), (v,))[1],
        "jacrev": jax.jacrev(pooled)(x),
        "scan": jax.grad(lambda xs: scanned(xs)[0])(xs),
        "scanned values": scanned(xs)[1],
        "while_loop": looped(x),
        "cond": lax.cond(x.sum() > 0, jax.grad(loss), jnp.negative, x),
        **{f"remat, {name}": repeated(policy) for name, policy in POLICIES.items()},
    }


@pytest.mark.slow
@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_under_every_transformation(name, dtype):
    x = jnp.asarray(distinct(SHAPE) / 4 + 0.125, dtype)  # never 0
    v = jnp.asarray(distinct(SHAPE)[:, ::-1] / 8, dtype)

    @quick_jit
    def both(x, v):
        return [transformed(pooled, x, v) for pooled in OPERATORS[name]]

    found, wanted = jax.device_get(both(x, v))
    rounding = 2e-5 if dtype == "float32" else 0.04
    for how, expected in wanted.items():
        for got, want in zip(
            jax.tree.leaves(found[how]), jax.tree.leaves(expected), strict=True
        ):
            assert got.dtype == want.dtype == dtype, how
            got, want = got.astype(np.float64), want.astype(np.float64)
            near = rounding * max(1, np.abs(want).max())
            np.testing.assert_allclose(got, want, rounding, near, err_msg=how)


@pytest.mark.share(24)
@every_extreme
def test_forward_and_reverse_mode_agree_on_ties_nan_and_infinities(kind):
    x = np.random.default_rng(3).integers(-1, 2, (4, 9, 7, 3)).astype(np.float32)
    x[x == (1 if kind == "min" else -1)] = -np.inf if kind == "max" else np.inf
    x[np.random.default_rng(4).random(x.shape) < 0.1] = np.nan
    t = distinct(x.shape)
    pooled = pooling(kind, **GEOMETRY)
    with jaxpool.forward_mode():
        y, tangent = jax.jit(lambda x, t: jax.jvp(pooled, (x,), (t,)))(x, t)
    outside, pull = jax.vjp(pooled, x)
    np.testing.assert_array_equal(y, outside)
    (one_each,) = jax.vmap(pull)(jnp.eye(y.size).reshape(-1, *y.shape))
    want = np.tensordot(one_each, t, 4).reshape(y.shape)
    np.testing.assert_array_equal(tangent, want)


def test_checkpoint_of_a_whole_model():
    model = nn.Sequential(
        [
            nn.Conv(4, (3, 3)),
            pools.MaxPool((3, 3), 2, "SAME"),
            nn.Conv(4, (3, 3)),
            pools.AvgPool((2, 2)),
            pools.GlobalMaxPool(),
        ]
    )
    x = distinct((2, 12, 12, 3)) / 100
    variables = quick_jit(model.init)(jax.random.key(0), x)
    loss = lambda v: (model.apply(v, x) ** 2).sum()  # noqa: E731
    want = quick_jit(jax.grad(loss))(variables)
    for policy in POLICIES.values():
        remat = jax.checkpoint(loss, policy=policy)
        got = quick_jit(jax.grad(remat))(variables)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-5), got, want
        )


def test_jit_is_traced_again_inside_forward_mode():
    x = distinct((6, 1))
    pooled = jax.jit(lambda x: jaxpool.max_pool(x, (2,)))
    pooled(x)
    with jaxpool.forward_mode():
        assert jax.jvp(pooled, (x,), (x,))[1].shape == (3, 1)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(pooled, (x,), (x,))


def test_forward_mode_may_be_nested_and_entered_while_tracing():
    x = distinct((6, 1))

    @jax.jit
    def tangent(x):
        with jaxpool.forward_mode(), jaxpool.forward_mode():
            return jax.jvp(lambda x: jaxpool.max_pool(x, (2,)), (x,), (x,))[1]

    np.testing.assert_array_equal(tangent(x), jaxpool.max_pool(x, (2,)))


@pytest.mark.share(24)
@pytest.mark.parametrize("masked", [False, True])
def test_forward_mode_keeps_the_residual_of_reverse_mode(masked):
    x = distinct((1, 12, 12, 2))
    where = mask(x.shape) if masked else None
    with jaxpool.forward_mode():
        y, pull = jax.vjp(lambda x: jaxpool.max_pool(x, (3, 3), 2, where=where), x)
        _, push = jax.linearize(lambda x: jaxpool.max_pool(x, (3, 3), 2), x)
    for kept in (pull, push):
        assert [leaf.dtype for leaf in jax.tree.leaves(kept)] == [np.uint8]
        assert jax.tree.leaves(kept)[0].shape == y.shape


def test_forward_mode_computes_no_positions_without_a_tangent():
    x = distinct((1, 8, 8, 1))
    with jaxpool.forward_mode():
        text = jax.jit(lambda x: jaxpool.max_pool(x, (3, 3))).lower(x).as_text()
    assert "ui8" not in text


@pytest.mark.share(24)
@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(
    ("window", "strides"), [(2, 2), (3, 2), (3, 1), (5, 3), (2, 3), (15, 1), (15, 4)]
)
@pytest.mark.parametrize("dilation", [1, 2])
def test_tangents_of_every_geometry_are_the_transpose(kind, window, strides, dilation):
    """`<g, J t> == <J^T g, t>`, of integers, exactly."""
    x, t = distinct((40, 33, 2)), distinct((40, 33, 2))[::-1]
    pooled = pooling(
        kind,
        window=(window, window),
        strides=strides,
        padding=window // 2,
        dilation=dilation,
        **({"divisor": 1} if kind == "avg" else {}),
    )
    with jaxpool.forward_mode():
        y, tangent = jax.jit(lambda x, t: jax.jvp(pooled, (x,), (t,)))(x, t)
    g = distinct(y.shape) % 5
    (dx,) = jax.jit(lambda x, g: jax.vjp(pooled, x)[1](g))(x, g)
    found = np.vdot(np.float64(g), np.float64(tangent))
    assert found == np.vdot(np.float64(dx), np.float64(t)) != 0


@pytest.mark.share(24)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "logsumexp"])
def test_float64(kind):
    with jax.enable_x64(True):
        x = jnp.asarray(distinct(SHAPE) / 4 + 0.125, jnp.float64)
        pooled = pooling(kind, **GEOMETRY)
        with jaxpool.forward_mode():
            y, tangent = jax.jvp(pooled, (x,), (x,))
        dx = jax.grad(lambda x: pooled(x).sum())(x)
        assert y.dtype == tangent.dtype == dx.dtype == np.float64
        np.testing.assert_allclose(tangent, y, 1e-14)  # all are homogeneous
        np.testing.assert_allclose((dx * x).sum(), y.sum(), 1e-14)
