"""The house is as it was drawn: imports point one way, starting is cheap, functions are short."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'clihelper'

#: From the top to the bottom: a module imports what stands below it. What is in none of them
#: is held to having no cycles only.
LAYERS = [
    {'__main__'},
    {'commands'},
    {'legacy'},
    {'application'},
    {'testing'},
    {'supervisor'},
    {'lifecycle'},
    {'controller'},
    {'loops'},
    {'amqp'},
    {'ledger', 'systemd', 'signals', 'states', 'titles'},
    {'daemonize', 'listening', 'privileges', 'pidfile'},
    {'logs'},
    {'options'},
    {'parser'},
    {'config'},
    {'schema', 'yamlfile'},
    {'errors'},
]

#: What `import clihelper` does not load.
COSTLY = ['amqp', 'asyncio', 'daemon', 'kombu', 'logging.config', 'tornado', 'yaml']

MAX_FUNCTION_LINES = 40


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def modules() -> dict[str, Path]:
    return {module_name(path): path for path in sorted(PACKAGE.rglob('*.py'))}


class Imports(ast.NodeVisitor):
    """What a module imports, anywhere in it, but for the types only.

    :ivar names: absolute names; of ``from a import b`` both ``a`` and ``a.b``, since either may
        be the module.
    """

    def __init__(self, module: str, is_package: bool) -> None:
        self._package = module if is_package else module.rpartition('.')[0]
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:  # noqa: N802 (so ast calls it)
        if isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING':
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        origin = node.module or ''
        if node.level:
            parents = self._package.split('.')
            parents = parents[:len(parents) - node.level + 1]
            origin = '.'.join([*parents, *filter(None, [node.module])])
        self.names.update(f'{origin}.{alias.name}' for alias in node.names)
        self.names.add(origin)


def imports(module: str, path: Path) -> set[str]:
    visitor = Imports(module, path.name == '__init__.py')
    visitor.visit(ast.parse(path.read_text()))
    return visitor.names


def imports_within_the_package() -> dict[str, set[str]]:
    """Each module of the package with those of it that it imports.

    ``from clihelper import errors`` is an import of ``clihelper.errors`` alone.
    """
    known = modules()
    graph = {}
    for module, path in known.items():
        found = {name for name in imports(module, path) if name in known and name != module}
        graph[module] = {
            name for name in found
            if not any(other.startswith(f'{name}.') for other in found)
        }
    return graph


def part(module: str) -> str:
    """The entry of :data:`LAYERS` that a module belongs to."""
    return (module.split('.') + [''])[1]


def level(module: str) -> int | None:
    return next((n for n, layer in enumerate(LAYERS) if part(module) in layer), None)


def test_imports_point_down() -> None:
    upward = [
        f'{module} imports {name}'
        for module, names in imports_within_the_package().items()
        for name in names
        if (here := level(module)) is not None and (there := level(name)) is not None
        and there <= here and part(module) != part(name)
    ]
    assert upward == []


def test_no_part_imports_the_package_itself() -> None:
    importing = [m for m, names in imports_within_the_package().items() if 'clihelper' in names]
    assert importing == []


def test_no_modules_import_each_other() -> None:
    try:
        TopologicalSorter(imports_within_the_package()).prepare()
    except CycleError as error:
        pytest.fail(' imports '.join(reversed(error.args[1])))


def test_importing_the_package_loads_nothing_costly() -> None:
    code = 'import sys; before = set(sys.modules); import clihelper; ' \
           'print(*set(sys.modules) - before)'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, env=os.environ | {'PYTHONPATH': str(ROOT)},
        capture_output=True, text=True, check=True,
    )
    loaded = set(done.stdout.split())
    assert 'clihelper' in loaded
    assert loaded.isdisjoint(COSTLY)


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef, list[str]]]:
    """Each function of the package: where it is, its tree, and the lines of its file."""
    for path in modules().values():
        source = path.read_text()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                where = f'{path.relative_to(ROOT)}:{node.lineno}: {node.name}'
                yield where, node, source.splitlines()


def lines_of_code(
    node: ast.FunctionDef | ast.AsyncFunctionDef, source: list[str]
) -> int:
    """The lines from ``def`` to the end that are neither docstring nor comment nor empty."""
    numbers = set(range(node.lineno, node.end_lineno + 1))
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        numbers -= set(range(docstring.lineno, docstring.end_lineno + 1))
    lines = (source[number - 1].strip() for number in numbers)
    return sum(1 for line in lines if line and not line.startswith('#'))


def test_no_function_is_longer_than_a_screen() -> None:
    long = {where: lines for where, node, source in functions()
            if (lines := lines_of_code(node, source)) > MAX_FUNCTION_LINES}
    assert long == {}


def test_imports_are_found_in_functions_and_not_among_types() -> None:
    visitor = Imports('clihelper.loops.interval', is_package=False)
    visitor.visit(ast.parse(
        'from . import ioloop\n'
        'from ..errors import Error\n'
        'if TYPE_CHECKING:\n'
        '    import kombu\n'
        'else:\n'
        '    import json\n'
        'def f():\n'
        '    import clihelper.logs as logs\n'
    ))
    assert visitor.names == {
        'clihelper.loops', 'clihelper.loops.ioloop', 'clihelper.errors',
        'clihelper.errors.Error', 'json', 'clihelper.logs',
    }
