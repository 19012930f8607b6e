"""Wrong calls: for each argument its bad values, for each callable that takes it.

`cases()` has all of them. A callable is a function with arguments that are right; of
a case one is replaced. `BAD` says which values are wrong, `RIGHT` where they are not.
Arrays that are right are jax's, so that nothing is left to do before the checks.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxpool
from jaxpool.compat import flax, keras, onnx, torch

X = np.arange(48, dtype=np.float32).reshape(1, 4, 6, 2)  # [n, h, w, c]
ROW = np.arange(8, dtype=np.float32)


class Case(NamedTuple):
    """A callable, the argument that is wrong, and how it is."""

    name: str
    argument: str
    value: Callable[[], Any]
    call: Callable[..., Any]
    right: dict[str, Any]

    @property
    def label(self) -> str:
        """What to call it."""
        return f"{self.name}({self.argument}={self.value()!r:.40})".replace("\n", " ")

    def __call__(self) -> Any:
        """Make the wrong call."""
        return self.call(**self.right | {self.argument: self.value()})


class Named:
    """An object of no use, with a short name."""

    def __repr__(self) -> str:
        """The name."""
        return "Named()"


def generator(*items: Any) -> Callable[[], Any]:
    """What makes an iterator anew for each call: it is used up by one."""
    return lambda: iter(items)


NO_ARRAYS = [
    None,
    "image",
    [[1.0, 2.0]],
    3.0,
    {"x": 1},
    {1.0, 2.0},
    Named(),
    generator(1),
]
NO_NUMBERS = [
    X.astype(object),
    X.astype(str),
    X.astype("S3"),
    X.astype("m8[s]"),
    X.astype("M8[s]"),
    X.astype(np.longdouble),
    np.ma.array(X, mask=X > 3),
    np.zeros(X.shape, [("a", np.float32)]),
    np.zeros(X.shape, jax.dtypes.float0),
    np.full(X.shape, 2**40),
]
NO_INTS = [
    2.5,
    (2.5, 2),
    "22",
    b"22",
    {2, 3},
    {2: 2},
    True,
    (True, 2),
    (2, None),
    Named(),
]
NO_INTS += [
    generator(2, 2),
    np.array([2.0, 2.0]),
    ((2, 2),),
    np.array([[2, 2]]),
    2 + 0j,
]
NO_SIZES = [*NO_INTS, None, (0, 2), (-1, 2), 0, -3]
NO_FLAGS = [None, 1, 0, "no", 1.0, (True,), np.ones(1, bool), Named()]
NO_REALS = ["a", b"1", True, 1j, [2.0], np.ones(1), {2.0}, 10**400]
NO_REALS += [np.timedelta64(1, "s")]
NO_NAMES = ["no such name", 3, True, b"x", ["x"], {"x"}, Named()]
NO_INDICES = [X, [0, 1], "01", 3, np.ones(X.shape, bool), np.zeros((1, 4, 6), int)]
NO_INDICES += [np.full(X.shape, n) for n in (-2, 10**6, 2**32, -(2**40), 2**63 - 1)]

BAD: dict[str, list[Any]] = {
    "x": [*NO_ARRAYS, *NO_NUMBERS],
    "where": [
        X,
        X.astype(int),
        "mask",
        [True],
        Named(),
        X[..., 0] > 3,
        X[0] > 3,
        ROW > 3,
        X[:, :3] > 3,
        X[None] > 3,
        X.astype(object),
        1,
    ],
    "window": [*NO_SIZES, (), (2, 2, 2, 2, 2), (2**40, 2), (100, 2)],
    "strides": [*NO_INTS, (), (1, 1, 1), (0, 1), (1, -1), 0, "SAME", "VALID"],
    "padding": [
        1.5,
        "FULL",
        b"SAME",
        {1, 2},
        {1: 1},
        True,
        None,
        Named(),
        generator(1, 1),
        -1,
        (0, -1),
        ((0, 0), (-1, 0)),
        (1, 1, 1),
        ((0, 1, 1), (0, 0)),
        (),
        10**6,
        2**40,
        [{0, 1}, (0, 0)],
        [(0.5, 0), (0, 0)],
        "SAMELOWER",
        ((1, 1),),
    ],
    "dilation": [*NO_INTS, None, (), (1, 1, 1), (0, 1), (1, -1), 0, "SAME", 2**40],
    "axes": [*NO_INTS[:-1], (), (1, 1), (1, -3), (1, 9), (-9, 1), 9, -9],
    "ceil_mode": NO_FLAGS,
    "keepdims": NO_FLAGS,
    "overlapping": NO_FLAGS,
    "count_include_pad": NO_FLAGS,
    "empty_value": [*NO_REALS, None],
    "p": [*NO_REALS, None, 0, -1, math.nan, -math.inf],
    "divisor": [*NO_REALS, 0, 0.0, math.nan, math.inf, 1e300],
    "implementation": [*NO_NAMES, "slice", "SLICES"],
    "padding_mode": [*NO_NAMES, "zeros", "EDGE"],
    "output_shape": [*NO_SIZES, (), (2, 2, 2, 2, 2)],
    "rule": [*NO_NAMES, None, "windows"],
    "key": [0, "a", ROW, [0, 1], np.uint32([[0, 1]]), np.uint32(3), Named(), True],
    "samples": [
        0.5,
        [0.5, 0.5],
        "a",
        Named(),
        np.zeros(2, int),
        np.zeros(2, np.float16),
        np.float32([0.5]),
        np.zeros((3, 3, 2), np.float32),
        np.float32([0.5, 1]),
        np.float32([-1, 0]),
        np.float32([0, np.nan]),
        np.zeros(2, np.complex64),
    ],
    "indices": NO_INDICES,
    "values": [*NO_ARRAYS, *NO_NUMBERS, X > 3],
    "shape": [
        None,
        4,
        4.0,
        "abcd",
        {1, 4},
        {1: 4},
        (1, 4.0, 6, 2),
        (-1, 4, 6, 2),
        generator(1, 4, 6, 2),
        True,
        (1, True, 6, 2),
        Named(),
    ],
    "source": [*NO_NAMES, None],
    "target": [*NO_NAMES, None, "pytorch"],
    "platform": [*NO_NAMES, None, "gpu"],
    "init": [
        "0",
        None,
        [0.0],
        (0.0,),
        {"a": 0.0},
        0j,
        True,
        np.zeros(1),
        Named(),
        1e300,
    ],
    "op": [None, "add", 3, Named(), lambda a: a, lambda a, b: (a, b), lambda a, b: 1],
    "axis_names": [
        None,
        3,
        {"h"},
        b"h",
        ("h",),
        ("h", "w", "c"),
        ("h", 3),
        generator("h"),
    ],
    "segment_ids": [None, "ids", 3, [0, 1], X, ROW > 3, np.zeros(3, int), Named()]
    + [np.full(4, n) for n in (3, 10**6, 2**40)],
    "num_segments": [*NO_INTS, None, 0, -3, (2, 2), 2**40],
    "axis": [*NO_INTS, None, (1, 2), 4, -5, "time"],
    "indices_are_sorted": NO_FLAGS,
    "positions": [None, "positions", 3, X, np.zeros((5, 2), int), ROW > 3, Named()],
    "by": [None, 3, "largest", jnp.max, Named()],
    "arrays": [None, "logits", 3, ["weights"], ["no such name"], [3], Named()],
    "logits": ["logits", [1.0], X[:, :3], X > 3, X.astype(object), 1j, Named()],
    "scale": ["1", [1.0], X[:, :3], X > 3, math.nan, math.inf, True, 1j, Named()],
    "eps": [*NO_REALS[:-1], -1.0, math.nan],
    "ddof": [*NO_INTS, -1],
    "deterministic": NO_FLAGS,
    "rng_collection": [None, 3, ("pooling",), b"pooling", Named()],
    "rngs": [0, "pooling", ROW, {"pooling": 0}, Named(), jax.random.key],
    # Of dialects.
    "window_shape": [*NO_SIZES, (), (100, 2), (2, 2, 2, 2, 2)],
    "reduce_fn": [None, "add", 3, lambda a: a, lambda a, b: (a, b)],
    "pool_size": [*NO_SIZES, (), (100, 2), (2, 2, 2)],
    "output_size": [*NO_SIZES, (), (2, 2, 2)],
    "data_format": ["NCHW", 3, True, "channels", ["channels_last"], Named()],
    "mask": [X[..., 0], "mask", [True], X > 3, X[:, 0, 0] > 3, Named(), 1],
    "kernel_shape": [*NO_SIZES, 2, (2,), (100, 2), (2, 2, 2)],
    "pads": [*NO_INTS, 1, (1, 1), (0, 0, 0, -1), (9, 9, 9, 9), "SAME_UPPER"],
    "dilations": [*NO_INTS, 1, (1,), (0, 1), (-1, 1)],
    "auto_pad": [*NO_NAMES, "SAME", None],
    "storage_order": [2, None, "x", -1, 1.5, (1,)],
    "outputs": [0, 3, None, "2", (1, 2)],
}
BAD["inputs"] = BAD["X"] = BAD["x"]
PLACES_OF_TORCH = np.zeros((1, 2, 4, 6), int)
# Of PyTorch, whose flags may be 0 or 1, and whose ints may be one in a sequence.
TORCH: dict[str, list[Any]] = {
    "input": [*NO_ARRAYS, *NO_NUMBERS, ROW, X[0, 0, 0, 0], X[..., None, None] + 0],
    "kernel_size": [*NO_SIZES, (), (2, 2, 2, 2, 2), (100, 2), "SAME"],
    "stride": [*NO_INTS, (1, 1, 1, 1), (0, 1), (1, -1), 0, "SAME"],
    "padding": [*NO_INTS, None, (1, 1, 1, 1), -1, (0, -1), 2, (2, 0), "same"],
    "dilation": [*NO_INTS, None, (), (1, 1, 1, 1), (0, 1), (1, -1), 0],
    "ceil_mode": ["no", 1.0, None, Named()],
    "count_include_pad": ["no", 1.0, None, Named()],
    "return_indices": ["no", 1.0, None, Named()],
    "divisor_override": ["a", 1j, [2], 0, 2.5, Named()],
    "norm_type": ["a", None, [2.0], 1j, 0, Named(), b"1"],
    "output_size": [
        "22",
        {2, 3},
        {2: 2},
        (2.5, 2),
        2.5,
        (2, 2, 2, 2),
        Named(),
        -3,
        (-1, 2),
    ],
    "output_ratio": ["a", 0.5, (0.5,), (1.0, 0.5), (1.5, 0.5), (0.5, None)],
    "_random_samples": ["a", 0.5, [0.5, 0.5], ROW, Named(), X.astype(int)],
    "key": BAD["key"],
    "indices": [None, "01", 3, [0, 1], Named(), X, X > 3, PLACES_OF_TORCH[0, 0]]
    + [np.full((1, 2, 4, 6), n) for n in (-1, 10**6, 2**32, -(2**40))],
}

NHWC, NCHW = jnp.asarray(X), jnp.asarray(X.transpose(0, 3, 1, 2))
PLACES = jnp.zeros(X.shape, np.int32)
DRAWN = {"window": 2, "output_shape": (3, 4), "key": jax.random.key(0)}
WINDOW = {"window": (2, 2)}


def functions() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """The native functions, with arguments that are right."""
    made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
    for name, function in vars(jaxpool).items():
        if not inspect.isfunction(function) or name.startswith("_"):
            continue
        right: dict[str, Any] = {"x": NHWC}
        if "fractional" in name:
            right |= DRAWN
        elif "adaptive" in name:
            right |= {"output_shape": (3, 4)}
        elif "segment" in name:
            ids = jnp.zeros(4, np.int32)
            right |= {"segment_ids": ids, "num_segments": 3, "axis": 1}
        elif name == "pool_by_positions":
            tokens, positions = NHWC[:, 0], jnp.zeros((1, 6, 1), np.int32)
            right = {"x": tokens, "positions": positions}
            right |= {"window": 2, "output_shape": 2}
        elif name.endswith(("pool", "with_indices")) and "global" not in name:
            right |= WINDOW
        made[name] = function, right
    del made["forward_mode"]
    made["fractional_max_pool-samples"] = (
        jaxpool.fractional_max_pool,
        {"x": NHWC, "samples": jnp.full(2, 0.5), "window": 2, "output_shape": (3, 4)},
    )
    made["pool"][1].update(init=0.0, op=jax.lax.add)
    made["aggregate"][1].update(by="max", over=jaxpool.windows(**WINDOW))
    causal = jaxpool.windows(2, 1, "CAUSAL", axes=1)
    made["stream"] = jaxpool.stream, {"by": jaxpool.Softmax(), "over": causal}
    made["halo_exchange"] = (
        jaxpool.halo_exchange,
        {"x": NHWC, "window": (2, 2), "axis_names": (None, None)},
    )
    made["max_unpool"] = (
        jaxpool.max_unpool,
        {"values": NHWC, "indices": PLACES, "output_shape": (8, 12)},
    )
    made["convert_indices"] = (
        jaxpool.convert_indices,
        {"indices": PLACES, "shape": X.shape, "source": "torch", "target": "tf"},
    )
    made["output_shape"] = jaxpool.output_shape, {"shape": X.shape} | WINDOW
    made["implementation_for"] = (
        jaxpool.implementation_for,
        {"platform": "cpu", "shape": X.shape} | WINDOW,
    )
    return made


def modules() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """The modules of both flavours: built, and called."""
    made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
    for flavour in (jaxpool.linen, jaxpool.nnx):
        for name, kind in vars(flavour).items():
            if name[0] == "_" or getattr(kind, "__module__", "") != flavour.__name__:
                continue
            arrays = (NHWC, PLACES) if name == "MaxUnpool" else (NHWC,)
            right: dict[str, Any] = {}
            if "Fractional" in name:
                right = DRAWN | {"deterministic": True}
                del right["key"]
            elif "Adaptive" in name or name == "MaxUnpool":
                right = {"output_shape": (8, 12)}
            elif name == "Aggregate":
                right = {"by": "max", "over": jaxpool.windows(**WINDOW)}
            elif "Global" not in name:
                right = WINDOW
            made[f"{flavour.__name__}.{name}"] = _built(kind, arrays), right
    return made


def _built(kind: Any, arrays: tuple[Any, ...]) -> Callable[..., Any]:
    """From options, and `where`, to the result of a module on some arrays."""

    def built(**options: Any) -> Any:
        of_call = {"where", "logits"} & {*options}
        called = {name: options.pop(name) for name in sorted(of_call)}
        module = kind(**options)
        if hasattr(module, "apply"):
            return module.apply({}, *arrays, **called)
        return module(*arrays, **called)

    own = set(inspect.signature(kind).parameters) - {"parent", "name"}
    of_call = set(inspect.signature(kind.__call__).parameters) & {"where", "logits"}
    built.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
        for name in sorted(own | of_call)
    )
    return built


def dialects() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """The functions of other libraries."""
    made: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {}
    for name in ("max_pool", "min_pool", "avg_pool"):
        right: dict[str, Any] = {"inputs": NHWC, "window_shape": (2, 2)}
        made[f"flax.{name}"] = getattr(flax, name), right
    others = {"init": 0.0, "reduce_fn": jax.lax.add, "strides": 1, "padding": "VALID"}
    made["flax.pool"] = flax.pool, right | others
    for name in ("max_pool", "average_pool"):
        made[f"keras.{name}"] = getattr(keras, name), {"inputs": NHWC, "pool_size": 2}
    for name in ("adaptive_max_pool", "adaptive_average_pool"):
        made[f"keras.{name}"] = getattr(keras, name), {"inputs": NHWC, "output_size": 2}
    for name in ("global_max_pooling", "global_average_pooling"):
        made[f"keras.{name}"] = getattr(keras, name), {"inputs": NHWC}
    for name in ("MaxPool", "AveragePool", "LpPool"):
        made[f"onnx.{name}"] = getattr(onnx, name), {"X": NCHW, "kernel_shape": (2, 2)}
    for name in ("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"):
        made[f"onnx.{name}"] = getattr(onnx, name), {"X": NCHW}
    for name, function in vars(torch).items():
        if name.endswith("2d"):
            made[f"torch.{name}"] = function, _right_of_torch(name)
    call, right = made["torch.fractional_max_pool2d"]
    by_ratio = right | {"output_size": None, "output_ratio": (0.5, 0.5)}
    made["torch.fractional_max_pool2d-ratio"] = call, by_ratio
    return made


def _right_of_torch(name: str) -> dict[str, Any]:
    """The arguments of a function of PyTorch in 2-D that it must have."""
    right: dict[str, Any] = {"input": NCHW}
    if "adaptive" in name:
        return right | {"output_size": (3, 4)}
    right["kernel_size"] = (2, 2)
    if "fractional" in name:
        right |= {"output_size": (2, 3), "key": jax.random.key(0)}
    elif "unpool" in name:
        right["indices"] = jnp.asarray(PLACES_OF_TORCH, np.int32)
    elif "lp" in name:
        right["norm_type"] = 2.0
    return right


# What is wrong elsewhere, and here is not.
RIGHT = {
    ("output_shape", "(2, None)"): "adaptive",
    ("p", "-1"): "power",
    ("eps", "-1.0"): "power",
    **{("ceil_mode", flag): "onnx." for flag in "01"},
    **{("count_include_pad", flag): "onnx." for flag in "01"},
    # PyTorch computes a size from these, and asks nothing else of them.
    **{
        ("kernel_size", n): "unpool2d"
        for n in ("0", "-3", "(0, 2)", "(-1, 2)", "(100, 2)")
    },
    **{("stride", n): "unpool2d" for n in ("0", "(0, 1)")},
    **{("padding", n): "unpool2d" for n in ("-1", "(0, -1)", "2", "(2, 0)")},
}


def cases() -> list[Case]:
    """Every wrong call."""
    made = []
    for name, (call, right) in (functions() | modules() | dialects()).items():
        for argument in inspect.signature(call).parameters:
            bad = TORCH if name.startswith("torch.") else BAD
            if argument == "output_ratio" and not right.get(argument):
                continue  # a size is given, which goes before
            for value in bad.get(argument, []):
                if RIGHT.get((argument, repr(value)), "nothing") in name.lower():
                    continue
                is_made = getattr(value, "__qualname__", "").startswith("generator.")
                make = value if is_made else functools.partial(_itself, value)
                made.append(Case(name, argument, make, call, right))
    return made


def _itself(value: Any) -> Any:
    return value
