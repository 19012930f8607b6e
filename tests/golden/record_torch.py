"""Record PyTorch's pooling values and input gradients as golden files.

Run by hand, with torch installed: `python tests/golden/record_torch.py`. Writes
`torch_pool.npz` (inputs, values, gradients) and `torch_pool.json`, one record a
case: its name, the torch function and arguments, and the keys of its arrays. The
cotangent of case `name` is `arange(size) % 7 - 2` in the shape of its value.
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


def evaluate(stem, ndim, kwargs, x):
    """Value and gradient of `sum(cotangent * F.<stem><ndim>d(x))`."""
    x = torch.tensor(x, requires_grad=True)
    y = getattr(F, f"{stem}{ndim}d")(x, **kwargs)
    y.backward((torch.arange(y.numel()) % 7 - 2.0).reshape(y.shape))
    return y.detach().numpy(), x.grad.numpy()


def main():
    """Evaluate everything and write both files."""
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

    np.savez_compressed(HERE / "torch_pool.npz", **arrays)
    lines = ",\n".join(f"  {json.dumps(r)}" for r in records)
    head = f'{{"torch": "{torch.__version__}", "records": [\n'
    (HERE / "torch_pool.json").write_text(f"{head}{lines}\n]}}\n")


if __name__ == "__main__":
    main()
