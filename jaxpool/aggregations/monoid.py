"""Windowed reduction by an associative operation that the caller brings."""

from dataclasses import dataclass
from typing import Any

import jax

from jaxpool.aggregations.operation import Operation
from jaxpool.engines.contract import Op
from jaxpool.engines.faults import loose_back
from jaxpool.engines.fold import reduce_steps
from jaxpool.engines.loops import Arrays, Lifted
from jaxpool.engines.plan import Implementation, Needs, plan_for
from jaxpool.engines.symbolic import reduce_cells
from jaxpool.engines.xla import reduce_windows
from jaxpool.geometry.window import Window


@dataclass(frozen=True)
class Reduction:
    """The reduction by one operation of pytrees: equal if the operations are."""

    operation: Operation
    tree: Any

    def __call__(
        self,
        static: tuple[Any, ...],
        x: jax.Array,
        more: Arrays,
        inits: Arrays,
        arrays: Arrays,
    ) -> Arrays:
        """Reduce each window of `x` and of `more`; the operation closes over `arrays`.

        Each identity is static, or else one of `inits`.
        """
        window, implementation, *fixed = static
        pairs = zip(inits, fixed, strict=True)
        identities = tuple(init if own is None else own for init, own in pairs)
        op, tree = self.operation.of(arrays), self.tree
        if jax.tree.structure(0) == tree:
            return (_reduce_any(op, window, implementation, x, *identities),)

        def of_leaves(a: Arrays, b: Arrays) -> Arrays:
            one, other = (jax.tree.unflatten(tree, leaves) for leaves in (a, b))
            return tuple(jax.tree.leaves(op(one, other)))

        cells = (x, *more)
        reduced = _reduce_any(of_leaves, window, implementation, cells, identities)
        return tuple(reduced)


def _reduce_any(
    op: Op, window: Window, implementation: Implementation | None, x: Any, init: Any
) -> Any:
    """Reduce each window of `x` by `op`, a function of scalars with identity `init`.

    Or of tuples of scalars, if `x` and `init` are tuples.
    """
    window = window.clipped()
    if implementation == "reduce_window":
        reduced = reduce_windows(x, init, op, window, portable=True)
        return jax.tree.map(loose_back, reduced)
    first, of_arrays = jax.tree.leaves(x)[0], op
    for _ in range(first.ndim):
        of_arrays = jax.vmap(of_arrays)
    if window.is_symbolic:
        return reduce_cells(of_arrays, x, init, window)
    needs = Needs(ordered=True)
    # On every platform: in steps, which jax can differentiate for any `op`.
    steps = plan_for(window, "cpu", first.dtype, implementation, needs).steps
    cells = Lifted(x if isinstance(x, tuple) else (x,))
    results = reduce_steps(of_arrays, cells, init, steps, boundary="open")
    if not isinstance(x, tuple):
        return loose_back(results[0])
    # Without a step, the cells themselves.
    return jax.tree.map(loose_back, results)
