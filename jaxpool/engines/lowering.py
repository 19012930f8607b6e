"""Which lowering of a kernel runs on which platform. The only file that names one.

A kernel owns a table of named lowerings that compute the same thing. `dispatch`
runs the one that was asked for, or lets `lax.platform_dependent` pick when the
program is compiled, so that what is traced here and compiled for a TPU gets the
TPU's. Never call it where jax would differentiate through it: every branch would
then carry the residuals of all of them.

`reduce_window`: XLA's own windowed reduction. Every kernel has it.
`slices`: one axis after the other, combining one strided slice per window cell.
`doubling`: one axis after the other, in log2(window) steps of stride 1.
"""

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import partial, wraps
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines.symbolic import reduce_whole
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.window import AxisWindow, Window

P = ParamSpec("P")
T = TypeVar("T")

Implementation: TypeAlias = Literal["reduce_window", "slices", "doubling"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
GPUS, TPUS = ("cuda", "rocm"), ("tpu",)
COMBINED = (lax.add, lax.max, lax.min, lax.bitwise_or)  # by devices, of their parts
NATIVE = (*GPUS, *TPUS)

# Slices to combine per output cell from which doubling takes over on an axis; measured
# by `python -m experiments thresholds`.
DOUBLING_FROM = 9
# Windows that read a cell, from which on a GPU takes the steps of the CPU. On an H100
# (`python -m experiments accelerator --only forms`) its own windows take 1.0 to 1.2
# times as long as steps for 9, 1.9 for 25, 6 for 225, in both passes of a maximum.
GPU_STEPS_FROM = 16
# Windows to look at for each cell, up to which a TPU sends cotangents back at once.
AT_ONCE = 49
# Cells of a window along an axis, up to which a TPU adds them up as slices if it moves
# fewer bytes so. XLA estimates 1.3 times the cycles for 5 cells, 2.0 for 7.
MOST_SLICES = 3
# Cells of an axis that is not pooled, from which on they fill the lanes of a TPU. What
# is better then, `experiments devices` counts; GPUs follow the same rule.
LANES = 128
# Strides of a block in which a TPU sends cotangents back: along the last pooled axis,
# and along others.
TPU_LAST_BLOCK, TPU_BLOCK = 4, 2


def doubles(dim: AxisWindow) -> bool:
    """Whether log-step doubling is the better pass over this axis."""
    return dim.window // dim.stride >= DOUBLING_FROM


def fills_lanes(window: Window, shape: Sequence[int]) -> bool:
    """Whether a TPU may lay an array out so that no pooled axis is in its lanes."""
    others = (size for axis, size in enumerate(shape) if axis not in window.axes)
    return any(not is_symbolic(size) and size >= LANES for size in others)


def pools_beside_tiles(window: Window, shape: Sequence[int]) -> bool:
    """Whether a TPU lays an array out so that no pooled axis is in its lanes or next.

    It prefers a last axis that fills them without a rest, and then the one before it.
    """
    others = (size for axis, size in enumerate(shape) if axis not in window.axes)
    fills = (not is_symbolic(size) and size % LANES == 0 for size in others)
    return any(fills) and shape[-1] % LANES != 0


def reads(window: Window) -> int:
    """How many windows read a cell, at most."""
    return math.prod(-(-dim.window // dim.stride) for dim in window.dims)


def own_windows(window: Window) -> tuple[str, ...]:
    """The platforms whose compilers reduce such windows faster than steps do."""
    return NATIVE if reads(window) < GPU_STEPS_FROM else TPUS


def back_at_once(window: Window) -> tuple[str, ...]:
    """The platforms where cells look for the windows that read them in one loop.

    On an H100 that takes 0.8 times as long as steps where windows do not overlap, but
    4 times for windows of 3 at strides of 2.
    """
    if window.is_symbolic or any(dim.extent > dim.stride for dim in window.dims):
        return TPUS
    return NATIVE


def choose(platform: str, window: Window) -> Implementation:
    """The lowering that `implementation=None` means on `platform`."""
    if window.is_symbolic or platform in own_windows(window):
        return "reduce_window"
    if any(map(doubles, window.clipped().dims)):
        return "doubling"
    return "slices"


def is_doubling(window: Window, implementation: Implementation | None) -> bool:
    """Whether steps that XLA has no operation for split long windows."""
    chosen = choose("cpu", window)
    if implementation in (None, "reduce_window"):
        return chosen == "doubling"
    return implementation == "doubling"


def check_implementation(implementation: str | None, window: Window) -> None:
    """Refuse a name that no kernel has, or none for these sizes."""
    known = isinstance(implementation, str) and implementation in IMPLEMENTATIONS
    if implementation is not None and not known:
        raise ValueError(
            f"implementation must be None or one of {', '.join(IMPLEMENTATIONS)}; "
            f"got implementation={implementation!r}"
        )
    if window.is_symbolic and implementation not in (None, "reduce_window"):
        raise ValueError(
            "implementation must be None or 'reduce_window' where the size of a pooled "
            f"axis is symbolic; got implementation={implementation!r}"
        )


Lowerings: TypeAlias = Mapping[Implementation, Callable[..., Any]]


def dispatch(
    lowerings: Lowerings,
    window: Window,
    implementation: Implementation | None,
    *arrays: Any,
) -> Any:
    """Call the named lowering, or the one chosen for the platform compiled for."""
    if implementation is not None:
        return lowerings[implementation](*arrays)
    chosen = {name: choose(name, window) for name in PLATFORMS}
    return on_platform({name: lowerings[chosen[name]] for name in PLATFORMS}, *arrays)


def dispatch_at_once(
    platforms: Sequence[str],
    pays: bool,
    implementation: Implementation | None,
    in_steps: Callable[..., Any],
    at_once: Callable[..., Any],
    *arrays: Any,
) -> Any:
    """Reduce windows, or go back to cells, in steps or at once by XLA's own reduction.

    At once, if that `pays`, where it is asked for by name and on some `platforms`: on
    TPUs, whose compilers move several times the bytes for steps (`python -m experiments
    devices`), and on GPUs where it is faster (`accelerator --only forms`).
    """
    if implementation == "reduce_window" and pays:
        return at_once(*arrays)
    if implementation is not None or not pays:
        return in_steps(*arrays)
    chosen = dict.fromkeys(PLATFORMS, in_steps) | dict.fromkeys(platforms, at_once)
    return on_platform(chosen, *arrays)


def on_cpu_else(
    cpu: Callable[..., Any], other: Callable[..., Any], *arrays: Any
) -> Any:
    """`cpu(*arrays)` when compiled for a CPU, `other(*arrays)` anywhere else."""
    return on_platform({"cpu": cpu, **dict.fromkeys(NATIVE, other)}, *arrays)


def on_platform(functions: Mapping[str, Callable[..., Any]], *arrays: Any) -> Any:
    """Call the function of the platform that the program is compiled for.

    Inside of it the platform is known, as far as it matters, so that what it calls is
    traced for that one alone.
    """
    known = _known.get()
    if known == PORTABLE:
        return functions.get("any", functions["tpu"])(*arrays)
    groups: dict[tuple[Callable[..., Any], bool], list[str]] = {}
    for name in known:
        groups.setdefault((functions[name], name in NATIVE), []).append(name)
    if len({function for function, _ in groups}) == 1:
        return functions[known[0]](*arrays)
    branches: dict[str, Callable[..., Any]] = {}
    for (function, _), names in groups.items():
        branches |= dict.fromkeys(names, partial(_called, tuple(names), function))
    if known != PLATFORMS:  # jax wants a branch for all that a program is exported to
        branches["default"] = branches[known[-1]]
    return lax.platform_dependent(*arrays, **branches)


PORTABLE = ("any",)
_known: ContextVar[tuple[str, ...]] = ContextVar("platforms", default=PLATFORMS)


@contextmanager
def _for(names: tuple[str, ...]) -> Iterator[None]:
    """Trace what is inside for some platforms only."""
    token = _known.set(names)
    try:
        yield
    finally:
        _known.reset(token)


def _called(names: tuple[str, ...], function: Callable[..., Any], *arrays: Any) -> Any:
    """Call a function for some platforms only."""
    with _for(names):
        return function(*arrays)


def portably(implementation: Implementation | None) -> AbstractContextManager[None]:
    """Trace what is inside as one program for every platform, if that is asked for.

    "reduce_window" by name is of primitives of jax itself, so that other tools can read
    it: no choice of a platform, and no derivative of ours but by `jax.custom_jvp` and
    `jax.custom_vjp`.
    """
    return _for(PORTABLE) if implementation == "reduce_window" else nullcontext()


def portable(kernel: Callable[P, T]) -> Callable[P, T]:
    """A kernel whose first argument says by which implementation it is traced."""

    @wraps(kernel)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        config: Any = args[0]
        with portably(config.implementation):
            return kernel(*args, **kwargs)

    return called


def is_portable() -> bool:
    """Whether what is traced now is one program for every platform."""
    return _known.get() == PORTABLE


def _number_of(fill: Any) -> int:
    """A number for each identity: 0 for 0, and another one for another identity."""
    if isinstance(fill, jax.core.Tracer):
        return 1
    bits = np.asarray(fill).tobytes()
    return 2 + zlib.crc32(bits) % 65_521 if any(bits) else 0


def xla_reduce_window(
    arrays: Any,
    fills: Any,
    computation: Callable[..., Any],
    window: Window,
    apart: Mapping[int, int] | None = None,
) -> Any:
    """`lax.reduce_window` of one array or several, by a resolved window.

    Cells may lie `apart` along some axes, with the identity between them.

    Where a program reduces one array that is split over devices in two ways, XLA's
    partitioner of jax 0.10 pads it once for all that have the same windows, with the
    identity of the first, and the others are silently wrong. So the arrays or the
    windows must differ. One array of floats is rounded to more bits than it has, which
    fuses. Else one cell is dilated, with which a TPU's compiler fuses nothing. Traced
    identities are not told from each other.
    """
    (first, *others), tree = jax.tree.flatten(arrays)
    # An H100 takes 40 us for windows of whole axes of 103 MB, and else 400 to 2000. If
    # one array is split, devices combine their parts, by the operations that they know.
    is_plain = bool(others) or computation in COMBINED
    is_whole = all(dim.is_whole for dim in window.dims) and is_plain
    if is_symbolic(window.cells) or is_whole:
        return reduce_whole(arrays, fills, computation, window)
    units = [a for a, n in enumerate(first.shape) if n == 1 and a not in window.axes]
    if is_portable() and units:  # ONNX has pools of up to three axes
        left = [axis for axis in range(first.ndim) if axis not in units]
        inner = replace(window, axes=tuple(map(left.index, window.axes)))
        gaps = {left.index(axis): n for axis, n in (apart or {}).items()}
        arrays = jax.tree.map(lambda array: lax.squeeze(array, units), arrays)
        reduced = xla_reduce_window(arrays, fills, computation, inner, gaps)
        return jax.tree.map(lambda array: jnp.expand_dims(array, units), reduced)
    number = _number_of(jax.tree.leaves(fills)[0])
    if number and not others and jnp.issubdtype(first.dtype, jnp.floating):
        info = jnp.finfo(first.dtype)
        first = lax.reduce_precision(first, info.nexp, info.nmant + number)
        number = 0
    leaves = [first, *others]
    if number and all(axis in window.axes for axis in range(first.ndim)):
        leaves = [jnp.expand_dims(leaf, -1) for leaf in leaves]
    rank = leaves[0].ndim
    lengths, strides, dilations = [1] * rank, [1] * rank, [1] * rank
    padding = [(0, 0)] * rank
    between = [(apart or {}).get(axis, 1) for axis in range(rank)]
    for axis, dim in zip(window.axes, window.dims, strict=True):
        lengths[axis], strides[axis] = dim.window, dim.stride
        dilations[axis] = dim.dilation
        padding[axis] = dim.low, dim.behind
        if dim.out == 1:  # of more windows the first one is meant (`_partitioner`)
            strides[axis] = 1
    if any(is_symbolic(n) for pair in padding for n in pair):
        # jax writes symbolic padding of a window as a program of its own, which may
        # not call functions such as `jnp.where` in the computation.
        around = [(*pair, 0) for pair in padding]
        ends = jax.tree.leaves(fills)
        leaves = [
            lax.pad(leaf, jnp.asarray(end, leaf.dtype), around)
            for leaf, end in zip(leaves, ends, strict=True)
        ]
        padding = [(0, 0)] * rank
    if number:  # a TPU minds it least at the end
        dilations[max(set(range(rank)) - set(window.axes))] = 1 + number
    reduced = lax.reduce_window(
        jax.tree.unflatten(tree, leaves),
        fills,
        computation,
        window_dimensions=lengths,
        window_strides=strides,
        padding=padding,
        base_dilation=between,
        window_dilation=dilations,
    )

    if others:  # or XLA's partitioner may end the process (`_partitioner`)
        (values, *places), _ = jax.tree.flatten(reduced)
        reduced = jax.tree.unflatten(tree, [lax.optimization_barrier(values), *places])

    def without_rest(array: jax.Array) -> jax.Array:
        # Where the input ends beyond the last window, XLA may see one more.
        array = lax.slice(array, [0] * rank, window.output_shape(array.shape))
        return array.reshape(array.shape[: first.ndim])

    return jax.tree.map(without_rest, reduced)
