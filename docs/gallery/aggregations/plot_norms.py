"""
Norm and power mean
===================

Both are made of powers of the absolute values. The exponent ``p`` says how much the
large cells count.
"""

from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()

# %%
# :func:`jaxpool.lp_pool`: ``y = (sum |x|^p)^(1/p)``. With ``p=1`` it is the sum of the
# absolute values, with ``p=inf`` the largest one. Here ``p=2``. The sign is lost.

compare(
    jaxpool.lp_pool(photo, WINDOW, axes=(0, 1), p=2),
    jaxpool.lp_pool(line, STEP, axes=0, p=2),
    "2-norm: it grows with the window, and a negative cell counts as positive",
    limits=(0, WINDOW),
)

# %%
# :func:`jaxpool.power_mean_pool`: ``y = (sum |x|^p / n)^(1/p)``, between the average
# and the maximum of the absolute values. With ``eps`` it is GeM, where ``max(x, eps)``
# takes the place of ``|x|``. Models for retrieval learn ``p``; it starts at 3.

compare(
    jaxpool.power_mean_pool(photo, WINDOW, axes=(0, 1), p=3.0, eps=1e-6),
    jaxpool.power_mean_pool(line, STEP, axes=0, p=3.0, eps=1e-6),
    "Power mean, p = 3: between average and maximum",
)
