"""One of the processes of `test_processes`: arguments are ID, COUNT and PORT.

Each brings two devices to the mesh; a pool whose rows are split over all of them
must have, in each process, its part of the value and the gradient.
"""

import functools
import sys

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpool
from tests.cases import value_and_grad

SHAPE = (2, 16, 6, 2)
GEOMETRIES = (
    {"window": (3, 3), "strides": (1, 1)},
    {"window": (3, 3), "strides": (2, 2)},
    {"window": (5, 3), "strides": (2, 1), "dilation": (1, 2)},
)


def by_halo(pool, mesh, geometry):
    """The pool by an exchange in `shard_map`."""

    def local(x):
        names = ("h", None)
        x, inside = jaxpool.halo_exchange(
            x, padding="SAME", axis_names=names, **geometry
        )
        return pool(x, where=inside, **geometry)

    rows = P(None, "h")
    return jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows)


def check(pool, whole, sharding):
    """Compare the parts of this process with the same parts of the whole."""
    rng = np.random.default_rng(0)
    x = rng.permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.float32) / 8
    g = rng.integers(-4, 5, jax.eval_shape(whole, x).shape).astype(np.float32)
    wanted = jax.device_get(jax.jit(value_and_grad, static_argnums=0)(whole, x, g))
    split = [
        jax.make_array_from_callback(a.shape, sharding, a.__getitem__) for a in (x, g)
    ]
    got = jax.jit(functools.partial(value_and_grad, pool))(*split)
    for a, b in zip(got, wanted, strict=True):
        assert len(a.addressable_shards) < len(a.sharding.device_set)
        for shard in a.addressable_shards:
            assert shard.data.shape[1] < b.shape[1]
            np.testing.assert_allclose(shard.data, b[shard.index], rtol=1e-5, atol=1e-5)


def check_ids(sharding):
    """Ids that no process has all of are checked too."""
    ids = np.arange(16, dtype=np.int32)
    split = jax.make_array_from_callback(ids.shape, sharding, ids.__getitem__)
    try:
        jaxpool.segment_sum_pool(np.ones((16, 1), np.float32), split, 8)
    except ValueError as error:
        assert "got segment_ids from 0 to 15" in str(error)  # noqa: PT017
    else:
        raise AssertionError("an id that is too large was accepted")


def main(process, count, port):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        f"127.0.0.1:{port}", count, process, initialization_timeout=60
    )
    mesh = jax.make_mesh((2 * count,), ("h",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, P(None, "h"))
    for pool in (jaxpool.max_pool, jaxpool.avg_pool):
        for geometry in GEOMETRIES:
            whole = functools.partial(pool, padding="SAME", **geometry)
            check(whole, whole, rows)
            check(by_halo(pool, mesh, geometry), whole, rows)
    check_ids(NamedSharding(mesh, P("h")))
    jax.distributed.shutdown()
    print("values and gradients are equal")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
