"""`jaxpool.compat.onnx` beside ONNX's reference, and ONNX Runtime, where installed.

Each is wrong somewhere; `is_right` says where it is not asked.
"""

import functools
import itertools

import jax
import numpy as np
import pytest

from jaxpool.compat import onnx as ours
from tests.cases import distinct, quick_jit

onnx = pytest.importorskip("onnx")
from onnx import helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

try:
    import onnxruntime
except ImportError:
    onnxruntime = None

SHAPES = {1: (2, 2, 7), 2: (1, 2, 5, 7), 3: (1, 2, 4, 5, 3)}
WINDOWS = {  # kernel_shape, strides, pads
    1: [([2], None, [1, 0]), ([3], [2], [1, 1]), ([3], [3], None)],
    2: [([2, 3], [2, 3], [1, 0, 0, 1]), ([3, 3], None, [1, 1, 1, 1])],
    3: [([2, 3, 2], [2, 1, 2], [1, 0, 0, 0, 1, 1])],
}
DILATIONS = {1: [None, [2]], 2: [None, [1, 2]], 3: [None]}
OPTIONS = {
    "MaxPool": {"storage_order": (0, 1)},
    "AveragePool": {"count_include_pad": (0, 1)},
    "LpPool": {"p": (1, 2, 3)},
}


def model(op, inputs, outputs, attributes):
    def info(name, dtype, shape=None):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    takes = [info(f"x{i}", x.dtype, x.shape) for i, x in enumerate(inputs)]
    gives = [info("y0", inputs[0].dtype), info("y1", np.int64)][:outputs]
    names = [[value.name for value in values] for values in (takes, gives)]
    nodes = [helper.make_node(op, *names, **attributes)]
    versions = [helper.make_opsetid("", 22)]
    graph = helper.make_graph(nodes, op, takes, gives)
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def by_reference(proto):
    return ReferenceEvaluator(proto)


def by_runtime(proto):
    onnxruntime.set_default_logger_severity(4)
    return onnxruntime.InferenceSession(proto.SerializeToString())


ENGINES = [
    by_reference,
    pytest.param(
        by_runtime,
        marks=pytest.mark.skipif(onnxruntime is None, reason="no onnxruntime"),
    ),
]
each_engine = pytest.mark.parametrize("engine", ENGINES)


def theirs(engine, op, *inputs, outputs=1, **attributes):
    session = engine(model(op, inputs, outputs, attributes))
    return session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})


def is_right(engine, op, attributes):
    """Whether an engine computes what ONNX says."""
    named = attributes.get("auto_pad", "NOTSET")
    dilated = "dilations" in attributes
    if engine is by_runtime:  # forgets the dilation in the padding
        return not (named.startswith("SAME") and dilated)
    if op == "MaxPool":  # has no indices without strides; rounds and pads as UPPER
        strided = max(attributes.get("strides", [1])) > 1
        return named != "SAME_LOWER" and (strided or dilated)
    if op == "LpPool" and attributes.get("ceil_mode"):  # scales clipped windows up
        return False
    if attributes.get("ceil_mode"):  # puts half of the overhang in front
        return max(attributes.get("strides", [1])) < 3
    return named == "NOTSET" or not dilated


def cases(op, rank):
    """Attributes of one operator; its own option takes its values by turns."""
    ((option, values),) = OPTIONS[op].items()
    turns = itertools.cycle(values)
    for (kernel, strides, pads), dilations in itertools.product(
        WINDOWS[rank], DILATIONS[rank]
    ):
        window = {"kernel_shape": kernel, "strides": strides, "dilations": dilations}
        paddings = [{"pads": pads}, {"pads": pads, "ceil_mode": 1}]
        paddings += [{"auto_pad": n} for n in ("SAME_UPPER", "SAME_LOWER", "VALID")]
        for padding in paddings:
            given = window | padding | {option: next(turns)}
            yield {k: v for k, v in given.items() if v is not None}


@functools.cache
def of_ours(op, rank):
    """(attributes, outputs) of all cases, which is the same for each engine."""
    some, asked = list(cases(op, rank)), {"outputs": 2} if op == "MaxPool" else {}

    @quick_jit
    def run(x):
        return [getattr(ours, op)(x, **attributes, **asked) for attributes in some]

    return list(zip(some, run(distinct(SHAPES[rank])), strict=True))


@pytest.mark.share(3)
@each_engine
@pytest.mark.parametrize("rank", SHAPES)
@pytest.mark.parametrize("op", OPTIONS)
def test_windows(op, rank, engine):
    x, compared = distinct(SHAPES[rank]), 0
    for attributes, got in of_ours(op, rank):
        if is_right(engine, op, attributes):
            got = got if isinstance(got, tuple) else (got,)
            want = theirs(engine, op, x, outputs=len(got), **attributes)
            for a, b in zip(got, want, strict=True):
                label = f"{op} {attributes}"
                np.testing.assert_allclose(a, b, 1e-5, 1e-5, err_msg=label)
            compared += 1
    assert compared > 1


@pytest.mark.share(3)
@each_engine
@pytest.mark.parametrize("dtype", ["float64", "int8", "uint8"])
def test_dtypes_of_max_pool(dtype, engine):
    with jax.enable_x64(True):
        x = np.abs(distinct((1, 1, 5, 6))).astype(dtype)
        attributes = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [1, 1, 1, 1]}
        want = theirs(engine, "MaxPool", x, outputs=2, **attributes)
        got = ours.MaxPool(x, outputs=2, **attributes)
        assert got[0].dtype == want[0].dtype
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.share(3)
@each_engine
@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 2, 3, 4), (1, 2, 2, 3, 2)])
def test_global(shape, engine):
    x = distinct(shape)
    for op in ("GlobalMaxPool", "GlobalAveragePool"):
        if engine is by_reference and op == "GlobalMaxPool" and len(shape) != 4:
            continue  # takes the axes of images
        (want,) = theirs(engine, op, x)
        np.testing.assert_allclose(getattr(ours, op)(x), want, 1e-6)
    for p in (1, 2, 3):  # nobody has GlobalLpPool
        (want,) = theirs(engine, "LpPool", x, kernel_shape=shape[2:], p=p)
        np.testing.assert_allclose(ours.GlobalLpPool(x, p=p), want, 1e-5)


@pytest.mark.share(3)
@each_engine
@pytest.mark.parametrize("rank", SHAPES)
def test_unpooling(rank, engine):
    x = distinct(SHAPES[rank])
    attributes = {"kernel_shape": [2] * rank, "strides": [2] * rank}
    smaller = x[(..., *(slice(n // 2 * 2) for n in x.shape[2:]))]  # as it is inferred
    y, i = map(np.asarray, ours.MaxPool(smaller, outputs=2, **attributes))
    inputs = y, i.astype(np.int64)
    (want,) = theirs(engine, "MaxUnpool", *inputs, **attributes)
    assert np.count_nonzero(want) >= y.size - 1  # the values have one 0
    np.testing.assert_array_equal(ours.MaxUnpool(*inputs, **attributes), want)
    if engine is by_reference:  # the runtime counts over the larger shape
        inputs += (np.add(x.shape, [0, 0] + [1] * rank),)
        (want,) = theirs(engine, "MaxUnpool", *inputs, **attributes)
        np.testing.assert_array_equal(ours.MaxUnpool(*inputs, **attributes), want)


@pytest.mark.share(3)
@pytest.mark.parametrize("auto_pad", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
def test_shapes_are_those_that_onnx_infers(auto_pad):
    for n, k, s, dilation in itertools.product((5, 6, 7), (1, 2, 3), (1, 2, 3), (1, 2)):
        attributes = {"kernel_shape": [k], "strides": [s], "dilations": [dilation]}
        attributes |= {"ceil_mode": 1, "auto_pad": auto_pad}
        x = np.zeros((1, 1, n), np.float32)
        proto = onnx.shape_inference.infer_shapes(model("MaxPool", [x], 1, attributes))
        dims = proto.graph.output[0].type.tensor_type.shape.dim
        got = jax.eval_shape(functools.partial(ours.MaxPool, **attributes), x)
        assert got.shape == tuple(dim.dim_value for dim in dims), (n, attributes)


X = np.zeros((1, 2, 6, 5), np.float32)
K = {"kernel_shape": [2, 2]}
REFUSED = [
    ("MaxPool", {}, TypeError, "kernel_shape"),
    ("MaxPool", {"kernel_shape": [2]}, ValueError, "kernel_shape"),
    ("MaxPool", {"kernel_shape": [0, 2]}, ValueError, "kernel_shape"),
    ("AveragePool", K | {"strides": [0, 1]}, ValueError, "strides"),
    ("AveragePool", K | {"strides": [1]}, ValueError, "strides"),
    ("AveragePool", K | {"pads": [1, 1]}, ValueError, "pads"),
    ("AveragePool", K | {"pads": [-1, 0, 0, 0]}, ValueError, "pads"),
    ("AveragePool", K | {"pads": [2, 0, 0, 0]}, ValueError, "pads"),
    ("LpPool", K | {"dilations": [1]}, ValueError, "dilations"),
    ("LpPool", K | {"auto_pad": "SAME"}, ValueError, "auto_pad"),
    ("MaxPool", K | {"storage_order": 2}, ValueError, "storage_order"),
]
REFUSED_HERE = [  # the runtime takes these
    ("MaxPool", {"kernel_shape": [7, 2]}, ValueError, "kernel_shape"),
    ("MaxPool", {"kernel_shape": 2}, ValueError, "kernel_shape"),
    ("MaxPool", K | {"ceil_mode": 2}, ValueError, "ceil_mode"),
    ("MaxPool", K | {"ceil_mode": "1"}, ValueError, "ceil_mode"),
    ("MaxPool", K | {"outputs": 3}, ValueError, "outputs"),
    ("AveragePool", K | {"count_include_pad": None}, ValueError, "count_include_pad"),
    ("AveragePool", K | {"p": 2}, TypeError, "p"),
    ("MaxPool", K | {"auto_pad": "VALID", "pads": [1] * 4}, ValueError, "pads"),
    ("LpPool", K | {"p": 0}, ValueError, "p"),
    ("GlobalLpPool", {"p": -1}, ValueError, "p"),
]


def fails(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception:  # the runtime has errors of its own
        return True
    return False


@pytest.mark.share(3)
@pytest.mark.parametrize(("op", "attributes", "error", "name"), REFUSED, ids=str)
def test_what_is_refused_there_is_refused_here(op, attributes, error, name):
    if onnxruntime is not None:
        assert fails(theirs, by_runtime, op, X, **attributes)
    with pytest.raises(error, match=name):
        getattr(ours, op)(X, **attributes)


@pytest.mark.share(3)
@pytest.mark.parametrize(("op", "attributes", "error", "name"), REFUSED_HERE, ids=str)
def test_what_is_refused_here(op, attributes, error, name):
    with pytest.raises(error, match=rf"\b{name}\b"):
        getattr(ours, op)(X, **attributes)


def test_inputs_that_are_refused():
    for op in (ours.GlobalMaxPool, ours.GlobalAveragePool, ours.GlobalLpPool):
        with pytest.raises(ValueError, match="X"):
            op(X[0, 0])
    with pytest.raises(TypeError, match="X"):
        ours.MaxPool([[1.0]], **K)
    i = np.zeros(X.shape, np.int64)
    for indices, shape in (
        (i, (1, 2, 6, 6)),  # smaller than what is inferred
        (i, (1, 3, 12, 10)),
        (i, (12, 10)),
        (i[:, :1], None),
        (i - 1, None),  # of nobody
        (i, None),  # of the first channel, for the second one too
        (i + 10**6, None),
    ):
        with pytest.raises(ValueError, match=r"indices|output_shape"):
            ours.MaxUnpool(X, indices, shape, **K, strides=[2, 2])


# --- where the reference or the runtime is wrong ---


@pytest.mark.share(3)
@pytest.mark.parametrize("row", [[np.nan, 1], [1, np.nan]])
def test_nan_wins_wherever_it_is(row):
    x = np.asarray(row, np.float32).reshape(1, 1, 2)
    for op in OPTIONS:
        assert np.isnan(getattr(ours, op)(x, kernel_shape=[2])).all(), op
    index = ours.MaxPool(x, kernel_shape=[2], outputs=2)[1]
    assert index.item() == row.index(1) ^ 1


def test_same_lower():
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    attributes = {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_LOWER"}
    np.testing.assert_array_equal(ours.MaxPool(x, **attributes).ravel(), [1, 3])


def test_clipped_windows():
    x = np.ones((1, 1, 4), np.float32)
    attributes = {"kernel_shape": [3], "strides": [3], "ceil_mode": 1}
    for op, want in (("AveragePool", [1, 1]), ("LpPool", [3, 1])):
        got = getattr(ours, op)(x, **attributes, **({"p": 1} if op == "LpPool" else {}))
        np.testing.assert_array_equal(got.ravel(), want)


def test_padding_of_dilated_windows():
    x = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    attributes = {"kernel_shape": [2], "dilations": [2], "auto_pad": "SAME_UPPER"}
    np.testing.assert_array_equal(
        ours.MaxPool(x, **attributes).ravel(), [1, 2, 3, 4, 3]
    )
    assert ours.AveragePool(x, **attributes).ravel().tolist() == [1, 1, 2, 3, 3]


def test_indices_at_stride_one():
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    y, i = ours.MaxPool(x, kernel_shape=[2, 2], outputs=2)
    np.testing.assert_array_equal(i, y)
