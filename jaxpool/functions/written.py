"""Small frozen objects that are printed as they are written."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

NUMBERS = int, float, np.number


@dataclass(frozen=True, repr=False, eq=False)
class Written:
    """`Softmax(scale=2.0)`, `windows((3, 3), 2)`: what is default is not printed.

    Equal if all fields are; of arrays, if they are the same object.
    """

    arrays: ClassVar[tuple[str, ...]] = ()  # fields that may hold arrays
    choices: ClassVar[tuple[str, ...]] = ()  # of these, where a number chooses a form

    def __post_init__(self) -> None:
        """Freeze what is static, so that it hashes."""
        for field in fields(self):
            if field.name not in self.arrays:
                value = frozen(field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        values = (getattr(self, field.name) for field in fields(self))
        return type(self), *(v if _is_hashed(v) else id(v) for v in values)

    def __repr__(self) -> str:
        given, by_name = list[str](), False
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is not MISSING and value is field.default:
                by_name = True  # what follows is named
            elif by_name or field.kw_only:
                given.append(f"{field.name}={value!r}")
            else:
                given.append(repr(value))
        return f"{type(self).__name__}({', '.join(given)})"


def register(*kinds: type[Written]) -> None:
    """Make these types pytrees of their arrays; other fields are static.

    So is a number that chooses a form.
    """
    for kind in kinds:
        names = [field.name for field in fields(kind)]
        register_pytree_with_keys(
            kind, partial(_flattened, names), partial(_unflattened, kind)
        )


def _flattened(names: Sequence[str], written: Written) -> Any:
    """Names and values of what may hold arrays, and of what is static."""
    values = {name: getattr(written, name) for name in names}
    numbers = {n for n in written.choices if isinstance(values[n], NUMBERS)}
    leaves = [name for name in names if name in {*written.arrays} - numbers]
    static = tuple((name, values[name]) for name in names if name not in leaves)
    return [(GetAttrKey(n), values[n]) for n in leaves], (tuple(leaves), static)


def _unflattened(kind: type[Written], names: Any, values: Iterable[Any]) -> Written:
    """Without checks: where jax calls this, leaves may be anything."""
    written, (leaves, static) = object.__new__(kind), names
    for name, value in (*zip(leaves, values, strict=True), *static):
        object.__setattr__(written, name, value)
    return written


def _is_hashed(value: Any) -> bool:
    """Whether values of this kind can be compared by their hashes."""
    if isinstance(value, jax.Array):
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return True


def frozen(name: str, value: Any) -> Any:
    """`value` with tuples for lists and arrays, and Python's numbers for others."""
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        kinds = "biufV"  # not times, which are lists of ints too
        is_known = not isinstance(value, jax.core.Tracer)
        if not is_known or value.dtype.kind not in kinds:
            return value
        value = value.tolist()
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        return value
    if isinstance(value, Sequence):
        return tuple(frozen(name, item) for item in value)
    if isinstance(value, Iterable):
        raise TypeError(
            f"{name} must have its items in a list, a tuple or an array, which have an "
            f"order; got {name}={value!r:.80}"
        )
    return value
