"""What arguments may be: arrays of every origin, sizes, scalars; known or traced."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxpool
from tests import every

X = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
ROW = np.arange(8, dtype=np.float32)
VALUES = np.float32([1, 2])
INDICES = jnp.asarray([0, 3])
STATIC = "not a traced value: mark it static"


def unpooled(values, indices):
    return jaxpool.max_unpool(values, indices, 4, axes=0)


def mapped(function):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    return jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P())


SCOPES = {
    "jit": jax.jit,
    "vmap": lambda f: lambda v: jax.vmap(f)(v[None])[0],
    "grad": lambda f: lambda v: jax.vjp(f, v)[0],
    "scan": lambda f: lambda v: jax.lax.scan(lambda c, v: (c, f(v)), 0, v[None])[1][0],
    "cond": lambda f: jax.jit(
        lambda v: jax.lax.cond(v[0] > 0, f, lambda v: f(2 * v), v)
    ),
    "checkpoint": lambda f: jax.jit(jax.checkpoint(f)),
    "shard_map": lambda f: jax.jit(mapped(f)),
}


@pytest.mark.parametrize("known", [INDICES, np.asarray(INDICES)], ids=["jax", "numpy"])
@pytest.mark.parametrize("scope", SCOPES)
def test_A2_known_indices_inside_transformations(scope, known):
    got = SCOPES[scope](lambda v: unpooled(v, known))(jnp.asarray(VALUES))
    np.testing.assert_array_equal(got, [1, 0, 0, 2])
    wrong = known + 1
    with pytest.raises(ValueError, match="indices must be -1 or from 0 to 3"):
        SCOPES[scope](lambda v: unpooled(v, wrong))(jnp.asarray(VALUES))


def test_A2_known_indices_and_samples_of_other_functions_inside_jit():
    known = jnp.asarray([[[2]]])
    convert = lambda i: jaxpool.convert_indices(i, (1, 4, 1), "torch", "onnx")  # noqa: E731
    assert jax.jit(lambda: convert(known))() == 2
    wrong = known + 2
    with pytest.raises(ValueError, match="indices must"):
        jax.jit(lambda: convert(wrong))()
    half = jnp.asarray([0.5])
    pool = lambda x, u: jaxpool.fractional_max_pool(x, 2, 4, samples=u, axes=0)  # noqa: E731
    want = pool(ROW, half)
    np.testing.assert_array_equal(jax.jit(lambda x: pool(x, half))(ROW), want)
    for wrong in (half + 0.5, half - 1, half * jnp.nan):
        with pytest.raises(ValueError, match="samples must be at least 0"):
            jax.jit(lambda x, wrong=wrong: pool(x, wrong))(ROW)


WIDE = (
    np.array([0, -(2**32) + 1]),
    np.array([0, 2**32 + 3]),
    np.uint32([0, 2**32 - 1]),
)


@pytest.mark.parametrize("indices", WIDE)
def test_D4_indices_are_checked_before_they_are_narrowed(indices):
    with pytest.raises(
        ValueError, match=f"indices must.*{indices.min()} to {indices.max()}"
    ):
        unpooled(VALUES, indices)
    with pytest.raises(ValueError, match="indices must"):
        jaxpool.convert_indices(indices[:, None, None], (2, 4, 1), "torch", "tf")


@pytest.mark.parametrize("wrong", [2**32 + 3, -(2**32) + 1, 4, -2])
def test_D4_with_x64(wrong):
    with jax.enable_x64(True):
        indices = jnp.asarray([0, wrong])
        assert indices.dtype == np.int64
        with pytest.raises(ValueError, match="indices must"):
            unpooled(VALUES, indices)
        with pytest.raises(ValueError, match="indices must"):
            jaxpool.convert_indices(indices[:, None, None], (2, 4, 1), "torch", "tf")
        # Nobody knows them under jit: they name no cell.
        np.testing.assert_array_equal(jax.jit(unpooled)(VALUES, indices), [1, 0, 0, 0])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64])
def test_D4_integers_of_every_width_name_cells(dtype):
    np.testing.assert_array_equal(
        unpooled(VALUES, np.array([0, 3], dtype)), [1, 0, 0, 2]
    )
    large = jnp.zeros(1000).at[100].set(2)
    got = jaxpool.max_unpool(np.float32([2]), np.array([100], dtype), 1000, axes=0)
    np.testing.assert_array_equal(got, large)


@pytest.mark.parametrize("dtype", [ml_dtypes.int2, ml_dtypes.int4, ml_dtypes.uint4])
def test_D4_short_integers_of_numpy_name_cells(dtype):
    got = jaxpool.segment_sum_pool(np.float32([1, 2]), np.array([1, 0], dtype), 2)
    np.testing.assert_array_equal(got, [2, 1])


def test_D4_arrays_of_64_bits_outside_of_x64():
    """jax would wrap these integers, and keep these floats."""
    with jax.enable_x64(True):
        wrong = jnp.asarray([0, 2**33])
        right, x = jnp.asarray([0, 3]), jnp.asarray([1.0, 2.0, 3.0, 5.0])
    np.testing.assert_array_equal(unpooled(VALUES, right), [1, 0, 0, 2])
    for call in (
        lambda: unpooled(VALUES, wrong),
        lambda: jaxpool.segment_sum_pool(np.ones(2, np.float32), wrong, 3),
        lambda: jaxpool.max_pool(wrong, 2, axes=0),
    ):
        with pytest.raises(ValueError, match="8589934592"):
            call()
    for name in ("max", "avg", "sum", "lp", "softmax", "median", "var"):
        pool = functools.partial(getattr(jaxpool, f"{name}_pool"), window=2, axes=0)
        got = pool(x)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, pool(np.asarray(x, np.float32)))
        np.testing.assert_array_equal(jax.jit(pool)(x), got)


def test_traced_lengths_in_a_list():
    def pooled(length):
        over = jaxpool.segments.from_lengths([length, length], axis=0)
        return jaxpool.aggregate(jnp.arange(4.0), "sum", over)

    np.testing.assert_array_equal(jax.jit(pooled)(2), [1, 5])


@pytest.mark.parametrize("name", ["max_pool", "sum_pool", "avg_pool"])
def test_D4_integers_of_x_that_jax_would_wrap(name):
    x = np.array([2**32 + 1, 0])
    with pytest.raises(ValueError, match=r"x must fit in int32.*jax_enable_x64"):
        getattr(jaxpool, name)(x, 1, axes=0)
    with jax.enable_x64(True):
        assert getattr(jaxpool, name)(x, 1, axes=0)[0] == 2**32 + 1


CONVENTIONS = ("jaxpool", "torch", "tf", "tf_with_batch", "onnx", "onnx_column_major")
UNIT_SHAPES = [
    ((1, 1, 1, 4), (2, 3)),
    ((1, 1, 4, 1), (2, 3)),
    ((1, 4, 1, 3), (1, 2)),
    ((1, 1, 4, 3), (1, 2)),
    ((2, 1, 3, 1), (1, 2)),
    ((3, 1, 4, 1), (1, 2)),
    ((2, 1, 1, 1, 3), (2, 3, 4)),
    ((1, 1, 1, 1), (1, 2)),
    ((1, 2, 3, 1), (1, 2)),
]


def cell_number(cell, shape, axes, convention):
    """The number that a convention gives a cell, counted by NumPy."""
    every_axis = range(len(shape))
    others = [axis for axis in every_axis if axis not in axes]
    order = {
        "tf": [*every_axis][1:],
        "tf_with_batch": [*every_axis],
        "onnx": [*every_axis],
        "onnx_column_major": [*others, *sorted(axes)[::-1]],
    }.get(convention, sorted(axes))
    return np.ravel_multi_index([cell[a] for a in order], [shape[a] for a in order])


@pytest.mark.parametrize(("shape", "axes"), UNIT_SHAPES)
def test_A3_conversion_with_axes_of_size_1(shape, axes):
    """Each cell in turn is the one of its batch and channel, there and back."""
    cells = list(np.ndindex(*shape))
    numbers = {
        name: np.array([cell_number(c, shape, axes, name) for c in cells])
        for name in CONVENTIONS
    }
    # Indices of a pool of windows of one cell: one for each cell of the input.
    indices = {name: n.reshape(shape).astype(np.int32) for name, n in numbers.items()}
    for source, target in itertools.product(CONVENTIONS, repeat=2):
        got = jaxpool.convert_indices(indices[source], shape, source, target, axes=axes)
        np.testing.assert_array_equal(got, indices[target], f"{source} to {target}")


def test_A3_the_case():
    index = jnp.asarray([[[[2]]]])
    source, target = "onnx_column_major", "torch"
    got = jaxpool.convert_indices(index, (1, 1, 1, 4), source, target, axes=(2, 3))
    assert got == 2


MASKED = [name for name in every.functions() if name.endswith("-where")]


@pytest.mark.parametrize("shape", [(2, 6), (6, 5, 3), (2, 6, 5), (6, 5, 1), (3,), (1,)])
@pytest.mark.parametrize("name", MASKED)
def test_A4_a_mask_has_the_rank_of_x(name, shape):
    call, a = every.functions()[name], every.arrays()
    with pytest.raises(
        ValueError, match=r"where must have the rank of x.*where\[\.\.\., None\]"
    ):
        call(a | {"where": jnp.ones(shape, bool)})
    with pytest.raises(ValueError, match=r"where must have the rank of x"):
        call(a | {"where": jnp.ones((1, *a["x"].shape), bool)})


def test_A4_the_case_and_scalars():
    x = np.ones((1, 16, 16), np.float32)
    with pytest.raises(ValueError, match=r"where\[\.\.\., None\]"):
        jaxpool.global_avg_pool(x, where=np.ones((1, 16), bool))
    for true in (True, np.True_, np.array(True), jnp.asarray(True)):
        np.testing.assert_array_equal(
            jaxpool.global_sum_pool(x, where=true), 16 * x[:, 0]
        )
    assert jaxpool.global_sum_pool(x, where=False, empty_value=3).max() == 3


INITS = {
    "float for int": (np.int32, 0.5),
    "exact float for int": (np.int32, 0.0),
    "inf for int": (np.int32, -math.inf),
    "complex for int": (np.int32, 0j),
    "complex for float": (np.float32, 0j),
    "complex array for float": (np.float32, jnp.zeros((), np.complex64)),
    "float array for int": (np.int32, jnp.zeros(())),
    "NumPy float for int": (np.int8, np.float32(0)),
    "bool for int": (np.int32, True),
    "bool for float": (np.float32, np.False_),
    "bool array for float": (np.float32, jnp.asarray(False)),
    "int for bool": (np.bool_, 0),
    "float for bool": (np.bool_, 1.0),
    "string": (np.float32, "0"),
    "None": (np.float32, None),
    "list": (np.float32, [0.0]),
    "tuple": (np.float32, (0.0,)),
    "dict": (np.float32, {"a": 0.0}),
    "date": (np.int32, np.timedelta64(0, "s")),
}


@pytest.mark.parametrize("name", INITS)
def test_A7_init_is_not_cast_in_silence(name):
    dtype, init = INITS[name]
    with pytest.raises(TypeError, match=r"init must (be a number|have a dtype)"):
        jaxpool.pool(np.ones(4, dtype), init, jnp.maximum, 2, axes=0)


@pytest.mark.parametrize(
    ("dtype", "init"),
    [(np.int8, 300), (np.uint8, -1), (np.int32, 2**40), (np.float16, 1e6)],
)
def test_A7_init_that_the_dtype_does_not_hold(dtype, init):
    with pytest.raises(ValueError, match="init must be"):
        jaxpool.pool(np.ones(4, dtype), init, jnp.maximum, 2, axes=0)
    with pytest.raises(ValueError, match="init must be a scalar"):
        jaxpool.pool(np.ones(4, dtype), np.zeros(1, dtype), jnp.maximum, 2, axes=0)


@pytest.mark.parametrize(
    ("dtype", "init"),
    [
        (np.float32, 0),
        (np.float32, np.float64(0)),
        (np.float32, jnp.zeros((), np.int32)),
        (jnp.bfloat16, jnp.zeros((), np.float32)),
        (np.float32, math.nan),
        (np.float16, -math.inf),
        (np.complex64, 0.0),
        (np.int8, np.int64(0)),
        (np.bool_, np.False_),
    ],
)
def test_A7_init_of_a_kind_that_the_dtype_has(dtype, init):
    got = jaxpool.pool(
        jnp.asarray([1, 0, 1, 1], dtype), init, lambda a, b: a, 2, axes=0
    )
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.astype(np.complex64), [1, 1])


def scalars_refused():
    number = {"empty_value": jaxpool.max_pool, "divisor": jaxpool.avg_pool}
    number["p"] = jaxpool.lp_pool
    for name, pool in number.items():
        for value in (
            True,
            np.True_,
            jnp.asarray(True),
            "1",
            b"1",
            bytearray(b"1"),
            1j,
        ):
            yield name, pool, value
        for value in ([1.0], np.timedelta64(1, "s"), object()):
            yield name, pool, value
        if name != "p":
            yield from ((name, pool, ones) for ones in (np.ones(1), jnp.ones(1)))


@pytest.mark.parametrize(("name", "pool", "value"), list(scalars_refused()))
def test_A7_other_scalars_are_real_numbers(name, pool, value):
    with pytest.raises(TypeError, match=f"{name} must be a real number"):
        pool(ROW, 2, axes=0, **{name: value})


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), jnp.float32(2), np.array(2)])
def test_A7_numbers_of_every_library(value):
    x = np.array([3.0, 4.0], np.float32)
    assert jaxpool.lp_pool(x, 2, axes=0, p=value) == 5
    assert jaxpool.avg_pool(x, 2, axes=0, divisor=value) == 3.5


@pytest.mark.parametrize("divisor", [0, 1e39, 1e-40, math.nan, math.inf])
def test_A7_a_divisor_that_the_dtype_does_not_hold(divisor):
    with pytest.raises(
        ValueError, match="divisor must be a finite number other than 0"
    ):
        jaxpool.avg_pool(ROW, 2, axes=0, divisor=divisor)


# Made anew for each call, as some are used up by it.
NO_SEQUENCES = {
    "set": lambda: {2, 3},
    "frozenset": lambda: frozenset({2}),
    "generator": lambda: (2 for _ in range(2)),
    "iterator": lambda: iter((2, 2)),
    "map": lambda: map(int, (2, 2)),
    "zip": lambda: zip((1, 1), (1, 1), strict=True),
    "dict": lambda: {2: 2, 3: 3},
    "keys": lambda: {2: 2, 3: 3}.keys(),
    "values": lambda: {2: 2, 3: 3}.values(),
    "string": lambda: "22",
    "bytes": lambda: b"\2\2",
    "bytearray": lambda: bytearray(b"\2\2"),
    "memoryview": lambda: memoryview(b"\2\2"),
    "floats": lambda: np.array([2.0, 2.0]),
    "bools": lambda: np.array([True, True]),
    "times": lambda: np.array([2, 2], "m8[ns]"),
    "matrix": lambda: np.array([[[2, 2]]]),
}
UNPOOL = (jaxpool.max_unpool, (VALUES, INDICES))
SIZES = {
    "window": (jaxpool.max_pool, (X,), {}),
    "strides": (jaxpool.max_pool, (X, (2, 2)), {}),
    "padding": (jaxpool.max_pool, (X, (3, 3)), {}),
    "dilation": (jaxpool.max_pool, (X, (2, 2)), {}),
    "axes": (jaxpool.max_pool, (X, 2), {}),
    "output_shape": (jaxpool.adaptive_max_pool, (X,), {}),
    "global axes": (jaxpool.global_max_pool, (X,), {}),
    "unpool output_shape": (*UNPOOL, {}),
    "drawn output_shape": (
        jaxpool.fractional_max_pool,
        (X, 2),
        {"key": jax.random.key(0)},
    ),
    "drawn window": (
        jaxpool.fractional_max_pool,
        (X,),
        {"key": jax.random.key(0), "output_shape": (2, 2)},
    ),
    "shape": (jaxpool.output_shape, (), {"window": (2,)}),
    "converted shape": (
        jaxpool.convert_indices,
        (INDICES,),
        {"source": "tf", "target": "torch"},
    ),
    "implementation shape": (jaxpool.implementation_for, ("cpu",), {"window": (2,)}),
    "module window": (jaxpool.nnx.MaxPool, (), {}),
    "module padding": (jaxpool.linen.MaxPool, ((3, 3),), {}),
    "module output_shape": (jaxpool.nnx.AdaptiveAvgPool, (), {}),
    "unpool module output_shape": (jaxpool.linen.MaxUnpool, (), {}),
}


@pytest.mark.parametrize("kind", NO_SEQUENCES)
@pytest.mark.parametrize("case", SIZES)
def test_A8_sizes_come_in_an_order(case, kind):
    function, first, options = SIZES[case]
    argument = case.split()[-1]
    with pytest.raises((TypeError, ValueError), match=f"{argument} must"):
        function(*first, **options | {argument: NO_SEQUENCES[kind]()})


@pytest.mark.parametrize(
    "pads", [[{0, 1}, (1, 0)], [iter((0, 1)), (1, 0)], {(0, 1): 1}]
)
def test_A8_pairs_come_in_an_order(pads):
    with pytest.raises(TypeError, match="padding must"):
        jaxpool.max_pool(X, (2, 2), 1, pads)


@pytest.mark.parametrize(
    "window",
    [[2, 2], range(2, 4), np.array([2, 3]), jnp.array([2, 3]), np.uint8([2, 2])],
)
def test_A8_sequences_and_arrays_are_sizes(window):
    want = jaxpool.max_pool(X, tuple(int(n) for n in window))
    np.testing.assert_array_equal(jaxpool.max_pool(X, window), want)
    inside = jax.jit(lambda x: jaxpool.max_pool(x, window))  # known there too
    np.testing.assert_array_equal(inside(X), want)


def arrays_refused():
    plain = np.arange(8.0)
    yield "extended precision", plain.astype(np.longdouble), TypeError
    yield "extended complex", plain.astype(np.clongdouble), TypeError
    yield "masked array", np.ma.array(plain, mask=plain > 3), TypeError
    yield "object", plain.astype(object), TypeError
    yield "string", plain.astype(str), TypeError
    yield "bytes", plain.astype("S3"), TypeError
    yield "date", plain.astype("M8[s]"), TypeError
    yield "duration", plain.astype("m8[s]"), TypeError
    yield "structure", np.zeros(8, [("a", np.float32)]), TypeError
    yield "void", np.zeros(8, "V4"), TypeError
    yield "float0", np.zeros(8, jax.dtypes.float0), TypeError
    yield "keys", jax.random.split(jax.random.key(0), 8), TypeError


REFUSED = {name: rest for name, *rest in arrays_refused()}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "global_max_pool", "pool"])
def test_A12_arrays_that_jax_does_not_take(name, kind):
    x, error = REFUSED[kind]
    first = (0.0, jnp.add) if name == "pool" else ()
    window = () if "global" in name else (2,)
    with pytest.raises(error, match="x must"):
        getattr(jaxpool, name)(x, *first, *window, axes=0)


@pytest.mark.parametrize("kind", REFUSED)
def test_A12_in_other_places(kind):
    wrong, _ = REFUSED[kind]
    with pytest.raises(TypeError, match="where must"):
        jaxpool.max_pool(ROW, 2, axes=0, where=wrong)
    with pytest.raises(TypeError, match="indices must"):
        jaxpool.max_unpool(ROW, wrong, 8, axes=0)
    with pytest.raises(TypeError, match="values must"):
        jaxpool.max_unpool(wrong, np.arange(8), 8, axes=0)
    with pytest.raises(TypeError, match="samples must"):
        jaxpool.fractional_max_pool(ROW, 2, 4, axes=0, samples=wrong)
    with pytest.raises((TypeError, ValueError), match="init must"):
        jaxpool.pool(ROW, wrong, jnp.add, 2, axes=0)
    with pytest.raises((TypeError, ValueError), match="key must"):
        jaxpool.fractional_max_pool(ROW, 2, 4, axes=0, key=wrong)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">i4", ">f2", ">c8", ">u2"])
def test_A12_either_byte_order_pools(dtype):
    x = np.array([3, 1, 2, 4]).astype(dtype)
    got = jaxpool.sum_pool(x, 2, axes=0)
    np.testing.assert_array_equal(got, [4, 6])
    indices = np.array([0, 3], ">i8")
    np.testing.assert_array_equal(unpooled(VALUES, indices), [1, 0, 0, 2])
    half = np.array([0.5], ">f4")
    drawn = jaxpool.fractional_max_pool(ROW, 2, 4, axes=0, samples=half)
    np.testing.assert_array_equal(drawn, [1, 3, 5, 7])


class Wrapped:
    """An array-like, as jax defines them."""

    def __init__(self, array):
        self.array = array

    def __jax_array__(self):
        return self.array


@pytest.mark.parametrize("wrap", [Wrapped, nnx.Param], ids=["__jax_array__", "Param"])
@pytest.mark.parametrize("name", every.functions() | every.dialects())
def test_A13_array_likes_anywhere(name, wrap):
    call, a = (every.functions() | every.dialects())[name], every.arrays()
    wrapped = {key: wrap(value) for key, value in a.items()}
    for got, want in zip(
        jax.tree.leaves(call(wrapped)), jax.tree.leaves(call(a)), strict=True
    ):
        np.testing.assert_array_equal(got, want)


def test_A13_array_likes_inside_jit():
    got = jax.jit(lambda x: jaxpool.max_pool(Wrapped(x), (2, 2)))(X)
    np.testing.assert_array_equal(got, jaxpool.max_pool(X, (2, 2)))


def test_C1_an_int_window_without_axes_has_an_example():
    with pytest.raises(
        ValueError, match=r"window=\(2, 2\), or axes.* axes=\(1, 2\); got"
    ):
        jaxpool.max_pool(X, 2)
    with pytest.raises(ValueError, match=r"window=\(2,\), or axes.* axes=\(1,\); got"):
        jaxpool.max_pool(X[0], 2)
    with pytest.raises(ValueError, match=r"output_shape=\(3, 3\), or axes"):
        jaxpool.adaptive_avg_pool(X, 3)
    with pytest.raises(ValueError, match=r"window=\(2, 2\), or axes"):
        jaxpool.nnx.MaxPool(2)


@pytest.mark.parametrize("padding", ["SAME", "VALID", "CAUSAL", "SAME_LOWER"])
def test_C2_a_padding_in_the_place_of_strides(padding):
    asked = f"strides must.*did you mean padding='{padding}'"
    for pool in (jaxpool.max_pool, jaxpool.avg_pool, jaxpool.min_pool_with_indices):
        with pytest.raises(TypeError, match=asked):
            pool(X, (2, 2), padding)
    for flavour in (jaxpool.linen, jaxpool.nnx):
        with pytest.raises(TypeError, match=asked):
            flavour.MaxPool((2, 2), padding)


TRACED = [
    ("window", jaxpool.max_pool, {}),
    ("strides", jaxpool.max_pool, {"window": (2, 2)}),
    ("padding", jaxpool.max_pool, {"window": (2, 2)}),
    ("dilation", jaxpool.max_pool, {"window": (2, 2)}),
    ("axes", jaxpool.max_pool, {"window": 2}),
    ("ceil_mode", jaxpool.max_pool, {"window": (2, 2)}),
    ("empty_value", jaxpool.max_pool, {"window": (2, 2)}),
    ("divisor", jaxpool.avg_pool, {"window": (2, 2)}),
    ("count_include_pad", jaxpool.avg_pool, {"window": (2, 2)}),
    ("keepdims", jaxpool.global_max_pool, {}),
    ("output_shape", jaxpool.adaptive_max_pool, {}),
]


@pytest.mark.parametrize(("name", "pool", "options"), TRACED)
def test_C9_traced_values_of_static_arguments(name, pool, options):
    for value in (2, np.array([2, 2]), True):
        with pytest.raises(TypeError, match=f"{name} must be a Python .*{STATIC}"):
            jax.jit(lambda x, n: pool(x, **options | {name: n}))(X, value)
    if name in ("window", "strides", "dilation", "padding", "axes", "output_shape"):
        with pytest.raises(TypeError, match=f"{name} must be a Python int.*{STATIC}"):
            jax.jit(lambda x, n: pool(x, **options | {name: (n, 1)}))(X, 2)
