"""Values and gradients recorded from PyTorch (`golden/record_torch.py`).

The arrays are channels-first, so these tests pool the last axes with `axes=`.
One documented difference: with two NaN in a window PyTorch's gradient goes to the
last, ours to the first.
"""

import itertools
import json
import pathlib

import numpy as np
import pytest

import jaxpool
from tests import oracle
from tests.cases import cotangent, value_and_vjp

GOLDEN = pathlib.Path(__file__).parent / "golden"
RECORDS = json.loads((GOLDEN / "torch_pool.json").read_text())["records"]
ARRAYS = dict(np.load(GOLDEN / "torch_pool.npz"))
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


def compare(record, y, dx):
    name = record["name"]
    gradient = GRADIENTS_OF_OURS.get(name, ARRAYS[f"{name}/dx"])
    label = f"{name} {record['op']} {record['kwargs']}"
    close = {"rtol": 1e-5, "atol": 1e-5, "err_msg": label}
    np.testing.assert_allclose(y, ARRAYS[f"{name}/y"], **close)
    np.testing.assert_allclose(dx, gradient, **close)


GROUPS = [
    pytest.param(list(group), id=f"{op}{ndim}d")
    for (op, ndim), group in itertools.groupby(
        sorted(RECORDS, key=lambda r: (r["op"], r["ndim"])),
        key=lambda r: (r["op"], r["ndim"]),
    )
]


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


@pytest.mark.parametrize("records", GROUPS)
def test_oracle(records):
    for record in records:
        kind = record["op"].removesuffix("_pool")
        g = cotangent(ARRAYS[f"{record['name']}/y"].shape)
        x = ARRAYS[record["x"]]
        compare(record, *oracle.pool_and_grad(x, g, kind, **arguments(record)))
