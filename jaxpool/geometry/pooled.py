"""What all domains have: the pooled axes, the geometry of each, checks of sizes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from jaxpool.geometry.sizes import is_below, is_symbolic
from jaxpool.geometry.spelling import spelled

MOST = 2**31 - 1  # the largest int32


@dataclass(frozen=True)
class PooledAxes:
    """The pooled axes of an array, ascending, and the geometry of each.

    That has a `size`, `out` outputs, and the most cells of an output, its `length`, at
    a distance of `dilation`. If it `is_identity`, output `o` is exactly cell `o`. If it
    `may_miss`, an output may have no cell.
    """

    axes: tuple[int, ...]
    dims: tuple[Any, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of the input on each pooled axis."""
        return tuple(dim.size for dim in self.dims)

    @property
    def outs(self) -> tuple[int, ...]:
        """The size of the result on each pooled axis."""
        return tuple(dim.out for dim in self.dims)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The most cells of an output along each pooled axis."""
        return tuple(dim.length for dim in self.dims)

    @property
    def dilations(self) -> tuple[int, ...]:
        """The distance between these cells."""
        return tuple(dim.dilation for dim in self.dims)

    @property
    def cells(self) -> int:
        """The most cells of an output."""
        return math.prod(self.lengths)

    @property
    def is_symbolic(self) -> bool:
        """Whether a pooled axis has a symbolic size."""
        return any(map(is_symbolic, self.sizes))

    @property
    def is_countable(self) -> bool:
        """Whether int32 can count the cells of the input."""
        cells = math.prod(self.sizes)
        return is_symbolic(cells) or cells <= MOST

    def axis_by_axis(self) -> tuple[Self, ...]:
        """The same along one axis each."""
        pairs = zip(self.axes, self.dims, strict=True)
        return tuple(replace(self, axes=(axis,), dims=(dim,)) for axis, dim in pairs)

    def pairs(self) -> tuple[tuple[int, Any], ...]:
        """`(axis, geometry)` of the axes on which there is something to do."""
        pairs = zip(self.axes, self.dims, strict=True)
        return tuple((axis, dim) for axis, dim in pairs if not dim.is_identity)

    def clipped(self) -> Self:
        """The same without cells that are padding in every output."""
        return self

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the pooled array."""
        out = list(shape)
        for axis, dim in zip(self.axes, self.dims, strict=True):
            out[axis] = dim.out
        return tuple(out)


def check_filled(shape: Sequence[int], axis: int) -> None:
    """Raise if a pooled axis has size 0."""
    if is_below(shape[axis], 1, axis):
        raise ValueError(
            f"{spelled('x')} must have at least one cell on each pooled axis; "
            f"axis {axis} is empty"
        )


def check_countable(name: str, sizes: Iterable[int]) -> None:
    """Raise for more cells than int32 can count."""
    cells = math.prod(sizes)
    if not is_symbolic(cells) and cells > MOST:
        raise ValueError(
            f"{spelled(name)} must have at most 2**31 - 1 cells, so that int32 can "
            "count them; "
            f"got {cells}"
        )
