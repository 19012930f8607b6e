"""The questions put to sequences: data, loss, score and effort of each."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax

from experiments.lessons import sequence_data
from experiments.shared.report import Job
from experiments.shared.training import Data, Loss

PADDED, PADDED_MORE = 72, 144  # steps; the longest vowel has 29
SHORT, LONG = (5, 10), (40, 50)  # blocks of 4 steps in a text with motifs


class Task(NamedTuple):
    """A question to sequences; `tests` are data sets by their names."""

    question: str
    train: Data
    tests: Mapping[str, Data]
    outputs: int
    loss: Loss
    score: Callable[[np.ndarray, np.ndarray], float]
    epochs: int
    batch_size: int

    @property
    def unit(self) -> str:
        """Name the score."""
        return "mean error per 10 steps" if self.lowest else "accuracy"

    @property
    def scale(self) -> float:
        """What a score is multiplied with to have its unit."""
        return 1 if self.lowest else 100

    @property
    def lowest(self) -> bool:
        """Whether a low score is good."""
        return self.score is mean_error


def accuracy(outputs: np.ndarray, target: np.ndarray) -> float:
    """Return the share of sequences whose highest output is right."""
    return float((outputs.argmax(1) == target).mean())


def mean_error(outputs: np.ndarray, target: np.ndarray) -> float:
    """Return the mean absolute error of the one output."""
    return float(abs(outputs[:, 0] - target).mean())


def squared_error(outputs: jax.Array, target: jax.Array) -> jax.Array:
    """Return the squared error of the one output."""
    return optax.squared_error(outputs[:, 0], target)


def vowels(job: Job) -> Task:
    """Return the real task; tested also with twice the padding."""
    train, test = sequence_data.japanese_vowels(PADDED)
    more = sequence_data.pad_more(test, PADDED_MORE)
    return Task(
        "Who speaks?",
        train,
        {f"padded to {PADDED}": test, f"padded to {PADDED_MORE}": more},
        9,
        optax.softmax_cross_entropy_with_integer_labels,
        accuracy,
        job.full_or_quick(40, 10),
        30,
    )


def unmasked(task: Task) -> Task:
    """Return the task with padding passed off as data: every step counts as valid."""

    def all_valid(data: Data) -> Data:
        x, lengths = data.inputs
        return Data((x, np.full_like(lengths, x.shape[1])), data.target)

    tests = {name: all_valid(test) for name, test in task.tests.items()}
    return task._replace(train=all_valid(task.train), tests=tests)


def motifs(job: Job) -> list[Task]:
    """Return the two tasks with a known answer; tested also on longer sequences."""

    def task(question: str, make: Callable[..., Data], outputs: int, loss, score):
        longer = make(2, 500, LONG)
        # One shape for both tests, so that one compilation serves them.
        usual = sequence_data.pad_more(make(1, 500, SHORT), longer.inputs[0].shape[1])
        tests = {_steps(SHORT): usual, _steps(LONG): longer}
        train = make(0, 1280, SHORT)
        epochs = job.full_or_quick(20, 8)
        return Task(question, train, tests, outputs, loss, score, epochs, 64)

    loss = optax.softmax_cross_entropy_with_integer_labels
    anywhere, how_often = sequence_data.anywhere, sequence_data.how_often
    return [
        task("Does the motif occur anywhere?", anywhere, 2, loss, accuracy),
        task("How often does it occur?", how_often, 1, squared_error, mean_error),
    ]


def _steps(blocks: tuple[int, int]) -> str:
    """Say how long texts of so many blocks are."""
    low, high = (sequence_data.BLOCK * number for number in blocks)
    return f"{low} to {high} steps"


def constant(task: Task) -> dict[str, list[float]]:
    """Score the best answer that does not look at the sequence, for comparison."""
    answer = task.train.target
    answer = np.bincount(answer) if task.outputs > 1 else answer.mean(keepdims=True)
    return {
        name: [task.score(np.tile(answer, (len(test.target), 1)), test.target)]
        for name, test in task.tests.items()
    }
