"""
Whole axes
==========

One output reads all cells: :class:`jaxpool.whole`, and the functions whose names begin
with ``global_``. The result has one number for each channel, whatever the size of the
input.
"""

from drawing import draw_reads, draw_signal, signal
from matplotlib import pyplot as plt

import jaxpool

line, over = signal(), jaxpool.whole(0)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), width_ratios=(1, 1.6))
draw_reads(left, over, 12, "One output reads all cells")
draw_signal(right)
by = "max", jaxpool.Quantile(0.9), "avg", "min"
for color, name, value in zip(
    ["C0", "C1", "C2", "C3"],
    ["maximum", "quantile 0.9", "average", "minimum"],
    jaxpool.aggregate(line, by, over),
    strict=True,
):
    right.axhline(value, color=color, label=f"{name} {value:.2f}")
right.legend(ncols=2, loc="upper right")
right.set_ylim(-0.6, 2.3)
right.set_title("60 cells become one number")
