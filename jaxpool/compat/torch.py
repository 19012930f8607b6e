"""The pools of `torch.nn.functional`: same arguments, `[N, C, *spatial]` or unbatched.

Values, gradients and indices are PyTorch's (2.13, CPU), and what it refuses is refused.
Few things differ. Indices are int32. Of several NaN in one window, the first has the
index and the gradient, in PyTorch the last. Dtypes that only its CPU kernels lack, such
as bfloat16 in `avg_pool3d`, work; booleans and complex numbers do not. Flags are True
or False. A window of padding only has PyTorch's value, -inf, and index, which may name
no cell, but no gradient. Without `jax_enable_x64`, averages of int64 whose sums might
not fit in int32 are refused.

Import it as `pools`, not over `F`: it has nothing but pools. `jax.jvp` of a maximum, or
of a norm of order inf, needs `with jaxpool.forward_mode():`. Under `jax.jit`, where
indices are not known, `max_unpool` drops those that are no cell.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

from jaxpool.compat import _torch
from jaxpool.compat._torch import IntOrInts, Pooled


def max_pool1d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`torch.nn.functional.max_pool1d`; see `jaxpool.max_pool`."""
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    return _torch.max_pool(1, input, *geometry, return_indices)


def max_pool2d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`torch.nn.functional.max_pool2d`; see `jaxpool.max_pool`."""
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    return _torch.max_pool(2, input, *geometry, return_indices)


def max_pool3d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    dilation: IntOrInts = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """`torch.nn.functional.max_pool3d`; see `jaxpool.max_pool`."""
    geometry = (kernel_size, stride, padding, dilation, ceil_mode)
    return _torch.max_pool(3, input, *geometry, return_indices)


def avg_pool1d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """`torch.nn.functional.avg_pool1d`; see `jaxpool.avg_pool`."""
    geometry = (kernel_size, stride, padding, ceil_mode)
    return _torch.avg_pool(1, input, *geometry, count_include_pad, None)


def avg_pool2d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """`torch.nn.functional.avg_pool2d`; see `jaxpool.avg_pool`."""
    geometry = (kernel_size, stride, padding, ceil_mode)
    return _torch.avg_pool(2, input, *geometry, count_include_pad, divisor_override)


def avg_pool3d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """`torch.nn.functional.avg_pool3d`; see `jaxpool.avg_pool`."""
    geometry = (kernel_size, stride, padding, ceil_mode)
    return _torch.avg_pool(3, input, *geometry, count_include_pad, divisor_override)


def lp_pool1d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """`torch.nn.functional.lp_pool1d`: no absolute value; see `jaxpool.lp_pool`."""
    return _torch.lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """`torch.nn.functional.lp_pool2d`: no absolute value; see `jaxpool.lp_pool`."""
    return _torch.lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: ArrayLike,
    norm_type: float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """`torch.nn.functional.lp_pool3d`: no absolute value; see `jaxpool.lp_pool`."""
    return _torch.lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)


def adaptive_avg_pool1d(input: ArrayLike, output_size: IntOrInts) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool1d`; see `jaxpool.adaptive_avg_pool`."""
    return _torch.adaptive_avg_pool(1, input, output_size)


def adaptive_avg_pool2d(input: ArrayLike, output_size: Any) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool2d`; see `jaxpool.adaptive_avg_pool`."""
    return _torch.adaptive_avg_pool(2, input, output_size)


def adaptive_avg_pool3d(input: ArrayLike, output_size: Any) -> jax.Array:
    """`torch.nn.functional.adaptive_avg_pool3d`; see `jaxpool.adaptive_avg_pool`."""
    return _torch.adaptive_avg_pool(3, input, output_size)


def adaptive_max_pool1d(
    input: ArrayLike, output_size: IntOrInts, return_indices: bool = False
) -> Pooled:
    """`torch.nn.functional.adaptive_max_pool1d`; see `jaxpool.adaptive_max_pool`."""
    return _torch.adaptive_max_pool(1, input, output_size, return_indices)


def adaptive_max_pool2d(
    input: ArrayLike, output_size: Any, return_indices: bool = False
) -> Pooled:
    """`torch.nn.functional.adaptive_max_pool2d`; see `jaxpool.adaptive_max_pool`."""
    return _torch.adaptive_max_pool(2, input, output_size, return_indices)


def adaptive_max_pool3d(
    input: ArrayLike, output_size: Any, return_indices: bool = False
) -> Pooled:
    """`torch.nn.functional.adaptive_max_pool3d`; see `jaxpool.adaptive_max_pool`."""
    return _torch.adaptive_max_pool(3, input, output_size, return_indices)


def fractional_max_pool2d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: ArrayLike | None = None,
    *,
    key: jax.Array | None = None,
) -> Pooled:
    """`torch.nn.functional.fractional_max_pool2d`; see `jaxpool.fractional_max_pool`.

    Where no samples are given they are drawn with `key`, which PyTorch has no need of.
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _torch.fractional_max_pool(
        2, input, *sizes, return_indices, _random_samples, key
    )


def fractional_max_pool3d(
    input: ArrayLike,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None = None,
    output_ratio: Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: ArrayLike | None = None,
    *,
    key: jax.Array | None = None,
) -> Pooled:
    """`torch.nn.functional.fractional_max_pool3d`; see `jaxpool.fractional_max_pool`.

    Where no samples are given they are drawn with `key`, which PyTorch has no need of.
    """
    sizes = (kernel_size, output_size, output_ratio)
    return _torch.fractional_max_pool(
        3, input, *sizes, return_indices, _random_samples, key
    )


def max_unpool1d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """`torch.nn.functional.max_unpool1d`; see `jaxpool.max_unpool`."""
    return _torch.max_unpool(
        1, input, indices, kernel_size, stride, padding, output_size
    )


def max_unpool2d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """`torch.nn.functional.max_unpool2d`; see `jaxpool.max_unpool`."""
    return _torch.max_unpool(
        2, input, indices, kernel_size, stride, padding, output_size
    )


def max_unpool3d(
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: IntOrInts,
    stride: IntOrInts | None = None,
    padding: IntOrInts = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """`torch.nn.functional.max_unpool3d`; see `jaxpool.max_unpool`."""
    return _torch.max_unpool(
        3, input, indices, kernel_size, stride, padding, output_size
    )
