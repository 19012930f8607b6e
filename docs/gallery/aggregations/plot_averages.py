"""
Average and sum
===============

Every cell of the window counts. An average smooths: noise gets smaller, and so does a
single peak.
"""

import jax.numpy as jnp
from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()

# %%
# :func:`jaxpool.avg_pool`: ``y = sum x / n``. Each of the ``n`` cells gets the same
# part of the gradient, ``1 / n``.

compare(
    jaxpool.avg_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.avg_pool(line, STEP, axes=0),
    "Average: a smoother picture, and the peak is low",
)

# %%
# :class:`jaxpool.Average` takes weights: ``y = sum w x / sum w``. Here the dark cells
# of the photograph have more weight, and the wrong cell of the signal has none.

wrong = line < 0
compare(
    jaxpool.aggregate(
        photo,
        jaxpool.Average(weights=(1 - photo) ** 4),
        jaxpool.windows(WINDOW, axes=(0, 1)),
    ),
    jaxpool.aggregate(
        line,
        jaxpool.Average(weights=jnp.where(wrong, 0.0, 1.0)),
        jaxpool.windows(STEP, axes=0),
    ),
    "Weighted average: dark cells count more; the wrong cell does not count",
)

# %%
# :func:`jaxpool.sum_pool`: ``y = sum x``. The same picture in other units: the average
# times the number of cells. Use it to count.

compare(
    jaxpool.sum_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.sum_pool(line, STEP, axes=0),
    "Sum: the average times the number of cells",
    limits=(0, WINDOW**2),
)
