"""Which form of a kernel runs on which platform.

`plan_for` decides once, when a program is lowered for a platform. The forms, by their
names in `implementation=`:

`reduce_window`: XLA's own windowed reduction, the reference.
`slices`: in steps, one axis or a few short ones at once, one strided slice per cell.
`doubling`: one axis after the other, in log2(window) steps of stride 1.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from jaxpool.engines import gathers, links
from jaxpool.engines.fold import Step as AnyStep
from jaxpool.engines.kernel import ANY, OPEN
from jaxpool.engines.loops import Boundary
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Links
from jaxpool.geometry.steps import (
    MOST_RATIOS,
    Step,
    backward_steps,
    forward_steps,
    is_sparse,
    norm_steps,
    spread_steps,
)
from jaxpool.geometry.window import Window

Implementation: TypeAlias = Literal["reduce_window", "slices", "doubling"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)
GPUS, TPUS = ("cuda", "rocm"), ("tpu",)

# Slices to combine per output cell from which doubling takes over on an axis; measured
# by `python -m experiments thresholds`.
DOUBLING_FROM = 9
# Windows that read a cell, from which on a GPU takes the steps of the CPU. On an H100
# (`python -m experiments accelerator --only forms`) its own windows take 1.0 to 1.2
# times as long as steps for 9, 1.9 for 25, 6 for 225, in both passes of a maximum.
GPU_STEPS_FROM = 16
# Cells of two bytes up to which a GPU takes a window in steps too, along one axis or
# where few windows read a cell. An H100 then takes 0.55 to 0.85 times as long, forward
# or both passes; for 5x5 at strides of 2 and 3x3x3, 1.2 to 1.8 times as long, forward.
GPU_STEPS_UP_TO = 9
# Cells of windows that overlap which a CPU divides in one step. Windows 3/2 in one step
# take 5 times as long in both passes: `python -m experiments targets`.
CPU_RATIOS = 4
# Cells of windows that do not overlap, which a GPU divides in one step. An H100 takes
# 0.4 to 0.6 times as long for softmax and log-sum-exp of 2x2 windows, forward, and 0.8
# for both passes; norms take as long as before (docs/notes/h100.md).
GPU_RATIOS = 4
# Cells of a window up to which values of softmax averages take one loop. A CPU then
# takes 0.5 to 0.95 of the time of two kernels, 1.3 times for 5x5 cells at stride 1. An
# H100 took 0.4 to 0.5 for 2x2 and 3x3 cells, in a plain formula of that shape. Both are
# in docs/notes, cpu.md and h100.md; `python -m experiments targets` repeats the CPU's.
AVERAGED_CELLS = 16
# Windows that read a cell, up to which a CPU does so where there is padding: LLVM does
# not vectorise a loop with more pads. 3x3 cells at stride 1 then take 6 times as long.
AVERAGED_READS = 8
# Windows to look at for each cell, up to which cotangents go back in one step where
# that is better: on a TPU, and by name.
MOST_READS_BACK = 49


@dataclass(frozen=True)
class Needs:
    """What an aggregation asks of the steps of a window.

    - `idempotent`: a cell may be combined twice.
    - `ordered`: cells are combined in row-major order.
    - `alone`: this axis gets steps of its own.
    - `divides`: each cell costs a division or an exponential.
    - `back`: cotangents go to the place of a winner, are copied to all cells, or go
      back by the steps that lead forward.
    - `few_pads`: a loop has few pads; further ones get loops of their own.
    - `one_step`: all cells of a window are combined in one step.
    """

    idempotent: bool = False
    ordered: bool = False
    alone: int | None = None
    divides: bool = False
    back: Literal["places", "copies", "steps"] = "steps"
    few_pads: bool = False
    one_step: bool = False


@dataclass(frozen=True)
class Plan:
    """How outputs are reduced on a platform, and the steps that lead back to cells.

    The steps `back` are in the order that leads forward. Where `needs_no_steps`, all
    cells of an output are read in one operation: axes of symbolic sizes, and on a GPU
    sums over whole axes whose cells cost a division each. Its compiler would fuse the
    steps of these, and would not end.
    """

    form: Implementation
    steps: tuple[AnyStep, ...]
    back: tuple[AnyStep, ...]
    back_form: Implementation
    platform: str
    needs: Needs
    needs_no_steps: bool = False

    def by_windows(self, back: bool) -> bool:
        """Whether XLA's own windows add up copies, or lead them back."""
        form = self.back_form if back else self.form
        return form == "reduce_window" and self.needs.back == "copies"

    @property
    def is_portable(self) -> bool:
        """Whether the program is of standard operations."""
        return self.platform == ANY

    @property
    def boundary(self) -> Boundary:
        """What keeps loops apart."""
        ends: dict[str, Boundary] = {"cpu": "call", "tpu": "barrier", OPEN: "open"}
        return ends.get(self.platform, "none")

    @property
    def on_cpu(self) -> bool:
        """Whether each step is a loop of its own, as LLVM vectorises them best."""
        return self.boundary == "call"

    @property
    def is_open(self) -> bool:
        """Whether jax differentiates the steps."""
        return self.platform in (ANY, OPEN)

    @property
    def up(self) -> tuple[AnyStep, ...]:
        """The steps of tangents: those of values, where all shares are alike."""
        return self.steps if self.needs.back == "copies" else self.back


def form_for(platform: str, window: Window, dtype: np.dtype) -> Implementation:
    """The form that `implementation=None` means on `platform` for cells of `dtype`."""
    if window.is_symbolic or platform in (*TPUS, ANY):
        return "reduce_window"
    if platform in GPUS and not _in_steps_on_gpus(window, dtype):
        return "reduce_window"
    return _steps_for(window)


def _in_steps_on_gpus(window: Window, dtype: np.dtype) -> bool:
    """Whether a GPU is faster in steps than with its own windows."""
    if dtype.itemsize == 2 and window.cells <= GPU_STEPS_UP_TO:
        return window.reads <= 4 or len(window.dims) == 1
    return window.reads >= GPU_STEPS_FROM


def _steps_for(window: Window) -> Implementation:
    """The better way in steps."""
    most = max(dim.window // dim.stride for dim in window.clipped().dims)
    return "doubling" if most >= DOUBLING_FROM else "slices"


def plan_for(
    over: Domain,
    platform: str,
    dtype: np.dtype,
    implementation: Implementation | None,
    needs: Needs,
    tables: Any = (),
) -> Plan:
    """The plan for a domain of cells of `dtype`.

    `tables` are the places of bins that are drawn, or the numbers of links.
    """
    if over.is_symbolic:
        return Plan("reduce_window", (), (), "reduce_window", platform, needs, True)
    if isinstance(over, Window):
        return _plan_windows(over, platform, dtype, implementation, needs)
    steps: tuple[AnyStep, ...]
    if isinstance(over, Links):
        steps = links.steps_of(over, tables, platform == "cpu")
    else:
        steps = gathers.steps_of(over, tables)
    return Plan("slices", steps, steps[::-1], "slices", platform, needs)


@lru_cache(maxsize=1024)
def _plan_windows(
    window: Window,
    platform: str,
    dtype: np.dtype,
    implementation: Implementation | None,
    needs: Needs,
) -> Plan:
    """How to reduce `window` on `platform`, and how to go back."""
    is_whole = all(dim.is_whole for dim in window.dims)
    no_steps = is_whole and needs.divides and platform != "cpu"
    if needs.one_step or (
        platform in GPUS and not implementation and _divides_in_one_step(window, needs)
    ):
        steps = _merged(window)
        return Plan("slices", steps, steps, "slices", platform, needs, no_steps)
    form = implementation or form_for(platform, window, dtype)
    if implementation is None and platform in TPUS and needs.divides:
        form = _steps_for(window)  # whose cost XLA's compilers may not know
    in_steps = _steps_for(window) if form == "reduce_window" else form
    doubling = in_steps == "doubling"
    steps = _steps(window, doubling, platform, needs)
    there = implementation == "reduce_window" or (
        not implementation and platform in TPUS
    )
    by_windows = there and needs.back == "copies"
    back_form: Implementation = "reduce_window" if by_windows else in_steps
    if needs.back == "copies":
        back = tuple(spread_steps(window, doubling))[::-1]
    elif _is_one_step_back(window, platform, implementation):
        back = _merged(window)
    elif needs.back == "places":
        back = tuple(backward_steps(window, doubling, alone=needs.alone))[::-1]
    else:
        back = steps
    return Plan(form, steps, back, back_form, platform, needs, no_steps)


def _steps(
    window: Window, doubling: bool, platform: str, needs: Needs
) -> tuple[Step, ...]:
    if needs.divides:
        few = platform == "cpu" and not window.are_apart
        most = CPU_RATIOS if few else MOST_RATIOS
        return tuple(norm_steps(window, doubling, most))
    steps = forward_steps(
        window,
        doubling,
        idempotent=needs.idempotent,
        ordered=needs.ordered,
        alone=needs.alone,
    )
    return tuple(steps)


def _divides_in_one_step(window: Window, needs: Needs) -> bool:
    """Whether a GPU divides in one step: few cells, in windows that do not overlap."""
    return needs.divides and window.are_apart and window.cells <= GPU_RATIOS


def averages_in_one_loop(
    over: Domain, implementation: Implementation | None, platform: str | None = None
) -> bool:
    """Whether values of softmax averages take one loop, on all platforms or on one."""
    if not isinstance(over, Window) or over.is_symbolic or implementation:
        return False
    is_padded = any(dim.low > 0 or dim.behind > 0 for dim in over.dims)
    if platform == "cpu" and is_padded and over.reads > AVERAGED_READS:
        return False
    return 1 < over.cells <= AVERAGED_CELLS


def _is_one_step_back(
    window: Window, platform: str, implementation: Implementation | None
) -> bool:
    """Whether cells look for all windows that read them in one step.

    On an H100 that takes 0.8 times as long as steps where windows do not overlap, but
    4 times for windows of 3 at strides of 2.
    """
    if is_sparse(window.dims):
        return False
    selects = math.prod(-(-dim.extent // dim.stride) for _, dim in window.pairs())
    there = platform in TPUS or (platform in GPUS and window.are_apart)
    by_name = implementation == "reduce_window"
    return (by_name or (not implementation and there)) and selects <= MOST_READS_BACK


def _merged(window: Window) -> tuple[Step, ...]:
    """All axes in one step."""
    pairs, weight, weights = window.pairs(), window.cells, list[int]()
    if not pairs:
        return ()
    for _, dim in pairs:
        weight //= dim.window
        weights.append(weight)
    axes, dims = zip(*pairs, strict=True)
    return (Step(axes, dims, tuple(weights), 1),)


@dataclass(frozen=True)
class DomainKernel:
    """A kernel over a domain."""

    over: Domain
    implementation: Implementation | None = field(default=None, kw_only=True)

    @property
    def portable(self) -> bool:
        """Whether a program is to be of standard operations of jax."""
        return self.implementation == "reduce_window" or self.over.is_symbolic

    def plan(self, platform: str, dtype: np.dtype, needs: Needs, tables: Any) -> Plan:
        """How it runs on a platform."""
        name = self.implementation
        return plan_for(self.over, platform, dtype, name, needs, tables)


def check_name(implementation: str | None) -> None:
    """Refuse a name that no kernel has."""
    known = isinstance(implementation, str) and implementation in IMPLEMENTATIONS
    if implementation is not None and not known:
        raise ValueError(
            f"implementation must be None or one of {', '.join(IMPLEMENTATIONS)}; "
            f"got implementation={implementation!r}"
        )


def check_implementation(implementation: str | None, over: Domain) -> None:
    """Refuse a name that no kernel has, or none for these sizes."""
    check_name(implementation)
    if over.is_symbolic and implementation not in (None, "reduce_window"):
        raise ValueError(
            "implementation must be None or 'reduce_window' where the size of a pooled "
            f"axis is symbolic; got implementation={implementation!r}"
        )
    if not isinstance(over, Window) and implementation is not None:
        raise NotImplementedError(
            "implementation must be None for bins of different lengths, segments and "
            f"neighbors, which have one form; got implementation={implementation!r}"
        )
