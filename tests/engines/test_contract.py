"""Calls inside the library that break the contract of an engine raise, when tracing."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxpool.engines import kernel
from jaxpool.engines.fold import first_cell, fold, fold_back
from jaxpool.engines.loops import Lifted
from jaxpool.engines.xla import add_windows_back, reduce_windows
from jaxpool.geometry.resolve import resolve
from jaxpool.geometry.steps import forward_steps

X = jnp.arange(9.0).reshape(3, 3)
ZERO = np.zeros((), np.float32)
WINDOW = resolve((3, 3), (2,), (1,), "VALID", 1, (0,), False)
(STEP,) = forward_steps(WINDOW, False)


def folded(*arrays, finish=None):
    options = {"boundary": "none"} | ({"finish": finish} if finish else {})
    return fold(STEP, lax.add, first_cell, ZERO, [Lifted(arrays)], **options)


def folded_back(*arrays):
    term = lambda cell, output, place: output[0]  # noqa: E731
    return fold_back(STEP, lax.add, term, Lifted(arrays), boundary="none")


@dataclass(frozen=True)
class Kernel:
    """A kernel that returns what it is given, and promises `shape` and `dtype`."""

    shape: tuple
    dtype: np.dtype
    count: int = 1
    portable: bool = False

    def types(self, x):
        return [x.update(shape=self.shape, dtype=self.dtype)] * self.count

    def run(self, platform, x):
        return (x,)


BROKEN = {
    "ranks of a fold": lambda: folded(X, X[0]),
    "cells of a fold": lambda: folded(X[:2]),
    "results of a fold": lambda: folded(X, finish=Lifted((), lambda y: (y[:1],))),
    "outputs of a fold back": lambda: folded_back(X),
    "ranks of a fold back": lambda: folded_back(X[:2], X[0]),
    "cells of windows": lambda: reduce_windows(X[:2], ZERO, lax.add, WINDOW),
    "arrays of windows": lambda: reduce_windows(
        (X, X[:, :2]), (ZERO, ZERO), lambda one, other: one, WINDOW
    ),
    "outputs of windows": lambda: add_windows_back(WINDOW, X),
    "shape of a kernel": lambda: kernel.bind(Kernel((3, 2), X.dtype), X),
    "dtype of a kernel": lambda: kernel.bind(Kernel(X.shape, np.dtype("int32")), X),
    "results of a kernel": lambda: kernel.bind(Kernel(X.shape, X.dtype, 2), X),
    "an inlined kernel": lambda: kernel.inline(Kernel((3, 2), X.dtype), X),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_contract(name):
    with pytest.raises(AssertionError):
        jax.jit(BROKEN[name])()


def test_what_keeps_it():
    np.testing.assert_array_equal(folded(X)[0], X[:2] + X[1:])
    np.testing.assert_array_equal(folded_back(X[:2])[0].shape, X.shape)
    assert kernel.bind(Kernel(X.shape, X.dtype), X)[0].shape == X.shape
