"""The calls that are checked on a device: every public pool, over many geometries.

A check is named by strings only, so that it can be sent to another process, which looks
it up here. `evaluate` runs one on a device: the values, the values that come with a
gradient, the gradient, and the indices where the function has them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

import jaxpool

DTYPES = ("float32", "bfloat16", "float16")


class Geometry(NamedTuple):
    """The shape of the input, and the arguments that say which cells are pooled."""

    shape: tuple[int, ...]
    arguments: Mapping[str, Any]


class Function(NamedTuple):
    """A public function with some of its options, and how its results are compared.

    `exact` results do not depend on how numbers are rounded on the way. `data` names
    what it is given; `forms` says whether it takes `implementation`.
    """

    pool: Callable[..., Any]
    exact: bool = True
    masks: bool = True
    forms: bool = True
    data: str = "integers"


class Check(NamedTuple):
    """One call to check, by name."""

    function: str
    geometry: str
    dtype: str
    masked: bool

    def __str__(self) -> str:
        """Name the call."""
        mask = ", masked" if self.masked else ""
        return f"{self.function} {self.geometry} {self.dtype}{mask}"


def _windows(
    shape: tuple[int, ...], window: Any, *others: Any, **named: Any
) -> Geometry:
    positional = zip(("strides", "padding"), others, strict=False)
    return Geometry(shape, {"window": window, **dict(positional), **named})


# Every function takes these in every dtype, masked and not ...
COMMON = {
    "2/2": _windows((4, 16, 16, 8), (2, 2)),
    "3/2 SAME": _windows((2, 15, 16, 8), (3, 3), 2, "SAME"),
    "3/1 SAME": _windows((2, 12, 13, 8), (3, 3), 1, "SAME"),
    "7/7": _windows((2, 28, 14, 5), (7, 7)),
    "3-D 2/2/2": _windows((2, 6, 8, 8, 4), (2, 2, 2)),
}
# ... and these in float32, and masked in bfloat16.
ODD = {
    "1-D 3/2": _windows((3, 33, 6), (3,), 2, 1),
    "5/1 SAME": _windows((2, 14, 15, 3), (5, 5), 1, "SAME"),
    "15/1 SAME": _windows((1, 24, 20, 4), (15, 15), 1, "SAME"),
    "dilated by 2": _windows((2, 13, 14, 3), (3, 3), 1, "SAME", dilation=2),
    "dilated, strided": _windows((1, 12, 11, 2), (3, 2), (2, 3), 1, dilation=2),
    "ceil_mode": _windows((2, 8, 10, 3), (3, 3), 2, 1, ceil_mode=True),
    "causal": _windows((2, 21, 4), (4,), 1, "CAUSAL"),
    "SAME_LOWER": _windows((2, 9, 10, 3), (2, 4), (2, 3), "SAME_LOWER"),
    "uneven padding": _windows((1, 7, 11, 2), (3, 5), (2, 3), ((1, 2), (0, 4))),
    "channels first": _windows((2, 4, 10, 9), (3, 2), (2, 1), axes=(-2, -1)),
    "3-D 3/2": _windows((1, 5, 7, 6, 3), (3, 3, 3), 2, 1),
    "long 61/7": _windows((2, 90, 3), (61,), 7),
    "9/9 with a rest": _windows((1, 28, 28, 1), (9, 9)),
    "10/4 with a rest": _windows((16, 16), 10, 4, axes=(0, 1)),
    "11 by 2, strides 2": _windows((12, 4), (11, 2), (2, 2), axes=(0, 1)),
    "9 by 2, strides 3, 2": _windows((16, 4), (9, 2), (3, 2), axes=(0, 1)),
    "16/16 with a rest": _windows((1, 100, 36, 2), (16, 16)),
    "whole image of 14": _windows((4, 14, 14, 24), (14, 14)),
    "3/2, 192 channels": _windows((2, 9, 8, 192), (3, 3), 2, 1),
    "3/1, 128 channels": _windows((2, 7, 6, 128), (3, 3), 1, 1),
    "17/1, 289 cells": _windows((1, 20, 19, 2), (17, 17), 1),
    "strides above the window": _windows((1, 11, 7, 2), (2, 1), (3, 4)),
    "windows of padding": _windows((1, 1, 2), (2,), 1, 1, dilation=2),
}
WHOLE = {
    "7 by 9": Geometry((4, 7, 9, 8), {}),
    "time": Geometry((3, 100, 5), {"axes": 1, "keepdims": True}),
    "channels first": Geometry((2, 5, 6, 130), {"axes": (2, 3)}),
    "3-D": Geometry((2, 3, 4, 5, 6), {}),
}
ROWS = {
    "7 rows": Geometry((4, 7, 9, 8), {}),
    "100 rows": Geometry((3, 100, 5), {}),
    "5 rows": Geometry((2, 5, 4, 3, 6), {}),
}
BINS = {
    "10, 11 to 7, 5": Geometry((2, 10, 11, 4), {"output_shape": (7, 5)}),
    "16 to 4": Geometry((2, 16, 16, 8), {"output_shape": (4, 4)}),
    "3 to 5": Geometry((2, 3, 4), {"output_shape": (5,)}),
    "3-D": Geometry((1, 5, 6, 7, 2), {"output_shape": (2, 3, 4)}),
}
DRAWN = {
    "9, 8 to 4": Geometry((2, 9, 8, 3), {"window": 2, "output_shape": (4, 4)}),
    "12 to 5": Geometry((2, 12, 4), {"window": 3, "output_shape": (5,)}),
}
HALOS = {
    "3/1 SAME": _windows((2, 12, 10, 3), (3, 3), 1, "SAME"),
    "3/2": _windows((2, 12, 10, 3), (3, 3), (2, 1)),
}


def _pooled_axes(
    x: jax.Array, window: Any, axes: Any = None, **_: Any
) -> tuple[int, ...]:
    """The axes that a window pools, as every pool counts them."""
    if axes is None:
        return tuple(range(x.ndim - 1 - len(window), x.ndim - 1))
    return tuple(axis % x.ndim for axis in axes)


def _unpooled(x: jax.Array, **arguments: Any) -> jax.Array:
    """The maxima, put back to where they were."""
    values, indices = jaxpool.max_pool_with_indices(x, **arguments)
    axes = _pooled_axes(x, **arguments)
    shape = tuple(x.shape[axis] for axis in axes)
    return jaxpool.max_unpool(values, indices, shape, axes=axes)


def _converted(x: jax.Array, **arguments: Any) -> tuple[jax.Array, jax.Array]:
    """The maxima, and where they are as ONNX counts."""
    values, indices = jaxpool.max_pool_with_indices(x, **arguments)
    axes = _pooled_axes(x, **arguments)
    names = "jaxpool", "onnx_column_major"
    return values, jaxpool.convert_indices(indices, x.shape, *names, axes=axes)


def _exchanged(x: jax.Array, mesh: Mesh, **arguments: Any) -> jax.Array:
    """The maxima inside `shard_map`, over a mesh of one device."""
    names = ("h", *(None,) * (len(arguments["window"]) - 1))
    strides = arguments["strides"]

    def shard(x: jax.Array) -> jax.Array:
        padded, inside = jaxpool.halo_exchange(x, axis_names=names, **arguments)
        return jaxpool.max_pool(padded, arguments["window"], strides, where=inside)

    rows = PartitionSpec(None, "h")
    return jax.shard_map(shard, mesh=mesh, in_specs=rows, out_specs=rows)(x)


def _aggregated(
    x: jax.Array,
    *,
    by: jaxpool.By,
    where: jax.Array | None = None,
    empty_value: float = 0,
    implementation: Any = None,
    **geometry: Any,
) -> jax.Array:
    """An aggregation over windows, bins or whole axes, whichever the geometry names."""
    domain = jaxpool.whole if "window" not in geometry else jaxpool.windows
    over = jaxpool.bins if "output_shape" in geometry else domain
    options = {"where": where, "empty_value": empty_value}
    named = {"implementation": implementation}
    return jaxpool.aggregate(x, by, over(**geometry), **options, **named)


def _close(pool: Callable[..., Any], data: str = "floats", **options: Any) -> Function:
    """A function whose results depend on how numbers are rounded on the way."""
    return Function(partial(pool, **options), exact=False, data=data)


_EXTREMES = {"data": "specials"}
WINDOWED = {
    "max_pool": Function(jaxpool.max_pool, **_EXTREMES),
    "min_pool": Function(jaxpool.min_pool, **_EXTREMES),
    "sum_pool": Function(jaxpool.sum_pool),
    "avg_pool": _close(jaxpool.avg_pool, "integers"),
    "avg_pool count_include_pad": _close(
        jaxpool.avg_pool, "integers", count_include_pad=True
    ),
    "lp_pool": _close(jaxpool.lp_pool),
    "lp_pool p=3": _close(jaxpool.lp_pool, p=3.0),
    "lp_pool p=inf": _close(jaxpool.lp_pool, p=math.inf),
    "logsumexp_pool": _close(jaxpool.logsumexp_pool),
    "softmax_pool": _close(jaxpool.softmax_pool),
    "power_mean_pool": _close(jaxpool.power_mean_pool),
    **{
        name: Function(getattr(jaxpool, name), exact=False, forms=False, data="floats")
        for name in ("var_pool", "std_pool", "median_pool")
    },
    "aggregate TopKMean(2)": Function(
        partial(_aggregated, by=jaxpool.TopKMean(2)),
        exact=False,
        forms=False,
        data="floats",
    ),
    "pool logaddexp": Function(
        partial(jaxpool.pool, init=-math.inf, op=jnp.logaddexp),
        exact=False,
        masks=False,
        forms=False,  # lax.reduce_window of such an operation has no gradient
        data="floats",
    ),
    "max_pool_with_indices": Function(jaxpool.max_pool_with_indices, **_EXTREMES),
    "min_pool_with_indices": Function(jaxpool.min_pool_with_indices, **_EXTREMES),
    "max_unpool": Function(_unpooled, data="distinct"),
    "convert_indices": Function(_converted, masks=False),
}
GLOBAL = {
    "global_max_pool": Function(jaxpool.global_max_pool, forms=False, **_EXTREMES),
    "global_min_pool": Function(jaxpool.global_min_pool, forms=False, **_EXTREMES),
    "global_sum_pool": Function(jaxpool.global_sum_pool, forms=False),
    "global_avg_pool": Function(jaxpool.global_avg_pool, exact=False, forms=False),
    "global_lp_pool": Function(
        jaxpool.global_lp_pool, exact=False, forms=False, data="floats"
    ),
    "global_logsumexp_pool": Function(
        jaxpool.global_logsumexp_pool, exact=False, forms=False, data="floats"
    ),
    "global_softmax_pool": Function(
        partial(jaxpool.global_softmax_pool, scale=-2.0),
        exact=False,
        forms=False,
        data="floats",
    ),
    **{
        name: Function(getattr(jaxpool, name), exact=False, forms=False, data="floats")
        for name in (
            "global_power_mean_pool",
            "global_var_pool",
            "global_std_pool",
            "global_median_pool",
        )
    },
    "global_max_pool_with_indices": Function(
        jaxpool.global_max_pool_with_indices, forms=False, **_EXTREMES
    ),
    "global_min_pool_with_indices": Function(
        jaxpool.global_min_pool_with_indices, forms=False, **_EXTREMES
    ),
}
_PLAIN = {"masks": False, "forms": False}
ADAPTIVE = {
    "adaptive_max_pool": Function(jaxpool.adaptive_max_pool, **_PLAIN, **_EXTREMES),
    "adaptive_max_pool_with_indices": Function(
        jaxpool.adaptive_max_pool_with_indices, **_PLAIN, **_EXTREMES
    ),
    "adaptive_avg_pool": Function(jaxpool.adaptive_avg_pool, exact=False, **_PLAIN),
    "adaptive_logsumexp_pool": Function(
        jaxpool.adaptive_logsumexp_pool, exact=False, data="floats", **_PLAIN
    ),
    "aggregate Softmax, bins": Function(
        partial(_aggregated, by=jaxpool.Softmax()),
        exact=False,
        forms=False,
        data="floats",
    ),
}


def _with_samples(pool: Callable[..., Any], x: jax.Array, **arguments: Any) -> Any:
    """A fractional pool of samples that are the same on every device."""
    samples = jnp.asarray([0.3, 0.6, 0.9][: len(arguments["output_shape"])], np.float32)
    return pool(x, samples=samples, **arguments)


FRACTIONAL = {
    name: Function(
        partial(_with_samples, getattr(jaxpool, name)),
        exact="avg" not in name,
        data="integers" if "avg" in name else "specials",
        **_PLAIN,
    )
    for name in (
        "fractional_max_pool",
        "fractional_max_pool_with_indices",
        "fractional_avg_pool",
    )
}


def _in_segments(pool: Callable[..., Any], x: jax.Array, **arguments: Any) -> Any:
    """Rows in segments in no order, of which one is empty and one row is in none."""
    ids = jnp.asarray(np.resize([2, 0, 4, 2, -1, 0, 1], x.shape[1]), np.int32)
    return pool(x, ids, 5, axis=1, **arguments)


def _by_segments(by: jaxpool.By, x: jax.Array, **arguments: Any) -> Any:
    """Any aggregation of such segments."""

    def pool(
        x: jax.Array, ids: jax.Array, count: int, axis: int, **options: Any
    ) -> Any:
        over = jaxpool.segments(ids, count, axis=axis)
        return jaxpool.aggregate(x, by, over, **options)

    return _in_segments(pool, x, **arguments)


def _by_positions(x: jax.Array, **arguments: Any) -> Any:
    """The last axis but one as tokens, in tiles of 2."""
    places = jnp.asarray(np.resize([3, 0, 1, 7, -1, 2], x.shape[-2]), np.int32)[:, None]
    return jaxpool.pool_by_positions(x, places, 2, 4, **arguments)


def _by_neighbors(x: jax.Array, **arguments: Any) -> Any:
    """Rows that others name."""
    links = np.resize([2, 0, -1, 2, 1, 0, 1], (4, 3))
    over = jaxpool.neighbors(jnp.asarray(links, np.int32), axis=1)
    return jaxpool.aggregate(x, "max", over, **arguments)


def _streamed(x: jax.Array) -> jax.Array:
    """Causal windows over time, the first three rows before the others."""
    over = jaxpool.windows(5, 1, "CAUSAL", axes=1)
    init, step = jaxpool.stream(jaxpool.Softmax(), over)
    state, first = step(init(x.shape, x.dtype), x[:, :3])
    return jnp.concatenate([first, step(state, x[:, 3:])[1]], 1)


LINKED = {
    "stream": Function(_streamed, exact=False, data="floats", **_PLAIN),
    **{
        f"segment_{kind}_pool": Function(
            partial(_in_segments, getattr(jaxpool, f"segment_{kind}_pool")),
            exact=kind != "avg",
            forms=False,
            data="specials" if kind in ("max", "min") else "integers",
        )
        for kind in ("max", "min", "sum", "avg")
    },
    **{
        f"aggregate {by}, segments": Function(
            partial(_by_segments, by), exact=False, forms=False, data="floats"
        )
        for by in (jaxpool.Softmax(), jaxpool.Variance(), jaxpool.Median())
    },
    "aggregate neighbors": Function(_by_neighbors, forms=False, data="specials"),
    "pool_by_positions": Function(
        _by_positions, exact=False, forms=False, data="integers"
    ),
}
EXCHANGE = {"halo_exchange": Function(_exchanged, **_PLAIN)}

FUNCTIONS = WINDOWED | GLOBAL | ADAPTIVE | FRACTIONAL | LINKED | EXCHANGE
FAMILIES = (
    (WINDOWED, COMMON | ODD),
    (GLOBAL, WHOLE),
    (ADAPTIVE, BINS),
    (FRACTIONAL, DRAWN),
    (LINKED, ROWS),
    (EXCHANGE, HALOS),
)
QUICK = {
    *COMMON,
    "9/9 with a rest",
    "dilated by 2",
    *WHOLE,
    *ROWS,
    *BINS,
    *DRAWN,
    *HALOS,
}


def checks(quick: bool) -> Iterator[Check]:
    """Every call to check; with `quick` a few of each function."""
    for functions, geometries in FAMILIES:
        for name, function in functions.items():
            if quick:
                yield from _quick_checks(name, function, geometries)
                continue
            for geometry in geometries:
                if functions is WINDOWED and geometry in ODD:
                    yield Check(name, geometry, "float32", False)
                    yield Check(name, geometry, "bfloat16", function.masks)
                    continue
                for dtype in DTYPES:
                    for masked in (False, True) if function.masks else (False,):
                        yield Check(name, geometry, dtype, masked)


def _quick_checks(
    name: str, function: Function, geometries: Mapping[str, Geometry]
) -> Iterator[Check]:
    """A sixth of the geometries of a function, at least one, each in one dtype."""
    few = [geometry for geometry in geometries if geometry in QUICK]
    for number in range(len(name) % min(6, len(few)), len(few), 6):
        masked = function.masks and number % 2 == 0
        yield Check(name, few[number], DTYPES[number % 3], masked)


def geometry_of(check: Check) -> Geometry:
    """Where a check looks up its geometry."""
    for functions, geometries in FAMILIES:
        if check.function in functions:
            return geometries[check.geometry]
    raise KeyError(check.function)


def evaluate(
    check: Check,
    device: jax.Device,
    implementation: str | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> dict[str, np.ndarray]:
    """The results of one check on a device, by name."""
    shape, arguments = geometry_of(check)
    function = FUNCTIONS[check.function]
    options = dict(arguments)
    if function.forms and implementation:
        options["implementation"] = implementation
    if check.function in EXCHANGE:
        options["mesh"] = Mesh(np.array([device]), ("h",), axis_types=(AxisType.Auto,))
    x = jax.device_put(_data(function.data, shape).astype(check.dtype), device)
    # -7 is no value of the data: an empty window is seen.
    masked = {"empty_value": -7.0} if check.masked else {}
    where = jax.device_put(_mask(shape), device) if check.masked else None

    def program(x: jax.Array, where: jax.Array | None) -> dict[str, jax.Array]:
        mask = {"where": where, **masked} if check.masked else {}

        def split(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            y = function.pool(x, **options, **mask)
            return (y[0], y[1:]) if isinstance(y, tuple) else (y, ())

        values, _ = split(x)
        beside, back, others = jax.vjp(split, x, has_aux=True)
        (gradient,) = back(_cotangent(beside.shape).astype(beside.dtype))
        named = {"values": values, "values with gradient": beside, "gradient": gradient}
        return named | ({"indices": others[0]} if others else {})

    compiled = jax.jit(program, compiler_options=dict(compiler_options or {}))
    return {k: np.asarray(v) for k, v in jax.device_get(compiled(x, where)).items()}


def _data(kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers to pool, the same every time.

    Integers, most windows of which tie, some of them NaN; with "specials" infinities
    too. "distinct" has neither ties nor NaN, "floats" are what sums round.
    """
    rng = np.random.default_rng(math.prod(shape))
    if kind == "distinct":
        size = math.prod(shape)
        return (rng.permutation(size) - size // 2).reshape(shape) / 64
    if kind == "floats":
        return rng.normal(size=shape) * (rng.random(shape) > 0.1)
    x = rng.integers(-2, 3, shape).astype(np.float64)
    specials = {"specials": (math.nan, math.inf, -math.inf)}.get(kind, (math.nan,))
    for special in specials:
        x[rng.random(shape) < 0.02] = special
    return x


def _mask(shape: tuple[int, ...]) -> np.ndarray:
    """Half of the cells; some small windows have none of them."""
    return np.random.default_rng(1).random(shape) < 0.5


def _cotangent(shape: tuple[int, ...]) -> jax.Array:
    """Small integers: their sums are exact."""
    numbers = np.arange(math.prod(shape)) % 7 - 2.0
    return jnp.asarray(numbers.reshape(shape), np.float32)
