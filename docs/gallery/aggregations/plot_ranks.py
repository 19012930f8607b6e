"""
Median, quantile and mean of the largest cells
==============================================

The cells of a window are sorted, and some of them are taken by their rank.
"""

from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()
windows, steps = jaxpool.windows(WINDOW, axes=(0, 1)), jaxpool.windows(STEP, axes=0)

# %%
# :func:`jaxpool.median_pool`: the cell in the middle. Neither the peak nor the wrong
# cell of the signal changes it much.

compare(
    jaxpool.median_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.median_pool(line, STEP, axes=0),
    "Median: sharp edges, and neither peak nor wrong cell is left",
)

# %%
# :class:`jaxpool.Quantile`: ``q=0`` is the minimum, ``q=0.5`` the median, ``q=1`` the
# maximum. Here ``q=0.25``: a quarter of the cells is darker.

by = jaxpool.Quantile(0.25)
compare(
    jaxpool.aggregate(photo, by, windows),
    jaxpool.aggregate(line, by, steps),
    "Quantile 0.25: dark like a minimum, but one cell does not decide",
)

# %%
# :class:`jaxpool.TopKMean`: the mean of the ``k`` largest cells. ``k=1`` is the
# maximum.

by = jaxpool.TopKMean(3)
compare(
    jaxpool.aggregate(photo, by, windows),
    jaxpool.aggregate(line, by, steps),
    "Mean of the 3 largest cells: a maximum that needs three witnesses",
)
