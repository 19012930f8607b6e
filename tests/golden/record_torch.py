"""Record PyTorch's pooling values and input gradients as golden files.

Run by hand, with torch installed: `python tests/golden/record_torch.py`. Writes
`torch_pool.npz` (inputs, values, gradients) and `torch_pool.json`, one record a
case: its name, the torch function and arguments, and the keys of its arrays. The
cotangent of case `name` is `arange(size) % 7 - 2` in the shape of its value.

`torch_bins` are the same for adaptive and fractional pools, with the indices of
maxima. Fractional samples are recorded in the order of the axes; PyTorch takes those
of images the other way round.

`torch_dialect` are what only `jaxpool.compat.torch` has as it is there: indices with
every argument, unpooling by window and stride, norms without absolute values, averages
of int64. Gradients of such norms are recorded where p is 2 or 3, and those of unpooling
where no value overwrites another one.
"""

import itertools
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

HERE = pathlib.Path(__file__).parent
INPUTS = {1: (2, 2, 11), 2: (1, 2, 8, 7), 3: (1, 1, 6, 5, 5)}
WINDOWS = {1: (3,), 2: (3, 2), 3: (2, 3, 2)}
STRIDES = {1: (2,), 2: (2, 3), 3: (2, 2, 1)}

NAN, INF = float("nan"), float("inf")
SPECIAL_ROWS = {  # name: (row, kernel, stride, padding)
    "tied_pairs": ([1, 1, 1, 1], 2, 2, 0),
    "nan_first": ([NAN, 1], 2, 2, 0),
    "nan_middle": ([1, NAN, 3], 3, 3, 0),
    "nan_twice": ([NAN, 5, NAN], 3, 3, 0),
    "minus_inf": ([-INF, -INF], 2, 2, 0),
    "minus_inf_padded": ([-INF] * 4, 3, 2, 1),
    "minus_zero": ([-0.0, 0.0], 2, 2, 0),
    "inf_and_nan": ([INF, NAN, INF, 1, INF, INF], 3, 3, 0),
    "nan_overlap": ([1, 2, NAN, 2, 1, 0, 3], 3, 2, 1),
    "ties_overlap": ([2, 2, 2, 2, 2, 2, 2], 3, 1, 1),
}


def grid(**options):
    """Every combination of the options as a dict."""
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def requests():
    """Yield (function stem, number of pooled axes, torch's keyword arguments)."""
    for ndim in INPUTS:
        common = {"kernel_size": [WINDOWS[ndim]], "stride": [None, STRIDES[ndim]]}
        for kwargs in grid(
            **common, padding=[0, 1], dilation=[1, 2], ceil_mode=[False, True]
        ):
            yield "max_pool", ndim, kwargs
        for kwargs in grid(
            **common,
            padding=[0, 1],
            ceil_mode=[False, True],
            count_include_pad=[False, True],
        ):
            yield "avg_pool", ndim, kwargs
            if ndim > 1 and kwargs["padding"]:
                yield "avg_pool", ndim, kwargs | {"divisor_override": 5}
    for ndim in (1, 2):
        strides = [None, 1, STRIDES[ndim]]
        for kwargs in grid(
            norm_type=[1, 1.5, 2, 3], kernel_size=[WINDOWS[ndim]], stride=strides
        ):
            if ndim == 1:  # lp_pool1d takes plain ints only
                stride = kwargs["stride"]
                stride = stride[0] if isinstance(stride, tuple) else stride
                kwargs |= {"kernel_size": 3, "stride": stride}
            yield "lp_pool", ndim, kwargs


def bin_requests():
    """The same for adaptive and fractional pools."""
    sizes = {
        1: [4, 11, 15, 1],
        2: [(3, 2), (None, 3), (11, 7), (4, 1)],
        3: [(4, 2, 3), (2, None, 7), (3, 5, 1)],
    }
    for ndim, outs in sizes.items():
        for kind, output_size in itertools.product(("max", "avg"), outs):
            yield f"adaptive_{kind}_pool", ndim, {"output_size": output_size}
    windows = {
        2: [(2, (5, 4)), ((3, 2), (4, 6)), (1, (3, 5)), ((2, 3), (1, 1))],
        3: [(2, (3, 2, 3)), ((3, 1, 2), (2, 4, 1))],
    }
    for ndim, pairs in windows.items():
        for kernel_size, output_size in pairs:
            kwargs = {"kernel_size": kernel_size, "output_size": output_size}
            yield "fractional_max_pool", ndim, kwargs


def evaluate(stem, ndim, kwargs, x, samples=None):
    """Value and gradient of `sum(cotangent * F.<stem><ndim>d(x))`; indices, if any."""
    x = torch.tensor(x, requires_grad=True)
    if samples is not None:
        samples = samples[..., ::-1].copy() if ndim == 2 else samples
        kwargs = kwargs | {"_random_samples": torch.tensor(samples)}
    y = getattr(F, f"{stem}{ndim}d")(x, **kwargs)
    y, *index = y if isinstance(y, tuple) else (y,)
    y.backward((torch.arange(y.numel()) % 7 - 2.0).reshape(y.shape))
    return y.detach().numpy(), x.grad.numpy(), *(i.numpy() for i in index)


def main():
    """Evaluate everything and write the files."""
    record_windows()
    record_bins()
    record_dialect()


def write(stem, arrays, records):
    """Write one pair of files."""
    np.savez_compressed(HERE / f"{stem}.npz", **arrays)
    lines = ",\n".join(f"  {json.dumps(r)}" for r in records)
    head = f'{{"torch": "{torch.__version__}", "records": [\n'
    (HERE / f"{stem}.json").write_text(f"{head}{lines}\n]}}\n")


def record_bins():
    """Adaptive and fractional pools, on distinct and on tied cells."""
    arrays, records = {}, []
    for ndim, shape in INPUTS.items():
        rng = np.random.default_rng(ndim)
        order = rng.permutation(np.prod(shape)).reshape(shape)
        arrays[f"x{ndim}_distinct"] = (order - order.size // 2).astype(np.float32)
        arrays[f"x{ndim}_tied"] = rng.integers(-2, 3, shape).astype(np.float32)
    for (stem, ndim, kwargs), kind in itertools.product(
        bin_requests(), ("distinct", "tied")
    ):
        name = f"{stem}{ndim}d_{len(records)}"
        record = {"name": name, "op": stem, "ndim": ndim, "kwargs": kwargs}
        record["x"], x = f"x{ndim}_{kind}", arrays[f"x{ndim}_{kind}"]
        samples = None
        if "fractional" in stem:
            rng = np.random.default_rng(len(records))
            samples = rng.random((*x.shape[:2], ndim), np.float32)
            arrays[f"{name}/samples"] = samples
        options = {"return_indices": True} if "max" in stem else {}
        found = evaluate(stem, ndim, kwargs | options, x, samples)
        for key, array in zip(("y", "dx", "index"), found, strict=False):
            arrays[f"{name}/{key}"] = array
        records.append(record)
    write("torch_bins", arrays, records)


def record_dialect():
    """Indices, unpooling, norms of negative numbers, averages of int64."""
    arrays, records = {}, []

    def record(op, ndim, kwargs, x_key, inputs=(), gradient=True):
        name = f"{op}{ndim}d_{len(records)}"
        x = torch.tensor(arrays[x_key], requires_grad=gradient)
        others = {key: torch.tensor(arrays[value]) for key, value in inputs}
        y = getattr(F, f"{op}{ndim}d")(x, **others, **kwargs)
        y, *index = y if isinstance(y, tuple) else (y,)
        if gradient:
            y.backward((torch.arange(y.numel()) % 7 - 2.0).reshape(y.shape))
            arrays[f"{name}/dx"] = x.grad.numpy()
        arrays[f"{name}/y"] = y.detach().numpy()
        arrays.update({f"{name}/index": i.numpy() for i in index})
        entry = {"name": name, "op": op, "ndim": ndim, "kwargs": kwargs, "x": x_key}
        records.append(entry | {"inputs": dict(inputs)})
        return name

    for ndim, shape in INPUTS.items():
        order = np.random.default_rng(ndim).permutation(np.prod(shape)).reshape(shape)
        arrays[f"x{ndim}"] = (order - order.size // 2).astype(np.float32)
        arrays[f"x{ndim}_int64"] = order - order.size // 2
        window = {"kernel_size": WINDOWS[ndim]}
        for kwargs in grid(
            stride=[None, STRIDES[ndim]], padding=[0, 1], dilation=[1, 2],
            ceil_mode=[False, True],
        ):  # fmt: skip
            kwargs = window | kwargs | {"return_indices": True}
            name = record("max_pool", ndim, kwargs, f"x{ndim}", gradient=False)
            if kwargs["dilation"] == 1 and not kwargs["ceil_mode"]:
                kwargs = {k: kwargs[k] for k in ("kernel_size", "stride", "padding")}
                kwargs["output_size"] = shape[2:]
                indices = [("indices", f"{name}/index")]
                distinct = kwargs["stride"] is None  # no value is overwritten
                record("max_unpool", ndim, kwargs, f"{name}/y", indices, distinct)
        for kwargs in grid(
            padding=[0, 1], ceil_mode=[True], count_include_pad=[False, True]
        ):
            kwargs = window | kwargs
            record("avg_pool", ndim, kwargs, f"x{ndim}_int64", gradient=False)
        for p, ceil_mode in itertools.product((1, 1.5, 2, 3), (False, True)):
            kernel = WINDOWS[ndim][0] if ndim == 1 else WINDOWS[ndim]
            kwargs = {"norm_type": p, "kernel_size": kernel, "ceil_mode": ceil_mode}
            record("lp_pool", ndim, kwargs, f"x{ndim}", gradient=p in (2, 3))
    write("torch_dialect", arrays, records)


def record_windows():
    """Windowed pools."""
    arrays, records = {}, []

    def record(name, stem, ndim, kwargs, x_key):
        arrays[f"{name}/y"], arrays[f"{name}/dx"] = evaluate(
            stem, ndim, kwargs, arrays[x_key]
        )
        records.append(
            {"name": name, "op": stem, "ndim": ndim, "kwargs": kwargs, "x": x_key}
        )

    for ndim, shape in INPUTS.items():
        order = np.random.default_rng(ndim).permutation(np.prod(shape))
        arrays[f"x{ndim}"] = (order.reshape(shape) - order.size // 2).astype(np.float32)
        arrays[f"x{ndim}_positive"] = abs(arrays[f"x{ndim}"]) + 1
    for stem, ndim, kwargs in requests():
        x_key = f"x{ndim}_positive" if stem == "lp_pool" else f"x{ndim}"
        record(f"{stem}{ndim}d_{len(records)}", stem, ndim, kwargs, x_key)
    for name, (row, kernel, stride, padding) in SPECIAL_ROWS.items():
        arrays[name] = np.array(row, np.float32).reshape(1, 1, -1)
        kwargs = {"kernel_size": kernel, "stride": stride, "padding": padding}
        record(f"special_{name}", "max_pool", 1, kwargs, name)

    write("torch_pool", arrays, records)


if __name__ == "__main__":
    main()
