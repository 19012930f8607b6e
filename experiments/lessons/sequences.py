"""Sequences: when to use GlobalAveragePooling1D, when GlobalMaxPooling1D?

An LSTM reads sequences of different lengths, and its states are reduced over time by a
global average, a global maximum or by taking the last one. First on real data
(JapaneseVowels), with a mask and without, to show what padding does; then on two made
tasks where the answer is known: does a motif occur anywhere, and how often.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments.lessons import readers, sequence_data, sequence_tasks
from experiments.lessons.sequence_tasks import Task
from experiments.shared import figures, report, training

Scores = dict[str, dict[str, list[float]]]  # readout, test, one value per seed
Results = list[tuple[Task, Scores]]
CONSTANT = "best constant"
AVERAGE_OR_MAX = ("global average", "global max")
UNIT = "epochs"


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
        ],
        files=[draw_vowels(job, task, masked, bare), draw_motifs(job, made)],
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
    write = report.spread if task.lowest else report.percent
    shown = scores | {CONSTANT: sequence_tasks.constant(task)}
    rows = [
        [name, *(write(s[test]) for test in task.tests)] for name, s in shown.items()
    ]
    return report.table(task.question, [task.unit, *task.tests], rows)


def what_padding_does(task: Task, masked: Scores, bare: Scores) -> list[str]:
    """Say what a missing mask costs, and what more padding does then."""
    usual, more = task.tests
    moved = max(abs(np.subtract(s[usual], s[more])).max() for s in masked.values())
    lines = [
        f"{task.question} {name}: {report.percent(s[usual])} with a mask, "
        f"{report.percent(bare[name][usual])} without. With twice the padding: "
        f"{report.percent(s[more])} and {report.percent(bare[name][more])}."
        for name, s in masked.items()
    ]
    same = "changes no accuracy" if moved == 0 else f"moves some by {100 * moved:.1f} %"
    return [*lines, f"With a mask, twice the padding {same}."]


def answers(results: Results) -> list[str]:
    """Compare average and maximum, then all three, on every test of every task."""
    lines = []
    for task, scores in results:
        for test in task.tests:
            of_test = {name: s[test] for name, s in scores.items()}
            pair = {name: of_test[name] for name in AVERAGE_OR_MAX}
            asked = f"{task.question} ({test})"
            said = [report.verdict(s, lowest=task.lowest) for s in (pair, of_test)]
            lines += [f"{asked} {sentence}" for sentence in dict.fromkeys(said)]
    return lines


def by_test(task: Task, scores: Scores) -> figures.Series:
    """Turn readout, test into test, readout, in the unit of the task."""
    return {
        test: {name: list(task.scale * np.array(s[test])) for name, s in scores.items()}
        for test in task.tests
    }


def draw_vowels(job: report.Job, task: Task, masked: Scores, bare: Scores) -> Path:
    """Draw what the mask and the padding do on the real data."""
    figure, axes = figures.panels(len(task.tests), (9, 4.2), sharey=True)
    chance = task.scale * next(iter(sequence_tasks.constant(task).values()))[0]
    series = {"with a mask": by_test(task, masked), "without": by_test(task, bare)}
    for ax, test in zip(axes, task.tests, strict=True):
        bars = {name: tests[test] for name, tests in series.items()}
        figures.grouped_bars(ax, bars, (figures.BLUE, figures.GRAY), "{:.1f}".format)
        ax.axvline(chance, color="black", linestyle=":", label=CONSTANT)
        ax.set(title=f"{test} steps", xlabel="accuracy in %", xlim=(0, 125))
        ax.set_xticks(range(0, 101, 25))
    usual = next(iter(task.tests))
    costs = {
        name: 100 * (np.mean(s[usual]) - np.mean(bare[name][usual]))
        for name, s in masked.items()
    }
    worst = max(costs, key=costs.__getitem__)
    title = (
        f"Without a mask, the {worst} loses {costs[worst]:.1f} points\n"
        "Which of nine men speaks? Vowels of 7 to 29 steps; mean and range"
    )
    figures.headline(figure, f"{title}, seeds: {job.seeds}")
    figures.legend_below(axes[0])
    return figures.save(figure, job, "sequences_vowels")


def draw_motifs(job: report.Job, results: Results) -> Path:
    """Draw the tasks with a known answer: an example of each, and the scores."""
    layout = [["0 example", "1 example"], ["0 scores", "1 scores"]]
    figure, axes = figures.mosaic(layout, (11, 6), height_ratios=(1, 7))
    for i, (task, scores) in enumerate(results):
        draw_example(axes[f"{i} example"], task)
        ax = axes[f"{i} scores"]
        shown = scores | {CONSTANT: sequence_tasks.constant(task)}
        digits = "{:.3f}" if task.lowest else "{:.1f}"
        colors = figures.GREEN, figures.PURPLE
        figures.grouped_bars(ax, by_test(task, shown), colors, digits.format)
        good = " (low is good)" if task.lowest else " in % (high is good)"
        ax.set_xlabel(task.unit + good)
        ax.margins(x=0.15)
    best = [
        report.leaders(
            {name: np.mean([*s.values()], 0) for name, s in scores.items()},
            lowest=task.lowest,
        )
        for task, scores in results
    ]
    find, count = (" and ".join(names) for names in best)
    title = f"Best after an LSTM: to find a motif, {find}; to count it, {count}"
    figures.headline(figure, f"{title}\nMean and range, seeds: {job.seeds}")
    figures.legend_below(ax)
    return figures.save(figure, job, "sequences_motif")


def draw_example(ax: Axes, task: Task) -> None:
    """Draw the letters of one short sequence of a task, with its motifs marked."""
    lengths = task.train.inputs[1]
    row = int(np.flatnonzero((lengths == lengths.min()) & (task.train.target > 0))[0])
    text = sequence_data.spelling(task.train, row)
    motif = sequence_data.MOTIF
    for start in range(len(text)):
        if text.startswith(motif, start):
            ax.axvspan(start - 0.5, start + len(motif) - 0.5, color=figures.ORANGE)
    for step, letter in enumerate(text):
        ax.text(step, 0, letter, ha="center", va="center_baseline", family="monospace")
    ax.set(xlim=(-0.5, len(text) - 0.5), ylim=(-1, 1), xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    answer = f"{task.train.target[row]:.3g} per 10 steps" if task.lowest else "yes"
    ax.set(title=task.question, xlabel=f"Answer here: {answer}")
