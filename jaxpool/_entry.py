"""How every pool is entered: compiled once for what is static about it.

What runs outside `jax.jit` would be traced and compiled at every call, and what runs
inside traced again at every layer. And arrays that are sharded explicitly along
pooled axes are pooled in auto mode (`_sharding`).
"""

from collections.abc import Callable, Hashable
from functools import cache, partial, wraps
from typing import Any, TypeVar

import jax

from jaxpool._sharding import Geometry, in_auto_mode
from jaxpool._sizes import is_symbolic
from jaxpool._window import Window

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


def enter(
    function: Callable[..., T],
    static: Hashable,
    geometry: Geometry,
    x: jax.Array,
    *others: Any,
) -> T:
    """`function(static, x, *others)`, which pools `x`; a function of a module.

    Where sizes are symbolic it is not compiled on its own: two of them cannot always
    be compared.
    """
    arrays = jax.tree.leaves((x, others))
    if not any(is_symbolic(n) for array in arrays for n in array.shape):
        function = _compiled(function)
    return in_auto_mode(partial(function, static), geometry, x, *others)


@cache
def _compiled(function: Callable[..., T]) -> Callable[..., T]:
    return jax.jit(function, static_argnums=0)


def entered(pool: Callable[..., T]) -> Callable[..., T]:
    """The pool of `(x, window, mask, *options)`, entered; the options are static."""

    @wraps(pool)
    def body(static: tuple[Any, ...], x: jax.Array, mask: jax.Array | None) -> T:
        window, *options = static
        return pool(x, window, mask, *options)

    @wraps(pool)
    def outside(
        x: jax.Array, window: Window, mask: jax.Array | None, *options: Hashable
    ) -> T:
        return enter(body, (window, *options), window, x, mask)

    return outside
