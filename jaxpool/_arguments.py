"""What every operator asks of the arrays and numbers it is given.

Each function here checks one argument, before any array work, and returns it in the
form that the kernels take. Checks run inside `about`, which says for which input.
"""

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxpool import _dtypes
from jaxpool._lowering import Implementation, check_implementation
from jaxpool._window import Window

Kinds: TypeAlias = Literal["real", "number", "any"]


class Call(NamedTuple):
    """The checked arguments that all pools share, as `_pooling` takes them."""

    x: jax.Array
    window: Window
    mask: jax.Array | None
    empty: np.ndarray
    implementation: Implementation | None


def as_call(
    x: Any,
    resolve_window: Callable[..., Window],
    geometry: tuple[Any, ...],
    where: Any,
    empty_value: Any,
    implementation: Any = None,
    *,
    kinds: Kinds = "real",
    averaged: bool = False,
) -> Call:
    """Check what all pools have in common."""
    x = as_array(x, kinds)
    with about(x.shape):
        window = resolve_window(x.shape, *geometry)
        check_implementation(implementation, window)
        mask = as_mask(where, x)
        dtype = _dtypes.averaged(x.dtype) if averaged else x.dtype
        is_used = mask is not None or any(dim.may_miss for dim in window.dims)
        empty = as_empty_value(empty_value, dtype, is_used)
    return Call(x, window, mask, empty, implementation)


@contextmanager
def about(shape: Any, name: str = "x") -> Iterator[None]:
    """End each complaint about an argument with the shape of the input."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # one of jax's own, about an array that was traced
        raise type(error)(f"{error} for {name}.shape={tuple(shape)}") from None


def as_array(x: Any, kinds: Kinds = "real", name: str = "x") -> jax.Array:
    """`x` as a jax array of a dtype that can be pooled."""
    if not isinstance(x, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"{name} must be an array; got {type(x).__name__}: {x!r:.80}")
    got = f"got {name}.dtype={x.dtype} for {name}.shape={x.shape}"
    is_complex = jnp.issubdtype(x.dtype, jnp.complexfloating)
    if x.dtype == np.bool_:
        if kinds != "any":
            raise TypeError(
                f"{name} must not be boolean: pool x.astype(jnp.uint8), whose maximum "
                f"is `any` and whose minimum is `all`; {got}"
            )
    elif is_complex:
        if kinds == "real":
            raise TypeError(
                f"{name} must be real: complex numbers have no order, and only sums "
                f"and averages take them; {got}"
            )
    elif not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"{name} must hold numbers; {got}")
    x = jnp.asarray(x)
    return x if _dtypes.has_zero(x.dtype) else _without_derivative(x)


@jax.custom_jvp
def _without_derivative(x: jax.Array) -> jax.Array:
    """`x`, of a dtype whose numbers are no derivatives."""
    return x


@_without_derivative.defjvp
def _without_derivative_jvp(primals: tuple[jax.Array], _: Any) -> Any:
    raise TypeError(
        f"x must have a dtype that holds 0 where a pool is differentiated: pool "
        f"x.astype(jnp.bfloat16); got x.dtype={primals[0].dtype}"
    )


def as_indices(indices: Any, shape: tuple[int, ...] | None = None) -> jax.Array:
    """`indices` as int32, of the given shape if there is one."""
    if not isinstance(indices, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"indices must be an array; got {type(indices).__name__}")
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"indices must be integers; got indices.dtype={indices.dtype}")
    if shape is not None and indices.shape != shape:
        raise ValueError(
            f"indices must have the shape of values; got indices.shape={indices.shape}"
        )
    if isinstance(indices, np.ndarray) and (indices > np.iinfo(np.int32).max).any():
        raise ValueError(f"indices must be below 2**31; got {indices.max()}")
    return jnp.asarray(indices).astype(np.int32)


def as_mask(where: Any, x: jax.Array) -> jax.Array | None:
    """`where` with the rank of `x`, not yet broadcast."""
    if where is None:
        return None
    if not isinstance(where, (jax.Array, np.ndarray, np.generic, bool)):
        raise TypeError(f"where must be a boolean array; got {type(where).__name__}")
    if not isinstance(where, bool) and where.dtype != np.bool_:
        raise TypeError(
            f"where must be boolean; got where.dtype={where.dtype} "
            f"with where.shape={where.shape}"
        )
    if not _dtypes.has_zero(x.dtype):
        raise TypeError(
            "where must be None for a dtype that does not hold 0: pool "
            f"x.astype(jnp.bfloat16); got x.dtype={x.dtype}"
        )
    mask = jnp.asarray(where)
    shape = (1,) * (x.ndim - mask.ndim) + mask.shape
    if len(shape) != x.ndim or any(
        m not in (1, n) for m, n in zip(shape, x.shape, strict=True)
    ):
        raise ValueError(
            "where must broadcast to the shape of x (a mask of batch and time needs a "
            "last axis for the channels: where[..., None]); "
            f"got where.shape={mask.shape}"
        )
    return mask.reshape(shape)


def as_empty_value(empty_value: Any, dtype: np.dtype, is_used: bool) -> np.ndarray:
    """`empty_value` in the dtype of the result; 1 for a 0 that is not used."""
    number = _number("empty_value", empty_value)
    if number == 0 and not is_used and not _dtypes.has_zero(dtype):
        return np.ones((), dtype)
    if not jnp.issubdtype(dtype, jnp.integer):
        with np.errstate(all="ignore"):
            value = np.asarray(number, dtype)
        if not np.array_equal(np.isfinite(value), math.isfinite(number)) or (
            np.isnan(value) != math.isnan(number)
        ):
            raise ValueError(
                f"empty_value must be a number that {np.dtype(dtype)} holds; "
                f"got empty_value={empty_value}"
            )
    else:
        info = jnp.iinfo(dtype)
        held = math.isfinite(number) and int(info.min) <= number <= int(info.max)
        if not held or number != int(number):
            raise ValueError(
                f"empty_value must be an integer that {np.dtype(dtype)} holds; "
                f"got empty_value={empty_value}"
            )
    return np.asarray(number, dtype)


def as_divisor(divisor: Any) -> float | None:
    """`divisor` as a number that can divide."""
    if divisor is None:
        return None
    number = _number("divisor", divisor)
    if number == 0 or not math.isfinite(number):
        raise ValueError(
            f"divisor must be a finite number other than 0; got divisor={divisor}"
        )
    return number


def as_order(p: Any) -> float:
    """`p` as the order of a norm."""
    if isinstance(p, jax.core.Tracer):
        raise TypeError(
            "p must be a Python number, not a traced value: mark it static "
            "(jax.jit(..., static_argnames='p')); for a derivative by p, or a p that "
            "is computed, pool abs(x) ** p by sum_pool and take the power 1 / p; "
            f"got p={p}"
        )
    order = _number("p", p)
    if not order > 0:
        raise ValueError(f"p must be a positive number or inf; got p={p}")
    return order


def as_scalar(name: str, value: Any, dtype: np.dtype) -> jax.Array:
    """One value of the given dtype; it may be traced."""
    try:
        scalar = jnp.asarray(value, dtype)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number; got {name}={value!r}") from None
    if scalar.shape:
        raise ValueError(f"{name} must be a scalar; got {name}.shape={scalar.shape}")
    return scalar


def as_identity(init: Any, dtype: np.dtype) -> jax.Array | np.ndarray:
    """`init` as one number, of NumPy's if it is known, and without a derivative."""
    identity = as_scalar("init", init, dtype)
    if isinstance(identity, jax.core.Tracer):
        return jax.lax.stop_gradient(identity)
    known: np.ndarray = jax.device_get(identity)
    return np.asarray(known)


def check_flag(name: str, value: Any) -> None:
    """Refuse everything but True and False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {name}={value!r}")


def _number(name: str, value: Any) -> float:
    """A Python number that is known when tracing."""
    try:
        if isinstance(value, (bool, np.bool_, str, bytes)):
            raise TypeError
        is_int = isinstance(value, (int, np.integer))
        number = operator.index(value) if is_int else float(value)
        float(number)  # overflows where no float holds it
        return number
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{name} must be a real number, known when tracing; got {name}={value!r}"
        ) from None
