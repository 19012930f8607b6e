"""Speakers: which statistics of an utterance say who speaks, masked and padded?

D. Snyder and others, "X-vectors: Robust DNN Embeddings for Speaker Recognition", ICASSP
2018, describe an utterance by the mean and the standard deviation of its frames. K.
Okabe, T. Koshinaka, K. Shinoda, "Attentive Statistics Pooling for Deep Speaker
Embedding", Interspeech 2018, https://arxiv.org/abs/1803.10963, weight the frames by
attention. Here the two, the mean and the maximum end a small network for
JapaneseVowels: 9 speakers, 270 utterances for training and 370 for testing, of 7 to 29
frames, padded to 72 with zeros.

Nothing is set as in the papers, which verify thousands of speakers and report equal
error rates. So no published figure is set beside ours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from rich.table import Table

import jaxpool
from experiments.lessons import sequence_tasks
from experiments.lessons.sequence_tasks import Task
from experiments.shared import figures, report, training

Scores = dict[str, dict[str, list[float]]]  # statistics, test, one value per seed
FEATURES, SPEAKERS, WIDTH = 12, 9, 32
TIME = jaxpool.whole(1)
NOT_THE_SAME = (
    "Who speaks: no published number has this setting: the papers verify thousands of "
    "speakers."
)
EPS = 1e-6  # under the roots: frames that are all equal


class Mean(nnx.Module):
    """The mean of the frames."""

    sizes = 1  # of the result, in units of the width

    def __init__(self, rngs: nnx.Rngs):
        """Nothing is learned."""

    def __call__(self, frames: jax.Array, valid: jax.Array) -> jax.Array:
        """Map `[utterance, frame, feature]` to `[utterance, statistic]`."""
        return jaxpool.aggregate(frames, "avg", TIME, where=valid)


class Max(Mean):
    """The maximum over the frames."""

    def __call__(self, frames: jax.Array, valid: jax.Array) -> jax.Array:
        """Map frames to statistics."""
        return jaxpool.aggregate(frames, "max", TIME, where=valid)


class MeanAndDeviation(Mean):
    """The mean and the standard deviation: statistics pooling."""

    sizes = 2

    def __call__(self, frames: jax.Array, valid: jax.Array) -> jax.Array:
        """Map frames to statistics."""
        by = "avg", jaxpool.StandardDeviation(eps=EPS)
        pooled = jaxpool.aggregate(frames, by, TIME, where=valid)
        return jnp.concatenate(pooled, axis=-1)


class AttentiveStatistics(nnx.Module):
    """The mean and the standard deviation, weighted by attention."""

    sizes = 2

    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.logits = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, frames: jax.Array, valid: jax.Array) -> jax.Array:
        """Map frames to statistics."""
        weighted = jaxpool.Softmax(self.logits(jnp.tanh(self.hidden(frames))))
        mean = jaxpool.aggregate(frames, weighted, TIME, where=valid)
        squares = (frames - mean[:, None]) ** 2
        variance = jaxpool.aggregate(squares, weighted, TIME, where=valid)
        return jnp.concatenate([mean, jnp.sqrt(variance + EPS)], axis=-1)


STATISTICS = {
    "mean": Mean,
    "max": Max,
    "mean and deviation": MeanAndDeviation,
    "attentive statistics": AttentiveStatistics,
}


class Network(nnx.Module):
    """Two layers for each frame, statistics of the frames, and a classifier."""

    def __init__(self, statistics: str, rngs: nnx.Rngs):
        self.first = nnx.Linear(FEATURES, WIDTH, rngs=rngs)
        self.second = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.statistics = STATISTICS[statistics](rngs)
        self.out = nnx.Linear(self.statistics.sizes * WIDTH, SPEAKERS, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Return the scores of the speakers for `x: [utterance, frame, feature]`."""
        frames = nnx.relu(self.second(nnx.relu(self.first(x))))
        valid = jnp.arange(x.shape[1])[:, None] < lengths[:, None, None]
        return self.out(self.statistics(frames, valid))


def names(job: report.Job) -> list[str]:
    """The statistics to compare; a quick run takes two of them."""
    return ["mean", "attentive statistics"] if job.quick else list(STATISTICS)


def ticks(job: report.Job) -> int:
    """One tick per epoch."""
    epochs = sequence_tasks.vowels(job).epochs
    return 2 * len(names(job)) * job.seeds * epochs


def run(job: report.Job) -> report.Finding:
    """Train every network with the mask, then with padding as if it were data."""
    task = sequence_tasks.vowels(job)
    masked = fit(job, task, "masked")
    bare = fit(job, sequence_tasks.unmasked(task), "unmasked")
    results = {"masked": masked, "unmasked": bare}
    return report.Finding(
        results=results,
        tables=[accuracy_table(masked, bare)],
        conclusion=conclude(masked, bare),
        files=[draw(job, results)],
    )


def fit(job: report.Job, task: Task, label: str) -> Scores:
    """Train one network per kind of statistics and seed, and test it."""
    recipe = training.Recipe(task.loss, task.epochs, task.batch_size, 1e-2)

    def one(statistics: str) -> dict[str, list[float]]:
        job.say(f"speakers, {label}: {statistics}")
        models = training.train(
            lambda rngs: Network(statistics, rngs),
            recipe,
            task.train,
            seeds=job.seeds,
            on_epoch=job.tick,
        )
        return {
            name: [task.score(training.predict(m, t.inputs), t.target) for m in models]
            for name, t in task.tests.items()
        }

    return training.for_each(names(job), one)


def accuracy_table(masked: Scores, bare: Scores) -> Table:
    """Show the accuracies on both tests."""
    tests = next(iter(masked.values()))
    columns = ["test accuracy"]
    columns += [f"{way}, {test}" for way in ("masked", "unmasked") for test in tests]
    rows = [
        [
            name,
            *(report.percent(s[name][test]) for s in (masked, bare) for test in tests),
        ]
        for name in masked
    ]
    return report.table("JapaneseVowels: who speaks?", columns, rows)


def conclude(masked: Scores, bare: Scores) -> list[str]:
    """Say what the numbers say."""
    usual, more = next(iter(masked.values()))
    best = report.verdict({name: s[usual] for name, s in masked.items()})
    lines = [f"Who speaks? {best}"]
    lines += [
        f"Who speaks, by {name}: {report.percent(s[usual])} with a mask, "
        f"{report.percent(bare[name][usual])} without, and then "
        f"{report.percent(bare[name][more])} at twice the padding."
        for name, s in masked.items()
    ]
    moved = max(abs(np.subtract(s[usual], s[more])).max() for s in masked.values())
    same = "changes no accuracy" if moved == 0 else f"moves some by {100 * moved:.1f} %"
    return [*lines, f"With a mask, twice the padding {same}.", NOT_THE_SAME]


def draw(job: report.Job, results: Mapping[str, Any]) -> Path:
    """Draw the accuracies with a mask and without."""
    usual, more = next(iter(results["masked"].values()))
    series = {
        "with a mask": ("masked", usual),
        "without": ("unmasked", usual),
        "without, tested with twice the padding": ("unmasked", more),
    }
    figure, (ax,) = figures.panels(1, (9, 4.8))
    bars = {
        label: {name: 100 * np.array(s[test]) for name, s in results[way].items()}
        for label, (way, test) in series.items()
    }
    colors = figures.BLUE, figures.GRAY, figures.ORANGE
    figures.grouped_bars(ax, bars, colors, "{:.1f}".format)
    ax.set(xlabel="test accuracy in %", xlim=(0, 110))
    ax.set_xticks(range(0, 101, 25))
    costs = {
        name: 100 * (np.mean(s[usual]) - np.mean(s[more]))
        for name, s in results["unmasked"].items()
    }
    worst = max(costs, key=costs.__getitem__)
    title = (
        f"Without a mask, twice the padding costs the {worst} {costs[worst]:.1f} "
        "points\nWhich of nine men speaks? Mean and range"
    )
    figures.headline(figure, f"{title}, seeds: {job.seeds}")
    figures.legend_below(ax, columns=3)
    return figures.save(figure, job, "papers_speakers")
