"""Tour: the textbook examples of pooling, and what translation invariance means.

Three stops, all computed by jaxpool: a 4x4 matrix under 2x2 max pooling; a vertical
line, the feature map of a line detector and its pooled versions; and handwritten digits
shifted pixel by pixel, with the change of the feature map before and after pooling.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.columns import Columns
from rich.table import Table
from sklearn.datasets import load_digits

import jaxpool
from experiments.shared import figures, report

MATRIX = np.array(
    [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]], np.float32
)
VERTICAL = np.array([[0, 1, 0]] * 3, np.float32)
# Edges in four directions, with zero sum: a flat area gives no response.
EDGES = np.array(
    [
        [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
        [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
        [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
        [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
        [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
        [[2, 1, 0], [1, 0, -1], [0, -1, -2]],
    ],
    np.float32,
)
Maps = dict[str, np.ndarray]
SHIFTS = (0, 1, 2, 3, 4)
STAGES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "no pooling": lambda x: x,
    "average 2x2": lambda x: jaxpool.avg_pool(x, (2, 2)),
    "max 2x2": lambda x: jaxpool.max_pool(x, (2, 2)),
    "average 4x4": lambda x: jaxpool.avg_pool(x, (4, 4)),
    "max 4x4": lambda x: jaxpool.max_pool(x, (4, 4)),
    "global average": jaxpool.global_avg_pool,
    "global max": jaxpool.global_max_pool,
}


def ticks(job: report.Job) -> int:
    """One tick per stop."""
    return 3


def run(job: report.Job) -> report.Finding:
    """Visit the three stops."""
    job.say("tour: max pooling of a matrix")
    pooled = matrix_example()
    files = [draw_matrix(job, pooled)]
    job.tick()
    job.say("tour: a line and its detector")
    line = line_example()
    files.append(draw_line(job, line))
    job.tick()
    job.say("tour: translation invariance")
    images = digits_on_canvas(job.full_or_quick(100, 50))
    change = {name: feature_change(images, stage) for name, stage in STAGES.items()}
    files.append(draw_change(job, images, change))
    job.tick()
    line_numbers = {name: value.tolist() for name, value in line.items()}
    return report.Finding(
        results={
            "matrix": MATRIX.tolist(),
            "max_2x2": pooled.tolist(),
            "line": line_numbers,
            "change_by_shift": {k: v.tolist() for k, v in change.items()},
        },
        tables=[*number_grids(pooled, line), change_table(change, len(images))],
        conclusion=conclude(pooled, change),
        files=files,
    )


def matrix_example() -> np.ndarray:
    """Pool the 4x4 matrix by 2x2 with stride 2 (the default stride is the window)."""
    return np.asarray(jaxpool.max_pool(jnp.asarray(MATRIX)[..., None], (2, 2)))[..., 0]


def line_example() -> Maps:
    """Detect a vertical line, then pool the feature map in every way."""
    image = np.zeros((8, 8), np.float32)
    image[:, 3:5] = 1
    feature = detect(jnp.asarray(image)[None], VERTICAL[None])
    maps = {
        "image": jnp.asarray(image),
        "feature map": feature[0, ..., 0],
        "average 2x2": jaxpool.avg_pool(feature, (2, 2))[0, ..., 0],
        "max 2x2": jaxpool.max_pool(feature, (2, 2))[0, ..., 0],
        "global average": jaxpool.global_avg_pool(feature, keepdims=True)[0, ..., 0],
        "global max": jaxpool.global_max_pool(feature, keepdims=True)[0, ..., 0],
    }
    return {name: np.asarray(value) for name, value in maps.items()}


def detect(images: jax.Array, detectors: np.ndarray) -> jax.Array:
    """Cross-correlate `[n, h, w]` with `[k, 3, 3]` and keep what is positive."""
    kernel = jnp.asarray(detectors).transpose(1, 2, 0)[:, :, None]
    layout = ("NHWC", "HWIO", "NHWC")
    found = jax.lax.conv_general_dilated(
        images[..., None], kernel, (1, 1), "VALID", dimension_numbers=layout
    )
    return jax.nn.relu(found)


def digits_on_canvas(count: int, size: int = 22) -> np.ndarray:
    """Place real handwritten digits on an empty canvas where a shift loses nothing."""
    canvas = np.zeros((count, size, size), np.float32)
    canvas[:, 7:15, 5:13] = load_digits().images[:count] / 16
    return canvas


def feature_change(
    images: np.ndarray, stage: Callable[[jax.Array], jax.Array]
) -> np.ndarray:
    """Return the relative change of the features, `[shift, image]`, by right shifts."""
    pooled = jax.jit(lambda x: stage(detect(x, EDGES)))

    def features(shift: int) -> np.ndarray:
        moved = np.roll(images, shift, axis=2)
        return np.asarray(pooled(moved)).reshape(len(images), -1)

    still = features(0)
    size = np.linalg.norm(still, axis=1)
    return np.stack(
        [np.linalg.norm(features(s) - still, axis=1) / size for s in SHIFTS]
    )


def number_grids(pooled: np.ndarray, line: Maps) -> list[Columns]:
    """Show the worked examples as numbers."""
    first = {"matrix": MATRIX, "max 2x2, stride 2": pooled}
    return [
        Columns([_grid(*item) for item in maps.items()], padding=(0, 4))
        for maps in (first, line)
    ]


def _grid(title: str, values: np.ndarray) -> str:
    """Write a matrix under its title."""
    rows = ["".join(f"{value:4g}" for value in row) for row in values]
    return "\n".join([f"[bold]{title}[/]", *rows, ""])


def change_table(change: Maps, count: int) -> Table:
    """Show the mean change per stage and shift."""
    columns = ["feature map", *(f"shift {s}" for s in SHIFTS)]
    rows = [[name, *(f"{v:.0%}" for v in c.mean(1))] for name, c in change.items()]
    return report.table(f"Change of the features of {count} digits", columns, rows)


def conclude(pooled: np.ndarray, change: Maps) -> list[str]:
    """Say what the numbers say."""
    one = {name: float(values[1].mean()) for name, values in change.items()}
    order = sorted(one, key=lambda name: -one[name])
    listed = ", ".join(f"{name} {one[name]:.0%}" for name in order)
    exact = [
        name for name, values in change.items() if np.allclose(values, 0, atol=1e-5)
    ]
    return [
        f"max pooling of the matrix gives {pooled.astype(int).tolist()}",
        f"change of the features by a shift of one pixel, most to least: {listed}",
        "unchanged by every shift: " + (" and ".join(exact) or "none"),
    ]


def draw_matrix(job: report.Job, pooled: np.ndarray) -> Path:
    """Draw the matrix with its windows outlined, and the maxima."""
    figure, (left, right) = figures.panels(2, (7, 3.8))
    figures.number_map(left, MATRIX, "4x4 matrix", 170)
    figures.number_map(right, pooled, "max pooling 2x2, stride 2", 170)
    for ax, edge in ((left, 2), (right, 1)):
        ax.set_xticks(np.arange(-0.5, edge * 2, edge), labels=[])
        ax.set_yticks(np.arange(-0.5, edge * 2, edge), labels=[])
        ax.grid(color="black", linewidth=2)
    return figures.save(figure, job, "tour_matrix")


def draw_line(job: report.Job, line: Maps) -> Path:
    """Draw the image with the line, its feature map and the pooled maps."""
    figure, axes = figures.panels(len(line), (14, 3.4))
    for ax, (name, values) in zip(axes, line.items(), strict=True):
        height, width = values.shape
        figures.number_map(ax, values, f"{name}\n{height}x{width}", 4.5)
    figure.suptitle("A vertical line, a 3x3 vertical-line detector, and pooling")
    return figures.save(figure, job, "tour_line")


def draw_change(job: report.Job, images: np.ndarray, change: Maps) -> Path:
    """Draw some shifted digits and the change of the features by the shift."""
    figure, (left, right) = figures.panels(2, (12, 4.6), width_ratios=(2, 3))
    tiles = [[np.roll(images[k], s, axis=1) for s in (0, 2, 4)] for k in (0, 3, 8)]
    left.imshow(np.block(tiles), cmap="gray_r")
    centres = (np.arange(3) + 0.5) * images.shape[2]
    left.set_xticks(centres, labels=["0", "2", "4"])
    left.set(title="Three of the digits", xlabel="shift in pixels", yticks=[])
    for i, (name, values) in enumerate(change.items()):
        marker, size = "osdvPX*"[i], 10 - i
        style = "--" if name.endswith("4x4") else ":" if "global" in name else "-"
        mean, error = values.mean(1), values.std(1)
        right.errorbar(
            SHIFTS,
            mean,
            error,
            label=name,
            marker=marker,
            markersize=size,
            linestyle=style,
            capsize=3,
        )
    right.axhline(2**0.5, color="0.6", linewidth=1)
    right.text(0, 2**0.5, "nothing in common", color="0.4", va="bottom")
    right.set(
        title=f"Change of the features, mean and spread over {len(images)} digits",
        xlabel="shift in pixels",
        ylabel="relative change",
        xticks=SHIFTS,
        ylim=(-0.08, 1.55),
    )
    right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figures.save(figure, job, "tour_invariance")
