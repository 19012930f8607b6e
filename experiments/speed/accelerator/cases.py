"""The pools that are timed, on each side: the library, `lax` and PyTorch."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from experiments.speed.peers import Pass

DTYPES = ("float32", "bfloat16")
Shape = tuple[int, ...]
Pool = Callable[..., Any]


class Case(NamedTuple):
    """One pooling of an array `[batch, *spatial, channels]`, by name.

    A window of 0 is the whole image. `bins` are the sizes of an adaptive pool. Of
    `segments`, the array is `[cells, channels]`; a label says if they are sorted.
    """

    kind: str
    label: str
    shape: Shape
    window: int = 0
    strides: int = 1
    padding: str = "VALID"
    bins: int = 0
    segments: int = 0

    @property
    def rank(self) -> int:
        """How many axes are pooled."""
        return len(self.shape) - 2

    @property
    def spatial(self) -> Shape:
        """The sizes of the pooled axes."""
        return self.shape[1:-1]


_NODES = (401408, 64)
_IMAGE, _VOLUME, _STEPS = (32, 112, 112, 64), (8, 32, 56, 56, 32), (64, 6272, 64)
WINDOWS = (
    ("2/2", _IMAGE, 2, 2, "VALID"),
    ("3/2 SAME", _IMAGE, 3, 2, "SAME"),
    ("3/1 SAME", _IMAGE, 3, 1, "SAME"),
    ("7/7", _IMAGE, 7, 7, "VALID"),
    ("5/1 SAME", _IMAGE, 5, 1, "SAME"),
    ("15/1 SAME", _IMAGE, 15, 1, "SAME"),
    ("3-D 2/2/2", _VOLUME, 2, 2, "VALID"),
)
FURTHER_WINDOWS = (
    ("1-D 3/1 SAME", _STEPS, 3, 1, "SAME"),
    ("1-D 9/1 SAME", _STEPS, 9, 1, "SAME"),
    ("4/1", _IMAGE, 4, 1, "VALID"),
    ("5/2 SAME", _IMAGE, 5, 2, "SAME"),
    ("7/2 SAME", _IMAGE, 7, 2, "SAME"),
    ("3-D 3/2 SAME", _VOLUME, 3, 2, "SAME"),
    ("3-D 3/1 SAME", _VOLUME, 3, 1, "SAME"),
)


def cases(quick: bool) -> list[tuple[Case, str]]:
    """Every case and dtype, 103 MB each; the last two have twice as many."""
    found = [Case(kind, *window) for kind in ("max", "avg") for window in WINDOWS]
    found += [Case(kind, "global", _IMAGE) for kind in ("max", "avg")]
    found += [Case("lp", *window) for window in WINDOWS[:3]]
    found += [Case("softmax", *window) for window in WINDOWS[:3]]
    found += [Case("softmax", "global", _IMAGE), Case("logsumexp", *WINDOWS[1])]
    for kind in ("max", "avg"):
        found.append(Case(kind, "adaptive 112 to 7", _IMAGE, bins=7))
        found.append(Case(kind, "adaptive 110 to 7", (32, 110, 110, 64), bins=7))
    found += [Case("var", *WINDOWS[1]), Case("var", "global", _IMAGE)]
    found += [Case("median", *window) for window in WINDOWS[:2]]
    for kind in ("max", "sum"):
        for label in ("700 segments, sorted", "700 segments"):
            found.append(Case(kind, label, _NODES, segments=700))
    large = [Case("max", f"{w[0]}, 128 images", *w[1:]) for w in WINDOWS[:2]]
    sized = _in_both_dtypes(found)
    return _sized(sized + [(_batch(case, 4), "bfloat16") for case in large], quick)


def windowed_cases(quick: bool) -> list[tuple[Case, str]]:
    """The cases of windows, and further ones."""
    further = [Case(kind, *w) for kind in ("max", "lp") for w in FURTHER_WINDOWS]
    windowed = [(case, dtype) for case, dtype in cases(quick) if case.window]
    return windowed + _sized(_in_both_dtypes(further), quick)


def _in_both_dtypes(cases: list[Case]) -> list[tuple[Case, str]]:
    """Twice as many images in bfloat16 have as many bytes as in float32."""
    pairs = [(case, dtype) for case in cases for dtype in DTYPES]
    return [(_batch(case, 1 + (d == "bfloat16")), d) for case, d in pairs]


def _sized(cases: list[tuple[Case, str]], quick: bool) -> list[tuple[Case, str]]:
    """The same; or a few of them, and tiny."""
    if not quick:
        return cases
    return [(case._replace(shape=_tiny(case)), dtype) for case, dtype in cases[::7]]


def _batch(case: Case, times: int) -> Case:
    batch, *others = case.shape
    return case._replace(shape=(batch * times, *others))


def _tiny(case: Case) -> Shape:
    """So small that a CPU rehearses it in no time."""
    if case.segments:
        return 2048, 4
    return (1, *(min(n // 4, 64) for n in case.spatial), 4)


Key = tuple[Case, str, Pass]


def types(case: Case, dtype: str) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The types of the input and of the result."""
    x = jax.ShapeDtypeStruct(case.shape, np.dtype(dtype))
    return x, jax.eval_shape(ours(case), x)


def ours(case: Case, **named: Any) -> Pool:
    """The pool of the library; padding counts in averages, as in those of `lax`."""
    if case.bins:
        pool = getattr(jaxpool, f"adaptive_{case.kind}_pool")
        return partial(pool, output_shape=(case.bins,) * case.rank)
    if case.segments:
        pool = getattr(jaxpool, f"segment_{case.kind}_pool")
        return lambda x: pool(x, _ids(case), case.segments)
    if not case.window:
        return getattr(jaxpool, f"global_{case.kind}_pool")  # type: ignore[no-any-return]
    return partial(
        getattr(jaxpool, f"{case.kind}_pool"),
        window=(case.window,) * case.rank,
        strides=case.strides,
        padding=case.padding,
        **({"count_include_pad": True} if case.kind == "avg" else {}),
        **named,
    )


def _ids(case: Case) -> jax.Array:
    """The segment of each cell."""
    cells = case.shape[0]
    number = lax.iota(np.int32, cells)
    if "sorted" in case.label:
        return number * np.int32(case.segments) // np.int32(cells)
    return number * np.int32(3) % np.int32(case.segments)


def of_lax(case: Case) -> Pool | None:
    """The same by `lax.reduce_window`, which adds up half floats in float32 as well."""
    if case.kind == "median":
        return None
    if case.segments:
        scatter = getattr(jax.ops, f"segment_{case.kind}")

        def scattered(x: jax.Array) -> jax.Array:
            found: jax.Array = scatter(x.astype(np.float32), _ids(case), case.segments)
            return found.astype(x.dtype)

        return scattered
    window, strides = case.window, case.strides
    if case.bins:
        if any(size % case.bins for size in case.spatial):
            return None
        window = strides = case.spatial[0] // case.bins
    lengths = (window,) * case.rank if window else case.spatial
    steps = (strides,) * case.rank
    geometry = (1, *lengths, 1), (1, *steps, 1), case.padding

    def reduced(x: jax.Array, identity: float, op: Callable[..., Any]) -> jax.Array:
        y = lax.reduce_window(x, np.asarray(identity, x.dtype), op, *geometry)
        return y if window else y.reshape(x.shape[0], x.shape[-1])

    def maximum(x: jax.Array) -> jax.Array:
        return reduced(x, -np.inf, lax.max)

    def summed(x: jax.Array) -> jax.Array:
        return reduced(x.astype(np.float32), 0, lax.add)

    def average(x: jax.Array) -> jax.Array:
        return (summed(x) / math.prod(lengths)).astype(x.dtype)

    def norm(x: jax.Array) -> jax.Array:
        wide = x.astype(np.float32)
        return jnp.sqrt(summed(wide * wide)).astype(x.dtype)

    def softmax(x: jax.Array) -> jax.Array:
        wide = x.astype(np.float32)
        weights = jnp.exp(wide)
        return (summed(weights * wide) / summed(weights)).astype(x.dtype)

    def logsumexp(x: jax.Array) -> jax.Array:
        return jnp.log(summed(jnp.exp(x.astype(np.float32)))).astype(x.dtype)

    def variance(x: jax.Array) -> jax.Array:
        wide = x.astype(np.float32)
        number = summed(jnp.ones_like(wide[:1, ..., :1]))
        mean, squares = (summed(a) / number for a in (wide, wide * wide))
        return (squares - mean * mean).astype(x.dtype)

    smooth = {"softmax": softmax, "logsumexp": logsumexp, "var": variance}
    return ({"max": maximum, "avg": average, "lp": norm} | smooth)[case.kind]


def of_torch(case: Case) -> Pool:
    """PyTorch's pool; "SAME" at stride 2 is a padding of 1 there, on both sides."""
    from torch.nn import functional

    if case.segments or case.kind in ("var", "median"):
        raise NotImplementedError
    rank, axes = case.rank, tuple(range(2, 2 + case.rank))
    if case.bins:
        pool = getattr(functional, f"adaptive_{case.kind}_pool{rank}d")
        return partial(pool, output_size=case.bins)
    if case.kind in ("softmax", "logsumexp"):
        return _smooth_of_torch(case)
    if not case.window:
        if case.kind == "max":
            return lambda x: x.amax(axes)
        return lambda x: x.mean(axes)
    pad = case.window // 2 if case.padding == "SAME" else 0
    pool = getattr(functional, f"{case.kind}_pool{rank}d")
    if case.kind == "lp":
        pad_of = functional.pad
        windows = partial(
            pool, norm_type=2, kernel_size=case.window, stride=case.strides
        )
        return (lambda x: windows(pad_of(x, (pad,) * 4))) if pad else windows
    options = {"kernel_size": case.window, "stride": case.strides, "padding": pad}
    return partial(pool, **options)


def _smooth_of_torch(case: Case) -> Pool:
    """The formulas that people write; they overflow where numbers are large."""
    average = of_torch(case._replace(kind="avg"))
    cells = case.window**case.rank

    def softmax(x: Any) -> Any:
        weights = x.exp()
        return average(weights * x) / average(weights)

    def logsumexp(x: Any) -> Any:
        return (average(x.exp()) * cells).log()

    return softmax if case.kind == "softmax" else logsumexp
