"""What all aggregations take: the cells, and which outputs read them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxpool.engines.plan import Implementation
from jaxpool.geometry.domain import Domain


class Call(NamedTuple):
    """The checked arguments that all pools share.

    - `over`: the domain, which says which cells each output reads.
    - `mask`: which cells count; `empty`: the result of an output without such a cell.
    - `tables`: where the bins begin that are drawn, or the numbers of links.
    - `arrays`: parameters of the aggregation that are arrays.
    - `both_modes`: whether maxima have forward mode without `forward_mode()`.
    """

    x: jax.Array
    over: Domain
    mask: jax.Array | None = None
    empty: np.ndarray = np.zeros((), bool)
    implementation: Implementation | None = None
    tables: Any = ()
    arrays: Any = None
    both_modes: bool = False
