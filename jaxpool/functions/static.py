"""Properties of a windowed pool without an array: its output shape and its form."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxpool.engines.kernel import PLATFORMS
from jaxpool.engines.plan import Implementation, form_for
from jaxpool.functions.arguments import about, as_sizes
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.resolve import Padding, resolve


def output_shape(
    shape: Sequence[int],
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
) -> tuple[int, ...]:
    """Shape of the result of a windowed pool.

        out = (size + low + high - dilation * (window - 1) - 1) // strides + 1

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        shape: Shape of the input, `[*batch, *spatial, channels]`.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.

    Returns:
        The shape of the result, a tuple of ints.

    Raises:
        ValueError: If the pool raises it for these arguments.
        TypeError: If the pool raises it for these arguments.

    Gradient:
        None: the result is Python integers.

    References:
        `torch.nn.MaxPool2d` documents the formula. PyTorch's correction of it for
        `ceil_mode` is in `aten/src/ATen/native/Pool.h`.

    Example:
        >>> output_shape((8, 112, 112, 64), (3, 3), 2, "SAME")
        (8, 56, 56, 64)
    """
    sizes = as_sizes(shape)
    with about(sizes):
        resolved = resolve(sizes, window, strides, padding, dilation, axes, ceil_mode)
    return resolved.output_shape(sizes)


def implementation_for(
    platform: str,
    shape: Sequence[int],
    window: Ints,
    strides: Ints | None = None,
    padding: Padding = "VALID",
    *,
    dilation: Ints = 1,
    axes: Ints | None = None,
    ceil_mode: bool = False,
    dtype: DTypeLike = np.float32,
) -> Implementation:
    """Form that `implementation=None` selects for a windowed pool.

        TPU: "reduce_window"
        GPU: "reduce_window" if n = prod(ceil(window / strides)) < 16, else as on CPU;
             dtypes of two bytes and at most 9 cells: as on CPU if 1-D or n <= 4
        CPU: "doubling" if max(window // strides) >= 9, else "slices"

    If the size of a pooled axis is symbolic, it is "reduce_window" on every platform.
    On a GPU, norms, log-sum-exp and softmax of at most 4 cells take slices where
    windows do not overlap. Variances, medians and the like have one form.

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        platform: "cpu", "cuda", "rocm" or "tpu".
        shape: Shape of the input, `[*batch, *spatial, channels]`.
        window: Window sizes, an int per spatial axis (or one int, with `axes`).
        strides: Step between windows, an int or one per axis. `None`: the window size.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", an int, one int per axis, or
            one `(low, high)` pair per axis.
        dilation: Step between the cells of a window, an int or one per axis.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        ceil_mode: Whether to round the output size up, by PyTorch's rule.
        dtype: Dtype of the input.

    Returns:
        The name, as `implementation` accepts it. It is the form of the values; their
        gradient may use another one. `pool` uses the name for "cpu" on every platform.
        Norms, log-sum-exp and softmax averages use that name on TPU too, and on GPU the
        name for float32.

    Raises:
        ValueError: If `platform` is not one of these, or the pool raises it.
        TypeError: If the pool raises it for these arguments.

    Gradient:
        None: the result is a string.

    References:
        `jaxpool.engines.plan` has the rule and its thresholds.

    Example:
        >>> implementation_for("cpu", (8, 112, 112, 64), (3, 3), 2, "SAME")
        'slices'
    """
    sizes = as_sizes(shape)
    with about(sizes):
        if platform not in PLATFORMS:
            raise ValueError(
                f"platform must be one of {', '.join(PLATFORMS)}; "
                f"got platform={platform!r}"
            )
        resolved = resolve(sizes, window, strides, padding, dilation, axes, ceil_mode)
    return form_for(platform, resolved, jnp.dtype(dtype))
