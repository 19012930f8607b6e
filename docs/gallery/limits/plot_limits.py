"""
From minimum to average to maximum
==================================

The scale of a softmax average goes from -inf to inf: minimum, average, maximum. The
exponent of a power mean goes from 1 to inf: average, maximum. So a model that learns
these numbers learns which pool it needs.
"""

import jax
import jax.numpy as jnp
import numpy as np
from drawing import WINDOW, photograph, show, signal
from matplotlib import pyplot as plt

import jaxpool

# %%
# All numbers come from the 60 cells of the signal, made positive.

line, over = abs(signal()), jaxpool.whole(0)
least, mean, most = jaxpool.aggregate(line, ("min", "avg", "max"), over)


@jax.jit
@jax.vmap
def softmax(scale):
    """Return the softmax average of the signal."""
    return jaxpool.aggregate(line, jaxpool.Softmax(scale=scale), over)


@jax.jit
@jax.vmap
def power_mean(p):
    """Return the power mean of the signal."""
    return jaxpool.aggregate(line, jaxpool.PowerMean(p), over)


figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4), sharey=True)
scales = jnp.asarray(np.sinh(np.linspace(-7, 7, 81)), jnp.float32)
left.plot(scales, softmax(scales))
left.set_xscale("symlog")
left.set(xlabel="scale (logarithmic on both sides)", ylabel="result")
left.set_xticks([-100, -1, 1, 100])
left.set_title("Softmax average")
exponents = jnp.geomspace(1.0, 1000, 61)
right.plot(exponents, power_mean(exponents), color="C1")
right.set_xscale("log")
right.set(xlabel="p (logarithmic)", title="Power mean")
for ax in (left, right):
    for value, name in ((least, "minimum"), (mean, "average"), (most, "maximum")):
        ax.axhline(value, color="0.5", linestyle=":", linewidth=1.5)
        ax.annotate(name, (1, value), xycoords=("axes fraction", "data"), va="bottom",
                    ha="right", color="0.3")  # fmt: skip
figure.suptitle("Two numbers that run through the pools")

# %%
# The same on the photograph.

photo = photograph()
figure, axes = plt.subplots(1, 5, figsize=(12, 3))
for ax, scale in zip(axes, (-1000.0, -10.0, 0.0, 10.0, 1000.0), strict=True):
    pooled = jaxpool.softmax_pool(photo, WINDOW, axes=(0, 1), scale=scale)
    name = {-1000: "minimum", 0: "average", 1000: "maximum"}.get(int(scale), "")
    show(ax, pooled, f"scale {scale:g}\n{name}")
figure.suptitle("Softmax average: from minimum to maximum")
