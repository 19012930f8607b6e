"""The pools of ONNX (opset 22): tensors as arguments, attributes as keywords.

Arrays are `[N, C, *spatial]`. Attributes are spelt and have the defaults as in ONNX:
one int per spatial axis, `pads` with all the beginnings before all the ends, flags 0 or
1, strides 1. Values are those of the specification, and NaN wins its window. Indices
count as ONNX does, over the whole tensor, in int32. Padding as wide as a window is
refused. An all-padding window, which needs dilation, gives 0.

Maxima and minima have forward mode (`jax.jvp`) inside `with jaxpool.forward_mode():`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

import jaxpool
from jaxpool.functions.arguments import as_array, known_range
from jaxpool.functions.unpooling import Convention
from jaxpool.geometry.axes import as_ints
from jaxpool.geometry.spelling import renamed

__all__ = [
    "AutoPad",
    "AveragePool",
    "Flag",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "MaxUnpool",
]

AutoPad: TypeAlias = Literal["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]
Flag: TypeAlias = Literal[0, 1]

_PADDINGS = {"SAME_UPPER": "SAME", "SAME_LOWER": "SAME_LOWER", "VALID": "VALID"}


_named = renamed(
    x="X", values="X", window="kernel_shape", padding="pads", dilation="dilations"
)


@_named
def MaxPool(
    X: ArrayLike,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    storage_order: Flag = 0,
    outputs: Literal[1, 2] = 1,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """`MaxPool`; see `jaxpool.max_pool` and `jaxpool.max_pool_with_indices`.

    With `outputs=2` the result is `(Y, Indices)`; indices are computed only then.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.asarray([3.0, 1.0, 2.0, 4.0]).reshape(1, 1, 2, 2)
        >>> y, i = MaxPool(x, kernel_shape=[1, 2], storage_order=1, outputs=2)
        >>> print(y.ravel(), i.ravel())
        [3. 4.] [0 3]
    """
    X = as_array(X, "any", "X")
    given = _Windows(kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    windows = given.over(X)
    by_columns = _flag("storage_order", storage_order)
    if outputs not in (1, 2):
        raise ValueError(f"outputs must be 1 or 2; got outputs={outputs!r}")
    if outputs == 1:
        return jaxpool.max_pool(X, **windows)
    values, indices = jaxpool.max_pool_with_indices(X, **windows)
    target: Convention = "onnx_column_major" if by_columns else "onnx"
    axes = windows["axes"]
    return values, jaxpool.convert_indices(
        indices, X.shape, "jaxpool", target, axes=axes
    )


@_named
def AveragePool(
    X: ArrayLike,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    count_include_pad: Flag = 0,
) -> jax.Array:
    """`AveragePool`; see `jaxpool.avg_pool`."""
    given = _Windows(kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    counted = _flag("count_include_pad", count_include_pad)
    return jaxpool.avg_pool(X, **given.over(X), count_include_pad=counted)


@_named
def LpPool(
    X: ArrayLike,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    auto_pad: AutoPad = "NOTSET",
    ceil_mode: Flag = 0,
    p: float = 2,
) -> jax.Array:
    """`LpPool`, the norm of the cells without padding; see `jaxpool.lp_pool`."""
    given = _Windows(kernel_shape, strides, pads, dilations, auto_pad, ceil_mode)
    return jaxpool.lp_pool(X, **given.over(X), p=p)


@_named
def GlobalMaxPool(X: ArrayLike) -> jax.Array:
    """`GlobalMaxPool`; see `jaxpool.global_max_pool`."""
    return jaxpool.global_max_pool(X, axes=_axes(X), keepdims=True)


@_named
def GlobalAveragePool(X: ArrayLike) -> jax.Array:
    """`GlobalAveragePool`; see `jaxpool.global_avg_pool`."""
    return jaxpool.global_avg_pool(X, axes=_axes(X), keepdims=True)


@_named
def GlobalLpPool(X: ArrayLike, *, p: float = 2) -> jax.Array:
    """`GlobalLpPool`; see `jaxpool.global_lp_pool`."""
    return jaxpool.global_lp_pool(X, axes=_axes(X), keepdims=True, p=p)


@_named
def MaxUnpool(
    X: ArrayLike,
    indices: ArrayLike,
    output_shape: Sequence[int] | None = None,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
) -> jax.Array:
    """`MaxUnpool`; see `jaxpool.max_unpool`.

    The indices are counted over the smallest input that pools to the shape of `X`. With
    `output_shape`, all sizes of a tensor at least as large, zeros are appended to that.
    """
    X = as_array(X, "any", "X")
    axes = _axes(X)
    rank, shape = len(axes), X.shape
    kernel = _each("kernel_shape", kernel_shape, rank)
    steps = _each("strides", strides, rank, 1)
    around = _each("pads", pads, 2 * rank, 0)
    inferred = [
        (n - 1) * s + k - sum(pair)
        for n, s, k, pair in zip(shape[2:], steps, kernel, _pairs(around), strict=True)
    ]
    whole = (*shape[:2], *inferred)
    missing = [0] * rank
    if output_shape is not None:
        given = _all_sizes(output_shape)
        sizes = _each("output_shape", given[2:], rank)
        missing = [a - b for a, b in zip(sizes, inferred, strict=True)]
        if given[:2] != shape[:2] or min(missing) < 0:
            raise ValueError(
                f"output_shape must be {whole} or larger on the spatial axes; "
                f"got output_shape={given} for X.shape={shape}"
            )
    places = jaxpool.convert_indices(indices, whole, "onnx", "jaxpool", axes=axes)
    bounds = known_range(places)
    if bounds is not None and bounds[0] < 0:
        raise ValueError(
            "indices must each name a cell of their own channel; got others"
        )
    smallest = jaxpool.max_unpool(X, places, inferred, axes=axes)
    if not any(missing):
        return smallest
    return jnp.pad(smallest, [(0, 0), (0, 0), *((0, n) for n in missing)])


def _all_sizes(output_shape: Any) -> tuple[int, ...]:
    """`output_shape` as a tuple, in which a symbolic batch may be."""
    if isinstance(output_shape, tuple | list):
        return tuple(output_shape)
    sizes = as_ints("output_shape", output_shape)
    return (sizes,) if isinstance(sizes, int) else sizes


@dataclass(frozen=True)
class _Windows:
    """The attributes of a windowed pool."""

    kernel_shape: Any
    strides: Any
    pads: Any
    dilations: Any
    auto_pad: Any
    ceil_mode: Any

    def over(self, X: Any) -> dict[str, Any]:
        """The same as arguments of a native pool of `X`."""
        axes = _axes(X)
        rank = len(axes)
        if self.auto_pad not in ("NOTSET", *_PADDINGS):
            raise ValueError(
                f"auto_pad must be one of NOTSET, {', '.join(_PADDINGS)}; "
                f"got auto_pad={self.auto_pad!r}"
            )
        pads = _each("pads", self.pads, 2 * rank, 0)
        if self.auto_pad != "NOTSET" and any(pads):
            raise ValueError(
                "pads must be left out where auto_pad is given; got "
                f"pads={self.pads} with auto_pad={self.auto_pad!r}"
            )
        return {
            "window": _each("kernel_shape", self.kernel_shape, rank),
            "strides": _each("strides", self.strides, rank, 1),
            "padding": _PADDINGS.get(self.auto_pad, _pairs(pads)),
            "dilation": _each("dilations", self.dilations, rank, 1),
            "axes": axes,
            "ceil_mode": _flag("ceil_mode", self.ceil_mode),
        }


def _axes(X: Any) -> tuple[int, ...]:
    """The spatial axes."""
    shape = as_array(X, "any", "X").shape
    if len(shape) < 3:
        raise ValueError(f"X must be [N, C, ...]; got X.shape={shape}")
    return tuple(range(2, len(shape)))


def _each(
    name: str, value: Any, length: int, default: int | None = None
) -> tuple[int, ...]:
    """`length` ints, or as often the default."""
    if value is None and default is not None:
        return (default,) * length
    ints = as_ints(name, value)
    if isinstance(ints, int) or len(ints) != length:
        raise ValueError(f"{name} must be {length} ints; got {name}={value}")
    return ints


def _pairs(pads: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """(low, high) of each axis, from all the beginnings and then all the ends."""
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (int, np.integer)) or value not in (0, 1):
        raise ValueError(f"{name} must be 0 or 1; got {name}={value!r}")
    return bool(value)
