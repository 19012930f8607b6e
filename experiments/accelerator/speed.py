"""Speed: large pools as a share of the bandwidth of a copy, beside `lax` and PyTorch.

The bytes of a pass are those that must move: the input once and the result once, and
with the gradient the cotangent and the gradient too. What a library keeps between the
passes is its own affair, and does not count. A time is the median over loops of calls
with one wait at the end of each loop; inputs alternate, so that no cache holds them.
"""

import contextlib
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from experiments import figures, report
from experiments.peers import PASSES, Pass, both

LOOPS, LOOP_SECONDS, MOST_CALLS = 7, 0.02, 200
INPUTS = 3  # that take turns
THREADS = 8  # that compile
WORST = 12  # cases listed last
SLOW = 0.2  # seconds from which on one call is enough
DTYPES = ("float32", "bfloat16")
TORCH_SECONDS = 150

Shape = tuple[int, ...]


class Case(NamedTuple):
    """One pooling of an array `[batch, *spatial, channels]`, by name.

    A window of 0 is the whole image. `bins` are the sizes of an adaptive pool.
    """

    kind: str
    label: str
    shape: Shape
    window: int = 0
    strides: int = 1
    padding: str = "VALID"
    bins: int = 0

    @property
    def rank(self) -> int:
        """How many axes are pooled."""
        return len(self.shape) - 2

    @property
    def spatial(self) -> Shape:
        """The sizes of the pooled axes."""
        return self.shape[1:-1]


def _cases(quick: bool) -> list[tuple[Case, str]]:
    """Every case and dtype, 103 MB each; the last two have twice as many."""
    image, volume, odd = (32, 112, 112, 64), (8, 32, 56, 56, 32), (32, 110, 110, 64)
    windows = (
        ("2/2", image, 2, 2, "VALID"),
        ("3/2 SAME", image, 3, 2, "SAME"),
        ("3/1 SAME", image, 3, 1, "SAME"),
        ("7/7", image, 7, 7, "VALID"),
        ("5/1 SAME", image, 5, 1, "SAME"),
        ("15/1 SAME", image, 15, 1, "SAME"),
        ("3-D 2/2/2", volume, 2, 2, "VALID"),
    )
    cases = [Case(kind, *window) for kind in ("max", "avg") for window in windows]
    cases += [Case(kind, "global", image) for kind in ("max", "avg")]
    cases += [Case("lp", *window) for window in windows[:3]]
    for kind in ("max", "avg"):
        cases.append(Case(kind, "adaptive 112 to 7", image, bins=7))
        cases.append(Case(kind, "adaptive 110 to 7", odd, bins=7))
    both_dtypes = [(case, dtype) for case in cases for dtype in DTYPES]
    # Twice as many images in bfloat16 have as many bytes as in float32.
    sized = [(_batch(c, 1 + (d == "bfloat16")), d) for c, d in both_dtypes]
    large = [Case("max", f"{w[0]}, 128 images", *w[1:]) for w in windows[:2]]
    sized += [(_batch(case, 4), "bfloat16") for case in large]
    if not quick:
        return sized
    tiny = [case._replace(shape=_tiny(case)) for case, _ in sized]
    return [(case, dtype) for case, (_, dtype) in zip(tiny, sized, strict=True)][::5]


def _batch(case: Case, times: int) -> Case:
    batch, *others = case.shape
    return case._replace(shape=(batch * times, *others))


def _tiny(case: Case) -> Shape:
    """So small that a CPU rehearses it in no time."""
    return (1, *(n // 4 for n in case.spatial), 4)


class Row(NamedTuple):
    """The seconds of one pass of one case, of each side that was timed."""

    case: Case
    dtype: str
    passes: Pass
    bytes: int
    seconds: dict[str, float]

    def __str__(self) -> str:
        """Name the measurement."""
        passes = "forward" if self.passes == "forward" else "both passes"
        return f"{self.case.kind} {self.case.label} {self.dtype}, {passes}"

    def share(self, side: str, bandwidth: float) -> float:
        """Per cent of the bandwidth of a copy; NaN where nothing was timed."""
        seconds = self.seconds.get(side, math.nan)
        return 100 * self.bytes / seconds / bandwidth

    def ratio(self, side: str) -> float:
        """The seconds of a rival over ours."""
        return self.seconds.get(side, math.nan) / self.seconds.get("jaxpool", math.nan)


def ticks(job: report.Job) -> int:
    """One tick a case, a dtype and a pass, to compile and to time."""
    return 2 * len(PASSES) * len(_cases(job.quick))


def run(job: report.Job, deadline: float) -> report.Finding:
    """Measure a copy, compile everything, and time it."""
    copies = _copies(job)
    bandwidth = max(copies.values())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as other:
        torch = other.submit(torch_seconds, job.quick, job.cpu, TORCH_SECONDS)
        programs = _compiled(job)
        theirs, said = _of_torch(torch)
    rows, failures, notes = [], [], []
    for case, dtype in _cases(job.quick):
        for passes in PASSES:
            job.say(f"speed: {case.kind} {case.label}")
            key = case, dtype, passes
            if time.monotonic() < deadline:
                row, wrong, of_lax = _timed(key, programs, theirs.get(key))
                rows.append(row)
                failures += wrong
                notes += of_lax
            job.tick()
    left = len(PASSES) * len(_cases(job.quick)) - len(rows)
    lines = [
        "a copy moves "
        + ", ".join(f"{b / 1e9:.0f} GB/s ({n})" for n, b in copies.items()),
        f"a call of nothing takes {1e6 * _dispatch():.0f} us of the host's time",
        said,
        *notes,
        *([f"{left} measurements were left out for lack of time"] if left else []),
        *_worst(rows, bandwidth),
    ]
    return report.Finding(
        results={
            "copies": copies,
            "rows": [
                {"case": str(row), "shape": row.case.shape, "bytes": row.bytes}
                | {"seconds": row.seconds, "per cent": row.share("jaxpool", bandwidth)}
                for row in rows
            ],
        },
        tables=[_table(rows, bandwidth)],
        conclusion=lines,
        files=[_drawn(job, rows, bandwidth)],
        failures=failures,
    )


def seconds(
    call: Callable[..., Any], inputs: Sequence[Any], wait: Callable[[Any], Any]
) -> float:
    """Seconds of a call: the median over loops of many, with one wait a loop."""
    wait(call(*inputs[0]))
    begin = time.perf_counter()
    wait(call(*inputs[-1]))
    once = time.perf_counter() - begin
    if once > SLOW:
        return once
    count = min(max(len(inputs), math.ceil(LOOP_SECONDS / once)), MOST_CALLS)
    loops = []
    for _ in range(LOOPS):
        begin = time.perf_counter()
        for i in range(count):
            last = call(*inputs[i % len(inputs)])
        wait(last)
        loops.append((time.perf_counter() - begin) / count)
    return statistics.median(loops)


def _copies(job: report.Job) -> dict[str, float]:
    """Bytes a second of programs that read an array and write another, by name."""
    shape = (32, 112, 112, 64) if not job.quick else (4, 28, 28, 16)
    inputs = [(jnp.full(shape, i, np.float32),) for i in range(INPUTS)]
    found = {}
    for name, copy in (("copy", jnp.copy), ("negation", jnp.negative)):
        took = seconds(jax.jit(copy), inputs, jax.block_until_ready)
        found[name] = 2 * inputs[0][0].nbytes / took
    return found


def _dispatch() -> float:
    """Seconds that the host needs to start a program that does next to nothing."""
    program = jax.jit(jnp.negative).lower(jnp.zeros(8)).compile()
    return seconds(program, [(jnp.zeros(8),)], jax.block_until_ready)


Key = tuple[Case, str, Pass]


def _ours(case: Case) -> Callable[[jax.Array], jax.Array]:
    """The pool of the library; padding counts in averages, as in those of `lax`."""
    if case.bins:
        pool = getattr(jaxpool, f"adaptive_{case.kind}_pool")
        return partial(pool, output_shape=(case.bins,) * case.rank)
    if not case.window:
        return getattr(jaxpool, f"global_{case.kind}_pool")  # type: ignore[no-any-return]
    return partial(
        getattr(jaxpool, f"{case.kind}_pool"),
        window=(case.window,) * case.rank,
        strides=case.strides,
        padding=case.padding,
        **({"count_include_pad": True} if case.kind == "avg" else {}),
    )


def _of_lax(case: Case) -> Callable[[jax.Array], jax.Array] | None:
    """The same by `lax.reduce_window`, which adds up half floats in float32 as well."""
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

    return {"max": maximum, "avg": average, "lp": norm}[case.kind]


def _types(case: Case, dtype: str) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """The types of the input and of the result."""
    x = jax.ShapeDtypeStruct(case.shape, np.dtype(dtype))
    return x, jax.eval_shape(_ours(case), x)


def _compiled(job: report.Job) -> dict[tuple[Key, str], Any]:
    """All programs, compiled in several threads; or the exceptions that they raise."""
    found: dict[tuple[Key, str], Any] = {}

    def compile_one(key: Key) -> Iterator[tuple[str, Any]]:
        case, dtype, passes = key
        x, y = _types(case, dtype)
        for side, pool in (("jaxpool", _ours(case)), ("lax", _of_lax(case))):
            if pool is None:
                continue
            program, types = (
                (partial(both, pool), (x, y))
                if passes == "both"
                else (
                    pool,
                    (x,),
                )
            )
            try:
                yield side, jax.jit(program).lower(*types).compile()
            except Exception as error:  # of whatever type a compiler raises
                yield side, error

    keys = [(c, d, p) for c, d in _cases(job.quick) for p in PASSES]
    with ThreadPoolExecutor(THREADS) as threads:
        for key, made in zip(
            keys, threads.map(lambda k: list(compile_one(k)), keys), strict=True
        ):
            job.say("speed: compiling")
            job.tick()
            found |= {(key, side): program for side, program in made}
    return found


def _timed(
    key: Key, programs: dict[tuple[Key, str], Any], torch: float | None
) -> tuple[Row, list[str], list[str]]:
    """Time both sides of one pass; what is wrong with our side, and with `lax`."""
    case, dtype, passes = key
    x, y = _types(case, dtype)
    arrays = [_random(i, x, y if passes == "both" else None) for i in range(INPUTS)]
    took: dict[str, float] = {} if torch is None else {"torch": torch}
    results: dict[str, list[jax.Array]] = {}
    wrong: dict[str, list[str]] = {"jaxpool": [], "lax": []}
    name = f"{case.kind} {case.label} {dtype} {passes}"
    for side in ("jaxpool", "lax"):
        program = programs.get((key, side))
        if program is None:
            continue
        try:
            if isinstance(program, Exception):
                raise program
            results[side] = jax.tree.leaves(program(*arrays[0]))
            took[side] = seconds(program, arrays, jax.block_until_ready)
        except Exception as error:  # of whatever type a device raises
            text = f"{name}, {side}: {type(error).__name__}: {str(error)[:200]}"
            wrong[side].append(text)
    if len(results) == 2:
        allowed = 1e-4 if dtype == "float32" else 2e-2
        pairs = list(zip(results["jaxpool"], results["lax"], strict=True))
        for part, (ours, theirs) in zip(("values", "gradient"), pairs, strict=False):
            error = float(_distance(ours, theirs))
            if not error <= allowed:
                text = f"{name}: {part} and those of lax are {error:.2g} apart"
                wrong["jaxpool"].append(text)
    size = 2 if passes == "both" else 1
    moved = size * sum(math.prod(t.shape) * t.dtype.itemsize for t in (x, y))
    return Row(case, dtype, passes, moved, took), wrong["jaxpool"], wrong["lax"]


def _random(
    seed: int, x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct | None
) -> tuple[jax.Array, ...]:
    """An input, and a cotangent of the result."""
    keys = jax.random.split(jax.random.key(seed))
    types = [x] if y is None else [x, y]
    pairs = zip(keys, types, strict=False)
    return tuple(jax.random.normal(k, t.shape, t.dtype) for k, t in pairs)


@jax.jit
def _distance(ours: jax.Array, theirs: jax.Array) -> jax.Array:
    """The norm of the difference over that of the second."""
    a, b = ours.reshape(-1).astype(np.float32), theirs.reshape(-1).astype(np.float32)
    return jnp.sqrt(jnp.sum((a - b) ** 2) / jnp.sum(b**2))


def torch_seconds(quick: bool, cpu: bool, limit: float) -> dict[Key, float]:
    """Seconds of PyTorch's own pools, channels last, eager; in a process of its own."""
    import torch

    if not cpu and not torch.cuda.is_available():
        raise ImportError("PyTorch finds no GPU")
    device = "cpu" if cpu else "cuda"
    deadline = time.monotonic() + limit
    found: dict[Key, float] = {}
    for case, dtype in _cases(quick):
        if time.monotonic() < deadline:
            with contextlib.suppress(NotImplementedError):
                found |= _torch_case(case, dtype, device)
    return found


def _torch_case(case: Case, dtype: str, device: str) -> dict[Key, float]:
    """Seconds of both passes of one case."""
    import torch

    pool = _of_torch_pool(case)
    layout = torch.channels_last if case.rank == 2 else torch.channels_last_3d

    def made(*shape: int) -> Any:
        x = torch.randn(*shape, device=device, dtype=getattr(torch, dtype))
        return x.to(memory_format=layout) if x.ndim == case.rank + 2 else x

    def forward(x: Any) -> Any:
        with torch.inference_mode():
            return pool(x)

    def backward_too(x: Any, g: Any) -> Any:
        y = pool(x)
        return y, torch.autograd.grad(y, x, g)

    def wait(_: Any) -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    xs = [made(case.shape[0], case.shape[-1], *case.spatial) for _ in range(INPUTS)]
    took = seconds(forward, [(x,) for x in xs], wait)
    found: dict[Key, float] = {(case, dtype, "forward"): took}
    gs = [made(*pool(xs[0]).shape) for _ in range(INPUTS)]
    pairs = [(x.requires_grad_(), g) for x, g in zip(xs, gs, strict=True)]
    return found | {(case, dtype, "both"): seconds(backward_too, pairs, wait)}


def _of_torch_pool(case: Case) -> Callable[[Any], Any]:
    """PyTorch's pool; "SAME" at stride 2 is a padding of 1 there, on both sides."""
    from torch.nn import functional

    rank, axes = case.rank, tuple(range(2, 2 + case.rank))
    if case.bins:
        pool = getattr(functional, f"adaptive_{case.kind}_pool{rank}d")
        return partial(pool, output_size=case.bins)
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


def _of_torch(torch: Future[dict[Key, float]]) -> tuple[dict[Key, float], str]:
    """What PyTorch takes, and what to say of it."""
    try:
        found = torch.result()
    except Exception as error:  # of whatever type an import raises
        return {}, f"PyTorch was not timed: {type(error).__name__}: {error}"[:200]
    return found, f"{len(found)} passes of PyTorch were timed, eager, channels last"


SIDES = ("jaxpool", "lax", "torch")


def _worst(rows: list[Row], bandwidth: float) -> list[str]:
    """The cases that are furthest from a copy, and those where a rival is faster."""
    lines = []
    shares = sorted((row.share("jaxpool", bandwidth), str(row)) for row in rows)
    text = "; ".join(f"{name} {share:.0f} %" for share, name in shares[:WORST])
    lines.append(f"furthest from the copy: {text}")
    for side in SIDES[1:]:
        ratios = sorted(
            (row.ratio(side), str(row)) for row in rows if side in row.seconds
        )
        slower = [f"{name} {ratio:.2f}" for ratio, name in ratios[:WORST]]
        behind = sum(ratio < 1 for ratio, _ in ratios)
        text = f"{side} is faster in {behind} of {len(ratios)}"
        lines.append(f"{text}; its time over ours is least in {'; '.join(slower)}")
    return lines


def _table(rows: list[Row], bandwidth: float) -> Any:
    """Microseconds, per cent of the copy, and ratios."""
    columns = ["", "MB", *(f"{side}, us" for side in SIDES)]
    columns += [f"{side}, %" for side in SIDES] + ["lax/ours", "torch/ours"]
    lines = []
    for row in rows:
        times = (row.seconds.get(side, math.nan) for side in SIDES)
        shares = (row.share(side, bandwidth) for side in SIDES)
        cells = [f"{row.bytes / 1e6:.0f}", *(f"{1e6 * t:.0f}" for t in times)]
        cells += [f"{share:.0f}" for share in shares]
        cells += [f"{row.ratio(side):.2f}" for side in SIDES[1:]]
        lines.append([str(row), *("-" if cell == "nan" else cell for cell in cells)])
    title = f"Time, and share of {bandwidth / 1e9:.0f} GB/s"
    return report.table(title, columns, lines)


def _drawn(job: report.Job, rows: list[Row], bandwidth: float) -> Path:
    """Per cent of the bandwidth of a copy, for each case."""
    figure, axes = figures.panels(2, (13, 12), sharey=True)
    for ax, passes in zip(axes, PASSES, strict=True):
        series: dict[str, dict[str, list[float]]] = {}
        for row in rows:
            if row.passes == passes:
                for side in SIDES:
                    if side in row.seconds:
                        label = f"{row.case.kind} {row.case.label}"
                        name = f"{side}, {row.dtype}"
                        share = row.share(side, bandwidth)
                        series.setdefault(name, {})[label] = [share]
        ordered = {name: series[name] for name in sorted(series)}
        if ordered:
            figures.grouped_bars(ax, ordered)
        ax.axvline(100, color="black", linewidth=0.8)
        title = "forward" if passes == "forward" else "forward and backward"
        ax.set(title=title, xlabel="per cent of the bandwidth of a copy")
        figures.legend_below(ax)
    device = jax.devices()[0].device_kind
    figure.suptitle(f"{device}: {bandwidth / 1e9:.0f} GB/s")
    return figures.save(figure, job, "accelerator")
