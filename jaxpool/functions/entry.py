"""Every pool is compiled once for its static arguments.

Without this, an eager call is traced and compiled each time, and under `jax.jit` each
layer is traced again. Arrays that are sharded explicitly along pooled axes are pooled
in auto mode (`engines.sharding`).
"""

from collections.abc import Callable, Hashable
from functools import lru_cache, partial, wraps
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from jaxpool.aggregations.call import Call
from jaxpool.engines.sharding import Geometry, in_auto_mode
from jaxpool.geometry.sizes import is_symbolic

# Compiled functions that are kept. The library has few, and each operation of `pool`
# adds one; the one that was used least recently goes first.
MOST_PROGRAMS = 256

T = TypeVar("T", bound=jax.Array | tuple[jax.Array, ...])


def enter(
    function: Callable[..., T],
    static: Any,
    geometry: Geometry,
    x: jax.Array,
    *others: Any,
) -> T:
    """`function(static, x, *others)`, compiled once for each `static` and shapes.

    `function` hashes. `static` is hashable, or a tuple of hashable values and single
    numbers of NumPy. With symbolic sizes the function is not compiled on its own: two
    symbolic sizes cannot always be compared.
    """
    arrays = jax.tree.leaves((x, others))
    if not any(is_symbolic(n) for array in arrays for n in array.shape):
        function, static = _compiled(function), _hashable(static)
    return in_auto_mode(partial(function, static), geometry, x, *others)


class _Number(NamedTuple):
    """An array of one number. Compares by bits, so -0 and 0 differ."""

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
    """`static` with each array replaced by a value that hashes."""
    if type(static) is not tuple:
        return static
    return tuple(
        _Number(s.dtype, s.tobytes()) if isinstance(s, np.ndarray) else s
        for s in static
    )


def compiled_once(pool: Callable[..., T]) -> Callable[..., T]:
    """A pool that takes a `Call` and options; all but the arrays is static."""

    @wraps(pool)
    def body(
        static: tuple[Any, ...], x: jax.Array, mask: Any, tables: Any, arrays: Any
    ) -> T:
        over, empty, implementation, both_modes, *options = static
        checked = x, over, mask, empty, implementation, tables, arrays, both_modes
        return pool(Call(*checked), *options)

    @wraps(pool)
    def outside(call: Call, *options: Any) -> T:
        static = call.over, call.empty, call.implementation, call.both_modes, *options
        arrays = call.x, call.mask, call.tables, call.arrays
        return enter(body, static, call.over, *arrays)

    return outside
