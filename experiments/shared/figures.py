"""The drawings that several parts share: grouped bars over seeds, and saving."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.shared.report import Job

Series = Mapping[str, Mapping[str, Sequence[float]]]


def panels(count: int, size: tuple[float, float], **options) -> tuple[Figure, list]:
    """Open a figure with panels in a row."""
    figure, axes = plt.subplots(1, count, figsize=size, layout="constrained", **options)
    return figure, list(np.atleast_1d(axes))


def grouped_bars(ax: Axes, series: Series) -> None:
    """Draw a bar for each label of each series, its values being one per seed.

    The bar is the mean, the error bar reaches from the least to the most.
    """
    labels = list(
        dict.fromkeys(label for values in series.values() for label in values)
    )
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        middle = np.array([np.mean(v) for v in values.values()])
        low = np.array([min(v) for v in values.values()])
        high = np.array([max(v) for v in values.values()])
        ax.barh(
            [labels.index(label) + (i + 0.5) * width - 0.4 for label in values],
            middle,
            width * 0.92,
            # A mean of equal values may round to just beside them.
            xerr=np.maximum((middle - low, high - middle), 0),
            capsize=3,
            label=name,
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()


def legend_below(ax: Axes) -> None:
    """Put the legend under the panel, where it hides no bar."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def number_map(ax: Axes, values: np.ndarray, title: str, darkest: float) -> None:
    """Draw a matrix as coloured cells with their numbers."""
    ax.imshow(values, cmap="Blues", vmin=0, vmax=darkest)
    for (i, j), value in np.ndenumerate(values):
        ax.text(j, i, f"{value:g}", ha="center", va="center")
    ax.set(title=title, xticks=[], yticks=[])


def save(figure: Figure, job: Job, name: str) -> Path:
    """Write a figure as PNG into the output folder."""
    if job.quick:
        figure.supxlabel("quick run, too short to conclude from", fontsize="small")
    path = job.out / f"{name}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
