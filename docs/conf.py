"""How Sphinx builds the site: `python -m sphinx -W --keep-going docs docs/_build`."""

import jaxpool

project = "jaxpool"
author = "The jaxpool authors"
copyright = "2026, the jaxpool authors"
version = release = jaxpool.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
default_role = "code"  # of `names` in docstrings
html_theme = "furo"
html_title = f"jaxpool {version}"
myst_heading_anchors = 3
napoleon_custom_sections = ["Gradient"]
napoleon_google_docstring = True
autodoc_typehints = "none"  # the text says what each argument is
autodoc_member_order = "bysource"
copybutton_prompt_text = r">>> |\.\.\. "
copybutton_prompt_is_regexp = True


def _formulas_as_code(app, what, name, obj, options, lines):
    """Show the formula of a docstring, which is indented, as it is written."""
    found = []
    for number, line in enumerate(lines):
        if line.startswith("Args:"):
            found += lines[number:]
            break
        begins = line.startswith("    ") and not (lines[number - 1].strip())
        found += ["::", ""] if begins else []
        found.append(line)
    lines[:] = found


def setup(app):
    """Register the handler before that of napoleon."""
    app.connect("autodoc-process-docstring", _formulas_as_code, priority=100)
