"""One style for all figures, and the drawings that several parts share.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart. Letters
are large for the size of a figure, so that it can be read at half its width.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from experiments.shared.report import Job

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GRAY = "#CC79A7", "#56B4E9", "#F0E442", "#8C8C8C"
COLORS = (BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GRAY)
STYLE = {
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": "medium",
    "axes.titleweight": "bold",
    "figure.titleweight": "bold",
    "font.size": 12,
    "grid.color": "0.88",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "savefig.dpi": 150,
}
plt.style.use(STYLE)

Series = Mapping[str, Mapping[str, Sequence[float]]]


def panels(
    count: int, size: tuple[float, float], **options: Any
) -> tuple[Figure, list[Axes]]:
    """Open a figure with panels in a row."""
    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", **options)
    return figure, list(np.atleast_1d(axes))


def mosaic(
    layout: Sequence[Sequence[str]], size: tuple[float, float], **options: Any
) -> tuple[Figure, dict[str, Axes]]:
    """Open a figure whose panels are named and placed by a table of their names."""
    return plt.subplot_mosaic(layout, figsize=size, layout="constrained", **options)


def grouped_bars(
    ax: Axes,
    series: Series,
    colors: Sequence[str] = COLORS,
    label: Callable[[float], str] | None = None,
) -> None:
    """Draw a bar for each label of each series, its values being one per seed.

    The bar is the mean, the error bar reaches from the least to the most, where they
    differ. `label` writes the mean beside the bar.
    """
    labels = list(
        dict.fromkeys(label for values in series.values() for label in values)
    )
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        middle = np.array([np.mean(v) for v in values.values()])
        low = np.array([min(v) for v in values.values()])
        high = np.array([max(v) for v in values.values()])
        # A mean of equal values may round to just beside them.
        reach = np.maximum((middle - low, high - middle), 0)
        places = [labels.index(label) + (i + 0.5) * width - 0.4 for label in values]
        ax.barh(
            places,
            middle,
            width * 0.92,
            xerr=reach if reach.any() else None,
            capsize=3,
            color=colors[i % len(colors)],
            label=name,
        )
        for place, value, end in zip(places, middle, high, strict=True):
            if label:
                text = f" {label(value)}"
                ax.text(end, place, text, va="center_baseline", fontsize="small")
    ax.set_yticks(range(len(labels)), labels)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(labels) - 0.4, -0.6)


def legend_below(*axes: Axes, columns: int = 4) -> None:
    """Put one legend for some panels under their figure, where it hides nothing."""
    entries = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    axes[0].get_figure(root=True).legend(
        entries.values(), entries, loc="outside lower center", ncols=columns
    )


def plain_ticks(axis: Axis, numbers: Sequence[float]) -> None:
    """Label a logarithmic axis at these numbers, as plain numbers."""
    axis.set_ticks(numbers, [f"{number:g}" for number in numbers])
    axis.set_ticks([], minor=True)


def shades(values: np.ndarray, color: str, darkest: float) -> np.ndarray:
    """Mix a colour with white: white for 0, the colour for `darkest`.

    Negative values are gray.
    """
    strength = np.clip(abs(values) / darkest, 0, 1)[..., None]
    color = np.where(values[..., None] < 0, to_rgb(GRAY), to_rgb(color))
    return 1 - strength * (1 - color)


def number_map(ax: Axes, values: np.ndarray, colors: np.ndarray, title: str) -> None:
    """Draw a matrix as cells with their numbers; `colors` has a last axis of RGB."""
    ax.imshow(colors)
    for (i, j), value in np.ndenumerate(values):
        brightness = colors[i, j] @ (0.3, 0.6, 0.1)
        ink = "white" if brightness < 0.5 else "black"
        ax.text(j, i, f"{value:g}", ha="center", va="center_baseline", color=ink)
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(True)


def windows(ax: Axes, values: np.ndarray, size: int) -> None:
    """Outline the windows of a matrix that is drawn by `number_map`."""
    height, width = values.shape
    ax.hlines(np.arange(0, height + 1, size) - 0.5, -0.5, width - 0.5, "black", lw=2)
    ax.vlines(np.arange(0, width + 1, size) - 0.5, -0.5, height - 0.5, "black", lw=2)


def headline(figure: Figure, text: str) -> None:
    """Put a title over all panels, at the left like the titles of the panels."""
    figure.suptitle(text, x=0.01, ha="left")


def save(figure: Figure, job: Job, name: str) -> Path:
    """Write a figure as PNG into the output folder."""
    if job.quick:
        look = {"color": "0.5", "alpha": 0.4, "fontsize": 30, "rotation": 20}
        figure.text(0.5, 0.5, "quick run", ha="center", va="center", **look)
    path = job.out / f"{name}.png"
    figure.savefig(path)
    plt.close(figure)
    return path
