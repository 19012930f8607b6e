"""Aggregations as users write them: what `aggregate` makes of the cells."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import jax
from jax.typing import ArrayLike

from jaxpool.aggregations.call import Call
from jaxpool.engines.plan import Implementation
from jaxpool.functions import pooling
from jaxpool.functions.arguments import Kinds, as_call, as_number, check_flag
from jaxpool.functions.monoids import reduce_by
from jaxpool.functions.over import Over
from jaxpool.functions.parameters import (
    as_bias,
    as_exponent,
    as_fraction,
    as_order,
    as_order_or_array,
    as_scale,
    as_weights,
)
from jaxpool.functions.written import Written, register
from jaxpool.geometry.axes import check_at_least, per_axis


@dataclass(frozen=True, repr=False, eq=False)
class By(Written):
    """Base class of all aggregations; use it in type annotations."""

    kinds: ClassVar[Kinds] = "real"
    averaged: ClassVar[bool] = True  # whether the result of integers is float32

    def aggregate(
        self,
        x: Any,
        over: Over,
        where: Any = None,
        empty_value: float = 0,
        implementation: Implementation | None = None,
    ) -> jax.Array:
        """The result, after all checks."""
        self.check_over(over)
        options = where, empty_value, implementation
        kinds, averaged = self.kinds, self.averaged
        call = as_call(x, over.resolve, (), *options, kinds=kinds, averaged=averaged)
        call = self.with_arrays(call)._replace(both_modes=over.both_modes)
        pooled = over.pool(self.pool, call)
        return over.finish(pooled, call.over)

    def check_over(self, over: Over) -> None:
        """Refuse a domain over which there is no such aggregation."""

    def with_arrays(self, call: Call) -> Call:
        """The call with the arrays of the aggregation, checked, in the rank of `x`."""
        return call

    def pool(self, call: Call) -> jax.Array:
        """The result of such a call, with all axes of the input."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False, eq=False)
class Max(By):
    """The maximum, `max_j x_j`: `jaxpool.max_pool`.

    Float or int dtypes. The gradient goes to the first NaN, else to the first maximum.
    Over windows, whole axes and streams, forward mode needs `forward_mode()`.
    """

    averaged = False

    def pool(self, call: Call) -> jax.Array:
        return pooling.extreme(call, "max")


@dataclass(frozen=True, repr=False, eq=False)
class Min(By):
    """The minimum, `min_j x_j`: `jaxpool.min_pool`.

    Float or int dtypes. The gradient goes to the first NaN, else to the first minimum.
    Over windows, whole axes and streams, forward mode needs `forward_mode()`.
    """

    averaged = False

    def pool(self, call: Call) -> jax.Array:
        return pooling.extreme(call, "min")


@dataclass(frozen=True, repr=False, eq=False)
class Sum(By):
    """The sum, `sum_j x_j`: `jaxpool.sum_pool`.

    Float, int or complex dtypes; float16 and bfloat16 are added up in float32.
    """

    kinds = "number"
    averaged = False

    def pool(self, call: Call) -> jax.Array:
        return pooling.total(call)


@dataclass(frozen=True, repr=False, eq=False)
class Average(By):
    """The average, `sum_j x_j / n`, or with weights `sum_j w_j x_j / sum_j w_j`.

    `jaxpool.avg_pool` has its gradient. Weights have a gradient too.

    Args:
        weights: Numbers that broadcast to `x`, of equal rank, or one for each channel.
            `None`: equal ones. The result is `empty_value` where they add up to 0.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> by = Average(weights=jnp.asarray([1.0, 3.0]))
        >>> print(aggregate(jnp.asarray([4.0, 8.0]), by, whole(0)))
        7.0
    """

    arrays: ClassVar[tuple[str, ...]] = ("weights",)
    weights: ArrayLike | None = None
    kinds: ClassVar[Kinds] = "number"

    def with_arrays(self, call: Call) -> Call:
        if self.weights is None:
            return call
        return call._replace(arrays=as_weights("weights", self.weights, call))

    def pool(self, call: Call) -> jax.Array:
        if self.weights is None:
            return pooling.mean(call)
        return pooling.weighted_mean(call)


@dataclass(frozen=True, repr=False, eq=False)
class Lp(By):
    """The p-norm, `(sum_j |x_j| ** p) ** (1 / p)`: `jaxpool.lp_pool`.

    The gradient is 0 where a cell or the norm is 0. No power overflows.

    Args:
        p: Order of the norm: a positive number, `inf`, or an array that broadcasts to
            `x`, such as one number for each channel. An array has a gradient. Its
            numbers must be finite and at least 0.001; on a device they are not checked.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([3.0, -4.0]), Lp(2), whole(0)))
        5.0
    """

    arrays: ClassVar[tuple[str, ...]] = ("p",)
    choices: ClassVar[tuple[str, ...]] = ("p",)
    p: ArrayLike

    def with_arrays(self, call: Call) -> Call:
        return as_order_or_array(self.p, call)[0]

    def pool(self, call: Call) -> jax.Array:
        order = as_order(self.p) if call.arrays is None else None
        return pooling.norm(call, order)


@dataclass(frozen=True, repr=False, eq=False)
class PowerMean(By):
    """The power mean, `(sum_j |x_j| ** p / n) ** (1 / p)`; with `eps`, GeM.

    `jaxpool.power_mean_pool` has its gradient.

    Args:
        p: Exponent: `inf`, a number with `|p| >= 0.001`, or an array that broadcasts to
            `x`, such as one number for each channel. An array has a gradient. Its
            numbers must be finite and not near 0; on a device they are not checked.
        eps: If given, a number of at least 0: `max(x, eps)` takes the place of `|x|`.

    References:
        F. Radenovic, G. Tolias, O. Chum, "Fine-tuning CNN Image Retrieval with No Human
        Annotation", 2018, https://arxiv.org/abs/1711.02512

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([1.0, 7.0]), PowerMean(2), whole(0)))
        5.0
    """

    arrays: ClassVar[tuple[str, ...]] = ("p",)
    choices: ClassVar[tuple[str, ...]] = ("p",)
    p: ArrayLike
    eps: float | None = None

    def with_arrays(self, call: Call) -> Call:
        if self.eps is not None and not 0 <= as_number("eps", self.eps) < math.inf:
            raise ValueError(
                f"eps must be None or a finite number of at least 0; got eps={self.eps}"
            )
        return as_exponent(self.p, call)

    def pool(self, call: Call) -> jax.Array:
        p: Any = self.p
        exponent = float(p) if call.arrays is None else None
        eps = None if self.eps is None else float(self.eps)
        return pooling.power_mean(call, eps, exponent)


@dataclass(frozen=True, repr=False, eq=False)
class LogSumExp(By):
    """`log(sum_j exp(scale * x_j)) / scale`, a smooth maximum.

    The share of a cell is its softmax, as of `jaxpool.logsumexp_pool`.

    Args:
        scale: A number other than 0, or an array of such numbers that broadcasts to
            `x`; on a device they are not checked. Negative scales make a smooth
            minimum. Digits are lost where `scale * x` changes by less than about
            0.001: take the average there. An array has a gradient.
        mean: Whether to take the mean of the exponentials, not their sum.

    References:
        P. O. Pinheiro, R. Collobert, "From Image-level to Pixel-level Labeling with
        Convolutional Networks", CVPR 2015, https://arxiv.org/abs/1411.6228

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, windows
        >>> by = LogSumExp(scale=100.0, mean=True)  # near the maximum
        >>> print(aggregate(jnp.asarray([1.0, 2.0, 5.0, 5.0]), by, windows(2, axes=0)))
        [1.9931 5.    ]
    """

    arrays: ClassVar[tuple[str, ...]] = ("scale",)
    scale: ArrayLike = 1.0
    _: KW_ONLY
    mean: bool = False

    def with_arrays(self, call: Call) -> Call:
        check_flag("mean", self.mean)
        return call._replace(arrays=as_scale(self.scale, call, is_divisor=True))

    def pool(self, call: Call) -> jax.Array:
        return pooling.logsumexp(call, self.mean)


@dataclass(frozen=True, repr=False, eq=False)
class Softmax(By):
    """The average with softmax weights, `sum_j softmax(scale * logits)_j x_j`.

    `jaxpool.softmax_pool` has its gradient.

    Args:
        logits: Numbers that broadcast to `x`, of equal rank, or one for each channel.
            `None`: `x` (SoftPool). A cell with a logit of -inf takes no part; if all
            logits that are given are -inf, the result is 0.
        scale: A number, or an array that broadcasts to `x`, with one number for each
            channel, say (AutoPool). 0 gives the average, large numbers the maximum. Its
            gradient loses digits where the logits of some windows are near 1e4, and
            those of others far from that.
        bias: Array added to the scaled logits at each place of a window, for windows,
            whole axes and streams. It has the shape of the window, in the order of the
            axes of `x`, with one more axis for channels if wanted.

    References:
        A. Stergiou, R. Poppe, G. Kalliatakis, "Refining activation downsampling with
        SoftPool", ICCV 2021, https://arxiv.org/abs/2101.00440. B. McFee, J. Salamon, J.
        P. Bello, "Adaptive pooling operators for weakly labeled sound event detection",
        2018, https://arxiv.org/abs/1804.10070. Z. Gao, L. Wang, G. Wu, "LIP: Local
        Importance-Based Pooling", ICCV 2019, https://arxiv.org/abs/1908.04156

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> x, logits = jnp.asarray([1.0, 2.0, 6.0]), jnp.asarray([-100.0, 0.0, 0.0])
        >>> print(aggregate(x, Softmax(logits), whole(0)))
        4.0
    """

    arrays: ClassVar[tuple[str, ...]] = ("logits", "scale", "bias")
    logits: ArrayLike | None = None
    scale: ArrayLike = 1.0
    bias: ArrayLike | None = None

    def check_over(self, over: Over) -> None:
        if self.bias is not None:
            _check_windowed("Softmax with a bias", over)

    def with_arrays(self, call: Call) -> Call:
        scale, logits, bias = as_scale(self.scale, call), self.logits, self.bias
        if logits is not None:
            logits = as_weights("logits", logits, call)
        if bias is not None:
            bias = as_bias(bias, call)
        return call._replace(arrays=(logits, scale, bias))

    def pool(self, call: Call) -> jax.Array:
        return pooling.softmax(call)


@dataclass(frozen=True, repr=False, eq=False)
class Variance(By):
    """The variance, `sum_j (x_j - mean)^2 / (n - ddof)`; of one cell it is 0.

    It is `empty_value` where no more than `ddof` cells count. `jaxpool.var_pool` has
    its gradient.

    Args:
        ddof: Subtracted from the number of cells in the divisor, a non-negative int.

    References:
        `numpy.var`. Computed in two passes, so it is accurate for numbers near 1e8.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([1.0, 3.0]), Variance(), whole(0)))
        1.0
    """

    ddof: int = 0

    def pool(self, call: Call) -> jax.Array:
        return pooling.variance(call, _ddof(self.ddof))


@dataclass(frozen=True, repr=False, eq=False)
class StandardDeviation(By):
    """The root of the variance, `sqrt(variance + eps)`: `jaxpool.std_pool`.

    Args:
        ddof: Subtracted from the number of cells in the divisor, a non-negative int.
        eps: A number that is added to the variance before the root. Without it, the
            gradient of cells that are all equal is 0.

    References:
        `numpy.std`. Statistics pooling: D. Snyder and others, "X-vectors", ICASSP 2018.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([1.0, 5.0]), StandardDeviation(), whole(0)))
        2.0
    """

    ddof: int = 0
    eps: float = 0.0

    def pool(self, call: Call) -> jax.Array:
        eps = as_number("eps", self.eps)
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps must be a number of at least 0; got eps={self.eps}")
        return pooling.variance(call, _ddof(self.ddof), float(eps))


def _ddof(value: int) -> int:
    (ddof,) = per_axis("ddof", value, 1)
    check_at_least("ddof", [ddof], 0)
    return ddof


@dataclass(frozen=True, repr=False, eq=False)
class Quantile(By):
    """The quantile, by linear interpolation between two cells: `numpy.quantile`.

    It is NaN if a cell is NaN. The gradient goes to the two cells. The cost grows with
    the number of cells, which are sorted.

    Args:
        q: A number from 0, the minimum, to 1, the maximum.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([4.0, 1.0, 3.0]), Quantile(0.25), whole(0)))
        2.0
    """

    q: float

    def pool(self, call: Call) -> jax.Array:
        return pooling.quantile(call, as_fraction("q", self.q))


@dataclass(frozen=True, repr=False, eq=False)
class Median(By):
    """The median: the middle cell, or the mean of the two in the middle.

    `jaxpool.median_pool` has its gradient.
    """

    def pool(self, call: Call) -> jax.Array:
        return pooling.quantile(call, 0.5)


@dataclass(frozen=True, repr=False, eq=False)
class TopKMean(By):
    """The mean of the `k` largest cells, or of all cells where there are fewer.

    `k=1` is the maximum, and as many as there are cells the average. Each of these
    cells gets an equal part of the cotangent. Up to 32 cells, windows are sorted by a
    network, and the cost grows with `k`; else all cells are sorted.

    Args:
        k: How many cells, a positive int.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> print(aggregate(jnp.asarray([4.0, 1.0, 3.0]), TopKMean(2), whole(0)))
        3.5
    """

    k: int

    def pool(self, call: Call) -> jax.Array:
        (k,) = per_axis("k", self.k, 1)
        check_at_least("k", [k], 1)
        return pooling.top_mean(call, min(k, call.over.cells))


@dataclass(frozen=True, repr=False, eq=False)
class Monoid(By):
    """Any associative operation: `jaxpool.pool`; for windows, whole axes and streams.

    `x` may be a pytree of arrays of one shape, for example a value and its time.
    Padded cells, masked cells, and windows without a cell hold `init`; `empty_value`
    is not used.

    Args:
        init: An identity of `op`: a scalar, or a pytree of scalars like `x`.
        op: Associative function of two cells that returns one.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxpool import aggregate, whole
        >>> def later(a, b):  # the value at the latest time
        ...     first = a["time"] > b["time"]
        ...     return {k: jnp.where(first, a[k], b[k]) for k in a}
        >>> x = {"time": jnp.asarray([3, 9, 5]), "value": jnp.asarray([1.0, 2.0, 4.0])}
        >>> aggregate(x, Monoid({"time": -1, "value": 0.0}, later), whole(0))["value"]
        Array(2., dtype=float32)
    """

    arrays: ClassVar[tuple[str, ...]] = ("init",)
    init: Any
    op: Callable[[Any, Any], Any]

    def aggregate(
        self,
        x: Any,
        over: Over,
        where: Any = None,
        empty_value: float = 0,
        implementation: Implementation | None = None,
    ) -> Any:
        _check_windowed("Monoid", over)
        domain = over.resolve, (), where, implementation
        reduced, window = reduce_by(x, self.init, self.op, *domain)
        return jax.tree.map(partial(over.finish, over=window), reduced)


def _check_windowed(name: str, over: Over) -> None:
    """Refuse domains whose outputs are not windows."""
    if not over.is_windowed:
        raise NotImplementedError(
            f"over must be windows or whole axes for {name}; got over={over!r:.80}"
        )


register(Max, Min, Sum, Average, Lp, PowerMean, LogSumExp, Softmax)
register(Variance, StandardDeviation, Quantile, Median, TopKMean, Monoid)
