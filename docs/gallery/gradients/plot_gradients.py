"""
Where the gradient goes
=======================

The gradient of a pool says which cells learn from an output. The library computes it,
here for one window of eight cells.
"""

import jax
import jax.numpy as jnp
from drawing import BLUE, GRAY, ORANGE
from matplotlib import pyplot as plt

import jaxpool

# %%
# Two cells are equal and largest. The maximum gives all of the gradient to the first of
# them. The average gives each cell an eighth. A softmax average prefers large cells; it
# takes from small ones, because a larger weight elsewhere is a smaller one here. A norm
# gives each cell its part of the norm. The median gives to the two cells in the middle.

cells = jnp.asarray([0.2, 0.5, 0.9, 0.4, 0.9, 0.1, 0.6, 0.3])
pools = {
    "Maximum": jaxpool.Max(),
    "Average": jaxpool.Average(),
    "Softmax, scale 5": jaxpool.Softmax(scale=5.0),
    "Log-sum-exp, scale 5": jaxpool.LogSumExp(scale=5.0),
    "2-norm": jaxpool.Lp(2.0),
    "Median": jaxpool.Median(),
    "Mean of the 3 largest": jaxpool.TopKMean(3),
}
figure, axes = plt.subplots(2, 4, figsize=(11, 5), sharex=True)
axes = axes.ravel()
axes[0].bar(range(8), cells, color=GRAY)
axes[0].set(title="The cells", ylabel="value")
for ax, (name, by) in zip(axes[1:], pools.items(), strict=True):
    share = jax.grad(lambda x, by=by: jaxpool.aggregate(x, by, jaxpool.whole(0)))(cells)
    ax.bar(range(8), share, color=[ORANGE if part < 0 else BLUE for part in share])
    ax.axhline(0, color="0.5", linewidth=1)
    ax.set(title=name, ylim=(-0.3, 1.1), xticks=range(8))
axes[4].set_ylabel("gradient")
for ax in axes[4:]:
    ax.set_xlabel("cell")
figure.suptitle("One window: how much of the gradient each cell gets")

# %%
# In two dimensions, with 3x3 windows at stride 2: windows overlap, and a cell gets the
# sum over the windows that read it. A cell that wins several windows learns most.

image = jax.random.uniform(jax.random.key(3), (9, 9))
figure, axes = plt.subplots(1, 4, figsize=(11, 3.4))
axes[0].imshow(image, cmap="cividis")
axes[0].set_title("The cells")
over = jaxpool.windows((3, 3), 2, axes=(0, 1))
for ax, (name, by) in zip(axes[1:], list(pools.items())[:3], strict=True):
    share = jax.grad(lambda x, by=by: jaxpool.aggregate(x, by, over).sum())(image)
    shown = ax.imshow(share, cmap="RdBu", vmin=-2, vmax=2)
    ax.set_title(name)
for ax in axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
figure.colorbar(shown, ax=axes[1:], label="gradient", shrink=0.8, extend="max")
figure.suptitle("Windows of 3x3 at stride 2: the sum over all windows")
