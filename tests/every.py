"""A call of every public function, module and dialect: `{name: function of arrays}`.

The arrays are a dictionary on the device, of which each call takes what it needs.
"""

import functools
import inspect
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

import jaxpool
import jaxpool.linen
import jaxpool.nnx
from jaxpool.compat import flax, keras, onnx, torch

# The public functions by name, and the pools among them by family.
PUBLIC = {
    name: value
    for name, value in vars(jaxpool).items()
    if inspect.isfunction(value) and not name.startswith("_")
}
POOLS = {
    name: f
    for name, f in PUBLIC.items()
    if re.search(r"pool(_with_indices)?$", name) and "unpool" not in name
}
GLOBAL = {name: f for name, f in POOLS.items() if "global" in name}
ADAPTIVE = {name: f for name, f in POOLS.items() if "adaptive" in name}
FRACTIONAL = {name: f for name, f in POOLS.items() if "fractional" in name}
SEGMENTED = {name: f for name, f in POOLS.items() if "segment" in name}
WINDOWED = {
    name: f
    for name, f in POOLS.items()
    if not {name} & ({"pool"} | {*GLOBAL} | {*ADAPTIVE} | {*FRACTIONAL} | {*SEGMENTED})
}


def module_of(name):
    """The name of the module that has a function as its call."""
    title = "".join(part.title() for part in name.split("_"))
    return title.replace("Logsumexp", "LogSumExp")


SHAPE = (2, 6, 5, 3)
WINDOW = {"window": (3, 2), "strides": 2, "padding": "SAME"}
BINS = {"output_shape": (4, 2)}
DRAWN = {"window": 2, "output_shape": (3, 2)}
STEPS = {"window": None, "output_shape": (3, 2), "rule": "pseudorandom"}


@functools.cache
def arrays():
    """The input, and what else calls take."""
    x = np.random.default_rng(0).permutation(180).reshape(SHAPE) - 90
    indices = np.arange(6, dtype=np.int32).reshape(1, 3, 2, 1)
    made = {
        "values": x[:, :3, :2].astype(np.float32),
        "x": x.astype(np.float32),
        "where": x < 60,
        "steps": x[..., 0] < 60,
        "key": jax.random.key(0),
        "samples": np.full(2, 0.25, np.float32),
        "indices": np.broadcast_to(indices, (2, 3, 2, 3)).copy(),
        "onnx": np.arange(72, dtype=np.int32).reshape(2, 3, 4, 3)[:, :, ::2].copy(),
        "init": np.float32(-math.inf),
        "ids": np.asarray([2, 0, 2, -1, 0, 2], np.int32),
        "rows": x[:, :, 0].astype(np.float32),
        "positions": np.asarray([[0], [1], [3], [2], [5], [-1]], np.int32),
        "links": np.asarray([[0, 4, -1], [5, 5, 2]], np.int32),
    }
    return jax.block_until_ready(jax.device_put(made))


def _taking(*names, **renamed):
    """From a function of arrays to a call that looks them up."""

    def of(function, **options):
        def call(a):
            others = {theirs: a[ours] for theirs, ours in renamed.items()}
            return function(*(a[name] for name in names), **others, **options)

        return call

    return of


_of_x, _masked = _taking("x"), _taking("x", where="where")
_keyed, _sampled = _taking("x", key="key"), _taking("x", samples="samples")


def functions():
    """The functions of `jaxpool` that take arrays, but for `halo_exchange`."""
    every = {}
    stems = (
        "max_pool",
        "min_pool",
        "sum_pool",
        "avg_pool",
        "lp_pool",
        "logsumexp_pool",
        "softmax_pool",
        "power_mean_pool",
        "var_pool",
        "std_pool",
        "median_pool",
    )
    for stem in (*stems, "max_pool_with_indices", "min_pool_with_indices"):
        windowed = getattr(jaxpool, stem)
        whole = getattr(jaxpool, f"global_{stem}")
        every[stem] = _of_x(windowed, **WINDOW)
        every[f"{stem}-where"] = _masked(windowed, **WINDOW)
        every[f"global_{stem}"] = _of_x(whole)
        every[f"global_{stem}-where"] = _masked(whole, empty_value=3)
    for stem in ("sum_pool", "avg_pool", "lp_pool", "logsumexp_pool"):
        padded = WINDOW | {"padding": 1, "padding_mode": "edge"}
        every[f"{stem}-edge"] = _of_x(getattr(jaxpool, stem), **padded)
    every["lp_pool-inf"] = _of_x(jaxpool.lp_pool, **WINDOW, p=math.inf)
    every["adaptive_logsumexp_pool"] = _of_x(jaxpool.adaptive_logsumexp_pool, **BINS)
    for stem in ("max_pool", "max_pool_with_indices", "avg_pool"):
        adaptive = getattr(jaxpool, f"adaptive_{stem}")
        every[f"adaptive_{stem}"] = _of_x(adaptive, **BINS)
        every[f"adaptive_{stem}-tiles"] = _of_x(adaptive, output_shape=(3, 1))
        drawn = getattr(jaxpool, f"fractional_{stem}")
        every[f"fractional_{stem}-key"] = _keyed(drawn, **DRAWN)
        every[f"fractional_{stem}-samples"] = _sampled(drawn, **DRAWN)
        every[f"fractional_{stem}-steps"] = _keyed(drawn, **STEPS)
        every[f"fractional_{stem}-random"] = _keyed(drawn, **STEPS | {"rule": "random"})
    every["max_unpool"] = lambda a: jaxpool.max_unpool(
        a["values"], a["indices"], (6, 5)
    )
    for target in ("tf", "onnx_column_major"):
        every[f"convert_indices-{target}"] = functools.partial(
            lambda a, target: jaxpool.convert_indices(
                a["indices"], SHAPE, "torch", target
            ),
            target=target,
        )
    for name, pool in SEGMENTED.items():
        by_row = functools.partial(pool, num_segments=3, axis=1)
        every[name] = _taking("x", "ids")(by_row)
        every[f"{name}-where"] = _taking("x", "ids", where="where")(by_row)
    by_position = functools.partial(jaxpool.pool_by_positions, window=2)
    every["pool_by_positions"] = _taking("rows", "positions")(
        by_position, output_shape=3
    )
    links = functools.partial(jaxpool.neighbors, axis=1)
    every["aggregate-neighbors"] = lambda a: jaxpool.aggregate(
        a["x"], "max", links(a["links"])
    )
    over = jaxpool.windows(**WINDOW)
    for by in (jaxpool.Softmax(scale=2.0), jaxpool.PowerMean(3)):
        every[f"aggregate-{by}"] = _of_x(jaxpool.aggregate, by=by, over=over)
    every["pool"] = lambda a: jaxpool.pool(a["x"], -math.inf, jnp.maximum, **WINDOW)
    every["pool-init"] = lambda a: jaxpool.pool(
        a["x"], a["init"], jnp.maximum, **WINDOW
    )
    return every


def modules(flavour):
    """Each class of `jaxpool.linen` or `jaxpool.nnx`."""
    every = {}
    for name, kind in vars(flavour).items():
        if name.startswith("_") or getattr(kind, "__module__", "") != flavour.__name__:
            continue
        take = _of_x
        if "Fractional" in name:
            module = kind(**DRAWN, deterministic=True)
        elif "Adaptive" in name:
            module = kind(**BINS)
        elif name == "Aggregate":
            module, take = kind("max", jaxpool.windows(**WINDOW)), _masked
        elif name == "MaxUnpool":
            module, take = kind((3, 4)), _taking("indices", "indices")
        else:
            module, take = kind(**({} if "Global" in name else WINDOW)), _masked
        called = (
            functools.partial(module.apply, {}) if flavour is jaxpool.linen else module
        )
        every[f"{flavour.__name__}.{name}"] = take(called)
    return every


def dialects():
    """The functions of `jaxpool.compat`; `x` will do in any layout."""
    every = {}

    def add(module, name, take=_of_x, **options):
        every[f"{module.__name__}.{name}"] = take(getattr(module, name), **options)

    for name in ("max_pool", "min_pool", "avg_pool"):
        add(flax, name, window_shape=(2, 2))
    for name in ("max_pool", "average_pool"):
        add(keras, name, pool_size=2, padding="same")
    for name in ("adaptive_max_pool", "adaptive_average_pool"):
        add(keras, name, output_size=2)
    for name in ("global_max_pooling", "global_average_pooling"):
        add(keras, name, _taking("x", mask="steps"))
    for name in ("MaxPool", "AveragePool", "LpPool"):
        add(onnx, name, kernel_shape=[2, 2], pads=[1, 0, 0, 1])
    add(onnx, "MaxPool", kernel_shape=[2, 2], outputs=2)
    unpool = functools.partial(onnx.MaxUnpool, kernel_shape=[2, 1], strides=[2, 1])
    every["jaxpool.compat.onnx.MaxUnpool"] = lambda a: unpool(
        a["values"], a["onnx"], (2, 3, 5, 3)
    )
    for name in ("GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"):
        add(onnx, name)
    for name in ("max_pool2d", "avg_pool2d"):
        add(torch, name, kernel_size=2, padding=1)
    return every


def calls():
    """All of them."""
    flavours = modules(jaxpool.linen) | modules(jaxpool.nnx)
    return functions() | flavours | dialects()
