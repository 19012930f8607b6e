"""More than one device: values and gradients as on one, and what is exchanged.

Collectives are counted in the compiled program of value and gradient, for cotangents
that are given, so that nothing but the pool is in it.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from jaxpool.compat import torch
from tests.cases import (
    KINDS,
    cotangent,
    distinct,
    every_extreme,
    every_kind,
    mask,
    pooling,
    quick_jit,
    value_and_grad,
)

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
ROWS = {"h": 8}
TILES = {"h": 2, "w": 4}
COLLECTIVES = (
    r" (all-[a-z-]+?|collective-[a-z-]+?|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)

every_split = pytest.mark.parametrize("split", [ROWS, TILES], ids=["rows", "tiles"])


def mesh_of(split, kind=AUTO):
    return jax.make_mesh(tuple(split.values()), tuple(split), (kind,) * len(split))


def over(mesh, *spec):
    return NamedSharding(mesh, P(*spec))


@functools.cache
def both_ways(pool):
    """The value, as without a gradient, and the value and gradient with one."""

    def run(x, g, *masks):
        wanted = functools.partial(pool, **dict(zip(["where"], masks, strict=False)))
        return wanted(x), *value_and_grad(wanted, x, g)

    return quick_jit(run)  # what is exchanged does not depend on how well it is done


def collectives(run, *arrays):
    """The collectives in the compiled program, by name."""
    return re.findall(COLLECTIVES, run.lower(*arrays).compile().as_text())


def check(pool, arrays, shardings):
    """Compare the pool of sharded arrays with that of whole ones; say what it sent."""
    run = both_ways(pool)
    sharded = [jax.device_put(a, s) for a, s in zip(arrays, shardings, strict=True)]
    compiled = run.lower(*sharded).compile()
    for got, want in zip(compiled(*sharded), run(*arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return re.findall(COLLECTIVES, compiled.as_text())


def image_and_cotangent(pool, shape=(1, 64, 32, 1)):
    x = distinct(shape) / 8 + np.float32(1 / 16)
    y = jax.eval_shape(pool, x)
    return x, cotangent(y.shape).astype(y.dtype)


# --- batch and channels ---

WINDOWED = {
    f"{kind}_pool": pooling(kind, window=(3, 3), strides=2, padding="SAME")
    for kind in KINDS
}
GLOBAL = {
    f"global_{kind}_pool": functools.partial(
        getattr(jaxpool, f"global_{kind}_pool"), keepdims=True
    )
    for kind in KINDS
}
ANY = functools.partial(
    jaxpool.pool, init=0.0, op=jnp.add, window=(3, 3), strides=2, padding="SAME"
)


def unpooled(x):
    pooled = jaxpool.max_pool_with_indices(x, (2, 2))
    return jaxpool.max_unpool(*pooled, x.shape[1:3])


OTHERS = {
    "pool": ANY,
    "max_unpool": unpooled,
    "adaptive_max_pool": lambda x: jaxpool.adaptive_max_pool(x, (3, 2)),
    "adaptive_max_pool_tiling": lambda x: jaxpool.adaptive_max_pool(x, (2, 2)),
    "adaptive_avg_pool": lambda x: jaxpool.adaptive_avg_pool(x, (3, 2)),
    "fractional_max_pool": lambda x: jaxpool.fractional_max_pool(
        x, (2, 2), (2, 3), key=jax.random.key(0)
    ),
}


@pytest.mark.share(24)
@pytest.mark.parametrize("where", [None, 4], ids=["all", "mask"])
@pytest.mark.parametrize("name", [*WINDOWED, *GLOBAL, *OTHERS])
def test_batch_and_channels_need_no_exchange(name, where):
    if name in OTHERS and where:
        pytest.skip("it takes no mask")
    pool = {**WINDOWED, **GLOBAL, **OTHERS}[name]
    by_both = over(mesh_of({"b": 4, "c": 2}), "b", None, None, "c")
    arrays = list(image_and_cotangent(pool, (8, 6, 4, 4)))
    shardings = [by_both, by_both]
    if where:
        arrays.append(mask((8, 6, 4, where)))
        shardings.append(by_both)
    assert check(pool, arrays, shardings) == []


def test_shard_map_over_the_batch_is_as_it_is():
    pool = WINDOWED["max_pool"]
    by_batch = over(mesh_of({"b": 8}), "b")
    local = jax.shard_map(
        pool, mesh=by_batch.mesh, in_specs=by_batch.spec, out_specs=by_batch.spec
    )
    x, g = image_and_cotangent(pool, (8, 5, 4, 2))
    run = both_ways(local)
    for got, want in zip(run(x, g), both_ways(pool)(x, g), strict=True):
        np.testing.assert_allclose(got, want)
    assert collectives(run, *jax.device_put((x, g), by_batch)) == []


# --- space, by jit alone ---

GEOMETRIES = {
    "2/2": {"window": (2, 2)},
    "3/2": {"window": (3, 3), "strides": 2, "padding": "SAME"},
    "3/1": {"window": (3, 3), "strides": 1, "padding": "SAME"},
    "5/1": {"window": (5, 5), "strides": 1, "padding": "SAME"},
    "5/2": {"window": (5, 5), "strides": 2, "padding": "SAME"},
    "3/2 padded": {"window": (3, 3), "strides": 2, "padding": 1},
    "3/1 dilated": {
        "window": (3, 3),
        "strides": 1,
        "padding": "SAME",
        "dilation": 2,
    },
    "3/2 dilated": {
        "window": (3, 3),
        "strides": 2,
        "padding": "SAME",
        "dilation": 2,
    },
    "9/2": {"window": (9, 9), "strides": 2, "padding": "SAME"},
    "4/2": {"window": (4, 4), "strides": 2, "padding": "SAME"},
    "15/1": {"window": (15, 2), "strides": (1, 2), "padding": "SAME"},
    "15/1 in slices": {
        "window": (15, 2),
        "strides": (1, 2),
        "padding": "SAME",
        "implementation": "slices",
    },
    "20/2": {"window": (20, 2), "strides": 2, "padding": "SAME"},
}
HALOS = {  # on how many sides of a shard windows read, for each axis
    "2/2": (0, 0),
    "3/2": (1, 1),
    "3/1": (2, 2),
    "5/2": (2, 2),
    "3/2 padded": (1, 1),
    "3/2 dilated": (2, 2),
    "15/1": (2, 0),
}


@functools.cache
def windowed(kind, name, **options):
    return pooling(kind, **GEOMETRIES[name], **options)


@pytest.mark.share(24)
@every_split
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("max", "avg", "lp") for name in GEOMETRIES]
    + [("sum", "3/2"), ("sum", "5/1"), ("min", "5/1")],
)
def test_space_exchanges_only_halos(kind, name, split):
    pool = windowed(kind, name)
    spatial = over(mesh_of(split), None, *split)
    sent = check(pool, image_and_cotangent(pool), [spatial, spatial])
    assert set(sent) == ({"collective-permute"} if name != "2/2" else set())


@pytest.mark.share(24)
@every_split
@pytest.mark.parametrize("name", ["2/2", "3/2", "3/1", "5/2", "4/2", "3/1 dilated"])
def test_xlas_own_windows_are_right_beside_each_other(name, split):
    """XLA's partitioner takes those of one array for the same, whatever they pad with.

    On a GPU and a TPU all pools are made of them.
    """
    pools = [windowed(kind, name, implementation="reduce_window") for kind in KINDS]
    spatial = over(mesh_of(split), None, *split)

    def pool(x):
        return jnp.concatenate([pool(x) for pool in pools], -1)

    sent = check(pool, image_and_cotangent(pool), [spatial, spatial])
    # By name jax transposes sums, by pads that XLA sends an edge for, even of 2/2.
    assert set(sent) == {"collective-permute"}


@pytest.mark.share(24)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_xlas_own_windows_over_all_axes_are_right_beside_each_other(dtype):
    """Where no axis is left whose cell might be dilated."""
    options = {"strides": 2, "axes": (0, 1), "implementation": "reduce_window"}
    x = distinct((64, 32)).astype(dtype)

    def pooled(name, x):
        return getattr(jaxpool, name)(x, (3, 3), padding=1, **options)

    def total(x):
        return pooled("max_pool", x).sum() + 2 * pooled("min_pool", x).sum()

    def run(x):
        names = "max_pool_with_indices", "min_pool_with_indices", "sum_pool"
        values = jax.tree.leaves([pooled(name, x) for name in names])
        return values if dtype == "int32" else [*values, jax.grad(total)(x)]

    wanted = jax.jit(run)(x)
    got = jax.jit(run)(jax.device_put(x, over(mesh_of(TILES), *TILES)))
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.share(24)
@every_split
@pytest.mark.parametrize("name", ["2/2", "3/2", "5/2", "3/2 padded", "4/2"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_of_xlas_own_windows_exchange_only_halos(name, split, dtype):
    """Where channels fill the lanes of a TPU."""
    pool = windowed("max", name, implementation="reduce_window")
    spatial = over(mesh_of(split), None, *split)
    arrays = image_and_cotangent(pool, (1, 64, 32, 128))
    sent = check(pool, [a.astype(dtype) for a in arrays], [spatial, spatial])
    assert set(sent) == ({"collective-permute"} if name != "2/2" else set())


@pytest.mark.share(24)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_masks_over_space_exchange_only_halos(kind):
    pool = windowed(kind, "3/1")
    rows = over(mesh_of(ROWS), None, "h")
    arrays = *image_and_cotangent(pool), mask((1, 64, 32, 1))
    assert set(check(pool, arrays, [rows] * 3)) == {"collective-permute"}


@pytest.mark.share(24)
@every_kind
def test_sizes_that_do_not_divide_are_right(kind):
    pool = pooling(kind, window=(3, 3), strides=2)
    mesh = mesh_of(ROWS)
    shardings = [over(mesh, None, "h"), over(mesh)]
    check(pool, image_and_cotangent(pool), shardings)


@pytest.mark.share(24)
@every_kind
def test_global_pools_over_space(kind):
    pool = GLOBAL[f"global_{kind}_pool"]
    mesh = mesh_of(ROWS)
    arrays = image_and_cotangent(pool, (2, 16, 2, 2))
    check(pool, arrays, [over(mesh, None, "h"), over(mesh)])


# --- explicit sharding ---


def spec_of(array):
    return jax.typeof(array).sharding.spec


@pytest.mark.share(24)
@pytest.mark.parametrize("name", [None, "reduce_window"])
def test_parts_of_whole_axes_that_devices_cannot_combine(name):
    """Devices combine by sums, maxima and minima: not by an operation of the caller."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 4, 2)), jnp.float32)
    options = {"window": (16, 4), "implementation": name}
    pool = jax.jit(lambda x: jaxpool.pool(x, -np.inf, jnp.logaddexp, **options))
    split = jax.device_put(x, over(mesh_of(ROWS), None, "h"))
    np.testing.assert_allclose(pool(split), pool(x), rtol=1e-5)


def check_explicit(pool, spec, split, shape=(2, 64, 32, 2), where=()):
    """Value and gradient, which is sharded as the input; the value's spec."""
    x, g = image_and_cotangent(pool, shape)
    run = both_ways(pool)
    wanted = run(x, g, *where)
    mesh = mesh_of(split, EXPLICIT)
    with jax.set_mesh(mesh):
        x, *where = jax.device_put([x, *where], over(mesh, *spec))
        y = jax.jit(pool)(x)
        arrays = x, jax.device_put(g, y.sharding), *where
        got = run(*arrays)
        sent = collectives(run, *arrays)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert spec_of(got[-1]) == spec_of(x)
    assert spec_of(got[0]) == spec_of(got[1]) == spec_of(y)
    return spec_of(y), set(sent)


@pytest.mark.share(24)
@every_split
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("max", "avg") for name in HALOS]
    + [(kind, "3/2") for kind in ("min", "sum", "lp")],
)
def test_explicit_space(kind, name, split):
    spec, sent = check_explicit(windowed(kind, name), (None, *split), split)
    assert spec == P(None, *split, *[None] * (3 - len(split)))
    assert sent == ({"collective-permute"} if name != "2/2" else set())


@pytest.mark.share(24)
@pytest.mark.parametrize(("rows", "stays"), [(8, "h"), (10, None)])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_explicit_batch_rows_and_channels_at_once(kind, rows, stays):
    split, spec = {"b": 2, "h": 2, "c": 2}, ("b", "h", None, "c")
    got, _ = check_explicit(windowed(kind, "3/2"), spec, split, (2, rows, 6, 2))
    assert got == P("b", stays, None, "c")


def test_explicit_axis_split_over_two_mesh_axes():
    spec, sent = check_explicit(windowed("max", "3/1"), (None, ("h", "w")), TILES)
    assert spec == P(None, ("h", "w"), None, None)
    assert sent == {"collective-permute"}


@pytest.mark.share(24)
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_explicit_mask(kind):
    where = (mask((2, 64, 32, 2)),)
    pool = windowed(kind, "3/1")
    _, sent = check_explicit(pool, (None, "h"), ROWS, where=where)
    assert sent == {"collective-permute"}


@pytest.mark.share(24)
@pytest.mark.parametrize("name", [*GLOBAL, *OTHERS])
def test_explicit_space_of_other_pools(name):
    pool = {**GLOBAL, **OTHERS}[name]
    spec, _ = check_explicit(pool, (None, "h", None, "w"), TILES, (2, 4, 4, 4))
    rows = jax.eval_shape(pool, np.zeros((2, 4, 4, 4), np.float32)).shape[1]
    assert spec == P(None, None if rows % 2 else "h", None, "w")


@pytest.mark.share(24)
@every_extreme
def test_explicit_space_with_indices(kind):
    pool = getattr(jaxpool, f"{kind}_pool_with_indices")
    pool = jax.jit(functools.partial(pool, **GEOMETRIES["3/1"]))
    x = distinct((1, 16, 4, 1))
    mesh = mesh_of(ROWS, EXPLICIT)
    with jax.set_mesh(mesh):
        got = pool(jax.device_put(x, over(mesh, None, "h")))
    for a, b in zip(got, pool(x), strict=True):
        np.testing.assert_array_equal(a, b)
        assert spec_of(a) == P(None, "h", None, None)


@pytest.mark.share(24)
@every_kind
@pytest.mark.parametrize(
    "geometry", [((3, 3), 3), ((3, 8), 2), ((15, 8), 1)], ids=["3/3", "3x8", "15x8"]
)
def test_explicit_space_by_xlas_own_windows(kind, geometry):
    """Of results that do not divide, XLA's partitioner must know how to split them.

    It refused, or ended the process, where two axes are split.
    """
    window, strides = geometry
    pool = pooling(
        kind,
        window=window,
        strides=strides,
        implementation="reduce_window",
    )
    split = {"h": 2, "w": 2}
    check_explicit(pool, (None, "h", "w"), split, (2, 16, 8, 2))


@pytest.mark.share(24)
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_explicit_space_with_padding_that_is_data(mode):
    geometry = {"window": (3, 3), "strides": 2, "padding": 1, "padding_mode": mode}
    pool = functools.partial(jaxpool.avg_pool, **geometry)
    spec, _ = check_explicit(pool, (None, "h"), ROWS, (1, 16, 4, 1))
    assert spec == P(None, "h", None, None)


def test_explicit_mask_alone():
    x, where = distinct((1, 16, 4, 1)), mask((1, 16, 4, 1))
    pool = jax.jit(windowed("avg", "3/1"))
    mesh = mesh_of(ROWS, EXPLICIT)
    with jax.set_mesh(mesh):
        got = pool(x, where=jax.device_put(where, over(mesh, None, "h")))
    np.testing.assert_allclose(got, pool(x, where=where), rtol=1e-5)


@pytest.mark.share(24)
@every_kind
def test_explicit_space_without_jit(kind):
    pool = windowed(kind, "3/2")
    x, g = image_and_cotangent(pool, (1, 16, 2, 1))
    mesh = mesh_of(ROWS, EXPLICIT)
    with jax.set_mesh(mesh):
        y, vjp = jax.vjp(pool, jax.device_put(x, over(mesh, None, "h")))
        (dx,) = vjp(jax.device_put(g, y.sharding))
    for got, want in zip((y, dx), both_ways(pool)(x, g)[1:], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert spec_of(y) == spec_of(dx) == P(None, "h", None, None)


@pytest.mark.share(24)
@pytest.mark.parametrize("kind", ["max", "sum", "avg", "lp"])
def test_explicit_space_in_forward_mode(kind):
    pool = windowed(kind, "3/1")
    x, t = distinct((1, 16, 4, 1)), cotangent((1, 16, 4, 1)).astype(np.float32)
    mesh = mesh_of(ROWS, EXPLICIT)
    run = jax.jit(lambda x, t: jax.jvp(pool, (x,), (t,)))
    with jaxpool.forward_mode():
        with jax.set_mesh(mesh):
            got = run(*jax.device_put((x, t), over(mesh, None, "h")))
        wanted = run(x, t)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# --- space, in shard_map ---


def shard_mapped(split, local):
    """Run `local` on the shards of images, split over rows and columns, or rows."""
    spec = P(None, *split)
    return jax.shard_map(local, mesh=mesh_of(split), in_specs=spec, out_specs=spec)


def by_halo(kind, split, padding="VALID", mask_padding=True, **geometry):
    """The pool of what a halo exchange returns, on shards."""
    names = (*split, None)[:2]
    pool = getattr(jaxpool, f"{kind}_pool")
    options = {} if mask_padding else {"count_include_pad": True}
    if kind in ("sum", "lp"):
        mask_padding = False

    def local(x):
        x, inside = jaxpool.halo_exchange(
            x, padding=padding, axis_names=names, **geometry
        )
        where = inside if mask_padding else None
        return pool(x, where=where, **geometry, **options)

    return shard_mapped(split, local)


def check_halo(whole, local, split, forward, both, shape=(1, 64, 32, 1)):
    """Compare the two, and count permutes: of the value, and of the gradient alone."""
    x, g = image_and_cotangent(whole, shape)
    sharded = jax.device_put((x, g), over(mesh_of(split), None, *split))
    run = both_ways(local)
    for got, want in zip(run(*sharded), both_ways(whole)(x, g), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    sent = collectives(jax.jit(local), sharded[0])
    assert sent == ["collective-permute"] * forward
    sent = collectives(jax.jit(lambda x, g: jax.vjp(local, x)[1](g)), *sharded)
    assert sent == ["collective-permute"] * both


@pytest.mark.share(24)
@every_split
@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ("max", "avg") for name in HALOS]
    + [(kind, "3/1") for kind in ("min", "sum", "lp")],
)
def test_halo_exchange_then_a_local_pool(kind, name, split):
    geometry = {k: v for k, v in GEOMETRIES[name].items() if k != "implementation"}
    permutes = sum(HALOS[name][: len(split)])
    reads_input = kind not in ("sum", "avg")
    check_halo(
        windowed(kind, name),
        by_halo(kind, split, **geometry),
        split,
        permutes,
        permutes * (1 + reads_input),
    )


@pytest.mark.share(24)
@pytest.mark.parametrize("name", ["3/1", "3/2 padded"])
def test_halo_exchange_counting_the_padding(name):
    whole = windowed("avg", name, count_include_pad=True)
    local = by_halo("avg", TILES, mask_padding=False, **GEOMETRIES[name])
    check_halo(whole, local, TILES, sum(HALOS[name]), sum(HALOS[name]))


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("kind", "include"), [("max", False), ("avg", False), ("avg", True)]
)
def test_halo_exchange_of_a_mask(kind, include):
    options = {"count_include_pad": include} if kind == "avg" else {}
    geometry = {"window": (3, 3), "strides": 1}
    exchange = functools.partial(
        jaxpool.halo_exchange, padding="SAME", axis_names=("h", "w"), **geometry
    )
    pool = pooling(kind, **geometry, **options)

    def local(x, where):
        x, inside = exchange(x)
        where, _ = exchange(where)
        if include:
            where = where | ~inside
        return pool(x, where=where)

    spec = P(None, "h", "w")
    mapped = jax.shard_map(
        local, mesh=mesh_of(TILES), in_specs=(spec, spec), out_specs=spec
    )
    whole = functools.partial(pool, padding="SAME")
    x, g = image_and_cotangent(whole, (1, 8, 8, 2))
    where = mask(x.shape)
    sharded = both_ways(lambda x, where: mapped(x, where))(x, g, where)
    for got, want in zip(sharded, both_ways(whole)(x, g, where), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_halo_exchange_for_any_operation():
    geometry = {"window": 3, "strides": 1, "axes": 0}
    x = np.array([2, 3, 5, 7, 1, 2, 3, 4], np.float32)

    def local(x):
        x, inside = jaxpool.halo_exchange(
            x, padding="CAUSAL", axis_names="h", **geometry
        )
        x = jnp.where(inside, x, jnp.ones_like(x))
        return jaxpool.pool(x, 1.0, jnp.multiply, **geometry)

    mapped = jax.shard_map(
        local, mesh=mesh_of({"h": 4}), in_specs=P("h"), out_specs=P("h")
    )
    whole = jaxpool.pool(x, 1.0, jnp.multiply, padding="CAUSAL", **geometry)
    np.testing.assert_array_equal(mapped(x), whole)


def test_halo_exchange_of_an_axis_split_over_two_mesh_axes():
    geometry = {"window": 3, "strides": 1, "axes": 1}
    x = distinct((2, 16))

    def local(x):
        x, inside = jaxpool.halo_exchange(
            x, padding="SAME", axis_names=[("h", "w")], **geometry
        )
        return jaxpool.max_pool(x, where=inside, **geometry)

    spec = P(None, ("h", "w"))
    mapped = jax.shard_map(local, mesh=mesh_of(TILES), in_specs=spec, out_specs=spec)
    whole = jaxpool.max_pool(x, padding="SAME", **geometry)
    np.testing.assert_array_equal(mapped(x), whole)


def test_gradient_inside_shard_map():
    """The loss of one shard knows the cells that came from its neighbours."""
    geometry = {"window": 3, "strides": 1, "axes": 0}

    def loss(x):
        x, _ = jaxpool.halo_exchange(x, padding="SAME", axis_names="h", **geometry)
        return (jaxpool.sum_pool(x, **geometry) ** 2).sum()

    rows = {"mesh": mesh_of({"h": 4}), "in_specs": P("h"), "out_specs": P("h")}
    x = distinct((8,))
    got = jax.jit(jax.shard_map(jax.grad(loss), **rows))(x)
    whole = lambda x: (jaxpool.sum_pool(x, padding="SAME", **geometry) ** 2).sum()  # noqa: E731
    np.testing.assert_array_equal(got, jax.grad(whole)(x))


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("match", "kwargs"),
    [
        ("window must not reach beyond the next shard", {"window": (7, 1)}),
        ("window must not reach", {"window": (3, 1), "dilation": (3, 1)}),
        ("strides must divide", {"window": (3, 1), "strides": (4, 1)}),
        ("padding must give", {"window": (3, 1), "padding": "VALID"}),
        ("axis_names must have one entry", {"axis_names": "h"}),
        ("axis_names must name axes", {"axis_names": ("z", None)}),
        ("window must be at least 1", {"window": (0, 1)}),
    ],
)
def test_halo_exchange_refuses(match, kwargs):
    given = {"window": (3, 1), "strides": 1, "padding": "SAME"} | kwargs
    given.setdefault("axis_names", ("h", None))
    local = functools.partial(jaxpool.halo_exchange, **given)
    mapped = shard_mapped(ROWS, lambda x: local(x)[0])
    with pytest.raises(ValueError, match=match) as error:
        jax.eval_shape(mapped, jnp.zeros((1, 16, 3, 1)))
    assert "x.shape=(1, 2, 3, 1)" in str(error.value)


def test_halo_exchange_refuses_names_that_are_none():
    with pytest.raises(TypeError, match="axis_names must be"):
        jaxpool.halo_exchange(np.zeros((4, 1)), (3,), axis_names=1)


@pytest.mark.share(24)
@every_kind
def test_gradients_mapped_over_an_explicit_batch(kind):
    mesh = mesh_of({"d": 4}, EXPLICIT)
    x = distinct((4, 8)) / 8 + np.float32(1 / 16)
    pool = pooling(kind, window=2, axes=0)
    each = jax.vmap(jax.grad(lambda row: (pool(row) ** 2).sum()))
    with jax.set_mesh(mesh):
        got = each(jax.device_put(x, over(mesh, "d", None)))
    np.testing.assert_allclose(got, each(x), rtol=1e-6)


# --- what varies over devices, in shard_map ---

# Pools of an `x` that all devices share, and of what differs from one to the next.
SHARED = (np.random.default_rng(0).permutation(24).reshape(1, 12, 2) + 8) / np.float32(
    8
)
MASKS = np.random.default_rng(1).random((4, 12, 2)) < 0.6
INDICES = np.arange(12)[:, None] * [[[2, 1]], [[1, 2]], [[2, 2]], [[1, 1]]]
SAMPLES = np.random.default_rng(2).random((4, 2, 1), np.float32)
PLANES = np.random.default_rng(3).random((4, 2, 2), np.float32)


def masked(name, *arguments, **options):
    pool = getattr(jaxpool, name)
    return lambda x, where: pool(x, *arguments, where=where, **options)


def fractional(name, window, **options):
    pool = getattr(jaxpool, f"fractional_{name}")
    given = {"window": window, "output_shape": (5,)} | options
    by_key = lambda x, keys: pool(x, **given, key=keys[0])  # noqa: E731
    by_sample = lambda x, samples: pool(x, **given, samples=samples)  # noqa: E731
    return by_key, by_sample


def of_sum(pool):
    """The pool of something that varies only because of a mask."""
    return lambda x, where: pool(x * where.sum(dtype=x.dtype), (5,))


def planes(x):
    return x.reshape(1, 2, 3, 4)


def varying_pools():
    keys = jax.random.split(jax.random.key(0), 4)
    for kind in KINDS:
        yield f"{kind}_pool", masked(f"{kind}_pool", (3,), 2, "SAME"), MASKS
        own = masked(f"{kind}_pool", (3,), 2, 1, implementation="reduce_window")
        yield f"{kind}_pool of XLA", own, MASKS
        yield f"global_{kind}_pool", masked(f"global_{kind}_pool"), MASKS
    for name in ("max_pool_with_indices", "min_pool_with_indices"):
        yield name, masked(name, (3,), 2, "SAME"), MASKS
        yield f"global_{name}", masked(f"global_{name}", keepdims=True), MASKS
    yield "doubling", masked("max_pool", (11,), 1, implementation="doubling"), MASKS
    for p in (1, 3, float("inf")):
        yield f"p={p}", masked("lp_pool", (3,), 2, p=p, empty_value=1), MASKS
    reflect = {"padding_mode": "reflect", "count_include_pad": True}
    yield "padding_mode", masked("avg_pool", (3,), 2, 1, **reflect), MASKS
    yield "max_unpool", lambda x, i: jaxpool.max_unpool(x, i, (30,)), INDICES
    for name in ("max_pool", "avg_pool", "max_pool_with_indices"):
        by_key, by_sample = fractional(name, (2,))
        yield f"fractional_{name} by key", by_key, keys
        yield f"fractional_{name} by sample", by_sample, SAMPLES
        by_key, _ = fractional(name, None, rule="random")
        yield f"fractional_{name} at random", by_key, keys
    init = lambda x, m: jaxpool.pool(x, 0 * m.sum(dtype=x.dtype), jnp.add, (3,))  # noqa: E731
    yield "pool", init, MASKS
    for name in ("adaptive_avg_pool", "adaptive_max_pool_with_indices"):
        yield name, of_sum(getattr(jaxpool, name)), MASKS
    many = np.stack([np.arange(24).reshape(2, 3, 4) * 2] * 4)
    yield "torch", lambda x, i: torch.max_unpool2d(planes(x), i, 2), many
    drawn = {"kernel_size": 2, "output_size": (2, 3)}
    yield (
        "torch by sample",
        lambda x, s: torch.fractional_max_pool2d(planes(x), **drawn, _random_samples=s),
        PLANES,
    )


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("pool", "others"),
    [pytest.param(*rest, id=f"D3 {name}") for name, *rest in varying_pools()],
)
def test_gradients_of_what_all_devices_share(pool, others):
    def first(x, other):
        return jax.tree.leaves(pool(x, other))[0]

    mapped = jax.shard_map(
        first, mesh=mesh_of({"d": 4}), in_specs=(P(), P("d")), out_specs=P("d")
    )

    def total(function, x, *others):
        return sum((function(x, other) ** 2).sum() for other in others)

    each = [others[i : i + 1] for i in range(4)]
    got = jax.jit(jax.value_and_grad(functools.partial(total, mapped)))(SHARED, others)
    want = jax.jit(jax.value_and_grad(functools.partial(total, first)))(SHARED, *each)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("pool", "gradient"),
    [
        (jaxpool.global_avg_pool, [1.25, 1.25, 0.75, 0.75]),
        (jaxpool.global_max_pool, [0, 1, 1, 2]),
        (functools.partial(jaxpool.avg_pool, window=(2,)), [2, 2, 1.5, 1.5]),
    ],
    ids=["D3 global_avg_pool", "D3 global_max_pool", "D3 avg_pool"],
)
def test_gradients_of_masks_that_differ(pool, gradient):
    masks = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1], [1] * 4], bool)
    mapped = jax.shard_map(
        lambda x, where: pool(x, where=where),
        mesh=mesh_of({"d": 4}),
        in_specs=(P(), P("d")),
        out_specs=P("d"),
    )
    x = np.arange(4, dtype=np.float32)[None, :, None]
    got = jax.jit(jax.grad(lambda x: mapped(x, masks[..., None]).sum()))(x)
    np.testing.assert_allclose(got.ravel(), gradient)
