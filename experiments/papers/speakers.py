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

from pathlib import Path

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
    return report.Finding(
        results={"masked": masked, "unmasked": bare},
        tables=[accuracy_table(masked, bare)],
        conclusion=conclude(masked, bare),
        files=[draw(job, masked, bare)],
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
            *(report.spread(s[name][test]) for s in (masked, bare) for test in tests),
        ]
        for name in masked
    ]
    return report.table("JapaneseVowels: who speaks?", columns, rows)


def conclude(masked: Scores, bare: Scores) -> list[str]:
    """Say what the numbers say."""
    usual, more = next(iter(masked.values()))
    best = report.verdict({name: s[usual] for name, s in masked.items()})
    lines = [f"speakers: best is {best}"]
    for name in masked:
        with_mask = np.mean(masked[name][usual])
        without, longer = (np.mean(bare[name][test]) for test in (usual, more))
        lines.append(
            f"speakers, {name}: accuracy {with_mask:.3f} with a mask, {without:.3f} "
            f"without, and then {longer:.3f} at twice the padding"
        )
    moved = max(abs(np.subtract(s[usual], s[more])).max() for s in masked.values())
    lines.append(
        f"speakers: with a mask, more padding moves no accuracy by over {moved:g}"
    )
    return lines


def draw(job: report.Job, masked: Scores, bare: Scores) -> Path:
    """Draw the accuracies with a mask and without."""
    usual, more = next(iter(masked.values()))
    figure, (ax,) = figures.panels(1, (8, 4.4))
    figures.grouped_bars(
        ax,
        {
            "masked": {name: s[usual] for name, s in masked.items()},
            "unmasked": {name: s[usual] for name, s in bare.items()},
            "unmasked, twice the padding": {name: s[more] for name, s in bare.items()},
        },
    )
    ax.set(
        title=f"JapaneseVowels: who speaks?\nmean and range, seeds: {job.seeds}",
        xlabel="test accuracy",
        xlim=(0, 1),
    )
    figures.legend_below(ax)
    return figures.save(figure, job, "papers_speakers")
