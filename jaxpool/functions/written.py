"""Small frozen objects that are printed as they are written."""

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import jax
import numpy as np
from jax.tree_util import register_dataclass


@dataclass(frozen=True, repr=False, eq=False)
class Written:
    """`Softmax(scale=2.0)`, `windows((3, 3), 2)`: what is default is not printed."""

    arrays: ClassVar[tuple[str, ...]] = ()  # fields that may hold arrays

    def __post_init__(self) -> None:
        """Freeze what is static, so that it hashes."""
        for field in fields(self):
            if field.name not in self.arrays:
                value = frozen(field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, value)

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
    """Make these types pytrees of their arrays; other fields are static."""
    for kind in kinds:
        names = [field.name for field in fields(kind)]
        static = [name for name in names if name not in kind.arrays]
        register_dataclass(kind, [n for n in names if n in kind.arrays], static)


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
