"""What is known of a windowed pool without an array: its shape and its lowering."""

from collections.abc import Sequence

from jaxpool.engines.lowering import PLATFORMS, Implementation, choose
from jaxpool.functions.arguments import about, as_sizes
from jaxpool.functions.docs import documented
from jaxpool.geometry.window import Ints, Padding, resolve


@documented(padding="it only adds to the size")
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
    """Shape that a windowed pool of an input of `shape` has.

        out = (size + low + high - dilation * (window - 1) - 1) // strides + 1

    Args:
        shape: Shape of the input, `[*batch, *spatial, channels]`.
        {geometry}

    Returns:
        The shape of the result, as a tuple of ints.

    Raises:
        ValueError: As the pool would.
        TypeError: As the pool would.

    Gradient:
        None: these are Python integers.

    References:
        `torch.nn.MaxPool2d` has the formula; PyTorch's own correction of it for
        `ceil_mode` is in `aten/src/ATen/native/Pool.h`.

    Example:
        >>> output_shape((8, 112, 112, 64), (3, 3), 2, "SAME")
        (8, 56, 56, 64)
    """
    sizes = as_sizes(shape)
    with about(sizes):
        resolved = resolve(sizes, window, strides, padding, dilation, axes, ceil_mode)
    return resolved.output_shape(sizes)


@documented(padding="it only adds to the size")
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
) -> Implementation:
    """Lowering that `implementation=None` means for a windowed pool.

        "reduce_window" on accelerators; on a CPU "doubling" from
        max(window // strides) = 9 on, else "slices"

    Args:
        platform: "cpu", "cuda", "rocm" or "tpu".
        shape: Shape of the input, `[*batch, *spatial, channels]`.
        {geometry}

    Returns:
        The name, as `implementation=` takes it. (`pool` takes the name for "cpu" on
        every platform.)

    Raises:
        ValueError: If there is no such platform, or as the pool would.
        TypeError: As the pool would.

    Gradient:
        None: this is a string.

    References:
        `jaxpool.engines.lowering` has the rule and its thresholds.

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
    return choose(platform, resolved)
