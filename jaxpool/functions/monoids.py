"""Any associative operation over windows: what `pool` and `Monoid` share."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxpool.aggregations.monoid import Reduction
from jaxpool.aggregations.operation import traced
from jaxpool.engines.plan import Implementation, check_implementation
from jaxpool.functions.arguments import about, as_array, as_mask
from jaxpool.functions.entry import enter
from jaxpool.functions.parameters import as_identity
from jaxpool.geometry.domain import Domain
from jaxpool.geometry.spelling import spelled


def reduce_by(
    x: Any,
    init: Any,
    op: Callable[[Any, Any], Any],
    resolve: Callable[..., Domain],
    geometry: tuple[Any, ...],
    where: Any,
    implementation: Implementation | None,
) -> tuple[Any, Domain]:
    """Reduce `x`, a pytree of arrays of one shape, by `op`; padded cells are `init`.

    Also returns the domain.
    """
    leaves, tree = jax.tree.flatten(x, _is_array)
    if not leaves:
        raise TypeError(f"{spelled('x')} must have an array; got {spelled('x')}={x!r}")
    leaves = [as_array(leaf, kinds="any") for leaf in leaves]
    shape = leaves[0].shape
    with about(shape):
        if any(leaf.shape != shape for leaf in leaves):
            raise ValueError(
                f"{spelled('x')} must have arrays of one shape; got the shapes "
                f"{[leaf.shape for leaf in leaves]}"
            )
        over = resolve(shape, *geometry)
        check_implementation(implementation, over)
        identities = [
            as_identity(one, leaf.dtype)
            for one, leaf in zip(_leaves_like(init, tree), leaves, strict=True)
        ]
        mask = as_mask(where, leaves[0])
    operation, arrays = traced(op, jax.tree.unflatten(tree, leaves))
    if mask is not None:
        pairs = zip(leaves, identities, strict=True)
        leaves = [jnp.where(mask, leaf, one) for leaf, one in pairs]
    known = [one if isinstance(one, np.ndarray) else None for one in identities]
    moved = tuple(
        one if own is None else None for one, own in zip(identities, known, strict=True)
    )
    static = over, implementation, *known
    first, *more = leaves
    reduction = Reduction(operation, tree)
    reduced = enter(reduction, static, over, first, tuple(more), moved, tuple(arrays))
    return jax.tree.unflatten(tree, reduced), over


def _leaves_like(init: Any, tree: Any) -> list[Any]:
    """The identities, one for each array of `x`."""
    if jax.tree.structure(0) == tree:
        return [init]
    leaves, own = jax.tree.flatten(init, _is_array)
    if own != tree:
        raise TypeError(
            f"{spelled('init')} must have one scalar for each array of "
            f"{spelled('x')}, in the same structure; got {spelled('init')}={init!r:.80}"
        )
    return leaves


def _is_array(value: Any) -> bool:
    """Whether a value stands for an array even if jax takes it apart, or for none."""
    return hasattr(type(value), "__jax_array__") or isinstance(value, Iterator)
