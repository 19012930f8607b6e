"""The one derivative rule: each cell has a share of its output.

    jvp:  ty[o] = sum over cells c of o    share(c, o, place of c in o) * tx[c]
    vjp:  gx[c] = sum over outputs o of c  share(c, o, place of c in o) * gy[o]

The first is a fold, the second a fold back, its transpose. Where a plan has several
steps, the share of a cell in an output is the product of its share in a run of cells,
of that in a longer run, and so on: the same rule, step by step. What an aggregation
knows of the cells, of each kind of runs and of the outputs are its levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import numpy as np
from jax import lax

from jaxpool.engines.cells import ZERO, cut, pad
from jaxpool.engines.contract import Place
from jaxpool.engines.elementwise import equals, is_nan, select, widened
from jaxpool.engines.fold import Step, fold, fold_back, sources_of
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted
from jaxpool.engines.plan import DomainKernel, Needs, Plan
from jaxpool.geometry.steps import Step as WindowStep
from jaxpool.geometry.window import Window


class Levels(NamedTuple):
    """What an aggregation knows of the cells, of what each step makes, of the outputs.

    A step combines some of `cells` to some of `outputs`.
    """

    cells: list[Lifted]
    outputs: list[Lifted]


@dataclass(frozen=True)
class Aggregation:
    """What is made of the cells of an output, as far as derivatives ask for it.

    Tangents and cotangents are added up in the dtype `wide`. A residual is a tuple of
    arrays.
    """

    wide: np.dtype

    @property
    def needs(self) -> Needs:
        """What it asks of the steps of a window."""
        raise NotImplementedError

    def share(self, cell: Arrays, output: Arrays, place: Place, t: jax.Array) -> Any:
        """`t` times the share of a cell of an output."""
        raise NotImplementedError

    def levels(self, chosen: Plan, residual: Arrays) -> Levels:
        """What it knows of the cells, of what each step makes, and of the outputs."""
        nothing = [NOTHING] * (max(len(chosen.back), len(chosen.up)) + 1)
        return Levels(nothing, nothing)

    def at_cells(self, residual: Arrays) -> Lifted:
        """Arrays, and a function of a tangent of cells and them: the first factor."""
        return NOTHING

    def at_outputs(self, residual: Arrays, back: bool) -> Lifted:
        """Arrays, and a function of a tangent of outputs and them: the last factor."""
        return NOTHING

    def by_windows(
        self, window: Window, t: jax.Array, back: bool, portable: bool
    ) -> Any:
        """The rule by XLA's own windows, where the plan says so."""
        raise NotImplementedError

    def without_steps(
        self, window: Window, residual: Arrays, t: jax.Array, back: bool
    ) -> jax.Array:
        """The rule where the plan has no steps: symbolic sizes, and some whole axes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Shares(DomainKernel):
    """The rule as a kernel: from a tangent of cells to that of outputs, or `back`."""

    by: Aggregation
    cells: np.dtype  # of tangents and cotangents of the cells
    outputs: np.dtype
    back: bool = False

    @property
    def transpose(self) -> "Shares":
        return replace(self, back=not self.back)

    def types(self, residual: Arrays, tables: Any, t: Any) -> Sequence[Any]:
        shape, sizes = list(t.shape), self.over.sizes if self.back else self.over.outs
        for axis, size in zip(self.over.axes, sizes, strict=True):
            shape[axis] = size
        return [t.update(shape=tuple(shape), dtype=self._dtype)]

    @property
    def _dtype(self) -> np.dtype:
        return self.cells if self.back else self.outputs

    def run(self, platform: str, residual: Arrays, tables: Any, t: jax.Array) -> Arrays:
        sizes = self.over.outs if self.back else self.over.sizes
        for axis, size in zip(self.over.axes, sizes, strict=True):
            chex.assert_axis_dimension(t, axis, size)
        chosen = self.plan(platform, self.cells, self.by.needs, tables)
        first = self.by.at_cells(residual)
        last = self.by.at_outputs(residual, self.back)
        first, last = (last, first) if self.back else (first, last)

        def begin(t: jax.Array, *arrays: Any) -> Arrays:
            wide = widened(t, self.by.wide, chosen.on_cpu)
            return first.lift(wide, *arrays)[:1]

        def finish(t: jax.Array, *arrays: Any) -> Arrays:
            (result,) = last.lift(t, *arrays)
            return (lax.convert_element_type(result, self._dtype),)

        start, end = Lifted((t, *first.arrays), begin), Lifted(last.arrays, finish)
        by_windows, no_steps = chosen.by_windows(self.back), chosen.needs_no_steps
        if isinstance(self.over, Window) and (no_steps or by_windows):
            (t,) = start.now("none")
            if no_steps:
                t = self.by.without_steps(self.over, residual, t, self.back)
            else:
                portable = chosen.is_portable
                t = self.by.by_windows(self.over, t, self.back, portable)
            if self.back and not self.over.is_symbolic:
                (t,) = self._uncropped(t)
            return end.lift(t, *end.arrays)
        if self.back and t.dtype.itemsize < 4 and self.by.needs.back == "copies":
            start = Lifted(start.now(chosen.boundary))
        levels = self.by.levels(chosen, residual)
        return (self._down if self.back else self._up)(chosen, levels, start, end)

    def _up(self, chosen: Plan, levels: Levels, t: Lifted, end: Lifted) -> Arrays:
        """From the cells through all steps to the outputs."""
        by, boundary = self.by, chosen.boundary

        def term(cell: Arrays, output: Arrays, place: Place) -> Any:
            return by.share(cell[:-1], output, place, cell[-1])

        steps = chosen.up
        if not steps:
            return self._alone(levels, t, end, boundary)
        moved = [t.then(partial(_cropped, steps)) if by.needs.back == "places" else t]
        for number, (step, sources) in enumerate(sources_of(steps), 1):
            is_last = number == len(steps)
            (result,) = fold(
                step,
                lax.add,
                term,
                ZERO,
                [levels.cells[source].along_with(moved[source]) for source in sources],
                levels.outputs[number],
                boundary=boundary,
                finish=end if is_last else NOTHING,
                few_pads=by.needs.few_pads,
            )
            moved.append(Lifted((result,)))
        return moved[-1].arrays

    def _down(self, chosen: Plan, levels: Levels, g: Lifted, end: Lifted) -> Arrays:
        """From the outputs back through all steps to the cells."""
        by, boundary = self.by, chosen.boundary

        def term(cell: Arrays, output: Arrays, place: Place) -> Any:
            *residual, g = output
            part = by.share(cell, tuple(residual), place, g)
            if not residual or by.needs.back == "places":
                return part
            # 0 of 0, even if the output is NaN. A cotangent inside a chain may be 0 and
            # have a derivative: others cancel.
            return select(lax.bitwise_and(equals(g, 0), is_nan(part)), 0, part)

        steps = sources_of(chosen.back)
        if not steps:
            return self._alone(levels, g, end, boundary)
        at_cells = sum(sources.count(0) for _, sources in steps)
        end = end.after(self._uncropped)
        arrived: dict[int, Lifted] = {len(steps): g}
        for number in reversed(range(len(steps))):
            step, sources = steps[number]
            outputs = levels.outputs[number + 1].along_with(arrived[number + 1])
            pieces: tuple[Step, ...] = step.pieces
            for piece, source in zip(pieces, sources, strict=True):
                is_last = source == 0 and at_cells == 1
                (more,) = fold_back(
                    piece,
                    lax.add,
                    term,
                    outputs,
                    levels.cells[source],
                    boundary=boundary,
                    finish=end if is_last else NOTHING,
                    few_pads=by.needs.few_pads,
                )
                if source in arrived:
                    more = more + arrived[source].arrays[0]
                arrived[source] = Lifted((more,))
        if at_cells == 1:
            return arrived[0].arrays
        return end.lift(*arrived[0].arrays, *end.arrays)

    def _alone(
        self, levels: Levels, t: Lifted, end: Lifted, boundary: Boundary
    ) -> Arrays:
        """The same for windows of one cell, all at their own places."""
        cells, outputs = levels.cells[0], levels.outputs[-1]
        count = len(cells.arrays)

        def shared(t: jax.Array, *arrays: Any) -> Arrays:
            cell, output = cells.lift(*arrays[:count]), outputs.lift(*arrays[count:])
            return (self.by.share(cell, output, Place(0, 1), t),)

        result = t.along_with(Lifted(cells.arrays + outputs.arrays)).then(shared)
        return result.finished(end, boundary)

    def _uncropped(self, cells: jax.Array) -> Arrays:
        """With zeros where the input ends beyond the last window."""
        beyond = {
            axis: (0, dim.size - cells.shape[axis]) for axis, dim in self.over.pairs()
        }
        return (pad(cells, ZERO, beyond),)


def _cropped(steps: Sequence[Step], t: jax.Array) -> Arrays:
    """Without the cells behind the last window, of which there are no positions."""
    cells: dict[int, tuple[int, int, int]] = {}
    for step in reversed(steps):  # the first step along an axis is the one that reads
        if isinstance(step, WindowStep):
            pairs = zip(step.axes, step.dims, strict=True)
            cells |= {axis: (0, dim.size, 1) for axis, dim in pairs}
    return (cut(t, cells),)
