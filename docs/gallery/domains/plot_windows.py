"""
Windows
=======

A window slides along the axis. Its size, the strides, the dilation and the padding say
which cells an output reads: :class:`jaxpool.windows`.
"""

import jax.numpy as jnp
from drawing import draw_reads, draw_signal, signal, steps
from matplotlib import pyplot as plt

import jaxpool

# %%
# Without ``strides``, windows touch. With a smaller stride they overlap. ``dilation``
# leaves cells out. ``"SAME"`` and ``"CAUSAL"`` add padding, which no output reads; a
# causal window reads no later cell.

figure, axes = plt.subplots(2, 2, figsize=(9, 6))
for ax, over in zip(
    axes.ravel(),
    [
        jaxpool.windows(3, axes=0),
        jaxpool.windows(3, 2, "SAME", axes=0),
        jaxpool.windows(3, 2, dilation=2, axes=0),
        jaxpool.windows(3, 2, "CAUSAL", axes=0),
    ],
    strict=True,
):
    draw_reads(ax, over, 12, str(over))
figure.suptitle("Windows: size, strides, dilation and padding")

# %%
# On the signal: windows of 6 cells that touch, and windows that overlap by 5 cells.

line = signal()
figure, ax = plt.subplots(figsize=(9, 3.8))
draw_signal(ax)
steps(ax, jaxpool.max_pool(line, 6, axes=0), jnp.arange(11) * 6, label="strides=None")
same = jaxpool.max_pool(line, 6, 1, "SAME", axes=0)
ax.plot(same, color="C1", label='strides=1, "SAME"')
ax.legend(ncols=3, loc="upper right")
ax.margins(y=0.25)
ax.set_title("Maximum over windows of 6 cells: 10 outputs, or 60")
