"""The pools of other libraries, each behind the same call, for comparing and timing.

A peer is a function that takes a `Problem` and returns a pool of an array, channels
last, and of `problem.others`; or None, where the peer has no such pool. `prepare` makes
of it a call without arguments that computes the values, or the values and the gradient,
in one piece. Softmax averages, medians and segments are compared with what people
write in JAX and in PyTorch.
"""

import importlib.util
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxpool

Pass: TypeAlias = Literal["forward", "both"]  # both: forward and backward
PASSES: tuple[Pass, ...] = ("forward", "both")
Pool: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class _Pooling:
    """One pooling of an array."""

    kind: str
    shape: tuple[int, ...]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the result."""
        raise NotImplementedError

    @property
    def label(self) -> str:
        """A short name."""
        raise NotImplementedError

    @property
    def others(self) -> tuple[np.ndarray, ...]:
        """Further arrays that a pool in JAX takes."""
        return ()

    def input(self, dtype: Any = np.float32) -> np.ndarray:
        """Values without ties, so that all peers agree on the gradient."""
        size = math.prod(self.shape)
        values = np.random.default_rng(0).permutation(size).astype(np.float32)
        return (values / size - 0.5).reshape(self.shape).astype(dtype)

    def cotangent(self, dtype: Any = np.float32) -> np.ndarray:
        """A cotangent of the result."""
        return np.random.default_rng(1).random(self.out, np.float32).astype(dtype)


@dataclass(frozen=True)
class Windows(_Pooling):
    """One pooling of windows of an array `[batch, *spatial, channels]`."""

    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the result."""
        return jaxpool.output_shape(self.shape, self.window, self.strides, self.padding)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The padding as one `(low, high)` pair per axis."""
        return [(pad, pad) for pad in self.padding]

    @property
    def label(self) -> str:
        """Kind, rank, window, strides and padding."""
        rank = len(self.window)
        numbers = self.window, self.strides, self.padding
        names = [
            str(n[0]) if len(set(n)) == 1 else "x".join(map(str, n)) for n in numbers
        ]
        return f"{self.kind} {rank}-D {names[0]}/{names[1]}" + (
            f" pad {names[2]}" if any(self.padding) else ""
        )


@dataclass(frozen=True)
class Segments(_Pooling):
    """One pooling of the rows of an array `[rows, channels]`, by random sorted ids."""

    num_segments: int

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the result."""
        return self.num_segments, *self.shape[1:]

    @property
    def label(self) -> str:
        """Kind, and the numbers of rows and of segments."""
        return f"{self.kind} {self.shape[0]} to {self.num_segments}"

    @property
    def others(self) -> tuple[np.ndarray, ...]:
        """The segment of each row."""
        rng = np.random.default_rng(2)
        return (np.sort(rng.integers(0, self.num_segments, self.shape[0], np.int32)),)


@dataclass(frozen=True)
class Bins(_Pooling):
    """One adaptive pooling of images `[batch, *spatial, channels]`."""

    output_shape: tuple[int, ...]

    @property
    def out(self) -> tuple[int, ...]:
        """The shape of the result."""
        return self.shape[0], *self.output_shape, self.shape[-1]

    @property
    def label(self) -> str:
        """Kind, and the sizes of the first axis."""
        return f"{self.kind} {self.shape[1]} to {self.output_shape[0]}"


Problem: TypeAlias = Windows | Segments | Bins


def ours(problem: Problem) -> Pool:
    """The library itself."""
    pool = getattr(jaxpool, f"{problem.kind}_pool")
    if isinstance(problem, Segments):
        return partial(pool, num_segments=problem.num_segments)
    if isinstance(problem, Bins):
        return partial(pool, output_shape=problem.output_shape)
    options = {"count_include_pad": True} if problem.kind == "avg" else {}
    return partial(
        pool,
        window=problem.window,
        strides=problem.strides,
        padding=problem.padding,
        **options,
    )


def flax(problem: Problem) -> Pool | None:
    """Flax; its Linen and its NNX pools are the same functions."""
    from flax import nnx

    kinds = "max", "min", "avg", "sum"
    if not isinstance(problem, Windows) or problem.kind not in kinds:
        return None
    if problem.kind == "sum":
        return partial(
            nnx.pool,
            init=np.zeros((), np.float32),
            reduce_fn=lax.add,
            window_shape=problem.window,
            strides=problem.strides,
            padding=problem.pairs,
        )
    pool = getattr(nnx, f"{problem.kind}_pool")
    return partial(
        pool,
        window_shape=problem.window,
        strides=problem.strides,
        padding=problem.pairs,
    )


def equinox(problem: Problem) -> Pool | None:
    """Equinox, which pools one example, channels first: moved to and from there."""
    import equinox

    names = {"max": "MaxPool", "avg": "AvgPool"}
    if not isinstance(problem, Windows) or problem.kind not in names:
        return None
    rank = len(problem.window)
    layer = getattr(equinox.nn, f"{names[problem.kind]}{rank}d")(
        problem.window, problem.strides, problem.padding
    )

    def pool(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(jax.vmap(layer)(jnp.moveaxis(x, -1, 1)), 1, -1)

    return pool


def keras(problem: Problem) -> Pool | None:
    """Keras on the JAX backend; it has no padding in numbers."""
    import os

    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    names = {"max": "max_pool", "avg": "average_pool"}
    if not isinstance(problem, Windows) or any(problem.padding):
        return None
    if problem.kind not in names:
        return None
    return partial(
        getattr(keras.ops, names[problem.kind]),
        pool_size=problem.window,
        strides=problem.strides,
        padding="valid",
        data_format="channels_last",
    )


def written(problem: Problem) -> Pool | None:
    """What people write in JAX where there is no pool to call."""
    if isinstance(problem, Segments):
        reduce = getattr(jax.ops, problem.kind)
        return partial(reduce, num_segments=problem.num_segments)
    if isinstance(problem, Bins):
        return None
    if problem.kind == "softmax":
        average = flax(replace(problem, kind="avg"))
        return None if average is None else partial(softmax_formula, average, jnp.exp)
    if problem.kind == "median":
        size = problem.window[0]
        return lambda x: jnp.median(jnp.stack(_cells(x, size), -1), -1)
    return None


def softmax_formula(average: Pool, exp: Callable[[Any], Any], x: Any) -> Any:
    """A softmax average by two averages, which overflows."""
    weights = exp(x)
    return average(weights * x) / average(weights)


def _cells(x: jax.Array, size: int) -> list[jax.Array]:
    """The cells of all windows `size x size` at stride 1, by their place."""
    rows, columns = (n - size + 1 for n in x.shape[1:3])
    places = itertools.product(range(size), repeat=2)
    return [x[:, i : i + rows, j : j + columns] for i, j in places]


def torch(problem: Problem) -> Pool | None:
    """PyTorch on channels-last memory; in 1-D, as an image of one row."""
    if isinstance(problem, Segments):
        return _torch_segments(problem)
    if isinstance(problem, Bins):
        from torch.nn import functional

        pool = getattr(functional, f"{problem.kind}_pool2d")
        return partial(pool, output_size=problem.output_shape)
    if problem.kind == "softmax":
        import torch

        average = _torch_windows(replace(problem, kind="avg"))
        return None if average is None else partial(softmax_formula, average, torch.exp)
    if problem.kind == "median":
        size = problem.window[0]
        return lambda x: (
            x.unfold(2, size, 1).unfold(3, size, 1).flatten(4).median(4).values
        )
    return _torch_windows(problem)


def _torch_segments(problem: Segments) -> Pool:
    import torch

    name = {"segment_sum": "sum", "segment_max": "amax"}[problem.kind]
    (ids,) = map(torch.from_numpy, problem.others)
    places = ids.long()[:, None].expand(problem.shape)

    def pool(x: Any) -> Any:
        zeros = torch.zeros(problem.out)
        return zeros.scatter_reduce(0, places, x, name, include_self=False)

    return pool


def _torch_windows(problem: Windows) -> Pool | None:
    from torch.nn import functional

    names = {"max": "max_pool", "min": "max_pool", "avg": "avg_pool", "sum": "avg_pool"}
    rank = len(problem.window)
    one = (1,) if rank == 1 else ()
    none = (0,) if rank == 1 else ()
    if problem.kind == "lp":
        if any(problem.padding):  # it has none
            return None
        return partial(
            getattr(functional, f"lp_pool{max(rank, 2)}d"),
            norm_type=2,
            kernel_size=one + problem.window,
            stride=one + problem.strides,
        )
    pool = partial(
        getattr(functional, f"{names[problem.kind]}{max(rank, 2)}d"),
        kernel_size=one + problem.window,
        stride=one + problem.strides,
        padding=none + problem.padding,
    )
    if problem.kind == "sum":
        return partial(pool, divisor_override=1)
    if problem.kind == "min":
        return lambda x: -pool(-x)
    return pool


PEERS: dict[str, Callable[[Problem], Pool | None]] = {
    "jax": written,
    "flax": flax,
    "equinox": equinox,
    "keras": keras,
    "torch": torch,
}


def importable() -> list[str]:
    """The peers that are installed."""
    return [name for name in PEERS if importlib.util.find_spec(name)]


def both(
    pool: Pool, x: jax.Array, g: jax.Array, *others: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Forward and backward, to the first argument of the pool."""
    y, vjp = jax.vjp(lambda x: pool(x, *others), x)
    return y, vjp(g)[0]


def compiled(pool: Pool, passes: Pass, x: Any, g: Any, *others: Any) -> Any:
    """Compile one pass or both, for arrays or for their shapes and dtypes.

    The compiled program takes `arguments(passes, x, g, *others)`.
    """
    function = pool if passes == "forward" else partial(both, pool)
    return jax.jit(function).lower(*arguments(passes, x, g, *others)).compile()


def arguments(passes: Pass, x: Any, g: Any, *others: Any) -> tuple[Any, ...]:
    """What a program of these passes takes: the forward pass takes no cotangent."""
    return (x, *others) if passes == "forward" else (x, g, *others)


def prepare_jax(
    pool: Pool, passes: Pass, x: jax.Array, g: jax.Array, *others: jax.Array
) -> Callable[[], Any]:
    """One compiled call for a pool in JAX; it returns when all is computed."""
    program = compiled(pool, passes, x, g, *others)
    arrays = arguments(passes, x, g, *others)
    return lambda: jax.block_until_ready(program(*arrays))


def prepare_torch(
    pool: Pool, passes: Pass, x: np.ndarray, g: np.ndarray
) -> Callable[[], Any]:
    """The same for PyTorch, with the results in the memory order of the input."""
    import torch

    def channels_first(array: np.ndarray) -> Any:
        if array.ndim == 3:
            array = array.reshape(len(array), 1, *array.shape[1:])
        return torch.from_numpy(array).movedim(-1, 1)

    inputs, cotangents = channels_first(x), channels_first(g)
    if passes == "forward":

        def forward() -> Any:
            with torch.inference_mode():
                return pool(inputs)

        return forward
    inputs.requires_grad_()

    def backward_too() -> Any:
        inputs.grad = None
        y = pool(inputs)
        y.backward(cotangents)
        return y.detach(), inputs.grad

    return backward_too


def as_arrays(results: Any) -> list[np.ndarray]:
    """What a prepared call returns, as NumPy arrays with the channels last."""
    results = results if isinstance(results, tuple) else (results,)
    return [
        np.asarray(r if isinstance(r, jax.Array) else r.movedim(1, -1)) for r in results
    ]
