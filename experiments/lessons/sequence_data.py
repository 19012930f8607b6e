"""Sequences of different lengths: real vowels, and made ones whose answer is known.

Every loader returns `training.Data` with inputs `(x, lengths)`: `x` is
`[example, time, feature]`, zero after the length of its sequence.
"""

import numpy as np
from sktime.datasets import load_japanese_vowels

from experiments.shared.training import Data

MOTIF = "abc"
LETTERS = "abcdef"
BLOCK = 4  # three letters, then one letter that no motif contains


def pad(sequences: list[np.ndarray], length: int, target: np.ndarray) -> Data:
    """Fill sequences with zeros up to one length."""
    x = np.zeros((len(sequences), length, sequences[0].shape[1]), np.float32)
    for row, sequence in zip(x, sequences, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    return Data((x, lengths), target)


def pad_more(data: Data, length: int) -> Data:
    """Return the same sequences with more zeros after them."""
    x, lengths = data.inputs
    more = ((0, 0), (0, length - x.shape[1]), (0, 0))
    return Data((np.pad(x, more), lengths), data.target)


def japanese_vowels(length: int) -> tuple[Data, Data]:
    """Return the training and test speakers' vowels, standardised and padded.

    Nine men say two vowels; 12 features a step, 7 to 29 steps; the question is who
    speaks. sktime carries the data set inside its wheel.
    """
    train, speakers = _vowels("train")
    test, test_speakers = _vowels("test")
    steps = np.concatenate(train)
    mean, scale = steps.mean(0), steps.std(0)

    def ready(sequences: list[np.ndarray], target: np.ndarray) -> Data:
        return pad([(s - mean) / scale for s in sequences], length, target)

    return ready(train, speakers), ready(test, test_speakers)


def _vowels(split: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Read one split as a list of `[time, feature]` and the speakers 0 to 8."""
    frame, speaker = load_japanese_vowels(split=split, return_X_y=True)
    columns = frame.to_numpy()
    return [np.stack(list(row), axis=-1) for row in columns], speaker.astype(int) - 1


def anywhere(seed: int, count: int, blocks: tuple[int, int]) -> Data:
    """Make sequences with the motif once (target 1) or not at all (target 0)."""
    random = np.random.default_rng(seed)
    target = np.arange(count) % 2
    texts = [_text(random, _size(random, blocks), int(once)) for once in target]
    return _spelled(texts, blocks, target.astype(np.int32))


def how_often(seed: int, count: int, blocks: tuple[int, int]) -> Data:
    """Make sequences with the motif now and then; the target is how often.

    The target counts occurrences per 10 steps, so it does not grow with the length.
    """
    random = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        size = _size(random, blocks)
        texts.append(_text(random, size, round(random.uniform(0, 0.8) * size)))
    target = np.array([10 * text.count(MOTIF) / len(text) for text in texts])
    return _spelled(texts, blocks, target.astype(np.float32))


def spelling(data: Data, row: int) -> str:
    """Return the letters of one sequence."""
    x, lengths = data.inputs
    return "".join(LETTERS[code] for code in x[row, : lengths[row]].argmax(1))


def _size(random: np.random.Generator, blocks: tuple[int, int]) -> int:
    """Draw a number of blocks, both ends included."""
    return int(random.integers(blocks[0], blocks[1] + 1))


def _text(random: np.random.Generator, size: int, motifs: int) -> str:
    """Make a text of `size` blocks, `motifs` of them the motif, others like it."""
    is_motif = random.permutation(size) < motifs
    return "".join(
        (MOTIF if found else _distractor(random)) + random.choice(list("def"))
        for found in is_motif
    )


def _distractor(random: np.random.Generator) -> str:
    """Draw three letters of the motif in any combination but the motif itself."""
    while (letters := "".join(random.choice(list(MOTIF), 3))) == MOTIF:
        pass
    return letters


def _spelled(texts: list[str], blocks: tuple[int, int], target: np.ndarray) -> Data:
    """Turn letters into one-hot features."""
    code = np.eye(len(LETTERS), dtype=np.float32)
    sequences = [code[[LETTERS.index(letter) for letter in text]] for text in texts]
    return pad(sequences, BLOCK * blocks[1], target)
