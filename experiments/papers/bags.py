"""Bags: multiple instance learning, where only whole bags of images have a label.

M. Ilse, J. Tomczak, M. Welling, "Attention-based Deep Multiple Instance Learning", ICML
2018, https://arxiv.org/abs/1802.04712, ask of a bag of MNIST digits whether it contains
a 9. B. McFee, J. Salamon, J. P. Bello, "Adaptive pooling operators for weakly labeled
sound event detection", 2018, https://arxiv.org/abs/1804.10070, learn the scale of a
softmax-weighted mean (AutoPool). A small network gives each image a probability, and a
pool makes that of the bag. Two questions: does the bag contain a 9, and which share of
it are 9s?

As in the first paper: bags of 10 images on average (deviation 2), target digit 9, gated
attention, area under the ROC curve. Not the same: 5000 digits, not 70000; 14x14 pixels,
not 28x28; a smaller network, on which every pool works in the same way, on the
probabilities (their attention pools features); half of the bags without a 9. So no
published figure is set beside ours.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table
from sklearn.metrics import roc_auc_score

import jaxpool
from experiments.papers import bag_data
from experiments.shared import figures, report, training
from experiments.shared.training import Data

FEATURES, ATTENTION = 64, 32
STRETCH = 50.0  # Adam moves a parameter by little; the scale has a longer way


class Mean(nnx.Module):
    """The average of the probabilities."""

    def __init__(self, rngs: nnx.Rngs):
        """Nothing is learned."""

    def __call__(self, features: jax.Array) -> jaxpool.By | str:
        """Return the aggregation for these features, `[pack, image, feature]`."""
        return "avg"


class Max(Mean):
    """The maximum of the probabilities."""

    def __call__(self, features: jax.Array) -> jaxpool.By | str:
        """Return the aggregation."""
        return "max"


class LogMeanExp(Mean):
    """A smooth maximum with a fixed scale."""

    def __call__(self, features: jax.Array) -> jaxpool.By | str:
        """Return the aggregation."""
        return jaxpool.LogSumExp(10.0, mean=True)


class AutoPool(nnx.Module):
    """The softmax-weighted mean of the probabilities; its scale is learned, from 1."""

    def __init__(self, rngs: nnx.Rngs):
        self.part = nnx.Param(jnp.full(1, 1 / STRETCH))

    @property
    def scale(self) -> jax.Array:
        """The scale that is learned."""
        return STRETCH * self.part[...]

    def __call__(self, features: jax.Array) -> jaxpool.By | str:
        """Return the aggregation."""
        return jaxpool.Softmax(scale=self.scale)


class GatedAttention(nnx.Module):
    """The mean with weights that a gated layer makes of the features."""

    def __init__(self, rngs: nnx.Rngs):
        self.content = nnx.Linear(FEATURES, ATTENTION, rngs=rngs)
        self.gate = nnx.Linear(FEATURES, ATTENTION, rngs=rngs)
        self.logits = nnx.Linear(ATTENTION, 1, rngs=rngs)

    def __call__(self, features: jax.Array) -> jaxpool.By | str:
        """Return the aggregation."""
        gated = jnp.tanh(self.content(features)) * nnx.sigmoid(self.gate(features))
        return jaxpool.Softmax(self.logits(gated))


NOT_THE_SAME = (
    "Bags: no published number has this setting: smaller images and a smaller network, "
    "and all pools see probabilities."
)
AUTOPOOL = "AutoPool"
POOLS = {
    "mean": Mean,
    "max": Max,
    "log-mean-exp, scale 10": LogMeanExp,
    AUTOPOOL: AutoPool,
    "gated attention": GatedAttention,
}


class Network(nnx.Module):
    """A probability for each image, pooled over the images of each bag."""

    def __init__(self, pool: str, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(3 * 3 * 32, FEATURES, rngs=rngs)
        self.score = nnx.Linear(FEATURES, 1, rngs=rngs)
        self.pool = POOLS[pool](rngs)

    def __call__(self, images: jax.Array, bag: jax.Array) -> jax.Array:
        """Return `[pack, bag]` for `images: [pack, image, 14, 14, 1]`."""
        x = images
        for conv in (self.conv1, self.conv2):
            x = jaxpool.max_pool(nnx.relu(conv(x)), (2, 2))
        features = nnx.relu(self.dense(x.reshape(*bag.shape, -1)))
        probability = nnx.sigmoid(self.score(features))
        over = jaxpool.segments(bag, bag_data.BAGS, axis=1)
        return jaxpool.aggregate(probability, self.pool(features), over)[..., 0]


class Task(NamedTuple):
    """A question to bags, and how answers are scored."""

    question: str
    draw: bag_data.Draw
    target: Callable[[np.ndarray], np.ndarray]  # of the share of nines
    score: Callable[[np.ndarray, np.ndarray], float]
    unit: str
    lowest: bool


def is_positive(share: np.ndarray) -> np.ndarray:
    """Return 1 for bags with a nine."""
    return (share > 0).astype(np.float32)


def area(answer: np.ndarray, target: np.ndarray) -> float:
    """Return the area under the ROC curve."""
    return float(roc_auc_score(target.ravel(), answer.ravel()))


def mean_error(answer: np.ndarray, target: np.ndarray) -> float:
    """Return the mean absolute error."""
    return float(abs(answer - target).mean())


TASKS = [
    Task(
        "Does the bag contain a 9?",
        bag_data.any_nine,
        is_positive,
        area,
        "area under the ROC curve",
        False,
    ),
    Task(
        "What share of the bag is 9s?",
        bag_data.any_share,
        np.asarray,
        mean_error,
        "mean absolute error",
        True,
    ),
]


def cross_entropy(answer: jax.Array, target: jax.Array) -> jax.Array:
    """Return the cross entropy of probabilities; the target may be a share."""
    inside = jnp.clip(answer, 1e-5, 1 - 1e-5)
    return -(target * jnp.log(inside) + (1 - target) * jnp.log1p(-inside))


def recipe(job: report.Job) -> training.Recipe:
    """Say how every network is trained: a batch is one pack of 10 bags."""
    return training.Recipe(cross_entropy, job.full_or_quick(20, 2), 1, 2e-3)


def pools(job: report.Job) -> list[str]:
    """The pools to compare; a quick run takes two of them."""
    return ["max", AUTOPOOL] if job.quick else list(POOLS)


def ticks(job: report.Job) -> int:
    """One tick per epoch."""
    return len(TASKS) * len(pools(job)) * job.seeds * recipe(job).epochs


def run(job: report.Job) -> report.Finding:
    """Train every network for every question."""
    digits, test_digits = bag_data.load_digits()
    scores, scales = {}, {}
    for task in TASKS:
        train = make_data(task, digits, count=20, seed=0)
        test = make_data(task, test_digits, count=job.full_or_quick(50, 10), seed=1)
        models = fit(job, task, train)
        scores[task.question] = {
            pool: [
                task.score(training.predict(model, test.inputs), test.target)
                for model in trained
            ]
            for pool, trained in models.items()
        }
        scales[task.question] = [model.pool.scale.item() for model in models[AUTOPOOL]]
    results = {"score": scores, "learned_scale": scales}
    return report.Finding(
        results=results,
        tables=[score_table(scores, scales)],
        conclusion=conclude(scores, scales),
        files=[draw(job, results)],
    )


def make_data(task: Task, digits: bag_data.Digits, count: int, seed: int) -> Data:
    """Return `count` packs of bags with the target of the task."""
    packs = bag_data.make_packs(digits, count, task.draw, seed)
    return packs._replace(target=task.target(packs.target))


def fit(job: report.Job, task: Task, train: Data) -> dict[str, list[Network]]:
    """Train one network per pool and seed."""

    def one(pool: str) -> list[Network]:
        job.say(f"bags, {task.unit}: {pool}")
        return training.train(
            lambda rngs: Network(pool, rngs),
            recipe(job),
            train,
            seeds=job.seeds,
            on_epoch=job.tick,
        )

    return training.for_each(pools(job), one)


def score_table(
    scores: dict[str, dict[str, list[float]]], scales: dict[str, list[float]]
) -> Table:
    """Show the scores, and the scales that AutoPool learned."""
    rows = [
        [pool, *(report.spread(scores[task.question][pool]) for task in TASKS)]
        for pool in scores[TASKS[0].question]
    ]
    rows.append(["learned scale", *(report.spread(s) for s in scales.values())])
    columns = ["", *(f"{task.question}\n{task.unit}" for task in TASKS)]
    return report.table("Bags of digits: which pool learns what?", columns, rows)


def conclude(
    scores: dict[str, dict[str, list[float]]], scales: dict[str, list[float]]
) -> list[str]:
    """Say what the numbers say."""
    lines = []
    for task in TASKS:
        found, scale = scores[task.question], scales[task.question]
        worst = report.leaders(found, lowest=not task.lowest)[0]
        lines += [
            f"Bags: {task.question} {report.verdict(found, lowest=task.lowest)}",
            f"Bags: {task.question} Last is {worst} ({report.spread(found[worst])}).",
            f"Bags: {task.question} AutoPool learns a scale of {min(scale):.2f} to "
            f"{max(scale):.2f}; 0 is the average.",
        ]
    return [*lines, NOT_THE_SAME]


def draw(job: report.Job, results: Mapping[str, Any]) -> Path:
    """Draw the scores of every pool."""
    figure, axes = figures.panels(len(TASKS), (12, 4.2))
    for ax, task in zip(axes, TASKS, strict=True):
        found = {task.unit: results["score"][task.question]}
        figures.grouped_bars(ax, found, (figures.SKY,), "{:.3f}".format)
        good = "low" if task.lowest else "high"
        ax.set(title=task.question, xlabel=f"{task.unit} ({good} is good)")
        ax.margins(x=0.15)
    last = {
        task.lowest: " and ".join(report.leaders(scores, lowest=not task.lowest))
        for task, scores in zip(TASKS, results["score"].values(), strict=True)
    }
    title = (
        "Labels for whole bags of about 10 digits. "
        f"Last at finding a 9: {last[False]}; at the share of 9s: {last[True]}"
    )
    figures.headline(figure, f"{title}\nMean and range, seeds: {job.seeds}")
    return figures.save(figure, job, "papers_bags")
