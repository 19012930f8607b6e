"""The Flax modules: same results as the functions, inside what Flax users build."""

import pickle
from dataclasses import dataclass

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
    ("LogSumExpPool", jaxpool.logsumexp_pool, {"window": (2, 2)}),
    ("LpPool", jaxpool.lp_pool, {"window": (2, 2), "p": 3.0}),
    ("MaxPoolWithIndices", jaxpool.max_pool_with_indices, {"window": (3, 2)}),
    ("MinPoolWithIndices", jaxpool.min_pool_with_indices, {"window": 2, "axes": 1}),
    ("GlobalMaxPoolWithIndices", jaxpool.global_max_pool_with_indices, {}),
    ("GlobalMinPoolWithIndices", jaxpool.global_min_pool_with_indices, {"axes": 1}),
    ("GlobalMaxPool", jaxpool.global_max_pool, {"keepdims": True}),
    ("GlobalMinPool", jaxpool.global_min_pool, {"axes": -1}),
    ("GlobalSumPool", jaxpool.global_sum_pool, {}),
    ("GlobalAvgPool", jaxpool.global_avg_pool, {"empty_value": 7.0}),
    ("GlobalLogSumExpPool", jaxpool.global_logsumexp_pool, {}),
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


@pytest.mark.share(10)
@each_pool
def test_linen_is_the_function(name, function, options):
    module = getattr(jaxpool.linen, name)(**options)
    np.testing.assert_array_equal(module.apply({}, X), function(X, **options))
    np.testing.assert_array_equal(
        module.apply({}, X, where=MASK), function(X, where=MASK, **options)
    )


@pytest.mark.share(10)
@each_pool
def test_nnx_is_the_function(name, function, options):
    module = getattr(jaxpool.nnx, name)(**options)
    np.testing.assert_array_equal(module(X), function(X, **options))
    np.testing.assert_array_equal(
        nnx.jit(lambda m, x, where: m(x, where=where))(module, X, MASK),
        jax.jit(lambda x, where: function(x, where=where, **options))(X, MASK),
    )


@pytest.mark.share(10)
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


@pytest.mark.share(10)
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


@pytest.mark.slow
@pytest.mark.share(10)
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


each_flavour = pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
WRONG = [
    ("FractionalMaxPool", "deterministic", ["no", None, 1]),
    ("FractionalAvgPool", "rng_collection", [None, 3, ("pooling",)]),
    ("FractionalMaxPool", "rule", ["windows", None, 0, ("window",)]),
    ("FractionalMaxPool", "overlapping", [True, "no", 0]),
    ("FractionalMaxPool", "window", [None, 0, (2, 2, 2), 2.5]),
    ("FractionalMaxPoolWithIndices", "output_shape", [None, 2, (0, 2), ("a", 2)]),
    ("FractionalMaxPool", "axes", [(1, 1), 1.5, 10**12]),
    ("MaxPool", "window", [2, None, (), (0, 2), "ab", {2, 3}]),
    ("MinPool", "strides", ["SAME", 0, (1, 1, 1), 1.5]),
    ("AvgPool", "padding", ["FULL", -1, 2, ((0, 0),), None]),
    ("SumPool", "dilation", [0, (1, 1, 1), None]),
    ("LpPool", "axes", [(), (1, 1), "x"]),
    ("MaxPoolWithIndices", "ceil_mode", [1, "no", None]),
    ("MaxPool", "empty_value", ["a", None, True, 1j]),
    ("MaxPool", "implementation", ["fast", 3, True]),
    ("AvgPool", "padding_mode", ["zeros", 0, True]),
    ("AvgPool", "count_include_pad", [1, None]),
    ("AvgPool", "divisor", [0, "a", float("nan"), True]),
    ("LpPool", "p", [0, -1, "two", None]),
    ("GlobalMaxPool", "keepdims", [1, None]),
    ("GlobalAvgPool", "axes", [(1, 1), 1.5, 10**12, "x"]),
    ("GlobalMinPool", "empty_value", [None, "a"]),
    ("GlobalLpPool", "p", [0, True]),
    ("AdaptiveMaxPool", "output_shape", [2, (0, 2), "ab", (2.5, 2)]),
    ("AdaptiveAvgPool", "axes", [(1, 1), 1.5]),
    ("MaxUnpool", "output_shape", [None, 2, (0, 2), (2**20, 2**20)]),
    ("MaxUnpool", "axes", [(1, 1), 1.5]),
]


def required(name):
    """Options that a class of this name must be given."""
    if "Fractional" in name:
        return {"window": 2, "output_shape": (2, 2)}
    if name == "Aggregate":
        return {"by": "max", "over": jaxpool.windows((2, 2))}
    if "Global" in name:
        return {}
    binned = "Adaptive" in name or name == "MaxUnpool"
    return {"output_shape": (4, 4)} if binned else {"window": (2, 2)}


@pytest.mark.share(10)
@each_flavour
@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, option, value) for name, option, values in WRONG for value in values],
)
def test_A9_options_are_checked_at_construction(name, option, value, flavour):
    with pytest.raises((TypeError, ValueError), match=f"{option} must") as caught:
        getattr(flavour, name)(**required(name) | {option: value})
    assert type(caught.value) in (TypeError, ValueError)


@pytest.mark.share(10)
@each_flavour
def test_A9_options_that_some_input_goes_with_are_taken(flavour):
    flavour.MaxPool((2, 2), axes=(1, -2))  # two axes of every input but of rank 3
    flavour.MaxPool((50, 50), 1, 49)
    flavour.AvgPool((3, 3), padding=2, padding_mode="reflect", divisor=1e300)
    flavour.AdaptiveMaxPool((None, 10**6))
    flavour.AdaptiveMaxPool(None, axes=1)
    flavour.FractionalMaxPool(5, 1000, axes=(0, -1))
    flavour.GlobalMaxPool(axes=-7)


def test_A9_rngs_of_nnx():
    make = jaxpool.nnx.FractionalMaxPool
    only_params = nnx.Rngs(params=0)
    for wrong in (0, "pooling", jax.random.key(0), {"pooling": 0}):
        with pytest.raises(TypeError, match=r"rngs must be nnx\.Rngs"):
            make(2, (2, 2), rngs=wrong)
    with pytest.raises(
        ValueError, match=r"rngs must have a stream named 'pooling'.*para"
    ):
        make(2, (2, 2), rngs=only_params)
    assert make(2, (2, 2), rngs=only_params, rng_collection="params")(X).shape[1] == 2
    assert make(2, (2, 2), rngs=only_params.params)(X).shape[1] == 2

    alone = make(2, (2, 2))
    for wrong in (0, "pooling", jnp.ones(3), jax.random.split(jax.random.key(0))):
        for options in ({}, {"deterministic": True}):
            with pytest.raises(TypeError, match="rngs must be"):
                alone(X, rngs=wrong, **options)
    with pytest.raises(ValueError, match="rngs must have a stream named 'pooling'"):
        alone(X, rngs=only_params)
    with pytest.raises(TypeError, match="deterministic must be"):
        alone(X, deterministic="no")
    alone.deterministic = "no"
    with pytest.raises(TypeError, match="deterministic must be"):
        alone(X)


def test_A9_rngs_of_linen():
    module = jaxpool.linen.FractionalMaxPool(2, (2, 2))
    with pytest.raises(ValueError, match="rngs must have a PRNG key named 'pooling'"):
        module.apply({}, X)
    with pytest.raises(TypeError, match="deterministic must be"):
        module.apply({}, X, deterministic="no")
    fallen_back = module.apply(
        {}, X, rngs={"params": jax.random.key(0)}
    )  # as Flax does
    assert fallen_back.shape == (2, 2, 2, 3)


ARRAYS = [
    ("MaxPool", {"window": jnp.array([2, 2]), "padding": np.array([[0, 1], [1, 0]])}),
    (
        "AvgPool",
        {"window": np.int64(2), "axes": jnp.array([1, 2]), "divisor": np.array(3)},
    ),
    ("LpPool", {"window": [jnp.array(2), np.int8(2)], "p": jnp.float32(3)}),
    (
        "MinPool",
        {"window": np.array([2, 3]), "ceil_mode": np.True_, "strides": range(1, 3)},
    ),
    ("GlobalMaxPool", {"axes": np.array(1), "empty_value": jnp.array(2)}),
    ("AdaptiveMaxPool", {"output_shape": jnp.array([2, 3])}),
    ("AdaptiveAvgPool", {"output_shape": [np.array(2), None]}),
    ("FractionalMaxPool", {"window": jnp.array(2), "output_shape": np.array([3, 3])}),
]


def plain(value):
    """The same in Python's numbers and tuples."""
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = value.tolist()
    return (
        tuple(map(plain, value)) if isinstance(value, (list, range, tuple)) else value
    )


@pytest.mark.share(10)
@pytest.mark.parametrize(("name", "options"), ARRAYS)
def test_A10_arrays_as_options_are_python_numbers(name, options):
    same = {key: plain(value) for key, value in options.items()}
    still = {"deterministic": True} if "Fractional" in name else {}
    linen = getattr(jaxpool.linen, name)(**options, **still)
    nnx_module = getattr(jaxpool.nnx, name)(**options, **still)
    for module in (linen, nnx_module):
        for key, value in same.items():
            assert repr(getattr(module, key)) == repr(value)
    assert hash(linen) == hash(getattr(jaxpool.linen, name)(**same, **still))
    assert linen == getattr(jaxpool.linen, name)(**same, **still)
    want = linen.apply({}, X)
    jitted = nnx.jit(lambda m, x: m(x))
    np.testing.assert_array_equal(jitted(nnx_module, X), want)
    assert not jax.tree.leaves(nnx.state(nnx_module))
    split = nnx.split(nnx_module)
    np.testing.assert_array_equal(nnx.merge(*split)(X), want)
    np.testing.assert_array_equal(
        jax.jit(lambda m, x: m.apply({}, x), static_argnums=0)(linen, X), want
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(nnx_module))(X), want)
    again = pickle.loads(pickle.dumps(linen))
    np.testing.assert_array_equal(again.apply({}, X), want)


def test_A10_options_that_are_set_later_are_frozen_too():
    module = jaxpool.nnx.MaxPool((2, 2))
    module.window = jnp.array([3, 3])
    assert module.window == (3, 3)
    assert nnx.jit(lambda m, x: m(x))(module, X).shape == (2, 2, 2, 3)


def test_subclasses_may_have_fields_of_their_own():
    class Named(jaxpool.linen.MaxPool):
        stage: str = "stem"

    assert Named((2, 2), stage="head").apply({}, X).shape == (2, 3, 3, 3)

    @dataclass(eq=False, repr=False)
    class Staged(jaxpool.nnx.MaxPool):
        stage: str = "stem"

    assert Staged((2, 2), stage="head")(X).shape == (2, 3, 3, 3)


def test_A10_traced_options_are_refused():
    with pytest.raises(TypeError, match=r"window must be a Python int.*not a traced"):
        jax.jit(lambda n: jaxpool.nnx.MaxPool((n, 2)) and 0)(2)


CLASSES = sorted(
    name
    for name, kind in vars(jaxpool.nnx).items()
    if getattr(kind, "__module__", None) == "jaxpool.nnx" and not name.startswith("_")
)


@pytest.mark.slow
@pytest.mark.share(10)
@pytest.mark.parametrize("name", CLASSES)
def test_D5_tables_of_modules(name):
    kind, arrays = getattr(jaxpool.nnx, name), (X,)
    if name == "MaxUnpool":
        arrays = jaxpool.max_pool_with_indices(X, (2, 2))
        arrays = arrays[0], arrays[1] % 16
    streams = {"rngs": nnx.Rngs(0)} if "Fractional" in name else {}
    assert name in nnx.tabulate(kind(**required(name), **streams), *arrays)
    if len(arrays) == 1:
        model = nnx.Sequential(
            nnx.Conv(3, 3, (1, 1), rngs=nnx.Rngs(0)), kind(**required(name), **streams)
        )
        wide = {"console_kwargs": {"width": 200, "force_terminal": False}}
        assert f"layers/1 │ {name}" in nnx.tabulate(model, X, **wide)
    kind(**required(name), **streams)(*arrays)  # as before

    keys = {"pooling": jax.random.key(0), "params": jax.random.key(1)}
    linen = getattr(jaxpool.linen, name)(**required(name))
    assert name in linen.tabulate(keys, *arrays)


@pytest.mark.share(10)
@each_flavour
def test_a_wrong_window_is_refused_by_name(flavour):
    module = flavour.MaxPool((2, 2, 2, 2))
    call = module.apply if flavour is jaxpool.linen else lambda _, x: module(x)
    with pytest.raises(ValueError, match="window"):
        call({}, X)
