"""
Log-sum-exp and softmax
=======================

Two smooth maxima. Every cell gets a gradient, and large cells get most of it. A number,
``scale``, sets how close the result is to the maximum.
"""

from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()
windows, steps = jaxpool.windows(WINDOW, axes=(0, 1)), jaxpool.windows(STEP, axes=0)

# %%
# :class:`jaxpool.LogSumExp`: ``y = log(sum exp(scale x)) / scale``. The sum over more
# cells is larger, so ``y`` lies above the maximum. With ``mean=True`` the mean of the
# exponentials takes the place of their sum, and ``y`` lies below it.

by = jaxpool.LogSumExp(scale=10.0, mean=True)
compare(
    jaxpool.aggregate(photo, by, windows),
    jaxpool.aggregate(line, by, steps),
    "Log-sum-exp (mean), scale = 10: a maximum that noise moves less",
)

# %%
# :func:`jaxpool.softmax_pool`: ``y = sum w x`` with ``w = softmax(scale x)``. It is an
# average in which large cells have more weight.

compare(
    jaxpool.softmax_pool(photo, WINDOW, axes=(0, 1), scale=10.0),
    jaxpool.softmax_pool(line, STEP, axes=0, scale=10.0),
    "Softmax average, scale = 10: close to the maximum",
)

# %%
# The weights may come from somewhere else: ``logits`` is an array of the shape of the
# input, in a model the output of a layer. Here the logits prefer dark cells.

compare(
    jaxpool.softmax_pool(photo, WINDOW, axes=(0, 1), logits=-photo, scale=10.0),
    jaxpool.softmax_pool(line, STEP, axes=0, logits=-line, scale=10.0),
    "Softmax average with logits: here dark cells have the weight",
)
