"""Arguments as PyTorch takes them: which shapes, dtypes and ints each function has."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxpool.functions.arguments import about, as_array
from jaxpool.geometry.axes import as_int, check_at_least, check_flag

# `None` keeps a size, in 2-D and 3-D.
OutputSize: TypeAlias = SupportsIndex | Sequence[SupportsIndex | None]
Pooled: TypeAlias = jax.Array | tuple[jax.Array, jax.Array]
# Which axes may be empty: PyTorch's functions differ.
MayBeEmpty: TypeAlias = Literal["N", "first", "N and C"]


@dataclass(frozen=True)
class Windows:
    """The geometry of a windowed pool, in the words of `jaxpool`."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    axes: tuple[int, ...]
    ceil_mode: bool


def as_windows(
    x: jax.Array,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    *,
    rank: int,
    dilation: Any = 1,
    ceil_mode: Any,
) -> Windows:
    """Windows over the last `rank` axes, padded by at most half a window."""
    window = as_ints("kernel_size", kernel_size, rank)
    is_unset = stride is None or (isinstance(stride, tuple | list) and not stride)
    strides = window if is_unset else as_ints("stride", stride, rank)
    pads = as_ints("padding", padding, rank)
    with about(x.shape, "input"):
        check_at_least("kernel_size", window, 1)
        if any(pad > length // 2 for pad, length in zip(pads, window, strict=True)):
            raise ValueError(
                f"padding must be at most half of kernel_size; got padding={padding} "
                f"with kernel_size={kernel_size}"
            )
        check_flag("ceil_mode", ceil_mode)
    dilations = as_ints("dilation", dilation, rank)
    return Windows(window, strides, pads, dilations, last_axes(rank), ceil_mode)


def check_fits(x: jax.Array, windows: Windows) -> None:
    """Refuse windows larger than the input without padding, as 3-D averages do."""
    spatial = x.shape[-len(windows.window) :]
    if any(n < length for n, length in zip(spatial, windows.window, strict=True)):
        raise ValueError(
            "kernel_size must not be larger than the input, whatever the padding; got "
            f"kernel_size={windows.window} for input.shape={x.shape}"
        )


def as_input(input: Any, rank: int, empty: MayBeEmpty = "N") -> jax.Array:
    """An array of `[N, C, *spatial]` or `[C, *spatial]`; few axes may be empty."""
    x = as_array(input, name="input")
    filled = {"N": rank + 1, "first": x.ndim - 1, "N and C": rank}[empty]
    if x.ndim not in (rank + 1, rank + 2) or 0 in x.shape[-filled:]:
        raise ValueError(
            f"input must be [N, C, ...] or [C, ...] with {rank} spatial axes, and none "
            f"but {empty} empty; got input.shape={x.shape}"
        )
    return x


def check_dtype(x: jax.Array, *, integers: bool = False) -> None:
    """Refuse all dtypes except floating ones, and perhaps integers."""
    if jnp.issubdtype(x.dtype, jnp.floating):
        return
    if not (integers and jnp.issubdtype(x.dtype, jnp.integer)):
        raise TypeError(f"input must be floating; got input.dtype={x.dtype}")


def as_ints(
    name: str, value: Any, rank: int, *, repeat: bool = True
) -> tuple[int, ...]:
    """One int per spatial axis, from an int or a sequence; `repeat` also takes one."""
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


def is_iterable(value: Any) -> bool:
    """Whether PyTorch iterates over a value; a string is none of these."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str)


def last_axes(rank: int) -> tuple[int, ...]:
    """The spatial axes, which are the last ones."""
    return tuple(range(-rank, 0))


def no_cells(x: jax.Array, sizes: Sequence[int]) -> tuple[jax.Array, jax.Array]:
    """Values and indices where the result has a spatial size of 0."""
    shape = (*x.shape[: -len(sizes)], *sizes)
    return jnp.zeros(shape, x.dtype), jnp.zeros(shape, np.int32)
