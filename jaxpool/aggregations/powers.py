"""Powers of any exponent, by their logarithms.

    (sum_j |x_j|^p)^(1/p) = exp(log_sum_exp_j(p log |x_j|) / p)

The exponent may be an array, and has a derivative. `norms.py` has the norms of a number
`p`, which is faster.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxpool.aggregations.call import Call
from jaxpool.aggregations.logsumexp import log_sum_exp


def by_logs(call: Call, sizes: jax.Array, p: Any, count: Any = None) -> jax.Array:
    """The p-norm of sizes, or with `count` the power mean, for any exponent `p`."""
    is_edge = (sizes == 0) | jnp.isinf(sizes)  # whose logarithms have no derivative
    logs = p * jnp.log(jnp.where(is_edge, np.ones((), sizes.dtype), sizes))
    edges = jnp.where(sizes == 0, -np.inf, np.inf) * jnp.sign(p)
    total = log_sum_exp(call, jnp.where(is_edge, lax.stop_gradient(edges), logs))
    is_finite = ~jnp.isinf(total)
    inner = jnp.where(is_finite, total, np.zeros((), total.dtype))
    if count is not None:
        inner = inner - jnp.log(jnp.asarray(count, total.dtype))
    edge = lax.stop_gradient(jnp.exp(total / p))  # 0, inf, or NaN
    return jnp.where(is_finite, jnp.exp(inner / p), edge)
