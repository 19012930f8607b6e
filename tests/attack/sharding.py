"""Random pools of arrays that are split over devices, compared with one device.

    python -m tests.attack.sharding --seed 3 --cases 500    # many
    python -m tests.attack.sharding --seed 3 --only 17      # one of them

A case is drawn from a seed and a number: a pool, its arguments, a dtype, a mesh, and
what splits each array. `failure_of` runs it on 8 host devices. Most arrays have few
cells a shard, where XLA's partitioner has most of its faults. Some of those end the
process, so many cases are run in processes of their own.
"""

import argparse
import dataclasses
import math
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool

DTYPES = ("float32", "float32", "bfloat16", "float16", "int8", "uint8", "int32")
MESHES = (
    {"a": 2},
    {"a": 4},
    {"a": 8},
    {"a": 4, "b": 1},
    {"a": 2, "b": 2},
    {"a": 4, "b": 2},
)
CELLS = (1, 1, 2, 2, 3, 3, 4, 5, 8)  # of a shard
WINDOWED = ("max_pool", "min_pool", "sum_pool", "avg_pool", "lp_pool", "pool")
INDEXED = ("max_pool_with_indices", "min_pool_with_indices")
GLOBAL = (
    *(f"global_{kind}_pool" for kind in ("max", "min", "sum", "avg", "lp")),
    *(f"global_{kind}_pool_with_indices" for kind in ("max", "min")),
)
ADAPTIVE = ("adaptive_max_pool", "adaptive_avg_pool", "adaptive_max_pool_with_indices")
FRACTIONAL = (
    "fractional_max_pool",
    "fractional_avg_pool",
    "fractional_max_pool_with_indices",
)
NAMES = (*WINDOWED, *WINDOWED, *INDEXED, *GLOBAL, *ADAPTIVE, *FRACTIONAL, "max_unpool")
IMPLEMENTATIONS = (None, None, "reduce_window", "slices", "doubling")
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
TOLERANCES = {"bfloat16": 2e-2, "float16": 2e-3}


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a call: its shape, its dtype, and the mesh axes that split it."""

    shape: tuple
    dtype: str
    spec: tuple

    def __str__(self):
        return f"{self.dtype}{list(self.shape)} {P(*self.spec)}"


@dataclasses.dataclass(frozen=True)
class Case:
    """One call, and where its arrays are."""

    name: str
    x: Array
    options: dict
    others: dict  # arrays by the names of their arguments
    mesh: dict
    explicit: bool
    mode: str  # what is computed: "value", "grad", "both", "second" or "jvp"
    data: int  # the seed of the numbers
    inside: bool = False  # `x` is split inside the program, perhaps unevenly

    def __str__(self):
        given = {**self.options, **self.others}
        words = [f"{name}={value}" for name, value in given.items()]
        mesh = "explicit mesh" if self.explicit else "mesh"
        call = f"jaxpool.{self.name}({', '.join([f'x={self.x}', *words])})"
        split = ", split inside" if self.inside else ""
        return (
            f"{self.mode} of {call} on {mesh} {self.mesh}{split}, numbers {self.data}"
        )

    def pool(self, x, others):
        """The call."""
        function, options = getattr(jaxpool, self.name), dict(self.options)
        others = dict(others)
        if self.name == "pool":
            op, init = OPS[options.pop("op")]
            return function(x, init(x.dtype), op, **options)
        if self.name == "max_unpool":
            return function(x, others.pop("indices"), **options)
        if "key" in options:
            options["key"] = jax.random.key(options["key"])
        return function(x, **options, **others)


def _lowest(dtype):
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return np.asarray(-np.inf if is_float else jnp.iinfo(dtype).min, dtype)


OPS = {
    "add": (lax.add, lambda dtype: np.zeros((), dtype)),
    "max": (lax.max, _lowest),
}


# --- drawing ---


def draw(seed, number):
    """The case of a seed and a number; one that a single device can run."""
    rng = np.random.default_rng([seed, number])
    for _ in range(1000):
        case = _draw(rng)
        try:
            jax.eval_shape(case.pool, *_types(case))
        except (ValueError, TypeError):  # refused
            continue
        return case
    raise AssertionError("no case is legal")


def _types(case):
    def type_of(array):
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    return type_of(case.x), {k: type_of(array) for k, array in case.others.items()}


def _one(rng, values):
    return values[rng.integers(len(values))]


def _draw(rng):
    name, mesh = _one(rng, NAMES), dict(_one(rng, MESHES))
    rank = int(_one(rng, (1, 2, 3, 3, 4, 4)))
    spec = _spec(rng, mesh, rank)
    explicit, inside = (bool(rng.random() < share) for share in (0.4, 0.25))
    inside = inside and not explicit
    shape = tuple(_size(rng, mesh, entry, inside) for entry in spec)
    if spec[-1] is None and rng.random() < 0.1:
        shape = (*shape[:-1], 128)
    dtype = str(_one(rng, DTYPES))
    axes = [a for a in range(rank) if rng.random() < (0.8 if spec[a] else 0.4)]
    axes = tuple(axes or [int(rng.integers(rank))])
    x = Array(shape, dtype, spec)
    options, others = _arguments(rng, name, mesh, x, axes)
    modes = ("value", "grad", "both", "both", "jvp", "second")
    mode = str(_one(rng, modes))
    if "int" in dtype or (name == "pool" and "reduce_window" in options.values()):
        mode = "value"
    data = int(rng.integers(1000))
    return Case(name, x, options, others, mesh, explicit, mode, data, inside)


def _spec(rng, mesh, rank):
    """What splits each axis of an array: each mesh axis splits one, or none."""
    names = [name for name in mesh if rng.random() < 0.9]
    spec = [()] * rank
    for name in names:
        axis = int(rng.integers(rank))
        spec[axis] = (*spec[axis], name)
    return tuple(None if not e else e[0] if len(e) == 1 else e for e in spec)


def _shards(mesh, entry):
    names = (entry,) if isinstance(entry, str) else entry or ()
    return math.prod(mesh[name] for name in names)


def _size(rng, mesh, entry, uneven):
    if entry is None:
        return int(_one(rng, (1, 2, 3, 4, 5, 6, 7, 16)))
    shards = _shards(mesh, entry)
    size = shards * _one(rng, CELLS)
    return int(size - rng.integers(shards) if uneven else size)


def _arguments(rng, name, mesh, x, axes):
    """Static options, and further arrays."""
    sizes, others = [x.shape[axis] for axis in axes], {}
    options = {"axes": axes}
    if name in WINDOWED or name in INDEXED:
        options |= _geometry(rng, sizes)
        options["implementation"] = _one(rng, IMPLEMENTATIONS)
    if name in ADAPTIVE or name in FRACTIONAL:
        options["output_shape"] = tuple(int(rng.integers(1, n + 1)) for n in sizes)
    if name in FRACTIONAL:
        options["rule"] = str(_one(rng, ("window", "pseudorandom", "random")))
        if options["rule"] == "window":
            out = options["output_shape"]
            options["window"] = tuple(
                int(rng.integers(1, n - o + 2)) for n, o in zip(sizes, out, strict=True)
            )
        else:
            options["overlapping"] = bool(rng.random() < 0.5)
        if options["rule"] == "random" or rng.random() < 0.5:
            options["key"] = int(rng.integers(100))
        else:
            shape = (*(n for a, n in enumerate(x.shape) if a not in axes), len(axes))
            some = rng.random() < 0.5 and options["rule"] == "window"
            shape = shape if some else (*(1 for _ in shape[1:]), len(axes))
            others["samples"] = Array(shape, "float32", _even(rng, mesh, shape))
    if name == "max_unpool":
        options["output_shape"] = tuple(n + int(rng.integers(0, 9)) for n in sizes)
        spec = x.spec if rng.random() < 0.5 else _spec(rng, mesh, len(x.shape))
        spec = _dividing(mesh, x.shape, spec)
        others["indices"] = Array(x.shape, "int32", spec)
    if "lp" in name:
        options["p"] = _one(rng, (1, 2, 2, 3, 1.5, math.inf))
    if name in GLOBAL:
        options["keepdims"] = bool(rng.random() < 0.5)
    if name == "pool":
        options["op"] = str(_one(rng, tuple(OPS)))
    elif name in (*WINDOWED, *INDEXED, *GLOBAL):
        if rng.random() < 0.5:
            others["where"] = _mask(rng, mesh, x)
        if rng.random() < 0.2:
            options["empty_value"] = int(rng.integers(1, 5))
    if name == "avg_pool" and rng.random() < 0.3:
        options["count_include_pad"] = True
    if name in ("avg_pool", "lp_pool") and rng.random() < 0.2:
        options["padding_mode"] = str(_one(rng, ("reflect", "edge", "wrap")))
    return options, others


def _geometry(rng, sizes):
    """Windows that are whole axes, short, long, dilated, padded, strided."""
    geometry = {"window": [], "strides": [], "dilation": []}
    for size in sizes:
        window = _one(rng, (1, 2, 3, 3, 4, 5, 9, 11, size, size))
        window = min(int(window), size + 2)
        dilation = int(_one(rng, (1, 1, 1, 2, 3)))
        stride = int(_one(rng, (1, 1, 2, 2, 3, 4, window)))
        for name, value in zip(geometry, (window, stride, dilation), strict=True):
            geometry[name].append(value)
    geometry = {name: tuple(values) for name, values in geometry.items()}
    extents = [
        (w - 1) * d + 1
        for w, d in zip(geometry["window"], geometry["dilation"], strict=True)
    ]
    pairs = tuple(tuple(int(rng.integers(e)) for _ in range(2)) for e in extents)
    geometry["padding"] = _one(rng, ("VALID", "VALID", "SAME", "CAUSAL", pairs, pairs))
    return geometry | {"ceil_mode": bool(rng.random() < 0.3)}


def _mask(rng, mesh, x):
    """A mask of all axes or of some, split as `x` is, otherwise, or not at all."""
    ones = rng.random() < 0.5
    shape = tuple(1 if ones and rng.random() < 0.5 else n for n in x.shape)
    how = _one(rng, ("as x", "as x", "otherwise", "not"))
    if how == "otherwise":
        return Array(shape, "bool", _even(rng, mesh, shape))
    spec = (None,) * len(shape) if how == "not" else x.spec
    return Array(shape, "bool", _dividing(mesh, shape, spec))


def _even(rng, mesh, shape):
    """A spec that splits an array evenly."""
    return _dividing(mesh, shape, _spec(rng, mesh, len(shape)))


def _dividing(mesh, shape, spec):
    """The spec without what does not divide."""
    return tuple(
        entry if n % _shards(mesh, entry) == 0 else None
        for entry, n in zip(spec, shape, strict=True)
    )


# --- running ---


def failure_of(case):
    """What is wrong with a case, or None."""
    x, others, weights = _numbers(case)
    run = jax.jit(lambda *arrays: _computed(case, *arrays), compiler_options=QUICK)
    wanted = jax.tree.map(np.asarray, run(x, others, weights))
    kind = AxisType.Explicit if case.explicit else AxisType.Auto
    mesh = jax.make_mesh(
        tuple(case.mesh.values()), tuple(case.mesh), (kind,) * len(case.mesh)
    )

    split = NamedSharding(mesh, P(*case.x.spec))

    def put(array, where):
        return jax.device_put(array, NamedSharding(mesh, P(*where.spec)))

    def inside(x, *arrays):
        return _computed(case, lax.with_sharding_constraint(x, split), *arrays)

    try:
        with jax.set_mesh(mesh):
            if case.inside:
                # jax refuses what XLA splits over a part of a mesh axis.
                whole = NamedSharding(mesh, P())
                run = jax.jit(inside, out_shardings=whole, compiler_options=QUICK)
                x, weights = jax.device_put((x, weights), whole)
            else:
                x = put(x, case.x)
            others = {k: put(a, case.others[k]) for k, a in others.items()}
            got = jax.tree.map(np.asarray, run(x, others, weights))
    except Exception as error:  # whatever it is, one device has none
        return f"{type(error).__name__}: {error}"
    tolerance = TOLERANCES.get(case.x.dtype, 1e-5)
    try:
        jax.tree.map(lambda a, b: _check(a, b, tolerance), got, wanted)
    except AssertionError as error:
        return str(error)
    return None


def _check(got, want, tolerance):
    assert got.dtype == want.dtype
    wide = np.float64 if jnp.issubdtype(want.dtype, jnp.floating) else want.dtype
    got, want = got.astype(wide), want.astype(wide)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


def _numbers(case):
    """The numbers of all arrays, and those that weigh the results."""
    rng = np.random.default_rng(case.data)
    low = 0 if "uint" in case.x.dtype else -9
    x = rng.integers(low, 10, case.x.shape).astype(case.x.dtype)
    if case.data % 5 == 0 and "float" in case.x.dtype:
        special = rng.choice([*[0] * 60, np.nan, np.inf, -np.inf], x.shape)
        x = x + special.astype(x.dtype) if "pool" in case.name else x
    others = {}
    for name, array in case.others.items():
        if name == "where":
            others[name] = rng.random(array.shape) < 0.6
        elif name == "samples":
            others[name] = rng.random(array.shape, np.float32)
        else:
            shape = case.options["output_shape"]
            others[name] = rng.integers(-1, math.prod(shape), array.shape, np.int32)
    pooled = jax.eval_shape(case.pool, *_types(case))
    values = jax.tree.leaves(pooled)[0]
    weights = rng.integers(-4, 5, values.shape).astype(values.dtype)
    tangent = rng.integers(-4, 5, case.x.shape).astype(case.x.dtype)
    return x, others, (weights, tangent)


def _computed(case, x, others, numbers):
    """The values, the gradient of their weighted sum, or the tangent."""
    weights, tangent = numbers
    if case.mode == "value":
        return case.pool(x, others)

    def as_is(array, like):
        typed = jax.typeof(like).sharding
        return (
            jax.sharding.reshard(array, typed)
            if case.explicit and not typed.mesh.empty
            else array
        )

    def first(x):
        return jax.tree.leaves(case.pool(x, others))[0]

    def total(x):
        pooled = case.pool(x, others)
        values = jax.tree.leaves(pooled)[0]
        wide = values.astype(np.float32) * as_is(weights, values).astype(np.float32)
        return wide.sum(), pooled

    if case.mode == "jvp":
        with jaxpool.forward_mode():
            return jax.jvp(first, (x,), (as_is(tangent, x),))
    if case.mode == "second":
        back = jax.grad(lambda x: total(x)[0])
        return jax.grad(lambda x: (back(x) ** 2).astype(np.float32).sum())(x)
    (_, pooled), gradient = jax.value_and_grad(total, has_aux=True)(x)
    return gradient if case.mode == "grad" else (gradient, pooled)


# --- by hand ---


def main():
    """Run many cases, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--here", action="store_true", help="in this process")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.cases)
    if given.only is not None:
        numbers = [given.only]
    if given.here or given.only is not None:
        _run(given.seed, numbers)
    else:
        _run_apart(given.seed, numbers)


def _run(seed, numbers):
    jax.config.update("jax_num_cpu_devices", 8)
    failed = 0
    for number in numbers:
        case = draw(seed, number)
        print("start", number, case, flush=True)
        try:
            failure = failure_of(case)
        except Exception as error:  # on one device
            print(
                "single", number, f"{type(error).__name__}: {error}"[:500], flush=True
            )
            continue
        if failure:
            failed += 1
            print("failed", number, failure, flush=True)
        if number % 50 == 49:
            jax.clear_caches()
    print("end", len(numbers), "cases,", failed, "failed", flush=True)


def _run_apart(seed, numbers):
    """Run cases in a process, and those behind one that ends it in a further one."""
    first, failed, single, last = numbers.start, 0, 0, None
    while first < numbers.stop:
        count = str(numbers.stop - first)
        command = [sys.executable, "-m", "tests.attack.sharding", "--here"]
        command += ["--seed", str(seed), "--first", str(first), "--cases", count]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            shown = False
            for line in process.stdout:
                word = line.split(" ", 1)[0]
                if word == "start":
                    last, shown = line.split(" ", 2), False
                    if int(last[1]) % 100 == 0:
                        print(f"from {last[1]} on", flush=True)
                elif word == "single":
                    single += 1
                    print(f"[{last[1]}] {last[2]}    one device: {line}", flush=True)
                elif word == "failed":
                    failed, shown = failed + 1, True
                    print(f"[{last[1]}] {last[2]}    {line}", end="", flush=True)
                elif shown:
                    print(f"    {line}", end="", flush=True)
        if process.returncode == 0:
            break
        failed += 1
        print(f"[{last[1]}] {last[2]}    ended the process", flush=True)
        first = int(last[1]) + 1
    print(f"seed {seed}: {len(numbers)} cases, {failed} failed, {single} refused")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
