"""The templates of a program and its service: files of clihelper/templates to text.

``@word@`` stands for a fact, in a file and in its name; ``NAME`` and ``MODULE`` in a file's name
for the program's name and its package's. ``service`` has what makes a service of a program: it
is in ``debian/`` of a new program as of clihelper's own.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'templates')

SUFFIX = '.in'
"""of every template, so that none is taken for what it makes"""


class File:
    """A file to be written.

    :ivar text: its content.
    :ivar executable: whether it is a program.
    """

    def __init__(self, text: str, executable: bool = False) -> None:
        self.text = text
        self.executable = executable


def render(kind: str, facts: Mapping[str, str]) -> dict[str, File]:
    """What the templates of one kind make.

    :param kind: a folder of ``clihelper/templates``.
    :param facts: what stands for each ``@word@``.
    :returns: the files by their path, in the order of the alphabet.
    :raises KeyError: a template has a word that is no fact.
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
    """Put facts in the place of their words."""
    return re.sub('@([a-z_]+)@', lambda word: facts[word[1]], text)


def service_facts(name: str, *, appname: str, description: str) -> dict[str, str]:
    """The facts of the templates of a service.

    :param name: of the service, its package and its program.
    :param appname: what the program calls itself, :func:`clihelper.setup`.
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
