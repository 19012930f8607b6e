"""Record ONNX Runtime's pools, and the vectors of ONNX itself, as golden files.

Run by hand, with onnx and onnxruntime installed: `python tests/golden/record_onnx.py`.
Writes `onnx_pool.npz` and `onnx_pool.json`, one record a case: its name, the operator,
its attributes, and the keys of its inputs and outputs.

Where ONNX Runtime is known to be wrong nothing is recorded: "SAME" padding of dilated
windows, of which it forgets the dilation, and NaN, which it loses.
"""

import importlib
import itertools
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.backend.test.case import node

HERE = pathlib.Path(__file__).parent
INPUTS = {1: (2, 2, 7), 2: (2, 2, 5, 7), 3: (1, 2, 4, 5, 4)}
WINDOWS = {  # kernel_shape, strides, pads, dilations
    1: [
        ([2], None, None, None),
        ([3], [2], [1, 0], None),
        ([3], [3], [1, 1], None),
        ([3], [2], [1, 1], [2]),
        ([4], [4], None, None),
        ([5], [3], [0, 2], None),
    ],
    2: [
        ([2, 3], None, [1, 0, 0, 1], None),
        ([2, 3], [2, 3], None, None),
        ([3, 3], [2, 2], [1, 1, 1, 1], None),
        ([2, 2], [1, 2], [0, 1, 1, 0], [2, 3]),
    ],
    3: [([2, 3, 2], [2, 1, 3], [1, 0, 0, 0, 1, 1], None)],
}
OPTIONS = {
    "MaxPool": ("storage_order", (0, 1)),
    "AveragePool": ("count_include_pad", (0, 1)),
    "LpPool": ("p", (1, 2, 3)),
}
MODULES = (  # of ONNX's own vectors
    "maxpool",
    "averagepool",
    "lppool",
    "globalmaxpool",
    "globalaveragepool",
    "maxunpool",
)


def requests():
    """Yield (operator, number of spatial axes, attributes)."""
    for ndim, windows in WINDOWS.items():
        for (op, (option, values)), (
            kernel,
            strides,
            pads,
            dilations,
        ) in itertools.product(OPTIONS.items(), windows):
            attributes = {"kernel_shape": kernel, "strides": strides}
            by_pads = {"pads": pads, "dilations": dilations}
            paddings = [by_pads, by_pads | {"ceil_mode": 1}]
            if not pads and not dilations:
                names = ("SAME_UPPER", "SAME_LOWER", "VALID")
                paddings += [{"auto_pad": name} for name in names]
                paddings.append({"auto_pad": "VALID", "ceil_mode": 1})
            for i, padding in enumerate(paddings):
                more = {option: values[i % len(values)]}
                every = attributes | padding | more
                yield op, ndim, {k: v for k, v in every.items() if v is not None}
    for ndim in INPUTS:
        yield "GlobalMaxPool", ndim, {}
        yield "GlobalAveragePool", ndim, {}


def evaluate(op, attributes, x):
    """The outputs of ONNX Runtime."""
    outputs = ["values", "indices"] if op == "MaxPool" else ["values"]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], outputs, **attributes)],
        op,
        [info("x", onnx.TensorProto.FLOAT, x.shape)],
        [
            info(name, onnx.TensorProto.INT64 if i else onnx.TensorProto.FLOAT, None)
            for i, name in enumerate(outputs)
        ],
    )
    versions = [helper.make_opsetid("", 22)]
    model = helper.make_model(graph, opset_imports=versions, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})


def own_vectors():
    """ONNX's small vectors: (name, operator, attributes, inputs, outputs, rtol)."""
    for module in MODULES:
        importlib.import_module(f"{node.__name__}.{module}")
    for case in node._NodeTestCases:
        (proto,) = case.model.graph.node
        attributes = {a.name: helper.get_attribute_value(a) for a in proto.attribute}
        for key, value in attributes.items():
            attributes[key] = value.decode() if isinstance(value, bytes) else value
        ((inputs, outputs),) = case.data_sets
        if inputs[0].size <= 100:
            yield case.name, proto.op_type, attributes, inputs, outputs, case.rtol


def main():
    """Evaluate everything and write the files."""
    arrays, records = {}, []

    def record(name, op, attributes, inputs, outputs, rtol=1e-5):
        arrays.update({f"{name}/y{i}": y for i, y in enumerate(outputs)})
        entry = {"name": name, "op": op, "attributes": attributes, "inputs": inputs}
        records.append(entry | {"outputs": len(outputs), "rtol": rtol})

    for ndim, shape in INPUTS.items():
        order = np.random.default_rng(ndim).permutation(np.prod(shape))
        arrays[f"x{ndim}"] = (order.reshape(shape) - order.size // 2).astype(np.float32)
    for op, ndim, attributes in requests():
        outputs = evaluate(op, attributes, arrays[f"x{ndim}"])
        record(f"{op}_{len(records)}", op, attributes, [f"x{ndim}"], outputs)
    for name, op, attributes, inputs, *rest in own_vectors():
        keys = [f"{name}/x{i}" for i in range(len(inputs))]
        arrays.update(zip(keys, inputs, strict=True))
        record(name, op, attributes, keys, *rest)

    np.savez_compressed(HERE / "onnx_pool.npz", **arrays)
    lines = ",\n".join(f"  {json.dumps(r)}" for r in records)
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    head = json.dumps(versions)[:-1] + ', "records": [\n'
    (HERE / "onnx_pool.json").write_text(f"{head}{lines}\n]}}\n")


if __name__ == "__main__":
    main()
