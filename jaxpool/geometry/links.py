"""Static geometry of segments and neighbors: links between cells and outputs.

Which cell an output reads is in an array, which the program gets when it runs. Here are
only the sizes. Python integers only, and no jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxpool.geometry.axes import check_at_least, check_at_most, per_axis
from jaxpool.geometry.sizes import check_known
from jaxpool.geometry.window import MOST, check_countable, check_filled


@dataclass(frozen=True)
class AxisLinks:
    """The linked axis: `size` cells and `out` outputs. An output may have no cell."""

    size: int
    out: int

    may_miss: ClassVar[bool] = True


@dataclass(frozen=True)
class Links:
    """Cells of one axis; an output reads at most `cells` of them."""

    axis: int
    dim: AxisLinks

    is_symbolic: ClassVar[bool] = False
    is_countable: ClassVar[bool] = True

    @property
    def cells(self) -> int:
        """The most cells of an output."""
        raise NotImplementedError

    @property
    def most_numbers(self) -> int:
        """How many numbers there are in the array: those of outputs, or of cells."""
        raise NotImplementedError

    @property
    def axes(self) -> tuple[int, ...]:
        """The axis."""
        return (self.axis,)

    @property
    def dims(self) -> tuple[AxisLinks, ...]:
        """Its sizes."""
        return (self.dim,)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of the input on that axis."""
        return (self.dim.size,)

    @property
    def outs(self) -> tuple[int, ...]:
        """The size of the result on that axis."""
        return (self.dim.out,)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The most cells of an output, along that axis."""
        return (self.cells,)

    @property
    def dilations(self) -> tuple[int, ...]:
        """The distance between these cells, where places count all cells."""
        return (1,)

    def axis_by_axis(self) -> tuple["Links", ...]:
        """The same: there is one axis."""
        return (self,)

    def pairs(self) -> tuple[tuple[int, AxisLinks], ...]:
        """The axis and its sizes."""
        return ((self.axis, self.dim),)

    def clipped(self) -> "Links":
        """The same: links are to cells of the input only."""
        return self

    def output_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the pooled array."""
        return *shape[: self.axis], self.dim.out, *shape[self.axis + 1 :]


@dataclass(frozen=True)
class Segments(Links):
    """Each cell has the number of its output. `are_sorted`: these do not decrease."""

    are_sorted: bool = False

    @property
    def cells(self) -> int:
        return self.dim.size

    @property
    def most_numbers(self) -> int:
        return self.dim.out


@dataclass(frozen=True)
class Neighbors(Links):
    """Each output has the numbers of `count` cells."""

    count: int = 1

    @property
    def cells(self) -> int:
        return self.count

    @property
    def most_numbers(self) -> int:
        return self.dim.size


def linked_axis(
    shape: Sequence[int], axis: Any, outputs: Any, name: str
) -> tuple[int, AxisLinks]:
    """The axis that links lead along, and its sizes; `name` is that of `outputs`."""
    (along,), (out,) = per_axis("axis", axis, 1), per_axis(name, outputs, 1)
    check_at_least(name, [out], 1)
    check_at_most(name, [out], MOST)
    rank = len(shape)
    if not -rank <= along < rank:
        raise ValueError(f"axis must be in [{-rank}, {rank}); got axis={along}")
    position = along % rank
    check_known(shape[position], position)
    check_filled(shape, position)
    check_countable("x", shape[position : position + 1])
    return position, AxisLinks(shape[position], out)
