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
from matplotlib.axes import Axes
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from experiments.lessons.networks import FLAX, NETWORKS, STRIDED_END
from experiments.shared import figures, report, training

Scores = dict[str, dict[str, list[float]]]  # network, test or shifted, per seed
Seconds = dict[tuple[str, str], list[float]]  # (network, library), per step
MARGIN = 2  # empty pixels around a digit, so that a shift loses nothing
TIMED = (STRIDED_END, "max, flatten", "average, flatten", "Lp (p = 2), flatten")


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
        files=[draw(job, scores, seconds)],
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
        [name, report.spread(s["test"]), report.spread(s["shifted"])]
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
    downs = [name for name in scores if name.endswith("flatten")]
    ends = [name for name in scores if name.startswith("max")]
    lines = []
    for names, what in ((downs, "down-sampling"), (ends, "ending")):
        for key, on in (("test", "test"), ("shifted", "shifted")):
            best = report.verdict({name: scores[name][key] for name in names})
            lines.append(f"{what}, {on} images: {best}")
    for name in FLAX:
        lines.append(
            f"{name}: with Flax's pooling a training step takes "
            f"{ratio(seconds, name):.2f} times as long, for the same losses"
        )
    return lines


def draw(job: report.Job, scores: Scores, seconds: Seconds) -> Path:
    """Draw the accuracies and the times of a step."""
    figure, (left, right) = figures.panels(2, (12, 5), width_ratios=(3, 2))
    figures.grouped_bars(
        left,
        {
            f"{test} images": {name: s[test] for name, s in scores.items()}
            for test in ("test", "shifted")
        },
    )
    title = f"Accuracy on handwritten digits\nmean and range, seeds: {job.seeds}"
    left.set(title=title, xlabel="accuracy", xlim=(0, 1.02))
    figures.legend_below(left)
    for offset, library in ((-0.2, "jaxpool"), (0.2, "flax")):
        draw_times(right, seconds, library, offset)
    right.set_yticks(range(len(TIMED)), [n.removesuffix(", flatten") for n in TIMED])
    right.set(title="Training step\nmedian and quartiles", xlabel="milliseconds")
    right.set_ylim(len(TIMED) - 0.5, -0.5)
    figures.legend_below(right)
    return figures.save(figure, job, "digits")


def draw_times(ax: Axes, seconds: Seconds, library: str, offset: float) -> None:
    """Draw the median time of a step, with its quartiles, for one library."""
    names = [name for name in TIMED if (name, library) in seconds]
    times = [np.percentile(seconds[n, library], (25, 50, 75)) * 1e3 for n in names]
    low, middle, high = np.transpose(times)
    ax.barh(
        [TIMED.index(name) + offset for name in names],
        middle,
        0.38,
        xerr=(middle - low, high - middle),
        capsize=3,
        label=f"{library}'s pooling",
    )
