"""The p-norm of each window, from the largest size in it and the ratios to that.

Or, by XLA's own windows, cell by cell from the ratio of the smaller to the larger. What
a cell has of the norm of its window is a ratio of the two as well, so no power of a
size can overflow, here or in the derivatives. They go through the steps of the norm, or
back in one loop.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.engines import native
from jaxpool.engines.linear import linear
from jaxpool.engines.lowering import (
    AT_ONCE,
    GPUS,
    Implementation,
    back_at_once,
    dispatch_at_once,
    is_doubling,
    own_windows,
    portable,
    xla_reduce_window,
)
from jaxpool.engines.routes import Place, add_back
from jaxpool.engines.slices import (
    Cell,
    Dims,
    Windows,
    dims_of,
    fold,
    of_windows,
    reduce_step,
    seen,
)
from jaxpool.engines.stages import Arrays, Deferred, ready
from jaxpool.engines.symbolic import reduce_cells
from jaxpool.geometry.sizes import is_symbolic
from jaxpool.geometry.steps import Step, norm_steps
from jaxpool.geometry.window import Window

T = TypeVar("T")
_ZERO = np.zeros(())


class _Config(NamedTuple):
    """What is static about a call: it computes in one dtype, and returns another."""

    p: float
    window: Window
    implementation: Implementation | None
    accumulator: np.dtype
    result: np.dtype


class _Edge(NamedTuple):
    """What a step joins, and what it makes: two arrays, and their numbers."""

    step: Step
    source: int
    target: int
    sizes: jax.Array
    norms: jax.Array


def window_norm(
    p: float,
    x: jax.Array,
    window: Window,
    accumulator: np.dtype,
    implementation: Implementation | None,
) -> jax.Array:
    """p-norm of each window in the dtype of `x`, computed in `accumulator`."""
    if window.is_symbolic and not is_symbolic(window.cells):
        cells = partial(reduce_cells, partial(_join, p), window=window)
        kept = jax.checkpoint(cells, prevent_cse=False)  # the sizes, not each step
        sizes = sizes_of(x, accumulator)
        norms: jax.Array = kept(sizes, init=np.zeros((), accumulator))
        return norms.astype(x.dtype)
    config = _Config(p, window.clipped(), implementation, accumulator, x.dtype)
    pooled: jax.Array = _norms(config, x)
    return pooled


def sizes_of(x: jax.Array, dtype: np.dtype) -> jax.Array:
    """Absolute values, with gradient 0 at 0."""
    wide = x.astype(dtype)
    return wide * lax.stop_gradient(lax.sign(wide))


def _signed(x: jax.Array, t: jax.Array) -> jax.Array:
    """`t` with the sign of `x`; 0 where `x` is 0, and where no window reads a NaN.

    A product, in which `t` is computed once: a GPU is slower with a selection of two.
    """
    sign = jnp.where(x < 0, np.asarray(-1, t.dtype), np.asarray(1, t.dtype))
    return jnp.where(x == 0, jnp.zeros_like(t), t * sign)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
@portable
def _norms(config: _Config, x: jax.Array) -> jax.Array:
    p, window, implementation, accumulator, result = config

    def in_steps(x: jax.Array) -> jax.Array:
        sizes = sizes_of(x, accumulator)
        return _chain(config, _steps(config), sizes)[-1].astype(result)

    def at_once(x: jax.Array) -> jax.Array:
        sizes, none = sizes_of(x, accumulator), np.zeros((), accumulator)
        norms: jax.Array = xla_reduce_window(sizes, none, partial(_join, p), window)
        return norms.astype(result)

    if window.is_symbolic:
        return at_once(x)
    # The compiler for TPU v6e ends the process where it cannot tell what `_join` costs.
    ways, there = (in_steps, at_once), set(GPUS) & set(own_windows(window))
    norms: jax.Array = dispatch_at_once(sorted(there), True, implementation, *ways, x)
    return norms


@_norms.defjvp
@portable
def _norms_jvp(
    config: _Config, primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (t,) = primals, tangents
    norms = _norms(config._replace(result=config.accumulator), x)
    functions = partial(_gathered, config), partial(_handed_out, config)
    return norms.astype(config.result), linear(*functions, (x, norms), t)


def _gathered(
    config: _Config, known: tuple[jax.Array, jax.Array], t: jax.Array
) -> jax.Array:
    """For each window the sum of the tangents in it, each times its cell's share."""
    (x, norms), wide = known, config.accumulator
    sizes, t = sizes_of(x, wide), _signed(x, t).astype(wide)
    if config.window.is_symbolic:
        shares = _part(config.p, sizes, norms, t)
        summed = shares.sum(config.window.axes, keepdims=True, dtype=wide)
        return summed.astype(config.result)
    found = {0: t}
    for edge in _edges(config, sizes, norms):
        t = found[edge.source]
        more = _shared(config.p, edge.step, t, edge.sizes, edge.norms)
        found[edge.target] = _sum(found.get(edge.target), more)
    return found[max(found)].astype(config.result)


def _handed_out(
    config: _Config, known: tuple[jax.Array, jax.Array], g: jax.Array
) -> jax.Array:
    """For each cell the sum of its shares of the cotangents of its windows."""
    p, window, implementation, accumulator, _ = config

    def in_steps(x: jax.Array, norms: jax.Array, g: jax.Array) -> jax.Array:
        edges = _edges(config, sizes_of(x, accumulator), norms)
        last = edges[-1].target if edges else 0
        found = {last: g.astype(accumulator)}
        for edge in reversed(edges):
            windows = ready(found[edge.target], edge.norms)
            told = partial(_told_back, p)
            (more,) = add_back(edge.step, told, windows, ready(edge.sizes)).now()
            found[edge.source] = _sum(found.get(edge.source), more)
        return _signed(x, found[0]).astype(x.dtype)

    def at_once(x: jax.Array, norms: jax.Array, g: jax.Array) -> jax.Array:
        told = partial(_told_once, p)
        # Of norms split unevenly along two axes, XLA's partitioner of jax 0.10 makes
        # programs that do not compile, if it sees that they are results too.
        norms = lax.optimization_barrier(norms)
        return native.from_windows(window, x.dtype, told, (norms, g), (x,))

    if window.is_symbolic:
        x, norms = known
        return _told_once(p, (), norms, g, x).astype(x.dtype)
    pays, ways = native.selects(window) <= AT_ONCE, (in_steps, at_once)
    there = back_at_once(window)
    handed: jax.Array = dispatch_at_once(there, pays, implementation, *ways, *known, g)
    return handed


def _shared(
    p: float, step: Step, t: jax.Array, sizes: jax.Array, norms: jax.Array
) -> jax.Array:
    """The tangent of each norm of a step, from those of the sizes."""
    dims = dims_of(step)

    def told(cell: Cell, windows: Windows, *arrays: jax.Array) -> jax.Array:
        t, sizes = (seen(array, dims, cell, windows) for array in arrays[:2])
        return _part(p, sizes, of_windows(arrays[2], dims, windows), t)

    (tangent,) = fold(lax.add, told, _ZERO, dims, ready(t, sizes, norms)).now()
    return tangent  # type: ignore[no-any-return]


def _told_back(
    p: float, place: Place, g: jax.Array, norms: jax.Array, sizes: jax.Array
) -> jax.Array:
    """What each cell gets from one of the windows that cover it."""
    return place.only(_part_back(p, sizes, norms, g))


def _told_once(
    p: float, _: Any, norms: jax.Array, g: jax.Array, x: jax.Array
) -> jax.Array:
    """What each cell gets from a window that covers it, in one piece."""
    wide = x.astype(norms.dtype)
    share = _part_back(p, jnp.abs(wide), norms, g.astype(norms.dtype))
    return jnp.where(wide < 0, -share, share)


def _sum(one: jax.Array | None, other: jax.Array) -> jax.Array:
    return other if one is None else one + other


def _edges(config: _Config, sizes: jax.Array, norms: jax.Array) -> list[_Edge]:
    """The steps from the sizes to the norms, one after the other."""
    steps = _steps(config)
    arrays = [*_chain(config, steps[:-1], sizes), norms]
    start, edges = 0, []
    for number, step in enumerate(steps):
        start = number if step.begins else start
        for part, source in _parts(step, number, start):
            edge = part, source, number + 1, arrays[source], arrays[number + 1]
            edges.append(_Edge(*edge))
    return edges


def _steps(config: _Config) -> list[Step]:
    doubling = is_doubling(config.window, config.implementation)
    return norm_steps(config.window, doubling)


def _parts(step: Step, runs: T, singles: T) -> list[tuple[Step, T]]:
    """What a step joins: its runs, and the single cells that lie beside them."""
    if step.rest is None:
        return [(step, runs)]
    return [(step, runs), (replace(step, dims=(step.rest,), rest=None), singles)]


def _chain(config: _Config, steps: Sequence[Step], sizes: jax.Array) -> list[jax.Array]:
    """The sizes, and what each step makes of what is before it."""
    made, start = [sizes], sizes
    for step in steps:
        start = made[-1] if step.begins else start
        made.append(_step_norms(config, step, made[-1], start))
    return made


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@portable
def _step_norms(
    config: _Config, step: Step, runs: jax.Array, singles: jax.Array
) -> jax.Array:
    """The norms of what a step joins, from the largest, and the ratios to it."""
    p, known = config.p, (ready(runs), ready(singles))
    most = reduce_step(lax.max, *known, _ZERO, step)

    def powers(dims: Dims, *told: Any) -> jax.Array:
        cell, windows, sizes, most = told
        most = of_windows(most, dims, windows)
        ratio = seen(sizes, dims, cell, windows) / jnp.where(_is_alone(most), 1, most)
        return ratio * ratio if p == 2 else ratio**p

    totals = []
    for part, cells in _parts(step, *known):
        dims = dims_of(part)
        told = partial(powers, dims)
        totals.append(fold(lax.add, told, _ZERO, dims, cells.beside(most)))

    def norms(most: jax.Array, *totals: jax.Array) -> Arrays:
        total = reduce(lax.add, totals)
        root = jnp.sqrt(total) if p == 2 else total ** (1 / p)
        return (jnp.where(_is_alone(most), most, most * root),)

    (made,) = reduce(Deferred.beside, totals, most).then(norms).now()
    return made  # type: ignore[no-any-return]


def _is_alone(size: jax.Array) -> jax.Array:
    """Whether a norm of which this is the largest size is just that."""
    return (size == 0) | jnp.isinf(size)


@_step_norms.defjvp
@portable
def _step_norms_jvp(
    config: _Config,
    step: Step,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    norms = _step_norms(config, step, *primals)
    each = _parts(step, *zip(primals, tangents, strict=True))
    shares = (_shared(config.p, part, t, sizes, norms) for part, (sizes, t) in each)
    return norms, reduce(lax.add, shares)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _join(p: float, one: jax.Array, other: jax.Array) -> jax.Array:
    """p-norm of two sizes, from their ratio."""
    most, least = lax.max(one, other), lax.min(one, other)
    alone = (least == 0) | jnp.isinf(most)
    ratio = least / jnp.where(alone, jnp.ones_like(most), most)
    joined = jnp.sqrt(1 + ratio * ratio) if p == 2 else (1 + ratio**p) ** (1 / p)
    return jnp.where(alone, most, most * joined)


@_join.defjvp
def _join_jvp(
    p: float,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    norm = _join(p, *primals)
    pairs = zip(primals, tangents, strict=True)
    one, other = (_part(p, size, norm, t) for size, t in pairs)
    return norm, one + other


def _part_back(p: float, size: jax.Array, norm: jax.Array, g: jax.Array) -> jax.Array:
    """What a size gets of the cotangent of a norm; 0 of 0, even if the norm is NaN.

    A cotangent inside a chain may be 0 and have a derivative: others cancel.
    """
    part = _part(p, size, norm, g)
    return jnp.where((g == 0) & (part != part), jnp.zeros_like(part), part)


def _part(p: float, size: jax.Array, norm: jax.Array, t: jax.Array) -> jax.Array:
    """The derivative of a norm by one of its sizes, times `t`; 0 for a size of 0.

    The derivative is 1 if the norm is no larger.
    """
    apart = (size != 0) & ~(size >= norm)
    one = jnp.ones_like(size)
    ratio = jnp.where(apart, size, one) / jnp.where(apart, norm, one)
    part = (ratio if p == 2 else ratio ** (p - 1)) * t
    return jnp.where(size == 0, jnp.zeros_like(part), part)
