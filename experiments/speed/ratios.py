"""What is timed for the targets: pairs of calls that take turns.

Each function yields the name of a case and the ratio of two times; its docstring says
what the library is compared with.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import jaxpool
import jaxpool.compat.flax
from experiments.shared import report, training
from experiments.speed.cases import (
    BINS,
    COMMON,
    IMAGE,
    KINDS,
    STEPS,
    WIDE,
    Measured,
    flax,
    ours,
    over,
    random,
    times,
)
from experiments.speed.peers import PASSES, Pass, Pool, softmax_formula
from experiments.speed.timing import interleaved

TILING = ((IMAGE, 2), (IMAGE, 3), (IMAGE, 4), (IMAGE, 8), ((32, 28, 28, 256), 7))
WHOLE = ((32, 28, 28, 256), IMAGE, (64, 512, 128), (128, 7, 7, 512))


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
                yield f"{kind} {len(shape) - 2}-D {passes}", over(seconds, "63", "3")


def long_monoids(job: report.Job) -> Measured:
    """Window 63 against window 3, at stride 1, of what divides or comes from a user."""
    shape = (8, 512, 32)
    init = (-np.inf, np.int32(-1))

    def larger(a: Any, b: Any) -> Any:
        return jax.tree.map(partial(jnp.where, b[0] > a[0]), b, a)

    def carrying(x: jax.Array, window: int) -> jax.Array:
        places = jax.lax.broadcasted_iota(np.int32, x.shape, 1)
        geometry = {"window": window, "strides": 1, "padding": "SAME", "axes": 1}
        found: jax.Array = jaxpool.pool((x, places), init, larger, **geometry)[0]
        return found

    def product(a: Any, b: Any) -> Any:
        (p, q, r, s), (t, u, v, w) = a, b
        return p * t + q * v, p * u + q * w, r * t + s * v, r * u + s * w

    def multiplied(x: jax.Array, window: int) -> jax.Array:
        geometry = {"window": window, "strides": 1, "padding": "SAME", "axes": 1}
        found: Any = jaxpool.pool((x, x, -x, x), (1, 0, 0, 1), product, **geometry)
        return jnp.stack(found).sum(0)

    makers: dict[str, Callable[[int], Pool]] = {
        kind: partial(ours, kind, shape, strides=1, padding="SAME")
        for kind in ("min", "sum", "lp", "logsumexp", "softmax", "power_mean", "std")
    }
    makers["pool, a pair"] = lambda window: partial(carrying, window=window)
    makers["pool, 2x2 matrices"] = lambda window: partial(multiplied, window=window)
    for name, maker in makers.items():
        for passes in PASSES:
            pools = {str(w): (maker(w), random(shape)) for w in (3, 63)}
            yield f"{name} {passes}", over(times(job, passes, pools), "63", "3")


def softmaxes(job: report.Job) -> Measured:
    """The formula of two averages, which overflows."""
    for case in COMMON[:3]:
        formula = partial(softmax_formula, ours("avg", *case), jnp.exp)
        x = random(case[0])
        pools = {"ours": (ours("softmax", *case), x), "formula": (formula, x)}
        for passes in PASSES:
            seconds = times(job, passes, pools)
            yield f"{case[1]}/{case[2]} {passes}", over(seconds, "ours", "formula")


EAGER = "max", "avg", "lp", "logsumexp", "softmax", "power_mean", "var", "median"
NODES, GROUPS = (65536, 64), 700


def segment_values(job: report.Job) -> Measured:
    """`jax.ops`, forward."""
    return _segments(job, "forward")


def segment_gradients(job: report.Job) -> Measured:
    """`jax.ops`, forward and backward."""
    return _segments(job, "both")


def _segments(job: report.Job, passes: Pass) -> Measured:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, GROUPS, NODES[0]).astype(np.int32)
    for order, each in (("sorted", np.sort(ids)), ("in no order", ids)):
        for kind in ("sum", "max"):
            numbers = jnp.asarray(each)
            pool = partial(
                getattr(jaxpool, f"segment_{kind}_pool"), num_segments=GROUPS
            )
            rival = partial(getattr(jax.ops, f"segment_{kind}"), num_segments=GROUPS)
            pools = {
                "ours": (pool, random(NODES), numbers),
                "jax": (rival, random(NODES), numbers),
            }
            yield f"{kind}, {order}", over(times(job, passes, pools), "ours", "jax")


def medians(job: report.Job) -> Measured:
    """A sort of patches."""
    shape = (4, 56, 56, 32)
    for window in (3, 5):

        def patches(x: jax.Array, window: int = window) -> jax.Array:
            sides = range(window)
            size = x.shape[1] - window + 1
            cells = [x[:, i : i + size, j : j + size] for i in sides for j in sides]
            return jnp.median(jnp.stack(cells, -1), -1)

        pools = {
            "ours": (ours("median", shape, window, 1), random(shape)),
            "sort": (patches, random(shape)),
        }
        for passes in PASSES:
            seconds = times(job, passes, pools)
            yield f"{window}/1 {passes}", over(seconds, "ours", "sort")


def window_15(job: report.Job) -> Measured:
    """Flax's forward pass."""
    for kind in KINDS:
        args, x = (WIDE, 15, 1, 0), random(WIDE)
        pools = {"flax": (flax(kind, *args), x), "ours": (ours(kind, *args), x)}
        yield kind, over(times(job, "forward", pools), "flax", "ours")


def eager_calls(job: report.Job) -> Measured:
    """An average of Flax's, called eagerly."""
    x, ids = jnp.ones((1, 8, 8, 4)), jnp.zeros(1, np.int32)
    calls: dict[str, Callable[[], Any]] = {
        f"{kind}_pool": partial(getattr(jaxpool, f"{kind}_pool"), x, (2, 2))
        for kind in EAGER
    }
    calls |= {
        "global_max_pool": partial(jaxpool.global_max_pool, x),
        "adaptive_avg_pool": partial(jaxpool.adaptive_avg_pool, x, (3, 3)),
        "pool": partial(jaxpool.pool, x, 0.0, jnp.add, (2, 2)),
        "segment_max_pool": partial(jaxpool.segment_max_pool, x, ids, 4),
    }
    flax_pool = partial(nnx.avg_pool, x, (2, 2), (2, 2))
    seconds = interleaved(calls | {"flax": flax_pool}, job.full_or_quick(200, 20))
    yield from ((name, over(seconds, name, "flax")) for name in calls)


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
            yield f"{kind} {window}/{window}", over(seconds, "ours", "copy")


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
                    yield name, over(seconds, dtype, "float32")


def same_paddings(job: report.Job) -> Measured:
    """Windows of 3 at strides of 2, one padded cell on each side."""
    for kind in KINDS:
        for dtype in ("float32", "bfloat16"):
            for passes in PASSES:
                x = random(IMAGE, dtype)
                pools = {p: (ours(kind, IMAGE, 3, 2, p), x) for p in ("SAME", 1)}
                seconds = times(job, passes, pools)
                yield f"{kind} {passes} {dtype}", over(seconds, "SAME", 1)


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
                yield name, over(seconds, "axes", "moved")


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
                    yield label, over(seconds, "mask", "none")


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
                yield f"{kind} {shape} {passes}", over(seconds, "ours", "jnp")


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
                yield name, over(seconds, "ours", "matmul")


def _averaging(size: int, out: int) -> np.ndarray:
    """The matrix whose product with an axis averages its bins."""
    pool = partial(jaxpool.adaptive_avg_pool, output_shape=out, axes=0)
    return np.asarray(pool(jnp.eye(size)))


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
