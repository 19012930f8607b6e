"""Wrong arguments: the error names the argument, its value and the input's shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests.cases import KINDS

SHAPE = (2, 9, 7, 3)
X = np.zeros(SHAPE, np.float32)
WINDOWED = tuple(f"{kind}_pool" for kind in KINDS)
GLOBAL = tuple(f"global_{name}" for name in WINDOWED)
OK = {"window": (2, 2)}
MASK_OF_9 = np.ones(9, bool)


def row(argument, value, shown=None, error=ValueError, **others):
    """One wrong argument; `shown` is how the message must spell its value."""
    shown = str(value) if shown is None else shown
    name = f"{argument}={value!r:.30}".replace("\n", "")
    return pytest.param(argument, {argument: value} | others, shown, error, id=name)


GEOMETRY = [
    row("window", (2, 2, 2, 2)),
    row("window", ()),
    row("window", (0, 2)),
    row("window", (-1, 2)),
    row("window", (2.5, 2), error=(TypeError, ValueError)),
    row("window", "ab", error=(TypeError, ValueError)),
    row("window", None, error=(TypeError, ValueError)),
    row("window", 2),  # an int window needs axes
    row("window", (10, 2), "10"),
    row("window", (5, 2), "5", dilation=3),
    row("window", (2, 2), "2", dilation=2**40),
    row("window", (2, 2, 2), axes=(1, 2)),
    row("window", (2, 2), axes=(1, 2, 3)),
    row("strides", 0),
    row("strides", (1, -1)),
    row("strides", (1, 1, 1)),
    row("strides", 1.5, error=(TypeError, ValueError)),
    row("strides", "VALID", error=(TypeError, ValueError)),
    row("dilation", 0),
    row("dilation", (1, -2)),
    row("dilation", (1, 1, 1)),
    row("dilation", 1.5, error=(TypeError, ValueError)),
    row("padding", "FULL"),
    row("padding", "same"),
    row("padding", -1),
    row("padding", (0, -1), "-1"),
    row("padding", ((0, 0), (-1, 0)), "-1"),
    row("padding", (1, 1, 1)),
    row("padding", ((0, 1, 1), (0, 0))),
    row("padding", 1.5, error=(TypeError, ValueError)),
    row("padding", 2),  # as wide as the window
    row("padding", ((0, 2), (0, 0)), "(0, 2)"),
    row("padding", 3, dilation=2),
    row("axes", (1, 1)),
    row("axes", (1, -3)),
    row("axes", (1, 4)),
    row("axes", (-5, 1)),
    row("axes", (1, 1.5), error=(TypeError, ValueError)),
    row("axes", 1),
]
WHERE = [
    row("where", np.ones((2, 5, 7, 3), bool), "(2, 5, 7, 3)"),
    row("where", np.ones((1, *SHAPE), bool), "(1, 2, 9, 7, 3)"),
    row("where", MASK_OF_9, "(9,)"),
    row("where", np.ones(SHAPE, np.float32), "float32", TypeError),
    row("where", np.ones(SHAPE, np.int32), "int32", TypeError),
]
AVERAGE = [row("divisor", 0), row("divisor", 0.0)]
LP = [row("p", 0), row("p", -1.0), row("p", "two", error=(TypeError, ValueError))]
GLOBAL_AXES = [row("axes", axes) for axes in ((1, 1), (1, -3), 4, (-5, 1))]
IMPLEMENTATION = [row("implementation", "no_such_lowering")]

CALLS = [
    pytest.param(name, *p.values, id=f"{name}-{p.id}")
    for names, table in (
        (("max_pool", "avg_pool"), GEOMETRY),
        (("min_pool", "sum_pool", "lp_pool"), GEOMETRY[::9]),
        (WINDOWED, WHERE),
        (("avg_pool",), AVERAGE),
        (("lp_pool", "global_lp_pool"), LP),
        (GLOBAL, GLOBAL_AXES),
        (GLOBAL, WHERE),
        (WINDOWED, IMPLEMENTATION),
    )
    for name in names
    for p in table
]


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(("name", "argument", "kwargs", "shown", "error"), CALLS)
def test_wrong_argument(name, argument, kwargs, shown, error, jitted):
    given = kwargs if name in GLOBAL else OK | kwargs
    op = getattr(jaxpool, name)
    pool = jax.jit(lambda x: op(x, **given)) if jitted else lambda x: op(x, **given)
    with pytest.raises(error, match=argument) as caught:
        pool(X)
    message = str(caught.value)
    assert shown in message
    assert str(SHAPE) in message
    assert not isinstance(caught.value, AssertionError)


@pytest.mark.parametrize(("argument", "kwargs", "shown", "error"), GEOMETRY)
@pytest.mark.parametrize("name", ["pool", "output_shape"])
def test_wrong_geometry(name, argument, kwargs, shown, error):
    first = {"pool": (X, 0.0, jax.lax.add), "output_shape": (SHAPE,)}[name]
    with pytest.raises(error, match=argument) as caught:
        getattr(jaxpool, name)(*first, **OK | kwargs)
    assert shown in str(caught.value)
    assert str(SHAPE) in str(caught.value)


@pytest.mark.parametrize("name", WINDOWED + GLOBAL)
def test_bool_input(name):
    kwargs = {} if name in GLOBAL else OK
    with pytest.raises(TypeError, match=r"\bx\b.*bool"):
        getattr(jaxpool, name)(np.ones(SHAPE, bool), **kwargs)


@pytest.mark.parametrize("name", WINDOWED + GLOBAL)
def test_complex_input(name):
    op = getattr(jaxpool, name)
    kwargs = {} if name in GLOBAL else OK
    x = np.ones(SHAPE, np.complex64)
    if "sum_" in name or "avg" in name:
        assert op(x, **kwargs).dtype == np.complex64
        return
    with pytest.raises(TypeError, match=r"\bx\b.*complex64"):
        op(x, **kwargs)


@pytest.mark.parametrize("x", [None, "image", [[1.0, 2.0]], object(), {"x": X}])
@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "global_max_pool"])
def test_not_an_array(name, x):
    kwargs = {} if name in GLOBAL else OK
    with pytest.raises(TypeError, match=r"\bx\b"):
        getattr(jaxpool, name)(x, **kwargs)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", GLOBAL)
def test_global_rank_too_small(name, shape):
    with pytest.raises(ValueError, match="axes") as caught:
        getattr(jaxpool, name)(np.ones(shape, np.float32))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_windowed_rank_too_small(name, shape):
    with pytest.raises(ValueError, match="window") as caught:
        getattr(jaxpool, name)(np.ones(shape, np.float32), (2, 2))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("name", WINDOWED + GLOBAL)
def test_zero_sized_pooled_axis(name):
    kwargs = {} if name in GLOBAL else {"window": (1, 1)}
    with pytest.raises(ValueError, match=r"\(2, 0, 7, 3\)"):
        getattr(jaxpool, name)(np.ones((2, 0, 7, 3), np.float32), **kwargs)


@pytest.mark.parametrize("argument", ["window", "strides", "dilation", "padding"])
def test_traced_value_where_a_static_one_is_needed(argument):
    @jax.jit
    def pool(x, value):
        return jaxpool.max_pool(x, **{"window": (2, 2), argument: (value, value)})

    with pytest.raises((TypeError, ValueError), match=f"{argument} must"):
        pool(X, 1)


def test_ceil_mode_accepts_what_floor_mode_refuses():
    x = np.ones((1, 2, 1), np.float32)
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(x, (5,), (4,))
    assert jaxpool.max_pool(x, (5,), (4,), ceil_mode=True).shape == (1, 1, 1)
    with pytest.raises(ValueError, match="window"):
        jaxpool.max_pool(x, (7,), (4,), ceil_mode=True)


def test_pool_refuses_what_is_no_function():
    with pytest.raises(TypeError, match="op"):
        jaxpool.pool(X, 0.0, "add", (2, 2))


def test_error_comes_before_any_array_operation():
    """A shape without data is enough to get the error."""
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    with pytest.raises(ValueError, match="strides"):
        jax.eval_shape(lambda x: jaxpool.avg_pool(x, (2, 2), 0), x)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("max_pool", {"empty_value": 1e6}),
        ("max_pool", {"empty_value": 10**400}),
        ("avg_pool", {"divisor": 10**400}),
        ("lp_pool", {"p": 10**400}),
    ],
)
def test_numbers_that_the_dtype_does_not_hold(name, kwargs):
    x = jnp.ones((4,), jnp.float16)
    with pytest.raises((TypeError, ValueError), match=next(iter(kwargs))):
        getattr(jaxpool, name)(x, 2, axes=0, **kwargs)


@pytest.mark.parametrize("shape", [None, 4, "abcd", (1, 4.0, 4, 1), (-1, 4, 4, 1)])
def test_output_shape_of_no_shape(shape):
    with pytest.raises((TypeError, ValueError), match="shape"):
        jaxpool.output_shape(shape, (2, 2))


def test_errors_of_the_callers_own_operation_come_through():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        jaxpool.pool(jnp.ones(4), 0.0, lambda a, b: a if a > b else b, 2, axes=0)


@pytest.mark.parametrize("pool", [jaxpool.global_lp_pool, jaxpool.lp_pool])
def test_a_traced_order_of_a_norm(pool):
    """C10: in `jax.jit`, and where a derivative by it is asked for."""
    window = {} if pool is jaxpool.global_lp_pool else {"window": 4}
    norms = lambda p: pool(jnp.arange(4.0), axes=0, p=p, **window).sum()  # noqa: E731
    np.testing.assert_allclose(jax.jit(norms)(3.0), 36 ** (1 / 3), rtol=1e-6)
    cells = np.arange(1, 4)
    high, low = ((cells**p).sum() ** (1 / p) for p in (3.001, 2.999))
    np.testing.assert_allclose(jax.grad(norms)(3.0), (high - low) / 0.002, rtol=1e-4)


def test_a_traced_order_of_a_module_names_the_way_out():
    def norms(p):
        return jaxpool.nnx.LpPool(2, axes=0, p=p)(jnp.arange(4.0)).sum()

    for traced in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"^p must .*static.*jaxpool.lp_pool"):
            traced(norms)(2.0)
