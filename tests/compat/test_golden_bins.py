"""Adaptive and fractional pools recorded from PyTorch (`golden/record_torch.py`).

Values, gradients and indices of maxima. The arrays are channels-first, and fractional
samples are in the order of the axes. `jaxpool.compat.torch` is called as PyTorch was.
"""

import itertools

import numpy as np
import pytest

import jaxpool
from jaxpool.compat import torch as compat
from tests import oracle
from tests.cases import cotangent, quick_jit, value_and_vjp
from tests.compat.parity import recorded

RECORDS, ARRAYS = recorded("torch_bins")
NAMES = {"kernel_size": "window", "output_size": "output_shape"}
GROUPS = [
    pytest.param(list(group), id=f"{op}{ndim}d")
    for (op, ndim), group in itertools.groupby(
        RECORDS, key=lambda r: (r["op"], r["ndim"])
    )
]


def arguments(record):
    """Our keyword arguments for a recorded call of a torch function."""
    kwargs = {NAMES[k]: v for k, v in record["kwargs"].items()}
    if "fractional" in record["op"]:
        kwargs["samples"] = ARRAYS[f"{record['name']}/samples"]
    return kwargs | {"axes": tuple(range(-record["ndim"], 0))}


def expected(record):
    name = record["name"]
    return [ARRAYS[f"{name}/{part}"] for part in ("y", "dx")]


def compare(record, *found):
    for a, b in zip(found, expected(record), strict=True):
        label = f"{record['name']} {record['kwargs']}"
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=label)


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_jaxpool(records):
    calls = []
    for record in records:
        op = getattr(jaxpool, record["op"])
        x, g = ARRAYS[record["x"]], cotangent(expected(record)[0].shape)
        calls.append((op, arguments(record), x, g))
    for record, found in zip(records, value_and_vjp(calls), strict=True):
        compare(record, *found)


@pytest.mark.share(24)
@pytest.mark.parametrize(
    "records", [p for p in GROUPS if "max" in p.values[0][0]["op"]]
)
def test_indices(records):
    def found(record):
        op = getattr(jaxpool, f"{record['op']}_with_indices")
        return op(ARRAYS[record["x"]], **arguments(record))

    results = quick_jit(lambda: [found(record) for record in records])()
    for record, (y, index) in zip(records, results, strict=True):
        np.testing.assert_array_equal(y, expected(record)[0])
        np.testing.assert_array_equal(index, ARRAYS[f"{record['name']}/index"])


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_compat(records):
    calls = []
    for record in records:
        kwargs = dict(record["kwargs"])
        if "fractional" in record["op"]:
            order = -1 if record["ndim"] == 2 else 1
            samples = ARRAYS[f"{record['name']}/samples"]
            kwargs["_random_samples"] = samples[..., ::order]
        op = getattr(compat, f"{record['op']}{record['ndim']}d")
        x, g = ARRAYS[record["x"]], cotangent(expected(record)[0].shape)
        calls.append((op, kwargs, x, g))
    for record, found in zip(records, value_and_vjp(calls), strict=True):
        compare(record, *found)


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_oracle(records):
    for record in records:
        x, g = ARRAYS[record["x"]], cotangent(expected(record)[0].shape)
        kwargs = arguments(record)
        if "fractional" in record["op"]:
            y, dx, index = oracle.fractional(x, g, "max", **kwargs)
        else:
            kind = record["op"].split("_")[1]
            y, dx, index = oracle.adaptive(x, g, kind, **kwargs)
        compare(record, y, dx)
        if "max" in record["op"]:
            np.testing.assert_array_equal(index, ARRAYS[f"{record['name']}/index"])
