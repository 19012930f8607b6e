"""What all aggregations take: the cells, and which outputs read them."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxpool.engines.plan import Implementation
from jaxpool.geometry.domain import Domain


class Call(NamedTuple):
    """The checked arguments that all pools share.

    `tables` are the places of bins that are drawn, and `arrays` are what an aggregation
    takes in addition to the cells. With `both_modes`, maxima have forward mode without
    `forward_mode()`.
    """

    x: jax.Array
    over: Domain
    mask: jax.Array | None = None
    empty: np.ndarray = np.zeros((), bool)
    implementation: Implementation | None = None
    tables: Any = ()
    arrays: Any = None
    both_modes: bool = False
