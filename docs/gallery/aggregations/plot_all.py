"""
All aggregations at a glance
============================

One photograph of 384 x 384 pixels, eleven aggregations over the same windows of 8 x 8
pixels. The pages after this one show each of them, with its formula.
"""

import jax.numpy as jnp
from drawing import WINDOW, photograph, show
from matplotlib import pyplot as plt

import jaxpool

# %%
# :func:`jaxpool.aggregate` has all of them. A sum looks like an average, and a norm
# like a power mean, in other units.

photo, over = photograph(), jaxpool.windows(WINDOW, axes=(0, 1))
most, least = jaxpool.aggregate(photo, ("max", "min"), over)
pooled = {
    "Max": most,
    "Average": jaxpool.aggregate(photo, "avg", over),
    "Min": least,
    "Softmax, scale 10": jaxpool.aggregate(photo, jaxpool.Softmax(scale=10.0), over),
    "LogSumExp, scale 10": jaxpool.aggregate(
        photo, jaxpool.LogSumExp(scale=10.0, mean=True), over
    ),
    "PowerMean, p = 3": jaxpool.aggregate(photo, jaxpool.PowerMean(3.0, 1e-6), over),
    "TopKMean, k = 3": jaxpool.aggregate(photo, jaxpool.TopKMean(3), over),
    "Median": jaxpool.aggregate(photo, jaxpool.Median(), over),
    "Quantile 0.25": jaxpool.aggregate(photo, jaxpool.Quantile(0.25), over),
    "StandardDeviation": jaxpool.aggregate(photo, jaxpool.StandardDeviation(), over),
    "Max minus Min": most - least,
}

figure, axes = plt.subplots(3, 4, figsize=(10, 8.2))
show(axes[0, 0], photo, "Photograph")
for ax, (name, image) in zip(axes.ravel()[1:], pooled.items(), strict=True):
    spread = name in ("StandardDeviation", "Max minus Min")
    show(ax, image, name, (0, jnp.max(image)) if spread else (0, 1))
figure.suptitle("One photograph, windows of 8 x 8, eleven aggregations")
