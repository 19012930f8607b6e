"""The pooled axes, and arguments that are one integer or one integer per axis.

Each user spelling (int, sequence, array) is converted to Python integers here, once.
Like all of `geometry`, this module imports no jax.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias, TypeVar

from jaxpool.geometry.spelling import spelled

# NumPy's integers and arrays have `__index__` too.
Ints: TypeAlias = SupportsIndex | Sequence[SupportsIndex]
Entry = TypeVar("Entry", int, int | None)

NOT_TRACED = (
    "not a traced value: mark it static with static_argnames of jax.jit, or close over "
    "it"
)


def pooled_axes(
    name: str,
    entries: Entry | tuple[Entry, ...],
    axes: Ints | None,
    shape: Sequence[int],
) -> tuple[tuple[int, ...], tuple[Entry, ...]]:
    """The pooled axes, and the entry of an argument for each of them.

    If `axes` is `None`, they are the `len(entries)` axes before the last (channels).
    """
    if axes is not None:
        positions = resolve_axes(axes, shape)
        return positions, _for_each(name, entries, len(positions))
    name = spelled(name)
    if not isinstance(entries, tuple):
        usual = tuple(range(1, len(shape) - 1)) or (0,)
        raise ValueError(
            f"{name} must have one entry per spatial axis, like {name}="
            f"{(entries,) * len(usual)}, or axes must be given, like axes={usual}; "
            f"got {name}={entries}"
        )
    most = len(shape) - 1
    if not 1 <= len(entries) <= most:
        raise ValueError(
            f"{name} must have at least 1 and at most {most} entries for an input with "
            f"{len(shape)} axes (the last is channels); "
            f"got {name}={entries}"
        )
    return tuple(range(most - len(entries), most)), entries


def resolve_axes(axes: Ints, shape: Sequence[int]) -> tuple[int, ...]:
    """`axes` as distinct non-negative integers, in their order."""
    rank = len(shape)
    given = as_ints("axes", axes)
    given = (given,) if isinstance(given, int) else given
    if not given or any(not -rank <= axis < rank for axis in given):
        raise ValueError(
            f"axes must name at least one axis, each in [{-rank}, {rank}); "
            f"got axes={axes}"
        )
    positions = tuple(axis % rank for axis in given)
    if len(set(positions)) != len(positions):
        raise ValueError(f"axes must be distinct; got axes={axes}")
    return positions


def as_ints(name: str, value: Any) -> int | tuple[int, ...]:
    """An integer, or a tuple of integers, from an int, a sequence or an array."""
    return _entries(name, value, as_int)


def as_optional_ints(name: str, value: Any) -> int | tuple[int | None, ...] | None:
    """The same, but each integer may be `None`."""
    return _entries(name, value, lambda item: None if item is None else as_int(item))


def _entries(
    name: str, value: Any, entry: Callable[[Any], Entry]
) -> Entry | tuple[Entry, ...]:
    try:
        try:
            return entry(value)
        except TypeError:
            return tuple(entry(item) for item in as_items(value))
    except TypeError as error:
        raise no_ints(name, value, error) from None


def no_ints(name: str, value: Any, error: TypeError) -> TypeError:
    """The error for a value with an item that is not an integer, or is traced."""
    name, rule = spelled(name), "an int or a sequence of ints"
    if type(error) is not TypeError:  # a class of jax, for a traced value
        rule = f"a Python int or a sequence of them, {NOT_TRACED}"
    return TypeError(f"{name} must be {rule}; got {name}={value!r:.80}")


def as_items(value: Any) -> Sequence[Any]:
    """The items of a sequence or an array. Sets and iterators raise TypeError."""
    has_items = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    others = (str, bytes, bytearray, memoryview, Mapping)
    if not has_items or isinstance(value, others):
        raise TypeError
    if hasattr(value, "tolist"):  # iteration would trace the items of a jax array
        is_time = getattr(value, "dtype", None) is not None and value.dtype.kind in "mM"
        value = None if is_time else value.tolist()
        if not isinstance(value, list):
            raise TypeError
    return tuple(value)


def as_int(value: Any) -> int:
    """A value with `__index__` as an int. A boolean raises TypeError."""
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def per_axis(name: str, value: Any, rank: int) -> tuple[int, ...]:
    """One integer per pooled axis; a single integer applies to every axis."""
    return _for_each(name, as_ints(name, value), rank)


def _for_each(
    name: str, entries: Entry | tuple[Entry, ...], rank: int
) -> tuple[Entry, ...]:
    if not isinstance(entries, tuple):
        return (entries,) * rank
    if len(entries) != rank:
        name = spelled(name)
        raise ValueError(
            f"{name} must be an int or have one entry for each of the {rank} pooled "
            f"axes; got {name}={entries}"
        )
    return entries


def check_flag(name: str, value: Any) -> None:
    """Raise unless the value is True or False."""
    if not isinstance(value, bool):
        is_traced = any(kind.__name__ == "Tracer" for kind in type(value).__mro__)
        rule = f"a Python bool, {NOT_TRACED}" if is_traced else "True or False"
        raise TypeError(f"{name} must be {rule}; got {name}={value!r:.80}")


def check_at_least(name: str, values: Sequence[int], least: int) -> None:
    """Raise if an integer is smaller."""
    if any(value < least for value in values):
        name = spelled(name)
        raise ValueError(
            f"{name} must be at least {least} on each axis; got {name}={tuple(values)}"
        )


def check_at_most(name: str, values: Sequence[int], most: int) -> None:
    """Raise if an integer is larger. Symbolic sizes pass."""
    if any(isinstance(value, int) and value > most for value in values):
        name = spelled(name)
        raise ValueError(
            f"{name} must be at most {most} on each axis; got {name}={tuple(values)}"
        )


def as_shape(shape: Ints) -> tuple[int, ...]:
    """`shape` as sizes of an array."""
    sizes = as_ints("shape", shape)
    if isinstance(sizes, int) or any(size < 0 for size in sizes):
        raise ValueError(f"shape must be a sequence of sizes; got shape={shape}")
    return sizes
