"""An LSTM that reads a sequence, with one of three ways to reduce its states."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

import jaxpool.nnx
from experiments.shared.training import Build


def last_state(states: jax.Array, *, where: jax.Array) -> jax.Array:
    """Return the state at the last valid step."""
    last = where.sum(axis=1, keepdims=True) - 1
    return jnp.take_along_axis(states, last, axis=1)[:, 0]


READOUTS: dict[str, Callable[..., jax.Array]] = {
    "global average": jaxpool.nnx.GlobalAvgPool(),
    "global max": jaxpool.nnx.GlobalMaxPool(),
    "last state": last_state,
}


class Reader(nnx.Module):
    """An LSTM, a reduction of its states over time, and a linear layer."""

    def __init__(self, features: int, outputs: int, readout: str, rngs: nnx.Rngs):
        cell = nnx.OptimizedLSTMCell(features, 32, rngs=rngs)
        self.rnn = nnx.RNN(cell, rngs=False)
        self.reduce = READOUTS[readout]
        self.out = nnx.Linear(32, outputs, rngs=rngs)

    def __call__(self, x: jax.Array, lengths: jax.Array) -> jax.Array:
        """Return the outputs for `x: [batch, time, feature]` of these lengths."""
        # RNN wants random numbers although the first state is zero.
        states = self.rnn(x, rngs=nnx.Rngs(0))
        valid = jnp.arange(x.shape[1])[:, None] < lengths[:, None, None]
        return self.out(self.reduce(states, where=valid))


def build(features: int, outputs: int, readout: str) -> Build:
    """Return a function that makes a reader from random numbers."""
    return lambda rngs: Reader(features, outputs, readout, rngs)
