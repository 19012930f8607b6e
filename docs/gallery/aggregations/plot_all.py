"""
All aggregations at a glance
============================

One photograph of 384 x 384 pixels, fourteen aggregations over the same windows of 8 x 8
pixels. The pages after this one show each of them, with its formula.
"""

import jax.numpy as jnp
from drawing import WINDOW, photograph, show
from matplotlib import pyplot as plt

from jaxpool import (
    Average,
    LogSumExp,
    Lp,
    Max,
    Median,
    Min,
    Monoid,
    PowerMean,
    Quantile,
    Softmax,
    StandardDeviation,
    Sum,
    TopKMean,
    Variance,
    aggregate,
    windows,
)

# %%
# :func:`jaxpool.aggregate` has all of them. A sum looks like an average, and a norm
# like a power mean, in other units. The monoid is one of many: pairs of the largest and
# the smallest cell; it shows their difference.


def extremes(a, b):
    """Return the larger and the smaller number of two pairs."""
    return jnp.maximum(a[0], b[0]), jnp.minimum(a[1], b[1])


photo, over = photograph(), windows(WINDOW, axes=(0, 1))
most, least = aggregate((photo, photo), Monoid((-jnp.inf, jnp.inf), extremes), over)
aggregations = {
    "Max": Max(),
    "Average": Average(),
    "Min": Min(),
    "Softmax, scale 10": Softmax(scale=10.0),
    "LogSumExp, scale 10": LogSumExp(scale=10.0, mean=True),
    "PowerMean, p = 3": PowerMean(3.0, 1e-6),
    "TopKMean, k = 3": TopKMean(3),
    "Median": Median(),
    "Quantile 0.25": Quantile(0.25),
    "Sum": Sum(),
    "Lp, p = 3": Lp(3.0),
    "Variance": Variance(),
    "StandardDeviation": StandardDeviation(),
}
pooled = {name: aggregate(photo, by, over) for name, by in aggregations.items()}
pooled["Monoid: Max - Min"] = most - least
other_units = ("Sum", "Lp, p = 3", "Variance", "StandardDeviation", "Monoid")

figure, axes = plt.subplots(3, 5, figsize=(12, 7.9))
show(axes[0, 0], photo, "Photograph")
for ax, (name, image) in zip(axes.ravel()[1:], pooled.items(), strict=True):
    show(ax, image, name, (0, jnp.max(image) if name.startswith(other_units) else 1))
figure.suptitle("One photograph, windows of 8 x 8, fourteen aggregations")
