"""The two primitives: cells to outputs, and outputs back to cells.

Each is run by the engine of a step: `slices` for windows, `gathers` for bins.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from jaxpool.engines import gathers, slices
from jaxpool.engines.gathers import BinStep
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted
from jaxpool.engines.slices import Op as Op
from jaxpool.engines.slices import Place as Place
from jaxpool.engines.slices import Scalar, Tell
from jaxpool.geometry import steps

Step: TypeAlias = steps.Step | BinStep


def fold(
    step: Step,
    op: Op,
    tell: Tell,
    fill: Scalar,
    sources: Sequence[Lifted],
    outputs: Lifted = NOTHING,
    **options: Any,
) -> Arrays:
    """For each output, `op` over its cells of `tell(cell, output, place)`."""
    engine: Any = gathers if isinstance(step, BinStep) else slices
    results: Arrays = engine.fold(step, op, tell, fill, sources, outputs, **options)
    return results


def fold_back(
    step: Step,
    op: Op,
    tell: Tell,
    outputs: Lifted,
    cells: Lifted = NOTHING,
    **options: Any,
) -> Arrays:
    """For each cell, `op` over the outputs that read it of `tell(cell, output, place)`.

    The adjoint of `fold`, if `op` adds.
    """
    engine: Any = gathers if isinstance(step, BinStep) else slices
    results: Arrays = engine.fold_back(step, op, tell, outputs, cells, **options)
    return results


def reduce_steps(
    op: Op,
    cells: Lifted,
    fill: Scalar,
    steps: Sequence[Step],
    *,
    boundary: Boundary,
    finish: Lifted = NOTHING,
) -> Arrays:
    """Reduce all cells of each output by an associative operation, step by step."""
    runs = singles = cells
    for step in steps:
        singles = runs if step.begins else singles
        sources = (runs, singles)[: len(step.pieces)]
        ends = finish if step is steps[-1] else NOTHING
        reduced = fold(
            step, op, first_cell, fill, sources, boundary=boundary, finish=ends
        )
        runs = Lifted(reduced)
    if steps:
        return runs.arrays
    return cells.beside(Lifted(finish.arrays)).then(finish.lift).now(boundary)


def first_cell(cell: Arrays, output: Arrays, place: Place) -> Any:
    """The first array of a cell: what most operations combine."""
    return cell[0]
