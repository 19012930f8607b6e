"""The pools that `devices` compiles: those of the library, and the same of plain `lax`.

A row of `OPERATORS` for each operator, with the geometries that it is compiled for.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from experiments.compilers.compiling import Target

MAPS, STEM, VOLUME = (8, 56, 56, 128), (8, 112, 112, 64), (2, 16, 56, 56, 128)
# So large that a TPU has it in its main memory; the smaller ones it moves to a faster
# one, and counts the moves.
LARGE_MAPS, LARGE_STEM = (128, 56, 56, 128), (128, 112, 112, 64)


class Case(NamedTuple):
    """One geometry, with "SAME" padding; each number is that of all axes."""

    shape: tuple[int, ...]
    window: int
    strides: int
    dilation: int = 1

    @property
    def lengths(self) -> tuple[int, ...]:
        """The window, for each pooled axis."""
        return (self.window,) * (len(self.shape) - 2)

    def full(self, number: int) -> tuple[int, ...]:
        """A number of the geometry, for each axis of the array."""
        return (1, *(number,) * (len(self.shape) - 2), 1)


COMMON = {"2/2": Case(MAPS, 2, 2), "3/2": Case(MAPS, 3, 2), "3/1": Case(MAPS, 3, 1)}
WINDOWED = COMMON | {
    "3/2, 64 channels": Case(STEM, 3, 2),
    "3/2, 3-D": Case(VOLUME, 3, 2),
    "3/1, dilated by 2": Case(MAPS, 3, 1, 2),
    "15/1": Case(MAPS, 15, 1),
    "2/2, large": Case(LARGE_MAPS, 2, 2),
    "3/2, 64 channels, large": Case(LARGE_STEM, 3, 2),
    "3/1, large": Case(LARGE_STEM, 3, 1),
}
WHOLE = {"whole": Case(MAPS, 56, 56)}
BINS = {"56 to 29": Case(MAPS, 2, 2)}
# One draw for each axis.
DRAWN = {"window": 2, "samples": np.asarray([0.3, 0.6], np.float32)}

# Over segments and neighbors.
LINKED = (
    jaxpool.Max(),
    jaxpool.Average(),
    jaxpool.Softmax(),
    jaxpool.Lp(3.0),
    jaxpool.PowerMean(3.0),
    jaxpool.LogSumExp(),
    jaxpool.Quantile(0.25),
)

Pool = Callable[[jax.Array], jax.Array]
Maker = Callable[[Case], Pool]


class Operator(NamedTuple):
    """A pool; the same of plain `lax`, if it has one; and whether that has a gradient.

    lax has no gradient for the extremes of dilated windows. Its gradient for those of
    long windows takes a TPU's compiler minutes, and is left out. `rounded` is lax where
    it adds up half floats as such, and so rounds each sum: that is not the same.
    """

    ours: Maker
    lax: Maker | None = None
    of_lax: str = "any"  # which gradients lax has: any, short, none
    cases: Mapping[str, Case] = WINDOWED
    rounded: Maker | None = None

    def has_rival(self, name: str, passes: str, target: Target) -> bool:
        """Whether plain lax is compiled for comparison."""
        case = self.cases[name]
        if self.lax is None or passes == "forward" or self.of_lax == "any":
            return self.lax is not None
        is_short = case.window < 9 or target.platform != "tpu"
        return self.of_lax == "short" and case.dilation == 1 and is_short

    def maker(self, side: str) -> Maker:
        """What makes the pool of one side of the comparison."""
        makers = {"jaxpool": self.ours, "lax": self.lax, "rounded": self.rounded}
        return makers[side] or self.ours


def _windowed(name: str, **options: Any) -> Maker:
    """A windowed pool of the library."""

    def make(case: Case) -> Pool:
        pool = getattr(jaxpool, name)
        window, strides, dilation = case.lengths, case.strides, case.dilation
        options.update(window=window, padding="SAME")
        return lambda x: pool(x, strides=strides, dilation=dilation, **options)

    return make


def _global(name: str) -> Maker:
    """A global pool of the library."""
    return lambda case: getattr(jaxpool, name)


def _over(by: Any, made: Callable[[int], Any]) -> Maker:
    """An aggregation over a domain along the first pooled axis, made for its size."""

    def make(case: Case) -> Pool:
        def pooled(x: jax.Array) -> jax.Array:
            result: jax.Array = jaxpool.aggregate(x, by, made(x.shape[1]))
            return result

        return pooled

    return make


def _segments(size: int) -> Any:
    """Seven segments, in any order."""
    ids = lax.iota(np.int32, size) * np.int32(5) % np.int32(7)
    return jaxpool.segments(ids, 7, axis=1)


def _neighbors(size: int) -> Any:
    """Four cells anywhere for each of as many outputs as cells."""
    first = lax.broadcasted_iota(np.int32, (size, 4), 0) * np.int32(5)
    place = lax.broadcasted_iota(np.int32, (size, 4), 1) * np.int32(3)
    return jaxpool.neighbors((first + place) % np.int32(size), axis=1)


def _streamed(by: Any) -> Maker:
    """One step of causal windows, 8 cells each 4, from an empty state."""

    def make(case: Case) -> Pool:
        over = jaxpool.windows(8, 4, "CAUSAL", axes=1)
        init, step = jaxpool.stream(by, over)

        def pooled(x: jax.Array) -> jax.Array:
            result: jax.Array = step(init(x.shape, x.dtype), x)[1]
            return result

        return pooled

    return make


def _in_tiles(case: Case) -> Pool:
    """Tokens on the second axis, in tiles by their positions in a grid."""

    def pooled(x: jax.Array) -> jax.Array:
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        place = lax.iota(np.int32, tokens.shape[1]) * np.int32(5) % np.int32(56 * 56)
        positions = jnp.stack([place // np.int32(56), place % np.int32(56)], -1)
        return jaxpool.pool_by_positions(tokens, positions, 4, 14)

    return pooled


def _with_indices(make: Maker) -> Maker:
    """Values and indices, added up so that both are one array."""

    def both(x: jax.Array, pool: Callable[..., Any]) -> jax.Array:
        values, indices = pool(x)
        return values + indices.astype(values.dtype)

    return lambda case: partial(both, pool=make(case))


def _unpooled(case: Case) -> Pool:
    """Pooled, and put back by the indices."""
    pool = _windowed("max_pool_with_indices")(case)
    shape = case.shape[1:-1]
    return lambda x: jaxpool.max_unpool(*pool(x), shape)


def _in_bins(name: str, **options: Any) -> Maker:
    """A pool of half as many results as cells and one more, on each axis."""
    pool = getattr(jaxpool, name)
    return lambda case: (
        lambda x: pool(
            x, output_shape=tuple(n // 2 + 1 for n in case.shape[1:-1]), **options
        )
    )


def _reduced(op: Callable[..., Any], identity: float) -> Maker:
    """`lax.reduce_window`."""

    def make(case: Case) -> Pool:
        return lambda x: lax.reduce_window(
            x,
            np.asarray(identity, x.dtype),
            op,
            case.full(case.window),
            case.full(case.strides),
            "SAME",
            window_dilation=case.full(case.dilation),
        )

    return make


def _in_float32(maker: Maker) -> Maker:
    """Half floats are added up in float32, as by jaxpool."""
    return lambda case: lambda x: maker(case)(x.astype(np.float32)).astype(x.dtype)


def _averaged(case: Case) -> Pool:
    """An average of `lax.reduce_window`, which counts the padding, as Flax does."""
    return lambda x: _sum(case)(x) / math.prod(case.lengths)


def _normed(case: Case) -> Pool:
    """The usual 2-norm, whose squares overflow and whose gradient at 0 is NaN."""
    return lambda x: jnp.sqrt(_sum(case)(x * x))


_max, _min = _reduced(lax.max, -math.inf), _reduced(lax.min, math.inf)
_sum, _any = _reduced(lax.add, 0), _reduced(jnp.logaddexp, -math.inf)
# A row for each operator; it is compiled for every case, device, dtype and pass.
OPERATORS = {
    "max_pool": Operator(_windowed("max_pool"), _max, "short"),
    "min_pool": Operator(_windowed("min_pool"), _min, "short"),
    "sum_pool": Operator(_windowed("sum_pool"), _in_float32(_sum), rounded=_sum),
    "avg_pool": Operator(
        _windowed("avg_pool"), _in_float32(_averaged), rounded=_averaged
    ),
    "lp_pool": Operator(_windowed("lp_pool"), _normed),
    "logsumexp_pool": Operator(_windowed("logsumexp_pool")),
    "softmax_pool": Operator(_windowed("softmax_pool")),
    "global_softmax_pool": Operator(_global("global_softmax_pool"), cases=WHOLE),
    "power_mean_pool": Operator(_windowed("power_mean_pool"), cases=COMMON),
    **{
        name: Operator(_windowed(name), cases=COMMON)
        for name in ("var_pool", "median_pool")
    },
    **{
        name: Operator(_global(name), cases=WHOLE)
        for name in ("global_var_pool", "global_median_pool")
    },
    "std_pool": Operator(_windowed("std_pool"), cases=COMMON),
    **{
        f"{by!r} over segments": Operator(_over(by, _segments), cases=WHOLE)
        for by in (*LINKED, jaxpool.Variance(), jaxpool.TopKMean(2))
    },
    **{
        f"{by!r} over neighbors": Operator(_over(by, _neighbors), cases=WHOLE)
        for by in LINKED
    },
    "pool_by_positions": Operator(_in_tiles, cases=WHOLE),
    **{
        f"{by!r} in a stream": Operator(_streamed(by), cases=WHOLE)
        for by in (jaxpool.Max(), jaxpool.Softmax())
    },
    "pool": Operator(_windowed("pool", init=-math.inf, op=jnp.logaddexp), _any, "none"),
    "global_max_pool": Operator(_global("global_max_pool"), _max, "short", WHOLE),
    "global_min_pool": Operator(_global("global_min_pool"), _min, "short", WHOLE),
    "global_sum_pool": Operator(
        _global("global_sum_pool"), _in_float32(_sum), cases=WHOLE, rounded=_sum
    ),
    "global_avg_pool": Operator(
        _global("global_avg_pool"),
        _in_float32(_averaged),
        cases=WHOLE,
        rounded=_averaged,
    ),
    "global_lp_pool": Operator(_global("global_lp_pool"), _normed, cases=WHOLE),
    **{
        name: Operator(_with_indices(_windowed(name)), cases=COMMON)
        for name in ("max_pool_with_indices", "min_pool_with_indices")
    },
    **{
        name: Operator(_with_indices(_global(name)), cases=WHOLE)
        for name in ("global_max_pool_with_indices", "global_min_pool_with_indices")
    },
    "max_unpool": Operator(_unpooled, cases={"2/2 and back": COMMON["2/2"]}),
    **{
        name: Operator(_in_bins(name), cases=BINS)
        for name in ("adaptive_max_pool", "adaptive_avg_pool")
    },
    **{
        name: Operator(_in_bins(name, **DRAWN), cases=BINS)
        for name in ("fractional_max_pool", "fractional_avg_pool")
    },
    "adaptive_max_pool_with_indices": Operator(
        _with_indices(_in_bins("adaptive_max_pool_with_indices")), cases=BINS
    ),
    "fractional_max_pool_with_indices": Operator(
        _with_indices(_in_bins("fractional_max_pool_with_indices", **DRAWN)), cases=BINS
    ),
}
