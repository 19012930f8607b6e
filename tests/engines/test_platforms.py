"""The forms that GPUs and TPUs get by default, run on a CPU.

A program that is traced for another platform runs on a CPU as well, if more slowly.
"""

import contextlib
import functools
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.engines import kernel
from tests import oracle
from tests.cases import (
    CLOSE,
    NAMED_CASES,
    SPECIALS,
    Case,
    check_against_oracle,
    cotangent,
    distinct,
    every_kind,
    mask,
    quick_jit,
    tied,
    value_and_grad,
    with_indices,
)

NAMES = ("tiling_2d", "overlap_2d", "stride_one_same", "ceil_pad_overhang")
NAMES += ("whole_input", "dilated_strided", "axes_apart", "long_windows_tiling")
NAMES += ("overlap_3d", "places_that_wrap")
CASES = {c.id: c.values[0] for c in NAMED_CASES if c.id in NAMES}
FILLS_LANES = Case((1, 12, 8, 128), (3, 3), 2, "SAME")  # of a TPU
every_platform = pytest.mark.parametrize("platform", ["cuda", "tpu"])


@contextlib.contextmanager
def traced_for(platform):
    """Take the default forms of a platform; jax forgets its programs at both ends."""
    run = kernel._Flat.run

    def run_for(self, _, *leaves):
        return run(self, platform, *leaves)

    jax.clear_caches()
    try:
        with unittest.mock.patch.object(kernel._Flat, "run", run_for):
            yield
    finally:
        jax.clear_caches()


@pytest.mark.slow
@every_platform
@every_kind
def test_values_and_gradients(kind, platform):
    cases = [*CASES.values(), FILLS_LANES]
    close = CLOSE if kind in ("avg", "lp", "logsumexp") else {}
    with traced_for(platform):
        check_against_oracle(
            [(kind, tied(case.shape), case.kwargs()) for case in cases],
            **{"rtol": 0, **close},
        )


@every_platform
@pytest.mark.parametrize("kind", ["max", "min", "sum", "avg"])
def test_masks(kind, platform):
    checks = []
    for name in ("overlap_2d", "dilated_strided", "whole_input", "tiling_2d"):
        case = CASES[name]
        where = {"where": mask(case.shape), "empty_value": -7}
        checks.append((kind, tied(case.shape), case.kwargs() | where))
    with traced_for(platform):
        check_against_oracle(checks, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "platform"), [("max", "cuda"), ("min", "tpu")])
def test_winners(kind, platform):
    """With NaN and infinities, of 16-bit floats too."""
    cases = [*CASES.values(), FILLS_LANES]
    inputs = [tied(c.shape, specials=SPECIALS) for c in cases]

    @quick_jit
    def run(arrays):
        found = []
        for case, (x, g) in zip(cases, arrays, strict=True):
            (y, indices), dx = value_and_grad(with_indices(kind, **case.kwargs()), x, g)
            found.append((y, indices, dx))
        return found

    for dtype in ("float32", "bfloat16"):
        want = []
        for x, case in zip(inputs, cases, strict=True):
            g = cotangent(jaxpool.output_shape(case.shape, **case.kwargs()))
            want.append((g, oracle.pool_and_grad(x, g, kind, **case.kwargs())))
        arrays = [
            (jnp.asarray(x, dtype), jnp.asarray(g, np.float32))
            for x, (g, _) in zip(inputs, want, strict=True)
        ]
        with traced_for("cpu"):
            others = run(arrays)
        with traced_for(platform):
            found = run(arrays)
        for got, other, (_, (y, dx)) in zip(found, others, want, strict=True):
            np.testing.assert_array_equal(np.asarray(got[0], np.float64), y)
            np.testing.assert_array_equal(got[1], other[1])
            np.testing.assert_array_equal(np.asarray(got[2], np.float64), dx)


@every_platform
def test_the_program_is_that_of_the_platform(platform):
    """Else these tests would test the forms of a CPU."""
    pool = functools.partial(jaxpool.max_pool, window=(3, 3), strides=2)
    x = jnp.ones((1, 9, 9, 2))
    with traced_for("cpu"):
        assert "reduce_window" not in jax.jit(pool).lower(x).as_text()
    with traced_for(platform):
        assert "reduce_window" in jax.jit(pool).lower(x).as_text()


@every_platform
@pytest.mark.parametrize("name", ["global_lp_pool", "global_logsumexp_pool", "softmax"])
def test_whole_axes_are_one_sum(name, platform):
    """XLA would fuse steps, and not end compiling; with forward mode and a mask."""
    x = jnp.asarray(distinct((2, 9, 11, 3)) / 64)
    where = mask(x.shape)

    def pool(x):
        if name == "softmax":
            return jaxpool.aggregate(x, jaxpool.Softmax(), jaxpool.whole(), where=where)
        return getattr(jaxpool, name)(x, where=where)

    def derivatives(x):
        y, pull = jax.vjp(pool, x)
        return y, pull(jnp.cos(y))[0], jax.jvp(pool, (x,), (jnp.sin(x),))[1]

    wants = jax.jit(derivatives)(x)
    with traced_for(platform):
        gots = jax.jit(derivatives)(x)
        text = jax.jit(pool).lower(x).as_text()
    if name == "softmax" and platform == "cuda":
        assert "stablehlo.slice" not in text
    for got, want in zip(gots, wants, strict=True):
        np.testing.assert_allclose(got, want, 1e-5, 1e-5)
