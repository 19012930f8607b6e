"""Norms over windows, as PyTorch computes them: step by step, sign and all."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

import jaxpool
from jaxpool.compat._torch.arguments import (
    Windows,
    as_input,
    as_ints,
    as_windows,
    check_dtype,
    check_fits,
)
from jaxpool.compat._torch.windows import avg_pool
from jaxpool.engines.kernel import bind_linear
from jaxpool.geometry.axes import Ints


def lp_pool(
    rank: int,
    /,
    input: ArrayLike,
    norm_type: float,
    kernel_size: Ints,
    stride: Ints | None = None,
    ceil_mode: bool = False,
) -> jax.Array:
    """PyTorch's `lp_pool{rank}d`: no absolute value; see `jaxpool.lp_pool`."""
    x = as_input(input, rank)
    order = _as_order(norm_type)
    window = as_ints("kernel_size", kernel_size, rank, repeat=False)
    windows = as_windows(x, window, stride, 0, rank=rank, ceil_mode=ceil_mode)
    if math.isinf(order):
        check_dtype(x, integers=rank > 1)
        return _largest(windows, order > 0, x)
    if rank == 1 and not isinstance(kernel_size, int | np.integer):
        raise TypeError(f"kernel_size must be an int; got kernel_size={kernel_size!r}")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        if isinstance(norm_type, int | np.integer):
            powers = _integer_powers(input, x, int(norm_type))
            means = avg_pool(rank, powers, window, stride, 0, ceil_mode)
            return _power(1 / order, (means * math.prod(window)).astype(np.float32))
        check_dtype(x, integers=True)
        x = x.astype(np.float32)
    if rank == 3:
        check_fits(x, windows)
    return _norm(windows, order, x)


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


def _largest(windows: Windows, is_max: bool, x: jax.Array) -> jax.Array:
    """The largest absolute value, or the smallest: what PyTorch computes for it."""
    sizes = _absolute(x)
    if is_max:
        return jaxpool.max_pool(_gathering(sizes), **vars(windows))
    # Not `min_pool`: the negation makes zeros of the gradient -0, as in PyTorch.
    return -jaxpool.max_pool(_gathering(-sizes), **vars(windows))


def _norm(windows: Windows, order: float, x: jax.Array) -> jax.Array:
    """What PyTorch computes, step by step, with the derivative that each step has."""
    means = jaxpool.avg_pool(_powers(order, x), **vars(windows), count_include_pad=True)
    return _roots(order, math.prod(windows.window), means)


@partial(jax.jit, static_argnums=0)
def _powers(order: float, x: jax.Array) -> jax.Array:
    return _gathering(_power(order, x))


@partial(jax.jit, static_argnums=(0, 1))
def _roots(order: float, cells: int, means: jax.Array) -> jax.Array:
    sizes = _absolute(means)
    positive = jnp.where(sizes <= 0, jnp.zeros_like(sizes), sizes)  # slope of NaN: 1
    return _power(1 / order, _sign(means) * positive * np.asarray(cells, means.dtype))


def _gathering(x: jax.Array) -> jax.Array:
    """`x`; cotangents of 0 are not -0, as PyTorch gathers them by adding to 0."""
    return bind_linear(_Gathering(), x)


@dataclass(frozen=True)
class _Gathering:
    """The kernel of that: the identity, or `back`, without -0."""

    back: bool = False

    portable: ClassVar[bool] = False

    @property
    def transpose(self) -> "_Gathering":
        return _Gathering(not self.back)

    def types(self, x: Any) -> list[Any]:
        return [x]

    def run(self, platform: str, x: jax.Array) -> tuple[jax.Array]:
        return (jnp.where(x == 0, jnp.zeros_like(x), x) if self.back else x,)


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


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _power(exponent: float, x: jax.Array) -> jax.Array:
    """`x ** exponent`, by products and roots where PyTorch computes them so."""
    if x.dtype == np.float16 and exponent in (0.5, -0.5):  # no roots there
        return _any_power(exponent, x)
    return _POWERS.get(exponent, partial(_any_power, exponent))(x)


def _any_power(exponent: float, x: jax.Array) -> jax.Array:
    return jnp.power(x, np.asarray(exponent, x.dtype))


_POWERS: dict[float, Callable[[jax.Array], jax.Array]] = {
    0.0: jnp.ones_like,
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
