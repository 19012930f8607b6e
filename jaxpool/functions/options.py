"""The options of the Flax modules, without Flax: fields, how they are kept and checked.

`jaxpool.linen` and `jaxpool.nnx` have one class for each pool. What both share is here:
each class of this file holds the fields that one kind of pool has in common. A module
class adds the fields that it alone has, and names its function as `_function`.

Options are frozen when they are set: lists and arrays become tuples and Python numbers,
so that Flax can hash them. They are checked when the module is made, as far as this is
possible without an array. Only fields that are parameters of `_function` are options.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cache, partial
from typing import Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxpool.engines.plan import Implementation, check_implementation, check_name
from jaxpool.functions.aggregate import Name, as_rules
from jaxpool.functions.arguments import as_number, check_flag
from jaxpool.functions.by import By
from jaxpool.functions.fractional import Rule, check_options
from jaxpool.functions.over import Over
from jaxpool.functions.padding import PaddingMode, check_mode
from jaxpool.functions.parameters import as_divisor, as_order
from jaxpool.functions.written import frozen
from jaxpool.geometry.axes import (
    Ints,
    as_ints,
    as_optional_ints,
    check_at_least,
    pooled_axes,
)
from jaxpool.geometry.bins import OptionalInts, step_draws, window_draws
from jaxpool.geometry.pooled import check_countable
from jaxpool.geometry.resolve import Padding, resolve, whole
from jaxpool.geometry.window import Window

Indexed = tuple[jax.Array, jax.Array]
Result = TypeVar("Result", jax.Array, Indexed)

# More than arrays have; so that a wrong one does not take all memory.
MOST_AXES = 1000

# Checks of one option alone, for every module that has it.
CHECKS: dict[str, Callable[[Any], object]] = {
    "empty_value": partial(as_number, "empty_value"),
    "keepdims": partial(check_flag, "keepdims"),
    "count_include_pad": partial(check_flag, "count_include_pad"),
    "divisor": partial(as_divisor, dtype=np.dtype(np.float64)),
    "p": as_order,
}


# Names of methods begin with an underscore: `nnx.tabulate` calls the others.


@dataclass(eq=False, repr=False)
class Options:
    """Options of a function as fields, which are frozen and checked."""

    # A `staticmethod`: Linen wraps every other function of a class.
    _function: ClassVar[Callable[..., Any]]
    # Options that may be arrays, which a model may learn.
    _arrays: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        """Freeze options: Flax keeps them as static data, which must be hashable."""
        if name in self._names() and name not in self._arrays:
            value = frozen(name, value)
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        """Check the options."""
        self._check()
        getattr(super(), "__post_init__", lambda: None)()  # Linen has one

    def _check(self) -> None:
        """Refuse options that are wrong for every array."""
        names = self._names()
        for name, check in CHECKS.items():
            if name in names and name not in self._arrays:
                check(getattr(self, name))

    @classmethod
    def _names(cls) -> set[str]:
        """The fields that the function takes: Flax, and subclasses, have others."""
        return {field.name for field in fields(cls)} & _parameters(cls._function)

    def _call(self, *arrays: ArrayLike, **arguments: Any) -> Any:
        """Call the function with the options; `arguments` replace some of them."""
        options = {name: getattr(self, name) for name in sorted(self._names())}
        return self._function(*arrays, **options | arguments)


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


@dataclass(eq=False, repr=False)
class WindowedPool(Options):
    """The options that all windowed pools have."""

    window: Ints
    strides: Ints | None = None
    padding: Padding = "VALID"
    _: KW_ONLY
    dilation: Ints = 1
    axes: Ints | None = None
    ceil_mode: bool = False
    empty_value: float = 0
    implementation: Implementation | None = None

    def _check(self) -> None:
        super()._check()
        check_implementation(self.implementation, self._window())

    def _window(self) -> Window:
        """The window in an array that is large enough."""
        shape = _shape(self.window, self.axes)
        geometry = self.window, self.strides, self.padding, self.dilation, self.axes
        return resolve(shape, *geometry, self.ceil_mode)


@dataclass(eq=False, repr=False)
class PaddedPool(WindowedPool):
    """The options of windowed pools whose padding can be data."""

    _: KW_ONLY
    padding_mode: PaddingMode | None = None

    def _check(self) -> None:
        super()._check()
        if self.padding_mode is not None:
            check_mode(self.padding_mode, self._window())


@dataclass(eq=False, repr=False)
class GlobalPool(Options):
    """The options that all global pools have."""

    _: KW_ONLY
    axes: Ints | None = None
    keepdims: bool = False
    empty_value: float = 0

    def _check(self) -> None:
        whole(_shape(None, self.axes), self.axes)
        super()._check()


@dataclass(eq=False, repr=False)
class AdaptivePool(Options):
    """The options that all adaptive pools have."""

    output_shape: OptionalInts
    _: KW_ONLY
    axes: Ints | None = None

    def _check(self) -> None:
        super()._check()
        wanted = as_optional_ints("output_shape", self.output_shape)
        _check_sizes([wanted] if isinstance(wanted, int) else wanted or ())
        shape = _shape(wanted, self.axes)
        pooled_axes("output_shape", wanted, self.axes, shape)


@dataclass(eq=False, repr=False)
class FractionalPool(Options):
    """The options that all fractional pools have, and how they draw.

    A key of the random stream `rng_collection` draws the bins. With `deterministic`, in
    the module or the call, no key is used: every sample is 1/2, and the rule "random"
    becomes "pseudorandom".
    """

    window: Ints | None
    output_shape: Ints
    _: KW_ONLY
    axes: Ints | None = None
    rule: Rule = "window"
    overlapping: bool = False
    deterministic: bool = False
    rng_collection: str = "pooling"

    def _check(self) -> None:
        super()._check()
        check_options(self.window, self.rule, self.overlapping)
        check_flag("deterministic", self.deterministic)
        if not isinstance(self.rng_collection, str):
            raise TypeError(
                "rng_collection must be the name of a stream; "
                f"got rng_collection={self.rng_collection!r}"
            )
        shape = _shape(self.output_shape, self.axes)
        if self.window is not None:
            window_draws(shape, self.window, self.output_shape, self.axes)
        else:
            step_draws(shape, self.output_shape, self.axes, self.overlapping)

    def _draw(
        self, x: ArrayLike, deterministic: bool | None, key: Callable[[], jax.Array]
    ) -> Any:
        """Pool by `key()`, or by samples of 1/2 if `deterministic`."""
        chosen = self.deterministic if deterministic is None else deterministic
        check_flag("deterministic", chosen)
        if not chosen:
            return self._call(x, key=key())
        sizes: Any = self.output_shape if self.axes is None else self.axes
        count = np.size(sizes)
        rule = "window" if self.rule == "window" else "pseudorandom"
        return self._call(x, samples=_halves(count), rule=rule)


@dataclass(eq=False, repr=False)
class Aggregation(Options):
    """The options of `aggregate`."""

    by: Name | By | tuple[Name | By, ...]
    over: Over
    _: KW_ONLY
    empty_value: float = 0
    implementation: Implementation | None = None

    def _check(self) -> None:
        super()._check()
        as_rules(self.by, self.over)
        check_name(self.implementation)


@dataclass(eq=False, repr=False)
class Unpool(Options):
    """The options of `max_unpool`."""

    output_shape: Ints
    _: KW_ONLY
    axes: Ints | None = None

    def _check(self) -> None:
        super()._check()
        wanted = as_ints("output_shape", self.output_shape)
        shape = _shape(wanted, self.axes)
        _, sizes = pooled_axes("output_shape", wanted, self.axes, shape)
        _check_sizes(sizes)
        check_countable("output_shape", sizes)


@partial(jax.jit, static_argnums=0)
def _halves(count: int) -> jax.Array:
    """Samples of 1/2, made where they are used."""
    return jnp.full(count, 0.5, np.float32)


def _check_sizes(sizes: Sequence[int | None]) -> None:
    check_at_least("output_shape", [n for n in sizes if n is not None], 1)


def _shape(entries: Any, axes: Any) -> tuple[int, ...]:
    """The shape of an array that has the axes, and a window or bins of any size."""
    given = () if axes is None else as_ints("axes", axes)
    given = (given,) if isinstance(given, int) else given
    if any(abs(axis) > MOST_AXES for axis in given):
        raise ValueError(f"axes must name axes of an array; got axes={axes}")
    count = len(entries) if isinstance(entries, Sequence) else 1
    first = max((axis + 1 for axis in given if axis >= 0), default=0)
    last = max((-axis for axis in given if axis < 0), default=0)
    return (2**31 - 1,) * max(count + 1, first + last, 4)
