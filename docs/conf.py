"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import reference  # noqa: E402  (the folders above come first)
import upgrading  # noqa: E402

import clihelper  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

project = 'clihelper'
author = 'clihelper contributors'
copyright = author
release = version = clihelper.__version__

extensions = ['sphinx.ext.autodoc', 'sphinx_copybutton']
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the field lists give them in words

# Only commands are copied: neither prompts nor what follows them.
copybutton_prompt_text = '$ '
copybutton_line_continuation_character = '\\'

html_theme = 'furo'
html_title = f'clihelper {version}'
html_static_path = ['_static']
html_css_files = ['clihelper.css']
html_js_files = [('clihelper.js', {'defer': 'defer'})]
templates_path = ['_templates']
# Of those that each release has, two that can be read: tests/test_pages.py measures the contrast.
pygments_style = 'default'
pygments_dark_style = 'github-dark'
html_show_copyright = False
html_show_sourcelink = False


def make_pages(app: Any, page: str, source: list[str]) -> None:
    """Put the text made from the schema in the place of the page's own, tables behind another."""
    if page == 'reference':
        source[0] = reference.page()
    elif page == 'upgrading':
        source[0] += upgrading.tables()


def setup(app: Any) -> dict[str, bool]:
    """What Sphinx calls when it has read this file."""
    app.connect('source-read', make_pages)
    # Made anew at each build: Sphinx does not know that they depend on the package.
    app.connect('env-get-outdated', lambda *_: ['reference', 'upgrading'])
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
