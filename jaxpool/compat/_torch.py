"""What the functions of `compat.torch` do, in any number of spatial axes."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool
from jaxpool.aggregations.sums import counts, window_sum
from jaxpool.engines.linear import linear
from jaxpool.engines.sharding import Sizes
from jaxpool.engines.symbolic import as_number
from jaxpool.functions import pooling
from jaxpool.functions.arguments import (
    about,
    as_array,
    as_given,
    as_indices,
    check_flag,
    known_range,
)
from jaxpool.functions.entry import enter
from jaxpool.geometry.axes import as_int
from jaxpool.geometry.spelling import renamed
from jaxpool.geometry.window import Window, resolve

IntOrInts: TypeAlias = int | Sequence[int]
Pooled: TypeAlias = jax.Array | tuple[jax.Array, jax.Array]
_Geometry: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
# Which axes may be empty: PyTorch's functions differ.
_MayBeEmpty: TypeAlias = Literal["N", "first", "N and C"]


_named = renamed(
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
    check_flag("return_indices", return_indices)
    x = _as_input(input, rank)
    _refuse_others(x, integers=rank > 1 or return_indices)
    geometry = _geometry(rank, x, kernel_size, stride, padding)
    options: dict[str, Any] = {
        "dilation": _ints("dilation", dilation, rank),
        "axes": _axes(rank),
        "ceil_mode": ceil_mode,
    }
    lowest = (
        -math.inf
        if jnp.issubdtype(x.dtype, jnp.floating)
        else int(jnp.iinfo(x.dtype).min)
    )
    if not return_indices:
        return jaxpool.max_pool(x, *geometry, **options, empty_value=lowest)
    values, indices = jaxpool.max_pool_with_indices(
        x, *geometry, **options, empty_value=lowest
    )
    windows = _resolved(x, geometry, ceil_mode, options["dilation"])
    if any(dim.may_miss for dim in windows.dims):
        indices = enter(_index_of_none, windows, windows, indices)
    return values, indices


def _index_of_none(windows: Window, indices: jax.Array) -> jax.Array:
    """PyTorch's index for a window of padding only: where it starts to search.

    That is the first cell of the window that is not before the input, on each axis. It
    may be behind the input, and then names no cell, or one of the next row.
    """
    first = jnp.zeros_like(indices)
    for axis, dim in zip(windows.axes, windows.dims, strict=True):
        start = lax.broadcasted_iota(np.int32, indices.shape, axis)
        start = start * np.int32(dim.stride) - np.int32(dim.low)
        start = jnp.where(start < 0, start % np.int32(dim.dilation), start)
        first = first * as_number(dim.size) + start
    return jnp.where(indices < 0, first, indices)


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
    check_flag("count_include_pad", count_include_pad)
    if divisor is not None:
        divisor = _as_divisor(divisor)
    geometry = _geometry(rank, x, kernel_size, stride, padding)
    window = _resolved(x, geometry, ceil_mode)
    if rank == 3:
        _check_fits(x, window)
    given = as_given("input", input)
    if given.dtype == np.int64:
        _check_sums(given, window.cells)
        return enter(
            _truncated_average, (window, count_include_pad, divisor), window, x
        )
    _refuse_others(x)
    return jaxpool.avg_pool(
        x,
        *geometry,
        axes=_axes(rank),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor=divisor,
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


def _check_fits(x: jax.Array, window: Window) -> None:
    """Refuse windows larger than the input without padding, as 3-D averages do."""
    lengths = tuple(dim.window for dim in window.dims)
    if any(dim.size < dim.window for dim in window.dims):
        raise ValueError(
            "kernel_size must not be larger than the input, whatever the padding; got "
            f"kernel_size={lengths} for input.shape={x.shape}"
        )


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


def _truncated_average(
    static: tuple[Window, bool, int | None], x: jax.Array
) -> jax.Array:
    """The average of integers, rounded towards 0."""
    window, count_include_pad, divisor = static
    number: Any = divisor
    if divisor is None:
        number = math.prod(counts(window, x.ndim, count_include_pad))
    sums = window_sum(x, None, (), window, x.dtype, x.dtype, None)
    return lax.div(sums, jnp.broadcast_to(jnp.asarray(number, sums.dtype), sums.shape))


@_named
def lp_pool(
    rank: int,
    input: Any,
    norm_type: float,
    kernel_size: IntOrInts,
    stride: IntOrInts | None,
    ceil_mode: bool,
) -> jax.Array:
    x = _as_input(input, rank)
    order = _as_order(norm_type)
    window = _ints("kernel_size", kernel_size, rank, repeat=False)
    geometry = window, _strides(stride, window, rank), (0,) * rank
    found = _resolved(x, geometry, ceil_mode)
    if math.isinf(order):
        _refuse_others(x, integers=rank > 1)
        return enter(_largest, (found, order > 0), found, x)
    if rank == 1 and not isinstance(kernel_size, int | np.integer):
        raise TypeError(f"kernel_size must be an int; got kernel_size={kernel_size!r}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if isinstance(norm_type, int | np.integer):
            powers = _integer_powers(input, x, int(norm_type))
            means = avg_pool(rank, powers, *geometry, ceil_mode, True, None)
            sums = (means * math.prod(window)).astype(np.float32)
            return _power(1 / order, sums)
        _refuse_others(x, integers=True)
        x = x.astype(np.float32)
    if rank == 3:
        _check_fits(x, found)
    return enter(_norm, (found, order), found, x)


def _as_order(norm_type: Any) -> float:
    """`norm_type` as a number that is not 0."""
    if isinstance(norm_type, bool) or not isinstance(
        norm_type, int | float | np.integer | np.floating
    ):
        raise TypeError(
            f"norm_type must be an int or a float; got norm_type={norm_type!r}"
        )
    try:
        order = float(norm_type)
    except OverflowError:
        order = 0.0
    if order == 0:
        raise ValueError(
            f"norm_type must not be 0, nor beyond floats; got norm_type={norm_type}"
        )
    return order


def _integer_powers(input: Any, x: jax.Array, exponent: int) -> Any:
    """Powers of integers as int64, in NumPy where the input is its."""
    if exponent < 0:
        raise ValueError(
            f"norm_type must not be negative for integers; got norm_type={exponent}"
        )
    if isinstance(input, np.ndarray):
        return input.astype(np.int64) ** exponent if input.dtype == np.int64 else x
    return lax.integer_pow(x, exponent)


def _largest(static: tuple[Window, bool], x: jax.Array) -> jax.Array:
    """The largest absolute value, or the smallest: what PyTorch computes for it."""
    window, largest = static
    sizes = _absolute(x)
    signed = _gathering(sizes if largest else -sizes)
    found = pooling.extreme(signed, window, None, np.zeros((), x.dtype), None, "max")
    return found if largest else -found


def _norm(static: tuple[Window, float], x: jax.Array) -> jax.Array:
    """What PyTorch computes, step by step, with the derivative that each step has."""
    window, order = static
    powers = _gathering(_power(order, x))
    means = pooling.mean(powers, window, None, np.zeros((), x.dtype), None, True)
    sums = _sign(means) * _positive(_absolute(means))
    return _power(1 / order, sums * np.asarray(window.cells, x.dtype))


def _gathering(x: jax.Array) -> jax.Array:
    """`x`; cotangents of 0 are not -0, as PyTorch gathers them by adding to 0."""
    return linear(_same, _plain, (), x)


def _same(_: Any, x: jax.Array) -> jax.Array:
    return x


def _plain(_: Any, g: jax.Array) -> jax.Array:
    return jnp.where(g == 0, jnp.zeros_like(g), g)


@jax.custom_jvp
def _absolute(x: jax.Array) -> jax.Array:
    """`abs`, whose derivative at 0 is 0."""
    return jnp.abs(x)


@_absolute.defjvp
def _absolute_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    return _absolute(x), t * lax.stop_gradient(_sign(x))


def _sign(x: jax.Array) -> jax.Array:
    """-1, 0 or 1, as PyTorch has it: 0 for -0 and for NaN."""
    return (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype)


@jax.custom_jvp
def _positive(x: jax.Array) -> jax.Array:
    """`relu`; the derivative of NaN is 1."""
    return jax.nn.relu(x)


@_positive.defjvp
def _positive_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    return _positive(x), jnp.where(x <= 0, jnp.zeros_like(t), t)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _power(exponent: float, x: jax.Array) -> jax.Array:
    """`x ** exponent`, by products and roots where PyTorch computes them so."""
    if exponent == 0:
        return jnp.ones_like(x)
    if x.dtype == np.float16 and exponent in (0.5, -0.5):  # no roots there
        return _any_power(exponent, x)
    return _POWERS.get(exponent, partial(_any_power, exponent))(x)


def _any_power(exponent: float, x: jax.Array) -> jax.Array:
    return jnp.power(x, np.asarray(exponent, x.dtype))


_POWERS: dict[float, Callable[[jax.Array], jax.Array]] = {
    1.0: lambda x: x,
    2.0: lambda x: x * x,
    3.0: lambda x: x * x * x,
    0.5: jnp.sqrt,
    -0.5: lax.rsqrt,
    -1.0: lambda x: 1 / x,
    -2.0: lambda x: 1 / (x * x),
}


@_power.defjvp
def _power_jvp(
    exponent: float, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    if exponent == 0:
        return _power(exponent, x), jnp.zeros_like(t)
    slope = np.asarray(exponent, x.dtype) * _power(exponent - 1, x)
    return _power(exponent, x), t * slope


@_named
def adaptive_avg_pool(rank: int, input: Any, output_size: Any) -> jax.Array:
    may_be_empty: _MayBeEmpty = "first" if rank == 3 else "N and C"
    x, sizes, empty = _bins(rank, input, output_size, may_be_empty)
    if empty is not None:
        return jnp.zeros(empty, x.dtype)
    return jaxpool.adaptive_avg_pool(x, sizes, axes=_axes(rank))


@_named
def adaptive_max_pool(
    rank: int, input: Any, output_size: Any, return_indices: bool
) -> Pooled:
    check_flag("return_indices", return_indices)
    x, sizes, empty = _bins(rank, input, output_size, "first")
    if empty is not None:
        values, indices = jnp.zeros(empty, x.dtype), jnp.zeros(empty, np.int32)
    elif not return_indices:
        return jaxpool.adaptive_max_pool(x, sizes, axes=_axes(rank))
    else:
        found = jaxpool.adaptive_max_pool_with_indices(x, sizes, axes=_axes(rank))
        values, indices = found
    return (values, indices) if return_indices else values


def _bins(
    rank: int, input: Any, output_size: Any, empty: _MayBeEmpty
) -> tuple[jax.Array, tuple[int | None, ...], tuple[int, ...] | None]:
    """Input, output sizes, and the shape of the result if it is empty."""
    x = _as_input(input, rank, empty)
    _refuse_others(x)
    iterable = _is_iterable(output_size)
    given = tuple(output_size) if iterable else (output_size,) * rank
    try:
        sizes = tuple(None if n is None else as_int(n) for n in given)
    except TypeError:
        sizes = (None,)
    if len(sizes) != rank or (None in sizes and (rank == 1 or output_size is None)):
        raise TypeError(
            f"output_size must be an int or {rank} of them; "
            f"got output_size={output_size!r}"
        )
    if 0 not in sizes:
        return x, sizes, None
    if any(size is not None and size < 0 for size in sizes):
        raise ValueError(f"output_size must not be negative; got {output_size}")
    own = x.shape[-rank:]
    kept = (n if size is None else size for n, size in zip(own, sizes, strict=True))
    return x, sizes, (*x.shape[:-rank], *kept)


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
    check_flag("return_indices", return_indices)
    x = _as_input(input, rank, "first")
    _refuse_others(x)
    spatial = x.shape[-rank:]
    window = _ints("kernel_size", kernel_size, rank, repeat=False)
    if any(n < 1 for n in window):
        raise ValueError(
            f"kernel_size must be at least 1; got kernel_size={kernel_size}"
        )
    if output_size is not None:
        sizes = _ints("output_size", output_size, rank, repeat=False)
    else:
        sizes = _shares(rank, spatial, output_ratio)
    slack = 1 if rank == 3 else 0
    for n, size, length in zip(spatial, sizes, window, strict=True):
        if size < 0 or size + length - 1 + slack > n:
            name = "output_ratio" if output_size is None else "output_size"
            raise ValueError(
                f"{name} must not be negative, and with kernel_size not exceed the "
                f"input; got sizes={sizes} with kernel_size={window} for "
                f"input.shape={x.shape}"
            )
    if samples is not None:
        samples = _as_samples(samples, x, rank)
    elif key is None and 0 not in sizes:
        raise ValueError("key or _random_samples must be given; got neither")
    if 0 in sizes:
        empty = (*x.shape[:-rank], *sizes)
        values, indices = jnp.zeros(empty, x.dtype), jnp.zeros(empty, np.int32)
        return (values, indices) if return_indices else values
    options = {"key": key, "samples": samples, "axes": _axes(rank)}
    if return_indices:
        return jaxpool.fractional_max_pool_with_indices(x, window, sizes, **options)
    return jaxpool.fractional_max_pool(x, window, sizes, **options)


def _shares(rank: int, spatial: Sequence[int], output_ratio: Any) -> tuple[int, ...]:
    """The sizes of the result that ratios give, rounded towards 0."""
    if output_ratio is None:
        raise ValueError("output_size or output_ratio must be given; got neither")
    if rank == 3 and not _is_iterable(output_ratio):
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
    x = _as_input(input, rank, "first")
    _refuse_others(x)
    sizes = _unpooled_sizes(rank, x, kernel_size, stride, padding, output_size)
    indices = _as_places(indices, x, math.prod(sizes))
    if 0 in sizes:
        return jnp.zeros((*x.shape[:-rank], *sizes), x.dtype)
    positions = range(x.ndim - rank, x.ndim)
    return enter(_placed, sizes, Sizes.of_all(x.shape, positions, sizes), x, indices)


def _unpooled_sizes(
    rank: int, x: jax.Array, kernel_size: Any, stride: Any, padding: Any, given: Any
) -> tuple[int, ...]:
    """The spatial sizes of the result."""
    window = _ints("kernel_size", kernel_size, rank, repeat=False)
    strides = window if stride is None else _ints("stride", stride, rank, repeat=False)
    pads = _ints("padding", padding, rank, repeat=False)
    if rank == 3 and min(strides) < 1:
        raise ValueError(f"stride must be at least 1 on each axis; got stride={stride}")
    usual = tuple(
        (n - 1) * s + k - 2 * pad
        for n, s, k, pad in zip(x.shape[-rank:], strides, window, pads, strict=True)
    )
    sizes = usual
    if given is not None:
        sizes = tuple(given) if isinstance(given, tuple | list) else ()
        sizes = sizes[2:] if len(sizes) == rank + 2 else sizes
        if len(sizes) != rank:
            raise TypeError(
                f"output_size must be {rank} or {rank + 2} ints; "
                f"got output_size={given!r}"
            )
        sizes = _ints("output_size", sizes, rank)
    if any(
        size < 0 or (given is not None and abs(size - n) >= s)
        for size, n, s in zip(sizes, usual, strides, strict=True)
    ):
        raise ValueError(
            f"output_size must be {rank} sizes, none negative, each nearer than the "
            f"stride {strides} to {usual}; got output_size={given}"
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


def _as_input(input: Any, rank: int, empty: _MayBeEmpty = "N") -> jax.Array:
    """An array of `[N, C, *spatial]` or `[C, *spatial]`, few of them empty."""
    x = as_array(input, name="input")
    filled = {"N": rank + 1, "first": x.ndim - 1, "N and C": rank}[empty]
    if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape[-filled:]:
        raise ValueError(
            f"input must be [N, C, ...] or [C, ...] with {rank} spatial axes, and none "
            f"but {empty} empty; got input.shape={x.shape}"
        )
    return x


def _refuse_others(x: jax.Array, integers: bool = False) -> None:
    """Refuse all but floating dtypes, or those and integers."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return
    if not (integers and jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"input must be floating; got input.dtype={x.dtype}")


def _is_iterable(value: Any) -> bool:
    """Whether an argument has entries, which are not letters."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)


def _axes(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def _ints(name: str, value: Any, rank: int, repeat: bool = True) -> tuple[int, ...]:
    """One int for each spatial axis, from an int, or from one or all of them."""
    given = tuple(value) if isinstance(value, tuple | list) else (value,) * rank
    try:
        ints = tuple(as_int(n) for n in given)
    except TypeError:
        raise TypeError(
            f"{name} must be an int, or a tuple or list of ints; got {name}={value!r}"
        ) from None
    ints = ints * rank if repeat and len(ints) == 1 else ints
    if len(ints) != rank:
        raise ValueError(f"{name} must be an int or {rank} ints; got {name}={value}")
    return ints


def _strides(
    stride: Any, window: tuple[int, ...], rank: int, repeat: bool = True
) -> tuple[int, ...]:
    unset = stride is None or (isinstance(stride, tuple | list) and not stride)
    return window if unset else _ints("stride", stride, rank, repeat)


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


def _resolved(
    x: jax.Array, geometry: _Geometry, ceil_mode: bool, dilation: Any = 1
) -> Window:
    """The windows, with errors that tell the shape of the input."""
    with about(x.shape, "input"):
        return resolve(x.shape, *geometry, dilation, _axes(len(geometry[0])), ceil_mode)
