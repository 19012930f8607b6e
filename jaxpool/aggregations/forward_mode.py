"""The switch that lets jax differentiate maxima in forward mode too."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
T = TypeVar("T")

# Part of the key of jit's caches: what was traced outside is traced again inside.
_forward_mode = jax.make_user_context(default_value=False)


def forward_mode() -> AbstractContextManager[None]:
    """Differentiate the max-like pools traced inside in forward mode as well.

        with jaxpool.forward_mode():
            y, dy = jax.jvp(model, (x,), (dx,))      dy = dx at the winner

    JAX refuses forward mode (`jax.jvp`, `jax.linearize`) through any `jax.custom_vjp`,
    which max and min pools are, windowed and global, and norms of `p=inf`. Inside they
    have a rule for both modes instead, with the values, the residual (one byte an
    output for windows of up to 256 cells) and the reverse mode they have outside. All
    other pools, adaptive and fractional ones and those with indices too, have both
    modes without it.

    It counts where a function is traced: a `jax.jit` around a pool is traced again
    when it is called inside, and may itself be entered from inside the function.

    Returns:
        A context manager, which may be nested and is local to its thread.

    Gradient:
        The tangent of a window is that of its winner: the first NaN, else the first
        extreme cell in row-major order. It is the transpose of reverse mode, ties, NaN
        and infinities included.

    References:
        `jax.custom_vjp` and `jax.custom_jvp`; Flax and `lax.reduce_window` have forward
        mode, whose tangent at a NaN or at a tie is not that of their reverse mode.

    Example:
        >>> import jax, jax.numpy as jnp, jaxpool
        >>> x, dx = jnp.asarray([3.0, 1.0, 2.0, 4.0]), jnp.arange(4.0)
        >>> with forward_mode():
        ...     y, dy = jax.jvp(lambda x: jaxpool.max_pool(x, 2, axes=0), (x,), (dx,))
        >>> print(y, dy)
        [3. 4.] [0. 3.]
    """
    context: AbstractContextManager[None] = _forward_mode(True)
    return context


def is_forward_mode() -> bool:
    """Whether what is traced now must support forward mode."""
    return bool(_forward_mode.value)


def explaining(pool: Callable[P, T]) -> Callable[P, T]:
    """Let jax's refusal of forward mode through a pool say what to do.

    Where the whole is under `jax.jit`, jax refuses later, and alone.
    """

    @wraps(pool)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return pool(*args, **kwargs)
        except TypeError as error:
            if "(jvp) to a custom_vjp function" not in str(error):
                raise
            raise TypeError(
                f"{error} Trace the pool inside `with jaxpool.forward_mode():`."
            ) from error

    return called
