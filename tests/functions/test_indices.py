"""Where winners are, back from there by unpooling, and other people's indices."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.aggregations import places
from jaxpool.engines.cells import cut, pad
from tests import oracle
from tests.cases import (
    NAMED_CASES,
    SPECIALS,
    distinct,
    every_extreme,
    mask,
    pooling,
    quick_jit,
    tied,
    value_and_grad,
    with_indices,
)


def winners(x, kind, where=None, axes=None, **geometry):
    """The oracle's flat index of each winner, -1 where there is none."""
    axes = oracle._pooled_axes(x.ndim, geometry["window"], axes)
    out, table = oracle.windows(x.shape, axes=axes, **geometry)
    cells = np.moveaxis(x, axes, range(-len(axes), 0))
    valid = np.ones(x.shape, bool) if where is None else np.broadcast_to(where, x.shape)
    valid = np.moveaxis(valid, axes, range(-len(axes), 0))
    batch, sizes = cells.shape[: -len(axes)], cells.shape[-len(axes) :]
    index = np.full(batch + out, -1)
    for b in np.ndindex(*batch):
        for o, (inside, _) in table.items():
            kept = [i for i in inside if valid[b + i]]
            if kept:
                v = np.array([cells[b + i] for i in kept])
                first = v.argmax() if kind == "max" else v.argmin()
                index[b + o] = np.ravel_multi_index(kept[first], sizes)
    return np.moveaxis(index, range(-len(axes), 0), axes)


@pytest.mark.share(10)
@pytest.mark.parametrize("case", NAMED_CASES)
def test_named_geometries_with_ties_and_nan(case):
    """By steps, and by XLA's own windows."""
    x = tied(case.shape, specials=(np.nan, -np.inf))
    pooled = with_indices("max", **case.kwargs())
    native = with_indices("max", implementation="reduce_window", **case.kwargs())
    (values, indices), (_, found) = quick_jit(lambda x: (pooled(x), native(x)))(x)
    np.testing.assert_array_equal(found, indices)
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(indices, winners(x, "max", **case.kwargs()))
    np.testing.assert_array_equal(values, oracle.pool(x, "max", **case.kwargs()))


@pytest.mark.share(10)
@every_extreme
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("masked", [False, True])
def test_cells_are_combined_in_any_order(monkeypatch, kind, seed, masked):
    """By a tree of the device's own, with what it begins with here and there."""
    rng = np.random.default_rng(seed)
    geometry = {"window": (5,), "strides": (2,), "padding": 3}

    def shuffled(arrays, fills, combine, window):
        (dim,) = window.dims
        around = {1: (dim.low, dim.behind)}
        cells = [
            tuple(
                cut(pad(array, fill, around), {1: (start, dim.out, dim.stride)})
                for array, fill in zip(arrays, fills, strict=True)
            )
            for start in range(dim.window)
        ]
        cells += [tuple(map(jnp.full_like, cells[0], fills))] * 3
        while len(cells) > 1:
            one, other, *cells = [cells[i] for i in rng.permutation(len(cells))]
            cells.append(combine(one, other))
        return cells[0]

    monkeypatch.setattr(places, "reduce_windows", shuffled)
    worst = -np.inf if kind == "max" else np.inf
    x = tied((1, 140 + seed, 2), seed, specials=(np.nan, worst, worst, worst))
    where = mask(x.shape, seed) if masked else None
    pooled = with_indices(kind, implementation="reduce_window", where=where, **geometry)
    np.testing.assert_array_equal(pooled(x)[1], winners(x, kind, where, **geometry))


def test_windows_that_reach_too_far_for_places():
    """Beyond 2**30 cells, in an input of so many or in its padding."""
    x = jax.ShapeDtypeStruct((1, 40_000, 40_000, 1), jnp.bfloat16)
    _, indices = jax.eval_shape(jaxpool.global_max_pool_with_indices, x)
    assert indices.shape == (1, 1)
    wide = {"window": (1025,) * 3, "padding": [(1024, 0)] * 3, "axes": (0, 1, 2)}
    pooled = with_indices("max", implementation="reduce_window", **wide)
    np.testing.assert_array_equal(pooled(np.ones((1, 1, 1), np.float32))[1], 0)


@pytest.mark.share(10)
@every_extreme
@pytest.mark.parametrize("implementation", ["reduce_window", "slices", "doubling"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_where_nothing_beats_the_padding(kind, implementation, dilation):
    """The first cell of the window, at each border and in rows of any length."""
    x = np.full((1, 6, 140, 1), -np.inf if kind == "max" else np.inf, np.float32)
    geometry = {"window": (3, 3), "strides": (2, 1), "padding": 1, "dilation": dilation}
    _, indices = with_indices(kind, implementation=implementation, **geometry)(x)
    np.testing.assert_array_equal(indices, winners(x, kind, **geometry))


@every_extreme
@pytest.mark.parametrize("implementation", ["reduce_window", "slices", "doubling"])
def test_where_nothing_beats_the_padding_of_windows_beyond_16_bits(
    kind, implementation
):
    """Runs of padding alone have no position, which int32 must not wrap."""
    x = np.full((400, 380), -np.inf if kind == "max" else np.inf, np.float32)
    geometry = {"window": 300, "strides": (50, 40), "padding": [(299, 9), (200, 20)]}
    pooled = with_indices(kind, implementation=implementation, axes=(0, 1), **geometry)
    _, indices = pooled(x)
    rows, columns = (np.arange(n) for n in indices.shape)
    first = np.maximum(rows * 50 - 299, 0)[:, None] * 380
    np.testing.assert_array_equal(indices, first + np.maximum(columns * 40 - 200, 0))


@pytest.mark.share(10)
@every_extreme
@pytest.mark.parametrize("implementation", ["reduce_window", "slices", "doubling"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "uint8"])
def test_lowerings_and_dtypes_with_a_mask(kind, implementation, dtype):
    geometry = {"window": (3, 4), "strides": (2, 1), "padding": ((1, 1), (2, 0))}
    x, where = np.abs(tied((2, 7, 9, 2))).astype(dtype), mask((1, 7, 9, 1), keep=0.2)
    pooled = with_indices(kind, **geometry, where=where, implementation=implementation)
    values, indices = jax.jit(pooled)(x)
    assert values.dtype == x.dtype
    want = winners(x.astype(np.float32), kind, where, **geometry)
    np.testing.assert_array_equal(indices, want)
    assert (np.asarray(indices) == -1).any()


@pytest.mark.share(10)
@every_extreme
def test_global_indices(kind):
    x, where = tied((3, 5, 4, 2), specials=(np.nan,)), mask((3, 5, 4, 2), keep=0.1)
    where[1] = False
    pooled = getattr(jaxpool, f"global_{kind}_pool_with_indices")
    values, indices = pooled(x, where=where, empty_value=7)
    want = winners(x, kind, where, window=(5, 4)).squeeze((1, 2))
    np.testing.assert_array_equal(indices, want)
    np.testing.assert_array_equal(values[1], np.full(2, 7))
    assert (indices[1] == -1).all()
    kept = pooled(x, keepdims=True)
    assert [part.shape for part in kept] == [(3, 1, 1, 2)] * 2
    flat = np.take_along_axis(x.reshape(3, 20, 2), np.asarray(kept[1])[:, 0], 1)
    np.testing.assert_array_equal(kept[0][:, 0], flat)


@pytest.mark.share(10)
@every_extreme
def test_the_gradient_goes_to_the_index(kind):
    x = tied((2, 9, 8, 3), specials=SPECIALS)
    pooled = with_indices(kind, window=(3, 3), strides=2, padding="SAME")
    indices = np.asarray(pooled(x)[1]).reshape(2, -1, 3)
    g = distinct((2, 5, 4, 3))
    want = np.zeros((2, 72, 3), np.float32)
    for b, o, c in np.ndindex(*indices.shape):
        want[b, indices[b, o, c], c] += g.reshape(2, -1, 3)[b, o, c]
    (_, indices), dx = value_and_grad(pooled, x, g)
    np.testing.assert_array_equal(dx, want.reshape(x.shape))
    plain = pooling(kind, window=(3, 3), strides=2, padding="SAME")
    np.testing.assert_array_equal(dx, value_and_grad(plain, x, g)[1])
    (tangent, _) = jax.jvp(pooled, (x,), (g_like(x),))[1]
    np.testing.assert_array_equal(
        tangent.reshape(2, -1, 3),
        np.take_along_axis(
            g_like(x).reshape(2, -1, 3), np.asarray(indices).reshape(2, -1, 3), 1
        ),
    )


def g_like(x):
    return distinct(x.shape)[::-1]


def test_under_vmap():
    x = tied((4, 2, 6, 6, 1))
    pooled = with_indices("max", window=(2, 2))
    for got, want in zip(
        jax.vmap(pooled, 3, 3)(np.moveaxis(x, 0, 3)), pooled(x), strict=True
    ):
        np.testing.assert_array_equal(np.moveaxis(got, 3, 0), want)


def test_more_cells_than_int32_counts_are_refused():
    x = jax.ShapeDtypeStruct((1, 2**16, 2**15, 1), np.int8)
    pooled = with_indices("max", window=(2, 2))
    with pytest.raises(ValueError, match=r"at most 2\*\*31.*x\.shape=\(1, 65536"):
        jax.eval_shape(pooled, x)


# --- unpooling ---


@pytest.mark.share(10)
@pytest.mark.parametrize(
    "geometry",
    [
        {"window": (2, 2)},
        {"window": (3, 2), "strides": (3, 2), "padding": "SAME"},
        {"window": (2, 2), "padding": 1},
        {"window": (3, 3), "strides": 3, "ceil_mode": True},
        {"window": (2, 3), "dilation": 2, "strides": 5},
    ],
)
def test_unpooling_puts_each_maximum_back(geometry):
    x = distinct((2, 7, 8, 3))
    values, indices = jaxpool.max_pool_with_indices(x, **geometry)
    y = jax.jit(lambda v, i: jaxpool.max_unpool(v, i, (7, 8)))(values, indices)
    is_winner = np.asarray(oracle.grad(x, None, "max", **geometry)) > 0
    np.testing.assert_array_equal(y, np.where(is_winner, x, 0))


def test_unpooling_an_empty_batch_or_no_channels():
    for shape in ((0, 3, 2), (2, 3, 0)):
        values, indices = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        y, pull = jax.vjp(lambda v: jaxpool.max_unpool(v, indices, (6,)), values)  # noqa: B023
        assert y.shape == (shape[0], 6, shape[2])
        assert pull(y)[0].shape == shape


def test_unpooling_on_other_axes():
    x = distinct((2, 3, 6, 4))
    values, indices = jaxpool.max_pool_with_indices(x, 2, axes=(-2, -1))
    y = jaxpool.max_unpool(values, indices, (6, 4), axes=(-2, -1))
    flipped = jaxpool.max_unpool(values, indices, (4, 6), axes=(-1, -2))
    assert y.shape == x.shape
    np.testing.assert_array_equal(y, flipped)
    np.testing.assert_array_equal(y[y != 0], x[np.asarray(y) != 0])


def test_the_last_of_several_values_wins_and_alone_has_a_gradient():
    values, indices = jnp.asarray([5.0, 6.0, 7.0, 8.0]), jnp.asarray([1, 1, 0, -1])
    unpool = functools.partial(jaxpool.max_unpool, output_shape=3, axes=0)
    np.testing.assert_array_equal(unpool(values, indices), [7, 6, 0])
    _, pull = jax.vjp(lambda v: unpool(v, indices), values)
    np.testing.assert_array_equal(pull(jnp.asarray([1.0, 2.0, 3.0]))[0], [0, 2, 1, 0])
    tangent = jax.jvp(lambda v: unpool(v, indices), (values,), (values**2,))[1]
    np.testing.assert_array_equal(tangent, [49, 36, 0])


def test_unpooling_under_vmap_over_values_indices_or_both():
    values, indices = (
        distinct((4, 3, 2)),
        np.random.default_rng(0).integers(-1, 6, (4, 3, 2)),
    )
    unpool = functools.partial(jaxpool.max_unpool, output_shape=(6,))
    want = np.stack([unpool(v, i) for v, i in zip(values, indices, strict=True)])
    np.testing.assert_array_equal(jax.vmap(unpool)(values, indices), want)
    same = jax.vmap(unpool, (0, None))(values, indices[0])
    np.testing.assert_array_equal(same, unpool(values, np.stack([indices[0]] * 4)))
    grads = jax.vmap(jax.grad(lambda v, i: unpool(v, i).sum()))(values, indices)
    held = np.stack(
        [unpool(np.ones_like(v), i).sum() for v, i in zip(values, indices, strict=True)]
    )
    assert ((np.asarray(grads) != 0).sum((1, 2)) == held).all()


def test_an_index_out_of_range_is_refused_or_dropped():
    values = jnp.asarray([1.0, 2.0, 3.0])
    for bad in (4, -2):
        indices = jnp.asarray([0, bad, 1])
        with pytest.raises(ValueError, match=r"indices must be -1 or from 0 to 3.*x?"):
            jaxpool.max_unpool(values, indices, 4, axes=0)
        dropped = jax.jit(lambda v, i: jaxpool.max_unpool(v, i, 4, axes=0))
        np.testing.assert_array_equal(dropped(values, indices), [1, 3, 0, 0])


@pytest.mark.share(10)
@pytest.mark.parametrize("dtype", ["int32", "bfloat16", "complex64"])
def test_unpooling_keeps_the_dtype(dtype):
    values = jnp.arange(3).astype(dtype) + 1
    y = jaxpool.max_unpool(values, jnp.asarray([2, 0, 3]), 4, axes=0)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(jnp.complex64), [2, 0, 1, 3])


@pytest.mark.share(10)
@pytest.mark.parametrize(
    ("values", "indices", "output_shape", "axes", "error", "words"),
    [
        (
            np.ones((2, 2)),
            np.zeros((2, 2), int),
            (2, 2, 2),
            None,
            ValueError,
            "output_",
        ),
        (np.ones((2, 2)), np.zeros((2, 2), int), 4, None, ValueError, "output_shape"),
        (np.ones((2, 2)), np.zeros((2, 2), int), (0,), None, ValueError, "at least 1"),
        (
            np.ones((2, 2)),
            np.zeros((2, 1), int),
            (4,),
            None,
            ValueError,
            "the shape of",
        ),
        (np.ones((2, 2)), np.zeros((2, 2)), (4,), None, TypeError, "be integers"),
        ([1.0], np.zeros(1, int), 4, 0, TypeError, "values must be an array"),
        (np.ones(1), np.array([2**31]), 4, 0, ValueError, "-1 or from 0 to 3"),
    ],
)
def test_what_unpooling_refuses(values, indices, output_shape, axes, error, words):
    with pytest.raises(error, match=words):
        jaxpool.max_unpool(values, indices, output_shape, axes=axes)


# --- other conventions ---


def test_conventions_of_others_by_their_own_formulas():
    n, h, w, c = 2, 5, 4, 3
    x = distinct((n, h, w, c))
    indices = jaxpool.max_pool_with_indices(x, (2, 2))[1]
    b, _, _, channel = np.ogrid[:n, :2, :2, :c]
    row, column = np.divmod(np.asarray(indices), w)
    tf = (row * w + column) * c + channel
    onnx = ((b * c + channel) * h + row) * w + column
    by_columns = (b * c + channel) * h * w + column * h + row
    wanted = {"tf": tf, "tf_with_batch": tf + b * h * w * c}
    convert = functools.partial(jaxpool.convert_indices, source="jaxpool")
    for name, want in wanted.items():
        got = convert(indices, x.shape, target=name)
        np.testing.assert_array_equal(got, want)
        back = jaxpool.convert_indices(got, x.shape, name, "torch")
        np.testing.assert_array_equal(back, indices)
    first = np.moveaxis(np.asarray(indices), -1, 1)
    nchw = {"shape": (n, c, h, w), "axes": (2, 3)}
    for name, want in {"onnx": onnx, "onnx_column_major": by_columns}.items():
        got = convert(first, target=name, **nchw)
        np.testing.assert_array_equal(got, np.moveaxis(want, -1, 1))
        back = jaxpool.convert_indices(got, source=name, target="jaxpool", **nchw)
        np.testing.assert_array_equal(back, first)


def test_indices_of_no_cell_stay_and_others_convert_under_jit():
    indices = jnp.asarray([[[-1], [3]]])
    convert = jax.jit(lambda i: jaxpool.convert_indices(i, (1, 4, 1), "torch", "tf"))
    np.testing.assert_array_equal(convert(indices), indices)


@pytest.mark.share(10)
@pytest.mark.parametrize(
    ("shape", "source", "words"),
    [
        ((1, 4, 4, 1), "pytorch", "source must be one of"),
        ((1, 4, 4, 2), "tf", "indices must have the shape of x except on"),
        ((1, 4, 4), "tf", "indices must have the shape of x except on"),
        ((1, 2**16, 2**16, 1), "tf", r"at most 2\*\*31 - 1"),
    ],
)
def test_what_the_converter_refuses(shape, source, words):
    with pytest.raises(ValueError, match=words):
        jaxpool.convert_indices(np.zeros((1, 2, 2, 1), int), shape, source, "torch")


CONVENTIONS = ("jaxpool", "torch", "tf", "tf_with_batch", "onnx", "onnx_column_major")


def counted(shape, pooled, convention):
    """The index of every cell of an array, by a convention."""
    every = list(range(len(shape)))
    others = [axis for axis in every if axis not in pooled]
    order = {
        "tf": every[1:],
        "tf_with_batch": every,
        "onnx": every,
        "onnx_column_major": others + sorted(pooled, reverse=True),
    }.get(convention, sorted(pooled))
    cells = np.indices(shape)
    return np.ravel_multi_index([cells[a] for a in order], [shape[a] for a in order])


@pytest.mark.share(10)
@pytest.mark.parametrize(
    ("shape", "pooled"),
    [
        ((1, 1, 1, 4), (2, 3)),  # A3: [[[[2]]]] of ONNX was 8
        ((1, 1, 4, 1), (2, 3)),
        ((2, 3, 1, 4), (2, 3)),
        ((2, 1, 4, 1, 1), (2, 3, 4)),
        ((1, 3, 1, 2), (1, 2)),
        ((1, 1, 1), (1,)),
        ((3, 2, 1), (2, 0)),
    ],
)
def test_a3_axes_of_size_1(shape, pooled):
    """Every cell, by every convention, into every other one."""
    counts = {name: counted(shape, pooled, name) for name in CONVENTIONS}
    for (source, old), (target, new) in itertools.product(counts.items(), repeat=2):
        if source == "tf" and 0 in pooled:  # it says nothing of the first axis
            with pytest.raises(ValueError, match="source must not be"):
                jaxpool.convert_indices(old, shape, source, target, axes=pooled)
            continue
        got = jaxpool.convert_indices(old, shape, source, target, axes=pooled)
        np.testing.assert_array_equal(got, new, f"{source} to {target}")
