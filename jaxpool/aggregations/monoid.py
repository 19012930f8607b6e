"""Windowed reduction by an associative operation that the caller brings."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxpool.aggregations.operation import Operation
from jaxpool.engines.faults import loose_back
from jaxpool.engines.fold import Op, reduce_steps
from jaxpool.engines.loops import Lifted
from jaxpool.engines.plan import Implementation, Needs, plan_for
from jaxpool.engines.symbolic import reduce_cells
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.window import Window


@dataclass(frozen=True)
class Reduction:
    """The reduction by one operation: equal if the operations are."""

    operation: Operation

    def __call__(
        self,
        static: tuple[Window, Implementation | None, np.ndarray | None],
        x: jax.Array,
        init: jax.Array | None,
        *arrays: jax.Array,
    ) -> jax.Array:
        """Reduce each window of `x`; the operation closes over `arrays`.

        The identity is static, or else `init`.
        """
        window, implementation, known = static
        op, identity = self.operation.of(arrays), init if known is None else known
        return _reduce_any(op, window, implementation, x, identity)


def _reduce_any(
    op: Op,
    window: Window,
    implementation: Implementation | None,
    x: jax.Array,
    init: Any,
) -> jax.Array:
    """Reduce each window of `x` by `op`, a function of scalars with identity `init`."""
    window = window.clipped()
    if implementation == "reduce_window":
        reduced: jax.Array = loose_back(
            reduce_windows(x, init, op, window, portable=True)
        )
        return reduced
    of_arrays = op
    for _ in range(x.ndim):
        of_arrays = jax.vmap(of_arrays)
    if window.is_symbolic:
        reduced = reduce_cells(of_arrays, x, init, window)
        return reduced
    steps = plan_for(window, "cpu", x.dtype, implementation, Needs(ordered=True)).steps
    (result,) = reduce_steps(of_arrays, Lifted((x,)), init, steps, boundary="open")
    return loose_back(result)
