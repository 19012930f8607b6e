"""Targets: what the speed of the library is measured by, besides other libraries.

Each target names a piece of work, what it is compared with and a bound for the ratio of
the two times (or sizes). All cases are in float32 and channels-last unless said
otherwise; the calls of a case take turns, and the least time of each counts.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxpool
import jaxpool.compat.flax
from experiments.shared import report, training
from experiments.speed.peers import PASSES, Pass, Pool, both, prepare_jax
from experiments.speed.timing import interleaved, keep_memory

IMAGE, PLANES, MAPS = (8, 112, 112, 64), (16, 56, 56, 64), (8, 56, 56, 64)
WIDE, STEPS, VOLUME = (4, 128, 128, 32), (32, 2048, 64), (2, 16, 56, 56, 32)
# (shape, window, strides, padding), each number for all axes
COMMON = ((IMAGE, 2, 2, 0), (IMAGE, 3, 2, 1), (PLANES, 3, 1, 1), (MAPS, 5, 1, 2))
TILING = ((IMAGE, 2), (IMAGE, 3), (IMAGE, 4), (IMAGE, 8), ((32, 28, 28, 256), 7))
BINS = ((IMAGE, 7), (IMAGE, 50), (MAPS, 29), (MAPS, 64), ((32, 28, 28, 256), 13))
WHOLE = ((32, 28, 28, 256), IMAGE, (64, 512, 128), (128, 7, 7, 512))
KINDS = ("max", "avg")
Measured = Iterator[tuple[str, float]]


class Target(NamedTuple):
    """A bound for every ratio that `measure` yields, with the name of its case."""

    work: str
    against: str
    least: float
    most: float
    measure: Callable[[report.Job], Measured]


def ticks(job: report.Job) -> int:
    """One tick per target."""
    return len(TARGETS)


def run(job: report.Job) -> report.Finding:
    """Measure every target."""
    if not job.fresh_memory:
        keep_memory()
    found = {}
    for target in TARGETS:
        job.say(f"targets: {target.work}")
        cases = target.measure(job)
        found[target] = dict(itertools.islice(cases, 1) if job.quick else cases)
        job.tick()
    missed = [t for t, ratios in found.items() if not _is_met(t, ratios)]
    return report.Finding(
        results=[
            {"work": t.work, "against": t.against, "least": t.least, "most": t.most}
            | {"ratios": ratios}
            for t, ratios in found.items()
        ],
        tables=[_table(found)],
        conclusion=[f"{t.work}: {_misses(t, found[t])}" for t in missed]
        or ["every target is met"],
        files=[],
    )


def _is_met(target: Target, ratios: Mapping[str, float]) -> bool:
    return all(target.least <= ratio <= target.most for ratio in ratios.values())


def _misses(target: Target, ratios: Mapping[str, float]) -> str:
    """The cases that miss a target."""
    cases = [
        f"{case} {ratio:.2f}"
        for case, ratio in ratios.items()
        if not target.least <= ratio <= target.most
    ]
    return f"missed in {len(cases)} of {len(ratios)}: {', '.join(cases)}"


def _table(found: Mapping[Target, Mapping[str, float]]) -> Any:
    rows = []
    for target, ratios in found.items():
        bound = f">= {target.least:g}" if target.least else f"<= {target.most:g}"
        values = list(ratios.values())
        rows.append([f"{target.work} / {target.against}", bound])
        rows[-1] += [f"{min(values):.2f}", f"{max(values):.2f}"]
        rows[-1] += ["met" if _is_met(target, ratios) else "missed"]
    columns = ["ratio of times", "target", "least", "most", ""]
    return report.table("Targets", columns, rows)


def random(shape: tuple[int, ...], dtype: Any = np.float32) -> jax.Array:
    """Values to pool."""
    return jnp.asarray(np.random.default_rng(0).random(shape, np.float32), dtype)


def ours(kind: str, *args: Any, **kwargs: Any) -> Pool:
    """A pool of the library, of `(shape, window, strides, padding)`."""
    pool = getattr(jaxpool, f"{kind}_pool")
    shape, window, *rest = args
    window = (window,) * (len(shape) - 2)
    return lambda x: pool(x, window, *rest, **kwargs)


def flax(kind: str, *args: Any) -> Pool:
    """The same of Flax."""
    shape, window, stride, pad = args
    rank = len(shape) - 2
    pool = getattr(nnx, f"{kind}_pool")
    return lambda x: pool(x, (window,) * rank, (stride,) * rank, ((pad, pad),) * rank)


def times(
    job: report.Job, passes: Pass, pools: Mapping[str, tuple[Any, ...]]
) -> dict[str, float]:
    """The least seconds of each `(pool, array, further arguments of the pool)`."""
    calls = {}
    for name, (pool, *arrays) in pools.items():
        y = jax.eval_shape(pool, *arrays)
        g = jnp.ones(y.shape, y.dtype)
        calls[name] = prepare_jax(pool, passes, arrays[0], g, *arrays[1:])
    return interleaved(calls, job.full_or_quick(12, 4))


def long_windows(job: report.Job) -> Measured:
    """Window 63 against window 3, at stride 1."""
    for shape in (WIDE, STEPS):
        for kind in KINDS:
            for passes in PASSES:
                pools = {
                    str(w): (ours(kind, shape, w, 1, "SAME"), random(shape))
                    for w in (3, 63)
                }
                seconds = times(job, passes, pools)
                yield f"{kind} {len(shape) - 2}-D {passes}", _over(seconds, "63", "3")


def window_15(job: report.Job) -> Measured:
    """Flax's forward pass."""
    for kind in KINDS:
        args, x = (WIDE, 15, 1, 0), random(WIDE)
        pools = {"flax": (flax(kind, *args), x), "ours": (ours(kind, *args), x)}
        yield kind, _over(times(job, "forward", pools), "flax", "ours")


def copies(job: report.Job) -> Measured:
    """Reading and writing the same bytes."""
    for shape, window in TILING:
        for kind in KINDS:
            x = random(shape)
            pools = {
                "ours": (ours(kind, shape, window), x),
                "copy": (lambda x: x + 1, x),
            }
            seconds = times(job, "forward", pools)
            yield f"{kind} {window}/{window}", _over(seconds, "ours", "copy")


def short_floats(job: report.Job) -> Measured:
    """The same in float32."""
    dtypes = "bfloat16", "float16", "float32"
    for kind in KINDS:
        for case in (*COMMON, (WIDE, 31, 1, 15)):
            for passes in PASSES:
                pools = {d: (ours(kind, *case), random(case[0], d)) for d in dtypes}
                seconds = times(job, passes, pools)
                for dtype in dtypes[:2]:
                    name = f"{kind} {case[1]}/{case[2]} {passes} {dtype}"
                    yield name, _over(seconds, dtype, "float32")


def channels_first(job: report.Job) -> Measured:
    """Transposing, pooling and transposing back."""
    cases = (*COMMON[:3], ((16, 28, 28, 192), 3, 2, 0), ((32, 28, 28, 64), 7, 7, 0))
    for kind in KINDS:
        for shape, window, *rest in cases:
            x = jnp.moveaxis(random(shape), -1, 1)
            last = ours(kind, shape, window, *rest)

            def moved(x: jax.Array, last: Pool = last) -> jax.Array:
                return jnp.moveaxis(last(jnp.moveaxis(x, 1, -1)), -1, 1)

            first = ours(kind, shape, window, *rest, axes=(-2, -1))
            for passes in PASSES:
                pools = {"axes": (first, x), "moved": (moved, x)}
                seconds = times(job, passes, pools)
                name = f"{kind} {window}/{rest[0]} of {shape[1]} {passes}"
                yield name, _over(seconds, "axes", "moved")


def masks(job: report.Job) -> Measured:
    """The same without a mask."""
    for kind in ("max", "avg", "sum"):
        for case in COMMON[:3]:
            x = random(case[0])

            def masked(
                x: jax.Array, where: jax.Array, kind: str = kind, case: Any = case
            ) -> jax.Array:
                return ours(kind, *case, where=where)(x)

            for name, shape in (("full", x.shape), ("spatial", (*x.shape[:-1], 1))):
                where = random(shape) < 0.5
                pools = {
                    "mask": (masked, x, where),
                    "none": (ours(kind, *case), x),
                }
                for passes in PASSES:
                    seconds = times(job, passes, pools)
                    label = f"{kind} {case[1]}/{case[2]} {passes} {name}"
                    yield label, _over(seconds, "mask", "none")


def whole_axes(job: report.Job) -> Measured:
    """`jnp.max` and `jnp.mean`."""
    for kind, function in (("max", jnp.max), ("avg", jnp.mean)):
        for shape in WHOLE:
            axes = tuple(range(1, len(shape) - 1))
            pools = {
                "ours": (getattr(jaxpool, f"global_{kind}_pool"), random(shape)),
                "jnp": (partial(function, axis=axes), random(shape)),
            }
            for passes in PASSES:
                seconds = times(job, passes, pools)
                yield f"{kind} {shape} {passes}", _over(seconds, "ours", "jnp")


def bins(job: report.Job) -> Measured:
    """Averages of the same bins by products with matrices."""
    for shape, out in BINS:
        rows, columns = (_averaging(n, out) for n in shape[1:3])

        def products(
            x: jax.Array, rows: np.ndarray = rows, columns: np.ndarray = columns
        ) -> jax.Array:
            return jnp.einsum("bhwc,ph,qw->bpqc", x, rows, columns)

        for kind in KINDS:
            pool = ours(f"adaptive_{kind}", shape, out)
            pools = {"ours": (pool, random(shape)), "matmul": (products, random(shape))}
            for passes in PASSES:
                seconds = times(job, passes, pools)
                name = f"{kind} {shape[1]} to {out} {passes}"
                yield name, _over(seconds, "ours", "matmul")


def _averaging(size: int, out: int) -> np.ndarray:
    """The matrix whose product with an axis averages its bins."""
    pool = partial(jaxpool.adaptive_avg_pool, output_shape=out, axes=0)
    return np.asarray(pool(jnp.eye(size)))


def compiling(job: report.Job) -> Measured:
    """Compiling Flax's."""
    for kind in KINDS:
        for case in (*COMMON, (VOLUME, 3, 1, 1), (WIDE, 63, 1, 31)):
            for passes in PASSES:
                pools = ours(kind, *case), flax(kind, *case)
                one, other = (_compile_seconds(p, passes, case[0]) for p in pools)
                yield f"{kind} {case[1]}/{case[2]} {passes} ({one:.2f} s)", one / other


def _compile_seconds(pool: Pool, passes: Pass, shape: tuple[int, ...]) -> float:
    x = jax.ShapeDtypeStruct(shape, np.float32)
    y = jax.eval_shape(pool, x)
    seconds = []
    for _ in range(3):
        jax.clear_caches()
        begin = time.perf_counter()
        _compiled(pool, passes, x, y)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def _compiled(pool: Pool, passes: Pass, x: Any, y: Any) -> Any:
    if passes == "forward":
        return jax.jit(pool).lower(x).compile()
    return jax.jit(partial(both, pool)).lower(x, y).compile()


def temporaries(job: report.Job) -> Measured:
    """The input's bytes."""
    for kind in KINDS:
        for case in (*COMMON, (VOLUME, 2, 2, 0), (STEPS, 3, 1, 1)):
            for passes in PASSES:
                x = jax.ShapeDtypeStruct(case[0], np.float32)
                pool = ours(kind, *case)
                compiled = _compiled(pool, passes, x, jax.eval_shape(pool, x))
                size = compiled.memory_analysis().temp_size_in_bytes
                yield (
                    f"{kind} {len(case[0]) - 2}-D {case[1]}/{case[2]} {passes}",
                    size / (4 * np.prod(case[0])),
                )


class Blocks(nnx.Module):
    """Three blocks of convolution, ReLU and max pooling, and a last layer."""

    def __init__(self, pool: Pool, rngs: nnx.Rngs):
        sizes = (3, 32, 64, 64)
        self.pool = pool
        self.layers = nnx.List(
            nnx.Conv(size, out, (3, 3), rngs=rngs)
            for size, out in itertools.pairwise(sizes)
        )
        self.last = nnx.Linear(sizes[-1], 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Scores of ten classes."""
        for layer in self.layers:
            x = self.pool(nnx.relu(layer(x)))
        return self.last(x.mean((1, 2)))


def training_steps(job: report.Job) -> Measured:
    """The same with Flax's pooling: one import is another."""
    loss = optax.softmax_cross_entropy_with_integer_labels
    data = training.Data(
        (np.random.default_rng(0).random((128, 32, 32, 3), np.float32),),
        np.arange(128) % 10,
    )
    for window in (2, 3):
        same = {
            name: partial(
                pooling.max_pool,
                window_shape=(window, window),
                strides=(2, 2),
                padding="SAME",
            )
            for name, pooling in {"ours": jaxpool.compat.flax, "flax": nnx}.items()
        }
        builds = {name: partial(Blocks, pool) for name, pool in same.items()}
        recipe = training.Recipe(loss, 1, 128, 1e-3)
        losses, seconds = training.compare_steps(
            builds, recipe, data, warm_up=3, rounds=job.full_or_quick(25, 6)
        )
        np.testing.assert_allclose(losses["ours"], losses["flax"], rtol=1e-3)
        yield f"{window}/2", min(seconds["flax"]) / min(seconds["ours"])


def _over(seconds: Mapping[str, float], one: str, other: str) -> float:
    return seconds[one] / seconds[other]


ANY = float("inf")
TARGETS = (
    Target("window 63", "window 3", 0, 8, long_windows),
    Target("Flax, window 15, forward", "jaxpool", 100, ANY, window_15),
    Target("tiling windows, forward", "a copy", 0, 3, copies),
    Target("short floats", "float32", 0, 1.5, short_floats),
    Target("channels first", "moving the channels", 0, 1, channels_first),
    Target("with a mask", "without", 0, 3, masks),
    Target("global pools", "jnp.max and jnp.mean", 0, 1.2, whole_axes),
    Target("adaptive pools", "products with matrices", 0, 1.5, bins),
    Target("compiling", "compiling Flax's", 0, 3, compiling),
    Target("bytes of temporaries", "bytes of the input", 0, 1.01, temporaries),
    Target(
        "training step with Flax's pools", "with compat.flax", 2, ANY, training_steps
    ),
)
