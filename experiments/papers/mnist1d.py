"""MNIST-1D: which pool between convolutions, with few examples and with more?

The notebook `benchmark-pooling` of S. Greydanus and D. Kobak, "Scaling down deep
learning with MNIST-1D", ICML 2024, https://arxiv.org/abs/2011.14439, trains a network
of two convolutions with five ways to down-sample. Its log has the test accuracies.

The same here: data (their generator, seed 42), network, initialisation, loss, Adam at
0.01, batches of 100 in a fixed order, the last 1000 examples for testing. Not the same:
3000 steps, not 6000 (the log has the accuracies at 3000, too); 5 seeds of the weights,
not one; JAX, not PyTorch, so other random weights; four more pools.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from mnist1d.data import get_dataset_args, make_dataset
from rich.table import Table

import jaxpool
import jaxpool.nnx
from experiments.shared import figures, report, training

Layer = Callable[[jax.Array], jax.Array]
Scores = dict[str, list[float]]  # pool, one accuracy per seed
SIZES = (1000, 5000)
TESTED, BATCH, CHANNELS, LENGTH = 1000, 100, 20, 40
CHUNK = 500  # steps of one call of the compiled loop
OPTIMISER = optax.adam(1e-2)
# Test accuracies at step 3000 in the log of the notebook, from one seed.
NONE, STRIDE = "no pooling", "stride 2"
MAX, AVERAGE, LP = "max", "average", "Lp (p = 2)"
PUBLISHED = {
    1000: {NONE: 0.599, STRIDE: 0.570, MAX: 0.782, AVERAGE: 0.776, LP: 0.773},
    5000: {NONE: 0.897, STRIDE: 0.884, MAX: 0.937, AVERAGE: 0.933, LP: 0.940},
}
NOT_THE_SAME = (
    "MNIST-1D: 3000 steps, beside the log of the notebook at step 3000; it goes on to "
    "6000. JAX draws other weights."
)
LEARNED = "power mean, learned p"


def nothing(x: jax.Array) -> jax.Array:
    """Pool nothing."""
    return x


def log_mean_exp(x: jax.Array) -> jax.Array:
    """A smooth maximum that keeps a constant, where log-sum-exp adds log 2."""
    return jaxpool.aggregate(x, jaxpool.LogSumExp(mean=True), jaxpool.windows((2,)))


def learned_power_mean() -> Layer:
    """A power mean with an exponent for each channel, at first 3 as in GeM."""
    exponents = nnx.Param(jnp.full(CHANNELS, 3.0))
    return jaxpool.nnx.PowerMeanPool((2,), p=exponents, eps=1e-6)


POOLS: dict[str, Callable[[], Layer]] = {
    NONE: lambda: nothing,
    STRIDE: lambda: nothing,
    MAX: lambda: jaxpool.nnx.MaxPool((2,)),
    AVERAGE: lambda: jaxpool.nnx.AvgPool((2,)),
    LP: lambda: jaxpool.nnx.LpPool((2,), p=2.0),
    "softmax": lambda: jaxpool.nnx.SoftmaxPool((2,)),
    "log-sum-exp": lambda: jaxpool.nnx.LogSumExpPool((2,)),
    "log-mean-exp": lambda: log_mean_exp,
    LEARNED: learned_power_mean,
}


class Convolution(nnx.Module):
    """A convolution of width 3 as a product of matrices, initialised as by PyTorch.

    XLA's own convolutions take 3 to 5 times as long inside a loop on a CPU.
    """

    def __init__(self, inputs: int, stride: int, *, rngs: nnx.Rngs):
        self.stride = stride
        self.product = linear(3 * inputs, CHANNELS, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[batch, length, channels]`, with one zero at each end."""
        length = x.shape[1]
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
        shifted = [padded[:, k : k + length : self.stride] for k in range(3)]
        return self.product(jnp.concatenate(shifted, axis=-1))


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A linear layer with PyTorch's weights: uniform up to 1 / sqrt(inputs)."""
    uniform = nnx.initializers.uniform(2 / inputs**0.5)

    def centred(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return uniform(key, shape, dtype) - 1 / inputs**0.5

    return nnx.Linear(
        inputs, outputs, kernel_init=centred, bias_init=centred, rngs=rngs
    )


class Network(nnx.Module):
    """The notebook's `ConvPooling`: two convolutions, each pooled, and a classifier."""

    def __init__(self, pool: str, rngs: nnx.Rngs):
        stride = 2 if pool == STRIDE else 1
        length = LENGTH if pool == NONE else LENGTH // 4
        self.first = Convolution(1, stride, rngs=rngs)
        self.second = Convolution(CHANNELS, stride, rngs=rngs)
        self.first_pool, self.second_pool = POOLS[pool](), POOLS[pool]()
        self.out = linear(length * CHANNELS, 10, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the scores of the ten classes for `x: [batch, length, 1]`."""
        x = self.first_pool(nnx.relu(self.first(x)))
        x = self.second_pool(nnx.relu(self.second(x)))
        return self.out(x.reshape(x.shape[0], -1))


def pools(job: report.Job) -> list[str]:
    """The pools to compare; a quick run takes three of them."""
    return [NONE, MAX, LEARNED] if job.quick else list(POOLS)


def sizes(job: report.Job) -> tuple[int, ...]:
    """The numbers of examples to train on."""
    return SIZES[: job.full_or_quick(2, 1)]


def steps(job: report.Job) -> int:
    """The number of training steps."""
    return job.full_or_quick(3000, CHUNK)


def ticks(job: report.Job) -> int:
    """One tick per call of the compiled loop."""
    return len(sizes(job)) * len(pools(job)) * job.seeds * (steps(job) // CHUNK)


def run(job: report.Job) -> report.Finding:
    """Train every network on every number of examples."""
    scores, exponents = {}, {}
    for size in sizes(job):
        train, test = load_data(size)

        def one(pool: str, size=size, train=train) -> list[Network]:
            job.say(f"MNIST-1D, {size}: {pool}")
            return [fit(job, pool, train, seed) for seed in range(job.seeds)]

        models = training.for_each(pools(job), one)
        scores[size] = {
            pool: [accuracy(model, test) for model in trained]
            for pool, trained in models.items()
        }
        exponents[size] = [learned_exponents(model) for model in models[LEARNED]]
    results = {
        "steps": steps(job),
        "accuracy": scores,
        "published": PUBLISHED,
        "learned_exponents": exponents,
    }
    return report.Finding(
        results=results,
        tables=[accuracy_table(scores)],
        conclusion=conclude(scores, exponents),
        files=[draw(job, results)],
    )


def load_data(size: int) -> tuple[training.Data, training.Data]:
    """Generate `size` examples for training, and those for testing."""
    arguments = get_dataset_args()
    arguments.num_samples = size + TESTED
    arguments.train_split = size / arguments.num_samples
    made = make_dataset(arguments)

    def ready(x: str, y: str) -> training.Data:
        return training.Data((made[x][..., None].astype(np.float32),), made[y])

    return ready("x", "y"), ready("x_test", "y_test")


def fit(job: report.Job, pool: str, train: training.Data, seed: int) -> Network:
    """Train one network; the seed decides its weights."""
    graph, weights = nnx.split(Network(pool, nnx.Rngs(seed)))
    state = weights, OPTIMISER.init(weights)
    for begin in range(0, steps(job), CHUNK):
        state = train_steps(graph, state, train, begin)
        job.tick()
    return nnx.merge(graph, state[0])


@partial(jax.jit, static_argnames="graph")
def train_steps(
    graph: nnx.GraphDef, state: optax.Params, train: training.Data, begin: int
) -> optax.Params:
    """Make the next steps in one compiled loop; `state` is weights and optimiser's."""

    def step(state: optax.Params, number: jax.Array) -> tuple[optax.Params, None]:
        weights, moments = state
        first = number * BATCH % len(train.target)
        batch = jax.tree.map(
            lambda a: jax.lax.dynamic_slice_in_dim(a, first, BATCH), train
        )
        gradient = jax.grad(partial(loss, graph))(weights, batch)
        updates, moments = OPTIMISER.update(gradient, moments)
        return (optax.apply_updates(weights, updates), moments), None

    return jax.lax.scan(step, state, begin + jnp.arange(CHUNK))[0]


def loss(graph: nnx.GraphDef, weights: nnx.State, batch: training.Data) -> jax.Array:
    """Return the mean cross entropy of a batch."""
    scores = nnx.merge(graph, weights)(*batch.inputs)
    each = optax.softmax_cross_entropy_with_integer_labels(scores, batch.target)
    return each.mean()


def accuracy(model: Network, test: training.Data) -> float:
    """Return the share of examples whose highest score is right."""
    scores = training.predict(model, test.inputs)
    return float((scores.argmax(1) == test.target).mean())


def learned_exponents(model: Network) -> list[list[float]]:
    """Return the exponents of both power means."""
    return [pool.p[...].tolist() for pool in (model.first_pool, model.second_pool)]


def published(size: int, pool: str) -> str:
    """Return the accuracy in the log of the notebook, as text."""
    if pool not in PUBLISHED[size]:
        return "-"
    return report.percent([PUBLISHED[size][pool]])


def accuracy_table(scores: dict[int, Scores]) -> Table:
    """Show our accuracies and the published ones."""
    columns = ["test accuracy"]
    for size in scores:
        columns += [f"{size} examples", "notebook"]
    rows = []
    for pool in scores[SIZES[0]]:
        row = [pool]
        for size, found in scores.items():
            row += [report.percent(found[pool]), published(size, pool)]
        rows.append(row)
    return report.table("MNIST-1D: which pool between convolutions?", columns, rows)


def conclude(
    scores: dict[int, Scores], exponents: dict[int, list[list[list[float]]]]
) -> list[str]:
    """Say what the numbers say."""
    lines = []
    for size, found in scores.items():
        name = f"MNIST-1D, {size} examples:"
        mean = {pool: 100 * np.mean(values) for pool, values in found.items()}
        gap = {
            pool: mean[pool] - 100 * value
            for pool, value in PUBLISHED[size].items()
            if pool in mean
        }
        furthest = max(gap, key=lambda pool: abs(gap[pool]))
        first, second = np.median(exponents[size], axis=(0, 2))
        lines += [
            f"{name} {report.verdict(found)}",
            f"{name} max pooling adds {mean[MAX] - mean[NONE]:.1f} points.",
            f"{name} furthest from the notebook is {furthest}, by "
            f"{gap[furthest]:+.1f} points.",
            f"{name} the exponents, 3 at first, reach medians of {first:.1f} in the "
            f"first layer and {second:.1f} in the second.",
        ]
    return [*lines, NOT_THE_SAME]


def draw(job: report.Job, results: Mapping[str, Any]) -> Path:
    """Draw our accuracies as bars and the published ones as marks."""
    scores = {int(size): found for size, found in results["accuracy"].items()}
    figure, axes = figures.panels(len(scores), (6 * len(scores), 4.8))
    for ax, (size, found) in zip(axes, scores.items(), strict=True):
        shown = {pool: 100 * np.array(values) for pool, values in found.items()}
        figures.grouped_bars(ax, {"jaxpool": shown}, (figures.SKY,), "  {:.1f}".format)
        marks = {
            place: 100 * PUBLISHED[size][pool]
            for place, pool in enumerate(found)
            if pool in PUBLISHED[size]
        }
        ax.plot(marks.values(), marks.keys(), "kD", label="the notebook, one seed")
        ax.set(
            title=f"{size} training examples",
            xlabel="test accuracy in %",
            xlim=(0, 115),
        )
        ax.set_xticks(range(0, 101, 25))
    gains = [
        f"{100 * (np.mean(found[MAX]) - np.mean(found[NONE])):.1f} points at {size}"
        for size, found in scores.items()
    ]
    title = f"MNIST-1D: max pooling adds {' examples, '.join(gains)}"
    figures.headline(figure, f"{title}\nMean and range, seeds: {job.seeds}")
    figures.legend_below(*axes)
    return figures.save(figure, job, "papers_mnist1d")
