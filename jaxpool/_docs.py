"""The parts of docstrings that many operators share, each written once."""

import re
import textwrap
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

SHARED = {
    "x": """
x: Input of shape `[*batch, *spatial, channels]`, or any shape if `axes` is given;
    a floating or integer dtype.""",
    "geometry": """
window: Cells per spatial axis; its length is the number of spatial axes. With
    `axes`, an int (the same for each of them) or one int per axis.
strides: Cells from one window to the next, an int or one per axis. `None` means
    the window itself, as in PyTorch and Keras (Flax's default is 1).
padding: "VALID" (none), "SAME" (`ceil(size / stride)` outputs, the odd cell of
    padding after the data), "SAME_LOWER" (before it), "CAUSAL" (a window ends
    at its own cell), an int, one int per axis, or one `(low, high)` pair per
    axis. Padding is never data: {padding}.
dilation: Distance between the cells of a window, an int or one per axis.
axes: The pooled axes, an int or ints, negative ones from the end, in any order:
    windows are row-major in the order of the input's axes all the same.
    `None`: the `len(window)` axes before the last one.
ceil_mode: Whether a last window that reaches beyond the padded input counts, by
    PyTorch's rule: it does if it starts in the input or the padding before it.""",
    "where": """
where: Boolean mask that broadcasts to `x`. Cells where it is False take no part,
    whatever they hold, and get gradient 0.
empty_value: Result for a window without a valid cell; its gradient is 0.""",
    "padding_mode": """
padding_mode: "reflect" (without the edge), "edge" or "wrap" make the padding data,
    as in `jnp.pad`, with the mask of the cells it repeats. `None`: it is none.""",
    "implementation": """
implementation: `None` chooses per platform; "reduce_window", "slices" or
    "doubling" forces that lowering of the forward pass.""",
    "global": """
x: Input of shape `[batch, *spatial, channels]`, or any shape if `axes` is given;
    a floating or integer dtype.
axes: The pooled axes, an int or ints. `None`: all but the first and the last.
keepdims: Whether the pooled axes stay, with size 1.""",
    "returns": """
`[*batch, *out, channels]`, where on each pooled axis
`out = (size + low + high - dilation * (window - 1) - 1) // strides + 1`, rounded
up with `ceil_mode`. The dtype is {dtype}.""",
    "global_returns": """
The shape of `x` without the pooled axes. The dtype is {dtype}.""",
    "indexed_returns": """
`(values, indices)`, each `[*batch, *out, channels]` with `out` as in
`jaxpool.max_pool`. The dtype of the values is {dtype}. The indices are int32, flat
and row-major over the pooled axes of `x`: the first NaN, else the first extreme
cell, never a padded or masked one; -1 where a window has no valid cell.""",
    "global_indexed_returns": """
`(values, indices)`, each of the shape of `x` without the pooled axes. The dtype of
the values is {dtype}. The indices are int32, flat and row-major over the pooled
axes of `x`: the first NaN, else the first extreme cell, never a masked one; -1
where there is no valid cell.""",
    "raises": """
ValueError: If `window`, `strides`, `padding`, `dilation`, `axes` or `where` does
    not fit the shape of `x`, if a window is larger than the padded input or the
    padding as large as a window, or if `empty_value` has no place in the dtype.
TypeError: If `x` is not an array or its dtype cannot be pooled, if `where` is not
    boolean, or if a static argument is traced.""",
    "global_raises": """
ValueError: If `axes` or `where` does not fit the shape of `x`, if a pooled axis is
    empty, or if `empty_value` has no place in the dtype.
TypeError: If `x` is not an array or its dtype cannot be pooled, if `where` is not
    boolean, or if a static argument is traced.""",
    "adaptive": """
output_shape: Places that the result has on each spatial axis, `None` for as many as
    `x` has; its length is the number of spatial axes. More than `x` has are
    allowed. With `axes`, one number (the same for each of them) or one per axis.
axes: The pooled axes, an int or ints, negative ones from the end, in any order.
    `None`: the `len(output_shape)` axes before the last one.""",
    "indices": """
And the index of each maximum, int32: flat, row-major over the pooled axes, in the order
that they have in `x`.""",
    "bins_returns": """
`[*batch, *output_shape, channels]`. The dtype is {dtype}.""",
    "bins_raises": """
ValueError: If `output_shape` or `axes` does not fit the shape of `x`, or if a pooled
    axis is empty.
TypeError: If `x` is not an array or its dtype cannot be pooled, or if an argument that
    must be static is traced.""",
    "bins_winner_gradient": """
The whole cotangent of a bin goes to one cell: the first NaN, else the first {extreme}
in row-major order. Reverse and forward mode, to any order; integers have none.""",
    "winner_gradient": """
The whole cotangent of a window goes to one cell: the first NaN, else the first
{extreme} in row-major order, never a padded or masked one. Reverse mode, to
any order, and forward mode over it (`jax.hessian`); inside
`jaxpool.forward_mode()` forward mode everywhere. Integers have none.""",
    "indexed_gradient": """
Of the values: the whole cotangent of a window goes to the cell at its index, in
both modes, to any order, with no need of `jaxpool.forward_mode()`. Integers have
none.""",
    "linear_gradient": """
Linear, in forward and reverse mode, to any order:
{rule}. Integers have none.""",
}


def documented(**words: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Replace each line `{name}` of a docstring by the shared text, with `words`."""

    def shared(line: re.Match[str]) -> str:
        text = SHARED[line["name"]].strip().format(**words)
        return textwrap.indent(text, line["indent"])

    def fill(function: Callable[P, T]) -> Callable[P, T]:
        if function.__doc__ is not None:  # it is under `python -OO`
            function.__doc__ = re.sub(
                r"^(?P<indent> *)\{(?P<name>\w+)\}",
                shared,
                function.__doc__,
                flags=re.M,
            )
        return function

    return fill
