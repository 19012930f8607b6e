"""The tables of PORTING.md run, and beside the library where it is installed."""

import importlib
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import lax

import jaxpool
from jaxpool.compat import flax as pools
from jaxpool.compat import onnx
from tests.cases import distinct

TEXT = (Path(__file__).parents[2] / "PORTING.md").read_text()
ROWS = [
    pytest.param(section, *row, id=f"{section}-{row[0]}")
    for section, table in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    for row in re.findall(r"^\| `(.+?)` \| `(.+?)` \|", table, re.M)
]
FIRST = {"PyTorch", "ONNX", "Equinox"}  # channels
rng = np.random.default_rng(0)


def arrays(section):
    """What the calls of a section are about."""
    shape = (2, 3, 12, 12) if section in FIRST else (2, 12, 12, 3)
    x = distinct(shape[1:] if section == "Equinox" else shape) / 300 + 2
    found = {"x": x, "s": distinct((2, 5, 3)), "u": rng.random((2, 3, 2), np.float32)}
    found["mask"] = np.arange(5) < np.array([[2], [4]])
    if section == "PyTorch":
        y, i = jaxpool.max_pool_with_indices(x, 2, axes=(-2, -1))
        found |= {"y": np.asarray(y), "i": np.asarray(i, np.int64)}
    if section == "ONNX":
        stride = {"kernel_shape": [2, 2], "strides": [2, 2]}
        found |= dict(zip("yi", onnx.MaxPool(x, **stride, outputs=2), strict=True))
    return found


def library(section, inputs):
    """The names in the calls of a library, or a skip."""
    if section == "PyTorch":
        torch = pytest.importorskip("torch")
        tensors = {k: torch.tensor(v) for k, v in inputs.items()}
        return tensors | {"F": torch.nn.functional}
    if section == "Keras":
        os.environ["KERAS_BACKEND"] = "jax"
        keras = pytest.importorskip("keras")
        return {"ops": keras.ops, "layers": keras.layers}
    if section == "ONNX":
        return {"op": onnx}
    name = {"Flax": "flax.linen", "Equinox": "equinox.nn"}.get(section, "tensorflow")
    pytest.importorskip(name.split(".")[0])
    return {"nn": importlib.import_module(name), "lax": lax}


@pytest.mark.parametrize(("section", "theirs", "ours"), ROWS)
def test_row(section, theirs, ours):
    inputs = arrays(section)
    natively = vars(jaxpool) | inputs | {"lax": lax, "key": jax.random.key(0)}
    got = jax.tree.leaves(eval(ours, natively))
    assert all(np.isfinite(part).all() for part in got)
    with jax.numpy_dtype_promotion("standard"):
        want = eval(theirs, inputs | library(section, inputs))
    for a, b in zip(got, want if isinstance(want, tuple) else [want], strict=True):
        np.testing.assert_allclose(a, b, 1e-5)


@pytest.mark.parametrize("module", ["torch", "flax", "keras"])
def test_c4_imports_shadow_nothing(module):
    """`import flax as nn` took `nn.Conv` away: what is documented is `as pools`."""
    documented = importlib.import_module(f"jaxpool.compat.{module}").__doc__
    names = re.findall(rf"jaxpool.compat import {module} as (\w+)", TEXT)
    assert names == ["pools"]
    assert not re.search(r"compat import \w+ as (nn|F|ops)\b", TEXT + documented)


def test_c3_c11_forward_mode_and_dropped_indices_are_told():
    assert "with jaxpool.forward_mode():" in TEXT
    with jaxpool.forward_mode():
        x = np.float32([[1], [2]])[None]
        tangent = jax.jvp(lambda x: pools.max_pool(x, (2,)), (x,), (x,))[1]
    np.testing.assert_array_equal(tangent, [[[2]]])
    assert re.search(r"Under `jax.jit` .*dropped in silence", TEXT, re.S)
    y, i = np.float32([1, 2]), np.int32([0, 9])
    run = jax.jit(lambda y, i: jaxpool.max_unpool(y, i, 4, axes=0))
    np.testing.assert_array_equal(run(y, i), [1, 0, 0, 0])


def test_each_section_has_rows():
    sections = [row.values[0] for row in ROWS]
    assert {s: sections.count(s) for s in set(sections)} == {
        s: table.count("\n| `") for s, table in
        re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)
    }  # fmt: skip
    assert len(set(sections)) == 6
