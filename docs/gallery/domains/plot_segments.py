"""
Segments
========

Cells with the same number are pooled together: :class:`jaxpool.segments`. Packed
sentences, nodes of graphs, and tokens of an image are segments.
"""

import jax.numpy as jnp
import numpy as np
from drawing import draw_reads, draw_signal, signal, steps
from matplotlib import pyplot as plt

import jaxpool

# %%
# The numbers may come in any order. A cell with a negative number is ignored. For
# sequences that follow one another, their lengths are enough.

ids = jnp.asarray([1, 0, 0, 2, 1, -1, 2, 2, 0, 1, 2, -1])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6))
draw_reads(left, jaxpool.segments(ids, 3, axis=0), 12, "By numbers, in any order")
packed = jaxpool.segments.from_lengths([3, 5, 2], axis=0)
draw_reads(right, packed, 12, "By lengths: 3, 5 and 2")
figure.suptitle("Segments: which cells each output reads")

# %%
# Five sequences of different lengths share one array, without padding.

lengths = [8, 17, 5, 20, 10]
over = jaxpool.segments.from_lengths(lengths, axis=0)
most, mean = jaxpool.aggregate(signal(), ("max", "avg"), over)
edges = np.cumsum([0, *lengths])
figure, ax = plt.subplots(figsize=(9, 3.8))
draw_signal(ax)
steps(ax, most, edges, label="maximum")
steps(ax, mean, edges, label="average")
for edge in edges[1:-1]:
    ax.axvline(edge - 0.5, color="0.8", linewidth=1, zorder=0)
ax.legend(ncols=3, loc="upper right")
ax.margins(y=0.25)
ax.set_title("Five packed sequences: one maximum and one average each")
