"""What holds for every public name: signatures, docstrings, README, imports."""

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import jaxpool
import jaxpool.linen
import jaxpool.nnx
from tests.every import (
    ADAPTIVE,
    FRACTIONAL,
    GLOBAL,
    POOLS,
    PUBLIC,
    WINDOWED,
    module_of,
)

ROOT = Path(__file__).parent.parent
WITH_MODULE = [*WINDOWED, *GLOBAL, *ADAPTIVE, *FRACTIONAL, "max_unpool", "aggregate"]
NOT_LISTED = ("self", "parent", "name")  # every class of Linen has them
SECTIONS = ("Args", "Returns", "Raises", "Gradient", "References", "Example")
# One folder for each layer, lowest first: imports go down, and around no circle.
LAYERS = ("geometry", "engines", "aggregations", "functions")


MODULES = [module_of(name) for name in WITH_MODULE]


def parameters(function):
    return list(inspect.signature(function).parameters.values())


def sections(name):
    """The text of each section of a docstring, in order; "" is what stands first."""
    titles = "|".join(SECTIONS)
    pieces = re.split(rf"^({titles}):\n", inspect.getdoc(PUBLIC[name]), flags=re.M)
    return {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}


def arguments(name):
    """The text of each argument in a docstring, without its line breaks."""
    text = textwrap.dedent(sections(name).get("Args", ""))
    entries = re.split(r"^(\w+): ", text, flags=re.M)
    texts = (" ".join(entry.split()) for entry in entries[2::2])
    return dict(zip(entries[1::2], texts, strict=True))


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_has_every_section(name):
    """In order, with a line for each argument, written out in the source."""
    takes_any = bool(parameters(PUBLIC[name]))
    wanted = [s for s in SECTIONS if takes_any or s not in ("Args", "Raises")]
    assert list(sections(name)) == ["", *wanted]
    assert list(arguments(name)) == [p.name for p in parameters(PUBLIC[name])]
    assert "\n\n    " in sections(name)[""], "a formula"
    assert ">>> " in sections(name)["Example"]
    source = ast.parse(inspect.getsource(PUBLIC[name])).body[0]
    assert ast.get_docstring(source) == inspect.getdoc(PUBLIC[name])
    assert "{" not in inspect.getdoc(PUBLIC[name]), "a placeholder"


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_names_the_shared_rules(name):
    line = "Shared rules (padding, axes, masks, dtypes, ties): docs/conventions.md."
    found = re.search(r'"([^"]+)" in docs/conventions\.md', sections(name)[""])
    if found:
        assert f"\n## {found[1]}\n" in (ROOT / "docs/conventions.md").read_text()
    else:
        assert line in sections(name)[""].splitlines()


@pytest.mark.parametrize("name", PUBLIC)
def test_arguments_are_short(name):
    for argument, text in arguments(name).items():
        assert len(f"{argument}: {text}") <= 2 * 76, argument


# Functions that describe a shared argument in other words than the rest, and why.
OTHER_WORDS = {
    "x": [
        (r"((adaptive|fractional)_avg|sum|avg)_pool$", "complex dtypes too"),
        (r"global_(sum|avg)_pool$", "complex dtypes too, and one batch axis"),
        (r"global_", "one batch axis"),
        (r"pool$", "any dtype"),
        (r"aggregate$", "what the aggregation accepts"),
        (r"segment_(max|min)", "any shape"),
        (r"segment_(sum|avg)", "any shape, complex dtypes too"),
        (r"pool_by_positions$", "tokens"),
        (r"halo_exchange$", "a shard"),
    ],
    "window": [
        (r"fractional_", "the size of a bin, which may be None"),
        (r"pool_by_positions$", "the size of a tile"),
    ],
    "output_shape": [
        (r"adaptive_", "may be None on an axis"),
        (r"pool_by_positions$", "the number of tiles"),
    ],
    "implementation": [
        (r"pool$", "its default does not depend on the platform"),
        (r"(var|std|median)_pool$", "there is one form"),
    ],
    "p": [(r"(global_)?power_mean", "it may be an array")],
    "by": [(r"pool_by_positions$", "one of them")],
    "over": [(r"stream$", "causal windows")],
    "eps": [(r"(global_)?std", "it is added")],
    "shape": [(r"convert_indices$", "in the layout of another library")],
    "indices": [(r"convert_indices$", "of any convention")],
}


def reason(argument, name):
    """Why a function has other words for an argument, if it may."""
    rules = OTHER_WORDS.get(argument, ())
    return next((why for rule, why in rules if re.match(rule, name)), None)


@pytest.mark.parametrize("argument", sorted({a for f in PUBLIC for a in arguments(f)}))
def test_shared_arguments_have_the_same_words(argument):
    texts = {}
    for name in PUBLIC:
        if argument in arguments(name):
            same = texts.setdefault(reason(argument, name), set())
            same.add(arguments(name)[argument])
    assert all(len(same) == 1 for same in texts.values()), texts
    reasons = {why for _, why in OTHER_WORDS.get(argument, ())}
    assert texts.keys() - {None} == reasons, "a reason that nothing needs"
    assert len(set.union(*texts.values())) == len(texts), "other words that are equal"


FAMILIES = {
    "windowed": WINDOWED,
    "global": GLOBAL,
    "adaptive": ADAPTIVE,
    "fractional": FRACTIONAL,
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("section", ["Raises", "Returns"])
def test_shared_sections_have_the_same_words(family, section):
    """Errors begin alike. Results are equal, except for the dtype and for indices."""
    texts = [" ".join(sections(name)[section].split()) for name in FAMILIES[family]]
    if section == "Raises":
        shortest = min(texts, key=len)
        assert all(text.startswith(shortest) for text in texts), texts
    else:
        plain = {text.replace(" (float32 for integers)", "") for text in texts}
        assert len({text for text in plain if "indices" not in text}) == 1, plain
        assert len({text for text in plain if "indices" in text}) <= 1, plain


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
        allowed += ("segment_ids", "num_segments")
        assert positional == (parameter.name in allowed)


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
@pytest.mark.parametrize("name", WITH_MODULE)
def test_modules_take_the_arguments_of_their_function(name, flavour):
    module = getattr(flavour, module_of(name))
    expected = {p.name: (p.default, p.annotation) for p in parameters(PUBLIC[name])}
    of_calls = ("x", "where", "logits", "key", "samples", "values", "indices")
    for of_the_call in of_calls:
        expected.pop(of_the_call, None)
    init = parameters(module.__init__)
    given = {p.name: (p.default, p.annotation) for p in init}
    drawing = ("deterministic", "rng_collection", "rngs")
    for not_ours in ("self", "parent", "name", *drawing):
        given.pop(not_ours, None)
    assert given == expected
    assert f"jaxpool.{name}" in module.__doc__
    assert module._function is PUBLIC[name]


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
def test_there_is_one_module_for_each_function(flavour):
    classes = {
        name
        for name, kind in vars(flavour).items()
        if getattr(kind, "__module__", None) == flavour.__name__ and name[0] != "_"
    }
    assert classes == set(MODULES)
    assert flavour.__all__ == sorted(classes)


@pytest.mark.parametrize("flavour", [jaxpool.linen, jaxpool.nnx])
@pytest.mark.parametrize("name", MODULES)
def test_docs_of_modules_show_fields_and_a_call(name, flavour):
    module = getattr(flavour, name)
    listed = re.search(r"Fields: `(.+?)`", " ".join(module.__doc__.split()))[1]
    given = [p for p in parameters(module.__init__) if p.name not in NOT_LISTED]
    want = [p.replace(annotation=p.empty) for p in given]
    shown = parameters(eval(f"lambda {listed}: None"))
    assert shown == want
    assert re.search(rf">>> .*\b{name}\(", module.__doc__)


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
    """The modules of the package that each one imports, the package itself too."""
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
    return {name: names & found.keys() for name, names in found.items()}


def layer(module):
    folder = module.split(".")[1]
    return LAYERS.index(folder) if folder in LAYERS else len(LAYERS)


def test_imports_go_one_way():
    graph = imports()
    assert len(graph) > 40
    del graph["jaxpool"]
    for module, names in graph.items():
        is_below = layer(module) < len(LAYERS)
        assert not (is_below and "jaxpool" in names), f"{module} imports the package"
        names -= {f"jaxpool.{folder}" for folder in (*LAYERS, "compat")}  # no names
        names.discard("jaxpool")
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
