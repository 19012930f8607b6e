"""What the Flax modules are, without Flax: the options of a pool, and its function."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, ClassVar

import jax
import numpy as np
from jax.typing import ArrayLike

import jaxpool
from jaxpool._bins import OptionalInts
from jaxpool._fractional import Rule
from jaxpool._lowering import Implementation
from jaxpool._padding import PaddingMode
from jaxpool._window import Ints, Padding


@dataclass(eq=False, repr=False)
class Options:
    """Options of a function as fields."""

    _function: ClassVar[Callable[..., Any]]
    _not_options: ClassVar[set[str]] = {"parent", "name"}  # Linen's

    def __post_init__(self) -> None:
        """Make the options hashable: Flax keeps them as static data."""
        for name, value in self.options().items():
            object.__setattr__(self, name, _frozen(value))
        getattr(super(), "__post_init__", lambda: None)()  # Linen has one

    def options(self) -> dict[str, Any]:
        names = {field.name for field in fields(self)} - self._not_options
        return {name: getattr(self, name) for name in sorted(names)}


class Pool(Options):
    """A pool; the arrays come with the call."""

    def pool(self, x: ArrayLike, **arguments: Any) -> Any:
        return type(self)._function(x, **self.options() | arguments)


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


@dataclass(eq=False, repr=False)
class GlobalPool(Pool):
    """The options that global pools share."""

    _: KW_ONLY
    axes: Ints | None = None
    keepdims: bool = False
    empty_value: float = 0


@dataclass(eq=False, repr=False)
class AdaptivePool(Pool):
    """The options that adaptive pools share."""

    output_shape: OptionalInts
    _: KW_ONLY
    axes: Ints | None = None


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
    _not_options = Pool._not_options | {"deterministic", "rng_collection", "rngs"}

    def draw(
        self, x: ArrayLike, deterministic: bool | None, key: Callable[[], jax.Array]
    ) -> Any:
        """Pool by `key()`, unless it is to be deterministic."""
        if not (self.deterministic if deterministic is None else deterministic):
            return self.pool(x, key=key())
        count = np.size(self.output_shape if self.axes is None else self.axes)
        rule = "window" if self.rule == "window" else "pseudorandom"
        return self.pool(x, samples=np.full(count, 0.5, np.float32), rule=rule)


class MaxPool(WindowedPool):
    _function = jaxpool.max_pool


class MinPool(WindowedPool):
    _function = jaxpool.min_pool


@dataclass(eq=False, repr=False)
class ExtendedPool(WindowedPool):
    """The options of windowed pools whose padding may be data."""

    _: KW_ONLY
    padding_mode: PaddingMode | None = None


class SumPool(ExtendedPool):
    _function = jaxpool.sum_pool


@dataclass(eq=False, repr=False)
class AvgPool(ExtendedPool):
    _: KW_ONLY
    count_include_pad: bool = False
    divisor: float | None = None
    _function = jaxpool.avg_pool


@dataclass(eq=False, repr=False)
class LpPool(ExtendedPool):
    _: KW_ONLY
    p: float = 2.0
    _function = jaxpool.lp_pool


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

    def unpool(self, values: ArrayLike, indices: ArrayLike) -> jax.Array:
        unpooled: jax.Array = jaxpool.max_unpool(values, indices, **self.options())
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


def _frozen(value: Any) -> Any:
    """`value` with tuples for lists and arrays."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    return value
