"""How Sphinx builds the site: `python -m sphinx -W --keep-going docs docs/_build/html`.

Every picture and every lesson is computed while the site is built. Nothing is
downloaded: `inventories/` lists the pages of other projects that are linked to.
"""

import importlib
import inspect
import os
import re
import sys
from pathlib import Path

import jax
from docutils import nodes
from sphinx.util import logging

import jaxpool

HERE = Path(__file__).parent
PUBLIC = [
    "jaxpool",
    "jaxpool.linen",
    "jaxpool.nnx",
    "jaxpool.compat.flax",
    "jaxpool.compat.keras",
    "jaxpool.compat.onnx",
    "jaxpool.compat.torch",
]

# For scripts of the gallery, and for the processes that run the lessons.
jax.config.update("jax_platforms", "cpu")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MATPLOTLIBRC"] = str(HERE / "matplotlibrc")
os.environ["PYTHONPATH"] = f"{HERE}{os.pathsep}{HERE.parent}"
sys.path.insert(0, str(HERE))

project = "jaxpool"
author = "The jaxpool authors"
copyright = "2026, the jaxpool authors"
version = release = jaxpool.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery", "inventories"]
default_role = "py:obj"  # of `names` in docstrings: links where a page has them

html_theme = "furo"
html_title = f"jaxpool {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_merge_streams = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120

napoleon_custom_sections = ["Gradient"]
napoleon_google_docstring = True
autodoc_typehints = "none"  # the text says what each argument is
autodoc_member_order = "bysource"
autosummary_generate = False
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True

intersphinx_mapping = {
    "jax": ("https://docs.jax.dev/en/latest/", "inventories/jax.txt"),
    "flax": ("https://flax.readthedocs.io/en/latest/", "inventories/flax.txt"),
    "numpy": ("https://numpy.org/doc/stable/", "inventories/numpy.txt"),
}

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "pictures",
    "subsection_order": [
        f"gallery/{part}" for part in ("aggregations", "domains", "limits", "gradients")
    ],
    "reset_modules": (),  # scripts change no settings; matplotlib's are those of here
    "abort_on_example_error": True,
    "run_stale_examples": True,  # they depend on the library too
    "notebook_extensions": set(),
    "capture_repr": (),
    "download_all_examples": False,
    "show_signature": False,
    "thumbnail_size": (480, 240),
    "write_computation_times": False,
    "within_subsection_order": "FileNameSortKey",
    "reference_url": {"jaxpool": None},
}


def public(module):
    """Return the names that a module offers."""
    found = importlib.import_module(module)
    own = [
        name
        for name, value in vars(found).items()
        if callable(value) and str(value.__module__).startswith(module)
    ]
    return getattr(found, "__all__", [name for name in own if name[0] != "_"])


def _every_name_has_a_page(app, env):
    """Warn of public names that no page has."""
    documented = env.get_domain("py").objects
    for module in PUBLIC:
        for name in public(module):
            if f"{module}.{name}" not in documented:
                logger = logging.getLogger(__name__)
                logger.warning("no page of docs/reference has %s.%s", module, name)


def _without_flax(app, what, name, obj, options, signature, returns):
    """Leave out what every Linen module has; show what an NNX module takes."""
    if what == "class" and name.startswith("jaxpool.nnx."):
        given = [*inspect.signature(obj.__init__).parameters.values()][1:]
        plain = [one.replace(annotation=inspect.Parameter.empty) for one in given]
        signature = str(inspect.Signature(plain))
    if signature:
        signature = re.sub(r"(, )?parent=<.*?>, name=None", "", signature)
    return signature, returns


def _readable(app, what, name, obj, options, lines):
    """Show formulas, which are indented, and examples as they are written."""
    found = []
    for number, line in enumerate(lines):
        if line.startswith("Args:"):
            found += lines[number:]
            break
        after = lines[number - 1] if number else ""
        if line.startswith("    ") and not after.strip():
            found += [".. code-block:: text", ""]
        if line.startswith(">>>") and after and not after.startswith(("...", ">>>")):
            found.append("")
        found.append(line.replace("docs/conventions.md", ":doc:`/conventions`"))
    lines[:] = found


def _without_blank_ends(app, doctree):
    """Drop the blank line that ends each example, which doctest needs."""
    for block in doctree.findall(nodes.literal_block):
        block[:] = [nodes.Text(block.astext().rstrip())]


def setup(app):
    """Register the handlers; that of docstrings before napoleon's."""
    app.connect("doctree-read", _without_blank_ends)
    app.connect("autodoc-process-docstring", _readable, priority=100)
    app.connect("autodoc-process-signature", _without_flax)
    app.connect("env-check-consistency", _every_name_has_a_page)
