"""The documentation site: Sphinx, pages in MyST Markdown, the theme furo. `make docs` builds it into docs/_build."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

from microsr import __version__

project = "microsr"
author = "The microsr developers"
copyright = "The microsr developers"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "mathml",  # these three lie in docs/extensions
    "settings",
    "mentions",
]
exclude_patterns = ["_build"]

# The pages are read on GitHub too: they have nothing that it does not show.
myst_enable_extensions = ["dollarmath", "fieldlist"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
html_math_renderer = "mathml"

default_role = "literal"  # of docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = True
maximum_signature_line_length = 100

lexers["tsv"] = TextLexer()  # of case sheets

html_theme = "furo"
html_title = "microsr"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_last_updated_fmt = None


def _no_markup(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text but for their code: a bar begins nothing, and what is before a colon is no type."""
    if types := [line.removeprefix(":type: ") for line in lines if line.startswith(":type: ")]:
        lines[:] = [f"{types[0]}: {' '.join(line.strip() for line in lines if not line.startswith(':type: '))}"]
    lines[:] = [line.replace("|", "\\|") for line in lines]


def setup(app: Sphinx) -> None:
    """Register what is said above."""
    app.connect("autodoc-process-docstring", _no_markup)
