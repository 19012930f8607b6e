"""How every pool is entered: compiled once for what is static about it.

What runs outside `jax.jit` would be traced and compiled at every call, and what runs
inside traced again at every layer. And arrays that are sharded explicitly along
pooled axes are pooled in auto mode (`engines.sharding`).
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxpool.engines.plan import Implementation
from jaxpool.engines.sharding import Geometry, in_auto_mode
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.sizes import is_symbolic

# Functions that are kept compiled. The library has few, and each operation that `pool`
# is called with makes one; what was not used for longest goes first.
MOST_PROGRAMS = 256

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


def enter(
    function: Callable[..., T],
    static: Any,
    geometry: Geometry,
    x: jax.Array,
    *others: Any,
) -> T:
    """`function(static, x, *others)`, which pools `x`; a function of a module.

    Or another object that hashes. `static` is hashable, or a tuple of what is, and of
    single numbers of NumPy.
    Where sizes are symbolic it is not compiled on its own: two of them cannot always
    be compared.
    """
    arrays = jax.tree.leaves((x, others))
    if not any(is_symbolic(n) for array in arrays for n in array.shape):
        function, static = _compiled(function), _hashable(static)
    return in_auto_mode(partial(function, static), geometry, x, *others)


class _Number(NamedTuple):
    """An array of one number; equal if its bits are, which -0 and 0 have not."""

    dtype: np.dtype
    bits: bytes

    def array(self) -> np.ndarray:
        """The number."""
        return np.frombuffer(self.bits, self.dtype).reshape(())


@lru_cache(maxsize=MOST_PROGRAMS)
def _compiled(function: Callable[..., T]) -> Callable[..., T]:
    @wraps(function)
    def called(static: Any, *arrays: Any) -> T:
        if type(static) is tuple:
            static = (s.array() if isinstance(s, _Number) else s for s in static)
            static = tuple(static)
        return function(static, *arrays)

    return jax.jit(called, static_argnums=0)


def _hashable(static: Any) -> Hashable:
    """The same with arrays as something that hashes."""
    if type(static) is not tuple:
        return static  # type: ignore[no-any-return]
    return tuple(
        _Number(s.dtype, s.tobytes()) if isinstance(s, np.ndarray) else s
        for s in static
    )


class Call(NamedTuple):
    """The checked arguments that all pools share.

    `tables` are the places of bins that are drawn, and `arrays` are what an aggregation
    takes beside the cells.
    """

    x: jax.Array
    over: Domain
    mask: jax.Array | None = None
    empty: np.ndarray = np.zeros((), bool)
    implementation: Implementation | None = None
    tables: Any = ()
    arrays: Any = None


def entered(pool: Callable[..., T]) -> Callable[..., T]:
    """The pool of a `Call` and options, entered; all but its arrays is static."""

    @wraps(pool)
    def body(static: tuple[Any, ...], x: jax.Array, mask: Any, *others: Any) -> T:
        over, empty, implementation, *options = static
        return pool(Call(x, over, mask, empty, implementation, *others), *options)

    @wraps(pool)
    def outside(call: Call, *options: Any) -> T:
        static = call.over, call.empty, call.implementation, *options
        arrays = call.x, call.mask, call.tables, call.arrays
        return enter(body, static, call.over, *arrays)

    return outside
