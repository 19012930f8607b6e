"""Values and gradients recorded from PyTorch (`golden/record_torch.py`).

The arrays are channels-first, so these tests pool the last axes with `axes=`.
One documented difference: with two NaN in a window PyTorch's gradient goes to the
last, ours to the first. `jaxpool.compat.torch` is called as PyTorch was.
"""

import itertools

import numpy as np
import pytest

import jaxpool
from jaxpool.compat import torch as compat
from tests import oracle
from tests.cases import cotangent, quick_jit, value_and_vjp
from tests.compat.parity import recorded

RECORDS, ARRAYS = recorded("torch_pool")
DIALECT, DIALECT_ARRAYS = recorded("torch_dialect")
NAMES = {
    "kernel_size": "window",
    "stride": "strides",
    "norm_type": "p",
    "divisor_override": "divisor",
}
GRADIENTS_OF_OURS = {"special_nan_twice": [[[-2, 0, 0]]]}


def arguments(record):
    """Our keyword arguments for a recorded call of a torch function."""
    kwargs = {NAMES.get(k, k): v for k, v in record["kwargs"].items()}
    return kwargs | {"axes": tuple(range(-record["ndim"], 0))}


def compare(record, y, dx, arrays=ARRAYS):
    name = record["name"]
    gradient = GRADIENTS_OF_OURS.get(name, arrays[f"{name}/dx"])
    label = f"{name} {record['op']} {record['kwargs']}"
    close = {"rtol": 1e-5, "atol": 1e-5, "err_msg": label}
    np.testing.assert_allclose(y, arrays[f"{name}/y"], **close)
    np.testing.assert_allclose(dx, gradient, **close)


def groups(records):
    def name(record):
        return f"{record['op']}{record['ndim']}d"

    by_name = itertools.groupby(sorted(records, key=name), key=name)
    return [pytest.param(list(group), id=key) for key, group in by_name]


GROUPS = groups(RECORDS)


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_jaxpool(records):
    results = value_and_vjp(
        [
            (
                getattr(jaxpool, record["op"]),
                arguments(record),
                ARRAYS[record["x"]],
                cotangent(ARRAYS[f"{record['name']}/y"].shape),
            )
            for record in records
        ]
    )
    for record, (y, dx) in zip(records, results, strict=True):
        compare(record, y, dx)


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_compat(records):
    calls = []
    for record in records:
        op = getattr(compat, f"{record['op']}{record['ndim']}d")
        g = cotangent(ARRAYS[f"{record['name']}/y"].shape)
        calls.append((op, record["kwargs"], ARRAYS[record["x"]], g))
    for record, (y, dx) in zip(records, value_and_vjp(calls), strict=True):
        compare(record, y, dx)


@pytest.mark.share(24)
@pytest.mark.parametrize("records", groups(r for r in DIALECT if r["op"] != "max_pool"))
def test_dialect(records):
    """What nothing but `compat.torch` does as PyTorch."""
    arrays, calls, with_gradient = DIALECT_ARRAYS, [], []
    for record in records:
        inputs = {k: arrays[v] for k, v in record["inputs"].items()}
        kwargs = record["kwargs"] | inputs
        op = getattr(compat, f"{record['op']}{record['ndim']}d")
        x, y = arrays[record["x"]], arrays[f"{record['name']}/y"]
        if f"{record['name']}/dx" in arrays:
            with_gradient.append(record)
            calls.append((op, kwargs, x, cotangent(y.shape)))
        else:
            np.testing.assert_allclose(op(x, **kwargs), y, 1e-5, err_msg=str(kwargs))
    for record, found in zip(with_gradient, value_and_vjp(calls), strict=True):
        compare(record, *found, arrays)


@pytest.mark.share(24)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_indices(ndim):
    records = [r for r in DIALECT if r["op"] == "max_pool" and r["ndim"] == ndim]

    @quick_jit
    def run(x):
        pool = getattr(compat, f"max_pool{ndim}d")
        return [pool(x, **record["kwargs"]) for record in records]

    results = run(DIALECT_ARRAYS[f"x{ndim}"])
    for record, found in zip(records, results, strict=True):
        for part, got in zip(("y", "index"), found, strict=True):
            want = DIALECT_ARRAYS[f"{record['name']}/{part}"]
            np.testing.assert_array_equal(got, want, str(record["kwargs"]))


@pytest.mark.share(24)
@pytest.mark.parametrize("records", GROUPS)
def test_oracle(records):
    for record in records:
        kind = record["op"].removesuffix("_pool")
        g = cotangent(ARRAYS[f"{record['name']}/y"].shape)
        x = ARRAYS[record["x"]]
        compare(record, *oracle.pool_and_grad(x, g, kind, **arguments(record)))
