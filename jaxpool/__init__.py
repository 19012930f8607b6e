"""Pooling for JAX: pure functions that are exact, fast and differentiable.

Arrays are `[*batch, *spatial, channels]` unless `axes` says otherwise; the default
stride is the window. `jaxpool.linen` and `jaxpool.nnx` hold the same as Flax modules,
`jaxpool.compat` has the pools of other libraries. They are imported when first used.
"""

import importlib
from typing import TYPE_CHECKING

from jaxpool.aggregations.forward_mode import forward_mode as forward_mode
from jaxpool.functions.adaptive import adaptive_avg_pool as adaptive_avg_pool
from jaxpool.functions.adaptive import (
    adaptive_logsumexp_pool as adaptive_logsumexp_pool,
)
from jaxpool.functions.adaptive import adaptive_max_pool as adaptive_max_pool
from jaxpool.functions.adaptive import (
    adaptive_max_pool_with_indices as adaptive_max_pool_with_indices,
)
from jaxpool.functions.aggregate import aggregate as aggregate
from jaxpool.functions.by import Average as Average
from jaxpool.functions.by import By as By
from jaxpool.functions.by import LogSumExp as LogSumExp
from jaxpool.functions.by import Lp as Lp
from jaxpool.functions.by import Max as Max
from jaxpool.functions.by import Median as Median
from jaxpool.functions.by import Min as Min
from jaxpool.functions.by import Monoid as Monoid
from jaxpool.functions.by import PowerMean as PowerMean
from jaxpool.functions.by import Quantile as Quantile
from jaxpool.functions.by import Softmax as Softmax
from jaxpool.functions.by import StandardDeviation as StandardDeviation
from jaxpool.functions.by import Sum as Sum
from jaxpool.functions.by import TopKMean as TopKMean
from jaxpool.functions.by import Variance as Variance
from jaxpool.functions.fractional import fractional_avg_pool as fractional_avg_pool
from jaxpool.functions.fractional import fractional_max_pool as fractional_max_pool
from jaxpool.functions.fractional import (
    fractional_max_pool_with_indices as fractional_max_pool_with_indices,
)
from jaxpool.functions.halo import halo_exchange as halo_exchange
from jaxpool.functions.indices import (
    global_max_pool_with_indices as global_max_pool_with_indices,
)
from jaxpool.functions.indices import (
    global_min_pool_with_indices as global_min_pool_with_indices,
)
from jaxpool.functions.indices import max_pool_with_indices as max_pool_with_indices
from jaxpool.functions.indices import min_pool_with_indices as min_pool_with_indices
from jaxpool.functions.means import global_power_mean_pool as global_power_mean_pool
from jaxpool.functions.means import global_softmax_pool as global_softmax_pool
from jaxpool.functions.means import power_mean_pool as power_mean_pool
from jaxpool.functions.means import softmax_pool as softmax_pool
from jaxpool.functions.over import Over as Over
from jaxpool.functions.over import bins as bins
from jaxpool.functions.over import neighbors as neighbors
from jaxpool.functions.over import segments as segments
from jaxpool.functions.over import whole as whole
from jaxpool.functions.over import windows as windows
from jaxpool.functions.segments import pool_by_positions as pool_by_positions
from jaxpool.functions.segments import segment_avg_pool as segment_avg_pool
from jaxpool.functions.segments import segment_max_pool as segment_max_pool
from jaxpool.functions.segments import segment_min_pool as segment_min_pool
from jaxpool.functions.segments import segment_sum_pool as segment_sum_pool
from jaxpool.functions.static import implementation_for as implementation_for
from jaxpool.functions.static import output_shape as output_shape
from jaxpool.functions.statistics import global_median_pool as global_median_pool
from jaxpool.functions.statistics import global_std_pool as global_std_pool
from jaxpool.functions.statistics import global_var_pool as global_var_pool
from jaxpool.functions.statistics import median_pool as median_pool
from jaxpool.functions.statistics import std_pool as std_pool
from jaxpool.functions.statistics import var_pool as var_pool
from jaxpool.functions.stream import StreamState as StreamState
from jaxpool.functions.stream import stream as stream
from jaxpool.functions.unpooling import convert_indices as convert_indices
from jaxpool.functions.unpooling import max_unpool as max_unpool
from jaxpool.functions.whole import global_avg_pool as global_avg_pool
from jaxpool.functions.whole import global_logsumexp_pool as global_logsumexp_pool
from jaxpool.functions.whole import global_lp_pool as global_lp_pool
from jaxpool.functions.whole import global_max_pool as global_max_pool
from jaxpool.functions.whole import global_min_pool as global_min_pool
from jaxpool.functions.whole import global_sum_pool as global_sum_pool
from jaxpool.functions.windowed import avg_pool as avg_pool
from jaxpool.functions.windowed import logsumexp_pool as logsumexp_pool
from jaxpool.functions.windowed import lp_pool as lp_pool
from jaxpool.functions.windowed import max_pool as max_pool
from jaxpool.functions.windowed import min_pool as min_pool
from jaxpool.functions.windowed import pool as pool
from jaxpool.functions.windowed import sum_pool as sum_pool

if TYPE_CHECKING:
    from jaxpool import compat as compat
    from jaxpool import linen as linen
    from jaxpool import nnx as nnx
else:

    def __getattr__(name: str) -> object:
        """Import a part that is used for the first time."""
        if name in ("compat", "linen", "nnx"):
            return importlib.import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """What there is, imported or not."""
        return sorted({*globals(), "compat", "linen", "nnx"})


__version__ = "0.2.0"
