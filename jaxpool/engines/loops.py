"""What XLA computes in one loop, and what it must not fuse across.

A pool is a few steps, one after the other. Fused into the next step, a step would be
computed again for each cell that the next one reads of it; so a step that is more than
elementwise ends in memory.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from jaxpool.engines.faults import loose_back

Arrays: TypeAlias = tuple[Any, ...]
# What ends a loop: a call that XLA:CPU may not inline; nothing on a GPU; on a TPU a
# barrier where blocks of cells are merged. "open" leaves it to the lowering.
Boundary: TypeAlias = Literal["call", "none", "barrier", "open"]


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
        """`lift(*function(t), *arrays)`, where `t` is one more array, the first."""
        lift = self.lift
        return Lifted(self.arrays, lambda t, *arrays: lift(*function(t), *arrays))

    def pick(self, number: int) -> "Lifted":
        """One of them."""
        return self.then(lambda *arrays: (arrays[number],))

    def along_with(self, other: "Lifted") -> "Lifted":
        """The arrays of both, in the same loop."""
        one, another, count = self.lift, other.lift, len(self.arrays)
        return Lifted(
            self.arrays + other.arrays,
            lambda *arrays: (*one(*arrays[:count]), *another(*arrays[count:])),
        )

    def now(self, boundary: Boundary) -> Arrays:
        """What is made of the arrays, computed and stored."""
        return stage(boundary, self.lift, *self.arrays)

    def finished(self, finish: "Lifted", boundary: Boundary) -> Arrays:
        """What `finish` makes of that and of arrays of its own, in memory."""
        own = Lifted(finish.arrays)
        return self.along_with(own).then(finish.lift).now(boundary)


NOTHING = Lifted()


def stage(boundary: Boundary, function: Callable[..., Any], *arrays: Any) -> Any:
    """`function(*arrays)`; with a call, XLA does not fuse it into what uses that.

    XLA:CPU drops `lax.optimization_barrier` before it fuses, but not a call that it may
    not inline. Elsewhere XLA knows better what to fuse. "open" is for what jax
    differentiates.
    """
    if boundary == "open":

        def loose(*arrays: Any) -> Any:
            return jax.tree.map(loose_back, function(*arrays))

        return jax.lax.platform_dependent(
            *arrays, cpu=partial(stage, "call", loose), default=loose
        )
    if boundary != "call":
        return function(*arrays)

    def inside(*arrays: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # the calls in there may be inlined
            return function(*arrays)

    with set_xla_metadata(inlineable="false"):
        return jax.jit(inside)(*arrays)
