"""jit, vmap over masks, and derivatives beside finite differences.

test_matrix.py has every operator under every transformation.
"""

import contextlib
import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

import jaxpool
from jaxpool.functions import entry
from tests import cases, oracle, twin
from tests.cases import (
    CLOSE,
    GEOMETRY,
    KINDS,
    distinct,
    every_extreme,
    every_kind,
    every_smooth,
    mask,
    quick_jit,
)

SHAPE = (2, 7, 5, 3)


def pooling(kind, **options):
    """A pool of dilated windows."""
    return cases.pooling(kind, **GEOMETRY, dilation=(1, 2), **options)


def cubes(kind):
    """A scalar loss with a non-zero second derivative, and `x -> pooled x`."""
    pool = pooling(kind)
    return lambda x: (pool(x) ** 3).sum() / 100


@pytest.mark.share(8)
@every_kind
def test_jit_equals_eager(kind):
    x, pool = distinct(SHAPE), pooling(kind)
    np.testing.assert_allclose(jax.jit(pool)(x), pool(x), **CLOSE)
    grad = jax.grad(cubes(kind))
    np.testing.assert_allclose(jax.jit(grad)(x), grad(x), **CLOSE)


@pytest.mark.share(8)
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


@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "lp_pool"])
def test_gradient_of_an_input_that_mapped_masks_share(name):
    """It is the sum of those for each mask."""
    x = jnp.asarray(distinct((1, 6, 7, 2)))
    masks = jnp.stack([jnp.asarray(mask(x.shape, seed)) for seed in range(3)])

    def loss(x, where):
        return (getattr(jaxpool, name)(x, (3, 2), 2, where=where) ** 2).sum()

    mapped = jax.grad(lambda x: jax.vmap(loss, (None, 0))(x, masks).sum())(x)
    each = sum(jax.grad(loss)(x, where) for where in masks)
    np.testing.assert_allclose(mapped, each, rtol=1e-6)


@pytest.mark.share(8)
@every_extreme
def test_check_grads_reverse(kind):
    x = distinct(SHAPE)  # a step of 0.1 never changes an owner
    jax.test_util.check_grads(jax.jit(pooling(kind)), (x,), 2, ["rev"], eps=0.1)


@pytest.mark.slow
@pytest.mark.share(8)
@every_smooth
def test_check_grads_both_modes(kind):
    x = distinct(SHAPE) / 20 + 0.01
    jax.test_util.check_grads(jax.jit(pooling(kind)), (x,), 2, rtol=2e-2, atol=2e-2)


@pytest.mark.share(8)
@every_smooth
def test_check_grads_masked(kind):
    x, where = distinct(SHAPE) / 20 + 0.01, mask(SHAPE)
    pool = jax.jit(pooling(kind, where=where))
    jax.test_util.check_grads(pool, (x,), 1, rtol=2e-2, atol=2e-2)


@pytest.mark.share(8)
@every_extreme
def test_plain_forward_mode_is_refused(kind):
    x = distinct(SHAPE)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(pooling(kind), (x,), (x,))


@contextlib.contextmanager
def counted():
    """A list, to which each compilation adds."""
    compiled, run = [], True

    def record(event, seconds, **_):
        if run and event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(record)
    try:
        yield compiled
    finally:
        run = False


@pytest.mark.share(8)
@pytest.mark.parametrize("name", twin.OPERATORS)
def test_called_again_outside_jit_compiles_nothing(name):
    """A call is found again by its geometry, NaN for empty windows included."""
    pooled, _ = twin.OPERATORS[name]
    if "masked" in name:
        pooled = functools.partial(pooled, empty_value=np.float32("nan"))
    x = jnp.asarray(distinct(twin.SHAPE))
    g = pooled(x)
    jax.vjp(pooled, x)[1](g)
    with counted() as compiled:
        pooled(x)
        jax.vjp(pooled, x)[1](g)
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


def square(rows, columns):
    """The cells of an image, numbered row by row."""
    return jnp.arange(rows * columns, dtype=jnp.float32).reshape(rows, columns)


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("cells", "window", "strides", "padding", "implementation"),
    [
        pytest.param((1, 28, 28, 1), 9, 9, "VALID", None, id="A1"),
        pytest.param((1, 26, 22, 1), (9, 3), (18, 8), "VALID", "slices", id="A1-apart"),
        pytest.param((1, 28, 17, 1), (10, 14), (8, 2), "VALID", "doubling", id="A1-8"),
        pytest.param(
            (1, 14, 11, 4, 1), (9, 9, 2), (9, 9, 2), "VALID", None, id="A1-3d"
        ),
        pytest.param(
            (1, 31, 12, 1), (10, 3), (10, 3), ((3, 0), (1, 1)), None, id="A1-p"
        ),
    ],
)
def test_every_derivative_where_the_input_goes_on_behind_the_last_window(
    cells, window, strides, padding, implementation
):
    """Several steps on an axis leave the rest out, and it comes back with zeros."""
    window = (window,) * 2 if isinstance(window, int) else window
    kwargs = {"window": window, "strides": strides, "padding": padding}
    reference = twin.twin("max", cells, **kwargs)
    kwargs["implementation"] = implementation
    x, v = jnp.asarray(distinct(cells)), jnp.asarray(distinct(cells)[:, ::-1])

    def derivatives(pool):
        loss = lambda x: (pool(x) ** 3).sum() / 100  # noqa: E731
        push = lambda f: lambda x: jax.jvp(f, (x,), (v,))[1]  # noqa: E731
        gradient = jax.grad(loss)
        with jaxpool.forward_mode():
            forward = push(pool)(x), push(push(loss))(x)
        second, third = push(gradient)(x), push(push(gradient))(x)
        return *forward, gradient(x), second, third

    pools = [
        functools.partial(jaxpool.max_pool, **kwargs),
        lambda x: jaxpool.max_pool_with_indices(x, **kwargs)[0],
        lambda x: -jaxpool.min_pool(-x, **kwargs),
    ]
    wants, *all_gots = quick_jit(
        lambda: [derivatives(p) for p in (reference, *pools)]
    )()
    for gots in all_gots:
        for got, want in zip(gots, wants, strict=True):
            np.testing.assert_allclose(got, want, **CLOSE)


def test_second_derivatives_of_windows_that_overlap_in_steps():
    """D1: known values."""
    x = square(16, 16)
    cubes = lambda x: (jaxpool.max_pool(x, 10, 4, axes=(0, 1)) ** 3).sum()  # noqa: E731
    got = jax.jvp(jax.grad(cubes), (x,), (jnp.ones_like(x),))[1]
    want = np.zeros((16, 16))
    want[np.ix_([9, 13], [9, 13])] = [[918, 942], [1302, 1326]]
    np.testing.assert_array_equal(got, want)


def test_tangents_of_windows_in_steps():
    """D2: known values."""
    with jaxpool.forward_mode():
        x, pool = square(12, 4), functools.partial(jaxpool.max_pool, axes=(0, 1))
        got = jax.jvp(lambda x: pool(x, (11, 2), 2), (x,), (x,))[1]
        np.testing.assert_array_equal(got, [[41, 43]])
    x = square(16, 4)
    indexed = functools.partial(jaxpool.max_pool_with_indices, axes=(0, 1))
    got = jax.jvp(lambda x: indexed(x, (9, 2), (3, 2))[0], (x,), (x,))[1]
    np.testing.assert_array_equal(got, [[33, 35], [45, 47], [57, 59]])


@pytest.mark.share(8)
@pytest.mark.parametrize(
    ("p", "implementation"), [(2, None), (3, "slices"), (np.inf, None)]
)
def test_norms_of_windows_in_steps_before_the_end_of_the_input(p, implementation):
    """A1: forward and reverse mode agree, and both with the formula."""
    x = jnp.asarray(distinct((28, 13))) / 40 + 0.01
    v, g = x[::-1], jnp.asarray([[2.0], [-1.0], [3.0]])
    pool = functools.partial(
        jaxpool.lp_pool, window=9, p=p, axes=(0, 1), implementation=implementation
    )
    _, want = oracle.pool_and_grad(x, g, "lp", (9, 9), axes=(0, 1), p=p)
    with jaxpool.forward_mode():
        push = jax.jit(lambda: jax.jvp(pool, (x,), (v,))[1])()
    pull = jax.jit(lambda: jax.vjp(pool, x)[1](g)[0])()
    np.testing.assert_allclose(pull, want, **CLOSE)
    np.testing.assert_allclose((push * g).sum(), (want * v).sum(), rtol=1e-4)


@jax.custom_jvp
def softest(a, b):
    return jnp.logaddexp(a, b)


softest.defjvp(lambda primals, tangents: (softest(*primals), sum(tangents)))
HELD = lambda a, b: softest(a, b) + 0  # noqa: E731
WEIGHT = jnp.float32(2)
OPERATIONS = {
    "jnp": lambda: jnp.add,
    "held": lambda: HELD,
    "rules of its own": lambda: softest,
    "new": lambda: lambda a, b: jnp.maximum(a, b) + 1,
    "new, by a rule of jax's": lambda: lambda a, b: jnp.logaddexp(a, b),
    "closure": lambda: lambda a, b: jnp.maximum(a, b) * WEIGHT,
    "partial": lambda: functools.partial(lambda s, a, b: a * s + b, 2.0),
    "conditional": lambda: (
        lambda a, b: jax.lax.cond(a > b, lambda: a, lambda: b * np.float32(2))
    ),
}


@pytest.mark.share(8)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_pool_by_an_operation_is_compiled_once(name):
    """C7: also where Python makes a function anew for each call."""
    x = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    pool = lambda: jaxpool.pool(x, -1, OPERATIONS[name](), 2, axes=0)  # noqa: E731
    first = pool()
    with counted() as compiled:
        again = pool()
    assert compiled == []
    np.testing.assert_array_equal(first, again)


@pytest.mark.slow
@pytest.mark.share(8)
@pytest.mark.parametrize("inner", [softest, jnp.logaddexp])
def test_operations_are_not_kept(inner):
    """C7: neither they, nor the arrays that they close over, nor all their programs.

    jax 0.12 keeps the array of the first trace, and those beside a `custom_jvp`.
    """
    x, kept = jnp.asarray([1.0, 2.0, 3.0, 4.0]), []
    for number in range(5):
        weight = jnp.float32(number)

        def op(a, b, weight=weight):
            return inner(a, b) * weight

        kept.append((weakref.ref(op), weakref.ref(weight)))
        jaxpool.pool(x, 0.0, op, 2, axes=0)
        del op, weight
        gc.collect()
    alive = [[one() is not None for one in both] for both in zip(*kept, strict=True)]
    assert sum(alive[0]) == 0
    if jax.__version_info__ < (0, 12):
        assert sum(alive[1]) == 0
    elif inner is not softest:
        assert sum(alive[1]) <= 1
    assert entry._compiled.cache_info().maxsize is not None


def test_operations_that_differ_are_told_apart():
    """C7: by numbers, arrays, branches, dtypes and what is inside of them."""
    x = jnp.asarray([1.0, 2.0, 3.0, 4.0])
    table = np.asarray([3.0, 5.0], np.float32)

    def by(op):
        return list(np.asarray(jaxpool.pool(x, 0.0, op, 2, axes=0)))

    assert by(lambda a, b: a + b * 2) == [5, 11]
    assert by(lambda a, b: a + b * 3) == [7, 15]
    assert by(lambda a, b: a + b * table[0]) == [7, 15]
    assert by(lambda a, b: a + b * table[1]) == [11, 23]
    assert by(lambda a, b: a - b) == [-1, -1]
    assert by(lambda a, b: b - a) == [1, 1]
    for scale in (2.0, 3.0):
        inner = jax.jit(lambda a, scale=scale: a * scale)
        assert by(lambda a, b, inner=inner: a + inner(b)) == [
            1 + 2 * scale,
            3 + 4 * scale,
        ]
        weight = jnp.full(2, scale)
        assert by(lambda a, b, weight=weight: a + b * weight.sum()) == [
            1 + 4 * scale,
            3 + 8 * scale,
        ]


INSIDE_A_LOOP = {
    "max": functools.partial(jaxpool.max_pool, window=3, strides=1, padding="SAME"),
    "min": functools.partial(jaxpool.min_pool, window=3, strides=1, padding="SAME"),
    "avg": functools.partial(jaxpool.avg_pool, window=3, strides=1, padding="SAME"),
    "lp": functools.partial(jaxpool.lp_pool, window=3, strides=1, padding="SAME"),
    "softmax": functools.partial(
        jaxpool.softmax_pool, window=3, strides=1, padding="SAME"
    ),
    "var": functools.partial(jaxpool.var_pool, window=3, strides=1, padding="SAME"),
    "median": functools.partial(
        jaxpool.median_pool, window=3, strides=1, padding="SAME"
    ),
    "adaptive_max": functools.partial(jaxpool.adaptive_max_pool, output_shape=7),
    "indices": lambda x, axes: jaxpool.max_pool_with_indices(
        x, 3, 1, "SAME", axes=axes
    )[0],
}


def in_a_rule(pool):
    """A function of a user whose rule of `jax.custom_jvp` pools."""

    @jax.custom_jvp
    def squared(x):
        return pool(x) ** 2

    @squared.defjvp
    def squared_jvp(primals, tangents):
        with jaxpool.forward_mode():
            y, t = jax.jvp(pool, primals, tangents)
            return y**2, 2 * pool(*primals) * t

    return squared


@pytest.mark.parametrize("mapped", [False, True], ids=["", "vmap"])
@pytest.mark.parametrize("name", INSIDE_A_LOOP)
@pytest.mark.parametrize("wrapped", [lambda pool: pool, in_a_rule], ids=["", "rule"])
def test_second_derivatives_inside_of_a_scan(wrapped, name, mapped):
    """Of a network of equal layers. jax drops rules of `jax.custom_jvp` there."""
    pool, x = INSIDE_A_LOOP[name], jnp.sin(jnp.arange(28.0)).reshape(2, 7, 2)
    layer = wrapped(functools.partial(pool, axes=0 if mapped else 1))

    def step(x, _):
        return jnp.tanh(layer(x) * 1.5), None

    def looped(x):
        return jax.lax.scan(step, x, None, length=2)[0]

    def unrolled(x):
        return step(step(x, None)[0], None)[0]

    def second(network, x):
        network = jax.vmap(network) if mapped else network
        slope = jax.grad(lambda x: (network(x) ** 2).sum())
        forward = jax.jvp(slope, (x,), (jnp.cos(x),))[1]
        return forward, jax.grad(lambda x: (slope(x) * jnp.cos(x)).sum())(x)

    got, want = (jax.jit(functools.partial(second, f))(x) for f in (looped, unrolled))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_an_operation_that_changes_is_traced_again():
    """C7: also one with the name of a function of jax."""
    x, scale = jnp.asarray([1.0, 2.0, 3.0, 4.0]), [2.0]

    def add(a, b):
        return a + b * scale[0]

    for scale[0] in (2.0, 3.0):
        got = jaxpool.pool(x, 0.0, add, 2, axes=0)
        np.testing.assert_array_equal(got, [1 + 2 * scale[0], 3 + 4 * scale[0]])


def test_what_an_operation_closes_over_has_gradients():
    """C7: in and outside `jax.jit`, and under `jax.vmap`."""
    x = jnp.asarray([1.0, 2.0, 3.0, 4.0])

    def loss(scale):
        return jaxpool.pool(x, 0.0, lambda a, b: a + b * scale, 2, axes=0).sum()

    assert jax.grad(loss)(2.0) == 6
    assert jax.jit(jax.grad(loss))(2.0) == 6
    np.testing.assert_array_equal(jax.vmap(loss)(jnp.arange(3.0)), [4, 10, 16])


@pytest.mark.share(8)
@pytest.mark.parametrize("init", [0.0, 0, np.float32(0), jnp.float32(0)])
def test_xlas_own_sums_have_a_gradient_inside_jit(init):
    """C7: the identity stays known there."""

    def loss(x):
        kwargs = {"axes": 0, "implementation": "reduce_window"}
        return jaxpool.pool(x, init, jax.lax.add, 2, **kwargs).sum()

    np.testing.assert_array_equal(jax.jit(jax.grad(loss))(jnp.arange(4.0)), [1] * 4)
