"""The tables of docs/coming_from run, beside the library where it is installed."""

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

FOLDER = Path(__file__).parents[2] / "docs" / "coming_from"
PAGES = {page.stem: page.read_text() for page in FOLDER.glob("*.md")}
COMMON = PAGES.pop("index")
ROWS = [
    pytest.param(page, *row, id=f"{page}-{row[0]}")
    for page in sorted(PAGES)
    for row in re.findall(r"^\| `(.+?)` \| `(.+?)` \|", PAGES[page], re.M)
]
FIRST = {"pytorch", "onnx", "equinox"}  # channels
LIBRARIES = {"lax": lax, "jnp": jax.numpy}
rng = np.random.default_rng(0)


def arrays(page):
    """What the calls of a page are about."""
    shape = (2, 3, 12, 12) if page in FIRST else (2, 12, 12, 3)
    x = distinct(shape[1:] if page == "equinox" else shape) / 300 + 2
    found = {"x": x, "s": distinct((2, 5, 3)), "u": rng.random((2, 3, 2), np.float32)}
    found["mask"] = np.arange(5) < np.array([[2], [4]])
    found |= {"t": distinct((6, 3)), "ids": np.asarray([0, 2, 0, 1, 2, -1])}
    if page == "pytorch":
        y, i = jaxpool.max_pool_with_indices(x, 2, axes=(-2, -1))
        found |= {"y": np.asarray(y), "i": np.asarray(i, np.int64)}
    if page == "onnx":
        stride = {"kernel_shape": [2, 2], "strides": [2, 2]}
        found |= dict(zip("yi", onnx.MaxPool(x, **stride, outputs=2), strict=True))
    return found


def library(page, inputs):
    """The names in the calls of a library, or a skip."""
    if page == "pytorch":
        torch = pytest.importorskip("torch")
        tensors = {k: torch.tensor(v) for k, v in inputs.items()}
        return tensors | {"F": torch.nn.functional}
    if page == "keras":
        os.environ["KERAS_BACKEND"] = "jax"
        keras = pytest.importorskip("keras")
        return {"ops": keras.ops, "layers": keras.layers}
    if page == "onnx":
        return {"op": onnx}
    if page == "jax":
        return LIBRARIES | {"jax": jax}
    name = {"flax": "flax.linen", "equinox": "equinox.nn"}.get(page, "tensorflow")
    pytest.importorskip(name.split(".")[0])
    return {"nn": importlib.import_module(name), "lax": lax}


@pytest.mark.parametrize(("page", "theirs", "ours"), ROWS)
def test_row(page, theirs, ours):
    inputs = arrays(page)
    natively = vars(jaxpool) | inputs | LIBRARIES | {"key": jax.random.key(0)}
    got = jax.tree.leaves(eval(ours, natively))
    assert all(np.isfinite(part).all() for part in got)
    with jax.numpy_dtype_promotion("standard"):
        want = eval(theirs, inputs | library(page, inputs))
    for a, b in zip(got, want if isinstance(want, tuple) else [want], strict=True):
        np.testing.assert_allclose(a, b, 1e-5)


@pytest.mark.parametrize("module", ["torch", "flax", "keras"])
def test_c4_imports_shadow_nothing(module):
    """`import flax as nn` took `nn.Conv` away: what is documented is `as pools`."""
    documented = importlib.import_module(f"jaxpool.compat.{module}").__doc__
    text = PAGES[{"torch": "pytorch"}.get(module, module)]
    names = re.findall(rf"jaxpool.compat import {module} as (\w+)", text)
    assert names == ["pools"]
    assert not re.search(r"compat import \w+ as (nn|F|ops)\b", text + documented)


def test_c3_c11_forward_mode_and_dropped_indices_are_documented():
    assert all("with jaxpool.forward_mode():" in text for text in PAGES.values())
    with jaxpool.forward_mode():
        x = np.float32([[1], [2]])[None]
        tangent = jax.jvp(lambda x: pools.max_pool(x, (2,)), (x,), (x,))[1]
    np.testing.assert_array_equal(tangent, [[[2]]])
    assert re.search(r"Under `jax.jit`\s.*(ignored|dropped)", COMMON, re.S)
    y, i = np.float32([1, 2]), np.int32([0, 9])
    run = jax.jit(lambda y, i: jaxpool.max_unpool(y, i, 4, axes=0))
    np.testing.assert_array_equal(run(y, i), [1, 0, 0, 0])


def test_each_page_has_rows():
    pages = [row.values[0] for row in ROWS]
    assert len(PAGES) == 7
    for page, text in PAGES.items():
        assert 0 < pages.count(page) == text.count("\n| `")
