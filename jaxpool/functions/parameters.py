"""Checks of the parameters of aggregations: exponents, scales, weights, divisors.

As in `arguments.py`, each function checks one argument and returns it as it is used.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.dtypes import FLOAT32
from jaxpool.functions.arguments import (
    KINDS_HELD,
    REAL,
    about,
    as_given,
    as_number,
    held,
    is_wrapped,
    kind_of,
)
from jaxpool.geometry.spelling import spelled
from jaxpool.geometry.window import Window

# The error of a power mean grows as 1 / p: 4e-4 for this one.
LEAST_EXPONENT = 1e-3


def as_divisor(divisor: Any, dtype: np.dtype = FLOAT32) -> float | None:
    """`divisor` as a number that can divide a sum in `dtype`."""
    if divisor is None:
        return None
    number = as_number("divisor", divisor)
    info = jnp.finfo(dtype)
    if not float(info.tiny) <= abs(number) <= float(info.max):
        raise ValueError(
            f"{spelled('divisor')} must be a finite number other than 0 that "
            f"{info.dtype} can represent; got {spelled('divisor')}={divisor}"
        )
    return number


def as_order(p: Any) -> float:
    """`p` as the order of a norm."""
    if isinstance(p, jax.core.Tracer):
        raise TypeError(
            "p must be a Python number, not a traced value: mark it static "
            "(jax.jit(..., static_argnames='p')). For a computed p, or a gradient of "
            f"p, use jaxpool.lp_pool; got p={p}"
        )
    order = as_number("p", p)
    if not order > 0:
        raise ValueError(f"p must be a positive number or inf; got p={p}")
    return order


def as_order_or_array(p: Any, call: Call) -> tuple[Call, float | None]:
    """The call with `p` as an array, or the call and `p` as a number."""
    is_learned = isinstance(p, jax.core.Tracer) or is_wrapped(p)
    if not is_learned and not (isinstance(p, (jax.Array, np.ndarray)) and p.ndim):
        with about(call.x.shape):
            return call, as_order(p)
    _check_exponents(p, call, positive=True)
    return call._replace(arrays=as_weights("p", p, call, per_output=True)), None


def as_fraction(name: str, value: Any) -> float:
    """A number from 0 to 1."""
    number = as_number(name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1; got {name}={value}")
    return float(number)


def as_exponent(p: Any, call: Call) -> Call:
    """The call with the exponents of a mean, if `p` is an array; it is not near 0."""
    if _is_number(p):
        number = as_number("p", p)
        summed = _in_sums(np.asarray(number), call)
        if np.isnan(summed) or abs(summed) < LEAST_EXPONENT or summed == -np.inf:
            raise ValueError(
                f"p must be a number of at least {LEAST_EXPONENT} or at most "
                f"-{LEAST_EXPONENT}, or inf (near 0, take the geometric mean, exp of "
                f"the average of log(x)); got p={p}"
            )
        return call
    _check_exponents(p, call)
    return call._replace(arrays=as_weights("p", p, call, per_output=True))


def _check_exponents(p: Any, call: Call, positive: bool = False) -> None:
    """Refuse an array of NumPy with an exponent near 0, or infinite."""
    if not _is_known_array(p):
        return
    summed = _in_sums(p, call)
    size, name = (summed, "p") if positive else (abs(summed), "|p|")
    if not (np.isfinite(summed) & (size >= LEAST_EXPONENT)).all():
        raise ValueError(
            f"p must be finite in an array, and {name} at least {LEAST_EXPONENT}; got "
            f"p={p}"
        )


def _is_known_array(value: Any) -> bool:
    """Whether a value is an array of NumPy of real numbers, which can be checked."""
    return isinstance(value, np.ndarray) and kind_of(value.dtype) in REAL


def _in_sums(numbers: np.ndarray, call: Call) -> np.ndarray:
    """The numbers in the dtype of sums, where they may become 0 or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtypes.summed(dtypes.averaged(call.x.dtype)))


def _is_number(value: Any) -> bool:
    """Whether a value is one real number of Python or NumPy, not an array."""
    kinds = int, float, np.integer, np.floating
    return isinstance(value, kinds) and not isinstance(value, bool)


def as_scale(scale: Any, call: Call, is_divisor: bool = False) -> jax.Array | None:
    """`scale` as an array that broadcasts to `x`; `None` for 1."""
    other = " other than 0" if is_divisor else ""
    if _is_number(scale):
        number = _in_sums(np.asarray(scale), call)
        if not np.isfinite(number) or (is_divisor and number == 0):
            raise ValueError(
                f"scale must be a finite number{other} in {number.dtype}, or an "
                f"array; got scale={scale}"
            )
        if scale == 1:
            return None
        scale = number
    elif _is_known_array(scale):
        summed = _in_sums(scale, call)
        is_right = np.isfinite(summed) & ((summed != 0) | (not is_divisor))
        if not is_right.all():
            raise ValueError(f"scale must have finite numbers{other}; got {scale}")
    return as_weights("scale", scale, call, per_output=is_divisor)


def as_bias(bias: Any, call: Call) -> jax.Array:
    """`bias` as an array with a number for each place of a window."""
    over, given = call.over, as_given("bias", bias)
    if not isinstance(over, Window) or over.is_symbolic or call.implementation:
        raise NotImplementedError(
            "bias must be None but for windows over known sizes, with "
            f"implementation=None; got {type(over).__name__} and "
            f"implementation={call.implementation!r}"
        )
    if not jnp.issubdtype(given.dtype, jnp.floating):
        raise TypeError(f"bias must be floating; got bias.dtype={given.dtype}")
    shapes = [over.lengths]
    if over.axes[-1] != call.x.ndim - 1:
        shapes.append((*over.lengths, call.x.shape[-1]))
    if given.shape not in shapes:
        raise ValueError(
            f"bias must have the shape of the window, {shapes[0]}, or one axis more "
            "for channels, if these are the last axis and not pooled; got "
            f"bias.shape={given.shape} for x.shape={call.x.shape}"
        )
    return jnp.asarray(given)


def as_weights(
    name: str, value: Any, call: Call, per_output: bool = False
) -> jax.Array:
    """Real numbers as an array with the rank of `x`, before they are broadcast.

    If they are `per_output`, they are the same along each pooled axis.
    """
    x, given = call.x, as_given(name, value)
    if kind_of(given.dtype) not in REAL:
        raise TypeError(
            f"{name} must have real numbers; got {name}.dtype={given.dtype}"
        )
    shape = given.shape
    if len(shape) == 0 or shape == x.shape[-1:]:
        shape = (1,) * (x.ndim - len(shape)) + shape
    if len(shape) != x.ndim or any(
        m not in (1, n) for m, n in zip(shape, x.shape, strict=True)
    ):
        raise ValueError(
            f"{name} must be a number, have one for each channel of the last axis, or "
            f"have the rank of x and broadcast to x; got {name}.shape={given.shape} "
            f"for x.shape={x.shape}"
        )
    if per_output and any(shape[axis] != 1 for axis in call.over.axes):
        raise ValueError(
            f"{name} must have one number along each pooled axis; got "
            f"{name}.shape={given.shape} for x.shape={x.shape} and the pooled axes "
            f"{call.over.axes}"
        )
    if not jnp.issubdtype(given.dtype, jnp.floating):
        given = given.astype(FLOAT32)
    return jnp.asarray(given).reshape(shape)


def as_identity(init: Any, dtype: np.dtype) -> jax.Array | np.ndarray:
    """`init` as one number of the dtype, a NumPy scalar if it is concrete.

    It may be traced, and has no gradient. Raises if the dtype has another kind of
    number, or if it cannot represent a concrete value.
    """
    if isinstance(init, (bool, int, float, complex)):
        given: Any = np.asarray(init)
    else:
        given = as_given("init", init, "a number")
    if given.shape != ():
        raise ValueError(f"init must be a scalar; got init.shape={given.shape}")
    if kind_of(given.dtype) not in KINDS_HELD[kind_of(dtype)]:
        raise TypeError(
            f"init must be a number that converts to {spelled('x')}.dtype="
            f"{np.dtype(dtype)}; got init={init!r:.40} of dtype {given.dtype}"
        )
    if isinstance(given, jax.Array):
        given = given.astype(dtype)
        if isinstance(given, jax.core.Tracer):
            return jax.lax.stop_gradient(given)
        return np.asarray(jax.device_get(given))
    if kind_of(dtype) in REAL:
        return held("init", given.item(), dtype)
    return np.asarray(given, dtype)
