"""The two primitives: cells to outputs, and outputs back to cells.

Each is run by the engine of a step: `slices` for windows, `gathers` for bins, `links`
for segments and neighbors. The contract of all engines is checked here, when tracing.
All arrays have one rank; the first one of each `Lifted` has no axis that broadcasts.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

import chex
import jax

from jaxpool.engines import gathers, links, slices
from jaxpool.engines.contract import Fill, Op, Place, Term
from jaxpool.engines.gathers import BinStep
from jaxpool.engines.links import LinkStep
from jaxpool.engines.loops import NOTHING, Arrays, Boundary, Lifted
from jaxpool.geometry import steps

Step: TypeAlias = steps.Step | BinStep | LinkStep
_ENGINES: dict[type, Any] = {BinStep: gathers, LinkStep: links, steps.Step: slices}


def fold(
    step: Step,
    op: Op,
    term: Term,
    fill: Fill,
    sources: Sequence[Lifted],
    outputs: Lifted = NOTHING,
    **options: Any,
) -> Arrays:
    """For each output, `op` over its cells of `term(cell, output, place)`.

    A term may be a pytree of arrays; `op` combines two terms.
    """
    engine = _ENGINES[type(step)]
    chex.assert_equal_rank([*chain(outputs.arrays, *(s.arrays for s in sources))])
    pieces: Sequence[Step] = step.pieces
    for piece, source in zip(pieces, sources, strict=True):
        _check_sizes(source.arrays[0], piece, at_cells=True)
    results: Arrays = engine.fold(step, op, term, fill, sources, outputs, **options)
    _check_sizes(jax.tree.leaves(results)[0], step, at_cells=False)
    return results


def fold_back(
    step: Step,
    op: Op,
    term: Term,
    outputs: Lifted,
    cells: Lifted = NOTHING,
    **options: Any,
) -> Arrays:
    """For each cell, `op` over the outputs that read it of `term(cell, output, place)`.

    The adjoint of `fold`, if `op` adds.
    """
    engine = _ENGINES[type(step)]
    chex.assert_equal_rank([*outputs.arrays, *cells.arrays])
    _check_sizes(outputs.arrays[0], step, at_cells=False)
    results: Arrays = engine.fold_back(step, op, term, outputs, cells, **options)
    _check_sizes(results[0], step, at_cells=True)
    return results


def _check_sizes(array: Any, step: Step, at_cells: bool) -> None:
    """Raise unless an array has the cells, or the outputs, of a step.

    There may be cells behind the last window.
    """
    if at_cells:
        for axis, size in zip(step.axes, step.sizes, strict=True):
            chex.assert_axis_dimension_gteq(array, axis, size)
    else:
        for axis, out in zip(step.axes, step.outs, strict=True):
            chex.assert_axis_dimension(array, axis, out)


def sources_of(steps: Sequence[Step]) -> list[tuple[Step, tuple[int, ...]]]:
    """Each step, with the numbers of the arrays that its pieces combine."""
    found, start = [], 0
    for number, step in enumerate(steps):
        start = number if step.begins else start
        found.append((step, (number, start)[: len(step.pieces)]))
    return found


def reduce_steps(
    op: Op,
    cells: Lifted,
    fill: Fill,
    steps: Sequence[Step],
    *,
    boundary: Boundary,
    finish: Lifted = NOTHING,
) -> Arrays:
    """Reduce all cells of each output by an associative operation, step by step.

    With several fills, a cell is a tuple of as many arrays.
    """
    term = _all_arrays if isinstance(fill, tuple) else first_cell
    found = [cells]
    for step, sources in sources_of(steps):
        ends = finish if step is steps[-1] else NOTHING
        each = [found[source] for source in sources]
        reduced = fold(step, op, term, fill, each, boundary=boundary, finish=ends)
        found.append(Lifted(reduced[0] if isinstance(fill, tuple) else reduced))
    if steps:
        return found[-1].arrays
    return cells.finished(finish, boundary)


def _all_arrays(cell: Arrays, output: Arrays, place: Place) -> Arrays:
    return cell


def first_cell(cell: Arrays, output: Arrays, place: Place) -> Any:
    """The first array of a cell: what most operations combine."""
    return cell[0]
