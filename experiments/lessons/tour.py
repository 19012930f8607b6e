"""Tour: the textbook examples of pooling, and what translation invariance means.

Three stops, all computed by jaxpool: a 4x4 matrix under 2x2 pooling; a vertical line,
the response of a line detector and its pooled versions; and handwritten digits shifted
pixel by pixel, with the change of the feature map before and after pooling.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import SubFigure
from rich.columns import Columns
from rich.table import Table
from sklearn.datasets import load_digits

import jaxpool
from experiments.shared import figures, report

MATRIX = np.array(
    [[12, 20, 30, 0], [8, 12, 2, 0], [34, 70, 37, 4], [112, 100, 25, 12]], np.float32
)
# Detectors sum to zero: a flat area gives no response.
VERTICAL = np.array([[-1, 2, -1]] * 3, np.float32)
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
POOLS = {
    "max": (jaxpool.max_pool, jaxpool.global_max_pool),
    "average": (jaxpool.avg_pool, jaxpool.global_avg_pool),
}
COLORS = {
    "max": figures.BLUE,
    "average": figures.ORANGE,
    "image": figures.GRAY,
    "no": "black",  # no pooling
}
Maps = dict[str, np.ndarray]
TWO_BY_TWO = ("max 2x2", "average 2x2")
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
UNIT = "stops"


def ticks(job: report.Job) -> int:
    """One tick per stop."""
    return 3


def run(job: report.Job) -> report.Finding:
    """Visit the three stops."""
    job.say("tour: a matrix")
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
    return report.Finding(
        results={
            "matrix": MATRIX.tolist(),
            "pooled": {name: value.tolist() for name, value in pooled.items()},
            "line": {name: value.tolist() for name, value in line.items()},
            "change_by_shift": {k: v.tolist() for k, v in change.items()},
        },
        tables=[*number_grids(pooled, line), change_table(change, len(images))],
        conclusion=conclude(pooled, line, change),
        files=files,
    )


def matrix_example() -> Maps:
    """Pool the 4x4 matrix by 2x2 with stride 2 (the default stride is the window)."""
    x = jnp.asarray(MATRIX)
    largest, winners = jaxpool.max_pool_with_indices(x, 2, axes=(0, 1))
    average = jaxpool.avg_pool(x, 2, axes=(0, 1))
    maps = {"max 2x2": largest, "average 2x2": average, "winners": winners}
    return {name: np.asarray(value) for name, value in maps.items()}


def line_example() -> Maps:
    """Detect a vertical line, then pool the response in every way."""
    image = np.zeros((8, 8), np.float32)
    image[:, 3] = 1
    response = detect(jnp.asarray(image)[None], VERTICAL[None])[0, ..., 0]
    maps = {"image": image, "detector": VERTICAL, "response": response}
    for name, (pool, whole) in POOLS.items():
        maps[f"{name} 2x2"] = pool(response, 2, axes=(0, 1))
        maps[f"global {name}"] = whole(response, axes=(0, 1), keepdims=True)
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


def number_grids(pooled: Maps, line: Maps) -> list[Columns]:
    """Show the worked examples as numbers."""
    first = {"matrix": MATRIX} | {name: pooled[name] for name in TWO_BY_TWO}
    return [
        Columns([_grid(*item) for item in maps.items()], padding=(0, 4))
        for maps in (first, line)
    ]


def _grid(title: str, values: np.ndarray) -> str:
    """Write a matrix under its title."""
    rows = ["".join(f"{value:5g}" for value in row) for row in values]
    return "\n".join([f"[bold]{title}[/]", *rows, ""])


def change_table(change: Maps, count: int) -> Table:
    """Show the mean change per stage and shift."""
    columns = ["feature map", *(f"shift {s}" for s in SHIFTS)]
    rows = [[name, *(f"{v:.0%}" for v in c.mean(1))] for name, c in change.items()]
    return report.table(f"Change of the features of {count} digits", columns, rows)


def conclude(pooled: Maps, line: Maps, change: Maps) -> list[str]:
    """Say what the numbers say."""
    peak = {name: f"{line[name].max():g}" for name in line}
    cells = {
        name: ", ".join(f"{v:g}" for v in pooled[name].flat) for name in TWO_BY_TWO
    }
    one = {name: float(values[1].mean()) for name, values in change.items()}
    listed = ", ".join(f"{name} {value:.0%}" for name, value in one.items())
    exact = [
        name for name, values in change.items() if np.allclose(values, 0, atol=1e-5)
    ]
    return [
        f"Matrix: max 2x2 gives {cells['max 2x2']}; average 2x2 gives "
        f"{cells['average 2x2']}.",
        f"Line: the detector responds with {peak['response']}. Max 2x2 leaves "
        f"{peak['max 2x2']} of it, average 2x2 leaves {peak['average 2x2']}, "
        f"global max {peak['global max']}, global average {peak['global average']}.",
        f"A shift of one pixel changes the features by: {listed}.",
        f"No shift changes these: {' and '.join(exact) or 'none'}.",
    ]


def kind_of(name: str) -> str:
    """Return the first word of a name, without "global"."""
    return name.removeprefix("global ").partition(" ")[0]


def draw_matrix(job: report.Job, pooled: Maps) -> Path:
    """Draw the matrix, one colour for each window, and what is made of each window."""
    figure, axes = figures.panels(3, (8, 3.4), width_ratios=(1.6, 1, 1))
    hues = np.array([to_rgb(color) for color in figures.COLORS[:4]]).reshape(2, 2, 3)
    tints = 0.7 + 0.3 * hues
    cells = np.arange(MATRIX.size).reshape(MATRIX.shape)
    is_winner = np.isin(cells, pooled["winners"])[..., None]
    every_cell = [
        colors.repeat(2, axis=0).repeat(2, axis=1) for colors in (hues, tints)
    ]
    shown = np.where(is_winner, *every_cell)
    figures.number_map(axes[0], MATRIX, shown, "2x2 windows, their winners")
    figures.number_map(axes[1], pooled["max 2x2"], hues, "Max: the winner")
    figures.number_map(axes[2], pooled["average 2x2"], tints, "Average: all four")
    figures.windows(axes[0], MATRIX, 2)
    return figures.save(figure, job, "tour_matrix")


def draw_line(job: report.Job, line: Maps) -> Path:
    """Draw the image, the detector, its response and the pooled responses."""
    layout = [
        ["image", "detector", "response", "max 2x2", "global max"],
        ["image", "detector", "response", "average 2x2", "global average"],
    ]
    figure, axes = figures.mosaic(layout, (10, 4.2), width_ratios=(8, 3, 6, 3.8, 3.8))
    peak = line["response"].max()
    for name, values in line.items():
        color = COLORS.get(kind_of(name), figures.VERMILLION)
        cells = figures.shades(values, color, 1 if name == "image" else peak)
        figures.number_map(axes[name], values, cells, name)
    figures.windows(axes["response"], line["response"], 2)
    axes["detector"].set_xlabel("sums to 0")
    axes["response"].set_xlabel("after ReLU: 0, not -3")
    figures.headline(
        figure, "Max keeps the response to a thin line, average dilutes it"
    )
    return figures.save(figure, job, "tour_line")


def draw_change(job: report.Job, images: np.ndarray, change: Maps) -> Path:
    """Draw some shifted digits and the change of the features by the shift."""
    figure = plt.figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))
    draw_digits(left, images)
    ax = right.subplots()
    for name, values in change.items():
        style = "--" if name.endswith("4x4") else ":" if "global" in name else "-"
        ax.errorbar(
            SHIFTS,
            100 * values.mean(1),
            100 * values.std(1),
            label=name,
            color=COLORS[kind_of(name)],
            marker="s" if "average" in name else "o",
            markersize=9 if name == "global average" else 6,
            linestyle=style,
            capsize=3,
        )
    ax.axhline(100 * 2**0.5, color=figures.GRAY, linewidth=1)
    ax.text(0, 100 * 2**0.5, "141 %: nothing in common", color="0.35", va="bottom")
    ax.set(
        title="Only global pooling ignores every shift",
        xlabel="shift in pixels",
        ylabel=f"change of the features in %, {len(images)} digits",
        xticks=SHIFTS,
        ylim=(-8, 158),
    )
    place = {"loc": "lower right", "bbox_to_anchor": (1, 0.06)}
    ax.legend(**place, ncols=2, fontsize="small", handlelength=4)
    return figures.save(figure, job, "tour_invariance")


def draw_digits(figure: SubFigure, images: np.ndarray) -> None:
    """Draw three digits at three shifts, each in its own frame."""
    shifts = (0, 2, 4)
    axes = figure.subplots(3, len(shifts))
    for row, image in zip(axes, images[[0, 3, 8]], strict=True):
        for ax, shift in zip(row, shifts, strict=True):
            ax.imshow(np.roll(image, shift, axis=1), cmap="gray_r")
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(True)
    for ax, shift in zip(axes[-1], shifts, strict=True):
        ax.set_xlabel(f"shift {shift}")
    axes[0, 0].set_title("Three of the digits")
