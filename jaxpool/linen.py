"""The pools as Flax Linen modules, for `nn.Sequential` and model definitions.

Each takes the options of its function as fields, and the arrays when it is called.
"""

from typing import Any

import jax
from flax import linen as nn
from jax.typing import ArrayLike

from jaxpool.functions import modules


class _Pool(modules.Pool, nn.Module):
    """Calls the function of a pool with its options."""

    def __call__(self, x: ArrayLike, *, where: ArrayLike | None = None) -> Any:
        return self._pool(x, where=where)


class _BinPool(modules.Pool, nn.Module):
    """The same, of a pool without `where`."""

    def __call__(self, x: ArrayLike) -> Any:
        return self._pool(x)


class _DrawnPool(modules.FractionalPool, nn.Module):
    """The same, of a pool that draws."""

    def __call__(self, x: ArrayLike, *, deterministic: bool | None = None) -> Any:
        return self._draw(x, deterministic, self._key)

    def _key(self) -> jax.Array:
        name = self.rng_collection
        if not (self.has_rng(name) or self.has_rng("params")):  # as Flax looks for it
            raise ValueError(
                f"rngs must have a PRNG key named {name!r}, which rng_collection says, "
                f"as in apply(..., rngs={{{name!r}: key}}), unless deterministic"
            )
        return self.make_rng(name)


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


class FractionalMaxPool(modules.FractionalMaxPool, _DrawnPool):
    """Maximum over bins that are drawn. See `jaxpool.fractional_max_pool`.

    In place of `key` and `samples` it has an rng stream, `rng_collection`; where it is
    `deterministic`, all samples are 1/2, and "pseudorandom" stands for "random".
    """


class FractionalMaxPoolWithIndices(modules.FractionalMaxPoolWithIndices, _DrawnPool):
    """Maxima and indices. See `jaxpool.fractional_max_pool_with_indices`.

    It draws as `FractionalMaxPool` does.
    """


class FractionalAvgPool(modules.FractionalAvgPool, _DrawnPool):
    """Average over bins that are drawn. See `jaxpool.fractional_avg_pool`.

    It draws as `FractionalMaxPool` does.
    """


class MaxUnpool(modules.MaxUnpool, nn.Module):
    """Values back to where they were. See `jaxpool.max_unpool`."""

    def __call__(self, values: ArrayLike, indices: ArrayLike) -> jax.Array:
        """Put `values` where `indices` say."""
        return self._unpool(values, indices)
