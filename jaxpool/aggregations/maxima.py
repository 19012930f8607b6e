"""The maximum (or minimum) of each window, with its derivatives.

Values, positions and gradients agree on the winner. The gradient's residual is its
position inside its window, in the smallest unsigned type that holds it, and nothing
else. The rules call only raw kernels, never `extremum` itself, so that they can be
differentiated again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import zero_from_primal

from jaxpool.aggregations import dtypes
from jaxpool.aggregations.extremes import Config, Kind, extreme_values, find_winners
from jaxpool.aggregations.forward_mode import is_forward_mode
from jaxpool.engines import native
from jaxpool.engines.linear import linear
from jaxpool.engines.lowering import (
    AT_ONCE,
    Implementation,
    back_at_once,
    dispatch_at_once,
    is_doubling,
    portable,
)
from jaxpool.engines.routes import read, route
from jaxpool.engines.stages import Deferred
from jaxpool.engines.symbolic import as_number
from jaxpool.geometry.window import Window

POSITION = "jaxpool_position"  # the residual's name, for remat policies


def extremum(
    kind: Kind,
    x: jax.Array,
    mask: jax.Array | None,
    window: Window,
    empty: float,
    implementation: Implementation | None,
) -> jax.Array:
    """Extreme value of each window, over the cells that `mask` keeps, if there is one.

    The mask broadcasts to the shape of `x`. Where it keeps no cell of a window, the
    value is `empty`, and there is no winner.
    """
    window = window.clipped()
    if len(window.axes) > 1 and not window.is_countable:
        return _axis_by_axis(kind, x, mask, window, empty, implementation)
    config = Config(kind, window, empty, implementation)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return extreme_values(config, x, mask)
    rule = _extremum_both_modes if is_forward_mode() else _extremum
    return rule(config, x, mask)


def _axis_by_axis(
    kind: Kind,
    x: jax.Array,
    mask: jax.Array | None,
    window: Window,
    empty: float,
    implementation: Implementation | None,
) -> jax.Array:
    """The same where int32 cannot count the cells.

    The first winner of the winners along the last axis is the first in row-major order.
    """
    for axis, dim in reversed(window.pairs()):
        each = Window((axis,), (dim,))
        if mask is None:
            x = extremum(kind, x, None, each, empty, implementation)
            continue
        cells = jnp.broadcast_to(mask, x.shape)
        x = extremum(kind, x, cells, each, empty, implementation)
        config = Config("max", each, 0, implementation)
        mask = extreme_values(config, cells.astype(np.uint8), None) > np.uint8(0)
    return x


def indexed_extremum(
    kind: Kind,
    x: jax.Array,
    mask: jax.Array | None,
    window: Window,
    empty: float,
    implementation: Implementation | None,
) -> tuple[jax.Array, jax.Array]:
    """The same, and the flat index of each winner over the pooled axes.

    It is -1 where the mask keeps no cell.
    """
    window = window.clipped()
    config = Config(kind, window, empty, implementation)
    values, position = winners(config, x, mask)
    indices = _index_of(position, window)
    if mask is not None:
        some = position < as_number(window.cells, position.dtype)
        indices = jnp.where(some, indices, np.int32(-1))
    return values, indices


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _extremum(config: Config, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    return extreme_values(config, x, mask)


def _extremum_fwd(
    config: Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    values, position = winners(config, x, mask)
    return values, checkpoint_name(position, POSITION)


@portable
def _extremum_bwd(
    config: Config, position: jax.Array, g: jax.Array
) -> tuple[jax.Array, None]:
    functions = partial(_route, config), partial(_read, config)
    return linear(*functions, position, g), None


_extremum.defvjp(_extremum_fwd, _extremum_bwd)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _extremum_both_modes(
    config: Config, x: jax.Array, mask: jax.Array | None
) -> jax.Array:
    return extreme_values(config, x, mask)


@_extremum_both_modes.defjvp
def _extremum_jvp(
    config: Config,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, Any],
) -> tuple[jax.Array, jax.Array]:
    (values, _), (tangent, _) = _winners_jvp(config, primals, tangents)
    return values, tangent


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def winners(
    config: Config, x: jax.Array, mask: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """The value of each winner, and its position inside the window, row-major.

    Where a mask keeps no cell of a window, the position is beyond the window. The
    derivative, in both modes, reads the tangents at the winners.
    """
    return find_winners(config, x, mask)


@winners.defjvp
@portable
def _winners_jvp(
    config: Config,
    primals: tuple[jax.Array, jax.Array | None],
    tangents: tuple[jax.Array, Any],
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, Any]]:
    values, position = winners(config, *primals)
    named = checkpoint_name(position, POSITION)
    tangent = _at_winners(config, named, tangents[0])
    no_tangent = zero_from_primal(position)
    return (values, position), (tangent, no_tangent)


def _at_winners(config: Config, position: jax.Array, t: jax.Array) -> jax.Array:
    """The tangent at each winner; linear, the transpose of `_route`."""
    functions = partial(_read, config), partial(_route, config)
    return linear(*functions, position, t)


def _read(config: Config, position: jax.Array, t: jax.Array) -> jax.Array:
    """Read the tangent at each winner."""
    return _along(read, config, position, t)


def _route(config: Config, position: jax.Array, g: jax.Array) -> jax.Array:
    """Send each cotangent to its winner."""
    window, name = config.window, config.implementation
    in_steps = partial(_along, route, config)

    def at_once(position: jax.Array, g: jax.Array) -> jax.Array:
        return native.route(window, dtypes.summed(g.dtype), position, g)

    pays = not window.is_symbolic and native.selects(window) <= AT_ONCE
    ways = in_steps, at_once
    there = back_at_once(window)
    routed: jax.Array = dispatch_at_once(there, pays, name, *ways, position, g)
    return routed


def _along(
    way: Callable[..., Deferred], config: Config, position: jax.Array, t: jax.Array
) -> jax.Array:
    """From cells to windows, or back."""
    doubling = is_doubling(config.window, config.implementation)
    wide = Deferred(lambda t: (t.astype(dtypes.summed(t.dtype)),), (t,))
    moved = way(wide, position, config.window, doubling)
    (result,) = moved.then(lambda moved: (moved.astype(t.dtype),)).now()
    return result  # type: ignore[no-any-return]


def _index_of(position: jax.Array, window: Window) -> jax.Array:
    """The index in the input of each winner, from its position inside its window."""
    rest = position.astype(np.int32)
    index, cells = jnp.zeros_like(rest), 1
    for axis, dim in zip(reversed(window.axes), reversed(window.dims), strict=True):
        start = lax.broadcasted_iota(np.int32, rest.shape, axis)
        start = start * as_number(dim.stride) - as_number(dim.low)
        inside = rest % as_number(dim.window)
        index += (start + inside * dim.dilation) * as_number(cells)
        rest //= as_number(dim.window)
        cells *= dim.size
    return index
