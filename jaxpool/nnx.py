"""The pools as Flax NNX modules, for `nnx.Sequential` and model definitions.

Each takes the options of its function as fields, and the arrays when it is called.
"""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from jaxpool.functions import modules
from jaxpool.functions.fractional import as_key


class _Pool(modules.Pool, nnx.Module):
    """Calls the function of a pool with its options."""

    def __call__(self, x: ArrayLike, *, where: ArrayLike | None = None) -> Any:
        return self._pool(x, where=where)


class _BinPool(modules.Pool, nnx.Module):
    """The same, of a pool without `where`."""

    def __call__(self, x: ArrayLike) -> Any:
        return self._pool(x)


@dataclass(eq=False, repr=False)
class _DrawnPool(modules.FractionalPool, nnx.Module):
    """The same, of a pool that draws."""

    _: KW_ONLY
    rngs: nnx.Rngs | nnx.RngStream | None = None

    def __post_init__(self) -> None:
        """Take a stream of its own, as `nnx.Dropout` does."""
        super().__post_init__()
        stream = self._stream(self.rngs)
        self.rngs = nnx.data(None if stream is None else stream.fork())

    def __call__(
        self,
        x: ArrayLike,
        *,
        deterministic: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | jax.Array | None = None,
    ) -> Any:
        given = self.rngs if rngs is None else rngs
        is_key = isinstance(given, (jax.Array, np.ndarray))
        source = as_key(given, "rngs") if is_key else self._stream(given)
        return self._draw(x, deterministic, lambda: self._key(source))

    def _key(self, source: nnx.RngStream | jax.Array | None) -> jax.Array:
        if source is None:
            raise ValueError(
                "rngs must be given, to the module or its call, unless deterministic"
            )
        return source() if isinstance(source, nnx.RngStream) else source

    def _stream(self, rngs: Any) -> nnx.RngStream | None:
        """The stream named `rng_collection`, or the one that is given."""
        if rngs is None or isinstance(rngs, nnx.RngStream):
            return rngs
        if not isinstance(rngs, nnx.Rngs):
            raise TypeError(
                "rngs must be nnx.Rngs or a stream of them, or in a call a random key; "
                f"got rngs={rngs!r:.80}"
            )
        try:
            stream: nnx.RngStream = rngs[self.rng_collection]
        except KeyError:
            raise ValueError(
                f"rngs must have a stream named {self.rng_collection!r}, which "
                f"rng_collection says, or 'default'; got the streams {[*rngs]}"
            ) from None
        return stream


class MaxPool(modules.MaxPool, _Pool):
    """Maximum over each window. See `jaxpool.max_pool`."""


class MinPool(modules.MinPool, _Pool):
    """Minimum over each window. See `jaxpool.min_pool`."""


class SumPool(modules.SumPool, _Pool):
    """Sum over each window. See `jaxpool.sum_pool`."""


class AvgPool(modules.AvgPool, _Pool):
    """Average over each window. See `jaxpool.avg_pool`."""


class LpPool(modules.LpPool, _Pool):
    """p-norm over each window. See `jaxpool.lp_pool`."""


class MaxPoolWithIndices(modules.MaxPoolWithIndices, _Pool):
    """Maxima and their indices. See `jaxpool.max_pool_with_indices`."""


class MinPoolWithIndices(modules.MinPoolWithIndices, _Pool):
    """Minima and their indices. See `jaxpool.min_pool_with_indices`."""


class GlobalMaxPoolWithIndices(modules.GlobalMaxPoolWithIndices, _Pool):
    """Maxima and indices. See `jaxpool.global_max_pool_with_indices`."""


class GlobalMinPoolWithIndices(modules.GlobalMinPoolWithIndices, _Pool):
    """Minima and indices. See `jaxpool.global_min_pool_with_indices`."""


class GlobalMaxPool(modules.GlobalMaxPool, _Pool):
    """Maximum over whole axes. See `jaxpool.global_max_pool`."""


class GlobalMinPool(modules.GlobalMinPool, _Pool):
    """Minimum over whole axes. See `jaxpool.global_min_pool`."""


class GlobalSumPool(modules.GlobalSumPool, _Pool):
    """Sum over whole axes. See `jaxpool.global_sum_pool`."""


class GlobalAvgPool(modules.GlobalAvgPool, _Pool):
    """Average over whole axes. See `jaxpool.global_avg_pool`."""


class GlobalLpPool(modules.GlobalLpPool, _Pool):
    """p-norm over whole axes. See `jaxpool.global_lp_pool`."""


class AdaptiveMaxPool(modules.AdaptiveMaxPool, _BinPool):
    """Maximum over as many bins as wanted. See `jaxpool.adaptive_max_pool`."""


class AdaptiveMaxPoolWithIndices(modules.AdaptiveMaxPoolWithIndices, _BinPool):
    """Maxima and indices. See `jaxpool.adaptive_max_pool_with_indices`."""


class AdaptiveAvgPool(modules.AdaptiveAvgPool, _BinPool):
    """Average over as many bins as wanted. See `jaxpool.adaptive_avg_pool`."""


@dataclass(eq=False, repr=False)
class FractionalMaxPool(modules.FractionalMaxPool, _DrawnPool):
    """Maximum over bins that are drawn. See `jaxpool.fractional_max_pool`.

    In place of `key` and `samples` it has `rngs`, and takes a stream of the name
    `rng_collection`; where it is `deterministic`, as after `model.eval()`, all samples
    are 1/2, and "pseudorandom" stands for "random".
    """


@dataclass(eq=False, repr=False)
class FractionalMaxPoolWithIndices(modules.FractionalMaxPoolWithIndices, _DrawnPool):
    """Maxima and indices. See `jaxpool.fractional_max_pool_with_indices`.

    It draws as `FractionalMaxPool` does.
    """


@dataclass(eq=False, repr=False)
class FractionalAvgPool(modules.FractionalAvgPool, _DrawnPool):
    """Average over bins that are drawn. See `jaxpool.fractional_avg_pool`.

    It draws as `FractionalMaxPool` does.
    """


class MaxUnpool(modules.MaxUnpool, nnx.Module):
    """Values back to where they were. See `jaxpool.max_unpool`."""

    def __call__(self, values: ArrayLike, indices: ArrayLike) -> jax.Array:
        """Put `values` where `indices` say."""
        return self._unpool(values, indices)
