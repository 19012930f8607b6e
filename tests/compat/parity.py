"""What the parity tests share: grids of arguments, and calls side by side."""

import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from tests.cases import cotangent, quick_jit, value_and_grad

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
ERRORS = (ValueError, TypeError, RuntimeError, ZeroDivisionError)


def recorded(name):
    """The records of a golden file, and their arrays by name."""
    records = json.loads((GOLDEN / f"{name}.json").read_text())["records"]
    return records, dict(np.load(GOLDEN / f"{name}.npz"))


def grid(**options):
    """Every combination of the options as a dict."""
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def refused(function, *args, **kwargs):
    """Whether a call raises an error for its arguments."""
    try:
        function(*args, **kwargs)
    except ERRORS:
        return True
    return False


def compare(pairs, *, gradients=True, rtol=1e-5, atol=1e-5):
    """Two functions of one array, each both ways, in one program: equal or not.

    `pairs` are (label, theirs, ours, x). The cotangents are small integers.
    """

    def both_ways(f, x):
        if not (gradients and jnp.issubdtype(x.dtype, jnp.floating)):
            return (f(x),)
        return value_and_grad(f, x, cotangent(jax.eval_shape(f, x).shape))

    @quick_jit
    def run(arrays):
        calls = [pair[1:3] for pair in pairs]
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            theirs = [both_ways(t, x) for (t, _), x in zip(calls, arrays, strict=True)]
        return theirs, [
            both_ways(o, x) for (_, o), x in zip(calls, arrays, strict=True)
        ]

    theirs, ours = jax.device_get(run([jnp.asarray(pair[3]) for pair in pairs]))
    for (label, *_), want, got in zip(pairs, theirs, ours, strict=True):
        for part, a, b in zip(("value", "gradient"), got, want, strict=False):
            label = f"{part} of {label}"
            assert a.dtype == b.dtype, label
            a, b = (np.asarray(y, np.float64) for y in (a, b))
            np.testing.assert_allclose(a, b, rtol, atol, err_msg=label)
    assert pairs
