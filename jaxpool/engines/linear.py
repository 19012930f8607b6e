"""Linear functions that bring their own transpose, for derivatives in both modes.

Forward mode runs the function, reverse mode the transpose, each as it was written; what
they know besides is all that is kept from one to the other. `jax.custom_derivatives`
has the same in `linear_call`, which cannot be mapped by `jax.vmap`.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import jax
from jax.extend.core import Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxpool.engines.faults import loose_back
from jaxpool.engines.lowering import is_portable

_linear_p = Primitive("jaxpool_linear")


def linear(
    function: Callable[..., jax.Array],
    transpose: Callable[..., jax.Array],
    known: Any,
    x: jax.Array,
) -> jax.Array:
    """`function(known, x)`, of which `transpose(known, g)` is the transpose in `x`.

    `known` is arrays in any container. Derivatives in them are those of `function`.
    In a portable program jax transposes the function itself.
    """
    if is_portable():
        return loose_back(function(known, x))  # jax pads what comes back
    leaves, container = jax.tree.flatten(known)

    def unpacked(function: Callable[..., jax.Array], *arrays: Any) -> jax.Array:
        return function(jax.tree.unflatten(container, arrays[:-1]), arrays[-1])

    functions = {
        "function": _Traced(partial(unpacked, function)),
        "transpose": _Traced(partial(unpacked, transpose)),
    }
    y: jax.Array = _linear_p.bind(*leaves, x, **functions)
    return y


class _Traced:
    """A function that is traced once for arguments of each type."""

    def __init__(self, function: Callable[..., jax.Array]) -> None:
        self._function = function
        self._traced: dict[tuple[Any, ...], Any] = {}

    def jaxpr(self, *types: Any) -> Any:
        """What it does to arguments of such types."""
        if types not in self._traced:
            self._traced[types] = jax.make_jaxpr(self._function)(*types)
        return self._traced[types]

    def __call__(self, *args: jax.Array) -> jax.Array:
        """Call it."""
        y: jax.Array
        (y,) = jaxpr_as_fun(self.jaxpr(*map(jax.typeof, args)))(*args)
        return y


def _call(*args: jax.Array, function: Callable[..., Any], transpose: Any) -> Any:
    return function(*args)


def _abstract(*types: Any, function: _Traced, transpose: Any) -> Any:
    (y,) = function.jaxpr(*types).out_avals
    return y


def _jvp(primals: Any, tangents: Any, **functions: Any) -> Any:
    y = _linear_p.bind(*primals, **functions)
    (*known, x), (*changes, t) = primals, tangents
    moved = [] if type(t) is ad.Zero else [_linear_p.bind(*known, t, **functions)]
    if not all(type(change) is ad.Zero for change in changes):
        changes = [ad.instantiate_zeros(change) for change in changes]
        function = functions["function"]
        _, more = jax.jvp(lambda *known: function(*known, x), known, changes)
        moved.append(more)
    return y, reduce(ad.add_tangents, moved)


def _transposed(g: Any, *args: Any, function: Any, transpose: Any) -> Any:
    *known, _ = args
    functions = {"function": transpose, "transpose": function}
    arrived = _linear_p.bind(*known, ad.instantiate_zeros(g), **functions)
    return *(None for _ in known), arrived


def _batched(args: Any, axes: Any, function: _Traced, transpose: _Traced) -> Any:
    *known_axes, axis = axes
    back = jax.vmap(transpose, (*known_axes, 0), 0 if axis is None else axis)
    functions = {
        "function": _Traced(jax.vmap(function, axes)),
        # All that is made of one `x` comes back to it.
        "transpose": _Traced(lambda *a: back(*a).sum(0) if axis is None else back(*a)),
    }
    return _linear_p.bind(*args, **functions), 0


_linear_p.def_impl(_call)
_linear_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transposed
batching.primitive_batchers[_linear_p] = _batched
mlir.register_lowering(_linear_p, mlir.lower_fun(_call, multiple_results=False))
