"""Random calls of the native functions, each against the loops of `tests.oracle`.

    python -m tests.attack.attack --seed 0 --cases 20000

A case depends on its own number alone, from `seed` on: `--seed` of that number and
`--cases 1` run it again. A case that fails is made smaller while it fails in the same
way, and is printed as a call. Several are compiled together, without optimisation.
"""

import argparse
import collections
import dataclasses
import functools
import math
import random
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxpool
from jaxpool import linen, nnx
from tests import oracle

WINDOWED = ("max", "min", "sum", "avg", "lp")
FUNCTIONS = (
    *(f"{kind}_pool" for kind in WINDOWED),
    *(f"{kind}_pool" for kind in WINDOWED),  # twice as often
    "max_pool_with_indices",
    "min_pool_with_indices",
    "pool",
    *(f"global_{kind}_pool" for kind in WINDOWED),
    "global_max_pool_with_indices",
    "global_min_pool_with_indices",
    "adaptive_max_pool",
    "adaptive_max_pool_with_indices",
    "adaptive_avg_pool",
    "fractional_max_pool",
    "fractional_max_pool_with_indices",
    "fractional_avg_pool",
    "max_unpool",
    "convert_indices",
)
IMPLEMENTATIONS = (None, None, "slices", "doubling", "reduce_window")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int4", "uint4")
FLOAT8 = (
    "float8_e4m3fn",
    "float8_e5m2",  # not those without -0, which XLA turns into NaN unoptimized
    "float8_e4m3",
    "float8_e3m4",
)
POWERS = "float8_e8m0fnu"  # positive powers of two
CONVENTIONS = ("jaxpool", "torch", "tf", "tf_with_batch", "onnx", "onnx_column_major")
OPS = {
    "sum": (0, (jnp.add, jax.lax.add, lambda a, b: a + b)),
    "prod": (1, (jnp.multiply, jax.lax.mul)),
    "max": ("least", (jnp.maximum, jax.lax.max)),
    "min": ("most", (jnp.minimum, jax.lax.min)),
}
DERIVATIVES = ("jvp", "jvp of grad", "grad of grad", "vmap of vjp", "vjp, both modes")
MOST_CELLS = 12_000  # that the oracle reads in one case


@dataclasses.dataclass(frozen=True)
class Case:
    """One call: plain values for the oracle, and how they are spelled for the library.

    `axes` ascend, and what there is for each pooled axis follows them. `spelling` draws
    among the ways to write each option; `None` is the plainest. `where` is the shape of
    the mask, `()` for a scalar.
    """

    function: str
    seed: int
    shape: tuple
    axes: tuple
    dtype: str = "float32"
    data: str = "distinct"
    spelling: int | None = None
    window: tuple | None = None
    strides: tuple | None = None
    padding: object = "VALID"
    dilation: tuple | None = None
    ceil_mode: bool = False
    where: tuple | None = None
    keep: float = 0.6
    empty_value: float = 0
    padding_mode: str | None = None
    count_include_pad: bool = False
    divisor: float | None = None
    p: float = 2.0
    op: str | None = None
    implementation: str | None = None
    keepdims: bool = False
    output_shape: tuple | None = None
    rule: str = "window"
    overlapping: bool = False
    samples: tuple | None = None
    keyed: bool = False
    source: str = "jaxpool"
    target: str = "jaxpool"
    mapped: bool = False
    ways: tuple = ("value",)

    @property
    def kind(self):
        """What the oracle calls the reduction."""
        if self.function == "pool":
            return self.op
        words = self.function.removesuffix("_with_indices").split("_")
        return words[-2] if words[-1] == "pool" else None

    @property
    def is_indexed(self):
        return self.function.endswith("_with_indices")

    @property
    def is_windowed(self):
        return self.window is not None and self.output_shape is None

    @property
    def is_inexact(self):
        return bool(jnp.issubdtype(self.dtype, jnp.inexact))


# Programs of many small operations compile in a third of the time, by an option that
# jax 0.12 does not have.
OPTIONS = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 12):
    OPTIONS["xla_cpu_use_fusion_emitters"] = False
quick_jit = functools.partial(jax.jit, compiler_options=OPTIONS)

# Which calls there are.


def draw(seed):
    """The case of a number."""
    r = random.Random(seed)
    while True:
        case = _drawn(r, r.choice(FUNCTIONS), seed)
        if is_legal(case) and _cells(case) <= MOST_CELLS:
            return case


def _drawn(r, function, seed):
    rank = r.choice((1, 1, 2, 2, 2, 3))
    long = rank < 4 and r.random() < 0.2
    name = r.choice(("pairs", "pairs", "VALID", "SAME", "SAME_LOWER", "CAUSAL"))
    dims = [_drawn_axis(r, name, long, rank) for _ in range(rank)]
    sizes, window, strides, dilation, pads = zip(*dims, strict=True)
    others = [r.choice((1, 1, 2, 3)) for _ in range(r.choice((1, 2, 2, 3)))]
    if r.random() < 0.05:
        others[r.randrange(len(others))] = r.choice((0, 128, 130))
    rank_of_x = rank + len(others)
    first = len(others) - 1
    axes = tuple(range(first, first + rank))
    if r.random() < 0.5:
        axes = tuple(sorted(r.sample(range(rank_of_x), rank)))
    if r.random() < 0.05:
        others, axes = [], tuple(range(rank))
    rest = iter(others)
    placed = dict(zip(axes, sizes, strict=True))
    shape = tuple(
        placed[a] if a in placed else next(rest)
        for a in range(len(sizes) + len(others))
    )
    case = Case(function, seed, shape, axes, spelling=r.randrange(10**6))
    options = {"dtype": _drawn_dtype(r, case)}
    options["data"] = r.choice(("distinct", "tied", "specials", "specials"))
    options["mapped"] = r.random() < 0.5
    if "adaptive" in function:
        options["output_shape"] = tuple(r.randint(1, min(n + 2, 9)) for n in sizes)
    elif "fractional" in function:
        options |= _drawn_fraction(r, sizes, others)
    elif function == "max_unpool":
        options["output_shape"] = tuple(r.randint(1, 6) for _ in sizes)
    elif function == "convert_indices":
        options["output_shape"] = tuple(r.randint(1, 4) for _ in sizes)
        options["source"], options["target"] = r.choices(CONVENTIONS, k=2)
    elif "global" in function:
        options["keepdims"] = r.random() < 0.5
        options |= _drawn_mask(r, shape)
    else:
        options |= {
            "window": window,
            "strides": strides,
            "dilation": dilation,
            "padding": pads if name == "pairs" else name,
            "ceil_mode": r.random() < 0.4,
            "implementation": r.choice(IMPLEMENTATIONS),
        }
        if function == "pool":
            options["op"] = r.choice(tuple(OPS))
        else:
            options |= _drawn_mask(r, shape)
    if case.kind == "lp":
        options["p"] = r.choice((0.5, 1, 1.5, 2, 2, 3, 4, math.inf))
    if function in ("sum_pool", "avg_pool", "lp_pool") and r.random() < 0.3:
        options["padding_mode"] = r.choice(("reflect", "edge", "wrap"))
    if function == "avg_pool":
        options["count_include_pad"] = r.random() < 0.4
        options["divisor"] = r.choice((None, None, 3, -0.5))
    if options["dtype"] == POWERS and "output_shape" not in options:
        options |= {"empty_value": 1, "where": None}  # it has no 0
    case = dataclasses.replace(case, **options)
    return dataclasses.replace(case, ways=_drawn_ways(r, case))


def _drawn_axis(r, name, long, rank):
    """(size, window, stride, dilation, (low, high)) of one axis."""
    if long:
        size, dil = r.randint(10, 40 // rank + 8), r.choice((1, 1, 1, 2))
        widest = (size - 1) // dil + 1 if name == "VALID" else 16
        win = r.randint(min(9, widest), min(16, widest))
        stride = r.choice((1, 2, 4, win - 1, win, win, win + 1))
    else:
        size, dil = r.choice((1, 2, 3, 4, 5, 6, 7, 7)), r.choice((1, 1, 2, 3))
        widest = (size - 1) // dil + 1 if name == "VALID" else 4
        win = r.randint(1, min(4, widest))
        stride = r.choice((1, 1, 2, 3, 4, win))
    span = (win - 1) * dil + 1
    low = r.choice((0, r.randrange(span)))
    least = max(0, span - size - low)
    high = r.choice((least, r.randint(least, max(least, span - 1))))
    return size, win, max(stride, 1), dil, (low, high)


def _drawn_dtype(r, case):
    floats = ("float32",) * 6 + ("bfloat16", "bfloat16", "float16", "float16")
    if case.function == "convert_indices":
        return "int32"
    more = [r.choice(FLOAT8), r.choice(INTEGERS), r.choice(INTEGERS)]
    if case.kind in ("max", "min"):
        more.append(POWERS)
    if case.kind in ("sum", "avg", None) and case.function != "pool":
        more.append("complex64")
    return r.choice((*floats, *more))


def _drawn_mask(r, shape):
    if r.random() < 0.5:
        return {}
    where = tuple(n if r.random() < 0.7 else 1 for n in shape)
    return {
        "where": () if r.random() < 0.1 else where,
        "keep": r.choice((0, 0.3, 0.6, 0.6, 1)),
        "empty_value": r.choice((0, 0, 0, 1, 2, -1, math.nan, math.inf)),
    }


def _drawn_fraction(r, sizes, others):
    rule = r.choice(("window", "window", "pseudorandom"))
    outs = tuple(r.randint(1, n) for n in sizes)
    lengths = tuple(r.randint(1, n - o + 1) for n, o in zip(sizes, outs, strict=True))
    keyed = r.random() < 0.2
    drawn = [*others] if rule == "window" else [1] * len(others)
    samples = (*drawn, len(sizes))
    if not keyed:
        samples = (*(n if r.random() < 0.5 else 1 for n in others), len(sizes))
        samples = samples[r.randrange(len(samples)) :] if r.random() < 0.3 else samples
        full = (1,) * (len(others) + 1 - len(samples)) + samples
        samples = samples if samples == full[-len(samples) :] else full
    return {
        "rule": rule,
        "window": lengths if rule == "window" else None,
        "output_shape": outs,
        "overlapping": rule != "window" and r.random() < 0.5,
        "samples": samples,
        "keyed": keyed,
    }


def _drawn_ways(r, case):
    ways = ["value"]
    if r.random() < 0.2:
        ways.append("vmap")
    if r.random() < 0.1 and has_module(case):
        ways.append("module")
    if r.random() < 0.03:
        ways.append("eager")
    if not case.is_inexact or case.dtype == POWERS:
        return tuple(ways)
    is_portable = case.implementation == "reduce_window"
    if case.kind == "lp" and case.data == "specials" and (case.p < 1 or is_portable):
        return tuple(ways)  # 0 times NaN depends on what jax makes of the norm
    ways.append("vjp")
    more = list(DERIVATIVES)
    if case.op == "prod" or case.dtype in FLOAT8 or case.data == "specials":
        more = [way for way in more if "grad" not in way]
    if case.function == "pool":
        more = ["jvp"]
    return (*ways, *r.sample(more, min(2, len(more))))


def is_legal(case):
    """Whether the library is to take the call; else it may be refused."""
    sizes = [case.shape[a] for a in case.axes]
    if not sizes or 0 in sizes:
        return False
    if "tf" in (case.source, case.target) and 0 in case.axes:
        return False  # it does not count the first axis
    if 0 in case.shape and (case.function == "convert_indices" or case.samples):
        return False
    if case.output_shape is None and "global" not in case.function:
        for i, size in enumerate(sizes):
            win, stride, dil = case.window[i], case.strides[i], case.dilation[i]
            pad = case.padding if isinstance(case.padding, str) else case.padding[i]
            low, high = oracle._pads(pad, size, win, stride, dil)
            span = (win - 1) * dil + 1
            if max(low, high) >= span or size + low + high < span:
                return False
            beside = size - (case.padding_mode == "reflect")
            if case.padding_mode in ("reflect", "wrap") and max(low, high) > beside:
                return False
    if case.function == "pool":
        if case.dtype == "complex64" or (
            case.op != "sum" and case.op != "prod" and case.data == "tied"
        ):
            return False
        is_dilated = case.op != "sum" and max(case.dilation) > 1
        if case.implementation == "reduce_window" and (case.op == "prod" or is_dilated):
            return case.ways == ("value",)  # it has no gradient
    if "fractional" in case.function:
        for i, (size, out) in enumerate(zip(sizes, case.output_shape, strict=True)):
            if out + (case.window[i] if case.rule == "window" else 1) - 1 > size:
                return False
    if case.op in ("max", "min") and (
        case.data != "distinct" or case.dtype in FLOAT8 or math.prod(case.shape) > 100
    ):
        return False  # jnp.maximum divides the gradient of a tie
    least = 0 if case.dtype.startswith("u") or case.dtype == POWERS else -1
    is_nan = case.is_inexact and math.isnan(case.empty_value)
    if case.where is not None and not (case.empty_value >= least or is_nan):
        return False
    if not math.isfinite(case.empty_value):
        return case.dtype in ("float32", "bfloat16", "float16") or (
            case.kind in ("avg", "lp") and case.dtype in INTEGERS
        )
    if case.dtype in FLOAT8 or case.dtype == POWERS:
        return (
            case.kind is None or case.empty_value in (0, 1, 2) or case.dtype != POWERS
        )
    return True


def _cells(case):
    """About how many cells the oracle reads."""
    outs = case.output_shape or ()
    per_axis = []
    for i, a in enumerate(case.axes):
        n = case.shape[a]
        if case.is_windowed:
            out = (n + 2 * case.window[i]) // case.strides[i] + 1
            per_axis.append(out * case.window[i])
        else:
            per_axis.append(n + (2 * outs[i] if outs else 0))
    others = [n for a, n in enumerate(case.shape) if a not in case.axes]
    return math.prod(per_axis) * math.prod(others)


# Their arrays.


def values(case, shape, seed, limit=None):
    """Numbers that the dtype holds, small enough to be added up."""
    rng, size = np.random.default_rng(seed), math.prod(shape)
    dtype = jnp.dtype(case.dtype)
    if case.dtype == POWERS:
        return (2.0 ** rng.integers(-2, 3, shape)).astype(dtype)
    most = 2 if case.dtype in FLOAT8 or "int4" in case.dtype else 100
    x = rng.permutation(size) - size // 2
    if case.data != "distinct" or size > most or limit:
        most = limit or (2 if case.data != "distinct" else most)
        x = rng.integers(-most, most + 1, size)
    if case.op == "prod":
        x = rng.choice((-1, 1, 2), size)
    if case.kind == "lp" and any("grad" in way for way in case.ways):
        x = np.where(x == 0, 1, x)  # whose second derivative is taken for 0
    if jnp.issubdtype(dtype, jnp.unsignedinteger):
        x = np.abs(x)
    x = x.reshape(shape).astype(np.float32)
    if case.data == "specials" and not limit and case.is_inexact and case.op is None:
        with np.errstate(all="ignore"):
            for special in (np.nan, np.inf, -np.inf, -0.0):
                if "8" not in case.dtype and rng.random() < 0.6:
                    x[rng.random(shape) < 0.12] = special
            if "8" in case.dtype and rng.random() < 0.6:
                x[rng.random(shape) < 0.12] = np.nan
    if case.dtype == "complex64":
        x = np.nan_to_num(x, nan=3, posinf=4, neginf=5)
        x = np.stack([x, np.roll(x, 1)], -1).view(np.complex64)[..., 0]
    return x.astype(dtype)


def arrays_of(case):
    """What the call is given, a tangent, and what `vmap` takes beside it."""
    arrays = {"x": values(case, case.shape, case.seed)}
    arrays["x2"] = values(case, case.shape, case.seed + 1)
    arrays["t"] = values(case, case.shape, case.seed + 2, 1)
    rng = np.random.default_rng(case.seed + 3)
    if case.where is not None:
        arrays["extra"] = rng.random(case.where) < case.keep
        arrays["extra2"] = rng.random(case.where) < case.keep
    elif case.samples is not None:
        drawn = lambda: rng.uniform(0.001, 0.999, case.samples).astype(np.float32)  # noqa: E731
        arrays["extra"], arrays["extra2"] = drawn(), drawn()
        if case.keyed:
            others = [n for a, n in enumerate(case.shape) if a not in case.axes]
            shape = (*(others if case.rule == "window" else ()), len(case.axes))
            for name, number in (("extra", 0), ("extra2", 1)):
                arrays[f"{name} key"] = jax.random.key(case.seed + number)
                uniform = jax.random.uniform(arrays[f"{name} key"], shape, np.float32)
                arrays[name] = np.asarray(uniform)
    elif case.function == "max_unpool":
        cells = math.prod(case.output_shape)
        arrays["extra"] = rng.integers(-1, cells, case.shape).astype(np.int32)
        arrays["extra2"] = rng.integers(-1, cells, case.shape).astype(np.int32)
    elif case.function == "convert_indices":
        shape = list(case.shape)
        for a, n in zip(case.axes, case.output_shape, strict=True):
            shape[a] = n
        for name in ("x", "x2"):
            cells = math.prod(case.shape[a] for a in case.axes)
            own = rng.integers(-1, cells, shape)
            own = oracle.convert(own, case.shape, "jaxpool", case.source, case.axes)
            arrays[name] = own.astype(np.int32)
        del arrays["t"]
    return arrays


# Calls of the library.


def _ints(r, numbers, single=True):
    """Integers in any of the ways to write them."""
    if r is None:
        return tuple(numbers)
    forms = [tuple, list, np.array]
    forms += [
        lambda v: tuple(np.int64(n) for n in v),
        lambda v: [np.int16(n) for n in v],
    ]
    if single and len(set(numbers)) == 1:
        forms += [lambda v: v[0], lambda v: np.int32(v[0]), lambda v: np.array(v[0])]
        forms += [lambda v: v[0]] * 3
    return r.choice(forms)(list(numbers))


def _padding(r, padding):
    if isinstance(padding, str):
        return padding
    if r is None:
        return padding
    lows, highs = zip(*padding, strict=True)
    if not any(lows + highs) and r.random() < 0.3:
        return "VALID"
    if lows == highs and r.random() < 0.7:
        return _ints(r, lows)
    forms = [tuple, lambda v: list(map(list, v)), np.array, list]
    forms += [lambda v: tuple(tuple(np.int64(n) for n in pair) for pair in v)]
    return r.choice(forms)(padding)


def _number(r, number):
    if r is None or isinstance(number, str):
        return number
    forms = [lambda n: n, float, np.float32, np.float64, np.array]
    if float(number).is_integer():
        forms += [int, np.int32]
    return r.choice(forms)(number)


def options_of(case):
    """The options of the call, spelled, without arrays: positional and by name."""
    r = None if case.spelling is None else random.Random(case.spelling)
    rank, count = len(case.shape), len(case.axes)
    order, options = list(range(count)), {}
    default = tuple(range(rank - 1 - count, rank - 1))
    if "global" in case.function or case.function == "convert_indices":
        default = tuple(range(1, rank - 1))
    is_default = case.axes == default
    if not is_default or (r and r.random() < 0.3):
        axes = list(case.axes)
        if r:
            r.shuffle(order)
            axes = [case.axes[i] - rank * (r.random() < 0.5) for i in order]
        options["axes"] = _ints(r, axes)
    with_axes = "axes" in options

    def per_axis(entries):
        return [entries[i] for i in order]

    def put(name, value, default):
        if value != default or (r and r.random() < 0.2):
            options[name] = value

    if case.output_shape is not None and case.function != "convert_indices":
        outs = per_axis(case.output_shape)
        options["output_shape"] = _ints(r, outs, with_axes)
        sizes = per_axis([case.shape[a] for a in case.axes])
        if r and "adaptive" in case.function and outs == sizes and r.random() < 0.5:
            options["output_shape"] = [None] * count
    if "fractional" in case.function:
        options["window"] = None
        if case.window is not None:
            options["window"] = _ints(r, per_axis(case.window))
        put("rule", case.rule, "window")
        put("overlapping", case.overlapping, False)
    if case.function == "convert_indices":
        options |= {"source": case.source, "target": case.target}
        options["shape"] = _ints(r, case.shape, False)
    if case.is_windowed:
        options["window"] = _ints(r, per_axis(case.window), with_axes)
        if case.strides != case.window or (r and r.random() < 0.5):
            options["strides"] = _ints(r, per_axis(case.strides))
        padding = case.padding
        padding = padding if isinstance(padding, str) else tuple(per_axis(padding))
        if padding != "VALID":
            options["padding"] = _padding(r, padding)
        if any(d != 1 for d in case.dilation) or (r and r.random() < 0.2):
            options["dilation"] = _ints(r, per_axis(case.dilation))
        put("ceil_mode", case.ceil_mode, False)
        put("implementation", case.implementation, None)
        put_number = lambda value: value if value is None else _number(r, value)  # noqa: E731
        if case.padding_mode:
            options["padding_mode"] = case.padding_mode
        if case.function == "avg_pool":
            put("count_include_pad", case.count_include_pad, False)
            put("divisor", put_number(case.divisor), None)
    if "global" in case.function:
        put("keepdims", case.keepdims, False)
    if case.kind == "lp":
        options["p"] = _number(r, case.p)
    if case.empty_value != 0:
        options["empty_value"] = _number(r, case.empty_value)
    if case.function == "pool":
        init, ops = OPS[case.op]
        if isinstance(init, str) and not case.is_inexact:
            info = jnp.iinfo(case.dtype)
            init = int(info.min if init == "least" else info.max)
        elif isinstance(init, str):
            init = -math.inf if init == "least" else math.inf
            if not np.isinf(np.asarray(init, case.dtype)):
                init = float(np.copysign(jnp.finfo(case.dtype).max, init))
        ops = ops[1:2] if case.implementation == "reduce_window" else ops
        options |= {"init": init, "op": ops[0] if r is None else r.choice(ops)}
    return options


def called(case, module=None):
    """The call as a function of its arrays, to a tuple: `(x, extra)` to values."""
    options, name = options_of(case), case.function
    extra_name = {"max_unpool": "indices"}.get(name)
    if "fractional" in name:
        extra_name = "key" if case.keyed else "samples"
    elif case.where is not None:
        extra_name = "where"
    function = functools.partial(getattr(jaxpool, name), **options)
    if module is not None:
        stem = "".join(word.title() for word in name.split("_"))
        built = getattr(module, stem)(**options)
        function = built if module is nnx else functools.partial(built.apply, {})

    def call(x, extra=None):
        result = (
            function(x) if extra_name is None else function(x, **{extra_name: extra})
        )
        return result if isinstance(result, tuple) else (result,)

    return call


def has_module(case):
    """Whether a Flax module makes the same call: those that draw take no samples."""
    return "fractional" not in case.function and case.function not in (
        "pool",
        "convert_indices",
    )


def outputs(case, arrays):
    """What the library makes of the arrays, in each of the ways of the case."""
    call = called(case)
    key = "key" if case.keyed else None
    extra, extra2 = (
        arrays.get(f"{name} {key}" if key else name) for name in ("extra", "extra2")
    )
    x, x2 = arrays["x"], arrays["x2"]
    t, g = arrays.get("t"), arrays.get("g")
    at = case.seed % (x.ndim + 1)

    def pooled(x):
        return call(x, extra)[0]

    def gradient(x):  # of g * y**2 / 2
        y, back = jax.vjp(pooled, x)
        return back(g * y)[0]

    def mapped():
        xs = jnp.stack([x, x2], at)
        if extra is None or not case.mapped:
            return jax.vmap(lambda x: call(x, extra), at)(xs)
        extras = jnp.stack([extra, extra2])
        return jax.vmap(call, (at, 0))(xs, extras)

    def by_module():
        return called(case, nnx if case.seed % 2 else linen)(x, extra)

    def in_both_modes(function, *args):
        with jaxpool.forward_mode():
            return function(*args)

    def tangent():
        return jax.jvp(pooled, (x,), (t,))[1]

    # Only maxima need to be told.
    is_max_like = case.kind in ("max", "min") or math.isinf(case.p)
    plain = not is_max_like or case.is_indexed or "fractional" in case.function
    plain = plain or "adaptive" in case.function
    forward = (lambda f: f()) if plain and case.seed % 3 else in_both_modes
    ways = {
        "value": lambda: call(x, extra),
        "vmap": mapped,
        "module": by_module,
        "vjp": lambda: jax.vjp(pooled, x)[1](g)[0],
        "vjp, both modes": lambda: in_both_modes(lambda: jax.vjp(pooled, x)[1](g)[0]),
        "vmap of vjp": lambda: jax.vmap(lambda g: jax.vjp(pooled, x)[1](g)[0])(
            jnp.stack([g, -g])
        ),
        "jvp": lambda: forward(tangent),
        "jvp of grad": lambda: jax.jvp(gradient, (x,), (t,))[1],
        "grad of grad": lambda: jax.vjp(gradient, x)[1](t)[0],
    }
    return {way: ways[way]() for way in case.ways if way != "eager"}


# What they are compared with.


def reference(case, x, extra):
    """The same call of the oracle."""
    masked = {"where": None if case.where is None else extra}
    masked["empty_value"] = case.empty_value
    if "adaptive" in case.function:
        return oracle.binned(
            x, case.kind, *oracle.adapted(x.shape, case.output_shape, case.axes)
        )
    if "fractional" in case.function:
        order = _order(case)  # samples follow the axes as they are given
        axes = tuple(case.axes[i] for i in order)
        outs = tuple(case.output_shape[i] for i in order)
        lengths = case.window and tuple(case.window[i] for i in order)
        bins = oracle.drawn(
            x.shape,
            lengths,
            outs,
            samples=extra,
            axes=axes,
            rule=case.rule,
            overlapping=case.overlapping,
        )
        return oracle.binned(x, case.kind, *bins)
    if case.function == "max_unpool":
        return oracle.unpooled(x, extra, case.output_shape, case.axes)
    if case.function == "convert_indices":
        y = oracle.convert(x, case.shape, case.source, case.target, case.axes)
        return oracle.Pooled(y, y, [], x.shape, ())
    if "global" in case.function:
        window = tuple(case.shape[a] for a in case.axes)
        pooled = oracle.windowed(
            x, case.kind, window, axes=case.axes, p=case.p, **masked
        )
        return pooled
    geometry = {
        "strides": case.strides,
        "padding": case.padding,
        "dilation": case.dilation,
    }
    geometry |= {"axes": case.axes, "ceil_mode": case.ceil_mode}
    if case.function == "pool":
        masked["empty_value"] = options_of(case)["init"]
    if case.function == "avg_pool":
        masked |= {"divisor": case.divisor, "count_include_pad": case.count_include_pad}
    return oracle.windowed(
        x,
        case.kind,
        case.window,
        p=case.p,
        padding_mode=case.padding_mode,
        **geometry,
        **masked,
    )


def _order(case):
    """In which order the call names its axes."""
    axes = options_of(case).get("axes", case.axes)
    axes = [int(a) % len(case.shape) for a in np.atleast_1d(axes)]
    return [case.axes.index(a) for a in axes]


@np.errstate(all="ignore")
def wanted(case, arrays):
    """The arrays expected in each way, with the sizes that their rounding follows."""
    x, t = arrays["x"], arrays.get("t")
    extra, extra2 = arrays.get("extra"), arrays.get("extra2")
    first = reference(case, x, extra)
    g = values(case, _shape(case, first.y), case.seed + 4, 1)
    if case.kind == "lp" and case.data == "specials":
        g = np.where(g == 0, np.ones_like(g), g)  # 0 times NaN depends on the form
    arrays["g"] = g
    g = g.astype(complex if case.dtype == "complex64" else float).reshape(first.y.shape)
    sizes = first._replace(rows=[(o, c, v, np.abs(s)) for o, c, v, s in first.rows])

    def value(pooled, x):
        y = _shape(case, pooled.y)
        if case.kind == "lp":
            scale = np.abs(pooled.y)
        else:
            magnitude = pooled._replace(
                rows=[(o, c, v, np.abs(s)) for o, c, v, s in pooled.rows]
            )
            scale = (
                np.abs(oracle.push(magnitude, np.abs(_wide(x)))) if pooled.rows else 0
            )
        y = pooled.y.reshape(y), np.broadcast_to(scale, pooled.y.shape).reshape(y)
        index = (pooled.index.reshape(y[0].shape), 0)
        return (y, index) if case.is_indexed else (y,)

    def second():
        tangent = oracle.push(first, _wide(t))
        hvp = oracle.pull(first, g * tangent)
        scale = oracle.pull(sizes, np.abs(g) * oracle.push(sizes, np.abs(_wide(t))))
        if case.kind == "lp" and case.p != 1 and not math.isinf(case.p):
            curved = oracle.curve(first, g * first.y, _wide(t), case.p)
            hvp, scale = hvp + curved, scale + 10 * np.abs(curved).max(initial=0) + 1
        return hvp, scale

    def mapped():
        other = reference(case, arrays["x2"], extra2 if case.mapped else extra)
        pairs = zip(value(first, x), value(other, arrays["x2"]), strict=True)
        return tuple(
            tuple(np.stack(np.broadcast_arrays(*two)) for two in zip(a, b, strict=True))
            for a, b in pairs
        )

    def back():
        return oracle.pull(first, g), oracle.pull(sizes, np.abs(g))

    def backs():
        dx, scale = back()
        return np.stack([dx, -dx]), np.stack([scale, scale])

    def tangent():
        shape = _shape(case, first.y)
        ty = oracle.push(first, _wide(t)), oracle.push(sizes, np.abs(_wide(t)))
        return tuple(a.reshape(shape) for a in ty)

    ways = {
        "value": lambda: value(first, x),
        "eager": lambda: value(first, x),
        "module": lambda: value(first, x),
        "vmap": mapped,
        "vjp": lambda: (back(),),
        "vjp, both modes": lambda: (back(),),
        "vmap of vjp": lambda: (backs(),),
        "jvp": lambda: (tangent(),),
        "jvp of grad": lambda: (second(),),
        "grad of grad": lambda: (second(),),
    }
    return {way: ways[way]() for way in case.ways}


def _shape(case, y):
    """The shape of the library's result."""
    if "global" not in case.function or case.keepdims:
        return y.shape
    return tuple(n for a, n in enumerate(y.shape) if a not in case.axes)


def _wide(x):
    return np.asarray(x).astype(complex if x.dtype.kind == "c" else float)


def check(case, found, expected):
    """Raise AssertionError about the first way that differs."""
    result = jnp.dtype(case.dtype)
    if case.kind in ("avg", "lp") and not case.is_inexact:
        result = jnp.dtype("float32")
    for way, wants in expected.items():
        got_all = found[way] if isinstance(found[way], tuple) else (found[way],)
        assert len(got_all) == len(wants), way
        for got, (want, scale), dtype in zip(
            got_all, wants, (result, jnp.dtype("int32")), strict=False
        ):
            assert got.dtype == dtype, f"{way}: dtype {got.dtype}, not {dtype}"
            assert got.shape == want.shape, (
                f"{way}: shape {got.shape}, not {want.shape}"
            )
            _check_close(way, case, np.asarray(got), want, scale)


def _check_close(way, case, got, want, scale):
    dtype = got.dtype
    with np.errstate(all="ignore"):
        if not jnp.issubdtype(dtype, jnp.inexact):
            bits = jnp.iinfo(dtype).bits
            least = int(jnp.iinfo(dtype).min)
            want = (
                np.asarray(want).astype(np.int64) - least
            ) % 2**bits + least  # wraps
            good = got.astype(np.int64) == want
        else:
            info = jnp.finfo(dtype)
            want = np.asarray(want).astype(dtype)
            got, want = _wide(got), _wide(want)
            tiny = float(info.smallest_subnormal)
            rounding = 0 if info.bits in (32, 64) else 2 * float(info.eps)
            several = "grad" in way or case.padding_mode  # roundings, on the way
            rounded = np.nan_to_num(scale, posinf=0) if several else want
            near = (
                rounding * np.abs(rounded)
                + 2e-5 * np.nan_to_num(scale, posinf=0)
                + tiny
            )
            if case.kind in ("max", "min") and way in ("value", "vmap"):
                near = 0
            good = (got == want) | (np.isnan(got) & np.isnan(want))
            good |= np.abs(got - want) <= near
    if not good.all():
        at = np.unravel_index(np.argmin(good), good.shape)
        where = ", ".join(map(str, at))
        raise AssertionError(f"{way}: at [{where}] {got[at]}, not {want[at]}")


def run(cases):
    """Failures among the cases, as `(case, error)`; one program if all compile."""
    ready, failures = [], []
    for case in cases:
        arrays = arrays_of(case)
        ready.append((case, arrays, wanted(case, arrays)))
    try:
        inputs = [arrays for _, arrays, _ in ready]

        @quick_jit
        def program(inputs):
            return [
                outputs(case, given)
                for (case, *_), given in zip(ready, inputs, strict=True)
            ]

        results = jax.device_get(program(inputs))
    except Exception as error:
        if len(ready) == 1:
            return [(cases[0], error)]
        return [failure for case in cases for failure in run([case])]
    for (case, arrays, expected), found in zip(ready, results, strict=True):
        try:
            if "eager" in case.ways:
                name = "extra key" if case.keyed else "extra"
                found["eager"] = called(case)(arrays["x"], arrays.get(name))
            check(case, found, expected)
        except Exception as error:
            failures.append((case, error))
    return failures


# What is said of a failure.


def signature(error):
    """What two failures of one kind have in common."""
    words = str(error).split("\n")[0]
    if isinstance(error, AssertionError):
        way, what = words.split(": ", 1)
        words = f"{way}: {what.split()[0]}"
    return type(error).__name__, words[:30]


def smaller(case):
    """Cases that are simpler than this one, the simplest first."""
    for way in case.ways:
        if case.ways != (way,):
            yield dataclasses.replace(case, ways=(way,))
    for field in dataclasses.fields(case):
        if field.name in (
            "function",
            "seed",
            "shape",
            "axes",
            "ways",
            "source",
            "target",
        ):
            continue
        if field.default is dataclasses.MISSING or field.name in (
            "op",
            "rule",
            "samples",
        ):
            continue
        if field.name in ("window", "output_shape", "keyed"):
            continue
        value = field.default
        if field.name == "strides" and case.strides is not None:
            value = case.window
        if field.name == "dilation" and case.dilation is not None:
            value = (1,) * len(case.axes)
        if getattr(case, field.name) != value:
            yield dataclasses.replace(case, **{field.name: value})
    if case.where is not None:
        yield dataclasses.replace(case, where=())
    for axis, size in enumerate(case.shape):
        for n in (1, size // 2, size - 1):
            if 1 <= n < size:
                yield _resized(case, axis, n)
    for name in ("window", "strides", "dilation", "output_shape"):
        entries = getattr(case, name)
        for i, entry in enumerate(entries or ()):
            for n in (1, entry - 1):
                if 1 <= n < entry:
                    new = (*entries[:i], n, *entries[i + 1 :])
                    yield dataclasses.replace(case, **{name: new})
    if not isinstance(case.padding, str):
        for i, (low, high) in enumerate(case.padding):
            for pair in (
                (0, high),
                (low, 0),
                (max(low - 1, 0), high),
                (low, max(high - 1, 0)),
            ):
                if pair != (low, high):
                    new = (*case.padding[:i], pair, *case.padding[i + 1 :])
                    yield dataclasses.replace(case, padding=new)
    for axis in range(len(case.shape)):
        yield _without(case, axis)


def _resized(case, axis, n):
    shape = (*case.shape[:axis], n, *case.shape[axis + 1 :])
    where, samples = case.where, case.samples
    if where and where[axis] != 1:
        where = (*where[:axis], n, *where[axis + 1 :])
    if samples and axis not in case.axes:
        others = [a for a in range(len(shape)) if a not in case.axes]
        samples = (1,) * (len(others) + 1 - len(samples)) + samples
        at = others.index(axis)
        if samples[at] != 1:
            samples = (*samples[:at], n, *samples[at + 1 :])
    return dataclasses.replace(case, shape=shape, where=where, samples=samples)


def _without(case, axis):
    """The case without an axis that is 1 or pooled, beside others."""
    drop = lambda t, i: (*t[:i], *t[i + 1 :]) if isinstance(t, tuple) and t else t  # noqa: E731
    if case.samples is not None or len(case.shape) == 1:
        return case
    changed = {"shape": drop(case.shape, axis), "where": drop(case.where, axis)}
    if axis in case.axes:
        if len(case.axes) == 1:
            return case
        i = case.axes.index(axis)
        for name in ("window", "strides", "dilation", "padding", "output_shape"):
            changed[name] = drop(getattr(case, name), i)
    axes = tuple(a - (a > axis) for a in case.axes if a != axis)
    return dataclasses.replace(case, axes=axes, **changed)


def shrunk(case, error, most=150):
    """A smaller case that fails in the same way, and its error."""
    kind, tried = signature(error), 0
    while tried < most:
        for candidate in smaller(case):
            if candidate == case or not is_legal(candidate):
                continue
            tried += 1
            failures = run([candidate])
            if failures and signature(failures[0][1]) == kind:
                case, error = failures[0]
                break
            if tried >= most:
                break
        else:
            break
    return case, error


def _told(error):
    return f"{type(error).__name__}: {error!s:.400}"


def described(case):
    """The call, as one would type it."""
    arrays = arrays_of(case)
    wanted(case, arrays)
    literal = functools.partial(np.array2string, separator=", ", threshold=200)
    lines = [f"x = jnp.asarray({literal(arrays['x'])}, {case.dtype!r})  # {case.shape}"]
    options = [f"{k}={v!r}" for k, v in options_of(case).items()]
    extra = arrays.get("extra")
    if extra is not None:
        name = {"max_unpool": "indices"}.get(case.function, "where")
        name = "samples" if case.samples else name
        lines.append(f"{name} = np.asarray({literal(extra)})  # {extra.shape}")
        options.append(f"{name}={name}")
    for name in ("t", "g"):
        if name in arrays and case.ways != ("value",):
            lines.append(f"{name} = {literal(arrays[name])}")
    lines.append(f"jaxpool.{case.function}(x, {', '.join(options)})  # {case.ways}")
    return "\n".join(lines)


def attack(seed, count, together=12, report=print, patience=3):
    """Run `count` cases; return how often each kind of failure came."""
    kinds, start = collections.Counter(), time.monotonic()
    for first in range(seed, seed + count, together):
        group = range(first, min(first + together, seed + count))
        for case, error in run([draw(number) for number in group]):
            kind = (case.function, *signature(error))
            kinds[kind] += 1
            again = f"--seed {case.seed} --cases 1"
            like = sum(other[1:] == kind[1:] for other in kinds)
            if kinds[kind] > 1 or like > patience:
                report(f"{again}: {kind} again")
                continue
            report(f"{again}: {_told(error)}")
            small, error = shrunk(case, error)
            report(f"{described(small)}\n{_told(error)}\n")
        done = group[-1] + 1 - seed
        if done % 120 < together:
            seconds = time.monotonic() - start
            report(f"{done} cases, {sum(kinds.values())} failures, {seconds:.0f} s")
            jax.clear_caches()
    return kinds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--together", type=int, default=12)
    given = parser.parse_args()
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    report = functools.partial(print, flush=True)
    kinds = attack(given.seed, given.cases, given.together, report)
    for kind, times in kinds.most_common():
        print(times, *kind)
    print(f"{given.cases} cases from seed {given.seed}: {sum(kinds.values())} failures")
    sys.exit(bool(kinds))


if __name__ == "__main__":
    main()
