"""The small convolutional networks of the digits part, one per way of pooling."""

from collections.abc import Callable
from functools import partial

import jax
from flax import nnx

import jaxpool.nnx
from experiments.shared.training import Build

Layer = Callable[[jax.Array], jax.Array]


def flatten(x: jax.Array) -> jax.Array:
    """Keep every position: `[batch, *spatial, channels]` to `[batch, features]`."""
    return x.reshape(x.shape[0], -1)


class Network(nnx.Module):
    """Two convolutions, each down-sampled by two, an ending, and a linear classifier.

    With `down=None` the convolutions themselves have stride 2.
    """

    def __init__(self, down: Layer | None, ending: Layer, *, rngs: nnx.Rngs):
        conv = partial(
            nnx.Conv, kernel_size=(3, 3), strides=1 if down else 2, rngs=rngs
        )
        self.conv1 = conv(1, 16)
        self.conv2 = conv(16, 32)
        self.down = down
        self.ending = ending
        self.out = nnx.Linear(288 if ending is flatten else 32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the scores of the ten classes."""
        for conv in (self.conv1, self.conv2):
            x = nnx.relu(conv(x))
            x = self.down(x) if self.down else x
        return self.out(self.ending(x))


def build(down: Layer | None, ending: Layer) -> Build:
    """Return a function that makes the network from random numbers."""
    return lambda rngs: Network(down, ending, rngs=rngs)


MAX = jaxpool.nnx.MaxPool((2, 2))
AVERAGE = jaxpool.nnx.AvgPool((2, 2))
LP = jaxpool.nnx.LpPool((2, 2), p=2.0)
STRIDED_END = "strided convolution, flatten"
NETWORKS = {
    STRIDED_END: build(None, flatten),
    "max, flatten": build(MAX, flatten),
    "average, flatten": build(AVERAGE, flatten),
    "Lp (p = 2), flatten": build(LP, flatten),
    "max, global average": build(MAX, jaxpool.nnx.GlobalAvgPool()),
    "max, global max": build(MAX, jaxpool.nnx.GlobalMaxPool()),
}
# The same networks with Flax's own pooling, for the time of a step.
FLAX = {
    "max, flatten": build(
        partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)), flatten
    ),
    "average, flatten": build(
        partial(nnx.avg_pool, window_shape=(2, 2), strides=(2, 2)), flatten
    ),
}
