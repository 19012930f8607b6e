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
where: Boolean mask, a scalar or of the rank of `x`, that broadcasts to it: one of
    batch and time is `mask[..., None]`. Cells where it is False take no part,
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
    "fractional": """
window: Cells of a bin on each spatial axis, an int or one per axis; `None` unless
    `rule="window"`.
output_shape: Places that the result has on each spatial axis; its length is the
    number of spatial axes. With `axes`, one number or one per axis.
key: Random key to draw with, in place of `samples`.
samples: Numbers `u` in [0, 1), float32 or float64, in place of `key`. The last axis
    has one for each spatial axis, in the order of `output_shape`. The axes before it
    are those of `x` that are not pooled, `[*batch, channels]`: of size 1, or left
    out, where all have the same bins.
axes: The pooled axes, an int or ints, negative ones from the end, in any order.
    `None`: the `len(output_shape)` axes before the last one.
rule: "window", as in PyTorch: bins of `window` cells start at
    `int((o + u) * alpha) - int(u * alpha)`, computed in the dtype of `u`, where
    `alpha = (size - window) / (out - 1)`; the last one ends with the input. A key
    draws a `u` for each batch and channel.
    "pseudorandom", as in TensorFlow: bins start at `ceil(size / out * (o + v)) - 1`,
    the first one at 0, and end where the next one starts; `v` is `u` times the largest
    number with which all have `size // out` cells or one more. A key draws one `u`
    an axis, for all batches and channels.
    "random", likewise: bins of these lengths in any order. It takes a key.
overlapping: Whether bins end one cell later, except for the last, if they are not of
    `window` cells.""",
    "fractional_raises": """
ValueError: If `window`, `output_shape`, `axes` or `samples` does not fit the shape of
    `x`, if not one of `key` and `samples` is given, or one that `rule` does not take.
TypeError: If `x` is not an array or its dtype cannot be pooled, if `samples` are not
    float32 or float64, or if an argument that must be static is traced.""",
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
any order, and forward mode over it (`jax.hessian`). For forward mode alone
(`jax.jvp`, `jax.jacfwd`) trace it inside `with jaxpool.forward_mode():`.
Integers have none.""",
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
