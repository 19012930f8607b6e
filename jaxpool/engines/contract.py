"""What the two primitives `fold` and `fold_back` are given, in all engines."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

import jax
from jax import lax

from jaxpool.engines.cells import Scalar
from jaxpool.engines.elementwise import equals, minus, pair
from jaxpool.engines.loops import Arrays


class Place(NamedTuple):
    """Where a cell, or a run of cells, lies in an output.

    Its positions, in the row-major order of the whole window, are `length` from `start`
    on. On the way back these may be arrays, over the cells of a block.
    """

    start: Any
    length: Any

    def has(self, position: jax.Array) -> jax.Array:
        """Whether a position of the window lies in the run."""
        if isinstance(self.length, int) and self.length == 1:
            return equals(position, self.start)
        return self.inside(position)[0]

    def inside(self, position: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Whether a position of the window lies in the run, and where in it."""
        # What is before the run wraps to large numbers.
        inner = minus(position, self.start)
        return lax.le(*pair(inner, self.length - 1)), inner


# What combines two terms.
Op: TypeAlias = Callable[[Any, Any], Any]
# A function `term(cell, output, place)`. It returns an array, or a pytree of arrays.
Term: TypeAlias = Callable[[Arrays, Arrays, Place], Any]
# What stands for cells in the padding; for a pytree, one for each array, in turn.
Fill: TypeAlias = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, eq=False)
class AxisStep:
    """A reduction along one axis. It has the same properties as a step of windows."""

    axes: tuple[int]
    sizes: tuple[int]
    outs: tuple[int]

    begins: ClassVar[bool] = True

    @property
    def pieces(self) -> tuple[Self]:
        """What it combines: the cells."""
        return (self,)


def of_leaves(
    function: Callable[[jax.Array, Scalar], jax.Array], piece: Any, fill: Fill
) -> Any:
    """`function(array, fill)` of each array of a pytree; several fills take turns."""
    leaves, tree = jax.tree.flatten(piece)
    fills = itertools.cycle(fill if isinstance(fill, tuple) else (fill,))
    return jax.tree.unflatten(tree, map(function, leaves, fills))
