"""The photograph, the signal and the drawings that pages of the site share."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from sklearn.datasets import load_sample_image

import jaxpool

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "0.6"
WINDOW, STEP = 8, 6  # of the photograph, in pixels; of the signal, in cells


@cache
def photograph():
    """Return a pagoda in gray, `[384, 384]`, from 0 (black) to 1 (white).

    It is part of scikit-learn: "china.jpg" by danielbuechele, CC BY 2.0.
    """
    color = load_sample_image("china.jpg")[:384, 16:400] / np.float32(255)
    return jnp.asarray(color.mean(-1))


@cache
def signal():
    """Return a wave of 60 cells with noise, one peak and one wrong cell."""
    noise = 0.06 * np.random.default_rng(0).normal(size=60)
    wave = 0.45 + 0.25 * np.sin(np.arange(60) / 5) + noise
    wave[[14, 45]] = 1.2, -0.4
    return jnp.asarray(wave, jnp.float32)


def compare(image, line, title, *, limits=(0, 1)):
    """Draw a photograph and a signal, both also pooled.

    `limits` are the values of black and white; without them, white is the largest.
    """
    low, high = limits or (0, float(image.max()))
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.7), width_ratios=(1, 1, 1.4))
    show(axes[0], photograph(), "Photograph, 384 x 384")
    show(axes[1], image, "Pooled, {} x {}".format(*image.shape), (low, high))
    axes[1].set_xlabel(f"black is {low:g}, white is {high:.2g}")
    draw_signal(axes[2])
    steps(axes[2], line, np.arange(len(line) + 1) * STEP, label="pooled")
    axes[2].set_title(f"Signal, windows of {STEP}")
    axes[2].legend(loc="upper right", ncols=2)
    axes[2].margins(y=0.2)
    figure.suptitle(title, x=0.01, ha="left")


def show(ax, image, title, limits=(0, 1)):
    """Draw an image; `limits` are the values of black and white."""
    ax.imshow(image, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_signal(ax, values=None):
    """Draw the cells of a signal."""
    values = signal() if values is None else values
    ax.plot(values, "o-", color=GRAY, markersize=4, linewidth=1, label="cells")
    ax.set(xlabel="cell", ylabel="value")


def steps(ax, values, edges, **options):
    """Draw one level for each output, from edge to edge."""
    ax.stairs(values, np.asarray(edges) - 0.5, baseline=None, linewidth=3, **options)


def reads(over, size):
    """Return `[output, cell]`: 1 where the output reads the cell.

    The library says it: these are the derivatives of sums.
    """
    total = lambda x: jaxpool.aggregate(x, "sum", over)  # noqa: E731
    return np.atleast_2d(jax.jacobian(total)(jnp.zeros(size)))


def draw_reads(ax, over, size, title):
    """Draw which cells each output reads."""
    table = reads(over, size)
    ax.pcolormesh(table, cmap="Blues", vmin=0, vmax=1.3, edgecolor="0.8", linewidth=1)
    ax.set(title=title, xlabel="cell", ylabel="output")
    ax.set_xticks(np.arange(size) + 0.5, labels=range(size), fontsize=9)
    ax.set_yticks(np.arange(len(table)) + 0.5, labels=range(len(table)), fontsize=9)
    ax.tick_params(length=0)
    ax.invert_yaxis()
    ax.set_aspect("equal")
