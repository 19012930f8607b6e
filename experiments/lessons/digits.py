"""Digits: which down-sampling, and which last layer, for small images of digits?

A small Flax NNX network learns scikit-learn's handwritten digits (real, 8x8 pixels, on
a canvas of 12x12), one network per way of down-sampling and per way of ending. It
measures the test accuracy, the accuracy on the same images shifted by one pixel, and
the time of a training step beside the same network with Flax's own pooling.
"""

from pathlib import Path

import numpy as np
import optax
from flax import nnx
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from experiments.lessons.networks import FLAX, NETWORKS, STRIDED_END
from experiments.shared import figures, report, training

Scores = dict[str, dict[str, list[float]]]  # network, test or shifted, per seed
Seconds = dict[tuple[str, str], list[float]]  # (network, library), per step
MARGIN = 2  # empty pixels around a digit, so that a shift loses nothing
LIBRARIES = {"jaxpool": "jaxpool's pooling", "flax": "Flax's pooling"}
STEP_COLORS = {
    "no pooling": figures.GRAY,
    "jaxpool's pooling": figures.BLUE,
    "Flax's pooling": figures.ORANGE,
}
TIMED = (STRIDED_END, "max, flatten", "average, flatten", "Lp (p = 2), flatten")
UNIT = "epochs"


def recipe(job: report.Job) -> training.Recipe:
    """Say how every network is trained."""
    loss = optax.softmax_cross_entropy_with_integer_labels
    return training.Recipe(loss, job.full_or_quick(20, 4), 64, 3e-3)


def ticks(job: report.Job) -> int:
    """One tick per epoch, and one for the timing."""
    return len(NETWORKS) * job.seeds * recipe(job).epochs + 1


def run(job: report.Job) -> report.Finding:
    """Train and test every network, then time the steps."""
    train, test = load_data()

    def one(name: str) -> dict[str, list[float]]:
        job.say(f"digits: {name}")
        models = training.train(
            NETWORKS[name], recipe(job), train, seeds=job.seeds, on_epoch=job.tick
        )
        return {
            "test": [accuracy(m, test.inputs[0], test.target) for m in models],
            "shifted": [shifted_accuracy(m, test) for m in models],
        }

    scores = training.for_each(NETWORKS, one)
    job.say("digits: time of a step")
    seconds = time_steps(job, train)
    job.tick()
    return report.Finding(
        results={
            "accuracy": scores,
            "median_seconds_per_step": {
                f"{name}; {library}": np.median(values)
                for (name, library), values in seconds.items()
            },
        },
        tables=[accuracy_table(scores, len(test.target)), step_table(seconds)],
        conclusion=conclude(scores, seconds),
        files=[draw_accuracy(job, scores), draw_steps(job, seconds)],
    )


def load_data() -> tuple[training.Data, training.Data]:
    """Return three quarters of the digits for training and one quarter for testing."""
    digits = load_digits()
    images = np.pad(digits.images / 16, ((0, 0), (MARGIN,) * 2, (MARGIN,) * 2))
    images = images[..., None].astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    return training.Data((x,), y), training.Data((x_test,), y_test)


def accuracy(model: nnx.Module, images: np.ndarray, target: np.ndarray) -> float:
    """Return the share of images whose highest score is right."""
    scores = training.predict(model, (images,))
    return float((scores.argmax(1) == target).mean())


def shifted_accuracy(model: nnx.Module, test: training.Data) -> float:
    """Return the accuracy under shifts of one pixel, averaged over 8 directions."""
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    moved = [shift(test.inputs[0], dy, dx) for dy, dx in around]
    return float(np.mean([accuracy(model, x, test.target) for x in moved]))


def shift(images: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Move images by less than their empty margin: only zeros leave and come in."""
    return np.roll(images, (dy, dx), axis=(1, 2))


def time_steps(job: report.Job, train: training.Data) -> Seconds:
    """Time steps with jaxpool's and Flax's pooling, after checking the losses agree."""
    builds = {(name, "jaxpool"): NETWORKS[name] for name in TIMED}
    builds |= {(name, "flax"): make for name, make in FLAX.items()}
    losses, seconds = training.compare_steps(
        builds, recipe(job), train, warm_up=5, rounds=job.full_or_quick(400, 40)
    )
    for name in FLAX:
        pair = losses[name, "jaxpool"], losses[name, "flax"]
        np.testing.assert_allclose(*pair, rtol=1e-3, err_msg=f"losses of {name}")
    return seconds


def ratio(seconds: Seconds, name: str) -> float:
    """Return how many times longer a step takes with Flax's pooling, by the median."""
    ours, theirs = (np.median(seconds[name, lib]) for lib in ("jaxpool", "flax"))
    return float(theirs / ours)


def accuracy_table(scores: Scores, tested: int) -> Table:
    """Show the accuracies as mean and spread over the seeds."""
    rows = [
        [name, report.percent(s["test"]), report.percent(s["shifted"])]
        for name, s in scores.items()
    ]
    columns = ["network", "test accuracy", "shifted by 1 pixel"]
    return report.table(f"Accuracy on {tested} test digits", columns, rows)


def step_table(seconds: Seconds) -> Table:
    """Show the milliseconds of a training step."""
    rows = []
    for name in TIMED:
        flax = [f"{1e3 * np.median(seconds[name, 'flax']):.2f}"] if name in FLAX else []
        flax += [f"{ratio(seconds, name):.2f}"] if name in FLAX else []
        ours = f"{1e3 * np.median(seconds[name, 'jaxpool']):.2f}"
        rows.append([name, ours, *(flax or ["-", "-"])])
    columns = ["network", "jaxpool", "Flax's pooling", "Flax / jaxpool"]
    return report.table("Milliseconds per training step (median)", columns, rows)


def conclude(scores: Scores, seconds: Seconds) -> list[str]:
    """Say what the numbers say."""
    split = [(*name.split(", "), s) for name, s in scores.items()]
    downs = {down: s for down, end, s in split if end == "flatten"}
    ends = {end: s for down, end, s in split if down == "max"}
    lines = []
    for networks, what in ((downs, "Down-sampling"), (ends, "Ending")):
        for test in ("test", "shifted"):
            best = report.verdict({name: s[test] for name, s in networks.items()})
            lines.append(f"{what}, {test} images: {best}")
    for name in FLAX:
        lines.append(
            f"Time, {name}: with Flax's pooling a training step takes "
            f"{ratio(seconds, name):.2f} times as long. The losses are the same."
        )
    return lines


def draw_accuracy(job: report.Job, scores: Scores) -> Path:
    """Draw the accuracies on the images and on the shifted images."""
    figure, (ax,) = figures.panels(1, (8, 5))
    series = {
        f"{test} images": {
            name: [100 * share for share in s[test]] for name, s in scores.items()
        }
        for test in ("test", "shifted")
    }
    figures.grouped_bars(ax, series, (figures.GREEN, figures.PURPLE), "{:.1f}".format)
    best = max(scores, key=lambda name: np.mean(scores[name]["shifted"]))
    ax.set(
        title=f"Best on digits shifted by one pixel: {best}",
        xlabel=f"accuracy in %, mean and range, seeds: {job.seeds}",
        xlim=(0, 112),
        xticks=range(0, 101, 20),
    )
    figures.legend_below(ax)
    return figures.save(figure, job, "digits")


def draw_steps(job: report.Job, seconds: Seconds) -> Path:
    """Draw the median time of a step, with its quartiles, for both libraries."""
    figure, (ax,) = figures.panels(1, (8, 4))
    for (name, library), values in seconds.items():
        kind = "no pooling" if name == STRIDED_END else LIBRARIES[library]
        low, middle, high = np.percentile(values, (25, 50, 75)) * 1e3
        ax.barh(
            TIMED.index(name) + (0.4 if library == "flax" else 0),
            middle,
            0.37,
            xerr=[[middle - low], [high - middle]],
            capsize=3,
            color=STEP_COLORS[kind],
            label=kind,
        )
    ax.set_yticks(range(len(TIMED)), [n.removesuffix(", flatten") for n in TIMED])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set(
        title="Time of a training step, 64 images",
        xlabel="milliseconds, median and quartiles",
    )
    figures.legend_below(ax)
    return figures.save(figure, job, "digits_step")
