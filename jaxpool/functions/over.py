"""Domains as users write them: which cells each output of `aggregate` reads."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxpool.aggregations.call import Call
from jaxpool.engines.sharding import in_auto_mode
from jaxpool.functions.arguments import about, as_given, as_links, check_flag
from jaxpool.functions.written import Written, register
from jaxpool.geometry.axes import Ints, check_at_least
from jaxpool.geometry.bins import OptionalInts, adaptive_bins
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.links import Neighbors, Segments, linked_axis
from jaxpool.geometry.resolve import Padding, resolve
from jaxpool.geometry.resolve import whole as whole_axes


@dataclass(frozen=True, repr=False, eq=False)
class Over(Written):
    """A domain: `windows`, `whole`, `bins`, `segments` or `neighbors`."""

    both_modes: ClassVar[bool] = False  # of maxima, without `forward_mode()`
    is_windowed: ClassVar[bool] = True  # whether all outputs are windows

    def resolve(self, shape: Sequence[int]) -> Domain:
        """The cells of each output, for an input of this shape."""
        raise NotImplementedError

    def pool(self, pool: Callable[[Call], jax.Array], call: Call) -> jax.Array:
        """What `pool` makes of the call; with the arrays of the domain, if any."""
        return pool(call)

    def finish(self, pooled: jax.Array, over: Domain) -> jax.Array:
        """The result, from one that has all axes."""
        return pooled


# Domains have names like functions, which is how users call them.


@dataclass(frozen=True, repr=False, eq=False)
class windows(Over):
    """Windows that slide over the pooled axes.

    Args:
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.

    Example:
        >>> windows((3, 3), 2, padding="SAME")
        windows((3, 3), 2, 'SAME')
    """

    window: Ints
    strides: Ints | None = None
    padding: Padding = "VALID"
    _: KW_ONLY
    dilation: Ints = 1
    axes: Ints | None = None
    ceil_mode: bool = False

    def resolve(self, shape: Sequence[int]) -> Domain:
        geometry = self.window, self.strides, self.padding, self.dilation, self.axes
        return resolve(shape, *geometry, self.ceil_mode)


@dataclass(frozen=True, repr=False, eq=False)
class whole(Over):
    """All cells of the pooled axes.

    Args:
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes,
            those between the first and the last.
        keepdims: Whether to keep the pooled axes, with size 1.

    Example:
        >>> whole(axes=1)
        whole(1)
    """

    axes: Ints | None = None
    keepdims: bool = False

    def resolve(self, shape: Sequence[int]) -> Domain:
        check_flag("keepdims", self.keepdims)
        return whole_axes(shape, self.axes)

    def finish(self, pooled: jax.Array, over: Domain) -> jax.Array:
        return pooled if self.keepdims else jnp.squeeze(pooled, over.axes)


@dataclass(frozen=True, repr=False, eq=False)
class bins(Over):
    """`output_shape` bins of nearly equal length along each pooled axis.

    Args:
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`);
            `None` keeps the size of an axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.

    Example:
        >>> bins(4, axes=1)
        bins(4, axes=1)
    """

    both_modes = True
    is_windowed = False
    output_shape: OptionalInts
    _: KW_ONLY
    axes: Ints | None = None

    def resolve(self, shape: Sequence[int]) -> Domain:
        made = adaptive_bins(shape, self.output_shape, self.axes)
        return made.window or made


@dataclass(frozen=True, repr=False, eq=False)
class Linked(Over):
    """A domain along one axis, whose links are in an array."""

    both_modes = True
    is_windowed = False
    own_axes: ClassVar[int] = 1  # of the array; others are those of `x` before `axis`

    @property
    def label(self) -> str:
        """What the user calls the array."""
        return self.arrays[0]

    def links(self, size: int) -> jax.Array:
        """The array, for an axis of this size."""
        raise NotImplementedError

    def pool(self, pool: Callable[[Call], jax.Array], call: Call) -> jax.Array:
        over: Any = call.over
        x = call.x
        with about(x.shape):
            links = self.links(over.dim.size)
        lead = links.ndim - self.own_axes
        if lead not in (0, over.axis) or links.shape[:lead] != x.shape[:lead]:
            shape = jnp.shape(getattr(self, self.arrays[0]))
            raise ValueError(
                f"{self.label} must have no further axes, or all those of x before "
                f"axis {over.axis}; got {self.label}.shape={shape} for "
                f"x.shape={x.shape}"
            )
        if lead == 0:
            return pool(call._replace(tables=(links,)))
        inner = replace(over, axes=(over.axis - lead,))

        def pooled(x: jax.Array, mask: Any, arrays: Any, links: jax.Array) -> jax.Array:
            tables = (links,)
            given = call._replace(x=x, mask=mask, arrays=arrays, tables=tables)
            return pool(given._replace(over=inner))

        others = call.mask, call.arrays, links
        return in_auto_mode(partial(_mapped, pooled, lead), over, x, *others)


def _mapped(
    pool: Callable[..., jax.Array], lead: int, x: jax.Array, *others: Any
) -> jax.Array:
    """`pool` for each item of the leading axes; others may have one item for all."""
    if lead == 0:
        return pool(x, *others)
    one = jax.tree.map(lambda a: a[0] if a.shape[0] == 1 else a, others)
    axes = jax.tree.map(lambda a: None if a.shape[0] == 1 else 0, others)
    return jax.vmap(partial(_mapped, pool, lead - 1), (0, *axes))(x, *one)


@dataclass(frozen=True, repr=False, eq=False)
class segments(Linked):
    """Cells with the same number along one axis: packed sequences, graphs.

    Args:
        segment_ids: The segment of each cell, integers in any order, shape `[size]`
            for all of `x`, or the shape of `x` up to `axis`. Cells with a negative id
            are ignored, and so are those with a traced id of `num_segments` or more.
        num_segments: The number of segments, an int. A segment without a cell gets
            `empty_value`.
        axis: The axis of `x` that is pooled.
        indices_are_sorted: Whether the ids do not decrease. The result is undefined if
            this is not so.

    Example:
        >>> segments.from_lengths([2, 3], axis=0)
        segments.from_lengths(array([2, 3]), axis=0)
    """

    arrays: ClassVar[tuple[str, ...]] = ("segment_ids",)
    segment_ids: ArrayLike
    num_segments: int
    _: KW_ONLY
    axis: int
    indices_are_sorted: bool = False

    def resolve(self, shape: Sequence[int]) -> Domain:
        check_flag("indices_are_sorted", self.indices_are_sorted)
        if isinstance(self.num_segments, tuple):
            raise TypeError(
                f"num_segments must be an int; got num_segments={self.num_segments!r}"
            )
        linked = linked_axis(shape, self.axis, self.num_segments, "num_segments")
        return Segments(*linked, bool(self.indices_are_sorted))

    def links(self, size: int) -> jax.Array:
        most = self.num_segments - 1
        return as_links("segment_ids", self.segment_ids, 1, most, size=size)

    @staticmethod
    def from_lengths(lengths: ArrayLike | Sequence[int], *, axis: int) -> Over:
        """Segments that follow one another, of these lengths.

        Cells after the last segment are ignored.
        """
        return _Consecutive(_numbers("lengths", lengths), axis, "lengths")

    @staticmethod
    def from_offsets(cu_seqlens: ArrayLike | Sequence[int], *, axis: int) -> Over:
        """Segments from each offset to the next: `[0, 3, 7]` are two, of 3 and 4 cells.

        Cells before the first offset and after the last one are ignored.
        """
        numbers = _numbers("cu_seqlens", cu_seqlens)
        return _Consecutive(numbers, axis, "cu_seqlens")


@dataclass(frozen=True, repr=False, eq=False)
class _Consecutive(Linked):
    """Segments that follow one another, by their lengths or by where each begins."""

    arrays: ClassVar[tuple[str, ...]] = ("numbers",)
    numbers: Any
    axis: int
    given: Literal["lengths", "cu_seqlens"]

    @property
    def label(self) -> str:
        return self.given

    def __repr__(self) -> str:
        way = "from_lengths" if self.given == "lengths" else "from_offsets"
        return f"segments.{way}({self.numbers!r}, axis={self.axis})"

    def resolve(self, shape: Sequence[int]) -> Domain:
        count = as_links(self.label, self.numbers, 1).shape[-1]
        count -= self.label == "cu_seqlens"  # which has the end of the last one, too
        name = f"the segments of {self.label}"
        return Segments(*linked_axis(shape, self.axis, count, name), are_sorted=True)

    def links(self, size: int) -> jax.Array:
        numbers = as_links(self.label, self.numbers, 1, size, 0)
        given = as_given(self.label, self.numbers)
        if not isinstance(given, jax.core.Tracer):
            _check_consecutive(self.label, np.asarray(given, np.int64), size)
        if self.label == "lengths":
            ends = jnp.cumsum(numbers, -1, np.int32)
            numbers = jnp.pad(ends, [(0, 0)] * (ends.ndim - 1) + [(1, 0)])
        cells = jnp.arange(size, dtype=np.int32)

        def ids(offsets: jax.Array) -> jax.Array:
            search = partial(jnp.searchsorted, side="right", method="scan_unrolled")
            return search(offsets, cells).astype(np.int32) - np.int32(1)

        for _ in range(numbers.ndim - 1):
            ids = jax.vmap(ids)
        return ids(numbers)


def _check_consecutive(label: str, numbers: np.ndarray, size: int) -> None:
    """Refuse segments that overlap, or end beyond the axis."""
    if label == "lengths" and (numbers.sum(-1) > size).any():
        raise ValueError(
            f"lengths must add up to at most {size}, the size of the axis; got "
            f"{numbers.sum(-1)}"
        )
    if label == "cu_seqlens" and (np.diff(numbers) < 0).any():
        raise ValueError(f"cu_seqlens must not decrease; got cu_seqlens={numbers}")


@dataclass(frozen=True, repr=False, eq=False)
class neighbors(Linked):
    """Cells of one axis that each output names: neighborhoods of a graph.

    Args:
        indices: The cells of each output, integers, shape `[outputs, k]` for all of
            `x`, or that after the axes of `x` before `axis`. Negative numbers are
            ignored, and so are traced numbers beyond the axis.
        axis: The axis of `x` that is pooled.

    Example:
        >>> import numpy as np
        >>> neighbors(np.asarray([[0, 1], [2, -1]]), axis=0)
        neighbors(array([[ 0,  1],
               [ 2, -1]]), axis=0)
    """

    own_axes = 2
    arrays: ClassVar[tuple[str, ...]] = ("indices",)
    indices: ArrayLike
    _: KW_ONLY
    axis: int

    def resolve(self, shape: Sequence[int]) -> Domain:
        *_, outputs, count = as_links("indices", self.indices, 2).shape
        check_at_least("the last axis of indices", [count], 1)
        name = "the outputs of indices"
        return Neighbors(*linked_axis(shape, self.axis, outputs, name, count))

    def links(self, size: int) -> jax.Array:
        return as_links("indices", self.indices, 2, size - 1)


def _numbers(name: str, value: Any) -> Any:
    """A list or a tuple as an array."""
    if not isinstance(value, (list, tuple)):
        return value
    try:
        return np.asarray(value)
    except jax.errors.TracerArrayConversionError:
        return jnp.asarray(value)
    except ValueError:
        raise ValueError(
            f"{name} must have rows of equal length; got {name}={value!r:.80}"
        ) from None


register(windows, whole, bins, segments, _Consecutive, neighbors)
