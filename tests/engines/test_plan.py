"""Which lowering runs where, and that what it is made of can be taken away."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.engines.kernel import PLATFORMS
from jaxpool.engines.plan import IMPLEMENTATIONS

X = jnp.asarray(np.random.default_rng(0).permutation(2 * 9 * 9 * 3), jnp.float32)
X = X.reshape(2, 9, 9, 3)


def chosen(platform, window, strides, dtype=np.float32):
    shape = (1, *[64] * len(window), 3)
    named = jaxpool.implementation_for
    return named(platform, shape, window, strides, "SAME", dtype=dtype)


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="platform must be one of cpu"):
        chosen("gpu", (3, 3), 2)


@pytest.mark.parametrize(
    ("window", "strides", "name"),
    [
        ((2, 2), 2, "slices"),
        ((3, 3), 1, "slices"),
        ((8, 8), 1, "slices"),
        ((3, 9), 1, "doubling"),
        ((15, 15), 15, "slices"),
        ((16, 16), 8, "slices"),
        ((63, 63), 2, "doubling"),
    ],
)
def test_the_rule_on_cpu(window, strides, name):
    assert chosen("cpu", window, strides) == name


@pytest.mark.parametrize("platform", [p for p in PLATFORMS if p != "cpu"])
def test_accelerators_use_their_own_windows(platform):
    assert chosen(platform, (3, 3), 2) == "reduce_window"
    assert chosen(platform, (3, 3), 1) == "reduce_window"


@pytest.mark.parametrize(
    ("window", "strides", "name"),
    [((5, 5), 1, "slices"), ((15, 15), 1, "doubling"), ((15, 15), 15, "reduce_window")],
)
def test_gpus_take_steps_where_many_windows_read_a_cell(window, strides, name):
    assert chosen("cuda", window, strides) == chosen("rocm", window, strides) == name
    assert chosen("tpu", window, strides) == "reduce_window"


@pytest.mark.parametrize(
    ("window", "strides", "name"),
    [
        ((2, 2), 2, "slices"),
        ((3, 3), 2, "slices"),
        ((2, 2, 2), 2, "slices"),
        ((3, 3), 1, "reduce_window"),
        ((5, 5), 2, "reduce_window"),
        ((7, 7), 7, "reduce_window"),
        ((3,), 1, "slices"),
        ((9,), 1, "doubling"),
        ((10,), 1, "reduce_window"),
    ],
)
def test_gpus_take_few_cells_of_two_bytes_in_steps(window, strides, name):
    assert chosen("cuda", window, strides, jnp.bfloat16) == name
    assert chosen("cuda", window, strides) == "reduce_window"


@pytest.mark.parametrize(
    ("pool", "strides", "windows"),
    [("max", 1, 0), ("sum", 1, 0), ("lp", 1, 1), ("lp", 2, 0), ("logsumexp", 2, 0)],
)
def test_the_dtype_that_is_added_up_decides_on_a_gpu(pool, strides, windows):
    """And what divides takes windows that do not overlap in one step."""
    pooled = jax.jit(
        partial(getattr(jaxpool, f"{pool}_pool"), window=(2, 2), strides=strides)
    )
    exported = jax.export.export(pooled, platforms=["cuda"])(X.astype(jnp.bfloat16))
    assert exported.mlir_module().count("stablehlo.reduce_window") == windows


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_program_is_lowered_for_the_platform_it_is_exported_to(platform):
    pool = jax.jit(lambda x: jaxpool.max_pool(x, (3, 3), 1))
    text = jax.export.export(pool, platforms=[platform])(X).mlir_module()
    assert ("stablehlo.reduce_window" in text) == (platform != "cpu")


@pytest.mark.parametrize(("platform", "windows"), [("cpu", 0), ("cuda", 0), ("tpu", 1)])
def test_sums_come_back_by_windows_on_a_tpu(platform, windows):
    text = exported_back(jaxpool.sum_pool, 3, platform)
    assert text.count("stablehlo.reduce_window") == windows


def test_maxima_come_back_in_one_step_on_a_tpu():
    """Whose blocks are filled before they are merged: with a barrier between."""
    text = exported_back(jaxpool.max_pool, 3, "tpu")
    assert text.count("stablehlo.optimization_barrier") == 1


@pytest.mark.parametrize(("platform", "windows"), [("cpu", 0), ("cuda", 1), ("tpu", 0)])
def test_norms_are_a_reduction_on_gpus(platform, windows):
    """The compiler for TPU v6e ends the process with it."""
    text = exported_back(jaxpool.lp_pool, 3, platform)
    assert text.count("stablehlo.reduce_window") == windows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "uint8"])
def test_identities_of_one_dtype_are_told_apart(dtype):
    """By windows of their own, or by roundings, with which a TPU fuses."""
    x = jnp.ones((1, 6, 6, 1), dtype)

    def pools(x):
        kinds = "max", "min", "sum"
        return [getattr(jaxpool, f"{kind}_pool")(x, (3, 3), 1) for kind in kinds]

    text = jax.export.export(jax.jit(pools), platforms=["cuda"])(x).mlir_module()
    dilations = re.findall(r"window_dilations = array<i64: ([^>]*)>", text)
    roundings = re.findall(r"reduce_precision %\S+, format = e(\d+)m(\d+)", text)
    assert text.count('"stablehlo.reduce_window"') == 3
    dilations += ["1, 1, 1, 1"] * (3 - len(dilations))  # which is not written
    if "float" not in dtype:
        expected = 2 if dtype == "uint8" else 3  # the least of uint8 is its 0
        assert len(set(dilations)) == expected
        return
    info = jnp.finfo(dtype)
    assert set(dilations) == {"1, 1, 1, 1"}
    assert len(set(roundings)) == 2  # nothing tells a sum of 0 from no rounding
    assert all(int(e) == info.nexp and int(m) > info.nmant for e, m in roundings)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_tpu_fills_tiles_before_it_merges_them(platform):
    """With a barrier, which makes a GPU write tiles of half floats in float32."""
    text = exported_back(jaxpool.max_pool, 2, platform)
    assert text.count("stablehlo.optimization_barrier") == (platform == "tpu")
    assert text.count("stablehlo.reduce_window") == (platform != "cpu")  # the values


@pytest.mark.parametrize("kind", ["max", "avg", "lp"])
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_a_name_forces_both_ways_on_every_platform(kind, platform):
    pool = getattr(jaxpool, f"{kind}_pool")
    text = exported_back(partial(pool, implementation="slices"), 3, platform)
    assert "stablehlo.reduce_window" not in text


def exported_back(pool, window, platform):
    """The text of the way back of a pool with strides of 2."""

    def back(x, g):
        return jax.vjp(lambda x: pool(x, (window, window), 2), x)[1](g)[0]

    program = jax.export.export(jax.jit(back), platforms=[platform])
    return program(X, pool(X, (window, window), 2)).mlir_module()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_name_forces_its_lowering(name):
    pool = jax.jit(lambda x: jaxpool.max_pool(x, (3, 3), 1, implementation=name))
    text = pool.lower(X).as_text()
    assert ("stablehlo.reduce_window" in text) == (name == "reduce_window")


def test_passes_stay_apart_on_the_cpu():
    """Inlined, the first pass would be computed again for each slice of the second."""
    pool = jax.jit(lambda x: jaxpool.max_pool(x, (3, 3), 1))
    text = pool.lower(jax.device_put(X, jax.devices("cpu")[0])).compile().as_text()
    entry = text[text.index("\nENTRY") :]
    assert len(re.findall(r" call\(", entry)) == 2


def test_without_chex_the_user_sees_the_same(monkeypatch):
    wrong = {"window": (10, 2)}, {"window": (2, 2), "where": jnp.ones((5,), bool)}

    def outcomes():
        good = jax.grad(lambda x: jaxpool.max_pool(x, (3, 2), where=X > 9).sum())(X)
        errors = []
        for kwargs in wrong:
            with pytest.raises(ValueError, match=r"x\.shape") as caught:
                jaxpool.max_pool(X, **kwargs)
            errors.append(str(caught.value))
        return errors, np.asarray(good)

    errors, good = outcomes()
    for name in dir(chex):
        if name.startswith("assert_"):
            monkeypatch.setattr(chex, name, lambda *args, **kwargs: None)
    errors_without, good_without = outcomes()
    assert errors == errors_without
    np.testing.assert_array_equal(good, good_without)
