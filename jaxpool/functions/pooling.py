"""What each pool computes, once its domain is resolved.

Between the public functions, which know how users spell things, and the aggregations:
dtypes, divisors and outputs without a valid cell are handled here, the same for all
domains.
"""

import math
import operator
from functools import partial, reduce
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations import dtypes, integers
from jaxpool.aggregations.biased import biased_average
from jaxpool.aggregations.call import Call
from jaxpool.aggregations.dtypes import INT32
from jaxpool.aggregations.extremes import extremum, indexed_extremum
from jaxpool.aggregations.forward_mode import explaining
from jaxpool.aggregations.joined import joined
from jaxpool.aggregations.logsumexp import kept_logits, log_sum_exp
from jaxpool.aggregations.moments import moments
from jaxpool.aggregations.norms import Norm, sizes_of
from jaxpool.aggregations.powers import by_logs
from jaxpool.aggregations.ranks import Ranks, ranked
from jaxpool.aggregations.softmax import is_uniform, scaled, scaled_logits, weighted
from jaxpool.aggregations.sums import cells_read, counts, kept, ones, window_sum
from jaxpool.aggregations.winners import Kind
from jaxpool.engines.numbers import is_known
from jaxpool.functions.entry import compiled_once
from jaxpool.geometry.links import Links, Segments
from jaxpool.geometry.window import Window

# Below, the number of cells to the power 1 / p may overflow: 2**31 cells have 2**124.
LEAST_OF_NORMS = 0.25


@explaining
@compiled_once
def extreme(call: Call, kind: Kind) -> jax.Array:
    """Maximum or minimum of each output, in the dtype of `x`."""
    pooled = extremum(call, kind)  # `empty` where a mask keeps no cell
    return _fill_empty(pooled, call, None)


@compiled_once
def extreme_with_indices(call: Call, kind: Kind) -> tuple[jax.Array, jax.Array]:
    """The same, and the flat index over the pooled axes; -1 where there is none."""
    values, indices = indexed_extremum(call, kind)
    nowhere = call._replace(empty=np.asarray(-1, indices.dtype))
    return _fill_empty(values, call, None), _fill_empty(indices, nowhere, None)


@compiled_once
def total(call: Call) -> jax.Array:
    """Sum of each output, in the dtype of `x`."""
    dtype = call.x.dtype
    sums = window_sum(call, dtypes.summed(dtype), dtype)
    if call.empty == 0:  # as they are
        return sums
    return _fill_empty(sums, call, _valid_count(call))


@compiled_once
def mean(
    call: Call, count_include_pad: bool = False, divisor: float | None = None
) -> jax.Array:
    """Average of each output, in the dtype of `x`, of integers in float32."""
    x, over, rank = call.x, call.over, call.x.ndim
    dtype = dtypes.averaged(x.dtype)
    wide = dtypes.summed(dtype)
    valid = _valid_count(call)
    if integers.needs_digits(x.dtype, over.cells):
        number = _cell_count(valid, call, count_include_pad)

        def total(x: jax.Array) -> jax.Array:
            return window_sum(call._replace(x=x), x.dtype, x.dtype)

        averages = integers.average(total, x, over.cells, number, divisor)
    else:
        if divisor is not None:
            numbers: tuple[Any, ...] = (np.full((1,) * rank, divisor, wide),)
        elif valid is None:
            factors = counts(over, call.tables, rank, count_include_pad)
            numbers = tuple(factor.clip(1).astype(wide) for factor in factors)
        else:
            numbers = (_cell_count(valid, call, count_include_pad).astype(wide),)
        accumulator = dtypes.averaging(x.dtype, over.cells)
        averages = window_sum(call, accumulator, dtype, numbers)
    return averages if call.empty == 0 else _fill_empty(averages, call, valid)


@explaining
@compiled_once
def norm(call: Call, p: float | None = None) -> jax.Array:
    """p-norm of each output, in the dtype of `x`, of integers in float32.

    The order is `p`, or the array `call.arrays`.
    """
    x, over = kept(call.x, call.mask), call.over
    x = x.astype(dtypes.averaged(x.dtype))
    wide = dtypes.summed(x.dtype)
    inner = call._replace(x=x, mask=None, arrays=None, empty=np.zeros(()))
    if p is None:
        sizes = sizes_of(_Unread(call).zeroed(x), wide)
        norms = by_logs(inner, sizes, call.arrays.astype(wide)).astype(x.dtype)
    elif math.isinf(p):
        x = _Unread(call).ignored(x)
        norms = extremum(inner._replace(x=sizes_of(x, x.dtype)), "max")
    elif p == 1 or (not over.is_symbolic and over.cells == 1):
        sizes = sizes_of(_Unread(call).ignored(x), wide)
        norms = window_sum(inner._replace(x=sizes), wide, x.dtype)
    else:
        norms = joined(Norm(wide, p), inner)
    return _fill_empty(norms, call, _valid_count(call))


@compiled_once
def logsumexp(call: Call, mean: bool = False) -> jax.Array:
    """Log-sum-exp of each output, in the dtype of `x`, of integers in float32.

    It is that of `call.arrays * x`, divided by `call.arrays`, if these are given.
    """
    x, scale, valid = call.x, call.arrays, _valid_count(call)
    dtype = dtypes.averaged(x.dtype)
    if scale is not None or mean:
        wide = dtypes.summed(dtype)
        x = x.astype(wide)
        x = x if scale is None else scaled(x, scale.astype(wide))
    pooled = log_sum_exp(call, x.astype(dtypes.infinite(dtypes.averaged(x.dtype))))
    if mean:
        count = _cell_count(valid, call, False)
        pooled = pooled - jnp.log(jnp.asarray(count, pooled.dtype))
    if scale is not None:
        scale = scale.astype(pooled.dtype)
        is_finite = ~jnp.isinf(pooled)  # infinity has no derivative by the scale
        inner = jnp.where(is_finite, pooled, np.zeros((), pooled.dtype)) / scale
        pooled = jnp.where(is_finite, inner, lax.stop_gradient(pooled / scale))
    return _fill_empty(pooled.astype(dtype), call, valid)


@compiled_once
def softmax(call: Call) -> jax.Array:
    """Average with softmax weights, in the dtype of `x`, of integers in float32."""
    given, scale, bias = call.arrays
    dtype = dtypes.averaged(call.x.dtype)
    wide = call.x.astype(dtypes.summed(dtype))  # once: both its gradients add up wide
    unread = _Unread(call)
    wide = unread.ignored(wide)
    logits = wide if given is None else unread.ignored(given.astype(wide.dtype))
    if scale is not None:
        logits = scaled_logits(logits, scale.astype(wide.dtype), call)
    logits = unread.ignored(jnp.broadcast_to(logits, wide.shape))
    x = kept(wide, call.mask)
    by, logits = kept_logits(call, logits)
    if bias is not None and isinstance(call.over, Window):
        most, pooled = biased_average(logits, x, bias, call.over)
    else:
        most, pooled = weighted(by, logits, call._replace(x=x))
    if given is None and is_uniform(scale, call):
        # All cells are infinite where the largest of their own logits is -inf.
        sign = np.ones((), wide.dtype) if scale is None else jnp.sign(scale)
        limit = lax.stop_gradient(most * sign.astype(most.dtype))
        pooled = jnp.where(most == -np.inf, limit, pooled)
    return _fill_empty(pooled.astype(dtype), call, _valid_count(call))


@compiled_once
def weighted_mean(call: Call) -> jax.Array:
    """Average with the weights `call.arrays`; empty where they add up to 0."""
    dtype = dtypes.averaged(call.x.dtype)
    wide = dtypes.summed(dtype)
    unread = _Unread(call)
    weights = unread.ignored(jnp.broadcast_to(call.arrays.astype(wide), call.x.shape))
    x = unread.ignored(kept(call.x, call.mask).astype(wide))
    number = window_sum(call._replace(x=weights), wide, wide)
    total = window_sum(call._replace(x=x * weights), wide, wide)
    is_empty = number == 0
    pooled = total / jnp.where(is_empty, np.ones((), wide), number)
    return jnp.where(is_empty, call.empty, pooled.astype(dtype))


@explaining
@compiled_once
def power_mean(call: Call, eps: float | None, p: float | None = None) -> jax.Array:
    """Power mean of each output; the exponent is `p`, or the array `call.arrays`."""
    x, valid, exponent = call.x, _valid_count(call), call.arrays
    dtype = dtypes.averaged(x.dtype)
    wide = dtypes.summed(dtype)
    x = kept(x, call.mask).astype(wide)
    x = _Unread(call).zeroed(x) if p is None else _Unread(call).ignored(x)
    if eps is None:
        sizes = sizes_of(x, wide)
    else:
        least = np.asarray(eps, wide)
        sizes = jnp.where(x <= least, least, x)  # no gradient to a cell that ties
    if p is None or p < LEAST_OF_NORMS:
        power = exponent.astype(wide) if p is None else np.asarray(p, wide)
        means = by_logs(call, sizes, power, _cell_count(valid, call, False))
        return _fill_empty(means.astype(dtype), call, valid)
    inner = call._replace(x=kept(sizes, call.mask), mask=None, empty=np.zeros((), wide))
    pooled = norm(inner, p)
    if not math.isinf(p):
        count = jnp.asarray(_cell_count(valid, call, False), wide)
        pooled = pooled / count ** np.asarray(1 / p, wide)
    return _fill_empty(pooled.astype(dtype), call, valid)


@compiled_once
def variance(call: Call, ddof: int, eps: float | None = None) -> jax.Array:
    """Variance of each output; empty where there are not more than `ddof` cells.

    With `eps`, the root of their sum; the gradient of a root of 0 is 0.
    """
    _check_form(call)
    dtype = dtypes.averaged(call.x.dtype)
    is_long = call.x.dtype.kind in "iu" and call.x.dtype.itemsize == 8
    wide = np.dtype(np.float64) if is_long else dtypes.summed(dtype)
    found = moments(call._replace(x=_Unread(call).ignored(call.x)), wide)
    number = found.weight - np.asarray(ddof, wide)
    one, zero = np.ones((), wide), np.zeros((), wide)
    # Rounding may give less than 0. A maximum would halve derivatives at 0.
    less = jnp.where(found.squares < 0, found.squares, zero)
    squares = found.squares - lax.stop_gradient(less)
    pooled = squares / jnp.where(number > 0, number, one)
    if eps is not None:
        pooled = pooled + np.asarray(eps, wide)
        is_zero = pooled == 0
        pooled = jnp.where(is_zero, zero, jnp.sqrt(jnp.where(is_zero, one, pooled)))
    return _fill_empty(pooled.astype(dtype), call, number)


@compiled_once
def quantile(call: Call, q: float) -> jax.Array:
    """The quantile of each output, between two cells by linear interpolation."""
    ranks = Ranks(q=q)
    (low, high), number = _ranked(call, ranks)
    last = jnp.maximum(number - np.int32(1), np.int32(0))
    place = ranks.place(last, low.dtype)
    part = place - jnp.floor(place)
    more = jnp.where(part > 0, high, np.zeros((), high.dtype))  # which may be inf
    pooled = low * (1 - part) + more * part
    return _fill_empty(pooled.astype(dtypes.averaged(call.x.dtype)), call, number)


@compiled_once
def top_mean(call: Call, k: int) -> jax.Array:
    """The mean of the `k` largest cells of each output, or of all if they are fewer."""
    values, number = _ranked(call, Ranks(k))
    count = jnp.clip(number, 1, k).astype(values[0].dtype)
    pooled = reduce(operator.add, values) / count
    return _fill_empty(pooled.astype(dtypes.averaged(call.x.dtype)), call, number)


def _ranked(call: Call, ranks: Ranks) -> tuple[list[jax.Array], jax.Array]:
    """Cells by their ranks, in the dtype of sums; and how many cells count."""
    _check_form(call)
    x = call.x.astype(dtypes.averaged(call.x.dtype))
    values, number = ranked(ranks, call._replace(x=x))
    return [value.astype(dtypes.summed(x.dtype)) for value in values], number


def _check_form(call: Call) -> None:
    """Refuse what aggregations that need all cells of a window at once cannot do."""
    if call.over.is_symbolic or call.implementation is not None:
        raise NotImplementedError(
            "variances, medians, quantiles and means of the largest cells have one "
            "form, which needs known sizes of pooled axes and implementation=None; got "
            f"implementation={call.implementation!r} for x.shape={call.x.shape}"
        )


def _cell_count(valid: jax.Array | None, call: Call, include_pad: bool) -> Any:
    """How many cells each output counts, at least 1; broadcasts to the result."""
    each = partial(counts, call.over, call.tables, call.x.ndim)
    count = math.prod(each(include_pad))
    if valid is None:
        return count.clip(1)
    if include_pad:  # masked cells do not count, padded ones do
        valid = valid + (count - math.prod(each(False)))
    return jnp.maximum(valid, np.ones((), valid.dtype))


def _valid_count(call: Call) -> jax.Array | None:
    """How many unmasked cells each output has; broadcasts to the result."""
    if call.mask is None:
        return None
    shape = list(call.mask.shape)
    for axis in call.over.axes:
        shape[axis] = call.x.shape[axis]
    cells = jnp.broadcast_to(call.mask, shape)
    return window_sum(call._replace(x=cells, mask=None), INT32, INT32)


def _occupied(call: Call) -> list[Any]:
    """More than 0 where an output has a cell, as a factor for each pooled axis."""
    over, rank = call.over, call.x.ndim
    is_sorted = isinstance(over, Segments) and over.are_sorted
    if not isinstance(over, Links) or is_sorted:
        return counts(over, call.tables, rank, False)
    cells = ones(over, rank, np.uint8)  # a maximum of bytes is faster than a sum
    no_cell = np.zeros((), np.uint8)
    return [extremum(Call(cells, over, empty=no_cell, tables=call.tables), "max")]


class _Unread:
    """Cells that no output reads. What they hold, such as NaN, must reach no gradient.

    Their cotangents are 0, but 0 times NaN is NaN.
    """

    def __init__(self, call: Call) -> None:
        self._read = cells_read(call)

    def ignored(self, x: jax.Array) -> jax.Array:
        """`x`, with derivatives of 0 at these cells."""
        if self._read is None:
            return x
        return jnp.where(self._read, x, lax.stop_gradient(x))

    def zeroed(self, x: jax.Array) -> jax.Array:
        """`x`, with zeros in these cells."""
        return kept(x, self._read)


def _fill_empty(pooled: jax.Array, call: Call, valid: jax.Array | None) -> jax.Array:
    """Put `empty` where an output has no valid cell."""
    over = call.over
    chex.assert_axis_dimension(pooled, over.axes[0], over.dims[0].out)
    if valid is not None:
        return jnp.where(valid > 0, pooled, call.empty)
    factors = _occupied(call)
    misses = (dim.may_miss for dim in over.dims)
    pairs = zip(factors, misses, strict=True)
    filled = [factor > 0 for factor, may_miss in pairs if may_miss]
    if all(is_known(some) and some.all() for some in filled):
        return pooled
    return jnp.where(reduce(operator.and_, filled), pooled, call.empty)
