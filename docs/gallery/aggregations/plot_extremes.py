"""
Maximum and minimum
===================

The maximum of a window is its largest cell, the minimum its smallest one. Both are
cells of the input. One cell decides: the other cells may change without an effect.
"""

from drawing import STEP, WINDOW, compare, photograph, signal

import jaxpool

photo, line = photograph(), signal()

# %%
# :func:`jaxpool.max_pool`: ``y = max x``. Bright details grow, dark ones disappear. The
# gradient goes to the largest cell, or to the first one of several.

compare(
    jaxpool.max_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.max_pool(line, STEP, axes=0),
    "Maximum: bright details grow, and the peak survives",
)

# %%
# :func:`jaxpool.min_pool`: ``y = min x``. Dark details grow. The wrong cell, number 45,
# decides the result of its window.

compare(
    jaxpool.min_pool(photo, WINDOW, axes=(0, 1)),
    jaxpool.min_pool(line, STEP, axes=0),
    "Minimum: dark details grow, and the wrong cell decides",
)
