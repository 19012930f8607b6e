"""Small frozen objects that are printed as they are written."""

from dataclasses import MISSING, dataclass, fields
from typing import Any

from jax.tree_util import register_dataclass


@dataclass(frozen=True, repr=False, eq=False)
class Written:
    """`Softmax(scale=2.0)`, `windows((3, 3), 2)`: what is default is not printed."""

    def __post_init__(self) -> None:
        """Make lists tuples, which hash."""
        for field in fields(self):
            object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))

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


def register(*kinds: type[Written], arrays: tuple[str, ...] = ()) -> None:
    """Make these types pytrees of the fields `arrays`; others are static."""
    for kind in kinds:
        names = [field.name for field in fields(kind)]
        static = [name for name in names if name not in arrays]
        register_dataclass(kind, [n for n in names if n in arrays], static)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value
