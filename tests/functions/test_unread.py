"""Cells that no output reads: whatever they hold reaches no value and no gradient."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool import (
    Average,
    LogSumExp,
    Lp,
    Median,
    PowerMean,
    Softmax,
    StandardDeviation,
    TopKMean,
    Variance,
    aggregate,
    neighbors,
    segments,
    windows,
)

UNREAD = {  # cells 2 and 3 of four, which no output reads
    "segments": segments(np.int32([0, 0, -1, -1]), 2, axis=0),
    "lengths": segments.from_lengths([2], axis=0),
    "neighbors": neighbors(np.int32([[0, 1]]), axis=0),
    "gaps": windows(2, 4, axes=0),
    "rest": windows(2, 3, axes=0),
}
ONE = jnp.asarray([2.0])
WITH_PARAMETERS = {
    "weights": (Average, jnp.ones(4)),
    "lp": (Lp, ONE),
    "power mean": (PowerMean, ONE),
    "gem": (lambda p: PowerMean(p, eps=0.1), ONE),
    "logits": (Softmax, jnp.ones(4)),
    "scale": (lambda scale: Softmax(scale=scale), ONE),
    "scales": (lambda scale: Softmax(scale=scale), jnp.full(4, 2.0)),
    "log-sum-exp": (LogSumExp, ONE),
    **{
        repr(by): (lambda _, by=by: by, ONE)
        for by in (
            *(Lp(1), Lp(3), Lp(math.inf), PowerMean(-2), PowerMean(3), Softmax()),
            *(Variance(), StandardDeviation(eps=0.1), Median(), TopKMean(2)),
        )
    },
}


@pytest.mark.share(6)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("name", WITH_PARAMETERS)
@pytest.mark.parametrize("domain", UNREAD)
def test_cells_that_no_output_reads_reach_no_gradient(domain, name, value):
    make, parameter = WITH_PARAMETERS[name]
    is_per_cell = parameter.shape == (4,)

    def pooled(x, parameter):
        return aggregate(x, make(parameter), UNREAD[domain])

    def derivatives(cells, own):
        slope = jax.grad(lambda x, a: (pooled(x, a) ** 2).sum(), (0, 1))
        ones = jnp.ones_like(cells), jnp.ones_like(own)
        return pooled(cells, own), jax.jvp(slope, (cells, own), ones)

    cells, unread = jnp.asarray([1.0, 2.0, 5.0, 7.0]), jnp.asarray([2, 3])
    own = parameter.at[unread].set(value) if is_per_cell else parameter
    want = derivatives(cells, parameter)
    for got in (
        derivatives(cells.at[unread].set(value), parameter),
        derivatives(cells, own),
    ):
        for one, other in zip(*map(jax.tree.leaves, (got, want)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4)
