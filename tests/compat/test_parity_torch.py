"""`jaxpool.compat.torch` beside PyTorch itself, where it is installed."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpool.compat import torch as ours
from tests.cases import cotangent, quick_jit, value_and_grad
from tests.compat.parity import grid, refused

torch = pytest.importorskip("torch")
F = torch.nn.functional

SHAPES = {1: (2, 3, 11), 2: (2, 2, 8, 7), 3: (1, 2, 6, 5, 4)}
WINDOWS = {1: [2, (3,)], 2: [2, (3, 2), (4, 5)], 3: [2, (2, 3, 2)]}
STRIDES = {1: [None, 1, 3], 2: [None, 1, (2, 3)], 3: [None, (2, 1, 2)]}


def geometries(rank, **options):
    return grid(kernel_size=WINDOWS[rank], stride=STRIDES[rank], **options)


def pools():
    """Each function with the arguments to call it with."""
    for rank in SHAPES:
        yield (
            f"max_pool{rank}d",
            geometries(
                rank,
                padding=[0, 1],
                dilation=[1, 2],
                ceil_mode=[False, True],
                return_indices=[True],
            ),
        )
        more = {"divisor_override": [None, 3]} if rank > 1 else {}
        yield (
            f"avg_pool{rank}d",
            geometries(
                rank,
                padding=[0, 1],
                ceil_mode=[False, True],
                count_include_pad=[False, True],
                **more,
            ),
        )
        yield (
            f"lp_pool{rank}d",
            geometries(
                rank,
                norm_type=[1, 2.0, 3, 1.5, math.inf, -math.inf],
                ceil_mode=[False, True],
            ),
        )
        sizes = {
            1: [1, 4, (11,), 15],
            2: [1, 3, (3, 7), (9, 2), (None, 4), (5, None)],
            3: [1, (2, 3, 4), (4, None, 2), 7],
        }
        yield f"adaptive_avg_pool{rank}d", grid(output_size=sizes[rank])
        indexed = grid(output_size=sizes[rank], return_indices=[True])
        yield f"adaptive_max_pool{rank}d", indexed


POOLS = [pytest.param(name, list(cases), id=name) for name, cases in pools()]


def both_of(call, x):
    """(outputs, gradient) of PyTorch, with a cotangent of small integers."""
    x = torch.tensor(x, requires_grad=True)
    out = call(x)
    parts = out if isinstance(out, tuple) else (out,)
    g = (torch.arange(parts[0].numel()) % 7 - 2).reshape(parts[0].shape)
    parts[0].backward(g.to(x.dtype))
    return [p.detach().numpy() for p in parts], x.grad.numpy()


def of_ours(call, x):
    """The same of a function of jax."""
    y, *_ = as_tuple(jax.eval_shape(call, x))
    return value_and_grad(lambda x: as_tuple(call(x)), x, cotangent(y.shape))


def as_tuple(out):
    return out if isinstance(out, tuple) else (out,)


def compare(name, shape, cases, dtype="float32"):
    x = np.random.default_rng(len(name)).integers(-9, 10, shape).astype(dtype) / 4
    if name.startswith("lp"):
        x = np.abs(x) + 0.25
    theirs, accepted = [], []
    for kwargs in cases:
        call = functools.partial(getattr(F, name), **kwargs)
        if refused(call, torch.tensor(x)):
            assert refused(functools.partial(getattr(ours, name), x, **kwargs)), kwargs
        else:
            theirs.append(both_of(call, x))
            accepted.append(kwargs)

    @quick_jit
    def run(x):
        mine = getattr(ours, name)
        return [of_ours(functools.partial(mine, **kwargs), x) for kwargs in accepted]

    results = jax.device_get(run(x))
    for kwargs, (parts, dx), (want, gradient) in zip(
        accepted, results, theirs, strict=True
    ):
        label = f"{name}({kwargs})"
        assert parts[0].dtype == want[0].dtype == dx.dtype, label
        for got, expected in zip(parts, want, strict=True):
            np.testing.assert_allclose(got, expected, 1e-5, 1e-5, err_msg=label)
        np.testing.assert_allclose(dx, gradient, 1e-4, 1e-5, err_msg=label)
    return len(accepted)


@pytest.mark.share(24)
@pytest.mark.parametrize(("name", "cases"), POOLS)
def test_values_indices_and_gradients(name, cases):
    rank = int(name[-2])
    assert compare(name, SHAPES[rank], cases)


@pytest.mark.share(24)
@pytest.mark.parametrize(("name", "cases"), POOLS)
def test_unbatched(name, cases):
    assert compare(name, SHAPES[int(name[-2])][1:], cases[::5])


@pytest.mark.share(24)
@pytest.mark.parametrize(("name", "cases"), POOLS)
def test_float64(name, cases):
    with jax.enable_x64(True):
        assert compare(name, SHAPES[int(name[-2])], cases[::9], "float64")


@pytest.mark.share(24)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_floats(name, dtype):
    x = np.random.default_rng(0).integers(-9, 10, (2, 3, 9, 7)) / 4
    theirs = getattr(F, name)(torch.tensor(x).to(getattr(torch, dtype)), 3)
    mine = getattr(ours, name)(jnp.asarray(x, dtype), 3)
    assert mine.dtype == dtype
    np.testing.assert_allclose(mine.astype(np.float32), theirs.float(), 1e-2)


def test_lp_of_negative_numbers_is_theirs():
    x = np.random.default_rng(1).normal(size=(1, 2, 12)).astype(np.float32)
    x[0, 0, :2] = 0
    for p in (1, 2, 3, 1.5, -1):
        theirs, gradient = both_of(lambda t, p=p: F.lp_pool1d(t, p, 2), x)
        mine, dx = of_ours(lambda t, p=p: ours.lp_pool1d(t, p, 2), jnp.asarray(x))
        np.testing.assert_allclose(mine[0], theirs[0], 1e-5, err_msg=str(p))
        if p in (2, 3):
            np.testing.assert_allclose(dx, gradient, 1e-4, 1e-5, err_msg=str(p))


def test_averages_of_int64_truncate():
    x = np.random.default_rng(2).integers(-50, 50, (2, 3, 7, 6))
    for kwargs in grid(
        kernel_size=[(2, 3)], padding=[0, 1], ceil_mode=[False, True],
        count_include_pad=[False, True], divisor_override=[None, 3, -3],
    ):  # fmt: skip
        theirs = F.avg_pool2d(torch.tensor(x), **kwargs)
        np.testing.assert_array_equal(ours.avg_pool2d(x, **kwargs), theirs, str(kwargs))


@pytest.mark.share(24)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling(rank):
    name = f"max_unpool{rank}d"
    x = np.random.default_rng(3).permutation(math.prod(SHAPES[rank]))
    x = x.reshape(SHAPES[rank]).astype(np.float32)
    windows = {"kernel_size": WINDOWS[rank], "padding": [0, 1]}
    for kwargs in grid(**windows, full=[False, True], batched=[False, True]):
        full, batched = kwargs.pop("full"), kwargs.pop("batched")
        t = torch.tensor(x if batched else x[0])
        y, i = getattr(F, f"max_pool{rank}d")(t, **kwargs, return_indices=True)
        size = t.shape[-rank:] if full else None
        extra = {"output_size": None if size is None else tuple(size)}
        theirs = functools.partial(getattr(F, name), indices=i, **kwargs, **extra)
        mine = functools.partial(
            getattr(ours, name), indices=i.numpy(), **kwargs, **extra
        )
        if refused(theirs, y):
            assert refused(mine, y.numpy()), kwargs
            continue
        want, gradient = both_of(theirs, y.numpy())
        got, dx = of_ours(mine, y.numpy())
        np.testing.assert_array_equal(got[0], want[0], str(kwargs))
        np.testing.assert_array_equal(dx, gradient, str(kwargs))


def test_unpooling_two_values_to_one_cell():
    """The value that another one overwrites has a gradient too, as in PyTorch."""
    y, i = np.asarray([[[5.0, 5.0]]], np.float32), np.asarray([[[1, 1]]])
    theirs, gradient = both_of(lambda y: F.max_unpool1d(y, torch.tensor(i), 2), y)
    mine, dy = of_ours(lambda y: ours.max_unpool1d(y, i, 2), y)
    np.testing.assert_array_equal(mine[0], theirs[0])
    np.testing.assert_array_equal(gradient, [[[-1, -1]]])
    np.testing.assert_array_equal(dy, gradient)


def test_derivatives_of_unpooling_two_values_to_one_cell():
    y, i = jnp.float32([[[5, 5]]]), np.asarray([[[0, 0]]])

    def cubes(y):
        return (ours.max_unpool1d(y, i, 2) ** 3).sum()

    def squares(y):
        return (jax.grad(cubes)(y) ** 2).sum()

    t = torch.tensor(np.asarray(y), requires_grad=True)
    first = torch.autograd.grad(
        (F.max_unpool1d(t, torch.tensor(i), 2) ** 3).sum(), t, create_graph=True
    )[0]
    want = torch.autograd.grad((first**2).sum(), t)[0]
    np.testing.assert_allclose(jax.grad(squares)(y), want.numpy())
    with jax.checking_leaks():
        jax.jit(jax.grad(cubes))(y)
    none = jnp.zeros((0, 2, 2, 2))
    grad = jax.grad(lambda y: ours.max_unpool2d(y, none.astype(np.int32), 2).sum())
    assert grad(none).shape == none.shape


def test_unpooling_drops_indices_that_are_out_of_range_under_jit():
    y, i = np.float32([[[5, 6]]]), np.asarray([[[1, 9]]])
    run = jax.jit(lambda y, i: jax.vjp(lambda y: ours.max_unpool1d(y, i, 2), y))
    got, pull = run(y, i)
    np.testing.assert_array_equal(got, [[[0, 5, 0, 0]]])
    np.testing.assert_array_equal(pull(jnp.ones((1, 1, 4)))[0], [[[1, 0]]])
    for wrong in (9, -1):
        with pytest.raises(ValueError, match="indices must be from 0 to 3"):
            ours.max_unpool1d(y, np.asarray([[[1, wrong]]]), 2)


@pytest.mark.share(24)
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_fractional(rank, batched):
    name = f"fractional_max_pool{rank}d"
    shape = {2: (2, 3, 9, 7), 3: (2, 2, 9, 7, 8)}[rank]
    rng = np.random.default_rng(4)
    samples = rng.random((*shape[:2], rank)).astype(np.float32)
    x = rng.normal(size=shape).astype(np.float32)
    if not batched:
        x, samples = x[0], samples[:1]
    sizes = {2: [3, (5, 2), (1, 6)], 3: [3, (5, 2, 1)]}[rank]
    some = [
        kwargs | {"return_indices": True}
        for kwargs in (
            *grid(kernel_size=[2, (3, 2, 1)[:rank]], output_size=sizes),
            {"kernel_size": 2, "output_ratio": (0.5,) * rank},
        )
    ]

    @quick_jit
    def run(x):
        pool = functools.partial(getattr(ours, name), _random_samples=samples)
        return [of_ours(functools.partial(pool, **kwargs), x) for kwargs in some]

    for kwargs, (got, dx) in zip(some, run(x), strict=True):
        theirs = functools.partial(
            getattr(F, name), _random_samples=torch.tensor(samples), **kwargs
        )
        want, gradient = both_of(theirs, x)
        np.testing.assert_array_equal(got[0], want[0], str(kwargs))
        np.testing.assert_array_equal(got[1], want[1], str(kwargs))
        np.testing.assert_allclose(dx, gradient, 1e-6, err_msg=str(kwargs))


X = np.zeros((2, 3, 8, 8), np.float32)
INDICES = np.zeros((2, 3, 8, 8), np.int64)
REFUSED = [
    ("max_pool2d", (X, 3), {"padding": 2}),
    ("max_pool2d", (X, 3), {"padding": 2, "dilation": 2}),
    ("max_pool2d", (X, 3), {"padding": 3, "dilation": 2}),
    ("max_pool2d", (X, 3), {"padding": -1}),
    ("max_pool2d", (X, 3), {"stride": 0}),
    ("max_pool2d", (X, 0), {}),
    ("max_pool2d", (X, 2), {"dilation": 0}),
    ("max_pool2d", (X, 9), {}),
    ("max_pool2d", (X[0, 0], 2), {}),
    ("max_pool2d", (X[None], 2), {}),
    ("max_pool2d", (X[:, :0], 2), {}),
    ("max_pool2d", (X, (2, 2, 2)), {}),
    ("max_pool2d", (X, 2.0), {}),
    ("max_pool2d", (X, 2), {"padding": "same"}),
    ("max_pool2d", (X > 0, 2), {}),
    ("max_pool2d", (X.astype(np.complex64), 2), {}),
    ("max_pool1d", (X, 2), {}),
    ("max_pool1d", (X[0, 0, 0], 2), {}),
    ("max_pool1d", (INDICES[0], 2), {}),
    ("max_pool3d", (X[0], 2), {}),
    ("avg_pool2d", (X, 3), {"padding": 2}),
    ("avg_pool2d", (X, 2), {"divisor_override": 0}),
    ("avg_pool2d", (X, 2), {"divisor_override": 1.5}),
    ("avg_pool2d", (X, 2), {"dilation": 2}),
    ("avg_pool2d", (X[:, :0], 2), {}),
    ("avg_pool2d", (X.astype(np.int32), 2), {}),
    ("avg_pool2d", (X > 0, 2), {}),
    ("avg_pool1d", (X[0], 2), {"divisor_override": 2}),
    ("lp_pool2d", (X, 0, 2), {}),
    ("lp_pool1d", (X, 2, 2), {}),
    ("adaptive_avg_pool2d", (X, (3,)), {}),
    ("adaptive_avg_pool2d", (X, -1), {}),
    ("adaptive_avg_pool2d", (X, None), {}),
    ("adaptive_avg_pool2d", (X[0, 0], 2), {}),
    ("adaptive_avg_pool2d", (INDICES, 2), {}),
    ("adaptive_avg_pool1d", (X[0], None), {}),
    ("adaptive_max_pool2d", (X, (3,)), {}),
    ("adaptive_max_pool2d", (X, -1), {}),
    ("adaptive_max_pool1d", (X[0], (None,)), {}),
    ("adaptive_max_pool2d", (INDICES, 2), {}),
    ("fractional_max_pool2d", (X, 2), {}),
    ("fractional_max_pool2d", (X, 2, 8), {}),
    ("fractional_max_pool2d", (X, 2), {"output_ratio": 0.5}),
    ("fractional_max_pool2d", (X, 2), {"output_ratio": (1.5, 0.5)}),
    ("fractional_max_pool2d", (X, (3,), 4), {}),
    ("fractional_max_pool2d", (X, 3, (4,)), {}),
    ("fractional_max_pool2d", (X, 2, 3), {"_random_samples": X[:, :, 0, :3]}),
    ("fractional_max_pool2d", (X[0], 2, 3), {"_random_samples": X[0, :, 0, :2]}),
    ("fractional_max_pool3d", (X[None, ..., :6, :6], 3, 4), {}),
    ("max_unpool2d", (X, INDICES, 2), {"output_size": (18, 17)}),
    ("max_unpool2d", (X, INDICES, 2), {"output_size": (16,)}),
    ("max_unpool2d", (X, INDICES + 256, 2), {}),
    ("max_unpool2d", (X, INDICES - 1, 2), {}),
    ("max_unpool2d", (X, INDICES[:1], 2), {}),
    ("max_unpool2d", (INDICES, INDICES, 2), {}),
]


@pytest.mark.share(24)
@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    REFUSED,
    ids=[f"{i}-{r[0]}" for i, r in enumerate(REFUSED)],
)
def test_what_is_refused_there_is_refused_here(name, args, kwargs):
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    options = {
        k: torch.tensor(v) if isinstance(v, np.ndarray) else v
        for k, v in kwargs.items()
    }
    assert refused(getattr(F, name), *tensors, **options)
    assert refused(getattr(ours, name), *args, **kwargs)


def test_adaptive_pools_to_nothing():
    x = np.ones((2, 3, 4, 5), np.float32)
    for size in (0, (None, 0), (3, 0)):
        theirs = F.adaptive_max_pool2d(torch.tensor(x), size, return_indices=True)
        mine = ours.adaptive_max_pool2d(x, size, return_indices=True)
        assert [p.shape for p in mine] == [tuple(p.shape) for p in theirs]
        assert ours.adaptive_avg_pool2d(x, size).shape == tuple(theirs[0].shape)


@pytest.mark.share(24)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_is_accepted_there_is_accepted_here(rank):
    x = np.zeros(SHAPES[rank], np.float32)
    for stride in ([], (), (1,)):
        theirs = getattr(F, f"avg_pool{rank}d")(torch.tensor(x), 2, stride)
        assert getattr(ours, f"avg_pool{rank}d")(x, 2, stride).shape == theirs.shape
    assert getattr(ours, f"max_pool{rank}d")(x[:0], 2).shape[0] == 0
    assert getattr(ours, f"max_pool{rank}d")(x, (2,)).shape[0] == x.shape[0]
