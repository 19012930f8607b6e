"""Stages: what XLA computes in one piece, and what it must not fuse across.

A pooling is a few steps, one after the other. Fused into the next step, a step would
be computed again for each cell that the next one reads of it; so a step that is
more than elementwise ends in memory.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata

from jaxpool.engines.faults import loose_back
from jaxpool.engines.lowering import on_cpu_else

Arrays: TypeAlias = tuple[Any, ...]


def stage(function: Callable[..., Any], *arrays: Any) -> Any:
    """Call `function`, and on a CPU keep XLA from fusing it into what uses the result.

    There XLA drops `lax.optimization_barrier` before it fuses. A call that it may not
    inline is a boundary that holds. Elsewhere XLA knows better what to fuse.
    """

    def inside(*arrays: Any) -> Any:
        with set_xla_metadata(inlineable=None):  # the calls in there may be inlined
            return jax.tree.map(_as_result, function(*arrays))

    def outlined(*arrays: Any) -> Any:
        with set_xla_metadata(inlineable="false"):
            return jax.jit(inside)(*arrays)

    return on_cpu_else(outlined, function, *arrays)


def _as_result(array: jax.Array) -> jax.Array:
    """A result of a stage, the derivatives of which are stages too."""
    return loose_back(array) if jnp.issubdtype(array.dtype, jnp.inexact) else array


class Deferred(NamedTuple):
    """Arrays that are computed where they are needed: `function(*arrays)`."""

    function: Callable[..., Arrays]
    arrays: Arrays

    def then(self, function: Callable[..., Arrays]) -> "Deferred":
        """What `function` makes of them, in the same stage."""
        before = self.function
        return Deferred(lambda *arrays: function(*before(*arrays)), self.arrays)

    def beside(self, other: "Deferred") -> "Deferred":
        """These arrays and others, in the same stage."""
        one, another, known = self.function, other.function, len(self.arrays)
        return Deferred(
            lambda *arrays: (*one(*arrays[:known]), *another(*arrays[known:])),
            self.arrays + other.arrays,
        )

    def pick(self, number: int) -> "Deferred":
        """One of the arrays."""
        return self.then(lambda *arrays: (arrays[number],))

    def now(self) -> Arrays:
        """The arrays, in memory."""
        computed: Arrays = stage(self.function, *self.arrays)
        return computed

    def stored(self) -> "Deferred":
        """The same arrays, computed once."""
        return ready(*self.now())


def ready(*arrays: Any) -> Deferred:
    """Arrays that are in memory."""
    return Deferred(as_they_are, arrays)


def as_they_are(*arrays: Any) -> Arrays:
    """The arrays themselves."""
    return arrays
