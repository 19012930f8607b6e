"""Training, prediction and step timing for any Flax NNX model.

A model is called as `model(*inputs)`; data is a pair `(inputs, target)` of NumPy arrays
with one row per example, `inputs` being a tuple.
"""

import functools
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import jax
import numpy as np
import optax
from flax import nnx

Build = Callable[[nnx.Rngs], nnx.Module]
Loss = Callable[[jax.Array, jax.Array], jax.Array]
T = TypeVar("T")
Name = TypeVar("Name", bound=Hashable)
Inputs = tuple[np.ndarray, ...]


class Data(NamedTuple):
    """Examples: a tuple of input arrays and the target, one row per example."""

    inputs: Inputs
    target: np.ndarray

    def rows(self, rows: np.ndarray) -> "Data":
        """Return the examples of the given row numbers."""
        return Data(tuple(x[rows] for x in self.inputs), self.target[rows])


class Recipe(NamedTuple):
    """How to train: loss, number of epochs, batch size, Adam's first learning rate."""

    loss: Loss
    epochs: int
    batch_size: int
    learning_rate: float

    def optimiser(self, examples: int) -> optax.GradientTransformation:
        """Adam under a cosine schedule that ends at zero."""
        return _adam(self.learning_rate, self.epochs * (examples // self.batch_size))


@functools.cache  # one object for equal settings, so that nothing compiles twice
def _adam(learning_rate: float, steps: int) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(learning_rate, steps))


@nnx.jit(static_argnames="loss")
def train_step(
    model: nnx.Module, optimizer: nnx.Optimizer, loss: Loss, data: Data
) -> jax.Array:
    """Make one gradient step in place and return the loss before it."""

    def objective(model: nnx.Module) -> jax.Array:
        return loss(model(*data.inputs), data.target).mean()

    value, gradient = nnx.value_and_grad(objective)(model)
    optimizer.update(model, gradient)
    return value


@nnx.jit
def _apply(model: nnx.Module, inputs: Inputs) -> jax.Array:
    return model(*inputs)


def predict(model: nnx.Module, inputs: Inputs) -> np.ndarray:
    """Return the model's outputs as a NumPy array."""
    return np.asarray(_apply(model, inputs))


def train(
    build: Build,
    recipe: Recipe,
    data: Data,
    *,
    seeds: int,
    on_epoch: Callable[[], None],
) -> list[nnx.Module]:
    """Train one model per seed; the seed decides the weights and the batches."""
    optimiser = recipe.optimiser(len(data.target))
    models = []
    for seed in range(seeds):
        model = build(nnx.Rngs(seed))
        step = _stepper(model, optimiser, recipe.loss)
        for rows in _batches(seed, len(data.target), recipe, on_epoch):
            step(data.rows(rows))
        models.append(model)
    return models


def for_each(names: Iterable[str], work: Callable[[str], T]) -> dict[str, T]:
    """Do independent work for every name, two at a time: compiling uses one core."""
    names = list(names)
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(names, pool.map(work, names), strict=True))


def _stepper(
    model: nnx.Module, optimiser: optax.GradientTransformation, loss: Loss
) -> Callable[[Data], jax.Array]:
    """Return a fast `step(data)` that trains `model` in place."""
    optimizer = nnx.Optimizer(model, optimiser, wrt=nnx.Param)
    # cached_partial spares the walk over the model in Python at every step.
    cached = nnx.cached_partial(train_step, model, optimizer)
    return lambda data: cached(loss, data)


def _batches(
    seed: int, size: int, recipe: Recipe, on_epoch: Callable[[], None]
) -> Iterator[np.ndarray]:
    """Yield the row numbers of every batch of every epoch, shuffled by the seed."""
    shuffle = np.random.default_rng(seed)
    whole = size // recipe.batch_size * recipe.batch_size
    for _ in range(recipe.epochs):
        order = shuffle.permutation(size)[:whole]
        yield from order.reshape(-1, recipe.batch_size)
        on_epoch()


def compare_steps(
    builds: Mapping[Name, Build],
    recipe: Recipe,
    data: Data,
    *,
    warm_up: int,
    rounds: int,
) -> tuple[dict[Name, list[float]], dict[Name, list[float]]]:
    """Time a training step of several models, taking turns so that noise is shared.

    Returns the losses of the first `warm_up` steps (the first one compiles) and the
    seconds of `rounds` later ones, for each model; all steps see the same batch.
    """
    optimiser = recipe.optimiser(len(data.target))
    batch = data.rows(np.arange(recipe.batch_size))
    steps = {
        name: _stepper(build(nnx.Rngs(0)), optimiser, recipe.loss)
        for name, build in builds.items()
    }
    losses = {
        n: [float(step(batch)) for _ in range(warm_up)] for n, step in steps.items()
    }
    seconds: dict[Name, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            step(batch).block_until_ready()
            seconds[name].append(time.perf_counter() - begin)
    return losses, seconds
