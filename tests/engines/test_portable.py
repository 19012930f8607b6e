"""`implementation="reduce_window"`: one program everywhere, which other tools read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests.cases import EXTREMES, KINDS, SPECIALS, every_extreme, mask, pooling, tied

X = jnp.asarray(np.random.default_rng(0).permutation(126).reshape(1, 9, 7, 2) / 8 - 7)
POOLS = tuple(f"{kind}_pool" for kind in KINDS)
INDEXED = tuple(f"{kind}_pool_with_indices" for kind in EXTREMES)
GEOMETRIES = {
    "tiles": {"window": (2, 2)},
    "overlapping": {"window": (3, 3), "strides": 2, "padding": "SAME"},
    "dilated": {"window": (2, 3), "strides": 1, "dilation": 2, "padding": 1},
    "long": {"window": (9, 1), "strides": 1, "padding": ((4, 4), (0, 0))},
    "whole": {"window": (9, 7)},
    "ceil": {"window": (4, 2), "strides": 3, "ceil_mode": True},
}
# Of `jax.lax`, of `jax.jit` and of custom derivatives; none that chooses a platform.
STANDARD = """
    abs add add_any and bitcast_convert_type broadcast_in_dim clamp concatenate
    convert_element_type copy custom_jvp_call custom_vjp_call div dynamic_slice eq
    exp gather ge gt integer_pow iota is_finite jit le log lt max min mul name ne
    neg not optimization_barrier or pad pjit pow reduce reduce_and reduce_max
    reduce_min reduce_or reduce_precision reduce_sum reduce_window reduce_window_max
    reduce_window_min reduce_window_sum rem reshape rev select_n shift_left
    shift_right_arithmetic shift_right_logical sign slice split sqrt square squeeze
    stop_gradient sub transpose xor
"""


def is_program(value):
    return hasattr(value, "eqns")


def names(jaxpr):
    """The primitives of a program, and of the programs inside it."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(str(equation.primitive))
        for inner in jax.tree.leaves([*equation.params.values()], is_leaf=is_program):
            if is_program(inner):
                found |= names(getattr(inner, "jaxpr", inner))
    return found


def derivatives(pool, where):
    """Values, and derivatives of both modes and to the second order."""
    values = lambda x: jax.tree.leaves(pool(x, where=where))[0]  # noqa: E731
    loss = lambda x: (values(x) ** 2).sum()  # noqa: E731
    return {
        "value": values,
        "indices": lambda x: jax.tree.leaves(pool(x, where=where))[-1],
        "gradient": jax.grad(loss),
        "forward over reverse": lambda x: jax.jvp(jax.grad(loss), (x,), (x,))[1],
        "reverse over reverse": jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum()),
    }


@pytest.mark.slow
@pytest.mark.share(18)
@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("name", [*POOLS, *INDEXED])
def test_D9_programs_by_name_are_of_primitives_of_jax(name, geometry, masked):
    """And compute what programs of the default do."""
    pool = functools.partial(getattr(jaxpool, name), **GEOMETRIES[geometry])
    named = functools.partial(pool, implementation="reduce_window")
    where = X > -5 if masked else None
    for kind, function in derivatives(named, where).items():
        program = jax.make_jaxpr(function)(X)
        assert names(program.jaxpr) <= set(STANDARD.split()), kind
        got = jax.jit(function)(X)
        want = jax.jit(derivatives(pool, where)[kind])(X)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5, err_msg=kind)


def test_D9_values_of_a_softmax_by_name():
    """By default they have a kernel of their own, for short windows."""
    named = functools.partial(jaxpool.softmax_pool, implementation="reduce_window")
    program = jax.make_jaxpr(functools.partial(named, window=(2, 2)))(X)
    assert names(program.jaxpr) <= set(STANDARD.split())


@pytest.mark.share(18)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_D9_forward_mode_is_of_primitives_of_jax(geometry):
    pool = functools.partial(jaxpool.max_pool, **GEOMETRIES[geometry])
    named = functools.partial(pool, implementation="reduce_window")
    with jaxpool.forward_mode():
        for function in (named, jax.grad(lambda x: (named(x) ** 2).sum())):
            tangent = lambda x, f=function: jax.jvp(f, (x,), (x,))[1]  # noqa: E731
            assert names(jax.make_jaxpr(tangent)(X).jaxpr) <= set(STANDARD.split())
        got = jax.jvp(named, (X,), (X,))[1]
        np.testing.assert_array_equal(got, jax.jvp(pool, (X,), (X,))[1])


def test_D9_pool_by_name():
    pool = functools.partial(jaxpool.pool, init=0.0, op=jax.lax.add, window=(2, 2))
    named = functools.partial(pool, implementation="reduce_window")
    assert names(jax.make_jaxpr(named)(X).jaxpr) <= set(STANDARD.split())
    np.testing.assert_allclose(named(X), pool(X), rtol=1e-6)


@pytest.mark.share(18)
@every_extreme
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_D9_programs_by_name_keep_NaN(geometry, kind):
    """XLA hands windows that tile to a library that drops them, on a CPU."""
    x = tied((2, 9, 7, 3), specials=SPECIALS)
    pool = pooling(kind, **GEOMETRIES[geometry])
    for where in (None, mask(x.shape)):
        named = jax.jit(functools.partial(pool, implementation="reduce_window"))
        got = named(x, where=where)
        np.testing.assert_array_equal(got, pool(x, where=where))
        assert np.isnan(got).any()


def test_D9_other_programs_choose_a_platform():
    """The test sees what it is to see."""
    found = names(jax.make_jaxpr(lambda x: jaxpool.avg_pool(x, (2, 2)))(X).jaxpr)
    assert {"platform_index", "jaxpool_linear"} & found
