"""Checks of the arrays and numbers that users pass.

Each function checks one argument, before any array operation, and returns it as the
kernels accept it. Checks run inside `about`, which adds the shape of the input to the
message. Geometry (`window`, `axes`, ...) is checked in `jaxpool.geometry`.

A message has the form `<argument> must <rule>; got <argument>=<value> ...`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.call import Call
from jaxpool.engines.plan import check_implementation
from jaxpool.geometry import axes
from jaxpool.geometry.axes import as_shape
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.spelling import spelled

Kinds: TypeAlias = Literal["real", "number", "any"]

INT32 = np.iinfo(np.int32)
# An array of up to so many numbers is read to find the largest. On a CPU that takes 8
# us for 65536 numbers, and a program takes 94. On a GPU it was not measured.
READ_DIRECTLY = 2**16
# By jaxlib 0.10, which treats 1-bit integers as booleans.
UNKNOWN_TO_XLA = ("float6_e2m3fn", "float6_e3m2fn", "int1", "uint1")


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
    if is_wrapped(value):
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
    if _is_unknown_to_xla(dtype):
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
    own = jax.dtypes.canonicalize_dtype(dtype)
    if dtype == own:
        return value
    # Of 64 bits, made while `jax_enable_x64` was set: `jax.jit` would wrap integers.
    is_traced = isinstance(value, jax.core.Tracer)
    return value.astype(own) if is_traced else np.asarray(value)


@cache  # a dtype takes 5 us to make its name
def _is_unknown_to_xla(dtype: np.dtype) -> bool:
    return dtype.name in UNKNOWN_TO_XLA


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
        info = jnp.iinfo(numbers.dtype)
        if info.max > INT32.max:
            numbers = numbers.clip(max(INT32.min, info.min), INT32.max)
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
    if isinstance(array, jax.Array) and not _is_read(array):
        with jax.ensure_compile_time_eval():
            array = _bounds(array)
    numbers = np.asarray(array)
    return numbers.min().item(), numbers.max().item()


def _is_read(array: jax.Array) -> bool:
    """Whether to read an array takes less time than a program for its bounds."""
    return array.size <= READ_DIRECTLY and array.is_fully_addressable


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
    return held("empty_value", number, dtype)


def held(name: str, number: float, dtype: np.dtype) -> np.ndarray:
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
        is_held = math.isfinite(number) and int(info.min) <= number <= int(info.max)
        if not is_held or number != int(number):
            raise ValueError(
                f"{name} must be an integer that {np.dtype(dtype)} can represent; "
                f"got {name}={number}"
            )
    return np.asarray(number, dtype)


REAL = "integer", "float"
KINDS_HELD = {
    "bool": ("bool",),
    "integer": ("integer",),
    "float": ("integer", "float"),
    "complex": ("integer", "float", "complex"),
    "none": (),
}


def kind_of(dtype: Any) -> str:
    """The kind of number that a dtype represents."""
    if jnp.issubdtype(dtype, np.timedelta64):  # NumPy says it is an integer
        return "none"
    kinds = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating, object)
    names = zip(KINDS_HELD, kinds, strict=True)
    return next((name for name, kind in names if jnp.issubdtype(dtype, kind)), "none")


def is_wrapped(value: Any) -> bool:
    """Whether a value holds an array, as `nnx.Param` does."""
    return not isinstance(value, jax.Array) and hasattr(type(value), "__jax_array__")


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
            if value.shape != () or kind_of(value.dtype) not in REAL:
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
