"""The sum of each window, and how many cells it holds.

The sum is linear: it is its own derivative, and `spread` is its gradient, to any order.
"""

import math
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines import native, symbolic
from jaxpool.engines.linear import linear
from jaxpool.engines.lowering import (
    GPUS,
    PLATFORMS,
    TPUS,
    Implementation,
    Lowerings,
    dispatch,
    dispatch_at_once,
    is_doubling,
    is_portable,
    on_platform,
    portable,
    portably,
    xla_reduce_window,
)
from jaxpool.engines.numbers import LONG, is_known, numbers
from jaxpool.engines.routes import spread
from jaxpool.engines.slices import reduce_steps, widened
from jaxpool.engines.stages import Arrays, Deferred, ready
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.steps import forward_steps
from jaxpool.geometry.window import Window


class _Config(NamedTuple):
    """What is static about a call."""

    window: Window
    accumulator: np.dtype
    result: np.dtype
    implementation: Implementation | None


class _Known(NamedTuple):
    """What the sum of each window is not linear in."""

    mask: jax.Array | None
    divisors: Arrays


def window_sum(
    x: jax.Array,
    mask: jax.Array | None,
    divisors: Arrays,
    window: Window,
    accumulator: np.dtype,
    result: np.dtype,
    implementation: Implementation | None,
) -> jax.Array:
    """Sum of each window, divided by the product of `divisors`, which broadcast.

    It is accumulated in one dtype and returned in another. Padded cells count as 0, as
    do those that are not in `mask`, which broadcasts to the shape of `x`.
    """
    config = _Config(window.clipped(), accumulator, result, implementation)
    known = _Known(mask, divisors)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return _sums(config, known, x)
    back = partial(_spread_out, config, x.dtype)
    with portably(implementation):
        sums: jax.Array = linear(partial(_sums, config), back, known, x)
    return sums


@portable
def _sums(config: _Config, known: _Known, x: jax.Array) -> jax.Array:
    mask, divisors = known
    window, accumulator, result, implementation = config
    zero = np.zeros((), accumulator)

    def cells(x: jax.Array, mask: jax.Array | None) -> Arrays:
        return (widened(kept(x, mask), accumulator),)

    def quotient(sums: jax.Array, *divisors: jax.Array) -> Arrays:
        if not divisors:
            return (sums.astype(result),)
        sums = sums.astype(divisors[0].dtype)
        return (divide(sums, reduce(jnp.multiply, divisors)).astype(result),)

    def passes(doubling: bool, x: jax.Array, mask: Any, *divisors: Any) -> jax.Array:
        steps = forward_steps(window, doubling)
        sums = reduce_steps(lax.add, Deferred(cells, (x, mask)), zero, steps)
        (quotients,) = sums.beside(ready(*divisors)).then(quotient).now()
        return quotients  # type: ignore[no-any-return]

    def in_one(x: jax.Array, mask: Any, *divisors: Any) -> jax.Array:
        sums = xla_reduce_window(cells(x, mask)[0], zero, lax.add, window)
        if is_portable() and any(dim.may_miss for dim in window.dims):
            # XLA of jax 0.10 takes the cotangent of a window of padding only for that
            # of the one cell of its axis.
            some = math.prod(counts(window, x.ndim, False)) > 0
            sums = jnp.where(some, sums, zero)
        quotients: jax.Array = quotient(sums, *divisors)[0]
        return quotients

    def last_first(x: jax.Array, mask: Any, *divisors: Any) -> jax.Array:
        sums = native.total(window, accumulator, bool(divisors), kept(x, mask))
        quotients: jax.Array = quotient(sums, *divisors)[0]
        return quotients

    def reduce_window(*arrays: Any) -> jax.Array:
        if window.is_symbolic:
            return in_one(*arrays)
        ways = dict.fromkeys(PLATFORMS, last_first)
        ways |= dict.fromkeys((*GPUS, "any"), in_one)
        quotients: jax.Array = on_platform(ways, *arrays)
        return quotients

    lowerings: Lowerings = {
        "reduce_window": reduce_window,
        "slices": partial(passes, False),
        "doubling": partial(passes, True),
    }
    sums: jax.Array = dispatch(lowerings, window, implementation, x, mask, *divisors)
    return sums


def _spread_out(
    config: _Config, dtype: np.dtype, known: _Known, g: jax.Array
) -> jax.Array:
    """The cotangent of the input, of `dtype`, from that of the result."""
    mask, divisors = known
    window, implementation = config.window, config.implementation
    doubling = is_doubling(window, implementation)

    def shares(g: jax.Array, *divisors: jax.Array) -> Arrays:
        wide = g.astype(config.accumulator)
        return (wide / reduce(jnp.multiply, divisors) if divisors else wide,)

    def narrowed(cells: jax.Array, mask: jax.Array | None) -> Arrays:
        return (kept(cells.astype(dtype), mask),)

    def in_steps(g: jax.Array, mask: Any, *divisors: jax.Array) -> jax.Array:
        each = Deferred(shares, (g, *divisors))
        each = each.stored() if g.dtype.itemsize < 4 else each
        arrived = spread(each, window, doubling)
        (result,) = arrived.beside(ready(mask)).then(narrowed).now()
        return result  # type: ignore[no-any-return]

    def at_once(g: jax.Array, mask: Any, *divisors: jax.Array) -> jax.Array:
        (each,) = shares(g, *divisors) if divisors else (g,)
        arrived = native.spread(window, config.accumulator, each)
        (result,) = narrowed(arrived, mask)
        return result  # type: ignore[no-any-return]

    ways = in_steps, at_once
    pays = not window.is_symbolic
    result: jax.Array = dispatch_at_once(
        TPUS, pays, implementation, *ways, g, mask, *divisors
    )
    return result


def kept(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`x` with zeros where it does not take part."""
    return x if mask is None else jnp.where(mask, x, np.zeros((), x.dtype))


def counts(window: Window, rank: int, include_pad: bool) -> list[Any]:
    """Cells in each window as one factor per pooled axis, of a shape that broadcasts.

    So no constant in a program is as large as its arrays, or as a long axis.

    With `include_pad`, the padding that was asked for counts too. An axis on which
    all windows hold the same number of cells has a factor of size 1.
    """
    factors: list[Any] = []
    for axis, dim in zip(window.axes, window.dims, strict=True):
        if is_symbolic(dim.size):
            factors.append(symbolic.counts(axis, dim, rank, include_pad))
            continue
        ends = np.asarray([0, dim.out - 1])
        if dim.out > LONG and (dim.counts(ends, include_pad) == dim.window).all():
            cells = np.asarray([dim.window])  # then windows between them are full too
        else:
            cells = dim.counts(numbers(dim.out), include_pad)
        if is_known(cells) and (cells == cells[0]).all():
            cells = cells[:1]
        shape = [-1 if a == axis else 1 for a in range(rank)]
        factors.append(cells.astype(np.int32).reshape(shape))
    return factors


@jax.custom_jvp
def divide(sums: jax.Array, number: jax.Array) -> jax.Array:
    """`sums / number`, rounded once, also where `number` is known when compiling.

    XLA replaces the division by a constant with the product with its reciprocal,
    which makes 77/7 11.000001; a number that hangs on the data it cannot replace.
    """
    return sums / jnp.where(sums == sums, number, jnp.ones_like(number))


@divide.defjvp
def _divide_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, Any]
) -> tuple[jax.Array, jax.Array]:
    """The number is constant; it divides the tangent of a sum that is NaN, too."""
    (sums, number), (t, _) = primals, tangents
    return divide(sums, number), t / number
