"""The pools of `torch.nn.functional`: same arguments, `[N, C, *spatial]` or unbatched.

Values, gradients, indices and errors are those of PyTorch 2.13 on a CPU. These things
differ. Indices are int32. The first of several NaN gets the index and the gradient, not
the last. Dtypes that PyTorch does not support on a CPU, such as bfloat16 in
`avg_pool3d`, work; booleans and complex numbers raise an error. Flags must be True or
False. A window of padding only returns -inf and PyTorch's index, which may be no cell,
and has no gradient. Without `jax_enable_x64`, an average of int64 raises an error if
its sum might not fit in int32.

Import it as `pools`, not over `F`: it has nothing but pools. `jax.jvp` of a maximum, or
of a norm of order inf, needs `with jaxpool.forward_mode():`. Under `jax.jit` indices
are traced: there, `max_unpool` drops those that are no cell.
"""

from typing import cast

import jax
from jax.typing import ArrayLike

from jaxpool.compat._torch import bins as _bins
from jaxpool.compat._torch import norms as _norms
from jaxpool.compat._torch import unpooling as _unpooling
from jaxpool.compat._torch import windows as _windows
from jaxpool.compat._torch.ranks import (
    AdaptiveMaxPool,
    FractionalMaxPool,
    MaxPool,
    of_rank,
)
from jaxpool.geometry.axes import Ints

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "fractional_max_pool2d",
    "fractional_max_pool3d",
    "lp_pool1d",
    "lp_pool2d",
    "lp_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_unpool1d",
    "max_unpool2d",
    "max_unpool3d",
]

max_pool1d = cast(MaxPool, of_rank(1, _windows.max_pool))
max_pool2d = cast(MaxPool, of_rank(2, _windows.max_pool))
max_pool3d = cast(MaxPool, of_rank(3, _windows.max_pool))

avg_pool2d = of_rank(2, _windows.avg_pool)
avg_pool3d = of_rank(3, _windows.avg_pool)

lp_pool1d = of_rank(1, _norms.lp_pool)
lp_pool2d = of_rank(2, _norms.lp_pool)
lp_pool3d = of_rank(3, _norms.lp_pool)

adaptive_avg_pool1d = of_rank(1, _bins.adaptive_avg_pool)
adaptive_avg_pool2d = of_rank(2, _bins.adaptive_avg_pool)
adaptive_avg_pool3d = of_rank(3, _bins.adaptive_avg_pool)

adaptive_max_pool1d = cast(AdaptiveMaxPool, of_rank(1, _bins.adaptive_max_pool))
adaptive_max_pool2d = cast(AdaptiveMaxPool, of_rank(2, _bins.adaptive_max_pool))
adaptive_max_pool3d = cast(AdaptiveMaxPool, of_rank(3, _bins.adaptive_max_pool))

fractional_max_pool2d = cast(FractionalMaxPool, of_rank(2, _bins.fractional_max_pool))
fractional_max_pool3d = cast(FractionalMaxPool, of_rank(3, _bins.fractional_max_pool))

max_unpool1d = of_rank(1, _unpooling.max_unpool)
max_unpool2d = of_rank(2, _unpooling.max_unpool)
max_unpool3d = of_rank(3, _unpooling.max_unpool)

_avg_pool1d = of_rank(1, _windows.avg_pool)


def avg_pool1d(
    input: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """`torch.nn.functional.avg_pool1d`; see `jaxpool.avg_pool`."""
    options = padding, ceil_mode, count_include_pad
    return _avg_pool1d(input, kernel_size, stride, *options)
