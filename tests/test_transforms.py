"""jit, vmap over masks, and derivatives beside finite differences.

test_matrix.py has every operator under every transformation.
"""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

import jaxpool
from tests.cases import distinct, mask
from tests.test_matrix import OPERATORS
from tests.test_matrix import SHAPE as MATRIX_SHAPE

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


@extreme
def test_plain_forward_mode_is_refused(kind):
    x = distinct(SHAPE)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(pooling(kind), (x,), (x,))


@pytest.mark.parametrize("name", OPERATORS)
def test_called_again_outside_jit_compiles_nothing(name):
    """A call is found again by its geometry, NaN for empty windows included."""
    pooled, _ = OPERATORS[name]
    if "masked" in name:
        pooled = functools.partial(pooled, empty_value=np.float32("nan"))
    if name == "pool":
        pytest.skip("its op may change from call to call")
    x = jnp.asarray(distinct(MATRIX_SHAPE))
    g = pooled(x)
    compiled, run = [], True

    def record(event, seconds, **_):
        if run and event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.vjp(pooled, x)[1](g)
    jax.monitoring.register_event_duration_secs_listener(record)
    pooled(x)
    jax.vjp(pooled, x)[1](g)
    run = False
    assert compiled == []


def test_calls_whose_options_are_equal_but_not_the_same_are_told_apart():
    x, mask = jnp.arange(4), jnp.asarray([True, True, False, False])
    for value in (3.0, 3):
        assert (
            jaxpool.sum_pool(x, 2, axes=0, where=mask, empty_value=value).dtype
            == x.dtype
        )
    zeros = [
        jaxpool.max_pool(
            x.astype(jnp.float32), 2, axes=0, where=mask, empty_value=value
        )[1]
        for value in (0.0, -0.0)
    ]
    assert list(np.signbit(zeros)) == [False, True]
    big = jnp.asarray([2**24, 1, 0, 0])
    got = jaxpool.sum_pool(big, 2, axes=0, where=mask, empty_value=-1.0)
    np.testing.assert_array_equal(got, [2**24 + 1, -1])
    largest = np.iinfo(np.uint32).max
    none = jnp.zeros(4, bool)
    got = jaxpool.sum_pool(
        x.astype(np.uint32), 2, axes=0, where=none, empty_value=largest
    )
    np.testing.assert_array_equal(got, [largest, largest])


def test_an_op_may_change_between_calls():
    class Scaled:
        weight = 1.0

        def __call__(self, a, b):
            return jnp.maximum(a, b) * self.weight

    op, x = Scaled(), jnp.asarray([1.0, 2.0, 3.0, 4.0])
    for op.weight in (1.0, 2.0):
        got = jaxpool.pool(x, -jnp.inf, op, 2, axes=0)
        np.testing.assert_array_equal(got, np.asarray([2, 4]) * op.weight)
