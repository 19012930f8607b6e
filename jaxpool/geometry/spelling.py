"""What error messages call the arguments: by jaxpool's names, or by a caller's.

A message asks `spelled` for the name when it is made. `compat` calls jaxpool inside
`renamed`, so that its errors have the names of the library that it stands for.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_NAMES: ContextVar[Mapping[str, str]] = ContextVar(
    "_NAMES", default=MappingProxyType({})
)


@contextmanager
def renamed(**names: str) -> Iterator[None]:
    """Errors raised inside have other names: `window="pool_size"`. Also a decorator."""
    token = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(token)


def spelled(name: str) -> str:
    """What messages call the argument `name`."""
    return _NAMES.get().get(name, name)
