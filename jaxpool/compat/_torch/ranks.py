"""One public function for each rank, made of a pool that takes the rank first.

`of_rank` keeps the signature for checkers. Where the type of the result depends on
`return_indices`, they see a protocol. Of its overloads the first that fits counts, so
a call without `return_indices` is one of the first.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

import jax
from jax.typing import ArrayLike

from jaxpool.compat._torch.arguments import OutputSize, Pooled
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.spelling import renamed

P = ParamSpec("P")
R = TypeVar("R")

_NAMES = {
    "x": "input",
    "values": "input",
    "window": "kernel_size",
    "strides": "stride",
    "output_shape": "output_size",
    "samples": "_random_samples",
    "divisor": "divisor_override",
}


def of_rank(rank: int, pool: Callable[Concatenate[int, P], R]) -> Callable[P, R]:
    """`pool(rank, ...)` as `compat.torch` has it, `max_pool2d` for example."""

    def pooled(*args: P.args, **kwargs: P.kwargs) -> R:
        with renamed(**_NAMES):
            return pool(rank, *args, **kwargs)

    signature = inspect.signature(pool)
    _, *parameters = signature.parameters.values()
    vars(pooled)["__signature__"] = signature.replace(parameters=parameters)
    pooled.__name__ = pooled.__qualname__ = f"{pool.__name__}{rank}d"
    pooled.__module__ = "jaxpool.compat.torch"
    pooled.__doc__ = (pool.__doc__ or "").replace("{rank}", str(rank))
    return pooled


class MaxPool(Protocol):
    """Type of `max_pool1d` to `max_pool3d`."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        stride: Ints | None = ...,
        padding: Ints = ...,
        dilation: Ints = ...,
        ceil_mode: bool = ...,
        return_indices: Literal[False] = ...,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        stride: Ints | None = ...,
        padding: Ints = ...,
        dilation: Ints = ...,
        ceil_mode: bool = ...,
        return_indices: Literal[True] = ...,
    ) -> tuple[jax.Array, jax.Array]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        stride: Ints | None = ...,
        padding: Ints = ...,
        dilation: Ints = ...,
        ceil_mode: bool = ...,
        return_indices: bool = ...,
    ) -> Pooled: ...


class AdaptiveMaxPool(Protocol):
    """Type of `adaptive_max_pool1d` to `adaptive_max_pool3d`."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        output_size: OutputSize,
        return_indices: Literal[False] = ...,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        output_size: OutputSize,
        return_indices: Literal[True] = ...,
    ) -> tuple[jax.Array, jax.Array]: ...
    @overload
    def __call__(
        self, input: ArrayLike, output_size: OutputSize, return_indices: bool = ...
    ) -> Pooled: ...


class FractionalMaxPool(Protocol):
    """Type of `fractional_max_pool2d` and `fractional_max_pool3d`."""

    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        output_size: Ints | None = ...,
        output_ratio: Sequence[float] | None = ...,
        return_indices: Literal[False] = ...,
        _random_samples: ArrayLike | None = ...,
        *,
        key: jax.Array | None = ...,
    ) -> jax.Array: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        output_size: Ints | None = ...,
        output_ratio: Sequence[float] | None = ...,
        return_indices: Literal[True] = ...,
        _random_samples: ArrayLike | None = ...,
        *,
        key: jax.Array | None = ...,
    ) -> tuple[jax.Array, jax.Array]: ...
    @overload
    def __call__(
        self,
        input: ArrayLike,
        kernel_size: Ints,
        output_size: Ints | None = ...,
        output_ratio: Sequence[float] | None = ...,
        return_indices: bool = ...,
        _random_samples: ArrayLike | None = ...,
        *,
        key: jax.Array | None = ...,
    ) -> Pooled: ...
