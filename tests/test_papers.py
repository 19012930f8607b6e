"""The papers: the pieces whose faults would look like findings."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="the extra `experiments` is not installed")

import jax
import jax.numpy as jnp
from flax import nnx

from experiments import __main__ as command
from experiments.papers import bag_data, bags, limits, mnist1d, papers, speakers


def test_papers_are_run_by_name_only():
    assert "papers" not in command._names(command.parse_arguments([]))
    arguments = command.parse_arguments(["papers", "--only", "bags", "limits"])
    assert arguments.only == ("bags", "limits")
    assert command.SECTIONS["papers"] == tuple(papers.SECTIONS)


def test_the_sections_of_another_part_are_refused(capsys):
    with pytest.raises(SystemExit):
        command.parse_arguments(["papers", "--only", "right"])
    assert "invalid choice" in capsys.readouterr().err


@pytest.mark.parametrize("got", [np.nan, 1e-3])
def test_an_identity_that_does_not_hold_is_seen(got):
    found = {"windows": {row.name: row.tolerance for row in limits.IDENTITIES}}
    assert limits.broken(found) == []
    found["windows"]["quantile 0"] = got
    (line,) = limits.broken(found)
    assert line.startswith("quantile 0, windows: differs from the minimum by")


@pytest.mark.parametrize("stride", [1, 2])
def test_the_product_of_matrices_is_a_convolution(stride):
    layer = mnist1d.Convolution(4, stride, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 8, 4)).astype(np.float32)
    kernel = layer.product.kernel[...].reshape(3, 4, mnist1d.CHANNELS)
    layout = ("NWC", "WIO", "NWC")
    want = jax.lax.conv_general_dilated(
        x, kernel, (stride,), [(1, 1)], dimension_numbers=layout
    )
    want = np.asarray(want) + np.asarray(layer.product.bias[...])
    np.testing.assert_allclose(layer(x), want, rtol=1e-5, atol=1e-6)


def test_weights_are_drawn_as_by_pytorch():
    layer = mnist1d.linear(100, 50, nnx.Rngs(0))
    for weights in (layer.kernel[...], layer.bias[...]):
        assert 0.08 < abs(weights).max() <= 0.1  # 1 / sqrt(100)
        assert weights.min() < 0 < weights.max()


@pytest.mark.parametrize("pool", mnist1d.POOLS)
def test_every_pool_ends_in_ten_classes(pool):
    network = mnist1d.Network(pool, nnx.Rngs(0))
    x = jax.ShapeDtypeStruct((2, mnist1d.LENGTH, 1), np.float32)
    assert jax.eval_shape(network, x).shape == (2, 10)


@pytest.mark.parametrize("draw", [bag_data.any_nine, bag_data.any_share])
def test_the_target_is_the_share_of_nines(draw):
    is_nine = np.arange(40) < 20
    images = is_nine.reshape(-1, 1, 1, 1).astype(np.float32)
    packs = bag_data.make_packs(bag_data.Digits(images, is_nine), 3, draw, seed=0)
    x, bag = packs.inputs
    for pack in range(3):
        for number in range(bag_data.BAGS):
            members = x[pack][bag[pack] == number]
            assert packs.target[pack, number] == np.float32(members.mean())
    assert (packs.target == 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("pool", bags.POOLS)
def test_images_beyond_the_bags_take_no_part(pool):
    network = bags.Network(pool, nnx.Rngs(0))
    images = np.random.default_rng(0).random((1, 16, 14, 14, 1), np.float32)
    bag = np.minimum(np.arange(16), 9)[None]  # one image a bag, the last has seven
    few = network(images, bag)
    assert few.shape == (1, bag_data.BAGS)
    more = np.concatenate([images, np.full((1, 4, 14, 14, 1), 9.0, np.float32)], 1)
    filled = np.concatenate([bag, np.full((1, 4), -1)], 1)
    np.testing.assert_allclose(network(more, filled), few, rtol=1e-5)


def test_attention_without_preference_is_the_plain_statistics():
    attentive = speakers.AttentiveStatistics(nnx.Rngs(0))
    attentive.logits.kernel[...] = jnp.zeros_like(attentive.logits.kernel[...])
    x = np.random.default_rng(0).normal(size=(2, 6, speakers.WIDTH)).astype(np.float32)
    valid = np.arange(6)[None, :, None] < np.array([6, 4])[:, None, None]
    plain = speakers.MeanAndDeviation(nnx.Rngs(0))
    np.testing.assert_allclose(attentive(x, valid), plain(x, valid), atol=1e-5)
