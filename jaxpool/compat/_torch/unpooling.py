"""`max_unpool1d` to `max_unpool3d`, with the output sizes and gradients of PyTorch."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

import jaxpool
from jaxpool.compat._torch.arguments import (
    as_input,
    as_ints,
    check_dtype,
    last_axes,
    no_cells,
)
from jaxpool.engines.sharding import Sizes
from jaxpool.functions.arguments import as_indices, known_range
from jaxpool.functions.entry import enter
from jaxpool.geometry.axes import Ints


def max_unpool(
    rank: int,
    /,
    input: ArrayLike,
    indices: ArrayLike,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    output_size: Sequence[int] | None = None,
) -> jax.Array:
    """PyTorch's `max_unpool{rank}d`; see `jaxpool.max_unpool`."""
    x = as_input(input, rank, "first")
    check_dtype(x)
    window = as_ints("kernel_size", kernel_size, rank, repeat=False)
    unset = stride is None
    strides = window if unset else as_ints("stride", stride, rank, repeat=False)
    pads = as_ints("padding", padding, rank, repeat=False)
    if rank == 3 and min(strides) < 1:
        raise ValueError(f"stride must be at least 1 on each axis; got stride={stride}")
    usual = tuple(
        (n - 1) * s + k - 2 * pad
        for n, s, k, pad in zip(x.shape[-rank:], strides, window, pads, strict=True)
    )
    sizes = _as_sizes(output_size, usual, strides)
    places = _as_places(indices, x, math.prod(sizes))
    if 0 in sizes:
        return no_cells(x, sizes)[0]
    positions = range(x.ndim - rank, x.ndim)
    return enter(_placed, sizes, Sizes.of_all(x.shape, positions, sizes), x, places)


def _as_sizes(
    output_size: Any, usual: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[int, ...]:
    """The spatial sizes of the result: those given, or the usual ones."""
    rank, sizes = len(usual), usual
    if output_size is not None:
        sizes = tuple(output_size) if isinstance(output_size, tuple | list) else ()
        sizes = sizes[2:] if len(sizes) == rank + 2 else sizes
        if len(sizes) != rank:
            raise TypeError(
                f"output_size must be {rank} or {rank + 2} ints; "
                f"got output_size={output_size!r}"
            )
        sizes = as_ints("output_size", sizes, rank)
    if any(
        size < 0 or (output_size is not None and abs(size - n) >= s)
        for size, n, s in zip(sizes, usual, strides, strict=True)
    ):
        raise ValueError(
            f"output_size must be {rank} sizes, none negative, each nearer than the "
            f"stride {strides} to {usual}; got output_size={output_size}"
        )
    return sizes


def _as_places(indices: Any, x: jax.Array, cells: int) -> jax.Array:
    """`indices` as int32 of the shape of `x`; if they are known, each a cell."""
    checked = as_indices(indices, x.shape)
    bounds = known_range(indices) if cells else None
    if bounds is not None and not 0 <= bounds[0] <= bounds[1] < cells:
        raise ValueError(
            f"indices must be from 0 to {cells - 1}, the cells of the output; "
            f"got indices from {bounds[0]} to {bounds[1]}"
        )
    return checked


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _placed(sizes: tuple[int, ...], x: jax.Array, indices: jax.Array) -> jax.Array:
    return jaxpool.max_unpool(x, indices, sizes, axes=last_axes(len(sizes)))


def _kept(
    sizes: tuple[int, ...], x: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return _placed(sizes, x, indices), indices


def _picked(
    sizes: tuple[int, ...], indices: jax.Array, g: jax.Array
) -> tuple[jax.Array, None]:
    """For each value the cotangent of its cell, also if it was overwritten there."""
    batch, cells = g.shape[: -len(sizes)], math.prod(sizes)
    count = math.prod(indices.shape[-len(sizes) :])
    places = jnp.where(indices < 0, cells, indices).reshape(*batch, count)
    g = g.reshape(*batch, cells)
    picked = jnp.take_along_axis(g, places, -1, mode="fill", fill_value=0)
    return picked.reshape(indices.shape), None


_placed.defvjp(_kept, _picked)
