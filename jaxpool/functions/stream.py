"""Causal windows over a stream: chunk after chunk, with a state.

The outputs of a stream do not depend on how it is cut, bit for bit. XLA may round a
program for long arrays in another way than one for short arrays, so each step computes
`BLOCK` windows at once, whatever the length of the chunk, in a loop.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.forward_mode import explaining
from jaxpool.functions.aggregate import Name, aggregate, as_rules
from jaxpool.functions.arguments import about, as_array, as_given, as_mask, as_number
from jaxpool.functions.by import By
from jaxpool.functions.over import Over, windows
from jaxpool.geometry.axes import as_shape
from jaxpool.geometry.pooled import MOST
from jaxpool.geometry.window import AxisWindow, Window

BLOCK = 8  # windows that one iteration computes


class StreamState(NamedTuple):
    """What later windows read: the last cells, and the arrays that go with them.

    `documents` numbers the document of each cell; cells before the stream have -1.
    """

    cells: jax.Array
    arrays: dict[str, jax.Array]
    valid: jax.Array
    documents: jax.Array
    document: jax.Array


class _Init(Protocol):
    def __call__(self, shape: Sequence[int], dtype: DTypeLike) -> StreamState:
        """The state before the first cell."""


class _Step(Protocol):
    def __call__(
        self,
        state: StreamState,
        chunk: ArrayLike,
        *,
        where: ArrayLike | None = None,
        starts: ArrayLike | None = None,
        **arrays: ArrayLike,
    ) -> tuple[StreamState, Any]:
        """The state after a chunk, and the outputs that end in it."""


class Stream(NamedTuple):
    """The two functions of a stream."""

    init: _Init
    step: _Step


def stream(
    by: Name | By | tuple[Name | By, ...],
    over: Over,
    *,
    arrays: Sequence[str] = (),
    empty_value: float = 0,
) -> Stream:
    """Aggregate causal windows of a stream, chunk after chunk.

        state = init(chunk.shape, chunk.dtype)
        state, outputs = step(state, chunk)  # for each chunk

    Shared rules (chunks, masks, documents): "Streams" in docs/conventions.md.

    Args:
        by: Aggregation: "max", "min", "sum", "avg", or an object such as `Lp(3)` or
            `Softmax()`; or a tuple of them, for a tuple of results.
        over: Causal windows along one axis: `windows(8, 4, "CAUSAL", axes=1)`.
        arrays: Names of fields of `by` that have a number for each cell, such as
            "logits". `step` takes the numbers of each chunk by these names.
        empty_value: Result for an output without a valid cell; its gradient is 0.

    Returns:
        `init(shape, dtype)`, which returns a state for chunks of that shape and dtype;
        the size of the chunk along the axis does not matter. And `step(state, chunk, *,
        where=None, starts=None, **arrays)`, which returns the next state and the
        outputs of the windows that end in the chunk. `starts` marks the first cells of
        documents, a boolean array of the shape of the chunk up to the axis.

    Raises:
        ValueError: If `over` is not causal windows along one axis, the length of a
            chunk is not a multiple of the stride, or a state does not fit the chunk.
        TypeError: If `by` or `over` is no aggregation or domain, a dtype is wrong, or
            `step` does not get exactly the names in `arrays`.

    Gradient:
        That of the aggregation, through the state too.

    References:
        `aggregate` over the same windows gives the same outputs up to rounding.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import windows
        >>> init, step = stream("sum", windows(3, 1, "CAUSAL", axes=0))
        >>> state = init((2,), jnp.float32)
        >>> state, y = step(state, jnp.asarray([1.0, 2.0]))
        >>> state, z = step(state, jnp.asarray([3.0, 4.0]))
        >>> print(y, z)
        [1. 3.] [6. 9.]
    """
    rules = as_rules(by, over)
    as_number("empty_value", empty_value)
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(
            f"arrays must be a list of names of fields of by; got arrays={arrays!r:.80}"
        )
    names = tuple(arrays)
    for name in names:
        if not any(name in rule.arrays for rule in rules):
            raise ValueError(
                f"arrays must name fields of by that hold arrays; got arrays={names} "
                f"for by={by!r:.80}"
            )
    if not isinstance(over, windows) or str(over.padding).upper() != "CAUSAL":
        raise ValueError(
            'over must be causal windows, such as windows(8, 4, "CAUSAL", axes=1); '
            f"got over={over!r}"
        )
    if over.ceil_mode:
        raise ValueError(
            "over must have ceil_mode=False in a stream, which has no last window; got "
            f"over={over!r}"
        )
    named = tuple(rules) if isinstance(by, tuple) else rules[0]
    pooled = partial(_pooled, named, over, empty_value)
    return Stream(partial(_init, over, names), partial(_step, pooled, over, names))


def _dim(over: Over, shape: Sequence[int]) -> tuple[int, AxisWindow]:
    """The streamed axis, and the geometry of a chunk."""
    resolved = over.resolve([max(n, 1) for n in shape])  # a chunk may be empty
    if not isinstance(resolved, Window) or len(resolved.axes) != 1:
        raise ValueError(f"over must have one axis; got over={over!r}")
    (axis,) = resolved.axes
    # Of a long input: one window alone would have no stride.
    sizes = [MOST if a == axis else 1 for a in range(len(shape))]
    long = over.resolve(sizes)
    dims: Any = long.dims
    return axis, dims[0]


def _init(
    over: Over, names: tuple[str, ...], shape: Sequence[int], dtype: DTypeLike
) -> StreamState:
    sizes = [*as_shape(shape)]
    with about(sizes, "chunk"):
        axis, dim = _dim(over, sizes)
    sizes[axis] = dim.low
    lead, wide = sizes[:axis], _wide(dtype)
    return StreamState(
        jnp.zeros(sizes, dtype),
        {name: jnp.zeros(sizes, wide) for name in names},
        jnp.zeros(sizes, bool),
        jnp.full([*lead, dim.low], -1, np.int32),
        jnp.zeros(lead, np.int32),
    )


@explaining
def _step(
    pooled: Any,
    over: Over,
    names: tuple[str, ...],
    state: StreamState,
    chunk: ArrayLike,
    *,
    where: ArrayLike | None = None,
    starts: ArrayLike | None = None,
    **arrays: ArrayLike,
) -> tuple[StreamState, Any]:
    x = as_array(chunk, "number", name="chunk")
    with about(x.shape, "chunk"):
        axis, dim = _dim(over, x.shape)
        given = _checked(over, names, state, x, (axis, dim), arrays)
        mask, starts = as_mask(where, x), _as_starts(starts, x, axis)
    number = state.document[..., None] + jnp.cumsum(starts, axis, np.int32)
    valid = jnp.ones(x.shape, bool) if mask is None else jnp.broadcast_to(mask, x.shape)
    new = x, given, valid, number
    old = state.cells, state.arrays, state.valid, state.documents
    full = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis), old, new)
    outputs = _in_blocks(pooled, axis, dim, full)
    keep = partial(lax.slice_in_dim, start_index=x.shape[axis], limit_index=None)
    cells, own, known, documents = jax.tree.map(partial(keep, axis=axis), full)
    last = state.document + starts.sum(axis, np.int32)
    return StreamState(cells, own, known, documents, last), outputs


def _checked(
    over: Over,
    names: tuple[str, ...],
    state: StreamState,
    x: jax.Array,
    along: tuple[int, AxisWindow],
    arrays: dict[str, Any],
) -> dict[str, jax.Array]:
    """The arrays of a chunk, after all checks of its length and of the state."""
    axis, dim = along
    if x.shape[axis] % dim.stride:
        raise ValueError(
            f"chunk must have a multiple of {dim.stride} cells along axis {axis}, the "
            f"stride of {over!r}; got {x.shape[axis]}"
        )
    sizes = (*x.shape[:axis], dim.low, *x.shape[axis + 1 :])
    if not isinstance(state, StreamState) or (
        (state.cells.shape, state.cells.dtype, {*state.arrays})
        != (sizes, x.dtype, {*names})
    ):
        raise ValueError(
            "state must be that of init(chunk.shape, chunk.dtype) of this stream, or "
            f"of its last step; got state={state!r:.80}"
        )
    if {*arrays} != {*names}:
        raise TypeError(
            f"arrays must be given by the names {names}, one for each; got the names "
            f"{tuple(arrays)}"
        )
    given = {name: as_given(name, arrays[name]) for name in names}
    for name, array in given.items():
        if array.ndim != x.ndim or array.shape[axis] != x.shape[axis]:
            raise ValueError(
                f"{name} must have the rank of chunk, and a number for each of its "
                f"cells along axis {axis}; got {name}.shape={array.shape}"
            )
    return {
        name: jnp.broadcast_to(array, x.shape).astype(_wide(x.dtype))
        for name, array in given.items()
    }


def _wide(dtype: DTypeLike) -> np.dtype:
    """The dtype of the numbers that go with cells: real, and as wide as sums."""
    number = np.zeros((), jax.dtypes.canonicalize_dtype(dtype)).real
    return dtypes.summed(dtypes.averaged(number.dtype))


def _as_starts(starts: Any, x: jax.Array, axis: int) -> jax.Array:
    """Where documents start, as integers that add up to their numbers."""
    lead = x.shape[: axis + 1]
    if starts is None:
        return jnp.zeros(lead, np.int32)
    given = as_given("starts", starts)
    if given.dtype != np.bool_ or given.shape != lead:
        raise ValueError(
            f"starts must be boolean, of the shape {lead}; got "
            f"starts.shape={given.shape} with starts.dtype={given.dtype}"
        )
    return jnp.asarray(given).astype(np.int32)


def _in_blocks(pooled: Any, axis: int, dim: AxisWindow, full: Any) -> Any:
    """The outputs of all windows of some cells, `BLOCK` of them at once."""
    extent, stride = dim.extent, dim.stride
    outs = (full[0].shape[axis] - extent) // stride + 1
    blocks, span = max(-(-outs // BLOCK), 1), (BLOCK - 1) * stride + extent
    behind = (blocks - 1) * BLOCK * stride + span - full[0].shape[axis]

    def padded(array: jax.Array) -> jax.Array:
        around = [
            (0, max(behind, 0)) if a == axis else (0, 0) for a in range(array.ndim)
        ]
        return jnp.pad(array, around)

    full = jax.tree.map(padded, full)

    def block(number: jax.Array) -> Any:
        start = number * np.int32(BLOCK * stride)
        cut = partial(
            lax.dynamic_slice_in_dim, start_index=start, slice_size=span, axis=axis
        )
        cells = jax.tree.map(cut, full)
        starts = range(0, BLOCK * stride, stride)
        each = [
            jax.tree.map(
                lambda a, s=s: lax.slice_in_dim(a, s, s + extent, axis=axis), cells
            )
            for s in starts
        ]
        stacked = jax.tree.map(lambda *arrays: jnp.stack(arrays), *each)
        return jax.vmap(partial(pooled, axis))(*stacked)

    results = lax.map(block, lax.iota(np.int32, blocks))

    def merged(result: jax.Array) -> jax.Array:
        flat = result.reshape(-1, *result.shape[2:])[:outs]
        return jnp.moveaxis(flat, 0, axis)

    return jax.tree.map(merged, results)


def _pooled(
    by: By | tuple[By, ...],
    over: windows,
    empty: float,
    axis: int,
    x: jax.Array,
    arrays: dict[str, jax.Array],
    valid: jax.Array,
    documents: jax.Array,
) -> Any:
    """The output of one window; cells of other documents than its last are ignored."""
    same = documents == documents[..., -1:]
    mask = valid & same.reshape(*same.shape, *(1,) * (x.ndim - same.ndim))
    one = windows(over.window, 1, dilation=over.dilation, axes=axis)
    each = by if isinstance(by, tuple) else (by,)
    rules = tuple(_with(rule, arrays) for rule in each)
    results = aggregate(x, rules, one, where=mask, empty_value=empty)
    found = tuple(jnp.squeeze(result, axis) for result in results)
    return found if isinstance(by, tuple) else found[0]


def _with(rule: By, arrays: dict[str, jax.Array]) -> By:
    """An aggregation with the numbers of the cells of a window."""
    own = {field.name for field in fields(rule)} & {*arrays}
    return replace(rule, **{name: arrays[name] for name in sorted(own)})
