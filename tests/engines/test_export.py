"""Programs of `jax.export`: every operator, every platform, sizes left open."""

import functools
import importlib.util
import math
import re
import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import symbolic_shape

import jaxpool
from jaxpool.compat import onnx
from jaxpool.engines.kernel import PLATFORMS
from tests import oracle
from tests.cases import (
    CLOSE,
    cotangent,
    distinct,
    every_kind,
    mask,
    quick_jit,
    tied,
)
from tests.every import ADAPTIVE, FRACTIONAL, GLOBAL, POOLS, SEGMENTED, WINDOWED

needs_serialization = pytest.mark.skipif(
    importlib.util.find_spec("flatbuffers") is None,
    reason="jax.export serializes with flatbuffers, of the extra 'test'",
)
MASKED = [*WINDOWED, *GLOBAL, *SEGMENTED]
GEOMETRY = {"window": (3, 2), "strides": (2, 1), "padding": "SAME"}
BINS = {"output_shape": (3, 2)}
DRAWN = BINS | {"window": (2, 2), "samples": np.full(2, 0.5, np.float32)}
ROWS = {"segment_ids": np.int32([1, 0, 1, -1, 2]), "num_segments": 4, "axis": 1}


def first_not_zero(one, other):
    """Associative, with identity 0, and the order of the cells matters."""
    return jnp.where(one == 0, other, one)


ARGUMENTS = {
    **dict.fromkeys(WINDOWED, GEOMETRY),
    **{name: {} for name in GLOBAL},
    **dict.fromkeys(ADAPTIVE, BINS),
    **dict.fromkeys(FRACTIONAL, DRAWN),
    **dict.fromkeys(SEGMENTED, ROWS),
    "pool": {**GEOMETRY, "init": 0, "op": first_not_zero},
}


def value_and_gradient(name, **kwargs):
    """A function of an input, and of a mask if it is given one."""

    def floating(x, *where):
        options = dict(zip(["where"], where, strict=False))
        pooled = getattr(jaxpool, name)(x, **kwargs, **options)
        y, *indices = pooled if isinstance(pooled, tuple) else (pooled,)
        return (y * y).sum(), (y, *indices)

    def run(x, *where):
        return jax.grad(floating, has_aux=True)(x, *where)

    return run


def all_close(got, want, label=""):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, err_msg=label, **CLOSE)


# --- every operator, every platform ---


@pytest.mark.share(24)
@needs_serialization
@pytest.mark.parametrize(
    ("name", "masked"), [*((n, False) for n in POOLS), *((n, True) for n in MASKED)]
)
def test_round_trip(name, masked):
    x = distinct((2, 5, 4, 2)) / 8 + 0.3
    arrays = (x, mask(x.shape)) if masked else (x,)
    run = quick_jit(value_and_gradient(name, **ARGUMENTS[name]))
    exported = jax.export.export(run, platforms=PLATFORMS)(*arrays)
    assert exported.platforms == PLATFORMS
    again = jax.export.deserialize(exported.serialize())
    all_close(quick_jit(again.call)(*arrays), run(*arrays))


@needs_serialization
def test_round_trip_of_unpooling():
    values, indices = jaxpool.max_pool_with_indices(distinct((2, 6, 4, 2)), (2, 2))

    def unpooled(values, indices):
        y = jaxpool.max_unpool(values, indices, (6, 4))
        return (y * y).sum(), y

    run = quick_jit(jax.grad(unpooled, has_aux=True))
    exported = jax.export.export(run, platforms=PLATFORMS)(values, indices)
    again = jax.export.deserialize(exported.serialize())
    all_close(quick_jit(again.call)(values, indices), run(values, indices))


@needs_serialization
def test_programs_run_where_there_is_no_jaxpool(tmp_path):
    x = distinct((2, 5, 4, 2)) / 8 + 0.3
    np.save(tmp_path / "x.npy", x)
    shape = symbolic_shape("b, h, w, 2", constraints=["h >= 3", "w >= 3"])
    wants = {}
    for name in ("max_pool", "avg_pool", "lp_pool", "global_max_pool"):
        kwargs = {} if "global" in name else {"window": (3, 2), "strides": 2}
        run = quick_jit(value_and_gradient(name, **kwargs))
        for which, spec in ("static", x), ("open", jax.ShapeDtypeStruct(shape, "f4")):
            exported = jax.export.export(run, platforms=PLATFORMS)(spec)
            (tmp_path / f"{name}-{which}").write_bytes(exported.serialize())
            wants[f"{name}-{which}"] = jax.tree.leaves(run(x))
    code = f"""
import sys, pathlib, numpy as np
sys.modules["jaxpool"] = None
import jax, jax.export
path = pathlib.Path({str(tmp_path)!r})
x = np.load(path / "x.npy")
for name in {list(wants)!r}:
    program = jax.export.deserialize((path / name).read_bytes())
    np.savez(path / f"{{name}}.npz", *jax.tree.leaves(program.call(x)))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, want in wants.items():
        all_close(list(np.load(tmp_path / f"{name}.npz").values()), want, name)


@pytest.mark.share(24)
@needs_serialization
@pytest.mark.parametrize("name", ["max_pool", "avg_pool", "lp_pool"])
def test_the_gradient_goes_with_the_bytes(name):
    pool = functools.partial(getattr(jaxpool, name), **GEOMETRY)
    x = distinct((2, 5, 4, 2)) / 8 + 0.3
    serialized = jax.export.export(quick_jit(pool))(x).serialize(vjp_order=1)
    again = jax.export.deserialize(serialized)
    grads = (
        quick_jit(jax.grad(lambda x, f=f: (f(x) ** 2).sum()))
        for f in (pool, again.call)
    )
    got, want = (grad(x) for grad in grads)
    all_close(got, want)


# --- sizes left open ---

OPEN = (
    ({"window": (3, 2), "strides": (2, 1)}, False),
    (
        {"window": (3, 3), "strides": 1, "padding": "SAME"},
        True,
    ),
    (
        {"window": (3, 2), "strides": (2, 3), "padding": ((1, 2), (0, 1))},
        False,
    ),
    (
        {"window": (2, 2), "strides": 3, "padding": "CAUSAL"},
        True,
    ),
    # D10: as much padding as the sizes ask for
    ({"window": (3, 2), "strides": 2, "padding": "SAME"}, True),
    (
        {
            "window": (2, 3),
            "strides": (2, 3),
            "padding": "SAME_LOWER",
            "dilation": (2, 1),
        },
        False,
    ),
    (  # some windows lie in the padding alone
        {
            "window": (2, 3),
            "padding": ((3, 3), (2, 2)),
            "dilation": (4, 2),
            "strides": 2,
        },
        False,
    ),
)


def sized(text, *constraints):
    shape = symbolic_shape(text, constraints=constraints)
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def example(kind, shape):
    """Ties, and for maxima and minima also infinities and NaN."""
    specials = (np.nan, np.inf, -np.inf) if kind in ("max", "min") else ()
    return tied(shape, seed=sum(shape), specials=specials)


def check_open(kind, name, cases, spec, shapes):
    """Value and gradient of an exported program, for each of `shapes`, by the oracle.

    A case is what the operator takes, what the oracle takes, and whether with a mask.
    """

    def run(x, where, gs):
        found = []
        for (kwargs, _, masked), g in zip(cases, gs, strict=True):
            pool = functools.partial(getattr(jaxpool, name), **kwargs)
            pool = functools.partial(pool, where=where) if masked else pool
            y, vjp = jax.vjp(pool, x)
            found.append((y, vjp(g)[0]))
        return found

    pools = [
        functools.partial(getattr(jaxpool, name), **kwargs) for kwargs, *_ in cases
    ]
    where = jax.ShapeDtypeStruct(spec.shape, jnp.bool_)
    gs = [jax.eval_shape(pool, spec) for pool in pools]
    program = jax.export.export(quick_jit(run), platforms=("cpu", "tpu"))(
        spec, where, gs
    )
    for shape in shapes:
        x, where = example(kind, shape), mask(shape)
        given, wants = [], []
        for pool, (_, for_oracle, masked) in zip(pools, cases, strict=True):
            given.append(cotangent(jax.eval_shape(pool, x).shape).astype(np.float32))
            kwargs = for_oracle(shape) | ({"where": where} if masked else {})
            shaped = oracle.pool(x, kind, **kwargs)
            want = oracle.pool_and_grad(
                x, given[-1].reshape(shaped.shape), kind, **kwargs
            )
            wants.append((want[0].reshape(given[-1].shape), want[1]))
        all_close(quick_jit(program.call)(x, where, given), wants, f"{name} of {shape}")


@pytest.mark.share(24)
@every_kind
def test_windows_over_open_sizes(kind):
    spec = sized("b, h, w, 2", "h >= 3", "w >= 3")
    cases = [
        (kwargs, lambda shape, kwargs=kwargs: kwargs, masked) for kwargs, masked in OPEN
    ]
    check_open(kind, f"{kind}_pool", cases, spec, [(1, 3, 6, 2), (2, 8, 5, 2)])


@pytest.mark.share(24)
@every_kind
def test_whole_axes_of_open_sizes(kind):
    def whole(shape):
        return {"window": shape[1:3], "axes": (1, 2)}

    cases = [({}, whole, masked) for masked in (False, True)]
    shapes = [(1, 3, 6, 2), (2, 1, 5, 2)]
    check_open(kind, f"global_{kind}_pool", cases, sized("b, h, w, 2"), shapes)


def test_whole_axes_some_of_which_are_open():
    cases = [({}, lambda shape: {"window": shape[1:3], "axes": (1, 2)}, False)]
    check_open("max", "global_max_pool", cases, sized("2, 4, w, 3"), [(2, 4, 5, 3)])


def test_axes_apart_of_open_sizes():
    kwargs = {"window": (2, 3), "strides": (1, 2), "axes": (-1, 0)}
    ascending = {"window": (3, 2), "strides": (2, 1), "axes": (0, 2)}
    cases = [(kwargs, lambda shape: ascending, False)]
    spec = sized("n, 2, c", "n >= 3", "c >= 2")
    check_open("max", "max_pool", cases, spec, [(6, 2, 4)])


@pytest.mark.share(24)
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_padding_that_is_data_of_open_sizes(mode):
    pool = functools.partial(
        jaxpool.avg_pool, window=(3, 3), padding=((0, 2), (2, 1)), padding_mode=mode
    )

    def run(x):
        return jax.grad(lambda x: (pool(x, where=x > 0) ** 2).sum())(x), pool(x)

    spec = sized("b, h, w, 2", "h >= 3", "w >= 3")
    x = distinct((2, 5, 4, 2)) / 8 + 0.3
    run = quick_jit(run)
    all_close(quick_jit(jax.export.export(run)(spec).call)(x), run(x))


@pytest.mark.share(24)
@pytest.mark.parametrize("p", [1.0, 3.0, math.inf])
def test_open_powers(p):
    for name, kwargs in ("lp_pool", {"window": 2, "axes": 1}), ("global_lp_pool", {}):
        cases = [
            (
                {**kwargs, "p": p},
                lambda shape, kwargs=kwargs: {
                    "window": shape[1],
                    "axes": 1,
                    "p": p,
                    **kwargs,
                },
                False,
            )
        ]
        check_open("lp", name, cases, sized("b, t, 2", "t >= 2"), [(2, 5, 2)])


@pytest.mark.share(24)
@pytest.mark.parametrize(
    "name", [n for n in [*MASKED, "pool"] if re.search("indices$|^pool$", n)]
)
def test_other_operators_over_open_sizes(name):
    kwargs = {**ARGUMENTS[name], "padding": 1} if "window" in ARGUMENTS[name] else {}
    run = quick_jit(value_and_gradient(name, **kwargs))
    spec = sized("b, h, w, 2", "h >= 3", "w >= 3")
    program = jax.export.export(run, platforms=("cpu", "tpu"))(spec)
    x = tied((2, 5, 4, 2))
    all_close(quick_jit(program.call)(x), run(x))


def model(x):
    x = jaxpool.max_pool(x, (3, 3), 2)
    x = jaxpool.avg_pool(x, (2, 2), 2, 1, padding_mode="reflect")
    x = jaxpool.max_pool(x, (3, 3), 1, "SAME")
    return jaxpool.global_max_pool(x) + jaxpool.global_avg_pool(x)


@pytest.mark.slow
def test_layers_over_open_sizes():
    """Also second derivatives, forward mode, and a mapped batch."""

    def loss(x):
        return (model(x) ** 3).sum()

    def run(x):
        with jaxpool.forward_mode():
            tangent = jax.jvp(model, (x,), (x + 1,))[1]
        product = jax.jvp(jax.grad(loss), (x,), (x + 1,))[1]
        return tangent, product, jax.vmap(jax.grad(lambda x: loss(x[None])))(x)

    program = jax.export.export(quick_jit(run))(sized("b, h, w, 2", "h >= 7", "w >= 7"))
    x = distinct((2, 7, 10, 2)) / 64
    all_close(quick_jit(program.call)(x), quick_jit(run)(x))


def test_integers_of_open_sizes_do_not_overflow():
    program = jax.export.export(quick_jit(jaxpool.global_avg_pool))(
        jax.ShapeDtypeStruct(symbolic_shape("b, t, 1"), jnp.int16)
    )
    x = np.full((1, 70_000, 1), 2**15 - 1, np.int16)
    np.testing.assert_allclose(program.call(x), [[2**15 - 1]], rtol=1e-3)


def test_the_residual_is_one_position_an_output():
    spec = sized("b, h, w, 2", "h >= 3", "w >= 3")
    pool = functools.partial(jaxpool.max_pool, window=(3, 3), strides=2)
    (kept,) = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(pool, x)[1], spec))
    assert kept.dtype == jnp.uint8
    assert kept.shape == jaxpool.output_shape(spec.shape, (3, 3), 2)
    pool = jaxpool.global_max_pool
    (kept,) = jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(pool, x)[1], spec))
    assert kept.dtype == jnp.uint32
    assert kept.shape == (spec.shape[0], 1, 1, 2)


def test_sizes_that_are_multiples_of_the_stride():
    shape = symbolic_shape("b, 2*h, 6, 1", constraints=["h >= 2"])
    for kwargs in {"padding": "SAME"}, {"ceil_mode": True, "padding": ((0, 1), (1, 1))}:
        out = jaxpool.output_shape(shape, (3, 3), 2, **kwargs)
        assert str(out[1]) == "h"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": (3, 3), "padding": "VALID"}, "on axis 1.*constraint 'h >= 3'"),
        ({"padding": "SAME", "strides": 3}, "window .* size h of axis 1"),
        ({"padding": "SAME_LOWER", "strides": 3}, "window .* size h of axis 1"),
        ({"padding": "SAME", "padding_mode": "reflect"}, "padding .* size of axis 1"),
        ({"ceil_mode": True}, "ceil_mode .* size h of axis 1"),
        ({"implementation": "slices"}, "implementation must be None"),
        ({"padding_mode": "reflect", "padding": 1}, "axis 1.*constraint 'h >= 2'"),
    ],
)
def test_refused(kwargs, message):
    arguments = {"window": (2, 2), "strides": 2, "padding": 1, **kwargs}
    pool = functools.partial(jaxpool.avg_pool, **arguments)
    with pytest.raises(ValueError, match=rf"{message}.*x\.shape=\(b, h, 5, 1\)"):
        jax.eval_shape(pool, sized("b, h, 5, 1"))


@pytest.mark.share(24)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_bins_that_divide_open_sizes(name):
    """D10: one bin, or one for each cell and equal ones of the axes that are known."""
    spec, x = sized("b, h, 6, w"), tied((2, 3, 6, 4))
    for bins in (None, 3, None), (1, 1, 1):
        run = value_and_gradient(name, output_shape=bins, axes=(1, 2, 3))
        run = quick_jit(run)
        all_close(quick_jit(jax.export.export(run)(spec).call)(x), run(x))


@pytest.mark.share(24)
@pytest.mark.parametrize("bins", [(1, 2), (None, 2), (1, None), (1, 5), 2])
def test_other_bins_beside_open_sizes_are_refused(bins):
    pool = functools.partial(jaxpool.adaptive_max_pool, output_shape=bins, axes=(1, 2))
    with pytest.raises(
        ValueError, match=r"output_shape must be 1 .* got output_shape="
    ):
        jax.eval_shape(pool, sized("b, h, 5, 1"))


@pytest.mark.share(24)
@pytest.mark.parametrize(
    "target", ["torch", "tf", "tf_with_batch", "onnx", "onnx_column_major"]
)
def test_indices_of_open_sizes_are_converted(target):
    """D10: forth and back, with a symbolic batch and with nothing but symbols."""

    def run(x):
        indices = jaxpool.max_pool_with_indices(x, (2, 2))[1]
        there = jaxpool.convert_indices(indices, x.shape, "jaxpool", target)
        return there, jaxpool.convert_indices(there, x.shape, target, "jaxpool")

    x = tied((2, 5, 4, 3))
    want = run(x)
    for text in "b, 5, 4, 3", "b, h, w, c":
        limits = ("h >= 2", "w >= 2") if "h" in text else ()
        program = jax.export.export(quick_jit(run))(sized(text, *limits))
        all_close(quick_jit(program.call)(x), want)


def test_onnx_with_an_open_batch():
    """D10: indices of `MaxPool`, in both orders, and the way back."""
    options = {"kernel_shape": [2, 2], "strides": [2, 2]}

    def run(x):
        y, i = onnx.MaxPool(x, **options, outputs=2)
        columns = onnx.MaxPool(x, **options, outputs=2, storage_order=1)[1]
        larger = (*x.shape[:2], 5, 7)
        return y, i, columns, onnx.MaxUnpool(y, i, larger, **options)

    x = tied((3, 2, 4, 6))
    program = jax.export.export(quick_jit(run))(sized("b, 2, 4, 6"))
    all_close(quick_jit(program.call)(x), run(x))


@pytest.mark.share(24)
@pytest.mark.parametrize("name", [*ADAPTIVE, *FRACTIONAL])
def test_bins_of_open_sizes_are_refused(name):
    pool = functools.partial(getattr(jaxpool, name), **ARGUMENTS[name])
    told = r"(h of axis 1|output_shape must be 1).*x\.shape=\(b, h, 5, 1\)"
    with pytest.raises(ValueError, match=told):
        jax.eval_shape(pool, sized("b, h, 5, 1"))


def test_shapes_and_lowerings_are_told_of_open_sizes():
    b, h = symbolic_shape("b, h", constraints=["h >= 3"])
    assert jaxpool.output_shape((b, 6, 4, 2), (2, 2)) == (b, 3, 2, 2)
    assert jaxpool.output_shape([b, h, 4, 2], (3, 2), 1) == (b, h - 2, 3, 2)
    lowering = jaxpool.implementation_for("cpu", (b, h, 4, 2), (3, 2))
    assert lowering == "reduce_window"
    with pytest.raises(TypeError, match="shape must be"):
        jaxpool.output_shape((b, h, 4.5, 2), (2, 2))


@needs_serialization
def test_unpooling_with_a_symbolic_batch():
    def run(x):
        def total(x):
            values, indices = jaxpool.max_pool_with_indices(x, (2, 2))
            back = jaxpool.max_unpool(values, indices, (4, 6))
            return (back**2).sum(), back

        return jax.grad(total, has_aux=True)(x)

    spec = sized("b, 4, 6, 2")
    exported = jax.export.export(quick_jit(run), platforms=PLATFORMS)(spec)
    again = jax.export.deserialize(exported.serialize())
    x = distinct((3, 4, 6, 2))
    all_close(quick_jit(again.call)(x), quick_jit(run)(x))


@pytest.mark.share(24)
@needs_serialization
@pytest.mark.parametrize("name", ["global_max_pool", "global_avg_pool", "max_pool"])
def test_programs_hold_no_constants_of_the_size_of_a_window(name):
    """Only such as are as long as an axis: 8 bytes a cell of it for each platform."""
    options = {"window": (512, 512)} if name == "max_pool" else {}
    program = value_and_gradient(name, **options)
    x = jax.ShapeDtypeStruct((1, 1024, 1024, 1), np.float32)
    exported = jax.export.export(jax.jit(program), platforms=PLATFORMS)(x)
    assert len(exported.mlir_module_serialized) < 8 * 4 * 1024 + 40_000
