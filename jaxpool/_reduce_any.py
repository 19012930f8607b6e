"""Windowed reduction by an associative operation that the caller brings."""

from collections.abc import Callable
from typing import Any

import jax

from jaxpool._lowering import Implementation, is_doubling, xla_reduce_window
from jaxpool._partitioner import loose_back
from jaxpool._passes import Op, reduce_steps
from jaxpool._stages import ready
from jaxpool._steps import forward_steps
from jaxpool._symbolic import reduce_cells
from jaxpool._window import Window


def reduce_any(
    op: Op,
    window: Window,
    implementation: Implementation | None,
    x: jax.Array,
    init: jax.Array,
) -> jax.Array:
    """Reduce each window of `x` by `op`, a function of scalars with identity `init`."""
    if implementation == "reduce_window":
        reduced: jax.Array = loose_back(xla_reduce_window(x, init, op, window))
        return reduced
    of_arrays = op
    for _ in range(x.ndim):
        of_arrays = jax.vmap(of_arrays)
    if window.is_symbolic:
        return reduce_cells(of_arrays, x, init, window)
    doubling = is_doubling(window, implementation)
    steps = forward_steps(window, doubling, ordered=True)
    (result,) = reduce_steps(of_arrays, ready(x), init, steps).now()
    return loose_back(result)


def check_op(op: Callable[[Any, Any], Any], x: jax.Array) -> None:
    """Refuse what is no function of two scalars to one of the same dtype."""
    if not callable(op):
        raise TypeError(
            f"op must be a function of two scalars; got op={op!r} for x.shape={x.shape}"
        )
    scalar = jax.ShapeDtypeStruct((), x.dtype)
    result = jax.eval_shape(op, scalar, scalar)
    if getattr(result, "shape", None) != () or result.dtype != x.dtype:
        raise TypeError(
            f"op must return one scalar of the dtype of x, {x.dtype}; got {result} "
            f"for x.shape={x.shape}"
        )
