"""Checks of the arrays and numbers that users pass.

Each function checks one argument, before any array operation, and returns it as the
kernels accept it. Checks run inside `about`, which adds the shape of the input to the
message. Geometry (`window`, `axes`, ...) is checked in `jaxpool.geometry`.

A message has the form `<argument> must <rule>; got <argument>=<value> ...`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.dtypes import FLOAT32
from jaxpool.engines.plan import check_implementation
from jaxpool.geometry import axes
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.spelling import spelled
from jaxpool.geometry.window import Window, as_shape

Kinds: TypeAlias = Literal["real", "number", "any"]

INT32 = np.iinfo(np.int32)
# By jaxlib 0.10, which treats 1-bit integers as booleans.
UNKNOWN_TO_XLA = ("float6_e2m3fn", "float6_e3m2fn", "int1", "uint1")
# The error of a power mean grows as 1 / p: 4e-4 for this one.
LEAST_EXPONENT = 1e-3


def as_call(
    x: Any,
    resolve: Callable[..., Domain],
    geometry: tuple[Any, ...],
    where: Any,
    empty_value: Any,
    implementation: Any = None,
    *,
    kinds: Kinds = "real",
    averaged: bool = False,
) -> Call:
    """Check the arguments that all pools share."""
    x = as_array(x, kinds)
    with about(x.shape):
        over = resolve(x.shape, *geometry)
        check_implementation(implementation, over)
        mask = as_mask(where, x)
        dtype = dtypes.averaged(x.dtype) if averaged else x.dtype
        is_used = mask is not None or any(dim.may_miss for dim in over.dims)
        empty = as_empty_value(empty_value, dtype, is_used)
    return Call(x, over, mask, empty, implementation)


@contextmanager
def about(shape: Any, name: str = "x") -> Iterator[None]:
    """Add the shape of the input to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise  # a class of jax, for a traced array
        got = f"{spelled(name)}.shape={tuple(shape)}"
        raise type(error)(f"{error} for {got}") from None


def as_sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """`shape` as sizes of an array. Sizes may be symbolic."""
    if not isinstance(shape, (tuple, list)):
        return as_shape(shape)
    symbolic = [bool(is_symbolic_dim(size)) for size in shape]
    known = as_shape([0 if s else n for n, s in zip(shape, symbolic, strict=True)])
    each = zip(shape, known, symbolic, strict=True)
    return tuple(n if is_symbol else own for n, own, is_symbol in each)


def as_array(x: Any, kinds: Kinds = "real", name: str = "x") -> jax.Array:
    """`x` as a jax array with a dtype that the pool supports."""
    x, name = as_given(name, x), spelled(name)
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
                f"{name} must be real: complex numbers have no order, and only sum "
                f"and average pools accept them; {got}"
            )
    elif not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"{name} must have a number dtype; {got}")
    x = _kept_by_jax(name, x)
    return x if dtypes.has_zero(x.dtype) else _without_derivative(x)


@jax.custom_jvp
def _without_derivative(x: jax.Array) -> jax.Array:
    """`x`, with a dtype that cannot represent a gradient."""
    return x


@_without_derivative.defjvp
def _without_derivative_jvp(primals: tuple[jax.Array], _: Any) -> Any:
    raise TypeError(
        f"x must have a dtype that can represent 0 to be differentiated: pool "
        f"x.astype(jnp.bfloat16); got x.dtype={primals[0].dtype}"
    )


def _kept_by_jax(name: str, x: Any) -> jax.Array:
    """`x`, if jax does not wrap its integers (64 bits without `jax_enable_x64`)."""
    own = jax.dtypes.canonicalize_dtype(x.dtype)
    if isinstance(x, jax.Array):
        return x
    if jnp.issubdtype(own, jnp.integer) and own != x.dtype:
        bounds, info = known_range(x), jnp.iinfo(own)
        if bounds is not None and not info.min <= bounds[0] <= bounds[1] <= info.max:
            raise ValueError(
                f"{name} must fit in {own} unless jax_enable_x64 is set; got "
                f"values from {bounds[0]} to {bounds[1]} for {name}.shape={x.shape}"
            )
    return jnp.asarray(x)


def as_given(name: str, value: Any, what: str = "an array") -> Any:
    """An argument as a jax or NumPy array, with a dtype that jax supports."""
    if _is_wrapped(value):
        value = value.__jax_array__()
    name = spelled(name)
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(
            f"{name} must be {what}; got {type(value).__name__}: {value!r:.80}"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array: pass its data, and "
            "where=~np.ma.getmaskarray(x) if the pool accepts a mask; "
            f"got {name}.shape={value.shape}"
        )
    dtype = value.dtype
    if not isinstance(dtype, np.dtype):  # a random key
        return value
    if dtype.name in UNKNOWN_TO_XLA:
        raise TypeError(
            f"{name} must have a dtype that XLA supports: cast it, for example to "
            f"float8_e4m3 or int2; got {name}.dtype={dtype} for "
            f"{name}.shape={value.shape}"
        )
    # By type: other dtypes have the same letters, such as "G".
    if dtype.kind in "mM" or dtype.type in (np.longdouble, np.clongdouble):
        raise TypeError(
            f"{name} must have a dtype that jax supports (no extended precision, date "
            f"or duration): cast it; got {name}.dtype={dtype} "
            f"for {name}.shape={value.shape}"
        )
    if not isinstance(value, jax.Array):
        return value if dtype.isnative else value.astype(dtype.newbyteorder("="))
    if dtype == jax.dtypes.canonicalize_dtype(dtype):
        return value
    # Of 64 bits, made while `jax_enable_x64` was set: `jax.jit` would wrap integers.
    is_traced = isinstance(value, jax.core.Tracer)
    return (
        value.astype(jax.dtypes.canonicalize_dtype(dtype))
        if is_traced
        else np.asarray(value)
    )


def as_indices(
    indices: Any, shape: tuple[int, ...] | None = None, cells: int | None = None
) -> jax.Array:
    """`indices` as int32, with the given shape if there is one.

    Concrete indices must be -1 or the number of a cell. Traced indices outside int32
    become its smallest or largest number, which is not a cell.
    """
    given = as_given("indices", indices)
    if shape is not None and given.shape != shape:
        raise ValueError(
            f"indices must have the shape of {spelled('values')}; "
            f"got indices.shape={given.shape}"
        )
    most = int(INT32.max) if cells is None or is_symbolic(cells) else cells - 1
    return as_links("indices", given, 0, most, -1)


def as_links(
    name: str,
    value: Any,
    axes: int,
    most: int = int(INT32.max),
    least: int = int(INT32.min),
    size: int | None = None,
) -> jax.Array:
    """Integers as int32, with at least so many `axes`; concrete ones are checked.

    `size` is that of the last axis.
    """
    given = as_given(name, value)
    if not jnp.issubdtype(given.dtype, jnp.integer):
        raise TypeError(f"{name} must be integers; got {name}.dtype={given.dtype}")
    if given.ndim < axes:
        raise ValueError(
            f"{name} must have at least {axes} axes; got {name}.shape={given.shape}"
        )
    if size is not None and given.shape[-1] != size:
        raise ValueError(
            f"{name} must have one number for each cell of the axis; got "
            f"{name}.shape={given.shape} for an axis of {size}"
        )
    is_bounded = (least, most) != (INT32.min, INT32.max)
    bounds = known_range(given) if is_bounded else None
    if bounds is not None and not least <= bounds[0] <= bounds[1] <= most:
        cells = f"-1 or from 0 to {most}" if least == -1 else f"from {least} to {most}"
        raise ValueError(
            f"{name} must be {cells}; got {name} from {bounds[0]} to {bounds[1]}"
        )
    return _int32(given)


def _int32(numbers: Any) -> jax.Array:
    if not isinstance(numbers, jax.Array):
        if jnp.iinfo(numbers.dtype).max > INT32.max:
            numbers = numbers.clip(max(INT32.min, numbers.min(initial=0)), INT32.max)
        return jnp.asarray(numbers.astype(np.int32))
    if numbers.dtype == np.int32:
        return numbers
    is_traced = isinstance(numbers, jax.core.Tracer)
    return _as_int32(numbers) if is_traced else _as_int32_jitted(numbers)


def _as_int32(indices: jax.Array) -> jax.Array:
    """`indices` as int32; a number outside its range becomes the nearest in it."""
    if jnp.iinfo(indices.dtype).max > INT32.max:
        least = max(INT32.min, jnp.iinfo(indices.dtype).min)
        indices = jnp.clip(indices, least, INT32.max)
    return indices.astype(np.int32)


_as_int32_jitted = jax.jit(_as_int32)


def known_range(array: jax.Array | np.ndarray) -> tuple[Any, Any] | None:
    """The smallest and largest number of an array, or `None` if traced or empty.

    Inside `jax.jit` an array from outside is concrete too.
    """
    if isinstance(array, jax.core.Tracer) or is_symbolic(array.size) or not array.size:
        return None
    if not isinstance(array, jax.Array):
        return array.min().item(), array.max().item()
    with jax.ensure_compile_time_eval():
        least, most = np.asarray(_bounds(array))
    return least.item(), most.item()


@jax.jit
def _bounds(array: jax.Array) -> jax.Array:
    return jnp.stack([array.min(), array.max()])


def as_mask(where: Any, x: jax.Array) -> jax.Array | None:
    """`where` with the rank of `x`, before it is broadcast."""
    if where is None:
        return None
    mask = as_given("where", np.asarray(where) if isinstance(where, bool) else where)
    if mask.dtype != np.bool_:
        raise TypeError(
            f"where must be boolean; got where.dtype={mask.dtype} "
            f"with where.shape={mask.shape}"
        )
    if not dtypes.has_zero(x.dtype):
        raise TypeError(
            "where must be None for a dtype that cannot represent 0: pool "
            f"x.astype(jnp.bfloat16); got x.dtype={x.dtype}"
        )
    if mask.ndim == 0:
        mask = mask.reshape((1,) * x.ndim)
    if mask.ndim != x.ndim or any(
        m not in (1, n) for m, n in zip(mask.shape, x.shape, strict=True)
    ):
        raise ValueError(
            "where must have the rank of x, or be a scalar, and broadcast to x (a mask "
            "of batch and time needs an axis for the channels: where[..., None]); "
            f"got where.shape={mask.shape}"
        )
    return jnp.asarray(mask)


def as_empty_value(empty_value: Any, dtype: np.dtype, is_used: bool) -> np.ndarray:
    """`empty_value` in the dtype of the result.

    1 replaces an unused 0 in a dtype that cannot represent 0.
    """
    number = as_number("empty_value", empty_value)
    if number == 0 and not is_used and not dtypes.has_zero(dtype):
        return np.ones((), dtype)
    return _held("empty_value", number, dtype)


def _held(name: str, number: float, dtype: np.dtype) -> np.ndarray:
    """A number in a dtype that represents it: integers exactly, floats rounded."""
    if not jnp.issubdtype(dtype, jnp.integer):
        with np.errstate(all="ignore"):
            value = np.asarray(number, dtype)
        if not np.array_equal(np.isfinite(value), math.isfinite(number)) or (
            np.isnan(value) != math.isnan(number)
        ):
            raise ValueError(
                f"{name} must be a number that {np.dtype(dtype)} can represent; "
                f"got {name}={number}"
            )
    else:
        info = jnp.iinfo(dtype)
        held = math.isfinite(number) and int(info.min) <= number <= int(info.max)
        if not held or number != int(number):
            raise ValueError(
                f"{name} must be an integer that {np.dtype(dtype)} can represent; "
                f"got {name}={number}"
            )
    return np.asarray(number, dtype)


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
    is_learned = isinstance(p, jax.core.Tracer) or _is_wrapped(p)
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
        held = _in_sums(np.asarray(number), call)
        if np.isnan(held) or abs(held) < LEAST_EXPONENT or held == -np.inf:
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
    held = _in_sums(p, call)
    size, name = (held, "p") if positive else (abs(held), "|p|")
    if not (np.isfinite(held) & (size >= LEAST_EXPONENT)).all():
        raise ValueError(
            f"p must be finite in an array, and {name} at least {LEAST_EXPONENT}; got "
            f"p={p}"
        )


def _is_known_array(value: Any) -> bool:
    """Whether a value is an array of NumPy of real numbers, which can be checked."""
    return isinstance(value, np.ndarray) and _kind(value.dtype) in ("integer", "float")


def _in_sums(numbers: np.ndarray, call: Call) -> np.ndarray:
    """The numbers in the dtype of sums, where they may become 0 or infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return numbers.astype(dtypes.summed(dtypes.averaged(call.x.dtype)))


def _is_wrapped(value: Any) -> bool:
    """Whether a value holds an array, as `nnx.Param` does."""
    return not isinstance(value, jax.Array) and hasattr(type(value), "__jax_array__")


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
        held = _in_sums(scale, call)
        is_right = np.isfinite(held) & ((held != 0) | (not is_divisor))
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
    if _kind(given.dtype) not in ("integer", "float"):
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
    if _kind(given.dtype) not in _KINDS_HELD[_kind(dtype)]:
        raise TypeError(
            f"init must be a number that converts to {spelled('x')}.dtype="
            f"{np.dtype(dtype)}; got init={init!r:.40} of dtype {given.dtype}"
        )
    if isinstance(given, jax.Array):
        given = given.astype(dtype)
        if isinstance(given, jax.core.Tracer):
            return jax.lax.stop_gradient(given)
        return np.asarray(jax.device_get(given))
    if _kind(dtype) in ("integer", "float"):
        return _held("init", given.item(), dtype)
    return np.asarray(given, dtype)


_KINDS_HELD = {
    "bool": ("bool",),
    "integer": ("integer",),
    "float": ("integer", "float"),
    "complex": ("integer", "float", "complex"),
    "none": (),
}


def _kind(dtype: Any) -> str:
    """The kind of number that a dtype represents."""
    if jnp.issubdtype(dtype, np.timedelta64):  # NumPy says it is an integer
        return "none"
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, object)
    names = zip(_KINDS_HELD, kinds, strict=True)
    return next((name for name, kind in names if jnp.issubdtype(dtype, kind)), "none")


def check_flag(name: str, value: Any) -> None:
    """Raise unless the value is True or False."""
    if not isinstance(value, np.bool_):
        axes.check_flag(name, value)


def as_number(name: str, value: Any) -> float:
    """A real number as a Python number."""
    if isinstance(value, jax.core.Tracer):
        raise TypeError(
            f"{name} must be a Python number, {axes.NOT_TRACED}; "
            f"got {name}={value!r:.80}"
        )
    try:
        if isinstance(value, (jax.Array, np.ndarray, np.generic)):
            if value.shape != () or _kind(value.dtype) not in ("integer", "float"):
                raise TypeError
            value = value.item()
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError
        number: float = value if isinstance(value, int) else float(value)
        float(number)  # overflows if no float represents it
        return number
    except (TypeError, ValueError, OverflowError):
        raise TypeError(
            f"{name} must be a real number; got {name}={value!r:.80}"
        ) from None
