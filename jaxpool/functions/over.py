"""Domains as users write them: which cells each output of `aggregate` reads."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import jax
import jax.numpy as jnp

from jaxpool.functions.arguments import check_flag
from jaxpool.functions.written import Written, register
from jaxpool.geometry import window as geometry
from jaxpool.geometry.bins import Domain, OptionalInts, adaptive_bins
from jaxpool.geometry.window import Ints, Padding, resolve


@dataclass(frozen=True, repr=False, eq=False)
class Over(Written):
    """A domain: `windows`, `whole` or `bins`."""

    def resolve(self, shape: Sequence[int]) -> Domain:
        """The cells of each output, for an input of this shape."""
        raise NotImplementedError

    def finish(self, pooled: jax.Array, over: Domain) -> jax.Array:
        """The result, from one that has all axes."""
        return pooled


@dataclass(frozen=True, repr=False)
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


@dataclass(frozen=True, repr=False)
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
        return geometry.whole(shape, self.axes)

    def finish(self, pooled: jax.Array, over: Domain) -> jax.Array:
        return pooled if self.keepdims else jnp.squeeze(pooled, over.axes)


@dataclass(frozen=True, repr=False)
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

    output_shape: OptionalInts
    _: KW_ONLY
    axes: Ints | None = None

    def resolve(self, shape: Sequence[int]) -> Domain:
        made = adaptive_bins(shape, self.output_shape, self.axes)
        return made.window or made


register(windows, whole, bins)
