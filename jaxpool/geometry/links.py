"""Static geometry of segments and neighbors: links between cells and outputs.

Which cell an output reads is in an array, which the program gets when it runs. Here are
only the sizes. Python integers only, and no jax.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxpool.geometry.axes import check_at_least, check_at_most, per_axis
from jaxpool.geometry.pooled import MOST, PooledAxes, check_countable, check_filled
from jaxpool.geometry.sizes import check_known


@dataclass(frozen=True)
class AxisLinks:
    """The linked axis: `size` cells and `out` outputs of up to `length` cells."""

    size: int
    out: int
    length: int

    may_miss: ClassVar[bool] = True
    is_identity: ClassVar[bool] = False
    dilation: ClassVar[int] = 1


@dataclass(frozen=True)
class Links(PooledAxes):
    """The one axis that links lead along."""

    dims: tuple[AxisLinks]

    @property
    def axis(self) -> int:
        """The axis."""
        return self.axes[0]

    @property
    def dim(self) -> AxisLinks:
        """Its sizes."""
        return self.dims[0]

    @property
    def most_numbers(self) -> int:
        """How many numbers there are in the array: those of outputs, or of cells."""
        raise NotImplementedError


@dataclass(frozen=True)
class Segments(Links):
    """Each cell has the number of its output. `are_sorted`: these do not decrease."""

    are_sorted: bool = False

    @property
    def most_numbers(self) -> int:
        return self.dim.out


@dataclass(frozen=True)
class Neighbors(Links):
    """Each output has the numbers of its cells."""

    @property
    def most_numbers(self) -> int:
        return self.dim.size


def linked_axis(
    shape: Sequence[int], axis: Any, outputs: Any, name: str, cells: int | None = None
) -> tuple[tuple[int], tuple[AxisLinks]]:
    """The axis that links lead along, and its sizes; `name` is that of `outputs`.

    An output has at most `cells` cells; `None`: all cells of the axis.
    """
    (along,), (out,) = per_axis("axis", axis, 1), per_axis(name, outputs, 1)
    check_at_least(name, [out], 1)
    check_at_most(name, [out], MOST)
    rank = len(shape)
    if not -rank <= along < rank:
        raise ValueError(f"axis must be in [{-rank}, {rank}); got axis={along}")
    position = along % rank
    size = shape[position]
    check_known(size, position)
    check_filled(shape, position)
    check_countable("x", [size])
    return (position,), (AxisLinks(size, out, size if cells is None else cells),)
