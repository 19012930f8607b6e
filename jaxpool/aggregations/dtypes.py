"""In which dtype each reduction computes, and in which it answers."""

import jax.numpy as jnp
import numpy as np

from jaxpool.geometry.sizes import is_symbolic

FLOAT32 = np.dtype(np.float32)
INT32 = np.dtype(np.int32)


def averaged(dtype: np.dtype) -> np.dtype:
    """The dtype of an average or a norm."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else FLOAT32


def has_zero(dtype: np.dtype) -> bool:
    """Whether a dtype holds 0; float8_e8m0fnu, of powers of two, does not."""
    return bool(np.asarray(0, dtype) == 0)


def infinite(dtype: np.dtype) -> np.dtype:
    """A dtype with the same order that has infinities, if a float, and arithmetic."""
    if jnp.issubdtype(dtype, jnp.floating):
        return dtype if dtype.itemsize > 1 else FLOAT32
    if jnp.iinfo(dtype).bits >= 8:
        return dtype
    return np.dtype(np.int8 if jnp.issubdtype(dtype, jnp.signedinteger) else np.uint8)


def ordered(dtype: np.dtype) -> np.dtype:
    """The same, with arithmetic that XLA:CPU vectorises."""
    wide = infinite(dtype)
    return FLOAT32 if jnp.issubdtype(wide, jnp.floating) and wide.itemsize < 4 else wide


def summed(dtype: np.dtype) -> np.dtype:
    """The dtype to accumulate a sum in: at least 32 bits."""
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype if dtype.itemsize >= 4 else FLOAT32
    if jnp.iinfo(dtype).bits >= 32:
        return dtype
    return INT32 if jnp.issubdtype(dtype, jnp.signedinteger) else np.dtype(np.uint32)


def averaging(dtype: np.dtype, cells: int) -> np.dtype:
    """The dtype to accumulate an average in, where no digits are needed.

    Exact for integers where 32 bits allow.
    """
    if jnp.issubdtype(dtype, jnp.inexact):
        return summed(dtype)
    info = jnp.iinfo(dtype)
    if is_symbolic(cells):
        return FLOAT32
    largest = max(-int(info.min), int(info.max)) * cells
    return INT32 if largest <= np.iinfo(INT32).max else FLOAT32
