"""Numbers along an axis: constants if it is short, else computed by the program.

A constant as long as an axis would be in the text of the program, and in the memory of
whoever compiles it.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.geometry.window import Numbers as Numbers

LONG = 1024
_DIGIT = 256


def numbers(count: int) -> Numbers:
    """0, 1, and so on: a NumPy array of int64, or of int32 computed by the program."""
    return np.arange(count) if count <= LONG else lax.iota(np.int32, count)


def is_known(array: Numbers) -> bool:
    """Whether numbers are known when tracing."""
    return isinstance(array, np.ndarray)


def module_of(array: Numbers) -> Any:
    """`numpy` for a constant, else `jax.numpy`."""
    return np if is_known(array) else jnp


def divided(count: int, factor: int, plus: int, by: int) -> tuple[Numbers, Numbers]:
    """`(o * factor + plus) // by` for `o` from 0 to `count`, and the remainders.

    In int32, if the quotients are; the products need not be. For long axes digit by
    digit of `o`: quotients and remainders add up.
    """
    if count <= max(LONG, _DIGIT):
        pairs = [divmod(o * factor + plus, by) for o in range(count)]
        known = np.asarray(pairs, np.int32)
        return known[:, 0], known[:, 1]
    digits = divided(_DIGIT, factor, 0, by)
    rows = divided(-(-count // _DIGIT), factor * _DIGIT, plus, by)
    row, rest = (jnp.asarray(array, np.int32)[:, None] for array in rows)
    more, other = (jnp.asarray(array, np.int32)[None] for array in digits)
    # The sum of two remainders may not fit.
    carries = rest >= by - other
    quotients = row + more + carries.astype(np.int32)
    rests = jnp.where(carries, rest - (by - other), rest + other)
    return quotients.reshape(-1)[:count], rests.reshape(-1)[:count]
