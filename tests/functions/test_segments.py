"""Segments and neighbors: equalities with other domains, NaN, devices, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxpool
import jaxpool.linen
import jaxpool.nnx
from jaxpool import (
    Average,
    LogSumExp,
    Lp,
    Median,
    PowerMean,
    Softmax,
    StandardDeviation,
    TopKMean,
    Variance,
    aggregate,
    neighbors,
    segments,
    whole,
    windows,
)
from jaxpool.functions.arguments import READ_DIRECTLY
from tests.cases import distinct
from tests.engines.test_platforms import traced_for

BY = ("max", "min", "sum", "avg", Lp(3), LogSumExp(), Softmax(), PowerMean(2))
BY += (Variance(), StandardDeviation(1, 0.5), Median(), TopKMean(2))
every_by = pytest.mark.parametrize("by", BY, ids=str)
LENGTHS = [3, 0, 1, 5, 2]
IDS = np.repeat(np.arange(5), LENGTHS)
SHAPE = (11, 4)
ORDER = np.random.default_rng(1).permutation(11)
NAMED = {
    "max": jaxpool.segment_max_pool,
    "min": jaxpool.segment_min_pool,
    "sum": jaxpool.segment_sum_pool,
    "avg": jaxpool.segment_avg_pool,
}


def value_and_gradient(pool, x):
    y, vjp = jax.vjp(pool, jnp.asarray(x))
    return y, vjp(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]


def check_equal(got, want, **close):
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 0, **close})


@every_by
def test_one_segment_is_the_whole_axis(by):
    x = distinct(SHAPE) / 8
    over = segments(np.zeros(11, np.int32), 1, axis=0)
    got = value_and_gradient(lambda x: aggregate(x, by, over), x)
    want = value_and_gradient(lambda x: aggregate(x, by, whole(0, True)), x)
    check_equal(got, want, rtol=1e-5, atol=1e-6)


@every_by
def test_packed_sequences_are_as_each_alone(by):
    """Bit for bit: cells of a segment are added up in their order."""
    x = distinct(SHAPE) / 8
    packed = aggregate(x, by, segments.from_lengths(LENGTHS, axis=0))
    start = 0
    for row, length in zip(packed, LENGTHS, strict=True):
        piece, start = x[start : start + length], start + length
        if length:
            alone = aggregate(piece, by, segments.from_lengths([length], axis=0))
            np.testing.assert_array_equal(row, alone[0])
        else:
            np.testing.assert_array_equal(row, 0)


@every_by
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_forms_without_a_scatter(by, platform):
    """What runs on a GPU: sorted links and a segmented scan; ids in any order."""
    x, ids = distinct(SHAPE) / 8, np.where(IDS == 3, -1, IDS)[ORDER]
    links = np.random.default_rng(0).integers(-1, 11, (6, 3))
    for over in (segments(ids, 6, axis=0), neighbors(links, axis=0)):
        pool = functools.partial(aggregate, by=by, over=over, empty_value=-1)
        want = value_and_gradient(pool, x)
        with traced_for(platform):
            program = jax.jit(functools.partial(value_and_gradient, pool))
            text = program.lower(x).as_text()
            check_equal(program(x), want, rtol=1e-5, atol=1e-5)
        assert "scatter" not in text


@pytest.mark.parametrize("kind", NAMED)
def test_named_functions(kind):
    x, ids = distinct(SHAPE), IDS[ORDER]
    over = segments(ids, 5, axis=0)
    where = distinct(SHAPE) > 3
    got = NAMED[kind](x, ids, 5, where=where, empty_value=2)
    want = aggregate(x, kind, over, where=where, empty_value=2)
    np.testing.assert_array_equal(got, want)
    reduce = {"max": np.max, "min": np.min, "sum": np.sum, "avg": np.mean}[kind]
    for s in range(5):
        cells = x[ids == s][:, 0][where[ids == s][:, 0]]
        np.testing.assert_allclose(got[s, 0], reduce(cells) if cells.size else 2)
    with traced_for("cuda"):
        is_sorted = np.argsort(ids, stable=True)
        args = x[is_sorted], ids[is_sorted], 5
        got = NAMED[kind](*args, where=where[is_sorted], indices_are_sorted=True)
    np.testing.assert_allclose(got, NAMED[kind](x, ids, 5, where=where), rtol=1e-6)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_nan_and_ties(kind):
    """The first NaN, else the first of equal cells, has all of the gradient."""
    x = np.float32([2, 2, np.nan, 7, np.nan, 1, 2, 2])
    ids = np.int32([0, 0, 1, 1, 1, 2, 0, 3])
    y, g = value_and_gradient(lambda x: NAMED[kind](x, ids, 4), x)
    np.testing.assert_array_equal(y, np.float32([2, np.nan, 1, 2]))
    want = np.zeros(8, np.float32)
    want[[0, 2, 5, 7]] = np.cos(np.arange(4, dtype=np.float32))
    np.testing.assert_allclose(g, want, rtol=1e-6)
    y = NAMED[kind](x, ids, 4, where=x == x)
    assert np.isfinite(y).all()


def test_a_million_ones_in_bfloat16_average_to_one():
    ids = np.zeros(1_000_000, np.int32)
    x = jnp.ones((1_000_000, 1), jnp.bfloat16)
    assert jaxpool.segment_avg_pool(x, ids, 2)[:, 0].tolist() == [1, 0]
    assert jaxpool.segment_avg_pool(x, ids, 2).dtype == jnp.bfloat16


def test_a_million_equal_floats_average_to_one_of_them():
    """Added up one by one, they would lose a hundredth."""
    x, count = np.full((1_000_000, 2), 0.1, np.float32), 1000
    ids = np.full(len(x), count - 1, np.int32)
    ids[::1000], ids[1::1000] = -1, count
    x[::1000], x[1::1000] = np.nan, np.nan
    y = jax.jit(lambda x, ids: jaxpool.segment_avg_pool(x, ids, count))(x, ids)
    np.testing.assert_allclose(y[-1], x[2], rtol=5e-4)
    assert not y[:-1].any()
    sums = jax.ops.segment_sum(x, ids, count)[-1] / 998_000
    assert abs(sums[0] / x[2, 0] - 1) > 5e-3  # or this needs no test


@every_by
def test_ids_of_each_item_of_the_batch(by):
    """Also by `jax.vmap`, and with a mask and weights that broadcast."""
    x = distinct((3, *SHAPE)) / 8
    ids = np.stack([IDS, IDS[ORDER], IDS - 1])
    where = distinct((3, 11, 1)) > -14
    got = aggregate(x, by, segments(ids, 5, axis=1), where=where)
    one = lambda x, ids, where: aggregate(  # noqa: E731
        x, by, segments(ids, 5, axis=0), where=where
    )
    np.testing.assert_array_equal(got, jax.vmap(one)(x, ids, where))
    for n in range(3):
        want = one(x[n], ids[n], where[n])
        np.testing.assert_allclose(got[n], want, rtol=1e-6, atol=1e-6)
    weighted = aggregate(x, Average(x[:1] ** 2), segments(ids, 5, axis=1))
    alone = aggregate(x[2], Average(x[0] ** 2), segments(ids[2], 5, axis=0))
    np.testing.assert_allclose(weighted[2], alone, rtol=1e-6)


@pytest.mark.slow
def test_neighbors_that_are_windows():
    x = distinct((10, 3)) / 8
    links = np.arange(8)[:, None] + np.arange(3)
    for by in BY:
        got = value_and_gradient(
            lambda x, by=by: aggregate(x, by, neighbors(links, axis=0)), x
        )
        want = value_and_gradient(
            lambda x, by=by: aggregate(x, by, windows(3, 1, axes=0)), x
        )
        check_equal(got, want, rtol=1e-5, atol=1e-5)


def test_neighbors_of_each_item_of_the_batch():
    x, links = distinct((2, 6, 3)), np.random.default_rng(0).integers(-1, 6, (2, 4, 2))
    got = aggregate(x, "max", neighbors(links, axis=1))
    for n in range(2):
        want = aggregate(x[n], "max", neighbors(links[n], axis=0))
        np.testing.assert_array_equal(got[n], want)


@pytest.mark.parametrize("by", ["max", "avg", Softmax()], ids=str)
def test_tokens_with_positions(by):
    """As a grid, in any order; beside the product with one-hot tiles."""
    rows, columns = 6, 4
    x = distinct((2, rows * columns, 3)) / 8
    positions = np.stack(np.divmod(np.arange(rows * columns), columns), -1)
    order = np.random.default_rng(0).permutation(rows * columns)
    got = jaxpool.pool_by_positions(
        x[:, order], positions[order], 2, (rows // 2, columns // 2), by=by
    )
    want = aggregate(x.reshape(2, rows, columns, 3), by, windows((2, 2)))
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    # Padding tokens have a negative position; a mask does the same.
    positions[:2] = [[-1, -1], [3, -2]]
    padded = jaxpool.pool_by_positions(x, positions, 2, (3, 2), by=by)
    where = (np.arange(24) > 1)[None, :, None]
    masked = jaxpool.pool_by_positions(
        x, np.abs(positions), 2, (3, 2), by=by, where=where
    )
    np.testing.assert_allclose(padded, masked, rtol=1e-6, atol=1e-6)


def test_offsets_and_lengths_say_the_same():
    x = distinct(SHAPE)
    want = aggregate(x, "sum", segments(IDS, 5, axis=0))
    offsets = np.concatenate([[0], np.cumsum(LENGTHS)])
    for over in (
        segments.from_lengths(LENGTHS, axis=0),
        segments.from_offsets(offsets, axis=0),
        segments.from_offsets(jnp.asarray(offsets), axis=-2),
    ):
        np.testing.assert_array_equal(aggregate(x, "sum", over), want)
    inside = jax.jit(lambda n: aggregate(x, "sum", segments.from_lengths(n, axis=0)))
    np.testing.assert_array_equal(inside(np.asarray(LENGTHS)), want)
    # Cells before the first offset and after the last take no part.
    short = aggregate(x, "sum", segments.from_offsets([3, 4, 4], axis=0))
    np.testing.assert_array_equal(short, [x[3], 0 * x[3]])


def test_ids_beyond_the_segments_take_no_part_where_traced():
    x, ids = distinct(SHAPE), IDS + 1
    got = jax.jit(lambda ids: aggregate(x, "max", segments(ids, 5, axis=0)))(ids)
    want = aggregate(x, "max", segments(np.where(ids > 4, -1, ids), 5, axis=0))
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_a_batch_that_is_split(kind):
    """Nothing is sent, but where the split is part of the types."""
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("b",), axis_types=(kind,))
    split = NamedSharding(mesh, PartitionSpec("b"))
    x, ids = distinct((4, *SHAPE)), np.stack([IDS, IDS[ORDER]] * 2)

    def both(x, ids):
        over = segments(ids, 5, axis=1)
        return value_and_gradient(lambda x: aggregate(x, Softmax(), over), x)

    want = both(x, ids)
    with jax.sharding.set_mesh(mesh):
        program = jax.jit(both, in_shardings=(split, split)).lower(x, ids).compile()
        got = program(jax.device_put(x, split), jax.device_put(ids, split))
    check_equal(got, want, rtol=1e-5, atol=1e-5)
    text = program.as_text()
    sent = [word for word in ("all-gather", "permute", "all-reduce") if word in text]
    assert kind == AxisType.Explicit or not sent


def test_export():
    x, ids = distinct(SHAPE), IDS[ORDER].astype(np.int32)
    pool = jax.jit(lambda x, ids: NAMED["max"](x, ids, 5))
    exported = jax.export.export(pool, platforms=["cpu", "cuda", "tpu"])(x, ids)
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_array_equal(again.call(x, ids), pool(x, ids))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("size", [16, READ_DIRECTLY + 8])
def test_ids_on_devices_are_checked(size, split):
    ids = jnp.zeros(size, jnp.int32).at[size // 2].set(7)
    if split:
        mesh = jax.make_mesh((8,), ("i",), axis_types=(AxisType.Auto,))
        ids = jax.device_put(ids, NamedSharding(mesh, PartitionSpec("i")))
    x = jnp.ones((size, 1))
    with pytest.raises(ValueError, match=r"must be from .* to 6; got .* from 0 to 7"):
        jax.jit(lambda x: NAMED["sum"](x, ids, 7))(x)
    assert NAMED["sum"](x, ids, 8)[7] == 1


WRONG = {
    "ids are floats": (
        lambda x: NAMED["max"](x, np.ones(11), 5),
        TypeError,
        "segment_ids must be integers",
    ),
    "too few ids": (
        lambda x: NAMED["max"](x, IDS[:3], 5),
        ValueError,
        "segment_ids must have one number for each cell",
    ),
    "an id that is too large": (
        lambda x: NAMED["max"](x, IDS, 4),
        ValueError,
        "segment_ids must be from .* to 3",
    ),
    "no segments": (
        lambda x: NAMED["max"](x, IDS - 5, 0),
        ValueError,
        "num_segments must be at least 1",
    ),
    "an axis that is not there": (
        lambda x: NAMED["max"](x, IDS, 5, axis=2),
        ValueError,
        "axis must be in",
    ),
    "another batch": (
        lambda x: aggregate(x[None], "max", segments(np.stack([IDS] * 2), 5, axis=1)),
        ValueError,
        "segment_ids must have no further axes",
    ),
    "neighbors of one axis": (
        lambda x: aggregate(x, "max", neighbors(IDS, axis=0)),
        ValueError,
        "indices must have at least 2 axes",
    ),
    "a neighbor that is not there": (
        lambda x: aggregate(x, "max", neighbors(np.full((2, 2), 11), axis=0)),
        ValueError,
        "indices must be from .* to 10",
    ),
    "a named form": (
        lambda x: aggregate(
            x, "max", segments(IDS, 5, axis=0), implementation="slices"
        ),
        NotImplementedError,
        "segments and neighbors",
    ),
    "lengths beyond the axis": (
        lambda x: aggregate(x, "max", segments.from_lengths([3, 9], axis=0)),
        ValueError,
        "lengths must add up to at most 11",
    ),
    "lengths of another batch": (
        lambda x: aggregate(x, "max", segments.from_lengths([[3, 2]], axis=0)),
        ValueError,
        "lengths must have no further axes",
    ),
    "offsets beyond the axis": (
        lambda x: aggregate(x, "max", segments.from_offsets([0, 12], axis=0)),
        ValueError,
        "cu_seqlens must be from 0 to 11",
    ),
    "offsets that decrease": (
        lambda x: aggregate(x, "max", segments.from_offsets([0, 5, 3], axis=0)),
        ValueError,
        "cu_seqlens must not decrease",
    ),
    "positions of another batch": (
        lambda x: jaxpool.pool_by_positions(
            x[None].repeat(2, 0), np.zeros((3, 11, 1), int), 2, 2
        ),
        ValueError,
        "positions must have no further axes",
    ),
    "unsigned offsets that decrease": (
        lambda x: aggregate(
            x, "max", segments.from_offsets(np.uint8([0, 5, 3]), axis=0)
        ),
        ValueError,
        r"cu_seqlens must not decrease.*for x\.shape",
    ),
    "lengths are no array": (
        lambda x: aggregate(x, "max", segments.from_lengths(None, axis=0)),
        TypeError,
        "lengths must be an array",
    ),
    "one length": (
        lambda x: aggregate(x, "max", segments.from_lengths(np.int32(3), axis=0)),
        ValueError,
        "lengths must have at least 1 axes",
    ),
    "lengths are floats": (
        lambda x: aggregate(x, "max", segments.from_lengths([3.0, 2.0], axis=0)),
        TypeError,
        "lengths must be integers",
    ),
    "neighbors without a column": (
        lambda x: aggregate(x, "max", neighbors(np.zeros((3, 0), int), axis=0)),
        ValueError,
        "the last axis of indices must be at least 1",
    ),
    "negative lengths": (
        lambda x: aggregate(x, "max", segments.from_lengths([3, -1], axis=0)),
        ValueError,
        "lengths must be from 0 to 11",
    ),
    "positions of other tokens": (
        lambda x: jaxpool.pool_by_positions(x, np.zeros((3, 2), int), 2, (2, 2)),
        ValueError,
        "positions must have the positions of each token",
    ),
    "tiles of several aggregations": (
        lambda x: jaxpool.pool_by_positions(
            x, np.zeros((11, 2), int), 2, (2, 2), by=("avg", "max")
        ),
        TypeError,
        "by must be one aggregation, not a tuple",
    ),
    "tiles beyond int32": (
        lambda x: jaxpool.pool_by_positions(x, np.zeros((11, 2), int), 2**40, (2, 2)),
        ValueError,
        "window must be at most 2147483647",
    ),
    "segments in a tuple": (
        lambda x: aggregate(x, "max", segments(np.zeros(11, int), (2,), axis=0)),
        TypeError,
        "num_segments must be an int",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call(distinct(SHAPE))


def test_lengths_may_be_variables_of_flax_under_jit():
    lengths = nnx.Variable(jnp.asarray([3, 2]))

    @nnx.jit
    def pool(lengths):
        over = segments.from_lengths(lengths, axis=0)
        return aggregate(jnp.arange(11.0), "sum", over)

    np.testing.assert_array_equal(pool(lengths), [3, 7])


@pytest.mark.parametrize(
    "over",
    [
        segments(jnp.asarray([0, 0, 1]), 2, axis=0),
        segments.from_lengths([2, 1], axis=0),
        neighbors(jnp.asarray([[0, 1], [2, -1]]), axis=0),
    ],
    ids=["segments", "lengths", "neighbors"],
)
def test_modules_over_links(over):
    x = jnp.asarray([3.0, 1.0, 2.0])
    module = jaxpool.nnx.Aggregate("max", over)
    np.testing.assert_array_equal(nnx.jit(lambda m, x: m(x))(module, x), [3, 2])
    got = jaxpool.linen.Aggregate("max", over).apply({}, x)
    np.testing.assert_array_equal(got, [3, 2])
