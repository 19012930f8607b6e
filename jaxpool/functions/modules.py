"""What the Flax modules are, without Flax: the options of a pool, and its function."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import jaxpool
from jaxpool.engines.lowering import Implementation, check_implementation
from jaxpool.functions.arguments import as_divisor, as_number, as_order, check_flag
from jaxpool.functions.fractional import Rule, check_options
from jaxpool.functions.padding import PaddingMode, check_mode
from jaxpool.geometry.axes import as_ints, as_optional_ints, check_at_least, pooled_axes
from jaxpool.geometry.bins import OptionalInts, step_draws, window_draws
from jaxpool.geometry.window import (
    Ints,
    Padding,
    Window,
    check_countable,
    resolve,
    whole,
)

# More than arrays have; so that a wrong one does not take all memory.
MOST_AXES = 1000


# Names of methods begin with an underscore: `nnx.tabulate` calls the others.


@dataclass(eq=False, repr=False)
class Options:
    """Options of a function as fields, which are checked when they are set."""

    _function: ClassVar[Callable[..., Any]]

    def __setattr__(self, name: str, value: Any) -> None:
        """Make options hashable: Flax keeps them as static data."""
        value = _frozen(name, value) if name in self._names() else value
        super().__setattr__(name, value)

    def __post_init__(self) -> None:
        """Check the options, as far as one can without an array."""
        self._check()
        getattr(super(), "__post_init__", lambda: None)()  # Linen has one

    def _check(self) -> None:
        """Refuse options that no array goes with."""

    @classmethod
    def _names(cls) -> set[str]:
        """The fields that the function takes: Flax, and subclasses, have others."""
        return {field.name for field in fields(cls)} & _parameters(cls._function)

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in sorted(self._names())}


@cache
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


class Pool(Options):
    """A pool; the arrays come with the call."""

    def _pool(self, x: ArrayLike, **arguments: Any) -> Any:
        return type(self)._function(x, **self._options() | arguments)


@dataclass(eq=False, repr=False)
class WindowedPool(Pool):
    """The options that windowed pools share."""

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
        as_number("empty_value", self.empty_value)
        check_implementation(self.implementation, self._window())

    def _window(self) -> Window:
        """The window in an array that is large enough."""
        shape = _shape("window", self.window, self.axes)
        geometry = self.window, self.strides, self.padding, self.dilation, self.axes
        return resolve(shape, *geometry, self.ceil_mode)


@dataclass(eq=False, repr=False)
class GlobalPool(Pool):
    """The options that global pools share."""

    _: KW_ONLY
    axes: Ints | None = None
    keepdims: bool = False
    empty_value: float = 0

    def _check(self) -> None:
        super()._check()
        whole(_shape("axes", None, self.axes), self.axes)
        check_flag("keepdims", self.keepdims)
        as_number("empty_value", self.empty_value)


@dataclass(eq=False, repr=False)
class AdaptivePool(Pool):
    """The options that adaptive pools share."""

    output_shape: OptionalInts
    _: KW_ONLY
    axes: Ints | None = None

    def _check(self) -> None:
        super()._check()
        wanted = as_optional_ints("output_shape", self.output_shape)
        _check_sizes([wanted] if isinstance(wanted, int) else wanted or ())
        shape = _shape("output_shape", wanted, self.axes)
        pooled_axes("output_shape", wanted, self.axes, shape)


@dataclass(eq=False, repr=False)
class FractionalPool(Pool):
    """The options that fractional pools share, and how they draw.

    With `deterministic`, in the object or the call, every sample is 1/2, and
    "pseudorandom" stands for "random". Else a key of the stream `rng_collection` draws.
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
        shape = _shape("output_shape", self.output_shape, self.axes)
        if self.window is not None:
            window_draws(shape, self.window, self.output_shape, self.axes)
        else:
            step_draws(shape, self.output_shape, self.axes, self.overlapping)

    def _draw(
        self, x: ArrayLike, deterministic: bool | None, key: Callable[[], jax.Array]
    ) -> Any:
        """Pool by `key()`, unless it is to be deterministic."""
        chosen = self.deterministic if deterministic is None else deterministic
        check_flag("deterministic", chosen)
        if not chosen:
            return self._pool(x, key=key())
        count = np.size(self.output_shape if self.axes is None else self.axes)
        rule = "window" if self.rule == "window" else "pseudorandom"
        return self._pool(x, samples=_halves(count), rule=rule)


@partial(jax.jit, static_argnums=0)
def _halves(count: int) -> jax.Array:
    """Samples of 1/2, made where they are used."""
    return jnp.full(count, 0.5, np.float32)


class MaxPool(WindowedPool):
    _function = jaxpool.max_pool


class MinPool(WindowedPool):
    _function = jaxpool.min_pool


@dataclass(eq=False, repr=False)
class ExtendedPool(WindowedPool):
    """The options of windowed pools whose padding may be data."""

    _: KW_ONLY
    padding_mode: PaddingMode | None = None

    def _check(self) -> None:
        super()._check()
        if self.padding_mode is not None:
            check_mode(self.padding_mode, self._window())


class SumPool(ExtendedPool):
    _function = jaxpool.sum_pool


@dataclass(eq=False, repr=False)
class AvgPool(ExtendedPool):
    _: KW_ONLY
    count_include_pad: bool = False
    divisor: float | None = None
    _function = jaxpool.avg_pool

    def _check(self) -> None:
        super()._check()
        check_flag("count_include_pad", self.count_include_pad)
        as_divisor(self.divisor, np.dtype(np.float64))


@dataclass(eq=False, repr=False)
class LpPool(ExtendedPool):
    _: KW_ONLY
    p: float = 2.0
    _function = jaxpool.lp_pool

    def _check(self) -> None:
        super()._check()
        as_order(self.p)


class MaxPoolWithIndices(WindowedPool):
    _function = jaxpool.max_pool_with_indices


class MinPoolWithIndices(WindowedPool):
    _function = jaxpool.min_pool_with_indices


class GlobalMaxPoolWithIndices(GlobalPool):
    _function = jaxpool.global_max_pool_with_indices


class GlobalMinPoolWithIndices(GlobalPool):
    _function = jaxpool.global_min_pool_with_indices


@dataclass(eq=False, repr=False)
class MaxUnpool(Options):
    output_shape: Ints
    _: KW_ONLY
    axes: Ints | None = None
    _function = jaxpool.max_unpool

    def _check(self) -> None:
        super()._check()
        wanted = as_ints("output_shape", self.output_shape)
        shape = _shape("output_shape", wanted, self.axes)
        _, sizes = pooled_axes("output_shape", wanted, self.axes, shape)
        _check_sizes(sizes)
        check_countable("output_shape", sizes)

    def _unpool(self, values: ArrayLike, indices: ArrayLike) -> jax.Array:
        unpooled: jax.Array = jaxpool.max_unpool(values, indices, **self._options())
        return unpooled


class GlobalMaxPool(GlobalPool):
    _function = jaxpool.global_max_pool


class GlobalMinPool(GlobalPool):
    _function = jaxpool.global_min_pool


class GlobalSumPool(GlobalPool):
    _function = jaxpool.global_sum_pool


class GlobalAvgPool(GlobalPool):
    _function = jaxpool.global_avg_pool


@dataclass(eq=False, repr=False)
class GlobalLpPool(GlobalPool):
    _: KW_ONLY
    p: float = 2.0
    _function = jaxpool.global_lp_pool

    def _check(self) -> None:
        super()._check()
        as_order(self.p)


class AdaptiveMaxPool(AdaptivePool):
    _function = jaxpool.adaptive_max_pool


class AdaptiveMaxPoolWithIndices(AdaptivePool):
    _function = jaxpool.adaptive_max_pool_with_indices


class AdaptiveAvgPool(AdaptivePool):
    _function = jaxpool.adaptive_avg_pool


class FractionalMaxPool(FractionalPool):
    _function = jaxpool.fractional_max_pool


class FractionalMaxPoolWithIndices(FractionalPool):
    _function = jaxpool.fractional_max_pool_with_indices


class FractionalAvgPool(FractionalPool):
    _function = jaxpool.fractional_avg_pool


def _check_sizes(sizes: Sequence[int | None]) -> None:
    check_at_least("output_shape", [n for n in sizes if n is not None], 1)


def _shape(name: str, entries: Any, axes: Any) -> tuple[int, ...]:
    """The shape of an array that has the axes, and a window or bins of any size."""
    given = () if axes is None else as_ints("axes", axes)
    given = (given,) if isinstance(given, int) else given
    if any(abs(axis) > MOST_AXES for axis in given):
        raise ValueError(f"axes must name axes of an array; got axes={axes}")
    count = len(entries) if isinstance(entries, Sequence) else 1
    first = max((axis + 1 for axis in given if axis >= 0), default=0)
    last = max((-axis for axis in given if axis < 0), default=0)
    return (2**31 - 1,) * max(count + 1, first + last, 4)


def _frozen(name: str, value: Any) -> Any:
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
        return tuple(_frozen(name, item) for item in value)
    if isinstance(value, Iterable):
        raise TypeError(
            f"{name} must have its items in a list, a tuple or an array, which have an "
            f"order; got {name}={value!r:.80}"
        )
    return value
