"""Every aggregation over every domain, by one function."""

from typing import Any, Literal, TypeAlias, overload

import jax
from jax.typing import ArrayLike

from jaxpool.engines.plan import Implementation
from jaxpool.functions.by import Average, By, Max, Min, Monoid, Sum
from jaxpool.functions.over import Over

Name: TypeAlias = Literal["max", "min", "sum", "avg"]
NAMED: dict[str, By] = {"max": Max(), "min": Min(), "sum": Sum(), "avg": Average()}


@overload
def aggregate(
    x: Any,
    by: Monoid,
    over: Over,
    *,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    implementation: Implementation | None = None,
) -> Any: ...
@overload
def aggregate(
    x: ArrayLike,
    by: Name | By,
    over: Over,
    *,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    implementation: Implementation | None = None,
) -> jax.Array: ...
@overload
def aggregate(
    x: ArrayLike,
    by: tuple[Name | By, ...],
    over: Over,
    *,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    implementation: Implementation | None = None,
) -> tuple[jax.Array, ...]: ...
def aggregate(
    x: Any,
    by: Name | By | tuple[Name | By, ...],
    over: Over,
    *,
    where: ArrayLike | None = None,
    empty_value: float = 0,
    implementation: Implementation | None = None,
) -> Any:
    """Aggregate the cells of each output of a domain.

        y[o] = by(x[c] for the cells c that output o reads)

    Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md.

    Args:
        x: Input, shape `[*batch, *spatial, channels]`; a dtype that `by` accepts.
        by: Aggregation: "max", "min", "sum", "avg", or an object such as `Lp(3)` or
            `Softmax()`; or a tuple of them, for a tuple of results.
        over: Domain: `windows(...)`, `whole(...)`, `bins(...)`, `segments(...)` or
            `neighbors(...)`.
        where: Boolean mask, broadcast to `x`, of equal rank. False cells are ignored.
        empty_value: Result for an output without a valid cell; its gradient is 0.
        implementation: `None` (automatic), "reduce_window", "slices" or "doubling".

    Returns:
        Shape of the domain's outputs, dtype of `x`; averages, norms and the like of
        integers are float32.

    Raises:
        ValueError: If an argument does not fit `x.shape`.
        TypeError: If a dtype is not supported, a static argument is traced, or `by` or
            `over` is no aggregation or domain.
        NotImplementedError: If the pair is not in the table, or an implementation is
            named where there is only one form (unequal bins, segments, neighbors,
            medians, quantiles, `TopKMean`, variances, `Softmax` with a bias).

    Gradient:
        That of the aggregation, with respect to `x` and to the arrays that `by` holds.

    References:
        `lax.reduce_window`, `jax.numpy` reductions and `jax.nn.logsumexp` each
        compute some of these aggregations over some domains.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import Lp, PowerMean, whole, windows
        >>> aggregate(jnp.asarray([1.0, 5.0, 2.0, 4.0]), "max", windows(2, axes=0))
        Array([5., 4.], dtype=float32)
        >>> aggregate(jnp.asarray([3.0, 4.0]), (PowerMean(1), Lp(2)), whole(0))
        (Array(3.5, dtype=float32), Array(5., dtype=float32))
    """
    options = where, empty_value, implementation
    results = [rule.aggregate(x, over, *options) for rule in as_rules(by, over)]
    return tuple(results) if isinstance(by, tuple) else results[0]


def as_rules(by: Any, over: Any) -> list[By]:
    """The aggregations, if `by` and `over` name a part of the table."""
    each = by if isinstance(by, tuple) else (by,)
    rules = list[By]()
    for one in each:
        rule = NAMED.get(one) if isinstance(one, str) else one
        if not isinstance(rule, By):
            raise TypeError(
                "by must be 'max', 'min', 'sum', 'avg', an aggregation such as "
                f"jaxpool.Softmax(), or a tuple of these; got by={by!r:.80}"
            )
        rules.append(rule)
    if not isinstance(over, Over):
        raise TypeError(
            "over must be a domain: jaxpool.windows(...), whole(...), bins(...), "
            "segments(...) or neighbors(...); "
            f"got over={over!r:.80}"
        )
    return rules
