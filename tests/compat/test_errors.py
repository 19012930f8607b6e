"""Errors of `compat` name the arguments of the function that was called."""

from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from jaxpool.compat import flax, keras, onnx, torch
from jaxpool.geometry.spelling import renamed, spelled

NHWC, NCHW = jnp.ones((1, 6, 5, 2)), jnp.ones((1, 2, 6, 5))
CASES = (
    (lambda: torch.max_pool2d(NCHW, 0), "kernel_size must .* input.shape="),
    (lambda: torch.max_pool2d(NCHW, 7), "kernel_size=.* input.shape="),
    (lambda: torch.lp_pool2d(NCHW, 2, -1), "kernel_size must .* input.shape="),
    (lambda: torch.max_pool2d(NCHW, 2, 0), "stride must .* stride="),
    (lambda: torch.max_pool2d(NCHW, 2, dilation=0), "dilation must "),
    (lambda: torch.avg_pool2d(NCHW, 2, divisor_override=0), "divisor_override must "),
    (lambda: torch.lp_pool2d(NCHW, 2, 7), "kernel_size=.* input.shape="),
    (lambda: torch.adaptive_avg_pool2d(NCHW, -1), "output_size must "),
    (
        lambda: torch.fractional_max_pool2d(
            NCHW, 2, 2, _random_samples=jnp.full((1, 2, 2), 1.5)
        ),
        "_random_samples must .* input.shape=",
    ),
    (lambda: flax.max_pool(NHWC, (9, 2)), "window_shape must .* inputs.shape="),
    (lambda: flax.max_pool(NHWC, (2, 2), padding=2), "padding .* window_shape="),
    (lambda: flax.max_pool(NHWC, (0, 2)), "window_shape must .* inputs.shape="),
    (lambda: flax.pool(NHWC, 0.0, None, (2, 2), None, "VALID"), "reduce_fn must "),
    (lambda: flax.avg_pool(np.ones((2, 2, 1), bool), (1,)), "inputs must .* inputs.dt"),
    (lambda: keras.max_pool(NHWC, 0), "pool_size must .* inputs.shape="),
    (lambda: keras.adaptive_max_pool(NHWC, 0), "output_size must .* output_size="),
    (lambda: onnx.MaxPool(NCHW, kernel_shape=[0, 2]), "kernel_shape must .* X.shape="),
    (
        lambda: onnx.AveragePool(NCHW, kernel_shape=[2, 2], dilations=[0, 1]),
        "dilations must ",
    ),
    (
        lambda: onnx.LpPool(NCHW, kernel_shape=[2, 2], pads=[2, 0, 0, 0]),
        "pads must .* X.shape=",
    ),
)


@pytest.mark.parametrize(("call", "message"), CASES)
def test_errors_name_their_arguments(call, message):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        call()
    assert type(caught.value) in (TypeError, ValueError)
    for name in ("window=", "x.shape", "values="):
        assert name not in str(caught.value)


def test_errors_of_a_callers_function_stay_as_they_are():
    def broken(a, b):
        raise ValueError("window=3")

    with pytest.raises(ValueError, match=r"^window=3") as caught:
        flax.pool(NHWC, 0.0, broken, (2, 2), None, "VALID")
    assert any(entry.name == "broken" for entry in caught.traceback)


def test_torch_refuses_to_divide_integers_by_0():
    with pytest.raises(ValueError, match="divisor_override must not be 0"):
        torch.avg_pool2d(np.ones((1, 1, 2, 2), np.int64), 2, divisor_override=0)


def test_native_names_are_back_after_an_error():
    with pytest.raises(ValueError, match="pool_size must"):
        keras.max_pool(NHWC, 0)
    with pytest.raises(ValueError, match=r"^window must .* x\.shape="):
        jaxpool.max_pool(NHWC, (0, 2))


def test_names_are_those_of_one_thread_and_of_the_innermost_call():
    with renamed(window="pool_size", x="inputs"), ThreadPoolExecutor() as pool:
        assert pool.submit(spelled, "window").result() == "window"
        with renamed(window="kernel_shape"):
            assert (spelled("window"), spelled("x")) == ("kernel_shape", "x")
        assert (spelled("window"), spelled("axes")) == ("pool_size", "axes")
