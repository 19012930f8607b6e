"""What docstrings and docs/conventions.md say of pools is so."""

import functools
import inspect
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpool
from tests import every

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
CONVENTIONS = Path(__file__).parent.parent / "docs" / "conventions.md"
README = Path(__file__).parents[1] / "README.md"
REFUSING = {
    "max_pool": jaxpool.max_pool,
    "min_pool": jaxpool.min_pool,
    "global_max_pool": jaxpool.global_max_pool,
    "global_min_pool": jaxpool.global_min_pool,
    "lp_pool": jaxpool.lp_pool,
    "global_lp_pool": jaxpool.global_lp_pool,
}
SWITCH = r"with jaxpool\.forward_mode\(\):"


def tangent(call, a):
    """The tangent of the values, in the direction of the input itself."""
    pool = lambda x: jax.tree.leaves(call(a | {"x": x}))[0]  # noqa: E731
    return jax.jvp(pool, (a["x"],), (a["x"],))[1]


def is_refused(name):
    stem = name.removeprefix("global_")
    maximum = stem.startswith(("max_pool", "min_pool")) and "indices" not in name
    return maximum or name == "lp_pool-inf"


@pytest.mark.share(18)
@pytest.mark.parametrize("name", REFUSING)
def test_C3_docs_of_what_refuses_forward_mode_name_the_switch(name):
    assert "with jaxpool.forward_mode():" in inspect.getdoc(REFUSING[name])


@pytest.mark.share(18)
@pytest.mark.parametrize("name", ["flax", "keras", "onnx"])
def test_C3_docs_of_dialects_name_the_switch(name):
    assert "with jaxpool.forward_mode():" in getattr(jaxpool.compat, name).__doc__


@pytest.mark.share(18)
@pytest.mark.parametrize("name", every.functions())
def test_C3_C12_who_needs_the_switch_for_forward_mode(name):
    call, a = every.functions()[name], every.arrays()
    if name.startswith(("convert", "max_unpool")):
        return  # of integers; and linear in what is not `x`
    if is_refused(name):
        with pytest.raises(TypeError, match=SWITCH):
            tangent(call, a)
    else:
        assert tangent(call, a).shape
    with jaxpool.forward_mode():
        assert tangent(call, a).shape


@pytest.mark.parametrize("number", range(2))
def test_examples_of_the_readme_run(number):
    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 2
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(examples[number], {})


def test_C3_under_jit_jax_refuses_alone():
    """Its refusal comes after ours could: when the whole is compiled."""
    pool = jax.jit(functools.partial(jaxpool.max_pool, window=2, axes=0))
    x = jnp.arange(4.0)
    with pytest.raises(TypeError, match="custom_vjp") as caught:
        jax.jvp(pool, (x,), (x,))
    assert "forward_mode" not in str(caught.value)


@pytest.mark.share(18)
@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(("window", "strides"), [(3, 2), (3, 1), (40, 1), (40, 39)])
def test_C12_pool_takes_the_name_for_a_cpu(window, strides, platform):
    x, geometry = jnp.arange(80.0), {"window": window, "strides": strides, "axes": 0}
    name = jaxpool.implementation_for("cpu", x.shape, **geometry)
    assert name == ("doubling" if window // strides >= 9 else "slices")

    def program(implementation):
        reduce = functools.partial(jaxpool.pool, init=-math.inf, op=jnp.maximum)
        pool = functools.partial(reduce, **geometry, implementation=implementation)
        return jax.jit(pool).trace(x).lower(lowering_platforms=(platform,)).as_text()

    assert program(None) == program(name)


def test_C11_max_unpool_says_what_becomes_of_wrong_indices_under_jit():
    doc = " ".join(inspect.getdoc(jaxpool.max_unpool).split())
    assert "Traced indices are not checked: a value whose index" in doc
    got = jax.jit(lambda i: jaxpool.max_unpool(np.ones(2), i, 4, axes=0))(
        np.array([9, 1])
    )
    np.testing.assert_array_equal(got, [0, 1, 0, 0])


PAGES = [*README.parent.glob("*.md"), README.parent / "experiments" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_that_sphinx_does_not_build(page):
    """Of files, and of headings in them."""
    link = r"\]\((?!https?:|#)([^)#\s]+)(?:#([^)\s]+))?\)"
    for path, heading in re.findall(link, page.read_text()):
        target = page.parent / path
        assert target.exists(), path
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            names = [re.sub(r"[^\w\- ]", "", t).strip().lower() for t in titles]
            assert heading in [name.replace(" ", "-") for name in names], heading


def test_the_reference_has_every_public_name():
    """The build of the site checks this too, and the names of all other modules."""
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    described = re.findall(r"auto(?:function|class):: jaxpool\.(\w+)", pages)
    in_a_table = re.findall(r"^   (\w+)$", pages, re.MULTILINE)
    source = (CONVENTIONS.parents[1] / "jaxpool" / "__init__.py").read_text()
    public = set(re.findall(r"(\w+) as \1\b", source)) - {"compat", "linen", "nnx"}
    assert sorted(described) == sorted(in_a_table) == sorted(public)


def test_the_reference_has_every_public_module():
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    libraries = [f"compat.{name}" for name in jaxpool.compat.__all__]
    listed = re.findall(r"automodule:: jaxpool\.(\S+)", pages)
    assert sorted(listed) == sorted(["linen", "nnx", *libraries])


@pytest.mark.parametrize(
    ("name", "begin"), [("CHANGELOG.md", "## "), ("CITATION.cff", "version: ")]
)
def test_the_version_is_the_same_everywhere(name, begin):
    lines = (README.parent / name).read_text().splitlines()
    first = next(line for line in lines if line.startswith(begin))
    assert first == begin + jaxpool.__version__
