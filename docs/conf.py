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

extensions = ['sphinx.ext.autodoc']
autodoc_member_order = 'bysource'
autodoc_typehints = 'none'  # the field lists give them in words

html_theme = 'alabaster'
html_theme_options = {
    'description': 'Write a daemon by writing only what the daemon does',
    'page_width': '72rem',
    'sidebar_width': '15rem',
    'fixed_sidebar': True,
}
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
