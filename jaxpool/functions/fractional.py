"""Fractional pools: bins that are drawn at random, for ratios that are not integers.

Each function checks its arguments, draws its bins, and calls an aggregation. The rules
that draw bins are here. What holds for every draw is in `jaxpool.geometry.bins`.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxpool.aggregations.call import Call
from jaxpool.engines.gathers import Table
from jaxpool.engines.numbers import divided, numbers
from jaxpool.engines.sharding import Sizes
from jaxpool.functions import pooling
from jaxpool.functions.arguments import (
    Kinds,
    about,
    as_array,
    as_given,
    check_flag,
    known_range,
)
from jaxpool.functions.entry import enter
from jaxpool.geometry.axes import Ints
from jaxpool.geometry.bins import AxisBins, Bins, step_draws, window_draws
from jaxpool.geometry.pooled import check_countable
from jaxpool.geometry.spelling import spelled

Rule: TypeAlias = Literal["window", "pseudorandom", "random"]
RULES: tuple[Rule, ...] = get_args(Rule)
Placing: TypeAlias = tuple[Any, ...]  # a function and its first arguments
Result = TypeVar("Result", jax.Array, tuple[jax.Array, jax.Array])


def fractional_max_pool(
    x: ArrayLike,
    window: Ints | None,
    output_shape: Ints,
    *,
    key: jax.Array | None = None,
    samples: ArrayLike | None = None,
    axes: Ints | None = None,
    rule: Rule = "window",
    overlapping: bool = False,
) -> jax.Array:
    """Maximum over bins that are drawn at random.

        y[n, o, c] = max_i x[n, i, c],  start[o] <= i < stop[o]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        window: Cells of a bin, an int or one per axis; `None` unless `rule="window"`.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`).
        key: Random key that draws the bins; `None` if `samples` is given.
        samples: Numbers in [0, 1) that place the bins, float32 or float64, with one per
            pooled axis on the last axis; `None` if `key` is given.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        rule: "window" (bins of PyTorch), "pseudorandom" or "random" (bins of
            TensorFlow).
        overlapping: Whether a bin includes the first cell of the next; not with
            "window".

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `key` and `samples` are both given or both `None`, or if `rule`
            does not accept the one given.

    Gradient:
        The cotangent of a bin goes to one cell: the first NaN, else the first maximum
        in row-major order. Integers have no gradient. Reverse and forward mode work to
        any order.

    References:
        B. Graham, "Fractional Max-Pooling", 2014, https://arxiv.org/abs/1412.6071.
        `torch.nn.functional.fractional_max_pool2d`, whose `_random_samples` have the
        order (width, height). `tf.nn.fractional_max_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, half = jnp.arange(7.0), jnp.asarray([0.5])
        >>> print(fractional_max_pool(x, 2, 4, samples=half, axes=0))
        [1. 3. 5. 6.]
    """
    call = _check(x, window, output_shape, key, samples, axes, rule, overlapping)
    return _drawn(pooling.extreme, call, "max")


def fractional_max_pool_with_indices(
    x: ArrayLike,
    window: Ints | None,
    output_shape: Ints,
    *,
    key: jax.Array | None = None,
    samples: ArrayLike | None = None,
    axes: Ints | None = None,
    rule: Rule = "window",
    overlapping: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Maximum over bins that are drawn at random, and the index of its cell.

        y[n, o, c] = x[n, index[n, o, c], c] = max_i x[n, i, c],
        start[o] <= i < stop[o]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float or int dtype.
        window: Cells of a bin, an int or one per axis; `None` unless `rule="window"`.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`).
        key: Random key that draws the bins; `None` if `samples` is given.
        samples: Numbers in [0, 1) that place the bins, float32 or float64, with one per
            pooled axis on the last axis; `None` if `key` is given.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        rule: "window" (bins of PyTorch), "pseudorandom" or "random" (bins of
            TensorFlow).
        overlapping: Whether a bin includes the first cell of the next; not with
            "window".

    Returns:
        `(values, indices)`, each of shape `[*batch, *output_shape, channels]`. Values
        have the dtype of `x`. Indices are int32, flat and row-major over the pooled
        axes of `x`.

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `key` and `samples` are both given or both `None`, or if `rule`
            does not accept the one given.

    Gradient:
        The cotangent of a bin goes to one cell: the first NaN, else the first maximum
        in row-major order. Integers have no gradient. Reverse and forward mode work to
        any order.

    References:
        `torch.nn.functional.fractional_max_pool2d` with `return_indices=True`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, half = jnp.asarray([3.0, 1.0, 2.0, 4.0, 0.0]), jnp.asarray([0.5])
        >>> y, index = fractional_max_pool_with_indices(x, 2, 2, samples=half, axes=0)
        >>> print(y, index)
        [3. 4.] [0 3]
    """
    call = _check(x, window, output_shape, key, samples, axes, rule, overlapping)
    with about(call.x.shape):
        check_countable("x", (dim.size for dim in call.bins.dims))
    return _drawn(pooling.extreme_with_indices, call, "max")


def fractional_avg_pool(
    x: ArrayLike,
    window: Ints | None,
    output_shape: Ints,
    *,
    key: jax.Array | None = None,
    samples: ArrayLike | None = None,
    axes: Ints | None = None,
    rule: Rule = "window",
    overlapping: bool = False,
) -> jax.Array:
    """Average over bins that are drawn at random.

        y[n, o, c] = sum_i x[n, i, c] / number of cells i,  start[o] <= i < stop[o]

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; float, int or complex dtype.
        window: Cells of a bin, an int or one per axis; `None` unless `rule="window"`.
        output_shape: Output sizes, an int per spatial axis (or one int, with `axes`).
        key: Random key that draws the bins; `None` if `samples` is given.
        samples: Numbers in [0, 1) that place the bins, float32 or float64, with one per
            pooled axis on the last axis; `None` if `key` is given.
        axes: Pooled axes, an int or ints, for other layouts. `None`: the spatial axes.
        rule: "window" (bins of PyTorch), "pseudorandom" or "random" (bins of
            TensorFlow).
        overlapping: Whether a bin includes the first cell of the next; not with
            "window".

    Returns:
        Shape `[*batch, *output_shape, channels]`, dtype of `x` (float32 for integers).

    Raises:
        ValueError: If an argument does not fit `x.shape`, or a pooled axis is empty.
        TypeError: If a dtype is not supported, or a static argument is traced.
        ValueError: If `key` and `samples` are both given or both `None`, or if `rule`
            does not accept the one given.

    Gradient:
        Linear: a cell gets the sum over its bins of cotangent / number of cells.
        Integers have no gradient. Reverse and forward mode work to any order.

    References:
        `tf.nn.fractional_avg_pool`.

    Example:
        >>> import jax.numpy as jnp
        >>> x, half = jnp.arange(7.0), jnp.asarray([0.5])
        >>> rule = "pseudorandom"
        >>> print(fractional_avg_pool(x, None, 3, samples=half, axes=0, rule=rule))
        [0.5 3.  5.5]
    """
    call = _check(
        x, window, output_shape, key, samples, axes, rule, overlapping, "number"
    )
    return _drawn(pooling.mean, call)


class _Call(NamedTuple):
    """Checked arguments. `source` is a key if `is_drawn`, else samples.

    Samples have one number per pooled axis, in the order of `given`, and broadcast to
    the other axes of `x`. `place` computes the bins of one axis.
    """

    x: jax.Array
    bins: Bins
    given: tuple[int, ...]
    place: Placing
    is_drawn: bool
    source: jax.Array


def _check(
    x: Any,
    window: Ints | None,
    output_shape: Ints,
    key: Any,
    samples: Any,
    axes: Ints | None,
    rule: Any,
    overlapping: Any,
    kinds: Kinds = "real",
) -> _Call:
    """Check the arguments that fractional pools share."""
    x = as_array(x, kinds)
    with about(x.shape):
        check_options(window, rule, overlapping)
        _check_source(key, samples, rule)
        if window is not None:
            bins, given = window_draws(x.shape, window, output_shape, axes)
        else:
            bins, given = step_draws(x.shape, output_shape, axes, overlapping)
        others = [n for axis, n in enumerate(x.shape) if axis not in given]
        if samples is not None:
            source = _as_samples(samples, (*others, len(given)))
        else:
            source = as_key(key)
    tables: dict[str, Placing] = {
        "window": (_windows,),
        "pseudorandom": (_pseudorandom, overlapping),
        "random": (_random, overlapping),
    }
    return _Call(x, bins, given, tables[rule], samples is None, source)


def check_options(window: Any, rule: Any, overlapping: Any) -> None:
    """Check that the options fit together."""
    if not isinstance(rule, str) or rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got rule={rule!r}")
    check_flag("overlapping", overlapping)
    if rule == "window" and overlapping:
        raise ValueError(
            'overlapping must be False with rule="window", where `window` decides '
            "the overlap; got overlapping=True"
        )
    if rule == "window" and window is None:
        raise ValueError('window must be given with rule="window"; got window=None')
    if rule != "window" and window is not None:
        raise ValueError(
            f'window must be None with rule="{rule}", where a bin ends at the next; '
            f"got window={window}"
        )


def _check_source(key: Any, samples: Any, rule: Rule) -> None:
    """Raise unless there is exactly one source of randomness."""
    if (key is None) == (samples is None):
        both = "neither" if key is None else "both"
        raise ValueError(f"key or samples must be given, but not both; got {both}")
    if rule == "random" and samples is not None:
        raise ValueError(
            'samples must be None with rule="random", which needs a key; '
            f"got samples={samples!r:.80}"
        )


def _as_samples(samples: Any, shape: tuple[int, ...]) -> jax.Array:
    """Samples with one axis per entry of `shape`, before they are broadcast."""
    samples = as_given("samples", samples)
    if not jnp.issubdtype(samples.dtype, np.floating) or samples.dtype.itemsize < 4:
        raise TypeError(
            f"{spelled('samples')} must be float32 or float64; "
            f"got {spelled('samples')}.dtype={samples.dtype}"
        )
    full = (1,) * (len(shape) - samples.ndim) + samples.shape
    fits = len(full) == len(shape) and full[-1] == shape[-1]
    if not fits or any(m not in (1, n) for m, n in zip(full, shape, strict=True)):
        raise ValueError(
            "samples must broadcast to the axes of x that are not pooled, then one "
            f"number per pooled axis, {shape}; got samples.shape={samples.shape}"
        )
    bounds = known_range(samples)
    if bounds is not None and not 0 <= bounds[0] <= bounds[1] < 1:
        raise ValueError(
            f"{spelled('samples')} must be at least 0 and less than 1; "
            f"got {spelled('samples')} from {bounds[0]} to {bounds[1]}"
        )
    return jnp.asarray(samples).reshape(full)


def as_key(key: Any, name: str = "key") -> jax.Array:
    """One random key, typed or raw."""
    try:
        given = as_given(name, key)
        if jax.eval_shape(_typed, given).shape == ():
            return jnp.asarray(given)
    except (TypeError, ValueError):
        pass
    raise TypeError(
        f"{name} must be one random key, as from jax.random.key; got {name}={key!r:.80}"
    )


def _typed(key: jax.Array) -> jax.Array:
    """The key as a typed key."""
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key)


def _windows(dim: AxisBins, u: jax.Array) -> Table:
    """Bins of PyTorch, computed in the dtype of the sample, as PyTorch does."""
    length, last = dim.cells[0], dim.size - dim.cells[0]
    o = numbers(dim.out)
    alpha = np.asarray(last, u.dtype) / np.asarray(max(dim.out - 1, 1), u.dtype)
    places = ((o.astype(u.dtype) + u) * alpha).astype(np.int32)
    starts = jnp.clip(places - (u * alpha).astype(np.int32), 0, last)
    starts = jnp.where(o == dim.out - 1, np.int32(last), starts)
    return starts, starts + np.int32(length)


def _pseudorandom(overlapping: bool, dim: AxisBins, u: jax.Array) -> Table:
    """Bins of TensorFlow start at `ceil(size / out * (o + v)) - 1`, in integers.

    `u` is a fraction of the largest `v` for which bins have `size // out` cells or one
    more.
    """
    more = dim.size % dim.out
    shifts = min(2 * dim.out - more, dim.out + more)  # the largest size * v
    shift = jnp.ceil(u * np.asarray(shifts, u.dtype)).astype(np.int32) - 1
    shift = jnp.clip(shift, 0, shifts - 1)
    o = numbers(dim.out + 1)
    wholes, rests = divided(dim.out + 1, dim.size, 0, dim.out)
    edges = jnp.where(o == 0, np.int32(0), wholes + (rests + shift) // dim.out)
    edges = jnp.where(o == dim.out, np.int32(dim.size), edges)
    return _reaching(overlapping, dim, edges[:-1], edges[1:])


def _random(overlapping: bool, dim: AxisBins, key: jax.Array) -> Table:
    """Bins of `size // out` cells; the rest of the cells make some bins longer by 1."""
    least, more = divmod(dim.size, dim.out)
    ordered = (numbers(dim.out) < more).astype(np.int32) + np.int32(least)
    lengths = jax.random.permutation(key, ordered)
    ends = jnp.cumsum(lengths)
    return _reaching(overlapping, dim, ends - lengths, ends)


def _reaching(
    overlapping: bool, dim: AxisBins, starts: jax.Array, ends: jax.Array
) -> Table:
    """The bins, or with `overlapping` each with the first cell of the next."""
    return starts, jnp.minimum(ends + np.int32(overlapping), np.int32(dim.size))


def _drawn(function: Callable[..., Result], call: _Call, *options: Any) -> Result:
    """Call a function of `pooling` with drawn bins."""
    x, bins, given, place, is_drawn, source = call
    geometry = Sizes.of_all(x.shape, bins.axes, bins.outs)
    static = function, options, bins, given, place, is_drawn
    return enter(_pooled, static, geometry, x, source)


def _pooled(static: tuple[Any, ...], x: jax.Array, source: jax.Array) -> Any:
    """Call the function once for all axes that have the same draws."""
    function, options, bins, given, (place, *own), is_drawn = static
    others = [axis for axis in range(x.ndim) if axis not in given]
    draws = source
    if is_drawn and place is _random:
        draws = jax.random.split(_typed(source), len(given))
    elif is_drawn:
        each = [x.shape[axis] for axis in others] if place is _windows else []
        draws = jax.random.uniform(_typed(source), (*each, len(given)), np.float32)
    mapped = [a for a, n in zip(others, draws.shape[:-1], strict=False) if n != 1]
    draws = draws.reshape([n for n in draws.shape[:-1] if n != 1] + [len(given)])
    kept = [axis for axis in range(x.ndim) if axis not in mapped]
    inner = replace(bins, axes=tuple(kept.index(axis) for axis in bins.axes))

    def pooled(x: jax.Array, draws: jax.Array) -> Any:
        tables = tuple(
            place(*own, dim, draws[given.index(axis)])
            for axis, dim in zip(bins.axes, bins.dims, strict=True)
        )
        return function(Call(x, inner, tables=tables, both_modes=True), *options)

    front = range(len(mapped))
    for _ in mapped:
        pooled = jax.vmap(pooled)
    result = pooled(jnp.moveaxis(x, mapped, front), draws)
    return jax.tree.map(lambda a: jnp.moveaxis(a, front, mapped), result)
