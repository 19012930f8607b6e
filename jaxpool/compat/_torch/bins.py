"""Adaptive and fractional pools: bins in place of windows."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.typing import ArrayLike

import jaxpool
from jaxpool.compat._torch.arguments import (
    MayBeEmpty,
    OutputSize,
    Pooled,
    as_input,
    as_ints,
    check_dtype,
    is_iterable,
    last_axes,
    no_cells,
)
from jaxpool.functions.arguments import as_array, check_flag
from jaxpool.geometry.axes import Ints, as_int


def adaptive_avg_pool(
    rank: int, /, input: ArrayLike, output_size: OutputSize
) -> jax.Array:
    """PyTorch's `adaptive_avg_pool{rank}d`; see `jaxpool.adaptive_avg_pool`."""
    x = _as_input(input, rank, "first" if rank == 3 else "N and C")
    sizes = _as_sizes(output_size, x, rank)
    if 0 in sizes:
        return no_cells(x, sizes)[0]
    return jaxpool.adaptive_avg_pool(x, sizes, axes=last_axes(rank))


def adaptive_max_pool(
    rank: int,
    /,
    input: ArrayLike,
    output_size: OutputSize,
    return_indices: bool = False,
) -> Pooled:
    """PyTorch's `adaptive_max_pool{rank}d`; see `jaxpool.adaptive_max_pool`."""
    check_flag("return_indices", return_indices)
    x = _as_input(input, rank, "first")
    sizes = _as_sizes(output_size, x, rank)
    if 0 in sizes:
        empty = no_cells(x, sizes)
        return empty if return_indices else empty[0]
    if return_indices:
        return jaxpool.adaptive_max_pool_with_indices(x, sizes, axes=last_axes(rank))
    return jaxpool.adaptive_max_pool(x, sizes, axes=last_axes(rank))


def _as_input(input: Any, rank: int, empty: MayBeEmpty) -> jax.Array:
    x = as_input(input, rank, empty)
    check_dtype(x)
    return x


def _as_sizes(output_size: Any, x: jax.Array, rank: int) -> tuple[int, ...]:
    """The sizes of the result, none negative; `None` keeps that of `x`."""
    given = tuple(output_size) if is_iterable(output_size) else (output_size,) * rank
    try:
        sizes = [None if n is None else as_int(n) for n in given]
    except TypeError:
        sizes = [None]
    if len(sizes) != rank or (None in sizes and (rank == 1 or output_size is None)):
        raise TypeError(
            f"output_size must be an int or {rank} of them; "
            f"got output_size={output_size!r}"
        )
    if any(size is not None and size < 0 for size in sizes):
        raise ValueError(
            f"output_size must not be negative; got output_size={output_size} for "
            f"input.shape={x.shape}"
        )
    pairs = zip(sizes, x.shape[-rank:], strict=True)
    return tuple(n if size is None else size for size, n in pairs)


def fractional_max_pool(
    rank: int,
    /,
    input: ArrayLike,
    kernel_size: Ints,
    output_size: Ints | None = None,
    output_ratio: Sequence[float] | None = None,
    return_indices: bool = False,
    _random_samples: ArrayLike | None = None,
    *,
    key: jax.Array | None = None,
) -> Pooled:
    """PyTorch's `fractional_max_pool{rank}d`; see `jaxpool.fractional_max_pool`.

    Without `_random_samples`, `key` draws them. PyTorch has no `key`.
    """
    check_flag("return_indices", return_indices)
    x = _as_input(input, rank, "first")
    window = as_ints("kernel_size", kernel_size, rank, repeat=False)
    if any(n < 1 for n in window):
        raise ValueError(
            f"kernel_size must be at least 1; got kernel_size={kernel_size}"
        )
    spatial = x.shape[-rank:]
    if output_size is not None:
        name, sizes = (
            "output_size",
            as_ints("output_size", output_size, rank, repeat=False),
        )
    else:
        name, sizes = "output_ratio", _shares(output_ratio, spatial)
    places = [n - length + 1 for n, length in zip(spatial, window, strict=True)]
    most = [n - 1 for n in places] if rank == 3 else places
    if any(size < 0 or size > n for size, n in zip(sizes, most, strict=True)):
        raise ValueError(
            f"{name} must not be negative, and with kernel_size not exceed the input; "
            f"got sizes={sizes} with kernel_size={window} for input.shape={x.shape}"
        )
    options: dict[str, Any] = {"key": key, "axes": last_axes(rank)}
    if _random_samples is not None:
        options["samples"] = _as_samples(_random_samples, x, rank)
    elif key is None and 0 not in sizes:
        raise ValueError("key or _random_samples must be given; got neither")
    if 0 in sizes:
        empty = no_cells(x, sizes)
        return empty if return_indices else empty[0]
    if return_indices:
        return jaxpool.fractional_max_pool_with_indices(x, window, sizes, **options)
    return jaxpool.fractional_max_pool(x, window, sizes, **options)


def _shares(output_ratio: Any, spatial: Sequence[int]) -> tuple[int, ...]:
    """The sizes of the result that ratios give, rounded towards 0."""
    rank = len(spatial)
    if output_ratio is None:
        raise ValueError("output_size or output_ratio must be given; got neither")
    if rank == 3 and not is_iterable(output_ratio):
        output_ratio = (output_ratio,) * 3
    try:
        ratios = [float(ratio) for ratio in output_ratio if not isinstance(ratio, str)]
        if len(ratios) != rank or not all(map(math.isfinite, ratios)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"output_ratio must be {rank} finite numbers; "
            f"got output_ratio={output_ratio!r}"
        ) from None
    return tuple(int(n * ratio) for n, ratio in zip(spatial, ratios, strict=True))


def _as_samples(samples: Any, x: jax.Array, rank: int) -> jax.Array:
    """Samples in the order of the axes."""
    samples = as_array(samples, name="_random_samples")
    if samples.dtype.itemsize > max(x.dtype.itemsize, 4):
        raise TypeError(
            f"_random_samples must have the dtype of input, {x.dtype}, or float32; "
            f"got _random_samples.dtype={samples.dtype}"
        )
    batched = x.shape[:-rank] if x.ndim == rank + 2 else (1, x.shape[0])
    if samples.shape != (*batched, rank):
        raise ValueError(
            f"_random_samples must have shape {(*batched, rank)}; "
            f"got _random_samples.shape={samples.shape}"
        )
    ordered: jax.Array = (
        samples[..., ::-1] if rank == 2 else samples
    )  # it has the width first
    return ordered.reshape(*x.shape[:-rank], rank)
