"""What the functions of `compat.torch` do, in any number of spatial axes."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from jaxpool._arguments import as_array, as_indices
from jaxpool._entry import enter
from jaxpool._reduce_sum import counts
from jaxpool._sharding import Sizes
from jaxpool._window import resolve
from jaxpool.compat._spelling import spelled

IntOrInts: TypeAlias = int | Sequence[int]
Pooled: TypeAlias = jax.Array | tuple[jax.Array, jax.Array]
_Geometry: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


_named = spelled(
    x="input",
    values="input",
    window="kernel_size",
    strides="stride",
    output_shape="output_size",
    samples="_random_samples",
    divisor="divisor_override",
    p="norm_type",
)


@_named
def max_pool(
    rank: int,
    input: Any,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    dilation: IntOrInts,
    ceil_mode: bool,
    return_indices: bool,
) -> Pooled:
    x = _as_input(input, rank, floating=rank == 1)
    window, strides, pads = _geometry(rank, x, kernel_size, stride, padding)
    pool = jaxpool.max_pool_with_indices if return_indices else jaxpool.max_pool
    return pool(
        x,
        window,
        strides,
        pads,
        dilation=_ints("dilation", dilation, rank),
        axes=_axes(rank),
        ceil_mode=ceil_mode,
    )


@_named
def avg_pool(
    rank: int,
    input: Any,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> jax.Array:
    x = _as_input(input, rank)
    if isinstance(divisor, float):
        raise TypeError(f"divisor_override must be an int; got {divisor}")
    if divisor == 0:
        raise ValueError("divisor_override must not be 0; got divisor_override=0")
    window = _geometry(rank, x, kernel_size, stride, padding)
    if input.dtype == np.int64:
        return _truncated_average(x, window, ceil_mode, count_include_pad, divisor)
    _refuse_integers(x)
    return jaxpool.avg_pool(
        x,
        *window,
        axes=_axes(rank),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor=divisor,
    )


def _truncated_average(
    x: jax.Array,
    window: _Geometry,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> jax.Array:
    """The average of integers, rounded towards 0."""
    axes = _axes(len(window[0]))
    number: Any = divisor
    if divisor is None:
        geometry = resolve(x.shape, *window, 1, axes, ceil_mode)
        number = math.prod(counts(geometry, x.ndim, count_include_pad))
    sums = jaxpool.sum_pool(x, *window, axes=axes, ceil_mode=ceil_mode)
    return lax.div(sums, jnp.asarray(np.broadcast_to(number, sums.shape), sums.dtype))


@_named
def lp_pool(
    rank: int,
    input: Any,
    norm_type: float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    ceil_mode: bool,
) -> jax.Array:
    x = _as_input(input, rank, floating=True)
    window = _ints("kernel_size", kernel_size, rank)
    if norm_type == 0:
        raise ValueError(f"norm_type must not be 0; got norm_type={norm_type}")
    if math.isinf(norm_type):
        pool = jaxpool.max_pool if norm_type > 0 else jaxpool.min_pool
        strides = _strides(stride, window, rank)
        return pool(jnp.abs(x), window, strides, axes=_axes(rank), ceil_mode=ceil_mode)
    if rank == 1 and not isinstance(kernel_size, int):
        raise TypeError(f"kernel_size must be an int; got kernel_size={kernel_size!r}")
    powers = jnp.power(x, np.asarray(norm_type, x.dtype))
    means = avg_pool(rank, powers, window, stride, 0, ceil_mode, True, None)
    sums = jnp.sign(means) * jax.nn.relu(jnp.abs(means)) * math.prod(window)
    return jnp.power(sums, np.asarray(1 / norm_type, x.dtype))


@_named
def adaptive_avg_pool(rank: int, input: Any, output_size: Any) -> jax.Array:
    x, sizes, empty = _bins(rank, input, output_size)
    if empty is not None:
        return jnp.zeros(empty, x.dtype)
    return jaxpool.adaptive_avg_pool(x, sizes, axes=_axes(rank))


@_named
def adaptive_max_pool(
    rank: int, input: Any, output_size: Any, return_indices: bool
) -> Pooled:
    x, sizes, empty = _bins(rank, input, output_size)
    if empty is not None:
        values, indices = jnp.zeros(empty, x.dtype), jnp.zeros(empty, np.int32)
    elif not return_indices:
        return jaxpool.adaptive_max_pool(x, sizes, axes=_axes(rank))
    else:
        found = jaxpool.adaptive_max_pool_with_indices(x, sizes, axes=_axes(rank))
        values, indices = found
    return (values, indices) if return_indices else values


def _bins(
    rank: int, input: Any, output_size: Any
) -> tuple[jax.Array, tuple[int | None, ...], tuple[int, ...] | None]:
    """Input, output sizes, and the shape of the result if it is empty."""
    x = _as_input(input, rank, floating=True)
    sizes = output_size if isinstance(output_size, Sequence) else (output_size,) * rank
    if len(sizes) != rank or (None in sizes and (rank == 1 or output_size is None)):
        raise ValueError(
            f"output_size must be an int or {rank} of them; got {output_size}"
        )
    if 0 not in sizes:
        return x, tuple(sizes), None
    own = x.shape[-rank:]
    kept = (n if size is None else size for n, size in zip(own, sizes, strict=True))
    return x, tuple(sizes), (*x.shape[:-rank], *kept)


@_named
def fractional_max_pool(
    rank: int,
    input: Any,
    kernel_size: IntOrInts,
    output_size: IntOrInts | None,
    output_ratio: Sequence[float] | None,
    return_indices: bool,
    samples: Any,
    key: jax.Array | None,
) -> Pooled:
    x = _as_input(input, rank, floating=True)
    spatial = x.shape[-rank:]
    window = _ints("kernel_size", kernel_size, rank, repeat=False)
    if output_size is not None:
        sizes = _ints("output_size", output_size, rank, repeat=False)
    elif output_ratio is None:
        raise ValueError("output_size or output_ratio must be given; got neither")
    elif not isinstance(output_ratio, Sequence) or len(output_ratio) != rank:
        raise TypeError(f"output_ratio must be {rank} numbers; got {output_ratio}")
    elif not all(0 < ratio < 1 for ratio in output_ratio):
        raise ValueError(f"output_ratio must be between 0 and 1; got {output_ratio}")
    else:
        sizes = tuple(
            int(n * ratio) for n, ratio in zip(spatial, output_ratio, strict=True)
        )
    slack = 1 if rank == 3 else 0
    for n, size, length in zip(spatial, sizes, window, strict=True):
        if size + length - 1 + slack > n:
            raise ValueError(
                f"kernel_size and output_size must not exceed the input; got "
                f"{length} and {size} for a size of {n}"
            )
    if samples is not None:
        samples = as_array(samples, name="_random_samples")
        batched = x.shape[:-rank] if x.ndim == rank + 2 else (1, x.shape[0])
        if samples.shape != (*batched, rank):
            raise ValueError(
                f"_random_samples must have shape {(*batched, rank)}; "
                f"got _random_samples.shape={samples.shape}"
            )
        samples = samples.reshape(*x.shape[:-rank], rank)
        samples = samples[..., ::-1] if rank == 2 else samples  # it has the width first
    options = {"key": key, "samples": samples, "axes": _axes(rank)}
    if return_indices:
        return jaxpool.fractional_max_pool_with_indices(x, window, sizes, **options)
    return jaxpool.fractional_max_pool(x, window, sizes, **options)


@_named
def max_unpool(
    rank: int,
    input: Any,
    indices: Any,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
    output_size: Sequence[int] | None,
) -> jax.Array:
    x = _as_input(input, rank, floating=True)
    window = _ints("kernel_size", kernel_size, rank)
    strides = _strides(stride, window, rank)
    pads = _ints("padding", padding, rank)
    usual = [
        (n - 1) * s + k - 2 * pad
        for n, s, k, pad in zip(x.shape[-rank:], strides, window, pads, strict=True)
    ]
    sizes = usual if output_size is None else list(output_size)
    sizes = sizes[2:] if len(sizes) == rank + 2 else sizes
    if len(sizes) != rank or any(
        abs(size - n) >= s for size, n, s in zip(sizes, usual, strides, strict=True)
    ):
        raise ValueError(
            f"output_size must be {rank} sizes, each nearer than the stride {strides} "
            f"to {usual}; got output_size={output_size}"
        )
    cells = math.prod(sizes)
    if not isinstance(indices, jax.core.Tracer):
        known = np.asarray(indices)
        if known.size and not 0 <= known.min() <= known.max() < cells:
            raise ValueError(
                f"indices must be from 0 to {cells - 1}, the cells of the output; "
                f"got indices from {known.min()} to {known.max()}"
            )
    indices = as_indices(indices, x.shape)

    positions = range(x.ndim - rank, x.ndim)
    geometry = Sizes.of_all(x.shape, positions, sizes)
    return enter(_placed, tuple(sizes), geometry, x, indices)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _placed(sizes: tuple[int, ...], x: jax.Array, indices: jax.Array) -> jax.Array:
    return jaxpool.max_unpool(x, indices, sizes, axes=_axes(len(sizes)))


def _placed_fwd(
    sizes: tuple[int, ...], x: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _placed(sizes, x, indices), indices


def _placed_bwd(
    sizes: tuple[int, ...], indices: jax.Array, g: jax.Array
) -> tuple[jax.Array, None]:
    return _picked(sizes, g, indices), None


_placed.defvjp(_placed_fwd, _placed_bwd)


def _picked(sizes: tuple[int, ...], g: jax.Array, indices: jax.Array) -> jax.Array:
    """For each value the cotangent of its cell, also if it was overwritten there."""
    batch, cells = g.shape[: -len(sizes)], math.prod(sizes)
    count = math.prod(indices.shape[-len(sizes) :])
    places = jnp.where(indices < 0, cells, indices).reshape(*batch, count)
    g = g.reshape(*batch, cells)
    found = jnp.take_along_axis(g, places, -1, mode="fill", fill_value=0)
    return found.reshape(indices.shape)


def _as_input(input: Any, rank: int, floating: bool = False) -> jax.Array:
    """An array of `[N, C, *spatial]` or `[C, *spatial]`, none of them but N empty."""
    x = as_array(input, name="input")
    if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape[-rank - 1 :]:
        raise ValueError(
            f"input must be [N, C, ...] or [C, ...] with {rank} spatial axes, and none "
            f"but N empty; got input.shape={x.shape}"
        )
    if floating:
        _refuse_integers(x)
    return x


def _refuse_integers(x: jax.Array) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"input must be floating; got input.dtype={x.dtype}")


def _axes(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def _ints(name: str, value: Any, rank: int, repeat: bool = True) -> tuple[int, ...]:
    """One int for each spatial axis, from an int, or from one or all of them."""
    ints = tuple(value) if isinstance(value, Sequence) else (value,) * rank
    ints = ints * rank if repeat and len(ints) == 1 else ints
    if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) for n in ints):
        raise TypeError(f"{name} must be an int or ints; got {name}={value!r}")
    if len(ints) != rank:
        raise ValueError(f"{name} must be an int or {rank} ints; got {name}={value}")
    return ints


def _strides(stride: Any, window: tuple[int, ...], rank: int) -> tuple[int, ...]:
    unset = stride is None or (isinstance(stride, Sequence) and not stride)
    return window if unset else _ints("stride", stride, rank)


def _geometry(
    rank: int,
    x: jax.Array,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    padding: IntOrInts,
) -> _Geometry:
    """Window, strides and padding, which is at most half of the window."""
    window = _ints("kernel_size", kernel_size, rank)
    pads = _ints("padding", padding, rank)
    if any(pad > length // 2 for pad, length in zip(pads, window, strict=True)):
        raise ValueError(
            f"padding must be at most half of kernel_size; got padding={padding} with "
            f"kernel_size={kernel_size} for input.shape={x.shape}"
        )
    return window, _strides(stride, window, rank), pads
