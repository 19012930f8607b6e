"""What XLA computes in one loop, and what it must not fuse across.

A pool is a few steps, one after the other. Fused into the next step, a step would be
computed again for each cell that the next one reads of it; so a step that is more than
elementwise ends in memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxpool.engines.faults import loose_back

Arrays: TypeAlias = tuple[Any, ...]


def as_they_are(*arrays: Any) -> Arrays:
    """The arrays themselves."""
    return arrays


class Lifted(NamedTuple):
    """Arrays in memory, and what is made of them in the loop that reads them."""

    arrays: Arrays = ()
    lift: Callable[..., Arrays] = as_they_are

    def then(self, function: Callable[..., Arrays]) -> "Lifted":
        """What `function` makes of that, in the same loop."""
        lift = self.lift
        return Lifted(self.arrays, lambda *arrays: function(*lift(*arrays)))

    def after(self, function: Callable[..., Arrays]) -> "Lifted":
        """The same of what `function` makes of one more array, the first."""
        lift = self.lift
        return Lifted(self.arrays, lambda t, *arrays: lift(*function(t), *arrays))

    def pick(self, number: int) -> "Lifted":
        """One of them."""
        return self.then(lambda *arrays: (arrays[number],))

    def beside(self, other: "Lifted") -> "Lifted":
        """Both, in the same loop."""
        one, another, count = self.lift, other.lift, len(self.arrays)
        return Lifted(
            self.arrays + other.arrays,
            lambda *arrays: (*one(*arrays[:count]), *another(*arrays[count:])),
        )

    def now(self, outlined: bool | None) -> Arrays:
        """That, in memory."""
        arrays: Arrays = stage(outlined, self.lift, *self.arrays)
        return arrays


NOTHING = Lifted()


def stage(outlined: bool | None, function: Callable[..., Any], *arrays: Any) -> Any:
    """`function(*arrays)`; if `outlined`, XLA does not fuse it into what uses that.

    XLA:CPU drops `lax.optimization_barrier` before it fuses. A call that it may not
    inline is a boundary that holds. Elsewhere XLA knows better what to fuse. None
    leaves the choice to the lowering, for what jax differentiates.
    """
    if outlined is None:

        def loose(*arrays: Any) -> Any:
            return jax.tree.map(loose_back, function(*arrays))

        return jax.lax.platform_dependent(
            *arrays, cpu=partial(stage, True, loose), default=loose
        )
    if not outlined:
        return function(*arrays)

    def inside(*arrays: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # the calls in there may be inlined
            return function(*arrays)

    with set_xla_metadata(inlineable="false"):
        return jax.jit(inside)(*arrays)
