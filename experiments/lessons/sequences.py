"""Sequences: when to use GlobalAveragePooling1D, when GlobalMaxPooling1D?

An LSTM reads sequences of different lengths, and its states are reduced over time by a
global average, a global maximum or by taking the last one. First on real data
(JapaneseVowels), with a mask and without, to show what padding does; then on two made
tasks where the answer is known: does a motif occur anywhere, and how often.
"""

from pathlib import Path

import numpy as np
from rich.table import Table

from experiments.lessons import readers, sequence_tasks
from experiments.lessons.sequence_tasks import Task
from experiments.shared import figures, report, training

Scores = dict[str, dict[str, list[float]]]  # readout, test, one value per seed
Results = list[tuple[Task, Scores]]
CONSTANT = "best constant"


def ticks(job: report.Job) -> int:
    """One tick per epoch."""
    real, made = sequence_tasks.vowels(job), sequence_tasks.motifs(job)
    epochs = 2 * real.epochs + sum(task.epochs for task in made)
    return job.seeds * len(readers.READOUTS) * epochs


def run(job: report.Job) -> report.Finding:
    """Train every reader on every task."""
    task = sequence_tasks.vowels(job)
    masked = fit(job, task)
    bare = fit(job, sequence_tasks.unmasked(task))
    name, test = next(iter(task.tests.items()))
    usual = task._replace(tests={name: test})
    made = [(task, fit(job, task)) for task in sequence_tasks.motifs(job)]
    both = {f"{name}, masked": s for name, s in masked.items()}
    both |= {f"{name}, unmasked": s for name, s in bare.items()}
    return report.Finding(
        results={
            task.question: scores | {CONSTANT: sequence_tasks.constant(task)}
            for task, scores in [(task, both), *made]
        },
        tables=[score_table(*pair) for pair in [(task, both), *made]],
        conclusion=[
            *what_padding_does(task, masked, bare),
            *answers([(usual, masked), *made]),
            *average_or_max([(usual, masked), *made]),
        ],
        files=[draw_vowels(job, task, both), draw_motifs(job, made)],
    )


def fit(job: report.Job, task: Task) -> Scores:
    """Train one model per readout and seed, and score them on every test."""
    features = task.train.inputs[0].shape[2]
    recipe = training.Recipe(task.loss, task.epochs, task.batch_size, 1e-2)

    def one(readout: str) -> dict[str, list[float]]:
        job.say(f"{task.question} {readout}")
        make = readers.build(features, task.outputs, readout)
        models = training.train(
            make, recipe, task.train, seeds=job.seeds, on_epoch=job.tick
        )
        return {
            name: [task.score(training.predict(m, t.inputs), t.target) for m in models]
            for name, t in task.tests.items()
        }

    return training.for_each(readers.READOUTS, one)


def score_table(task: Task, scores: Scores) -> Table:
    """Show the scores as mean and spread over the seeds."""
    rows = [[r, *(report.spread(s[t]) for t in task.tests)] for r, s in scores.items()]
    guess = sequence_tasks.constant(task)
    rows.append([CONSTANT, *(report.spread(guess[t]) for t in task.tests)])
    return report.table(task.question, [task.unit, *task.tests], rows)


def what_padding_does(task: Task, masked: Scores, bare: Scores) -> list[str]:
    """Say what a missing mask costs, and what more padding does then."""
    usual, more = task.tests
    moved = max(abs(np.subtract(s[usual], s[more])).max() for s in masked.values())
    lines = [
        f"mask, {task.question} {r}: accuracy {np.mean(masked[r][usual]):.3f} with, "
        f"{np.mean(bare[r][usual]):.3f} without, and then "
        f"{np.mean(bare[r][more]):.3f} at twice the padding"
        for r in masked
    ]
    return [
        *lines,
        f"with a mask, twice the padding moves no accuracy by over {moved:g}",
    ]


def answers(results: Results) -> list[str]:
    """Say which of the three is best for every task and test."""
    return [
        f"best, {task.question} {test}: "
        + report.verdict({r: s[test] for r, s in scores.items()}, lowest=task.lowest)
        for task, scores in results
        for test in task.tests
    ]


def average_or_max(results: Results) -> list[str]:
    """Answer the question of this part: what wins on every test of a task."""
    pair = ("global average", "global max")
    lines = []
    for task, scores in results:
        ahead = [
            report.leaders({r: scores[r][test] for r in pair}, lowest=task.lowest)
            for test in task.tests
        ]
        clear = all(names == ahead[0][:1] for names in ahead)
        said = ahead[0][0] if clear else "no clear winner"
        lines.append(f"average or max? {task.question} {said}")
    return lines


def by_test(scores: Scores) -> figures.Series:
    """Turn readout, test into test, readout."""
    tests = next(iter(scores.values()))
    return {test: {name: s[test] for name, s in scores.items()} for test in tests}


def draw_vowels(job: report.Job, task: Task, scores: Scores) -> Path:
    """Draw what the mask and the padding do on the real data."""
    figure, (ax,) = figures.panels(1, (9, 5))
    figures.grouped_bars(ax, by_test(scores))
    chance = next(iter(sequence_tasks.constant(task).values()))[0]
    ax.axvline(chance, color="0.3", linestyle=":", label=CONSTANT)
    ax.set(
        title=f"JapaneseVowels: {task.question} 7 to 29 steps, padded with zeros\n"
        f"mean and range, seeds: {job.seeds}",
        xlabel="test accuracy",
        xlim=(0, 1.02),
    )
    figures.legend_below(ax)
    return figures.save(figure, job, "sequences_vowels")


def draw_motifs(job: report.Job, results: Results) -> Path:
    """Draw the scores of the tasks with a known answer."""
    figure, axes = figures.panels(len(results), (12, 4.6))
    for ax, (task, scores) in zip(axes, results, strict=True):
        shown = scores | {CONSTANT: sequence_tasks.constant(task)}
        figures.grouped_bars(ax, by_test(shown))
        ax.set(
            title=f"{task.question}\nmean and range, seeds: {job.seeds}",
            xlabel=f"{task.unit} ({'low' if task.lowest else 'high'} is good)",
        )
        figures.legend_below(ax)
    return figures.save(figure, job, "sequences_motif")
