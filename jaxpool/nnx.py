"""The pools as Flax NNX modules, for `nnx.Sequential` and model definitions.

The fields of a class are options of its function; those after `*` are keyword-only. A
call takes `x` and, for windows and whole axes, the mask `where`. The examples need
`import jax`.
"""

from dataclasses import dataclass
from typing import Any, Generic

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from jaxpool.functions import (
    adaptive,
    fractional,
    indices,
    means,
    options,
    statistics,
    whole,
    windowed,
)
from jaxpool.functions.aggregate import aggregate
from jaxpool.functions.options import Indexed, Result
from jaxpool.functions.unpooling import max_unpool

__all__ = [
    "AdaptiveAvgPool",
    "AdaptiveLogSumExpPool",
    "AdaptiveMaxPool",
    "AdaptiveMaxPoolWithIndices",
    "Aggregate",
    "AvgPool",
    "FractionalAvgPool",
    "FractionalMaxPool",
    "FractionalMaxPoolWithIndices",
    "GlobalAvgPool",
    "GlobalLogSumExpPool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GlobalMaxPoolWithIndices",
    "GlobalMedianPool",
    "GlobalMinPool",
    "GlobalMinPoolWithIndices",
    "GlobalPowerMeanPool",
    "GlobalSoftmaxPool",
    "GlobalStdPool",
    "GlobalSumPool",
    "GlobalVarPool",
    "LogSumExpPool",
    "LpPool",
    "MaxPool",
    "MaxPoolWithIndices",
    "MaxUnpool",
    "MedianPool",
    "MinPool",
    "MinPoolWithIndices",
    "PowerMeanPool",
    "SoftmaxPool",
    "StdPool",
    "SumPool",
    "VarPool",
]


class _Pool(options.Options, nnx.Module, Generic[Result]):
    """A pool that takes a mask."""

    def __call__(self, x: ArrayLike, *, where: ArrayLike | None = None) -> Result:
        return self._call(x, where=where)


class _LogitsPool(options.Options, nnx.Module):
    """A pool that takes a mask and logits."""

    def __call__(
        self,
        x: ArrayLike,
        *,
        where: ArrayLike | None = None,
        logits: ArrayLike | None = None,
    ) -> jax.Array:
        return self._call(x, where=where, logits=logits)


class _BinPool(options.Options, nnx.Module, Generic[Result]):
    """A pool that takes no mask."""

    def __call__(self, x: ArrayLike) -> Result:
        return self._call(x)


@dataclass(eq=False, repr=False, kw_only=True)
class _DrawnPool(options.FractionalPool, nnx.Module, Generic[Result]):
    """A pool that draws its bins."""

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
    ) -> Result:
        given = self.rngs if rngs is None else rngs
        is_key = isinstance(given, (jax.Array, np.ndarray))
        source = fractional.as_key(given, "rngs") if is_key else self._stream(given)
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


class MaxPool(options.WindowedPool, _Pool[jax.Array]):
    """Maximum over each window: `jaxpool.max_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None`.
    >>> MaxPool(2, axes=0)(jax.numpy.arange(4))
    Array([1, 3], dtype=int32)
    """

    _function = staticmethod(windowed.max_pool)


class MinPool(options.WindowedPool, _Pool[jax.Array]):
    """Minimum over each window: `jaxpool.min_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None`.
    >>> MinPool(2, axes=0)(jax.numpy.arange(4))
    Array([0, 2], dtype=int32)
    """

    _function = staticmethod(windowed.min_pool)


class SumPool(options.PaddedPool, _Pool[jax.Array]):
    """Sum over each window: `jaxpool.sum_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, padding_mode=None`.
    >>> SumPool(2, axes=0)(jax.numpy.arange(4))
    Array([1, 5], dtype=int32)
    """

    _function = staticmethod(windowed.sum_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class AvgPool(options.PaddedPool, _Pool[jax.Array]):
    """Average over each window: `jaxpool.avg_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, padding_mode=None,
    count_include_pad=False, divisor=None`.
    >>> AvgPool(2, axes=0)(jax.numpy.arange(4))
    Array([0.5, 2.5], dtype=float32)
    """

    count_include_pad: bool = False
    divisor: float | None = None
    _function = staticmethod(windowed.avg_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class LpPool(options.PaddedPool, _Pool[jax.Array]):
    """p-norm over each window: `jaxpool.lp_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, padding_mode=None, p=2.0`.
    >>> LpPool(2, axes=0, p=1)(jax.numpy.arange(4))
    Array([1., 5.], dtype=float32)
    """

    p: float = 2.0
    _function = staticmethod(windowed.lp_pool)


class LogSumExpPool(options.PaddedPool, _Pool[jax.Array]):
    """Log-sum-exp over each window: `jaxpool.logsumexp_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, padding_mode=None`.
    >>> LogSumExpPool(2, axes=0)(jax.numpy.zeros(4))
    Array([0.6931, 0.6931], dtype=float32)
    """

    _function = staticmethod(windowed.logsumexp_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class SoftmaxPool(options.WindowedPool, _LogitsPool):
    """Average with softmax weights over each window: `jaxpool.softmax_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, scale=1.0`. A call takes
    `logits` too.
    >>> SoftmaxPool(2, axes=0, scale=0.0)(jax.numpy.arange(4.0))
    Array([0.5, 2.5], dtype=float32)
    """

    scale: ArrayLike = 1.0
    _arrays = ("scale",)
    _function = staticmethod(means.softmax_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class PowerMeanPool(options.WindowedPool, _Pool[jax.Array]):
    """Power mean over each window: `jaxpool.power_mean_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, p=3.0, eps=None`.
    >>> PowerMeanPool(2, axes=0, p=1.0)(jax.numpy.arange(4.0))
    Array([0.5, 2.5], dtype=float32)
    """

    p: ArrayLike = 3.0
    eps: float | None = None
    _arrays = ("p",)
    _function = staticmethod(means.power_mean_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class VarPool(options.WindowedPool, _Pool[jax.Array]):
    """Variance over each window: `jaxpool.var_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, ddof=0`.
    >>> VarPool(2, axes=0)(jax.numpy.arange(4.0))
    Array([0.25, 0.25], dtype=float32)
    """

    ddof: int = 0
    _function = staticmethod(statistics.var_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class StdPool(options.WindowedPool, _Pool[jax.Array]):
    """Standard deviation over each window: `jaxpool.std_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None, ddof=0, eps=0.0`.
    >>> StdPool(2, axes=0)(jax.numpy.arange(4.0))
    Array([0.5, 0.5], dtype=float32)
    """

    ddof: int = 0
    eps: float = 0.0
    _function = staticmethod(statistics.std_pool)


class MedianPool(options.WindowedPool, _Pool[jax.Array]):
    """Median over each window: `jaxpool.median_pool`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None`.
    >>> MedianPool(2, axes=0)(jax.numpy.arange(4.0))
    Array([0.5, 2.5], dtype=float32)
    """

    _function = staticmethod(statistics.median_pool)


class MaxPoolWithIndices(options.WindowedPool, _Pool[Indexed]):
    """Maximum over each window, and its index: `jaxpool.max_pool_with_indices`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None`.
    >>> MaxPoolWithIndices(2, axes=0)(jax.numpy.arange(4))
    (Array([1, 3], dtype=int32), Array([1, 3], dtype=int32))
    """

    _function = staticmethod(indices.max_pool_with_indices)


class MinPoolWithIndices(options.WindowedPool, _Pool[Indexed]):
    """Minimum over each window, and its index: `jaxpool.min_pool_with_indices`.

    Fields: `window, strides=None, padding="VALID", *, dilation=1, axes=None,
    ceil_mode=False, empty_value=0, implementation=None`.
    >>> MinPoolWithIndices(2, axes=0)(jax.numpy.arange(4))
    (Array([0, 2], dtype=int32), Array([0, 2], dtype=int32))
    """

    _function = staticmethod(indices.min_pool_with_indices)


class GlobalMaxPool(options.GlobalPool, _Pool[jax.Array]):
    """Maximum over whole axes: `jaxpool.global_max_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalMaxPool(axes=0)(jax.numpy.arange(4))
    Array(3, dtype=int32)
    """

    _function = staticmethod(whole.global_max_pool)


class GlobalMinPool(options.GlobalPool, _Pool[jax.Array]):
    """Minimum over whole axes: `jaxpool.global_min_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalMinPool(axes=0)(jax.numpy.arange(4))
    Array(0, dtype=int32)
    """

    _function = staticmethod(whole.global_min_pool)


class GlobalSumPool(options.GlobalPool, _Pool[jax.Array]):
    """Sum over whole axes: `jaxpool.global_sum_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalSumPool(axes=0)(jax.numpy.arange(4))
    Array(6, dtype=int32)
    """

    _function = staticmethod(whole.global_sum_pool)


class GlobalAvgPool(options.GlobalPool, _Pool[jax.Array]):
    """Average over whole axes: `jaxpool.global_avg_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalAvgPool(axes=0)(jax.numpy.arange(4))
    Array(1.5, dtype=float32)
    """

    _function = staticmethod(whole.global_avg_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class GlobalLpPool(options.GlobalPool, _Pool[jax.Array]):
    """p-norm over whole axes: `jaxpool.global_lp_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0, p=2.0`.
    >>> GlobalLpPool(axes=0, p=1)(jax.numpy.arange(4))
    Array(6., dtype=float32)
    """

    p: float = 2.0
    _function = staticmethod(whole.global_lp_pool)


class GlobalLogSumExpPool(options.GlobalPool, _Pool[jax.Array]):
    """Log-sum-exp over whole axes: `jaxpool.global_logsumexp_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalLogSumExpPool(axes=0)(jax.numpy.zeros(4))
    Array(1.3863, dtype=float32)
    """

    _function = staticmethod(whole.global_logsumexp_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class GlobalSoftmaxPool(options.GlobalPool, _LogitsPool):
    """Average with softmax weights over whole axes: `jaxpool.global_softmax_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0, scale=1.0`. A call takes
    `logits` too.
    >>> GlobalSoftmaxPool(axes=0, scale=0.0)(jax.numpy.arange(4.0))
    Array(1.5, dtype=float32)
    """

    scale: ArrayLike = 1.0
    _arrays = ("scale",)
    _function = staticmethod(means.global_softmax_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class GlobalPowerMeanPool(options.GlobalPool, _Pool[jax.Array]):
    """Power mean over whole axes: `jaxpool.global_power_mean_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0, p=3.0, eps=None`.
    >>> GlobalPowerMeanPool(axes=0, p=1.0)(jax.numpy.arange(4.0))
    Array(1.5, dtype=float32)
    """

    p: ArrayLike = 3.0
    eps: float | None = None
    _arrays = ("p",)
    _function = staticmethod(means.global_power_mean_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class GlobalVarPool(options.GlobalPool, _Pool[jax.Array]):
    """Variance over whole axes: `jaxpool.global_var_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0, ddof=0`.
    >>> GlobalVarPool(axes=0)(jax.numpy.arange(4.0))
    Array(1.25, dtype=float32)
    """

    ddof: int = 0
    _function = staticmethod(statistics.global_var_pool)


@dataclass(eq=False, repr=False, kw_only=True)
class GlobalStdPool(options.GlobalPool, _Pool[jax.Array]):
    """Standard deviation over whole axes: `jaxpool.global_std_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0, ddof=0, eps=0.0`.
    >>> GlobalStdPool(axes=0)(jax.numpy.arange(4.0))
    Array(1.118, dtype=float32)
    """

    ddof: int = 0
    eps: float = 0.0
    _function = staticmethod(statistics.global_std_pool)


class GlobalMedianPool(options.GlobalPool, _Pool[jax.Array]):
    """Median over whole axes: `jaxpool.global_median_pool`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalMedianPool(axes=0)(jax.numpy.arange(4.0))
    Array(1.5, dtype=float32)
    """

    _function = staticmethod(statistics.global_median_pool)


class GlobalMaxPoolWithIndices(options.GlobalPool, _Pool[Indexed]):
    """Maximum over whole axes, and its index: `jaxpool.global_max_pool_with_indices`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalMaxPoolWithIndices(axes=0)(jax.numpy.arange(4))
    (Array(3, dtype=int32), Array(3, dtype=int32))
    """

    _function = staticmethod(indices.global_max_pool_with_indices)


class GlobalMinPoolWithIndices(options.GlobalPool, _Pool[Indexed]):
    """Minimum over whole axes, and its index: `jaxpool.global_min_pool_with_indices`.

    Fields: `*, axes=None, keepdims=False, empty_value=0`.
    >>> GlobalMinPoolWithIndices(axes=0)(jax.numpy.arange(4))
    (Array(0, dtype=int32), Array(0, dtype=int32))
    """

    _function = staticmethod(indices.global_min_pool_with_indices)


class AdaptiveMaxPool(options.AdaptivePool, _BinPool[jax.Array]):
    """Maximum over each of `output_shape` bins: `jaxpool.adaptive_max_pool`.

    Fields: `output_shape, *, axes=None`.
    >>> AdaptiveMaxPool(2, axes=0)(jax.numpy.arange(4))
    Array([1, 3], dtype=int32)
    """

    _function = staticmethod(adaptive.adaptive_max_pool)


class AdaptiveMaxPoolWithIndices(options.AdaptivePool, _BinPool[Indexed]):
    """Maximum over each bin, and its index: `jaxpool.adaptive_max_pool_with_indices`.

    Fields: `output_shape, *, axes=None`.
    >>> AdaptiveMaxPoolWithIndices(2, axes=0)(jax.numpy.arange(4))
    (Array([1, 3], dtype=int32), Array([1, 3], dtype=int32))
    """

    _function = staticmethod(adaptive.adaptive_max_pool_with_indices)


class AdaptiveAvgPool(options.AdaptivePool, _BinPool[jax.Array]):
    """Average over each of `output_shape` bins: `jaxpool.adaptive_avg_pool`.

    Fields: `output_shape, *, axes=None`.
    >>> AdaptiveAvgPool(2, axes=0)(jax.numpy.arange(4))
    Array([0.5, 2.5], dtype=float32)
    """

    _function = staticmethod(adaptive.adaptive_avg_pool)


class AdaptiveLogSumExpPool(options.AdaptivePool, _BinPool[jax.Array]):
    """Log-sum-exp over each of `output_shape` bins: `jaxpool.adaptive_logsumexp_pool`.

    Fields: `output_shape, *, axes=None`.
    >>> AdaptiveLogSumExpPool(2, axes=0)(jax.numpy.zeros(4))
    Array([0.6931, 0.6931], dtype=float32)
    """

    _function = staticmethod(adaptive.adaptive_logsumexp_pool)


class FractionalMaxPool(_DrawnPool[jax.Array]):
    """Maximum over bins that are drawn at random: `jaxpool.fractional_max_pool`.

    Fields: `window, output_shape, *, axes=None, rule="window", overlapping=False,
    deterministic=False, rng_collection="pooling", rngs=None`.
    Bins are drawn from the stream `rng_collection`. With `deterministic=True`, which
    `model.eval()` sets, all samples are 1/2 and the rule "random" is replaced by
    "pseudorandom". A call takes `deterministic` and `rngs` too.
    >>> FractionalMaxPool(2, 2, axes=0, deterministic=True)(jax.numpy.arange(4))
    Array([1, 3], dtype=int32)
    """

    _function = staticmethod(fractional.fractional_max_pool)


class FractionalMaxPoolWithIndices(_DrawnPool[Indexed]):
    """Maximum of drawn bins, and its index: `jaxpool.fractional_max_pool_with_indices`.

    Fields: `window, output_shape, *, axes=None, rule="window", overlapping=False,
    deterministic=False, rng_collection="pooling", rngs=None`; see `FractionalMaxPool`.
    >>> pool = FractionalMaxPoolWithIndices(2, 2, axes=0, deterministic=True)
    >>> pool(jax.numpy.arange(4))
    (Array([1, 3], dtype=int32), Array([1, 3], dtype=int32))
    """

    _function = staticmethod(fractional.fractional_max_pool_with_indices)


class FractionalAvgPool(_DrawnPool[jax.Array]):
    """Average over bins that are drawn at random: `jaxpool.fractional_avg_pool`.

    Fields: `window, output_shape, *, axes=None, rule="window", overlapping=False,
    deterministic=False, rng_collection="pooling", rngs=None`; see `FractionalMaxPool`.
    >>> FractionalAvgPool(2, 2, axes=0, deterministic=True)(jax.numpy.arange(4))
    Array([0.5, 2.5], dtype=float32)
    """

    _function = staticmethod(fractional.fractional_avg_pool)


class Aggregate(options.Aggregation, _Pool[Any]):
    """Any aggregation over any domain: `jaxpool.aggregate`.

    Fields: `by, over, *, empty_value=0, implementation=None`.
    >>> from jaxpool import Lp, windows
    >>> Aggregate(Lp(1), windows(2, axes=0))(jax.numpy.arange(4.0))
    Array([1., 5.], dtype=float32)
    """

    _function = staticmethod(aggregate)

    def __setattr__(self, name: str, value: Any) -> None:
        """Say that `by` and `over` are data if they hold arrays."""
        leaves = jax.tree.leaves(value) if name in ("by", "over") else []
        is_data = any(isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves)
        super().__setattr__(name, nnx.data(value) if is_data else value)


class MaxUnpool(options.Unpool, nnx.Module):
    """Values put back where their indices say: `jaxpool.max_unpool`.

    Fields: `output_shape, *, axes=None`.
    >>> values, indices = jax.numpy.array([[5, 7], [1, 3]])
    >>> MaxUnpool(4, axes=0)(values, indices)
    Array([0, 5, 0, 7], dtype=int32)
    """

    _function = staticmethod(max_unpool)

    def __call__(self, values: ArrayLike, indices: ArrayLike) -> jax.Array:
        """Put `values` where `indices` say."""
        return self._call(values, indices)
