"""Averages of integers whose sums float32 does not hold: exact up to one rounding.

The sum of a window may need more bits than any integer that jax has. So each cell is
cut into digits of a few bits, which are added up apart. The digits of the sum go
through a long division, and what that leaves is the only fraction.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxpool.aggregations.dtypes import FLOAT32, INT32
from jaxpool.engines.faults import divide
from jaxpool.engines.numbers import Numbers
from jaxpool.geometry.sizes import is_symbolic

EXACT = 2**24  # float32 holds all integers up to here
DIGIT = 16  # bits of a digit, at most


def needs_digits(dtype: np.dtype, cells: int) -> bool:
    """Whether float32 may not hold the sum of so many integers."""
    if jnp.issubdtype(dtype, jnp.inexact) or is_symbolic(cells):
        return False
    info = jnp.iinfo(dtype)
    most = max(-int(info.min), int(info.max)) * cells
    return most > EXACT and _bits(_word(dtype), cells) > 0


def average(
    total: Callable[[jax.Array], jax.Array],
    x: jax.Array,
    cells: int,
    number: Numbers,
    divisor: float | None,
) -> jax.Array:
    """`total(x)`, the sum of up to `cells` integers, divided, in float32.

    `total` adds up exactly. The divisor is `number`, at most as large as `cells` and
    positive, or `divisor`.
    """
    word, most, sign = _word(x.dtype), cells, 1.0
    if divisor is not None:
        whole = int(abs(divisor)) if float(divisor).is_integer() else 1
        whole = whole if _bits(word, whole) > 0 else 1
        number, sign = np.full((1,) * x.ndim, whole), divisor / whole
        most = max(cells, whole)
    bits, width = _bits(word, most), jnp.iinfo(x.dtype).bits
    sums = [total(digit) for digit in _digits(x, word, bits)]
    digits, is_negative = _magnitude(sums, bits, width + cells.bit_length())
    quotients, rest = _quotients(digits, bits, number.astype(word))
    average = divide(rest.astype(FLOAT32), number.astype(FLOAT32))
    for place, quotient in enumerate(quotients):  # each of them exact
        average = average + quotient.astype(FLOAT32) * np.float32(2.0 ** (place * bits))
    average = jnp.where(is_negative, -average, average)
    return average if sign == 1 else divide(average, jnp.full_like(average, sign))


def _word(dtype: np.dtype) -> np.dtype:
    """The dtype of digits and their sums."""
    return np.dtype(np.int64) if jnp.iinfo(dtype).bits == 64 else INT32


def _bits(word: np.dtype, number: int) -> int:
    """How many bits a digit may have, so that words hold products with a number."""
    return min(DIGIT, 8 * word.itemsize - 2 - number.bit_length())


def _digits(x: jax.Array, word: np.dtype, bits: int) -> list[jax.Array]:
    """Integers in digits, the lowest one first; the last one has the sign."""
    width = jnp.iinfo(x.dtype).bits
    if width < 32:
        x = x.astype(word)
    digits, last = [], (width - 1) // bits
    for place in range(last + 1):
        digit = x >> np.asarray(place * bits, x.dtype)
        if place < last:
            digit = digit & np.asarray(2**bits - 1, x.dtype)
        digits.append(digit.astype(word))
    return digits


def _magnitude(
    sums: list[jax.Array], bits: int, width: int
) -> tuple[list[jax.Array], jax.Array]:
    """The digits of an absolute value of some bits, and whether it is negative."""
    mask, apart = (np.asarray(n, sums[0].dtype) for n in (2**bits - 1, bits))
    digits, carry = list[jax.Array](), jnp.zeros_like(sums[0])
    for place in range(-(-width // bits)):
        carry = sums[place] + carry if place < len(sums) else carry
        digits.append(carry & mask)
        carry = carry >> apart
    is_negative = carry < 0
    carry = is_negative.astype(carry.dtype)
    for place, digit in enumerate(digits):  # two's complement
        carry = jnp.where(is_negative, mask - digit, digit) + carry
        digits[place] = carry & mask
        carry = carry >> apart
    return digits, is_negative


def _quotients(
    digits: list[jax.Array], bits: int, number: Numbers
) -> tuple[list[jax.Array], jax.Array]:
    """The digits of a quotient, the lowest one first, and the remainder."""
    rest, quotients = jnp.zeros_like(digits[0]), list[jax.Array]()
    number = jnp.broadcast_to(number, rest.shape)
    for digit in reversed(digits):
        rest = (rest << np.asarray(bits, rest.dtype)) + digit
        quotients.append(jax.lax.div(rest, number))
        rest = jax.lax.rem(rest, number)
    return quotients[::-1], rest
