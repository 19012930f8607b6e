"""Random calls of `jaxpool.compat` against the libraries that it imitates.

    python -m tests.attack.dialects --seed 1 --cases 500 [--dialect torch] [--gradients]

Both sides get the same call. Either both refuse it, or values, indices, gradients,
dtypes and shapes agree; `ACCEPTED` names what may differ, with the reason. A seed and a
number reproduce a case, and a failure prints the smallest call found that still fails.
Libraries that are not installed are left out.
"""

import argparse
import collections
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import itertools
import math
import os
import random
import re
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = ("float32", "float64", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
RUNTIME = importlib.util.find_spec("onnxruntime") is not None
TOLERANCES = {"float64": 1e-8, "float16": 5e-3, "bfloat16": 4e-2}


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of one function of a dialect; the first argument is what is pooled."""

    dialect: str
    name: str
    args: tuple
    kwargs: dict
    gradient: bool = False

    @property
    def x(self):
        """What is pooled."""
        return self.args[0]

    @property
    def x64(self):
        """Whether jax must have 64 bits to take the same numbers."""
        return getattr(self.x, "dtype", None) in (np.float64, np.int64, np.uint64)

    @functools.cached_property
    def options(self):
        """All arguments by name, as far as the signature knows them."""
        parameters = inspect.signature(getattr(module(self.dialect), self.name))
        names = [
            n for n, p in parameters.parameters.items() if p.kind != p.KEYWORD_ONLY
        ]
        return dict(zip(names, self.args, strict=False)) | self.kwargs

    def __str__(self):
        """Python that makes the call."""
        parts = [text(a) for a in self.args]
        parts += [f"{k}={text(v)}" for k, v in self.kwargs.items()]
        mode = " under jax_enable_x64" if self.x64 else ""
        mode += ", gradient" if self.gradient else ""
        return f"{self.dialect}.{self.name}({', '.join(parts)}){mode}"


def text(value):
    """Python that makes a value."""
    if not isinstance(value, np.ndarray):
        return getattr(value, "__name__", repr(value))
    if not value.size:
        return f"np.zeros({value.shape}, {value.dtype.name!r})"
    return f"np.array({value.tolist()}, {value.dtype.name!r})"


def module(dialect):
    """The module of ours."""
    return importlib.import_module(f"jaxpool.compat.{dialect}")


class Draw(random.Random):
    """Random arguments."""

    def some(self, *, of, odds=None):
        """One of several."""
        return self.choices(of, odds)[0]

    def maybe(self, odds):
        """True, so often."""
        return self.random() < odds

    def data(self, shape, dtype):
        """Small numbers with ties; of floats sometimes NaN, infinities and zeros."""
        rng = np.random.default_rng(self.randrange(2**32))
        x = rng.integers(-9, 10, shape)
        if dtype in INTEGERS or dtype == "uint32":
            x = np.abs(x) if dtype.startswith("u") else x
            return x.astype(dtype)
        if dtype in ("bool", "complex64"):
            return x.astype(dtype)
        x = x / 4 if self.maybe(0.5) else np.round(rng.normal(size=shape), 2)
        specials = self.some(of=[(), (np.nan,), (np.inf, -np.inf), (-0.0, 0.0)] * 2 + [
            (-np.inf,), (np.nan, np.inf, -np.inf, -0.0, 0.0)
        ], odds=[6, 1, 1, 2] * 2 + [1, 1])  # fmt: skip
        for special in specials:
            x = np.where(rng.random(shape) < 0.2, special, x)
        return x.astype(jnp.dtype(dtype))

    def ints(self, rank, low, high):
        """An int, or one for each axis."""
        each = [self.randint(low, high) for _ in range(rank)]
        return self.some(of=[each[0], tuple(each), each], odds=[3, 2, 1])

    def odd(self, rank):
        """What is no, or no usual, argument of integers."""
        return self.some(
            of=[0, -1, True, "a", None, (), (2,), [1], 2.0, (2, 2), (1, 2, 1), (2,) * 4,
                np.int64(2), 9, (0,) * rank, (2.0,) * rank, (None,) * rank, "same",
                (-1,) * rank, (True,) * rank, 1j, {}, (1, "a", 2)[:rank], range(1, 3)]
        )  # fmt: skip

    def dtype(self, others=0.15):
        """A dtype, mostly floating."""
        if self.maybe(others):
            return self.some(of=[*INTEGERS, "bool", "complex64", "uint32"])
        return self.some(of=FLOATS, odds=[7, 2, 1, 1])

    def called(self, dialect, name, x, required, optional, gradient, odd=0.1):
        """A call in which arguments are positional or keywords, one perhaps odd."""
        rank = max(1, np.ndim(x) - 2)
        given = dict(required)
        given |= {k: v for k, v in optional.items() if self.maybe(0.5)}
        if self.maybe(odd) and given:
            given[self.some(of=list(given))] = self.odd(rank)
        if self.maybe(0.02):
            given["nobody"] = 1
        known = inspect.signature(getattr(module(dialect), name)).parameters.values()
        order = [p.name for p in known if p.kind is p.POSITIONAL_OR_KEYWORD][1:]
        front = list(itertools.takewhile(given.__contains__, order))
        args = [given.pop(n) for n in front[: self.randint(0, len(front))]]
        return Call(dialect, name, (x, *args), given, gradient)


# --- PyTorch ---


def draw_torch(draw):
    """A call of any function of `compat.torch`."""
    rank = draw.some(of=[1, 2, 3], odds=[3, 3, 2])
    families = ["max_pool", "avg_pool", "lp_pool", "adaptive_avg_pool"]
    families += ["adaptive_max_pool", "max_unpool"] + ["fractional_max_pool"] * (
        rank > 1
    )
    family = draw.some(of=families)
    shape = [draw.randint(1, 2), draw.randint(1, 3)]
    shape += [draw.randint(1, 8 - rank) for _ in range(rank)]
    if draw.maybe(0.2):
        shape = shape[1:]
    if draw.maybe(0.04):
        shape = shape[draw.randint(1, 2) :] if draw.maybe(0.5) else [1, *shape]
    if shape and draw.maybe(0.06):
        shape[draw.randrange(len(shape))] = 0
    dtype = draw.dtype(0.1)
    if family == "avg_pool" and draw.maybe(0.2):
        dtype = "int64"
    x = draw.data(shape, dtype)
    room = min(shape[-rank:] or [1])
    kernel = draw.ints(rank, 1, max(1, draw.some(of=[2, room, 5], odds=[4, 4, 1])))
    stride = draw.some(of=[None, draw.ints(rank, 1, 3), ()], odds=[1, 8, 1])
    smallest = min(kernel) if isinstance(kernel, tuple | list) else kernel
    padding = draw.ints(rank, 0, draw.some(of=[smallest // 2, 2], odds=[5, 1]))
    window = {"kernel_size": kernel}
    options = {"stride": stride, "padding": padding}
    flag = draw.some(of=[False, True, 1, None, "no"], odds=[10, 20, 1, 1, 1])
    if family == "max_pool":
        options |= {"dilation": draw.ints(rank, 1, 3), "ceil_mode": flag}
        options["return_indices"] = draw.maybe(0.7) or flag
    if family == "avg_pool":
        options |= {"ceil_mode": draw.maybe(0.5), "count_include_pad": flag}
        if rank > 1 or draw.maybe(0.05):
            options["divisor_override"] = draw.some(of=[3, -2, 0, None, 1.5, 1])
    if family == "lp_pool":
        norms = [-math.inf, math.inf, 1, 2, 3, 1.5, 0.5, -1, -2, -0.5, 2.0, 4, 0, -3.0]
        norms += [math.nan, "a", 1e-3, np.float32(2), 1.5, 0.5, 2.5, 1.0, 1 / 3]
        window = {"norm_type": draw.some(of=norms), **window}
        if rank == 1 and draw.maybe(0.9):
            window["kernel_size"] = smallest
        options = {"stride": stride, "ceil_mode": flag}
    if family.startswith("adaptive"):
        odds = [20, 4 * (rank > 1), 1]
        sizes = [
            draw.some(of=[draw.randint(1, 8), None, 0], odds=odds) for _ in range(rank)
        ]
        one = sizes[0] or draw.randint(1, 5)
        spelled = draw.some(of=[one, tuple(sizes), sizes])
        window, options = {"output_size": spelled}, {}
        if family == "adaptive_max_pool":
            options["return_indices"] = draw.maybe(0.8)
    if family == "fractional_max_pool":
        return draw_fractional(draw, rank, x, kernel)
    if family == "max_unpool":
        return draw_unpool(draw, rank, x, kernel, stride, padding)
    name = f"{family}{rank}d"
    return draw.called("torch", name, x, window, options, draw.maybe(0.5))


def draw_fractional(draw, rank, x, kernel):
    """A call with samples."""
    spatial = x.shape[-rank:]
    if draw.maybe(0.5):
        sizes = [max(0, draw.randint(n - 4, n - 1)) for n in spatial]
        sizes = {"output_size": draw.some(of=[sizes, tuple(sizes), sizes[0]])}
    else:
        ratios = [draw.some(of=[0.1, 0.3, 0.5, 0.7, 1.0]) for _ in range(rank)]
        ratios = draw.some(
            of=[tuple(ratios), ratios, 0.5, "a", "ab", (2.0,) * rank, (-0.1,) * rank,
                (1,) * rank, (math.nan,) * rank], odds=[9, 4, 1, 1, 1, 1, 1, 1, 1]
        )  # fmt: skip
        sizes = {"output_ratio": ratios}
    batched = x.shape[:2] if x.ndim == rank + 2 else (1, *x.shape[:1])
    rng = np.random.default_rng(draw.randrange(2**32))
    dtype = x.dtype if x.dtype in (np.float32, np.float64) else np.float32
    samples = rng.random((*batched, rank)).astype(dtype)
    if draw.maybe(0.05):
        samples = draw.some(
            of=[samples[..., :1], samples[0], samples.astype("float64")]
        )
    kernel = draw.some(of=[kernel, 1, 2], odds=[1, 3, 2])
    given = {"kernel_size": kernel, **sizes}
    given |= {"return_indices": draw.maybe(0.8), "_random_samples": samples}
    name = f"fractional_max_pool{rank}d"
    return draw.called("torch", name, x, given, {}, draw.maybe(0.5), odd=0.08)


def draw_unpool(draw, rank, x, kernel, stride, padding):
    """A call with indices, most of them cells of the result."""
    rng = np.random.default_rng(draw.randrange(2**32))
    spatial = x.shape[-rank:]
    stride = kernel if stride == () and draw.maybe(0.9) else stride
    values = kernel, stride or kernel, padding
    each = [v if isinstance(v, tuple | list) else (v,) * rank for v in values]
    usual, sizes = [], []
    for n, k, s, p in zip(spatial, *each, strict=False):
        usual.append((n - 1) * s + k - 2 * p)
        sizes.append(usual[-1] + draw.randint(1 - s, s - 1))
    named = draw.maybe(0.5)
    cells = math.prod(sizes if named else usual)
    indices = rng.integers(0, max(1, cells), x.shape)
    if draw.maybe(0.1) and indices.size:
        wrong = draw.some(of=[-1, 10**5, 2**32, -(2**32) + 1, 2**63 - 1])
        indices.flat[draw.randrange(indices.size)] = wrong
    if draw.maybe(0.05):
        odd = [indices[:1], indices.astype("float32"), "a", None]
        indices = draw.some(of=odd)
    required = {"indices": indices, "kernel_size": kernel}
    if stride != kernel:
        required["stride"] = stride
    if named:
        spelled = [sizes, tuple(sizes), (*x.shape[:-rank], *sizes), sizes[:1], sizes[0]]
        odds = [12, 12, 4, 1, 1]
        required["output_size"] = draw.some(of=spelled, odds=odds) if sizes else ()
    required["padding"] = padding
    name = f"max_unpool{rank}d"
    return draw.called("torch", name, x, required, {}, draw.maybe(0.5), odd=0.05)


def by_torch(call):
    """Outputs and gradient of PyTorch."""
    import torch

    torch.set_num_threads(1)  # of two values for one cell, the last shall win

    def tensor(value):
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype == jnp.bfloat16:
            return torch.tensor(value.astype(np.float32)).to(torch.bfloat16)
        return torch.tensor(value)

    def array(t):
        t = t.detach()
        wide = t.float() if t.dtype == torch.bfloat16 else t
        return wide.numpy().astype(str(t.dtype).removeprefix("torch."))

    function = getattr(torch.nn.functional, call.name)
    args = [tensor(a) for a in call.args]
    kwargs = {k: tensor(v) for k, v in call.kwargs.items()}
    outputs = function(*args, **kwargs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = [array(t) for t in outputs]
    if not call.gradient or not args[0].is_floating_point():
        return arrays, None
    if call.name.startswith("max_pool") and np.isneginf(arrays[0].astype(float)).any():
        return arrays, None  # of windows of padding only, PyTorch writes anywhere
    try:
        args[0].requires_grad_()
        y = function(*args, **kwargs)
        y = y[0] if isinstance(y, tuple) else y
        y.backward(tensor(cotangent(y.shape, call.x.dtype)))
    except (RuntimeError, NotImplementedError):
        return arrays, None  # it has none of this dtype
    return arrays, array(args[0].grad)


def cotangent(shape, dtype):
    """Small integers, of both signs."""
    return (np.arange(math.prod(shape)) % 7 - 2).reshape(shape).astype(dtype)


# --- Flax ---


def draw_flax(draw):
    """A call of any function of `compat.flax`."""
    rank = draw.some(of=[1, 2, 3], odds=[3, 3, 1])
    batch = [draw.randint(1, 2) for _ in range(draw.some(of=[0, 1, 2], odds=[1, 6, 1]))]
    shape = [
        *batch,
        *(draw.randint(1, 8 - rank) for _ in range(rank)),
        draw.randint(1, 3),
    ]
    if draw.maybe(0.04):
        shape[draw.randrange(len(shape))] = 0
    name = draw.some(of=["max_pool", "min_pool", "avg_pool", "pool"])
    each = tuple(draw.randint(1, draw.some(of=[2, 3, 5])) for _ in range(rank))
    window = draw.some(of=[each, list(each), each[0]], odds=[8, 1, 1])
    pairs = [(draw.randint(0, 2), draw.randint(0, 2)) for _ in range(rank)]
    padding = draw.some(
        of=["VALID", "SAME", pairs, "same", "SAME_LOWER", 1, "CAUSAL", "FULL", None],
        odds=[6, 6, 6, 1, 1, 1, 1, 1, 1],
    )
    strides = tuple(draw.randint(1, 3) for _ in range(rank))
    optional = {"strides": draw.some(of=[None, strides, list(strides), strides[0]])}
    optional["padding"] = padding
    required = {"window_shape": window}
    if name == "avg_pool":
        optional["count_include_pad"] = draw.some(of=[True, False, None, 1])
    x = draw.data(shape, draw.dtype(0.15))
    if name == "pool":
        op = draw.some(of=[jax.lax.add, jax.lax.max, jax.lax.min, jax.lax.mul])
        init = {jax.lax.add: 0.0, jax.lax.mul: 1.0}.get(op)
        if init is None:
            init = -math.inf if op is jax.lax.max else math.inf
        if x.dtype.name in INTEGERS:
            op, init = jax.lax.add, 0
        init = draw.some(of=[init, "a", None, 1j], odds=[30, 1, 1, 1])
        required = {"init": init, "reduce_fn": op, **required, **optional}
        optional = {}
    return draw.called("flax", name, x, required, optional, draw.maybe(0.4), odd=0.08)


def by_flax(call):
    """Outputs and gradient of Flax."""
    from flax import nnx

    function = getattr(nnx, call.name, None)
    if function is None:
        from flax import linen

        function = getattr(linen, call.name)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return of_jax(function, call)


def of_jax(function, call):
    """Outputs and gradient of a function of jax arrays."""
    x, *rest = call.args
    outputs = function(x, *rest, **call.kwargs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    arrays = [np.asarray(y) for y in outputs]
    if not call.gradient or not jnp.issubdtype(np.asarray(x).dtype, jnp.floating):
        return arrays, None

    def first(x):
        y = function(x, *rest, **call.kwargs)
        return y[0] if isinstance(y, tuple) else y

    y, pull = jax.vjp(first, jnp.asarray(x))
    g = pull(jnp.asarray(cotangent(y.shape, y.dtype)))[0]
    return [np.asarray(y), *arrays[1:]], np.asarray(g)


# --- Keras ---


def draw_keras(draw):
    """A call of any function of `compat.keras`."""
    rank = draw.some(of=[1, 2, 3], odds=[3, 3, 1])
    spatial = [draw.randint(1, 8 - rank) for _ in range(rank)]
    shape = [draw.randint(1, 2), *spatial, draw.randint(1, 3)]
    if draw.maybe(0.05):
        shape = draw.some(of=[shape[1:], [1, *shape]])
    if draw.maybe(0.04):
        shape[draw.randrange(len(shape))] = 0
    names = ["max_pool", "average_pool", "adaptive_max_pool", "adaptive_average_pool"]
    name = draw.some(of=[*names, "global_max_pooling", "global_average_pooling"])
    formats = [None, "channels_last", "channels_first", "NHWC", 1]
    optional = {"data_format": draw.some(of=formats, odds=[6, 6, 6, 1, 1])}
    x = draw.data(shape, draw.dtype(0.15))
    required = {}
    if name in names[:2]:
        required = {
            "pool_size": draw.ints(rank, 1, 4),
            "strides": draw.ints(rank, 1, 3),
        }
        paddings = ["valid", "same", "SAME", "VALID", "full", 1, None]
        optional["padding"] = draw.some(of=paddings, odds=[5, 5, 2, 2, 1, 1, 1])
    elif name in names:
        required = {"output_size": draw.ints(rank, 1, 5)}
    else:
        optional["keepdims"] = draw.some(of=[True, False])
        if rank == 1 and name.endswith("average_pooling") and draw.maybe(0.5):
            rng = np.random.default_rng(draw.randrange(2**32))
            optional["mask"] = rng.random(shape[:2]) < 0.7
    return draw.called("keras", name, x, required, optional, draw.maybe(0.4), odd=0.08)


def by_keras(call):
    """Outputs and gradient of Keras on JAX."""
    import keras

    function = getattr(keras.ops, call.name, None)
    if function is None:
        known = dict(call.options)
        x, mask = known.pop("inputs"), known.pop("mask", None)
        stem = "".join(part.title() for part in call.name.split("_"))
        layer = getattr(keras.layers, f"{stem}{np.ndim(x) - 2}D")(**known)
        rest = () if mask is None else (jnp.asarray(mask),)
        call = Call(call.dialect, call.name, (x, *rest), {}, call.gradient)
        function = layer.call
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        function = functools.partial(
            lambda f, x, *a, **k: f(jnp.asarray(x), *a, **k), function
        )
        return of_jax(function, call)


# --- ONNX ---


def draw_onnx(draw):
    """A call of any function of `compat.onnx`."""
    rank = draw.some(of=[1, 2, 3], odds=[3, 3, 1])
    shape = [draw.randint(1, 2), draw.randint(1, 2)]
    shape += [draw.randint(1, 8 - rank) for _ in range(rank)]
    names = ["MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool"]
    name = draw.some(of=[*names, "MaxUnpool"])
    kernel = [draw.randint(1, 4) for _ in range(rank)]
    given = {"kernel_shape": kernel}
    optional = {
        "strides": [draw.randint(1, 3) for _ in range(rank)],
        "dilations": [draw.randint(1, 2) for _ in range(rank)],
        "ceil_mode": draw.some(of=[0, 1, 2], odds=[6, 6, 1]),
    }
    if draw.maybe(0.5):
        most = [k - 1 + draw.maybe(0.1) for k in kernel]
        optional["pads"] = [draw.randint(0, m) for m in most * 2]
    else:
        names = ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET", "SAME"]
        optional["auto_pad"] = draw.some(of=names, odds=[4, 4, 4, 4, 1])
    dtype = "float32"
    if name == "MaxPool":
        optional |= {"storage_order": draw.some(of=[0, 1])}
        dtype = draw.some(of=["float32", "float64", "int8", "uint8"], odds=[8, 1, 1, 1])
    if name == "AveragePool":
        optional["count_include_pad"] = draw.some(of=[0, 1])
    if name == "LpPool":
        optional["p"] = draw.some(of=[1, 2, 3])
    if name.startswith("Global"):
        given = optional = {}
    x = draw.data(shape, dtype)
    if name == "MaxUnpool":
        strides = optional["strides"]
        sizes = [
            (n - 1) * s + k for n, s, k in zip(shape[2:], strides, kernel, strict=True)
        ]
        rng = np.random.default_rng(draw.randrange(2**32))
        plane = math.prod(sizes)
        count = math.prod(shape[2:])
        places = np.stack([rng.permutation(plane)[:count] + i * plane
                           for i in range(shape[0] * shape[1])])  # fmt: skip
        given |= {"strides": strides, "indices": places.reshape(shape)}
        optional = {}
    taken = draw.called("onnx", name, x, given, optional, draw.maybe(0.3), odd=0.1)
    if name == "MaxPool":
        return dataclasses.replace(taken, kwargs=taken.kwargs | {"outputs": 2})
    return taken


def by_onnx(call):
    """Outputs of ONNX's reference, or of its runtime where that is installed."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    def info(name, dtype, shape=None):
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    attributes = dict(call.kwargs)
    tensors = [call.x, *call.args[1:]]
    tensors += [attributes.pop(n) for n in ("indices",) if n in attributes]
    count = attributes.pop("outputs", 1)
    takes = [info(f"x{i}", x.dtype, x.shape) for i, x in enumerate(tensors)]
    gives = [info("y0", call.x.dtype), info("y1", np.int64)][:count]
    names = [[value.name for value in values] for values in (takes, gives)]
    node = helper.make_node(call.name, *names, **attributes)
    graph = helper.make_graph([node], "call", takes, gives)
    opsets = [helper.make_opsetid("", 22)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    feeds = {f"x{i}": x for i, x in enumerate(tensors)}
    if RUNTIME:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        return session.run(None, feeds), None
    return ReferenceEvaluator(proto).run(None, feeds), None


# --- side by side ---


@dataclasses.dataclass(frozen=True)
class Difference:
    """What is not the same on the two sides."""

    kind: str  # "refused here", "refused there", "error", "value", "index", ...
    what: str
    theirs: object = None
    ours: object = None


def outcome(function, call):
    """The outputs and the gradient, or the error."""
    try:
        return function(call)
    except Exception as error:  # libraries have errors of their own
        return error


def by_ours(call):
    """Outputs and gradient of `jaxpool.compat`."""
    return of_jax(getattr(module(call.dialect), call.name), call)


DRAWN = {"torch": draw_torch, "flax": draw_flax, "keras": draw_keras, "onnx": draw_onnx}
THEIRS = {"torch": by_torch, "flax": by_flax, "keras": by_keras, "onnx": by_onnx}


def difference(call):
    """How the two sides differ: a `Difference`, "same" or "refused by both"."""
    with jax.enable_x64(call.x64), np.errstate(all="ignore"):
        ours = outcome(by_ours, call)
        theirs = outcome(THEIRS[call.dialect], call)
    if isinstance(ours, Exception):
        wrong = wrong_error(call, ours)
        if wrong:
            return Difference("error", wrong)
        if isinstance(theirs, Exception):
            return "refused by both"
        return Difference("refused here", str(ours), theirs)
    if isinstance(theirs, Exception):
        what = f"{type(theirs).__name__}: {str(theirs).splitlines()[0]:.200}"
        return Difference("refused there", what, ours=ours)
    return unequal(call, theirs, ours)


def wrong_error(call, error):
    """What is wrong with an error of ours: its type, or that it names no argument."""
    told = f"{type(error).__name__}: {error}"
    if type(error) not in (TypeError, ValueError, NotImplementedError):
        return f"not one of our errors: {told}"
    function = getattr(module(call.dialect), call.name)
    names = {*inspect.signature(function).parameters, *call.kwargs}
    if not any(re.search(rf"\b{name}\b", str(error)) for name in names):
        return f"names no argument: {told}"
    return None


def unequal(call, theirs, ours):
    """The first of values, indices and gradient that differs."""
    (wants, gradient), (gots, own) = theirs, ours
    if len(wants) != len(gots):
        return Difference("outputs", f"{len(gots)} outputs, there {len(wants)}")
    pairs = [("value", wants[0], gots[0])]
    pairs += [
        ("index", want, got) for want, got in zip(wants[1:], gots[1:], strict=True)
    ]
    if gradient is not None and own is not None:
        pairs.append(("gradient", gradient, own))
    for kind, want, got in pairs:
        if want.shape != got.shape:
            return Difference(
                "shape", f"{kind} {got.shape}, there {want.shape}", want, got
            )
        if kind != "index" and want.dtype != got.dtype:
            return Difference(
                "dtype", f"{kind} {got.dtype}, there {want.dtype}", want, got
            )
        if not equal(call, kind, want, got):
            what = f"{kind}\n  ours   {got.tolist()}\n  theirs {want.tolist()}"
            return Difference(kind, what, want, got)
    return "same"


def equal(call, kind, want, got):
    """Whether two arrays are equal, as far as their dtype goes."""
    if kind == "index" or not jnp.issubdtype(want.dtype, jnp.inexact):
        return np.array_equal(want, got)
    rtol = TOLERANCES.get(want.dtype.name, 2e-5)
    wide = np.complex128 if np.iscomplexobj(want) else np.float64
    want, got = want.astype(wide), got.astype(wide)
    scale = np.abs(want[np.isfinite(want)]).max(initial=1)
    if not np.allclose(got, want, rtol, rtol * min(scale, 100), equal_nan=True):
        return False
    if call.name.startswith("lp_pool"):  # bit for bit: zeros have their signs
        zeros = (want == 0) & (got == 0)
        return np.array_equal(np.signbit(want[zeros]), np.signbit(got[zeros]))
    return True


@dataclasses.dataclass(frozen=True)
class Accepted:
    """A difference that is meant."""

    reason: str
    dialect: str
    kinds: str  # separated by commas
    applies: Callable = lambda call, difference: True


def accepted(call, found):
    """The entry that allows a difference, or None."""
    for name, entry in ACCEPTED.items():
        fits = entry.dialect in (
            "any",
            call.dialect,
        ) and found.kind in entry.kinds.split(", ")
        if fits and entry.applies(call, found):
            return name
    return None


def has_nan(call, found=None):
    """Whether there is a NaN in the input."""
    x = np.asarray(call.x)
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    return floating and bool(np.isnan(x.astype(float)).any())


def dtype_of(call):
    """The dtype of the input."""
    return np.asarray(call.x).dtype


def same_but_nan(call, found):
    """Whether indices differ only for NaN, and gradients in which NaN takes them."""
    if not has_nan(call) or found.theirs is None:
        return False
    rank = int(call.name[-2])
    if found.kind == "index":
        x = np.asarray(call.x).astype(float)
        flat = x.reshape(*x.shape[:-rank], -1)
        spots = found.ours.reshape(*x.shape[:-rank], -1)
        taken = np.take_along_axis(flat, spots, -1).reshape(found.ours.shape)
        return bool(np.isnan(taken[found.theirs != found.ours]).all())
    axes = tuple(range(found.theirs.ndim - rank, found.theirs.ndim))
    sums = (np.sum(g.astype(float), axes) for g in (found.theirs, found.ours))
    return np.allclose(*sums, atol=0.05)


def told(pattern):
    """Whether the error of the side that refuses has some words."""
    return lambda _, found: bool(re.search(pattern, found.what))


def named(*stems):
    """Whether the function is one of these."""
    return lambda call, _: call.name.startswith(stems)


def integral(call, found):
    """Whether integers are averaged."""
    inexact = jnp.issubdtype(dtype_of(call), jnp.inexact)
    return re.search("average|avg", call.name) and not inexact


def halves(call, found):
    """Whether half floats are averaged."""
    return re.search("average|avg", call.name) and dtype_of(call).itemsize == 2


def undivided(call, found):
    """Whether there are sizes that do not divide the input."""
    sizes = call.options["output_size"]
    spatial = list(np.shape(call.x)[1:])
    if call.options.get("data_format") == "channels_first":
        spatial = spatial[1:]
    each = sizes if isinstance(sizes, tuple | list) else [sizes] * (np.ndim(call.x) - 2)
    pairs = zip(spatial, each, strict=False)
    return any(isinstance(size, int) and size and n % size for n, size in pairs)


def wrong_in_onnx(call, found):
    """Whether ONNX Runtime, or the reference where that is run, is wrong.

    The runtime forgets dilations in the padding of names. The reference rounds and pads
    as "SAME_UPPER", has no indices at stride 1, counts padding of clipped windows, and
    puts a half of the overhang in front.
    """
    options = call.options
    dilated = max(options.get("dilations") or [1]) > 1
    strides = options.get("strides") or [1] * (np.ndim(call.x) - 2)
    name = options.get("auto_pad", "NOTSET")
    if RUNTIME:
        return name.startswith("SAME") and dilated
    if call.name.startswith("Global"):
        return np.ndim(call.x) != 4
    if call.name == "MaxPool":
        return name == "SAME_LOWER" or not (max(strides) > 1 or dilated) or dilated
    return bool(options.get("ceil_mode")) or name != "NOTSET" or dilated


NOTHING = "larger than the padded|smaller than the|at least one cell"
ACCEPTED = {
    "booleans": Accepted(
        "pools of jaxpool refuse booleans and say what to do instead",
        "any",
        "refused here",
        lambda call, _: dtype_of(call) == np.bool_,
    ),
    "complex numbers": Accepted(
        "extremes and norms are of real numbers, and so is compat.torch",
        "any",
        "refused here",
        lambda call, _: np.iscomplexobj(call.x),
    ),
    # PyTorch
    "several NaN": Accepted(
        "of several NaN in a window the first wins, in PyTorch the last",
        "torch",
        "index, gradient",
        same_but_nan,
    ),
    "return_indices": Accepted(
        "a flag is True or False; PyTorch takes whatever is true or false",
        "torch",
        "refused here",
        told("^return_indices must"),
    ),
    "NumPy integers": Accepted(
        "they are integers everywhere, in PyTorch not in functions written in Python",
        "torch",
        "refused there",
        told("numpy.int|cond must be a bool"),
    ),
    "floats of unpooling": Accepted(
        "windows are integers, though PyTorch takes what its sums of them take",
        "torch",
        "refused here",
        lambda c, d: "unpool" in c.name and "must be an int" in d.what,
    ),
    "ranges": Accepted(
        "only tuples and lists are sizes of windows, as in PyTorch's kernels",
        "torch",
        "refused here",
        told(r"range\("),
    ),
    "nothing of refused dtypes": Accepted(
        "a dtype is refused whatever the size, in PyTorch only by a kernel that runs",
        "torch",
        "refused here",
        lambda _, d: "must be floating" in d.what and not d.theirs[0][0].size,
    ),
    "samples of float32": Accepted(
        "half floats are pooled by samples of float32; PyTorch wants half floats",
        "torch",
        "refused there",
        told("Expect _random_samples"),
    ),
    "keys": Accepted(
        "samples that are not given need a key, in PyTorch they are drawn",
        "torch",
        "refused here",
        told("_random_samples must be given"),
    ),
    "windows of no cells": Accepted(
        "a fractional window has a cell at least, in PyTorch it gives -inf",
        "torch",
        "refused here",
        told("^kernel_size must be at least 1"),
    ),
    "boolean norms": Accepted(
        "True is no norm_type, in PyTorch it is 1",
        "torch",
        "refused here",
        told("^norm_type must be .* norm_type=True"),
    ),
    "dtypes PyTorch lacks": Accepted(
        "dtypes that only its CPU kernels lack work",
        "torch",
        "refused there",
        told("not implemented for"),
    ),
    # Flax
    "nothing to pool": Accepted(
        "a result of nothing, or of padding only, is refused; elsewhere empty or -inf",
        "flax",
        "refused here",
        told(NOTHING),
    ),
    "nothing to pool in Keras": Accepted(
        "the same",
        "keras",
        "refused here",
        told(NOTHING),
    ),
    "nothing to pool in ONNX": Accepted(
        "the same",
        "onnx",
        "refused here",
        told(NOTHING),
    ),
    "spellings Flax lacks": Accepted(
        "an int or a list serves as any of the arguments, in Flax a tuple only",
        "flax",
        "refused there",
        told("no len|concatenate tuple|not iterable|subscript|inconsistent dtypes"),
    ),
    "several batch axes": Accepted(
        "explicit padding works with any number of batch axes, in Flax with one",
        "flax",
        "refused there",
        told("safe_zip"),
    ),
    "booleans for integers": Accepted(
        "True is no size of a window",
        "flax",
        "refused here",
        told(r"must be an int .*\bTrue\b"),
    ),
    "no window": Accepted(
        "at least one axis is pooled, in Flax none may be",
        "flax",
        "refused here",
        lambda c, _: c.options.get("window_shape") == (),
    ),
    "numbers that init cannot be": Accepted(
        "init is a number of the dtype of inputs, in Flax it is cast",
        "flax",
        "refused here",
        told("^init must"),
    ),
    "ties of any reduction": Accepted(
        "cells that tie share the gradient of lax.max, as it says; in Flax one has it",
        "flax",
        "gradient",
        lambda c, _: c.options.get("reduce_fn") in (jax.lax.max, jax.lax.min),
    ),
    "gradients Flax lacks": Accepted(
        "any reduction has a gradient, in Flax sums and extremes only",
        "flax",
        "refused there",
        told("Linearization failed"),
    ),
    "flags of Flax": Accepted(
        "flags are True or False, in Flax whatever is true or false",
        "flax",
        "refused here",
        told("^count_include_pad must"),
    ),
    "a caller's own error": Accepted(
        "errors of a caller's function stay as they are",
        "flax",
        "error",
        lambda c, _: c.name == "pool",
    ),
    "averages of integers": Accepted(
        "float32 that does not overflow; Flax sums in the integers, and divides as jnp",
        "flax",
        "dtype, value",
        integral,
    ),
    "averages of half floats": Accepted(
        "summed in float32 and of their own dtype, in Flax neither",
        "flax",
        "dtype, value, gradient",
        halves,
    ),
    "NaN in Flax": Accepted(
        "NaN wins its window and takes its gradient, in Flax the other cell takes it",
        "flax",
        "gradient",
        lambda c, _: has_nan(c) and c.name != "avg_pool",
    ),
    # Keras
    "spellings Keras lacks": Accepted(
        "lists serve too, and strides may be left out; both fail in Keras on JAX",
        "keras",
        "refused there",
        told("concatenate tuple|inconsistent window_strides"),
    ),
    "keepdims": Accepted(
        "a flag is True or False; Keras takes whatever is true or false",
        "keras",
        "refused here",
        told("^keepdims must"),
    ),
    "float64 in layers": Accepted(
        "layers of Keras compute in float32, its default, and round to it",
        "keras",
        "value, gradient, dtype",
        lambda c, _: c.name.startswith("global") and c.x64,
    ),
    "integers in Keras": Accepted(
        "averages of integers are float32 and do not overflow",
        "keras",
        "dtype, value, refused there",
        integral,
    ),
    "half floats in Keras": Accepted(
        "averages of half floats are summed in float32",
        "keras",
        "dtype, value, gradient",
        halves,
    ),
    "NaN in Keras": Accepted(
        "NaN wins its window and takes its gradient, in Keras the other cell takes it",
        "keras",
        "gradient",
        lambda c, _: has_nan(c),
    ),
    "ties in layers": Accepted(
        "the first of the cells that tie has the gradient, in Keras they share it",
        "keras",
        "gradient",
        named("global_max", "adaptive_max"),
    ),
    "bins that do not divide": Accepted(
        "Keras on JAX reads other cells where sizes do not divide the input",
        "keras",
        "value, gradient, refused there",
        lambda c, d: c.name.startswith("adaptive") and undivided(c, d),
    ),
    "sizes that are kept": Accepted(
        "None keeps the size of an axis, in Keras it fails",
        "keras",
        "refused there",
        told("NoneType"),
    ),
    "axes that are not there": Accepted(
        "an entry for each pooled axis, and there is one; Keras drops the others",
        "keras",
        "refused here",
        told("for each of the|at least one more"),
    ),
    "masks in Keras": Accepted(
        "a mask has the shape of batch and time; Keras broadcasts, and divides by 0",
        "keras",
        "refused here, value",
        lambda c, _: "mask" in c.options,
    ),
    # ONNX
    "flags of ONNX": Accepted(
        "flags are 0 or 1, in the runtime whatever is true or false",
        "onnx",
        "refused here",
        told("must be 0 or 1"),
    ),
    "attributes that the reference does not check": Accepted(
        "the runtime refuses them too",
        "onnx",
        "refused here",
        lambda c, d: told(r"must be (one of|\d ints|1 or 2)")(c, d) and not RUNTIME,
    ),
    "padding of dilated windows": Accepted(
        "pads may be all that a window spans but a cell; the runtime forgets dilations",
        "onnx",
        "refused there",
        lambda c, d: "pool_attributes" in d.what and "dilations" in c.options,
    ),
    "NaN in ONNX": Accepted(
        "NaN wins its window; the runtime ignores it, the reference pads with it",
        "onnx",
        "value, index",
        has_nan,
    ),
    "faults of ONNX's engines": Accepted(
        "they compute something else than ONNX says; see test_parity_onnx.py",
        "onnx",
        "value, index, shape, refused there",
        wrong_in_onnx,
    ),
}


# --- the smallest call that fails ---


def smaller(call):
    """Calls with less in them."""
    for name in call.kwargs:
        rest = {k: v for k, v in call.kwargs.items() if k != name}
        yield dataclasses.replace(call, kwargs=rest)
    if len(call.args) > 1:
        yield dataclasses.replace(call, args=call.args[:-1])
    x = call.x
    if not isinstance(x, np.ndarray):
        return
    others = {k: v for k, v in call.kwargs.items() if isinstance(v, np.ndarray)}
    for axis, n in enumerate(x.shape):
        for kept in (slice(0, 1), slice(0, -1), slice(1, None)):
            if n > 1:
                cut = (slice(None),) * axis + (kept,)
                parts = {
                    k: v[cut] if v.ndim > axis and v.shape[axis] == n else v
                    for k, v in others.items()
                }
                args = (x[cut], *call.args[1:])
                yield dataclasses.replace(call, args=args, kwargs=call.kwargs | parts)
    plain = np.where(np.isfinite(x.astype(complex)), x, x) if x.size else x
    for value in (0, 1):
        flat = np.flatnonzero(plain.ravel() != value)[:12]
        for place in flat:
            y = x.copy()
            y.flat[place] = value
            yield dataclasses.replace(call, args=(y, *call.args[1:]))


def smallest(call, found, budget=150):
    """A small call that fails in the same way."""
    tries = 0
    progress = True
    while progress and tries < budget:
        progress = False
        for candidate in smaller(call):
            tries += 1
            if tries >= budget:
                break
            again = difference(candidate)
            if isinstance(again, str) or again.kind != found.kind:
                continue
            if not accepted(candidate, again):
                call, found, progress = candidate, again, True
                break
    return call, found


def installed(dialect):
    """Whether the library is."""
    name = {"torch": "torch", "flax": "flax", "keras": "keras", "onnx": "onnx"}[dialect]
    return importlib.util.find_spec(name) is not None


def drawn(seed, number, dialects):
    """The call of a seed and a number."""
    draw = Draw(f"{seed}-{number}")
    return DRAWN[draw.some(of=sorted(dialects))](draw)


def attack(seed, cases, dialects, *, first=0, shrink=True):
    """Failures as text, and how many calls had which outcome."""
    failures, counts = [], collections.Counter()
    for number in range(first, first + cases):
        call = drawn(seed, number, dialects)
        if number % 100 == 99:
            jax.clear_caches()  # programs of a hundred geometries are gigabytes
        with contextlib.suppress(ImportError):
            found = difference(call)
            if isinstance(found, str):
                counts[found] += 1
                continue
            reason = accepted(call, found)
            if reason:
                counts[f"accepted: {reason}"] += 1
                continue
            counts["failed"] += 1
            if shrink:
                call, found = smallest(call, found)
            failures.append(
                f"seed {seed} number {number}\n{call}\n{found.kind}: {found.what}"
            )
    return failures, counts


def main():
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", default="0")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--dialect", choices=DRAWN, action="append")
    parser.add_argument("--no-shrink", action="store_true")
    options = parser.parse_args()
    wanted = [d for d in options.dialect or DRAWN if installed(d)]
    failures, counts = attack(
        options.seed,
        options.cases,
        wanted,
        first=options.first,
        shrink=not options.no_shrink,
    )
    for failure in failures:
        print(failure, end="\n\n")
    for outcome_name, count in counts.most_common():
        print(f"{count:6} {outcome_name}")
    return len(failures) > 0


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    sys.exit(main())
