"""
Variance and standard deviation
===============================

They say how different the cells of a window are: where the photograph has texture, and
where the signal changes.
"""

from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()

# %%
# :func:`jaxpool.var_pool`: ``y = sum (x - mean)^2 / n``. Its unit is the square of the
# unit of ``x``.

compare(
    jaxpool.var_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.var_pool(line, STEP, axes=0),
    "Variance: bright where the photograph has edges, black in the sky",
    limits=None,
)

# %%
# :func:`jaxpool.std_pool`: the root of the variance, in the unit of ``x``. Together
# with the average it is statistics pooling, which networks for speakers use.

compare(
    jaxpool.std_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.std_pool(line, STEP, axes=0),
    "Standard deviation: the same edges, in the unit of the photograph",
    limits=None,
)
