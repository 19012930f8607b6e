"""`jaxpool.compat.onnx` beside recorded figures (`golden/record_onnx.py`).

Those of ONNX Runtime, and of the vectors that ONNX comes with.
"""

import itertools

import numpy as np
import pytest

from jaxpool.compat import onnx
from tests.cases import quick_jit
from tests.compat.parity import recorded

RECORDS, ARRAYS = recorded("onnx_pool")
GROUPS = {
    op: list(group)
    for op, group in itertools.groupby(
        sorted(RECORDS, key=lambda r: r["op"]), key=lambda r: r["op"]
    )
}


def test_every_operator_is_recorded():
    public = {name for name in vars(onnx) if name.endswith(("Pool", "Unpool"))}
    assert public - set(GROUPS) == {"GlobalLpPool"}  # nobody implements it


@pytest.mark.parametrize("op", GROUPS)
def test_values_and_indices(op):
    @quick_jit
    def run(arrays):
        return [
            getattr(onnx, op)(*inputs, **arguments(record))
            for record, inputs in zip(GROUPS[op], arrays, strict=True)
        ]

    def arguments(record):
        outputs = {"outputs": record["outputs"]} if record["outputs"] > 1 else {}
        shape = [ARRAYS[key] for key in record["inputs"][2:]]
        more = {"output_shape": shape[0]} if shape else {}
        return record["attributes"] | outputs | more

    found = run([[ARRAYS[key] for key in r["inputs"][:2]] for r in GROUPS[op]])
    for record, outputs in zip(GROUPS[op], found, strict=True):
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for i, y in enumerate(outputs):
            want = ARRAYS[f"{record['name']}/y{i}"]
            label = f"{record['name']}, output {i}: {record['attributes']}"
            np.testing.assert_allclose(y, want, record["rtol"], 1e-5, err_msg=label)
