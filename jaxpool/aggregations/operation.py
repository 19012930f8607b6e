"""A caller's operation, as something that is equal if it computes the same.

So its pool is compiled once, although each evaluation of a lambda makes a new function,
and although what a function does may change between two calls. It is traced at every
call, and the programs are compared. Functions of `jax.numpy` and `jax.lax` do not
change: they are traced once.
"""

import inspect
import weakref
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from jax.extend.linear_util import WrappedFun

from jaxpool.geometry.spelling import spelled

# What XLA's own windows know, and jax differentiates there.
KNOWN = (lax.add, lax.max, lax.min)


class Operation:
    """A function of two cells; its arrays are given where it is called.

    A cell is a scalar, or a pytree of scalars.
    """

    def __init__(self, function: Callable[..., Any], key: Hashable) -> None:
        self._function = function
        self._key = key
        self._hash = hash(key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Operation) and self._key == other._key

    def of(self, arrays: tuple[jax.Array, ...]) -> Callable[..., Any]:
        """The function, with the arrays that it closes over."""
        return self._function(*arrays)


class Traced(NamedTuple):
    """An operation, and the arrays that it closes over."""

    operation: Operation
    arrays: tuple[jax.Array, ...]


def traced(op: Callable[[Any, Any], Any], x: Any) -> Traced:
    """What an operation does to two cells with the dtypes of `x`, a pytree of arrays.

    Refuses what is no function of two cells to one with the same dtypes.
    """
    leaves, tree = jax.tree.flatten(x)
    dtypes = tuple(leaf.dtype for leaf in leaves)
    name = str(getattr(op, "__name__", ""))
    is_of_jax = any(getattr(module, name, None) is op for module in (jnp, lax))
    return (_traced_once if is_of_jax else _traced)(op, tree, dtypes)


def _traced(op: Callable[[Any, Any], Any], tree: Any, dtypes: Any) -> Traced:
    if not callable(op) or not _takes_two(op):
        raise TypeError(
            f"{spelled('op')} must be a function of two scalars, or of two pytrees of "
            f"scalars; got {spelled('op')}={op!r}"
        )
    scalars = [jax.ShapeDtypeStruct((), dtype) for dtype in dtypes]
    cell = jax.tree.unflatten(tree, scalars)
    # A function of its own, as jax remembers what those that it knows do.
    trace = jax.make_jaxpr(lambda a, b: op(a, b), return_shape=True)
    closed, result = trace(cell, cell)
    if _types(result) != _types(cell):
        names = jax.tree.unflatten(tree, [*map(str, dtypes)])
        raise TypeError(
            f"{spelled('op')} must return one scalar of the dtype of {spelled('x')}, "
            f"{names}, for each array of x; got {result}"
        )
    if any(op is known for known in KNOWN):
        return Traced(Operation(lambda: op, op), ())
    consts = closed.consts
    arrays = tuple(const for const in consts if isinstance(const, jax.Array))
    jaxpr = closed.jaxpr

    def function(*arrays: jax.Array) -> Callable[..., Any]:
        given = iter(arrays)
        full = [next(given) if isinstance(c, _Given) else c for c in others]
        apply = jaxpr_as_fun(ClosedJaxpr(jaxpr, full))
        return lambda a, b: jax.tree.unflatten(tree, apply(*jax.tree.leaves((a, b))))

    others = [_GIVEN if isinstance(const, jax.Array) else const for const in consts]
    owner = _reference(op)
    key = tree, _of_jaxpr(jaxpr, owner), _of_value(others, owner)
    return Traced(Operation(function, key), arrays)


_traced_once = lru_cache(maxsize=64)(_traced)


def _types(cell: Any) -> Any:
    """The structure of a cell, and shape and dtype of each of its scalars."""
    leaves, tree = jax.tree.flatten(cell)
    return tree, [(getattr(a, "shape", None), getattr(a, "dtype", a)) for a in leaves]


class _Given:
    """In place of an array that is given at each call."""


_GIVEN = _Given()


def _takes_two(op: Callable[..., Any]) -> bool:
    """Whether a function takes two arguments, as far as it says."""
    try:
        inspect.signature(op).bind(None, None)
    except ValueError:  # it does not say
        return True
    except TypeError:
        return False
    return True


class _Function:
    """A function in a program, such as a rule for derivatives.

    Where it is new in each trace, it is taken to be the one that the same operation,
    the `owner`, had before.
    """

    def __init__(self, function: Any, owner: Hashable) -> None:
        self._function = function
        self._owner = owner

    def __hash__(self) -> int:
        return hash(_Function)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Function):
            return False
        is_same = self._function is other._function
        return is_same or self._owner == other._owner


def _of_jaxpr(jaxpr: Jaxpr, owner: Hashable) -> Hashable:
    """The equations of a program, with numbers for variables."""
    numbers: dict[Any, int] = {}

    def atom(a: Any) -> Hashable:
        if isinstance(a, Literal):
            return str(a.aval), _of_value(np.asarray(a.val), owner)
        return str(a.aval), numbers.setdefault(a, len(numbers))

    def atoms(many: Any) -> Hashable:
        return tuple(map(atom, many))

    given = atoms(jaxpr.constvars), atoms(jaxpr.invars)
    equations = tuple(
        (e.primitive, _of_value(e.params, owner), atoms(e.invars), atoms(e.outvars))
        for e in jaxpr.eqns
    )
    return given, equations, atoms(jaxpr.outvars)


def _of_value(value: Any, owner: Hashable) -> Hashable:
    """Anything that an equation has besides variables."""
    if isinstance(value, ClosedJaxpr):
        return _of_jaxpr(value.jaxpr, owner), _of_value(value.consts, owner)
    if isinstance(value, Jaxpr):
        return _of_jaxpr(value, owner)
    if isinstance(value, (tuple, list)):
        return type(value), tuple(_of_value(v, owner) for v in value)
    if isinstance(value, dict):
        return tuple((k, _of_value(v, owner)) for k, v in sorted(value.items()))
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype, value.shape, value.tobytes()
    is_function = callable(value) and not isinstance(value, type)
    if is_function or isinstance(value, WrappedFun) or not isinstance(value, Hashable):
        return _Function(value, owner)
    return type(value), value


def _reference(op: Any) -> Hashable:
    """What equals the operation while it lives, and does not keep it if it need not."""
    try:
        return weakref.ref(op)
    except TypeError:
        return op if isinstance(op, Hashable) else _Given()
