"""Maxima and averages over windows, as PyTorch computes them."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

import jaxpool
from jaxpool.aggregations.sums import counts
from jaxpool.compat._torch.arguments import (
    Pooled,
    Windows,
    as_input,
    as_windows,
    check_dtype,
    check_fits,
)
from jaxpool.functions.arguments import as_given, check_flag
from jaxpool.geometry.axes import Ints, as_int
from jaxpool.geometry.resolve import resolve


def max_pool(
    rank: int,
    /,
    input: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pooled:
    """PyTorch's `max_pool{rank}d`; see `jaxpool.max_pool`."""
    check_flag("return_indices", return_indices)
    x = as_input(input, rank)
    check_dtype(x, integers=rank > 1 or return_indices)
    options: dict[str, Any] = {
        "rank": rank,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    windows = as_windows(x, kernel_size, stride, padding, **options)
    is_float = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = -math.inf if is_float else int(jnp.iinfo(x.dtype).min)
    if not return_indices:
        return jaxpool.max_pool(x, **vars(windows), empty_value=lowest)
    values, indices = jaxpool.max_pool_with_indices(
        x, **vars(windows), empty_value=lowest
    )
    if any(windows.padding) and max(windows.dilation) > 1:  # some may be padding only
        indices = _searched(windows, x.shape[-rank:], indices)
    return values, indices


@partial(jax.jit, static_argnums=(0, 1))
def _searched(
    windows: Windows, spatial: tuple[int, ...], indices: jax.Array
) -> jax.Array:
    """Indices that have PyTorch's number for a window of padding only.

    PyTorch begins its search at the first cell of the window that is not before the
    input, on each axis. That cell may be behind the input. Its number is then that of
    no cell, or of one in the next row.
    """
    first = jnp.zeros((), np.int32)
    for i, axis in enumerate(windows.axes):
        start = _numbers(indices, axis) * windows.strides[i] - windows.padding[i]
        start = jnp.where(start < 0, start % windows.dilation[i], start)
        first = first * spatial[i] + start
    return jnp.where(indices < 0, first, indices)


def avg_pool(
    rank: int,
    /,
    input: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """PyTorch's `avg_pool{rank}d`; see `jaxpool.avg_pool`."""
    x = as_input(input, rank)
    check_flag("count_include_pad", count_include_pad)
    divisor = None if divisor_override is None else _as_divisor(divisor_override)
    options: dict[str, Any] = {"rank": rank, "ceil_mode": ceil_mode}
    windows = as_windows(x, kernel_size, stride, padding, **options)
    if rank == 3:
        check_fits(x, windows)
    given = as_given("input", input)
    if given.dtype == np.int64:
        _check_sums(given, math.prod(windows.window))
        return _truncated_average(windows, count_include_pad, divisor, x)
    check_dtype(x)
    return jaxpool.avg_pool(
        x, **vars(windows), count_include_pad=count_include_pad, divisor=divisor
    )


def _as_divisor(divisor: Any) -> int:
    try:
        number = as_int(divisor)
    except TypeError:
        raise TypeError(
            f"divisor_override must be an int; got divisor_override={divisor!r}"
        ) from None
    if number == 0:
        raise ValueError("divisor_override must not be 0; got divisor_override=0")
    return number


def _check_sums(input: Any, cells: int) -> None:
    """Refuse int64 whose sums may not fit, where jax has no int64."""
    if jax.config.read("jax_enable_x64") or not input.size:
        return
    most = max(abs(int(input.min())), abs(int(input.max())))
    if most * cells > np.iinfo(np.int32).max:
        raise ValueError(
            "input must be small enough for sums in int32, as jax_enable_x64 is off; "
            f"got numbers up to {most} and windows of {cells} cells"
        )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _truncated_average(
    windows: Windows, include_pad: bool, divisor: int | None, x: jax.Array
) -> jax.Array:
    """The average of integers, rounded towards 0."""
    sums = jaxpool.sum_pool(x, **vars(windows))
    if divisor is None:
        over = resolve(x.shape, **vars(windows))
        divisor = math.prod(counts(over, (), x.ndim, include_pad))
    number = jnp.asarray(divisor, sums.dtype)
    return lax.div(sums, jnp.broadcast_to(number, sums.shape))


def _numbers(array: jax.Array, axis: int) -> jax.Array:
    """Numbers of the outputs along an axis, in a shape that broadcasts."""
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    return lax.broadcasted_iota(array.dtype, shape, array.ndim + axis)
