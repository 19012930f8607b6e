"""
Bins
====

You give the size of the output, and the library chooses the cells:
:class:`jaxpool.bins`, the adaptive pools and the fractional pools.
"""

import jax
from drawing import draw_reads, photograph, show
from matplotlib import pyplot as plt

import jaxpool

# %%
# Adaptive bins have nearly equal lengths. They may overlap.

figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for ax, size in zip(axes, (10, 12), strict=True):
    draw_reads(ax, jaxpool.bins(4, axes=0), size, f"{size} cells, 4 bins")
figure.suptitle("Adaptive bins: overlapping where the size does not divide")

# %%
# Photographs of any size become the same number of cells.

photo = photograph()
figure, axes = plt.subplots(2, 3, figsize=(8, 5.6))
crops = photo, photo[:, 100:300], photo[120:280]
for above, below, crop in zip(*axes, crops, strict=True):
    height, width = crop.shape
    show(above, crop, f"{height} x {width}")
    pooled = jaxpool.adaptive_avg_pool(crop, (14, 14), axes=(0, 1))
    show(below, pooled, "14 x 14")
figure.suptitle("Adaptive average: three sizes in, one size out")

# %%
# Fractional pools draw the bins at random, so that a size may shrink by a factor such
# as 1.6. A training step draws new bins.

figure, axes = plt.subplots(1, 3, figsize=(9, 3.4))
for seed, ax in enumerate(axes):
    pooled = jaxpool.fractional_max_pool(
        photo, (2, 2), (240, 240), axes=(0, 1), key=jax.random.key(seed)
    )
    show(ax, pooled[60:120, 70:130], f"key {seed}")
figure.suptitle("Fractional maximum, a detail: each key draws other bins")
