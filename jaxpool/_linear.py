"""Linear functions that bring their own transpose, for derivatives in both modes.

Forward mode runs the function, reverse mode the transpose, each as it was written; what
they know besides is all that is kept from one to the other. `jax.custom_derivatives`
has the same in `linear_call`, which cannot be mapped by `jax.vmap`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_linear_p = Primitive("jaxpool_linear")


def linear(
    function: Callable[..., jax.Array],
    transpose: Callable[..., jax.Array],
    known: Any,
    x: jax.Array,
) -> jax.Array:
    """`function(known, x)`, of which `transpose(known, g)` is the transpose in `x`.

    `known` is arrays in any container; there is no derivative in them.
    """
    leaves, container = jax.tree.flatten(known)

    def unpacked(function: Callable[..., jax.Array], *arrays: Any) -> jax.Array:
        return function(jax.tree.unflatten(container, arrays[:-1]), arrays[-1])

    functions = {
        "function": partial(unpacked, function),
        "transpose": partial(unpacked, transpose),
    }
    y: jax.Array = _linear_p.bind(*leaves, x, **functions)
    return y


def _call(*args: jax.Array, function: Callable[..., Any], transpose: Any) -> Any:
    return function(*args)


def _abstract(*args: Any, function: Callable[..., Any], transpose: Any) -> Any:
    (y,) = jax.make_jaxpr(function)(*args).out_avals
    return y


def _jvp(primals: Any, tangents: Any, **functions: Any) -> Any:
    y = _linear_p.bind(*primals, **functions)
    *known, _ = primals
    return y, _linear_p.bind(*known, tangents[-1], **functions)


def _transposed(g: Any, *args: Any, function: Any, transpose: Any) -> Any:
    *known, _ = args
    functions = {"function": transpose, "transpose": function}
    arrived = _linear_p.bind(*known, ad.instantiate_zeros(g), **functions)
    return *(None for _ in known), arrived


def _batched(args: Any, axes: Any, **functions: Callable[..., Any]) -> Any:
    *known, x = args
    *known_axes, axis = axes
    mapped = zip(args, axes, strict=True)
    (size, *_) = (a.shape[i] for a, i in mapped if i is not None)
    x = batching.bdim_at_front(x, axis, size)
    functions = {n: jax.vmap(f, (*known_axes, 0)) for n, f in functions.items()}
    return _linear_p.bind(*known, x, **functions), 0


_linear_p.def_impl(_call)
_linear_p.def_abstract_eval(_abstract)
ad.primitive_jvps[_linear_p] = _jvp
ad.primitive_transposes[_linear_p] = _transposed
batching.primitive_batchers[_linear_p] = _batched
mlir.register_lowering(_linear_p, mlir.lower_fun(_call, multiple_results=False))
