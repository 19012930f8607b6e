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
    """Let max-like pools support forward mode too, if they are traced inside.

        with jaxpool.forward_mode():
            y, dy = jax.jvp(model, (x,), (dx,))  # dy: the tangents of the winners

    JAX refuses forward mode (`jax.jvp`, `jax.linearize`) for every `jax.custom_vjp`.
    Maxima, minima and norms with `p=inf` over windows, whole axes and streams are such
    functions. Inside this context they support both modes. Values, reverse mode and the
    data kept for backward (1 byte per output for windows up to 256 cells) stay the
    same. All other pools, also over bins, segments and neighbors, and pools with
    indices, always support both modes.

    The context applies when a function is traced. A `jax.jit` function that is called
    inside is traced again. The context also works inside a jitted function. See
    "Gradients" in docs/conventions.md.

    Returns:
        A context manager. It can be nested, and is local to its thread.

    Gradient:
        The tangent of a window is the tangent of its winner: the first NaN, else the
        first extreme cell in row-major order. It is the transpose of reverse mode, also
        for ties, NaN and infinities.

    References:
        `jax.custom_vjp` and `jax.custom_jvp`. Flax and `lax.reduce_window` have forward
        mode, but at a NaN or a tie it differs from their reverse mode.

    Example:
        >>> import jax, jax.numpy as jnp, jaxpool
        >>> x, dx = jnp.asarray([3.0, 1.0, 2.0, 4.0]), jnp.arange(4.0)
        >>> with forward_mode():
        ...     y, dy = jax.jvp(lambda x: jaxpool.max_pool(x, 2, axes=0), (x,), (dx,))
        >>> print(y, dy)
        [3. 4.] [0. 3.]
    """
    return _forward_mode(True)


def is_forward_mode() -> bool:
    """Whether what is traced now must support forward mode."""
    return bool(_forward_mode.value)


def explaining(pool: Callable[P, T]) -> Callable[P, T]:
    """Let jax's refusal of forward mode through a pool say what to do.

    Under a `jax.jit` around it, jax refuses later, with its own message.
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
