"""jit, vmap, scan, remat and derivatives of every order around the operators."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

import jaxpool
from tests.cases import distinct, mask

KINDS = ("max", "min", "sum", "avg", "lp")
GEOMETRY = {"window": (3, 2), "strides": (2, 1), "padding": ((1, 0), (0, 1))}
SHAPE = (2, 7, 5, 3)
CLOSE = {"rtol": 2e-5, "atol": 1e-5}
every_kind = pytest.mark.parametrize("kind", KINDS)
extreme = pytest.mark.parametrize("kind", ["max", "min"])
smooth = pytest.mark.parametrize("kind", ["sum", "avg", "lp"])


def pooling(kind, **kwargs):
    return functools.partial(
        getattr(jaxpool, f"{kind}_pool"), **GEOMETRY | {"dilation": (1, 2)} | kwargs
    )


def cubes(kind):
    """A scalar loss with a non-zero second derivative, and `x -> pooled x`."""
    pool = pooling(kind)
    return lambda x: (pool(x) ** 3).sum() / 100


def gathered(kind, x):
    """The same loss written as a gather of the owners of `x`, which are distinct."""
    order = np.argsort(x.ravel())
    owners = np.searchsorted(x.ravel()[order], np.asarray(pooling(kind)(x)).ravel())
    return lambda x: (x.ravel()[order[owners]] ** 3).sum() / 100


@every_kind
def test_jit_equals_eager(kind):
    x, pool = distinct(SHAPE), pooling(kind)
    np.testing.assert_allclose(jax.jit(pool)(x), pool(x), **CLOSE)
    grad = jax.grad(cubes(kind))
    np.testing.assert_allclose(jax.jit(grad)(x), grad(x), **CLOSE)


@every_kind
def test_jit_traces_once(kind):
    traces = []

    @jax.jit
    def pool(x):
        traces.append(1)
        return pooling(kind)(x)

    for fill in range(3):
        pool(jnp.full(SHAPE, fill, jnp.float32))
    assert len(traces) == 1


@every_kind
@pytest.mark.parametrize("in_axis", [-1, 2])
def test_vmap_value_and_gradient(kind, in_axis):
    """Mapping any axis is pooling with one more batch axis."""
    batch = distinct((4, *SHAPE))
    moved = jnp.moveaxis(batch, 0, in_axis)
    pool, grad = pooling(kind), jax.grad(cubes(kind))

    @jax.jit
    def both(moved, batch):
        mapped = [jax.vmap(f, in_axis, in_axis)(moved) for f in (pool, grad)]
        return mapped, [pool(batch), grad(batch)]

    for got, want in zip(*both(moved, batch), strict=True):
        np.testing.assert_allclose(jnp.moveaxis(got, in_axis, 0), want, **CLOSE)


@pytest.mark.parametrize(
    ("kind", "in_axes"),
    [
        *((kind, (3, 1)) for kind in KINDS),
        *((kind, axes) for kind in ("max", "avg") for axes in ((None, 0), (0, None))),
    ],
)
def test_vmap_over_where(kind, in_axes):
    full = distinct((4, *SHAPE)), mask((4, *SHAPE))
    full = [
        np.broadcast_to(a[:1], a.shape) if axis is None else a
        for a, axis in zip(full, in_axes, strict=True)
    ]
    mapped = [
        a[0] if axis is None else np.moveaxis(a, 0, axis)
        for a, axis in zip(full, in_axes, strict=True)
    ]

    def value_and_grad(x, where):
        pool = pooling(kind, where=where, empty_value=2)
        return pool(x), jax.grad(lambda x: (pool(x) ** 2).sum())(x)

    both = jax.jit(
        lambda mapped, full: (
            jax.vmap(value_and_grad, in_axes)(*mapped),
            value_and_grad(*full),
        )
    )
    for got, want in zip(*both(mapped, full), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


@extreme
def test_second_derivatives_of_the_owner_rule(kind):
    """grad(grad), hessian and jvp(grad) equal those of a plain gather."""
    x = distinct((1, 5, 4, 1))
    v = distinct(x.shape)[::-1, ::-1] + 0.5

    def derivatives(f, x):
        along = jax.grad(lambda x: (jax.grad(f)(x) * v).sum())(x)
        return along, jax.hessian(f)(x), jax.jvp(jax.grad(f), (x,), (v,))[1]

    got = jax.jit(functools.partial(derivatives, cubes(kind)))(x)
    want = derivatives(gathered(kind, x), x)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


@extreme
def test_check_grads_reverse(kind):
    x = distinct(SHAPE)  # a step of 0.1 never changes an owner
    jax.test_util.check_grads(jax.jit(pooling(kind)), (x,), 2, ["rev"], eps=0.1)


@smooth
def test_check_grads_both_modes(kind):
    x = distinct(SHAPE) / 20 + 0.01
    jax.test_util.check_grads(jax.jit(pooling(kind)), (x,), 2, rtol=2e-2, atol=2e-2)


@smooth
def test_check_grads_masked(kind):
    x, where = distinct(SHAPE) / 20 + 0.01, mask(SHAPE)
    pool = jax.jit(pooling(kind, where=where))
    jax.test_util.check_grads(pool, (x,), 1, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("kind", ["sum", "avg"])
def test_linear_pools_are_their_own_jvp(kind):
    x, v, pool = distinct(SHAPE), distinct(SHAPE)[::-1], pooling(kind)
    y, tangent = jax.jit(lambda x, v: jax.jvp(pool, (x,), (v,)))(x, v)
    np.testing.assert_allclose(y, pool(x), **CLOSE)
    np.testing.assert_allclose(tangent, pool(v), **CLOSE)
    assert not jnp.any(jax.hessian(lambda x: pool(x).sum())(x[:1, :, :, :1]))


@extreme
def test_plain_forward_mode_is_refused(kind):
    x = distinct(SHAPE)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(pooling(kind), (x,), (x,))


@every_kind
def test_hessian_vector_product_under_vmap(kind):
    x, directions = distinct((1, 5, 4, 1)), distinct((3, 1, 5, 4, 1))
    product = jax.jit(lambda v: jax.jvp(jax.grad(cubes(kind)), (x,), (v,))[1])
    want = jnp.stack([product(v) for v in directions])
    got = jax.jit(jax.vmap(product))(directions)
    np.testing.assert_allclose(got, want, **CLOSE)


@every_kind
def test_scan(kind):
    xs = distinct((4, *SHAPE))
    pool = pooling(kind)

    def loss(xs):
        step = lambda total, x: (total + (pool(x) ** 2).sum(), pool(x))  # noqa: E731
        return jax.lax.scan(step, 0.0, xs)

    grads, ys = jax.jit(jax.grad(loss, has_aux=True))(xs)
    np.testing.assert_allclose(ys, pool(xs), **CLOSE)
    np.testing.assert_allclose(
        grads, jax.jit(jax.grad(lambda x: (pool(x) ** 2).sum()))(xs), **CLOSE
    )


@every_kind
def test_remat(kind):
    x, loss = distinct(SHAPE), cubes(kind)
    rematerialised = jax.jit(jax.grad(jax.checkpoint(loss)))(x)
    np.testing.assert_allclose(rematerialised, jax.jit(jax.grad(loss))(x), **CLOSE)


@every_kind
def test_while_loop_and_cond(kind):
    x = distinct((1, 6, 6, 1))
    pool = functools.partial(
        getattr(jaxpool, f"{kind}_pool"), window=(3, 3), strides=1, padding="SAME"
    )
    twice = jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda _, x: pool(x), x))
    np.testing.assert_allclose(twice(x), pool(pool(x)), **CLOSE)
    branch = jax.jit(lambda p, x: jax.lax.cond(p, pool, lambda x: x, x))
    np.testing.assert_allclose(branch(True, x), pool(x), **CLOSE)
