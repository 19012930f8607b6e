"""What holds for every public name: signatures, docstrings, README, imports."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxpool
import jaxpool.linen
import jaxpool.nnx

ROOT = Path(__file__).parent.parent
PUBLIC = {
    name: value
    for name, value in vars(jaxpool).items()
    if inspect.isfunction(value) and not name.startswith("_")
}
POOLS = {
    name: f
    for name, f in PUBLIC.items()
    if re.search(r"pool(_with_indices)?$", name) and "unpool" not in name
}
GLOBAL = {name: f for name, f in POOLS.items() if "global" in name}
ADAPTIVE = {name: f for name, f in POOLS.items() if "adaptive" in name}
FRACTIONAL = {name: f for name, f in POOLS.items() if "fractional" in name}
WINDOWED = {
    name: f
    for name, f in POOLS.items()
    if name not in {"pool"} | set(GLOBAL) | set(ADAPTIVE) | set(FRACTIONAL)
}
SECTIONS = ("Args", "Returns", "Raises", "Gradient", "References", "Example")
# One folder for each layer, lowest first: imports go down, and around no circle.
LAYERS = ("geometry", "engines", "aggregations", "functions")


def parameters(function):
    return list(inspect.signature(function).parameters.values())


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_has_every_section(name):
    doc = inspect.getdoc(PUBLIC[name])
    takes_any = bool(parameters(PUBLIC[name]))
    sections = SECTIONS if takes_any else set(SECTIONS) - {"Args", "Raises"}
    places = [doc.find(f"\n{s}:\n") for s in SECTIONS if s in sections]
    assert places == sorted(places)
    assert -1 not in places
    assert "{" not in doc, "a shared part was not filled in"
    for parameter in parameters(PUBLIC[name]):
        assert re.search(rf"^\s+{parameter.name}: ", doc, re.M), parameter.name
    assert ">>> " in doc


@pytest.mark.parametrize("name", WINDOWED)
def test_windowed_pools_share_their_first_arguments(name):
    names = [p.name for p in parameters(WINDOWED[name])]
    assert names[:4] == ["x", "window", "strides", "padding"]
    assert names[4:9] == ["dilation", "axes", "ceil_mode", "where", "empty_value"]
    assert names[-1] == "implementation"


@pytest.mark.parametrize("name", GLOBAL)
def test_global_pools_share_their_arguments(name):
    names = [p.name for p in parameters(GLOBAL[name])]
    assert names[:5] == ["x", "axes", "keepdims", "where", "empty_value"]


@pytest.mark.parametrize("name", POOLS)
def test_everything_after_padding_is_keyword_only(name):
    for parameter in parameters(POOLS[name]):
        positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        allowed = ("x", "window", "strides", "padding", "init", "op", "output_shape")
        assert positional == (parameter.name in allowed)


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
@pytest.mark.parametrize("name", [*WINDOWED, *GLOBAL, *ADAPTIVE, *FRACTIONAL])
def test_modules_take_the_arguments_of_their_function(name, flavour):
    module = getattr(flavour, "".join(part.title() for part in name.split("_")))
    expected = {p.name: p.default for p in parameters(POOLS[name])}
    for of_the_call in ("x", "where", "key", "samples"):
        expected.pop(of_the_call, None)
    given = {p.name: p.default for p in parameters(module.__init__)}
    drawing = ("deterministic", "rng_collection", "rngs")
    for not_ours in ("self", "parent", "name", *drawing):
        given.pop(not_ours, None)
    assert given == expected
    assert f"jaxpool.{name}" in module.__doc__


@pytest.mark.parametrize("name", PUBLIC)
def test_readme_names_it(name):
    assert f"`{name}" in (ROOT / "README.md").read_text()


def test_import_brings_no_flax():
    code = "import sys, jaxpool; sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LAZY = """
import sys, jaxpool
parts = {"compat", "linen", "nnx"}
assert parts <= set(dir(jaxpool)) and "max_pool" in dir(jaxpool)
assert set(dir(jaxpool.compat)) >= {"flax", "keras", "onnx", "torch"}
jaxpool.compat.torch.max_pool2d, jaxpool.compat.onnx.MaxPool
assert "flax" not in sys.modules
jaxpool.nnx.MaxPool, jaxpool.linen.MaxPool
assert "flax" in sys.modules and jaxpool.nnx is sys.modules["jaxpool.nnx"]
for module in (jaxpool, jaxpool.compat):
    assert not hasattr(module, "max_pol")
"""


def test_C8_parts_are_imported_when_first_used():
    subprocess.run([sys.executable, "-c", LAZY], check=True)


@pytest.mark.parametrize("name", ["torch", "flax", "keras", "onnx"])
def test_compat_does_not_import_what_it_stands_for(name):
    code = f"import sys, jaxpool.compat.{name}; sys.exit('{name}' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    module = importlib.import_module(f"jaxpool.compat.{name}")
    for function in vars(module).values():
        if inspect.isfunction(function) and function.__module__ == module.__name__:
            assert function.__name__.startswith("_") or "`" in function.__doc__


def imports():
    """The modules of the package that each one imports."""
    found = {}
    for path in (ROOT / "jaxpool").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
                names.add(node.module)
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return {name: names & (found.keys() - {"jaxpool"}) for name, names in found.items()}


def layer(module):
    folder = module.split(".")[1]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def test_imports_go_one_way():
    graph = imports()
    assert len(graph) > 40
    del graph["jaxpool"]
    for module, names in graph.items():
        names -= {f"jaxpool.{folder}" for folder in (*LAYERS, "compat")}  # no names
        assert all(layer(name) <= layer(module) for name in names), (module, names)
    graphlib.TopologicalSorter(graph).prepare()  # raises if there is a circle


def test_top_level_holds_flax_layers_only():
    found = {path.name for path in (ROOT / "jaxpool").iterdir() if path.name[0] != "_"}
    assert found == {*LAYERS, "compat", "linen.py", "nnx.py", "py.typed"}


def test_geometry_imports_no_jax():
    known = {"math", "operator", "collections", "contextlib", "contextvars"}
    known |= {"dataclasses", "functools", "types", "typing"}
    for path in (ROOT / "jaxpool" / "geometry").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                is_own = node.module.startswith("jaxpool.geometry.")
                assert is_own or node.module.split(".")[0] in known, path
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= known, path


def test_package_has_no_assert():
    for path in (ROOT / "jaxpool").rglob("*.py"):
        tree = ast.parse(path.read_text())
        assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), path
