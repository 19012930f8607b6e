"""Every public function, and every transformation it is to run under: one table.

A row is a call of a function, a column a transformation; `COLUMNS[name](row)` runs the
cell, and compares it with the plain call. `IMPOSSIBLE` names the cells that cannot be
had, each with its reason.
"""

import dataclasses
import functools
import math
import pickle
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx as flax_nnx
from jax.experimental import checkify
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

import jaxpool
from jaxpool import linen, nnx
from tests.cases import KINDS, distinct
from tests.every import module_of

SIZES = (6, 4)
WINDOW = {"window": (3, 2), "strides": (2, 1), "padding": "SAME"}
DEVICES = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """One call, of images `[1, *sizes, 2]`.

    `function(sizes)` is a function of `x` and of the `others`, arrays made by
    `others(sizes, number)`, of which each device has its own number.
    """

    name: str
    function: Callable
    out: Callable | None = None  # sizes -> sizes of the result
    others: Callable = lambda sizes, number: ()
    options: dict = dataclasses.field(default_factory=dict)
    is_differentiable: bool = True
    is_max_like: bool = False
    has_module: bool = True
    x: Callable = lambda sizes: (1, *sizes, 2)

    def call(self, sizes=SIZES):
        return functools.partial(self.function(sizes), **self.options)

    @property
    def base(self):
        """The name of the function."""
        return self.name.split(",")[0]

    def arrays(self, number=0):
        """The data, and the other arrays of a number."""
        x = jnp.asarray(distinct(self.x(SIZES)) / 4 + 0.125)
        return (x, *self.others(SIZES, number))

    def work(self, sizes=SIZES):
        """The values, and the gradient by the first array if there is one."""
        call = self.call(sizes)

        def worked(x, *others):
            if not self.is_differentiable:
                return call(x, *others), None
            first = lambda x: jax.tree.leaves(call(x, *others))[0]  # noqa: E731
            y, pull = jax.vjp(first, x)
            return call(x, *others), pull(jnp.ones_like(y))[0]

        return worked

    def module(self, library):
        """The same call as a module, with its options."""
        built = getattr(library, module_of(self.base))
        return built(**self.options)


def _mask(sizes, number):
    keep = np.random.default_rng(number).random((1, *sizes, 1)) < 0.7
    return (jnp.asarray(keep),)


def _samples(sizes, number):
    return (jnp.asarray([[[0.3, 0.6], [0.1, 0.9]]], jnp.float32) * (1 - number / 3),)


def _keys(sizes, number):
    return (jax.random.split(jax.random.key(number), 1),)


def _places(sizes, number):
    rng = np.random.default_rng(number)
    places = [rng.permutation(math.prod(SIZES))[:12].reshape(3, 4) for _ in range(2)]
    return (jnp.asarray(np.stack(places, -1)[None], jnp.int32),)


def _ids(sizes, number):
    ids = np.random.default_rng(number).integers(-1, 3, (1, sizes[0]))
    return (jnp.asarray(ids, jnp.int32),)


def _positions(sizes, number):
    places = np.random.default_rng(number).integers(-1, 8, (1, *sizes, 1))
    return (jnp.asarray(places, jnp.int32),)


def _windowed(sizes):
    return -(-sizes[0] // 2), sizes[1]


def _rows():
    plain = lambda function: lambda sizes: function  # noqa: E731

    def masked(function):
        return lambda sizes: lambda x, m, **kw: function(x, where=m, **kw)

    each = functools.partial(Row, options=WINDOW, out=_windowed)
    for kind in KINDS:
        name, function = f"{kind}_pool", getattr(jaxpool, f"{kind}_pool")
        is_max_like = kind in ("max", "min")
        yield each(name, plain(function), is_max_like=is_max_like)
        yield each(
            f"{name}, masked", masked(function), others=_mask, is_max_like=is_max_like
        )
        name, function = f"global_{name}", getattr(jaxpool, f"global_{kind}_pool")
        whole = functools.partial(Row, out=lambda sizes: (), is_max_like=is_max_like)
        yield whole(name, plain(function))
        yield whole(f"{name}, masked", masked(function), others=_mask)
    for kind in ("max", "min"):
        name = f"{kind}_pool_with_indices"
        function = getattr(jaxpool, name)
        yield each(name, plain(function))
        yield each(f"{name}, masked", masked(function), others=_mask)
        name = f"global_{name}"
        function = getattr(jaxpool, name)
        whole = functools.partial(Row, out=lambda sizes: ())
        yield whole(name, plain(function))
        yield whole(f"{name}, masked", masked(function), others=_mask)
    norm = each("lp_pool, p=inf", plain(jaxpool.lp_pool), is_max_like=True)
    yield dataclasses.replace(norm, options=WINDOW | {"p": math.inf})
    extended = each("avg_pool, reflected", plain(jaxpool.avg_pool))
    more = {"padding_mode": "reflect", "padding": ((1, 1), (0, 1))}
    yield dataclasses.replace(extended, options=WINDOW | more)
    long = {"window": (9, 9), "strides": (4, 9), "padding": (8, 7)}
    steps = Row("max_pool, in steps", plain(jaxpool.max_pool), is_max_like=True)
    yield dataclasses.replace(steps, options=long)

    def any_op(sizes):
        return lambda x, init, **kw: jaxpool.pool(x, init[0], jnp.add, **kw)

    zero = lambda sizes, number: (jnp.zeros(1),)  # noqa: E731
    yield each("pool", any_op, others=zero, has_module=False)
    softest = lambda x, **kw: jaxpool.aggregate(  # noqa: E731
        x, jaxpool.Softmax(), jaxpool.windows(**kw)
    )
    yield each("aggregate", plain(softest), has_module=False)
    for kind in ("softmax", "power_mean", "var", "std", "median"):
        name, function = f"{kind}_pool", getattr(jaxpool, f"{kind}_pool")
        yield each(name, plain(function))
        yield each(f"{name}, masked", masked(function), others=_mask)
        name, function = f"global_{name}", getattr(jaxpool, f"global_{kind}_pool")
        whole = functools.partial(Row, out=lambda sizes: ())
        yield whole(name, plain(function))
        yield whole(f"{name}, masked", masked(function), others=_mask)
    for kind in ("max", "min", "sum", "avg"):
        function = getattr(jaxpool, f"segment_{kind}_pool")
        yield Row(
            f"segment_{kind}_pool",
            lambda sizes, f=function: lambda x, ids: f(x, ids[0], 3, axis=1),
            out=lambda sizes: (3, sizes[1]),
            others=_ids,
            has_module=False,
            is_max_like=kind in ("max", "min"),
        )
    tiles = lambda x, places: jaxpool.pool_by_positions(x, places, 2, 4)  # noqa: E731
    yield Row(
        "pool_by_positions",
        lambda sizes: tiles,
        out=lambda sizes: (sizes[0], 4),
        others=_positions,
        has_module=False,
    )
    bins = {"output_shape": (4, 3)}
    for name in (
        "adaptive_max_pool",
        "adaptive_max_pool_with_indices",
        "adaptive_avg_pool",
        "adaptive_logsumexp_pool",
    ):
        function = plain(getattr(jaxpool, name))
        yield Row(name, function, options=bins, out=lambda sizes: (4, 3))
    draws = {"window": (2, 2), "output_shape": (3, 2)}
    steps = {"window": None, "output_shape": (3, 2), "overlapping": True}
    for name in (
        "fractional_max_pool",
        "fractional_max_pool_with_indices",
        "fractional_avg_pool",
    ):
        function = getattr(jaxpool, name)
        sampled = lambda sizes, f=function: lambda x, u, **kw: f(x, samples=u, **kw)  # noqa: E731
        keyed = lambda sizes, f=function: lambda x, k, **kw: f(x, key=k[0], **kw)  # noqa: E731
        drawn = functools.partial(Row, out=lambda sizes: (3, 2), options=draws)
        yield drawn(f"{name}, samples", sampled, others=_samples)
        yield drawn(f"{name}, key", keyed, others=_keys)
        for rule in ("pseudorandom", "random"):
            ruled = drawn(f"{name}, {rule}", keyed, others=_keys)
            yield dataclasses.replace(ruled, options=steps | {"rule": rule})
    yield Row(
        "max_unpool",
        lambda sizes: functools.partial(jaxpool.max_unpool, output_shape=sizes),
        lambda sizes: sizes,
        others=_places,
        options={},
        x=lambda sizes: (1, 3, 4, 2),
    )

    def converted(sizes):
        def function(x, places):
            return jaxpool.convert_indices(places, (1, *sizes, 2), "torch", "onnx")

        return function

    no_module = {"has_module": False, "is_differentiable": False}
    yield Row("convert_indices", converted, others=_places, **no_module)

    def shaped(sizes):
        return lambda x: jnp.zeros(jaxpool.output_shape(x.shape, **WINDOW), x.dtype)

    def named(sizes):
        def function(x):
            name = jaxpool.implementation_for("cpu", x.shape, **WINDOW)
            return jnp.full(1, ["slices", "doubling"].index(name), x.dtype)

        return function

    yield Row("output_shape", shaped, _windowed, **no_module)
    yield Row("implementation_for", named, **no_module)
    yield Row("halo_exchange", _exchanged, has_module=False)


def _exchanged(sizes):
    """The shards of rows, each with the cells that its windows need."""

    def function(x):
        mesh, spec = Mesh(jax.devices()[:DEVICES], ("rows",)), P(None, "rows")

        def exchanged(x):
            padded, inside = jaxpool.halo_exchange(
                x, (3,), 1, "SAME", axes=1, axis_names="rows"
            )
            return padded * inside.astype(padded.dtype)

        return jax.shard_map(exchanged, mesh=mesh, in_specs=spec, out_specs=spec)(x)

    return function


ROWS = {row.name: row for row in _rows()}


# Columns.


def same(got, want):
    """Compare each array of two results, exactly but for rounding."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype, (a.dtype, b.dtype)
        np.testing.assert_allclose(a, b, 1e-6, 1e-6)


@functools.cache
def plain(name, number=0):
    """The work of a row, of the arrays of a number, compiled as any program."""
    row = ROWS[name]
    return jax.jit(row.work())(*row.arrays(number))


def shard_map_split_others(row):
    """The data replicated; masks, indices, samples, keys split."""
    x, *_ = row.arrays()
    each = [row.arrays(number)[1:] for number in range(DEVICES)]
    others = [jnp.concatenate(parts) for parts in zip(*each, strict=True)]
    split = P("d") if others else P()
    mesh = Mesh(jax.devices()[:DEVICES], ("d",))
    specs = P(), *[P("d")] * len(others)
    mapped = jax.shard_map(row.call(), mesh=mesh, in_specs=specs, out_specs=split)
    _check_mapped(row, mapped, x, others, bool(others))


def shard_map_split_data(row):
    """The data split; masks, indices, samples, keys replicated."""
    x, *others = row.arrays()
    mesh = Mesh(jax.devices()[:DEVICES], ("d",))
    specs = P("d"), *[P()] * len(others)
    mapped = jax.shard_map(row.call(), mesh=mesh, in_specs=specs, out_specs=P("d"))
    both = jnp.concatenate([x, x])
    got = jax.jit(mapped)(both, *others)
    same(
        got, jax.tree.map(lambda a: jnp.concatenate([a] * DEVICES), plain(row.name)[0])
    )
    if row.is_differentiable:
        loss = lambda x: jax.tree.leaves(mapped(x, *others))[0].sum()  # noqa: E731
        want = plain(row.name)[1]
        same(jax.jit(jax.grad(loss))(both), jnp.concatenate([want, want]))


def _check_mapped(row, mapped, x, others, is_split):
    wants = [plain(row.name, number) for number in range(DEVICES if is_split else 1)]
    values = [value for value, _ in wants]
    got = jax.jit(mapped)(x, *others)
    same(got, jax.tree.map(lambda *parts: jnp.concatenate(parts), *values))
    if row.is_differentiable:
        loss = lambda x: jax.tree.leaves(mapped(x, *others))[0].sum()  # noqa: E731
        same(jax.jit(jax.grad(loss))(x), sum(gradient for _, gradient in wants))


def tabulated(row):
    """The modules describe themselves, alone and among others."""
    x, *others = row.arrays()
    is_drawn = row.others in (_samples, _keys)
    others = [] if is_drawn or row.others is _mask else others
    streams = {"rngs": flax_nnx.Rngs(pooling=0)} if is_drawn else {}
    built = _class_name(row)
    wide = {"console_kwargs": {"width": 300}}
    module = getattr(nnx, built)(**_unpooling(row), **streams)
    assert built in flax_nnx.tabulate(module, x, *others, **wide)
    if not others:
        assert built in flax_nnx.tabulate(flax_nnx.Sequential(module), x, **wide)
    module = getattr(linen, built)(**_unpooling(row))
    rngs = {"params": jax.random.key(0), "pooling": jax.random.key(1)}
    assert built in nn.tabulate(module, rngs, **wide)(x, *others)


def _class_name(row):
    """The name of the Flax module: `logsumexp_pool` is `LogSumExpPool`."""
    words = {"logsumexp": "LogSumExp"}
    return "".join(words.get(word, word.title()) for word in row.base.split("_"))


def _unpooling(row):
    return {"output_shape": SIZES} if row.base == "max_unpool" else row.options


def pickled(row):
    """A module that was pickled pools as before."""
    x, *others = row.arrays()
    built = _class_name(row)
    options = _unpooling(row)
    if row.others in (_samples, _keys):
        options, others = options | {"deterministic": True}, []
    names = {"where": others[0]} if row.others is _mask else {}
    others = [] if row.others is _mask else others
    for library in (linen, nnx):
        module = getattr(library, built)(**options)
        again = pickle.loads(pickle.dumps(module))
        if library is linen:
            module, again = (functools.partial(m.apply, {}) for m in (module, again))
        same(again(x, *others, **names), module(x, *others, **names))


def _structures(row, sizes):
    """The arrays of a call of these sizes, without their values."""

    grown = {_mask: (1, *sizes, 1), _positions: (1, *sizes, 1), _ids: (1, sizes[0])}

    def resized(array):
        shape = grown.get(row.others, array.shape)
        return jax.ShapeDtypeStruct(shape, array.dtype)

    _, *others = row.arrays()
    x = jax.ShapeDtypeStruct(row.x(sizes), jnp.float32)
    return (x, *map(resized, others))


def _check_shapes(row, sizes, result):
    value = jax.tree.leaves(result[0])[0]
    if row.out is not None:
        assert value.shape == (1, *row.out(sizes), 2)
    if row.is_differentiable:
        assert result[1].shape == row.x(sizes)


def long_axis(row):
    """16 million cells along one axis: a program of the size of any other."""
    sizes = (16_000_000, 4)
    arrays = _structures(row, sizes)
    _check_shapes(row, sizes, jax.eval_shape(row.work(sizes), *arrays))
    lowered = jax.jit(row.work(sizes)).lower(*arrays)
    assert len(lowered.as_text()) < 1_000_000


def huge(row):
    """More than 2**31 cells: pooled, or refused where int32 has to count them."""
    sizes = (46_400, 46_400)
    arrays = _structures(row, sizes)
    if "indices" in row.base or row.base == "max_unpool":
        with pytest.raises(ValueError, match=re.escape("2**31")):
            jax.eval_shape(row.work(sizes), *arrays)
        return
    _check_shapes(row, sizes, jax.eval_shape(row.work(sizes), *arrays))


def shapes_only(row):
    arrays = row.arrays()
    got = jax.eval_shape(row.work(), *arrays)
    want = plain(row.name)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), got) == jax.tree.map(
        lambda a: (a.shape, a.dtype), want
    )


def checked(errors, row):
    """No check finds anything, and the values are the same."""
    error, got = jax.jit(checkify.checkify(row.work(), errors))(*row.arrays())
    error.throw()
    same(got, plain(row.name))


def inside(context, row):
    """The call and its gradient, eager and compiled, while a context is active."""
    want, arrays = plain(row.name), row.arrays()
    with context():
        same(row.work()(*arrays), want)
        same(jax.jit(row.work())(*arrays), want)


def without_jit(row):
    want, arrays = plain(row.name), row.arrays()
    with jax.disable_jit():
        same(row.work()(*arrays), want)


def guarded(row):
    """What was called before moves nothing between host and device."""
    call, arrays = row.call(), row.arrays()
    want = call(*arrays)
    jitted = jax.jit(row.work())
    both = jitted(*arrays)
    with jax.transfer_guard("disallow"):
        got, again = call(*arrays), jitted(*arrays)
    same(got, want)
    same(again, both)


def with_x64(row):
    """Data of 32 bits as without, and of 64 bits."""
    want, arrays = plain(row.name), row.arrays()
    with jax.enable_x64(True):
        same(row.work()(*arrays), want)
        x, *others = arrays
        wide = jax.jit(row.work())(x.astype(jnp.float64), *others)
    for got, narrow in zip(jax.tree.leaves(wide), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(got, narrow, 1e-6, 1e-6)


def closed_over(row):
    """Arrays that are known while tracing: all of them, and all but the data."""
    want, (x, *others) = plain(row.name), row.arrays()
    same(jax.jit(lambda: row.work()(x, *others))(), want)
    same(jax.jit(lambda x: row.work()(x, *others))(x), want)
    host = [
        o if jnp.issubdtype(o.dtype, jax.dtypes.prng_key) else np.asarray(o)
        for o in others
    ]
    same(jax.jit(lambda x: row.work()(x, *host))(x), want)
    same(row.work()(np.asarray(x), *host), want)


def _both_modes(row):
    """Value, gradient and tangent, inside `forward_mode`."""
    x, *others = row.arrays()
    call = row.call()
    return lambda x: jax.tree.leaves(call(x, *others))[0], x


def checkpointed(row):
    """`jax.checkpoint` inside `forward_mode`."""
    first, x = _both_modes(row)
    kept = jax.checkpoint(first)
    with jaxpool.forward_mode():
        got = jax.jit(
            lambda x: (jax.jvp(kept, (x,), (x,)), jax.grad(lambda x: kept(x).sum())(x))
        )(x)
        want = jax.jvp(first, (x,), (x,)), jax.grad(lambda x: first(x).sum())(x)
    same(got, want)


def in_custom_jvp(row):
    """Inside a user's `jax.custom_jvp`, whose rule differentiates it."""
    first, x = _both_modes(row)

    @jax.custom_jvp
    def users(x):
        return 2 * first(x)

    @users.defjvp
    def rule(primals, tangents):
        y, t = jax.jvp(first, primals, tangents)
        return 2 * y, 2 * t

    with jaxpool.forward_mode():
        y, t = jax.jvp(first, (x,), (x,))
        same(jax.jvp(users, (x,), (x,)), (2 * y, 2 * t))
        want = jax.grad(lambda x: 2 * first(x).sum())(x)
        same(jax.grad(lambda x: users(x).sum())(x), want)
        same(jax.jit(users)(x), 2 * y)


def _promotion(context, value):
    return functools.partial(inside, functools.partial(context, value))


COLUMNS = {
    "shard_map, split masks": shard_map_split_others,
    "shard_map, split data": shard_map_split_data,
    "tabulate": tabulated,
    "pickle": pickled,
    "16 million cells": long_axis,
    "more than 2**31 cells": huge,
    "eval_shape": shapes_only,
    **{
        f"checkify, {name}": functools.partial(
            checked, getattr(checkify, f"{name}_checks")
        )
        for name in ("user", "nan", "div", "float", "index", "automatic", "all")
    },
    "debug_nans": functools.partial(inside, functools.partial(jax.debug_nans, True)),
    "debug_infs": functools.partial(inside, functools.partial(jax.debug_infs, True)),
    "disable_jit": without_jit,
    "transfer_guard": guarded,
    "checking_leaks": functools.partial(inside, jax.checking_leaks),
    "x64": with_x64,
    "strict promotion": _promotion(jax.numpy_dtype_promotion, "strict"),
    "rank promotion": _promotion(jax.numpy_rank_promotion, "raise"),
    "known arrays": closed_over,
    "checkpoint, forward_mode": checkpointed,
    "custom_jvp": in_custom_jvp,
}

IMPOSSIBLE = {
    (column, row.name): reason
    for columns, is_meant, reason in (
        (("tabulate", "pickle"), lambda row: not row.has_module, "it is no module"),
        (
            ("checkpoint, forward_mode", "custom_jvp"),
            lambda row: not row.is_differentiable,
            "its results are integers or shapes, without a derivative",
        ),
        (
            ("transfer_guard",),
            lambda row: row.name in ("output_shape", "implementation_for"),
            "it takes no array: the row's own zeros are moved",
        ),
        (
            ("shard_map, split masks", "shard_map, split data"),
            lambda row: row.name == "halo_exchange",
            "its row is a `shard_map` already",
        ),
        (
            ("transfer_guard",),
            lambda row: row.name == "halo_exchange",
            "shards of what lies on one device move to the others",
        ),
        (
            ("debug_infs",),
            lambda row: re.search("(logsumexp|softmax)_pool, masked", row.name),
            "a masked cell is kept for the gradient as -inf",
        ),
        (
            [f"checkify, {errors}" for errors in ("nan", "float", "automatic", "all")],
            lambda row: row.name == "halo_exchange",
            "jax 0.10 cannot join what it finds in the shards of a `shard_map`",
        ),
    )
    for column in columns
    for row in ROWS.values()
    if is_meant(row)
}
