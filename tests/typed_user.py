"""A user's file, for `test_typing`. Comments mark the errors that checkers report.

The codes are those of mypy.
"""

from typing import assert_type

import jax
import numpy as np
from flax import linen as nn
from flax import nnx

import jaxpool
from jaxpool import linen as lp
from jaxpool import nnx as xp
from jaxpool.compat import flax, keras, onnx, torch

Indexed = tuple[jax.Array, jax.Array]


def right(x: jax.Array, mask: jax.Array) -> list[nn.Module]:
    """What a checker must accept."""
    assert_type(xp.MaxPool((2, 2))(x), jax.Array)
    assert_type(xp.AvgPool((3, 3), 2, "SAME", divisor=9)(x, where=mask), jax.Array)
    assert_type(xp.LpPool(2, axes=(1, 2), padding_mode="edge", p=3)(x), jax.Array)
    assert_type(xp.MaxPoolWithIndices((2, 2), padding=((0, 1), (1, 0)))(x), Indexed)
    assert_type(xp.GlobalAvgPool(axes=1, keepdims=True)(x, where=mask), jax.Array)
    assert_type(xp.GlobalMinPoolWithIndices()(x), Indexed)
    assert_type(xp.AdaptiveMaxPool((None, 2))(x), jax.Array)
    assert_type(xp.AdaptiveMaxPoolWithIndices(2, axes=1)(x), Indexed)
    drawn = xp.FractionalMaxPool(2, (2, 2), rngs=nnx.Rngs(0))
    assert_type(drawn(x, deterministic=True), jax.Array)
    values, indices = xp.MaxPoolWithIndices((2, 2))(x)
    assert_type(xp.MaxUnpool((6, 6))(values, indices), jax.Array)
    nnx.Sequential(xp.MaxPool([2, 2]), xp.GlobalMaxPool())(x)
    two, both = np.int64(2), np.asarray([2, 2])
    assert_type(xp.MaxPool((two, two), two)(x), jax.Array)
    assert_type(xp.SumPool(both, both, np.asarray([[1, 1], [0, 1]]))(x), jax.Array)
    spread = xp.Aggregate(jaxpool.StandardDeviation(eps=1e-6), jaxpool.whole())
    spread(x, where=mask)
    return [
        lp.MinPool((2, 2), 1, "SAME", dilation=2, implementation="slices"),
        lp.AvgPool(window=2, axes=1, count_include_pad=True, name="pool"),
        lp.GlobalLpPool(p=1.5, empty_value=0.5, parent=None),
        lp.AdaptiveAvgPool((4, None)),
        lp.FractionalAvgPool(None, 4, rule="random", rng_collection="mine", axes=1),
        lp.MaxUnpool(4, axes=1),
        lp.MaxPool(both, two),
        lp.Aggregate(("max", jaxpool.Softmax()), jaxpool.windows((2, 2))),
    ]


def right_functions(x: jax.Array, mask: jax.Array) -> None:
    """The same of functions: NumPy's integers and arrays, and what is returned."""
    two, both = np.int64(2), np.asarray([2, 2])
    assert_type(jaxpool.max_pool(x, (two, two), two, "SAME"), jax.Array)
    assert_type(
        jaxpool.avg_pool(x, both, both, np.asarray([[1, 1], [0, 1]])), jax.Array
    )
    assert_type(
        jaxpool.sum_pool(np.ones((1, 4, 1)), [2], where=mask[0, 0, 0, 0]), jax.Array
    )
    assert_type(jaxpool.adaptive_avg_pool(x, (two, None)), jax.Array)
    assert_type(jaxpool.max_pool_with_indices(x, (2, 2), 1, ((0, 1), (1, 0))), Indexed)
    assert_type(jaxpool.aggregate(x, "max", jaxpool.whole()), jax.Array)
    pair = jaxpool.aggregate(x, ("max", jaxpool.Softmax()), jaxpool.windows((2, 2)))
    assert_type(pair, tuple[jax.Array, ...])
    assert_type(torch.max_pool2d(x, 2), jax.Array)
    assert_type(torch.max_pool2d(x, 2, return_indices=True), Indexed)
    assert_type(torch.avg_pool2d(x, (2, two), padding=1), jax.Array)
    assert_type(torch.adaptive_max_pool2d(x, (two, 2)), jax.Array)
    assert_type(torch.adaptive_max_pool2d(x, 2, return_indices=True), Indexed)
    assert_type(flax.max_pool(x, (2, 2), (two, two), "SAME"), jax.Array)
    assert_type(onnx.GlobalMaxPool(x), jax.Array)
    init, step = jaxpool.stream("max", jaxpool.windows(2, 1, "CAUSAL", axes=1))
    state = init(x.shape, x.dtype)
    assert_type(state, jaxpool.StreamState)
    step(state, x, where=mask)
    assert_type(keras.max_pool(x, 2, padding="same"), jax.Array)


def wrong(x: jax.Array) -> None:
    """What a checker must refuse."""
    lp.MaxPool()  # error: call-arg
    xp.MaxPool()  # error: call-arg
    lp.MinPool((2, 2), 2, "SAME", 1)  # error: call-arg arg-type
    xp.MinPool((2, 2), 2, "SAME", 1)  # error: call-arg
    lp.MaxPool((2, 2), stride=2)  # error: call-arg
    xp.MaxPool((2, 2), stride=2)  # error: call-arg
    lp.MaxPool((2, 2), padding=None)  # error: arg-type
    xp.MaxPool((2, 2), padding=((0, 1, 2),))  # error: arg-type
    lp.MaxPool((2, 2), padding="SMAE")  # error: arg-type
    xp.MaxPool((2, 2), padding="SMAE")  # error: arg-type
    lp.SumPool("22")  # error: arg-type
    xp.SumPool((2.5, 2))  # error: arg-type
    lp.AvgPool((2, 2), count_include_pad="no")  # error: arg-type
    xp.AvgPool((2, 2), divisor="two")  # error: arg-type
    lp.MaxPool((2, 2), padding_mode="edge")  # error: call-arg
    xp.LpPool((2, 2), padding_mode="zeros")  # error: arg-type
    lp.MaxPoolWithIndices((2, 2), implementation="fast")  # error: arg-type
    xp.MaxPoolWithIndices((2, 2), implementation="fast")  # error: arg-type
    lp.GlobalAvgPool((1, 2))  # error: call-arg arg-type
    xp.GlobalAvgPool((1, 2))  # error: call-arg
    lp.GlobalMinPool(keepdims="yes")  # error: arg-type
    lp.GlobalMaxPool(p=2.0)  # error: call-arg
    xp.GlobalLpPool(p="two")  # error: arg-type
    lp.AdaptiveMaxPool()  # error: call-arg
    xp.AdaptiveMaxPool((2, "all"))  # error: arg-type
    lp.FractionalMaxPool(2)  # error: call-arg
    xp.FractionalMaxPool(2, 2, rule="windows")  # error: arg-type
    lp.FractionalAvgPool(2, 2, rngs=nnx.Rngs(0))  # error: call-arg
    xp.FractionalAvgPool(2, 2, rngs=0)  # error: arg-type
    lp.MaxUnpool((None, 4))  # error: arg-type
    xp.MaxUnpool((None, 4))  # error: arg-type
    lp.MaxPool((2, 2))(x, mask=x)  # error: call-arg
    xp.MaxPool((2, 2))(x, x)  # error: call-arg
    lp.AdaptiveAvgPool((2, 2))(x, where=x)  # error: call-arg
    xp.MaxUnpool((4, 4))(x)  # error: call-arg
    xp.GlobalMaxPool()(x).no_such_method()  # error: attr-defined
    lp.NoSuchPool()  # error: attr-defined
    jaxpool.max_pool(x, (2, 2), 1, "SMAE")  # error: arg-type
    jaxpool.max_pool(x, (2.5, 2))  # error: arg-type
    jaxpool.max_pool(x, "22")  # error: arg-type
    jaxpool.max_pool(x, (2, 2), 1, "VALID", 1)  # error: call-arg
    jaxpool.max_pool(x, (2, 2), implementation="fast")  # error: arg-type
    jaxpool.aggregate(x, "most", jaxpool.whole())  # error: call-overload
    jaxpool.aggregate(x, "max", "whole")  # error: call-overload
    torch.max_pool2d(x, 2, return_indices="yes")  # error: call-overload
    keras.max_pool(x, 2, padding="smae")  # error: arg-type
    flax.max_pool(x, (2, 2), padding="SMAE")  # error: arg-type
    onnx.MaxPool(x, kernel_shape=(2, 2), auto_pad="SMAE")  # error: arg-type
    lp.Aggregate("most", jaxpool.whole())  # error: arg-type
    xp.Aggregate("max", (2, 2))  # error: arg-type
    jaxpool.stream("max", 3)  # error: arg-type
