"""Configuration of the documentation site: `make docs` builds it into docs/_build."""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from pygments.lexers.special import TextLexer  # noqa: E402
from sphinx.highlighting import lexers  # noqa: E402

import filterdb  # noqa: E402

lexers["csv"] = TextLexer()  # Pygments has none

project = "filterdb"
author = "filterdb developers"
version = release = filterdb.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_reference"]
exclude_patterns = ["_build", "_ext"]

myst_heading_anchors = 3  # links such as method.md#filters
myst_enable_extensions = ["deflist"]

# Docstrings write code in single backticks, as Markdown does.
default_role = "code"
smartquotes = False  # --option stays as it is
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 80
napoleon_google_docstring = False

html_theme = "pydata_sphinx_theme"
html_title = "filterdb"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": False, "show_toc_level": 2}
