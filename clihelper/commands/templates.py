"""Fill the templates of a program and its service, the files of ``clihelper/templates``.

``@word@`` in a file stands for a fact. ``NAME`` and ``MODULE`` in a file's name stand for the
names of the program and of its package. ``service`` contains what makes a program a service: it
is used for a new program and for clihelper's own ``debian/``.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'templates')

SUFFIX = '.in'
"""The suffix of every template, so that none is mistaken for the file that it makes."""


class File:
    """A file to be written.

    :ivar text: its content.
    :ivar executable: whether it is executable.
    """

    def __init__(self, text: str, executable: bool = False) -> None:
        self.text = text
        self.executable = executable


def render(kind: str, facts: Mapping[str, str]) -> dict[str, File]:
    """Fill the templates of one kind.

    :param kind: a folder of ``clihelper/templates``.
    :param facts: the text for each ``@word@``.
    :returns: the files by their path, in alphabetical order.
    :raises KeyError: a template contains a word that is not a fact.
    """
    files = {}
    root = os.path.join(FOLDER, kind)
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, encoding='utf-8') as file:
                text = fill(file.read(), facts)
            relative = os.path.relpath(path, root).removesuffix(SUFFIX)
            relative = relative.replace('NAME', facts['name']).replace('MODULE', facts['module'])
            files[relative] = File(text, text.startswith('#!'))
    return dict(sorted(files.items()))


def fill(text: str, facts: Mapping[str, str]) -> str:
    """Replace each ``@word@`` by its fact."""
    return re.sub('@([a-z_]+)@', lambda word: facts[word[1]], text)


def service_facts(name: str, *, appname: str, description: str) -> dict[str, str]:
    """Return the facts for the templates of a service.

    :param name: the name of the service, its package and its program.
    :param appname: the name that the program passes to :func:`clihelper.setup`.
    :param description: what it does, in words without a full stop.
    """
    return {
        'name': name,
        'name_upper': name.upper(),
        'module': name.replace('-', '_'),
        'appname': appname,
        'user': f'_{name}',
        'description': description,
        'description_lower': description[0].lower() + description[1:],
    }
