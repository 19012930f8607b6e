"""Models of others, moved here: a PyTorch network, and a Flax model by its import."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxpool
import jaxpool.linen as pools
from jaxpool.compat import flax as compat_flax
from tests.cases import distinct, quick_jit

CHANNELS = {"stem": (3, 8), "down": (8, 12), "up": (12, 8), "out": (8, 6)}


class SegNet(nn.Module):
    """Pools that are undone by their indices, as in the network of `theirs`."""

    @nn.compact
    def __call__(self, x):
        def conv(name, x):
            return nn.Conv(CHANNELS[name][1], (3, 3), name=name)(x)

        x = nn.relu(conv("stem", x))
        x = jaxpool.max_pool(x, (3, 3), 2, 1, ceil_mode=True)
        sizes = x.shape[1:3]
        x, places = pools.MaxPoolWithIndices((2, 2), ceil_mode=True)(x)
        smaller = x.shape[1:3]
        x = nn.relu(conv("down", x))
        x, inner = pools.MaxPoolWithIndices((2, 2), ceil_mode=True)(x)
        x = pools.MaxUnpool(smaller)(x, inner)
        x = nn.relu(conv("up", x))
        x = pools.MaxUnpool(sizes)(x, places)
        x = conv("out", x)
        x = pools.AdaptiveAvgPool((3, 2))(x)
        x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)  # as PyTorch flattens
        return nn.Dense(5, name="head")(x)


def theirs(torch):
    """The same network in PyTorch."""
    F = torch.nn.functional

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, (before, after) in CHANNELS.items():
                setattr(self, name, torch.nn.Conv2d(before, after, 3, padding=1))
            self.head = torch.nn.Linear(6 * 3 * 2, 5)

        def forward(self, x):
            x = F.relu(self.stem(x))
            x = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
            sizes = x.shape[2:]
            x, places = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            smaller = x.shape[2:]
            x = F.relu(self.down(x))
            x, inner = F.max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            x = F.max_unpool2d(x, inner, 2, output_size=smaller)
            x = F.relu(self.up(x))
            x = F.max_unpool2d(x, places, 2, output_size=sizes)
            x = F.adaptive_avg_pool2d(self.out(x), (3, 2))
            return self.head(x.flatten(1))

    torch.manual_seed(0)
    return Network()


def as_flax(tensors):
    """Weights of PyTorch by name, as the parameters of a Flax module."""
    params = {}
    for name, tensor in tensors.items():
        layer, kind = name.split(".")
        array = tensor.detach().numpy()
        array = array.transpose((2, 3, 1, 0) if array.ndim == 4 else None)
        kind = {"weight": "kernel"}.get(kind, kind)
        params.setdefault(layer, {})[kind] = jnp.asarray(array)
    return params


def test_a_network_of_pytorch_with_its_weights():
    torch = pytest.importorskip("torch")
    network = theirs(torch)
    x = np.random.default_rng(0).normal(size=(2, 3, 23, 18)).astype(np.float32)
    y = network(torch.tensor(x))
    (y**2).sum().backward()
    params = as_flax(dict(network.named_parameters()))
    model = SegNet()

    @quick_jit
    def run(params, x):
        def loss(params):
            y = model.apply({"params": params}, x)
            return (y**2).sum(), y

        return jax.grad(loss, has_aux=True)(params)

    grads, mine = run(params, x.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(mine, y.detach().numpy(), 1e-4, 1e-4)
    wanted = as_flax({n: p.grad for n, p in network.named_parameters()})
    assert jax.tree.structure(grads) == jax.tree.structure(wanted)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        near = 1e-4 * np.abs(want).max()
        np.testing.assert_allclose(got, want, 1e-4, near)


def classifier(pooling):
    """A Flax model whose pools come from the module `pooling`."""

    class Classifier(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Conv(8, (3, 3))(x))
            x = pooling.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
            x = nn.relu(nn.Conv(8, (3, 3))(x))
            x = pooling.avg_pool(x, (2, 2), strides=(2, 2), padding="SAME")
            x = pooling.max_pool(x, (2, 2))
            x = pooling.avg_pool(x, x.shape[1:3])
            return nn.Dense(4)(x.reshape(x.shape[0], -1))

    return Classifier()


def test_a_flax_model_changes_one_import():
    x = distinct((2, 17, 14, 3)) / 500
    before, after = classifier(nn), classifier(compat_flax)
    variables = quick_jit(after.init)(jax.random.key(0), x)

    def step(model):
        loss = lambda v: (model.apply(v, x) ** 2).sum()  # noqa: E731
        with jax.numpy_dtype_promotion("standard"):  # Flax's average divides by an int
            return quick_jit(jax.value_and_grad(loss))(variables)

    for got, want in zip(
        *(jax.tree.leaves(step(model)) for model in (after, before)), strict=True
    ):
        np.testing.assert_allclose(got, want, 1e-4, 1e-5)
