"""
Any associative operation
=========================

:func:`jaxpool.pool` takes the operation from you: a function of two cells and its
neutral value. Cells may be tuples of numbers.
"""

import jax.numpy as jnp
from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()


def extremes(a, b):
    """Return the larger and the smaller number of two pairs."""
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])


def spread(x, window, axes):
    """Return the difference of the largest and the smallest cell."""
    most, least = jaxpool.pool((x, x), (-jnp.inf, jnp.inf), extremes, window, axes=axes)
    return most - least


# %%
# Each cell is a pair. The first numbers are combined by a maximum, the second ones by a
# minimum, in one pass. Their difference is the range of the window.

compare(
    spread(photo, WINDOW, (0, 1)),
    spread(line, STEP, 0),
    "Range, maximum minus minimum: edges are bright",
)
