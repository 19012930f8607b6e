"""Legal pooling geometries, the inputs to pool, and the call under test.

`NAMED_CASES` is a hand-picked table, `cases()` a hypothesis strategy; both give a
`Case`. Shrunk hypothesis failures become named rows, kept for ever.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxpool
from jaxpool.engines import plan
from tests import oracle

IMPLEMENTATIONS = (None, *plan.IMPLEMENTATIONS)
KINDS = ("max", "min", "sum", "avg", "lp", "logsumexp")
EXTREMES, SMOOTH = KINDS[:2], KINDS[2:]
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_extreme = pytest.mark.parametrize("kind", EXTREMES)
every_smooth = pytest.mark.parametrize("kind", SMOOTH)

SPECIALS = (np.nan, np.inf, -np.inf)
CLOSE = {"rtol": 2e-5, "atol": 1e-5}  # of roots and quotients in float32
# Nothing about its two axes is the same.
GEOMETRY = {"window": (3, 2), "strides": (2, 1), "padding": ((1, 0), (0, 1))}


@dataclasses.dataclass(frozen=True)
class Case:
    """One geometry: the input's shape and the arguments every operator takes."""

    shape: tuple[int, ...]
    window: int | tuple[int, ...]
    strides: int | tuple[int, ...] | None = None
    padding: object = "VALID"
    dilation: int | tuple[int, ...] = 1
    axes: int | tuple[int, ...] | None = None
    ceil_mode: bool = False

    def kwargs(self):
        """Arguments for the operators and for the oracle alike."""
        fields = dataclasses.asdict(self)
        del fields["shape"]
        return fields


def _named(name, *args, **kwargs):
    return pytest.param(Case(*args, **kwargs), id=name)


NAMED_CASES = (
    _named("tiling_1d", (2, 8, 3), (2,)),
    _named("tiling_2d", (2, 6, 4, 3), (3, 2)),
    _named("tiling_2d_with_remainder", (1, 7, 5, 2), (2, 3)),
    _named("tiling_3d", (1, 4, 4, 6, 2), (2, 2, 3)),
    _named("overlap_1d", (2, 9, 2), (3,), (2,)),
    _named("overlap_2d", (1, 7, 8, 2), (3, 3), (2, 2)),
    _named("overlap_3d", (1, 4, 5, 3, 2), (2, 3, 2), (1, 2, 1)),
    _named("stride_one_same", (1, 5, 6, 2), (3, 3), (1, 1), "SAME"),
    _named("stride_one_window_seven", (1, 9, 8, 2), (7, 7), (1, 1)),
    _named("window_seven_padded_by_six", (1, 5, 1), (7,), (2,), ((6, 6),)),
    _named("stride_above_window", (1, 11, 7, 2), (2, 1), (3, 4)),
    _named("window_one", (2, 3, 4, 2), (1, 1)),
    _named("window_one_stride_two", (1, 6, 5, 2), (1, 1), (2, 2)),
    _named("whole_input", (2, 5, 3, 2), (5, 3)),
    _named("one_window_short_of_the_end", (1, 6, 5, 2), (5, 5)),
    _named("prime_extents", (1, 7, 11, 1), (3, 5), (2, 3), ((1, 2), (0, 4))),
    _named("same_even_window", (1, 5, 7, 1), (2, 4), (2, 3), "SAME"),
    _named("same_lower_even_window", (1, 5, 7, 1), (2, 4), (2, 3), "SAME_LOWER"),
    _named("causal_dilated", (1, 7, 2), (3,), (1,), "CAUSAL", (2,)),
    _named("padding_int", (1, 6, 6, 1), (3, 3), (2, 2), 1),
    _named("padding_per_axis", (1, 6, 6, 1), (3, 4), (2, 2), (2, 1)),
    _named("padding_low_only", (1, 6, 5, 1), (3, 2), (1, 2), ((2, 0), (1, 0))),
    _named("padding_high_only", (1, 6, 5, 1), (3, 2), (1, 2), ((0, 2), (0, 1))),
    _named("dilated", (1, 8, 7, 2), (3, 2), (1, 1), "VALID", (2, 3)),
    _named("dilated_strided", (1, 9, 7, 1), (3, 2), (2, 3), 1, (2, 2)),
    _named("dilated_stride_divides_dilation", (1, 12, 1), (3,), (2,), 0, (4,)),
    _named("dilated_window_of_padding_only", (1, 1, 2), (2,), (1,), ((1, 1),), (2,)),
    _named("ceil_overhang", (1, 7, 6, 1), (2, 4), (2, 4), 0, ceil_mode=True),
    _named("ceil_drops_window", (1, 3, 1), (2,), (2,), 1, ceil_mode=True),
    _named("ceil_last_window_starts_inside", (1, 6, 1), (2,), (5,), ceil_mode=True),
    _named("ceil_pad_overhang", (1, 4, 5, 1), (3, 3), (2, 3), 1, ceil_mode=True),
    _named("ceil_dilated", (1, 8, 6, 1), (2, 3), (3, 2), (1, 0), (3, 2), None, True),
    _named(
        "ceil_last_window_misses", (1, 2, 1), (2,), None, "CAUSAL", (3,), None, True
    ),
    _named("ceil_window_above_input", (1, 2, 1), (5,), (4,), ceil_mode=True),
    _named("ceil_same", (1, 7, 1), (3,), (2,), "SAME", ceil_mode=True),
    _named("axes_nchw", (2, 2, 6, 5), (3, 2), (2, 2), (1, 0), axes=(-2, -1)),
    _named("axes_time_of_bth", (2, 7, 3), 3, 2, "SAME", axes=1),
    _named("axes_apart", (5, 2, 6), (2, 3), (1, 2), ((0, 1), (2, 0)), axes=(0, 2)),
    _named("axes_only", (9,), 4, 2, axes=0),
    _named("ints_for_every_axis", (1, 7, 7, 2), 3, 2, 1, 2, axes=(1, 2)),
    _named("no_batch_axis", (6, 5, 2), (2, 2), (1, 2)),
    _named("three_batch_axes", (2, 1, 3, 4, 2), (2,), (1,)),
    _named("empty_batch", (0, 4, 4, 2), (2, 2)),
    _named("zero_channels", (2, 4, 4, 0), (3, 3), (1, 1), "SAME"),
    _named("cells_256", (1, 18, 17, 1), (16, 16), (1, 1)),
    _named("cells_above_256", (1, 18, 17, 1), (17, 17), (1, 1)),
    _named("long_window_not_dividing", (1, 64, 1), (61,)),
    _named("long_window_with_stride", (1, 90, 1), (61,), (7,)),
    _named("long_windows_tiling", (1, 100, 2), (33,), (33,), 5, ceil_mode=True),
    _named("long_dilated", (1, 80, 1), (19,), (5,), ((3, 40),), (4,)),
    _named("long_dilated_stride_one", (1, 60, 1), (17,), (1,), ((10, 5),), (3,)),
    _named("places_that_wrap", (1, 140, 9, 1), (3, 3), (2, 1), "SAME"),
    _named("places_above_half_a_byte", (1, 12, 11, 1), (9, 8), (1, 1)),
    _named("tiles_dilated", (1, 11, 8, 1), (2, 2), (4, 5), (1, 0), (3, 2)),
    _named("places_of_two_bytes", (1, 30, 30, 1), (6, 3), (1, 2), 1, (3, 4)),
    _named("cells_above_256_one_axis", (1, 330, 1), (300,), (15,)),
)

# Every case as chosen by default; the hardest ones also with each lowering by name.
HARDEST = (
    "whole_input",
    "one_window_short_of_the_end",
    "overlap_3d",
    "stride_above_window",
    "prime_extents",
    "dilated_strided",
    "dilated_window_of_padding_only",
    "ceil_pad_overhang",
    "axes_apart",
    "cells_256",
    "places_that_wrap",
    "places_above_half_a_byte",
    "tiles_dilated",
    "places_of_two_bytes",
    "long_window_with_stride",
    "long_windows_tiling",
    "long_dilated",
    "long_dilated_stride_one",
)
NAMED_RUNS = [
    pytest.param(*case.values, name, id=f"{case.id}-{name}")
    for case in NAMED_CASES
    for name in (IMPLEMENTATIONS if case.id in HARDEST else (None,))
]


@st.composite
def cases(draw):
    """Any legal geometry over one to three pooled axes of at most 7 cells."""
    ndim = draw(st.integers(1, 3))
    name = draw(st.sampled_from(["pairs", "VALID", "SAME", "SAME_LOWER", "CAUSAL"]))
    sizes, window, strides, dilation, pads = zip(
        *(draw(_axis(name)) for _ in range(ndim)), strict=True
    )
    batch = draw(st.lists(st.integers(0, 2), max_size=2))
    shape = [*batch, *sizes, draw(st.integers(0, 3))]
    axes = None
    if draw(st.booleans()):
        order = draw(st.permutations(range(len(shape))))
        first = len(batch)
        axes = sorted(order.index(first + i) for i in range(ndim))
        placed = dict(zip(axes, sizes, strict=True))
        others = iter([*batch, shape[-1]])
        shape = [placed[i] if i in placed else next(others) for i in range(len(shape))]
        axes = tuple(a - len(shape) if draw(st.booleans()) else a for a in axes)
    padding = pads if name == "pairs" else name
    ceil_mode = draw(st.booleans())
    return Case(tuple(shape), window, strides, padding, dilation, axes, ceil_mode)


@st.composite
def _axis(draw, name):
    """(size, win, stride, dil, (lo, hi)) of one axis, for a kind of padding."""
    size, dil = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    widest = (size - 1) // dil + 1 if name == "VALID" else 4
    win = draw(st.integers(1, min(4, widest)))
    span = (win - 1) * dil + 1
    lo = draw(st.integers(0, span - 1))
    hi = draw(st.integers(max(0, span - size - lo), span - 1))
    return size, win, draw(st.integers(1, 4)), dil, (lo, hi)


def distinct(shape, dtype=np.float32):
    """Distinct small integers around zero, shuffled: maxima and sums are exact."""
    size = int(np.prod(shape))
    values = np.random.default_rng(size).permutation(size) - size // 2
    return values.reshape(shape).astype(dtype)


def tied(shape, seed=0, specials=()):
    """Integers in [-2, 2], so most windows tie, with `specials` mixed in."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-2, 3, shape).astype(np.float32)
    for value in specials:
        x[rng.random(shape) < 0.15] = value
    return x


def mask(shape, seed=0, keep=0.5):
    """A random boolean mask; about half of the small windows have no valid cell."""
    return np.random.default_rng(seed + 1).random(shape) < keep


def column(row, dtype=np.float32):
    """A row of numbers as `[1, n, 1]`."""
    return np.array(row, dtype).reshape(1, -1, 1)


def cotangent(shape):
    """Small distinct-looking integers, the same for every call."""
    return (np.arange(np.prod(shape, dtype=int)) % 7 - 2.0).reshape(shape)


# A third of the time of many small programs; other tests run at full level.
quick_jit = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def pooling(kind, **options):
    """`x -> pooled x`, of `jaxpool.max_pool` for the kind "max"."""
    return functools.partial(getattr(jaxpool, f"{kind}_pool"), **options)


def with_indices(kind, **options):
    """`x -> (pooled x, indices)`, for maxima and minima."""
    return functools.partial(getattr(jaxpool, f"{kind}_pool_with_indices"), **options)


def value_and_grad(pool, x, g=None):
    """What `pool` makes of `x`, and the gradient for the cotangent `g`, or for ones.

    Of several results the first has the cotangent; the others are indices.
    """
    y, pull = jax.vjp(pool, x)
    if not isinstance(y, tuple):
        return y, pull(_like(y, g))[0]
    first, *indices = y
    none = (np.zeros(index.shape, jax.dtypes.float0) for index in indices)
    return y, pull((_like(first, g), *none))[0]


def _like(y, g):
    return jnp.ones_like(y) if g is None else jnp.asarray(g).astype(y.dtype)


def value_and_vjp(calls):
    """Run every `(op, kwargs, x, g)` in one jitted program: a list of (y, dx).

    `where` among the keyword arguments is passed as an array, not as a constant.
    """
    statics = [
        (op, {k: v for k, v in kwargs.items() if k != "where"})
        for op, kwargs, _, _ in calls
    ]

    @quick_jit
    def run(arrays):
        results = []
        for (op, kwargs), (x, g, where) in zip(statics, arrays, strict=True):
            pooled = functools.partial(op, **kwargs)
            if where is not None:
                pooled = functools.partial(pooled, where=where)
            results.append(value_and_grad(pooled, x, g))
        return results

    arrays = [
        (x, jnp.asarray(g, jnp.float32), kwargs.get("where"))
        for _, kwargs, x, g in calls
    ]
    return jax.device_get(run(arrays))


def check_against_oracle(checks, **tolerance):
    """Compare value and gradient with the oracle for every `(kind, x, kwargs)`.

    `kind` is the stem of a windowed operator ("max" for `jaxpool.max_pool`) and
    `kwargs` what both take; `implementation` goes to the library only.
    """
    calls, expected = [], []
    for kind, x, kwargs in checks:
        for_oracle = {k: v for k, v in kwargs.items() if k != "implementation"}
        g = cotangent(oracle.pool(x, kind, **for_oracle).shape)
        calls.append((getattr(jaxpool, f"{kind}_pool"), kwargs, x, g))
        expected.append(oracle.pool_and_grad(x, g, kind, **for_oracle))
    results = value_and_vjp(calls)
    for (kind, x, kwargs), got, want in zip(checks, results, expected, strict=True):
        for part, a, b in zip(("value", "gradient"), got, want, strict=True):
            assert a.dtype == x.dtype
            label = f"{part} of {kind}_pool({kwargs}), x.shape={x.shape}"
            np.testing.assert_allclose(a, b, err_msg=label, **tolerance)
