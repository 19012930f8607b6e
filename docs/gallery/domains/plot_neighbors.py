"""
Neighbors
=========

Each output names its cells: :class:`jaxpool.neighbors`. So points of a cloud are pooled
over their nearest neighbors, and nodes of a graph over the nodes next to them.
"""

import jax.numpy as jnp
import numpy as np
from drawing import draw_reads
from matplotlib import pyplot as plt

import jaxpool

# %%
# Row ``o`` of the indices has the cells of output ``o``; a negative number names none.

indices = np.asarray([[0, 1, -1], [0, 1, 2], [1, 2, 5], [8, 10, 11]])
figure, ax = plt.subplots(figsize=(6, 2.6))
draw_reads(ax, jaxpool.neighbors(indices, axis=0), 12, "Neighbors: indices per output")

# %%
# 300 points with a noisy value each. Each point gets the median of its 12 nearest
# neighbors, and itself is one of them.

random = np.random.default_rng(0)
points = random.uniform(-3, 3, size=(300, 2))
values = np.sin(points[:, 0]) * np.cos(points[:, 1]) + random.normal(0, 0.4, 300)
distance = np.linalg.norm(points[:, None] - points, axis=-1)
nearest = np.argsort(distance, axis=1)[:, :12]
over = jaxpool.neighbors(nearest, axis=0)
smooth = jaxpool.aggregate(jnp.asarray(values), jaxpool.Median(), over)

figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2))
for ax, shown, title in zip(
    axes, (values, smooth), ("Noisy values", "Median of 12 neighbors"), strict=True
):
    dots = ax.scatter(*points.T, c=shown, cmap="cividis", vmin=-1, vmax=1, s=40)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
figure.colorbar(dots, ax=axes, label="value", shrink=0.8)
figure.suptitle("Points of a cloud, pooled over their neighbors")
