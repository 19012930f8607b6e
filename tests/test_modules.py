"""The Flax modules: same results as the functions, inside what Flax users build."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxpool
import jaxpool.linen
import jaxpool.nnx

X = jax.random.normal(jax.random.key(0), (2, 6, 6, 3))
MASK = jax.random.bernoulli(jax.random.key(1), 0.5, X.shape)
CASES = [
    ("MaxPool", jaxpool.max_pool, {"window": (2, 2), "padding": "SAME"}),
    ("MinPool", jaxpool.min_pool, {"window": (3, 2), "strides": 1}),
    ("SumPool", jaxpool.sum_pool, {"window": 2, "axes": (1, 2)}),
    ("AvgPool", jaxpool.avg_pool, {"window": (2, 2), "padding": 1, "divisor": 3.0}),
    ("LpPool", jaxpool.lp_pool, {"window": (2, 2), "p": 3.0}),
    ("MaxPoolWithIndices", jaxpool.max_pool_with_indices, {"window": (3, 2)}),
    ("MinPoolWithIndices", jaxpool.min_pool_with_indices, {"window": 2, "axes": 1}),
    ("GlobalMaxPoolWithIndices", jaxpool.global_max_pool_with_indices, {}),
    ("GlobalMinPoolWithIndices", jaxpool.global_min_pool_with_indices, {"axes": 1}),
    ("GlobalMaxPool", jaxpool.global_max_pool, {"keepdims": True}),
    ("GlobalMinPool", jaxpool.global_min_pool, {"axes": -1}),
    ("GlobalSumPool", jaxpool.global_sum_pool, {}),
    ("GlobalAvgPool", jaxpool.global_avg_pool, {"empty_value": 7.0}),
    ("GlobalLpPool", jaxpool.global_lp_pool, {"p": 1.0}),
]
ADAPTIVE = [
    ("AdaptiveMaxPool", jaxpool.adaptive_max_pool, {"output_shape": [4, None]}),
    (
        "AdaptiveMaxPoolWithIndices",
        jaxpool.adaptive_max_pool_with_indices,
        {"output_shape": (4, 2)},
    ),
    ("AdaptiveAvgPool", jaxpool.adaptive_avg_pool, {"output_shape": 4, "axes": (1, 2)}),
]
each_pool = pytest.mark.parametrize(
    ("name", "function", "options"), CASES, ids=[case[0] for case in CASES]
)


def test_unpooling_modules():
    values, indices = jaxpool.max_pool_with_indices(X, (2, 2))
    want = jaxpool.max_unpool(values, indices, (6, 6))
    linen = jaxpool.linen.MaxUnpool([6, 6]).apply({}, values, indices)
    np.testing.assert_array_equal(linen, want)
    np.testing.assert_array_equal(
        nnx.jit(lambda m, *args: m(*args))(
            jaxpool.nnx.MaxUnpool(6, axes=(1, 2)), values, indices
        ),
        want,
    )


@each_pool
def test_linen_is_the_function(name, function, options):
    module = getattr(jaxpool.linen, name)(**options)
    np.testing.assert_array_equal(module.apply({}, X), function(X, **options))
    np.testing.assert_array_equal(
        module.apply({}, X, where=MASK), function(X, where=MASK, **options)
    )


@each_pool
def test_nnx_is_the_function(name, function, options):
    module = getattr(jaxpool.nnx, name)(**options)
    np.testing.assert_array_equal(module(X), function(X, **options))
    np.testing.assert_array_equal(
        nnx.jit(lambda m, x, where: m(x, where=where))(module, X, MASK),
        jax.jit(lambda x, where: function(x, where=where, **options))(X, MASK),
    )


@pytest.mark.parametrize(("name", "function", "options"), ADAPTIVE)
def test_adaptive_modules_are_the_function(name, function, options):
    want = function(X, **options)
    got = getattr(jaxpool.linen, name)(**options).apply({}, X)
    np.testing.assert_array_equal(got, want)
    module = getattr(jaxpool.nnx, name)(**options)
    np.testing.assert_array_equal(nnx.jit(lambda m, x: m(x))(module, X), want)


DRAWN = [
    ("FractionalMaxPool", jaxpool.fractional_max_pool, {"window": 2}),
    ("FractionalAvgPool", jaxpool.fractional_avg_pool, {"window": (2, 3)}),
    (
        "FractionalMaxPool",
        jaxpool.fractional_max_pool,
        {"window": None, "rule": "pseudorandom", "overlapping": True},
    ),
    (
        "FractionalMaxPool",
        jaxpool.fractional_max_pool,
        {"window": None, "rule": "random"},
    ),
]
each_drawn = pytest.mark.parametrize(("name", "function", "options"), DRAWN)


@each_drawn
def test_linen_pools_that_draw(name, function, options):
    options = options | {"output_shape": [4, 3]}
    module = getattr(jaxpool.linen, name)(**options)
    draw = lambda seed: module.apply({}, X, rngs={"pooling": jax.random.key(seed)})  # noqa: E731
    np.testing.assert_array_equal(draw(0), draw(0))
    assert any((draw(0) != draw(seed)).any() for seed in range(1, 6))
    check_deterministic(module.apply({}, X, deterministic=True), function, options)
    still = getattr(jaxpool.linen, name)(**options, deterministic=True)
    check_deterministic(still.apply({}, X), function, options)
    other = getattr(jaxpool.linen, name)(**options, rng_collection="mine")
    assert other.apply({}, X, rngs={"mine": jax.random.key(0)}).shape == (2, 4, 3, 3)
    with pytest.raises(Exception, match="PRNG"):
        module.apply({}, X)


@each_drawn
def test_nnx_pools_that_draw(name, function, options):
    options = options | {"output_shape": [4, 3]}
    module = getattr(jaxpool.nnx, name)(**options, rngs=nnx.Rngs(pooling=0))
    draws = [nnx.jit(lambda m, x: m(x))(module, X) for _ in range(6)]
    assert any((draws[0] != draw).any() for draw in draws[1:])
    key = jax.random.key(3)
    want = function(X, **options, key=key)
    np.testing.assert_allclose(module(X, rngs=key), want, rtol=1e-6)
    model = nnx.Sequential(module)
    model.eval()
    check_deterministic(model(X), function, options)
    model.train()
    np.testing.assert_allclose(model.layers[0](X, rngs=key), want, rtol=1e-6)
    alone = getattr(jaxpool.nnx, name)(**options)
    check_deterministic(alone(X, deterministic=True), function, options)
    with pytest.raises(ValueError, match="rngs"):
        alone(X)


def check_deterministic(got, function, options):
    if options.get("rule") == "random":
        options = options | {"rule": "pseudorandom"}
    half = np.full(2, 0.5, np.float32)
    np.testing.assert_allclose(got, function(X, **options, samples=half), rtol=1e-6)


def test_linen_in_sequential_has_no_parameters():
    pools = [jaxpool.linen.MaxPool([2, 2]), jaxpool.linen.GlobalAvgPool()]
    model = nn.Sequential([nn.Conv(4, (3, 3)), *pools])
    variables = model.init(jax.random.key(0), X)
    assert set(variables["params"]) == {"layers_0"}
    assert model.apply(variables, X).shape == (2, 4)


def test_linen_lists_are_hashable_and_equal():
    one, other = (jaxpool.linen.MaxPool([2, 2], padding=[[0, 1], [1, 0]]) for _ in "ab")
    assert one == other
    assert hash(one) == hash(other)


def test_linen_under_scan():
    class Step(nn.Module):
        @nn.compact
        def __call__(self, carry, x):
            return carry, jaxpool.linen.GlobalMaxPool()(x)

    scanned = nn.scan(Step, variable_broadcast="params", split_rngs={"params": False})
    _, y = scanned().apply({}, 0, X[:, None])
    np.testing.assert_array_equal(y[:, 0], jaxpool.global_max_pool(X))


def test_nnx_in_sequential_under_jit_and_grad():
    model = nnx.Sequential(
        nnx.Conv(3, 4, (3, 3), rngs=nnx.Rngs(0)),
        jaxpool.nnx.MaxPool((2, 2)),
        jaxpool.nnx.GlobalAvgPool(),
    )

    def loss(model, x):
        return (model(x) ** 2).sum()

    assert nnx.jit(loss)(model, X) > 0
    grads = nnx.jit(nnx.grad(loss))(model, X)
    assert grads["layers"][0]["kernel"].shape == (3, 3, 3, 4)
    assert jnp.abs(grads["layers"][0]["kernel"][...]).sum() > 0


def test_nnx_equal_modules_share_one_trace():
    traces = []

    @nnx.jit
    def call(module, x):
        traces.append(None)
        return module(x)

    call(jaxpool.nnx.MaxPool([2, 2]), X)
    call(jaxpool.nnx.MaxPool((2, 2)), X)
    assert len(traces) == 1


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
def test_a_wrong_window_is_refused_by_name(flavour):
    module = flavour.MaxPool((2, 2, 2, 2))
    call = module.apply if flavour is jaxpool.linen else lambda _, x: module(x)
    with pytest.raises(ValueError, match="window"):
        call({}, X)
