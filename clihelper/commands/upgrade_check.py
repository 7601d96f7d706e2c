"""``clihelper upgrade-check FILE...``: list the names of clihelper 1.x that a program uses."""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys

from clihelper.legacy.deprecation import text
from clihelper.legacy.hooks import resolve_source
from clihelper.legacy.tables import OF_CONTROLLER, OF_MODULE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from clihelper.legacy.tables import Row

    Method = ast.FunctionDef | ast.AsyncFunctionDef

PACKAGE = 'clihelper'


class Finding:
    """An old name and its place.

    :param line: from 1, as in an editor.
    :param column: from 1.
    :param row: its row in the tables.
    """

    def __init__(self, line: int, column: int, row: Row) -> None:
        self.line = line
        self.column = column
        self.row = row

    def as_dict(self, file: str) -> dict[str, object]:
        """Return what ``--json`` prints."""
        old, new, since, note = self.row
        return {
            'file': file, 'line': self.line, 'column': self.column,
            'old': old, 'new': new, 'since': since, 'note': note,
        }


def main(arguments: list[str]) -> int:
    """List the old names in the files.

    :returns: 0 if there are none, 1 if there are any, 2 if a file could not be read.
    """
    options = _parse(arguments)
    status = 0
    found = []
    for file in options.files:
        try:
            findings = check(_read(file))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            print(f'clihelper: {file}: {_reason(error)}', file=sys.stderr)
            status = 2
            continue
        found += [(file, finding) for finding in findings]
    if options.json:
        print(json.dumps([finding.as_dict(file) for file, finding in found], indent=2))
    else:
        for file, finding in found:
            print(f'{file}:{finding.line}:{finding.column}: {text(finding.row)}')
    return status or bool(found)


def check(source: bytes) -> list[Finding]:
    """Return the old names in a program, in the order of their places.

    :raises SyntaxError: the source is not valid Python 3.
    """
    tree = ast.parse(source)
    names = _Names(tree)
    findings = [*_of_module(tree, names), *_of_controllers(tree, names)]
    unique = {(each.line, each.column, each.row[0]): each for each in findings}
    return [unique[place] for place in sorted(unique)]


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='clihelper upgrade-check',
        description='List the names of clihelper 1.x that programs use, and what they are now.'
        ' Status 0: none; 1: there are some; 2: a file could not be read.',
    )
    parser.add_argument('files', nargs='+', metavar='FILE', help='a program, or a module of one')
    parser.add_argument('--json', action='store_true', help='print a list in JSON')
    return parser.parse_args(arguments)


def _read(file: str) -> bytes:
    with open(file, 'rb') as opened:
        return opened.read()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f'cannot be read: {os.strerror(error.errno or 0)}'
    if isinstance(error, SyntaxError):
        where = f'line {error.lineno}: ' if error.lineno else ''
        return f'is not valid Python 3: {where}{error.msg}'
    return f'is not valid Python 3: {error}'


class _Names:
    """The names in a file that refer to clihelper.

    :ivar modules: the names of the package.
    :ivar imported: the names imported from it, each with its original name.
    :ivar controllers: the classes that are controllers.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.modules: set[str] = set()
        self.imported: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self.modules |= {
                    alias.asname or alias.name for alias in node.names if alias.name == PACKAGE
                }
            elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level:
                self.imported |= {alias.asname or alias.name: alias.name for alias in node.names}
        self.controllers: dict[str, ast.ClassDef] = {}
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        while True:
            more = {
                node.name: node for node in classes
                if node.name not in self.controllers and any(map(self.is_controller, node.bases))
            }
            if not more:
                break
            self.controllers |= more

    def is_controller(self, node: ast.expr) -> bool:
        """Whether an expression is a controller class: clihelper's, or one derived from it."""
        if isinstance(node, ast.Name):
            return node.id in self.controllers or self.imported.get(node.id) == 'Controller'
        return self.of_package(node) == 'Controller'

    def methods(self, controller: ast.ClassDef) -> dict[str, Method]:
        """Return the methods that a class defines, by name."""
        return {
            each.name: each for each in controller.body
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        }

    def inherited(
        self, controller: ast.ClassDef, below: tuple[ast.ClassDef, ...] = ()
    ) -> dict[str, Method]:
        """Return the methods that a class inherits from other classes in the file.

        :param below: the classes that derive from it; no class can derive from itself.
        """
        methods: dict[str, Method] = {}
        below = (*below, controller)
        for base in reversed(controller.bases):
            known = self.controllers.get(base.id) if isinstance(base, ast.Name) else None
            if known is not None and known not in below:
                methods |= {**self.inherited(known, below), **self.methods(known)}
        return methods

    def of_package(self, node: ast.AST) -> str | None:
        """Return the name in the package that an expression like ``clihelper.run`` refers to."""
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            return node.attr if node.value.id in self.modules else None
        return None


def _of_module(tree: ast.Module, names: _Names) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE and not node.level:
            for alias in node.names:
                if alias.name in OF_MODULE:
                    yield _at(alias, OF_MODULE[alias.name])
        elif (name := names.of_package(node)) in OF_MODULE:
            yield _at(node, OF_MODULE[name or ''], behind=name)


def _of_controllers(tree: ast.Module, names: _Names) -> Iterator[Finding]:
    for controller in names.controllers.values():
        methods = names.methods(controller)
        hooks = resolve_source({**names.inherited(controller), **methods})
        own = (set(methods) - hooks) | _assigned(controller)
        for name, method in methods.items():
            if name in OF_CONTROLLER and name in hooks:
                yield _at_name(method, OF_CONTROLLER[name])
            yield from _uses(method, own)
        for target in _targets(controller):
            if target.id in OF_CONTROLLER:
                yield _at(target, OF_CONTROLLER[target.id])
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and names.is_controller(node.value) and (
                node.attr in OF_CONTROLLER):
            yield _at(node, OF_CONTROLLER[node.attr], behind=node.attr)


def _assigned(controller: ast.ClassDef) -> set[str]:
    """Return the names of attributes that the program assigns, which makes them its own."""
    return {
        node.attr for node in ast.walk(controller)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def _uses(method: Method, own: set[str]) -> Iterator[Finding]:
    """Yield the attributes of the controller itself, or of ``super()``, that a method uses.

    :param own: names that the program defines itself.
    """
    itself = method.args.args[0].arg if method.args.args else None
    for node in ast.walk(method):
        if not isinstance(node, ast.Attribute) or node.attr not in OF_CONTROLLER:
            continue
        value = node.value
        is_own = isinstance(value, ast.Name) and value.id == itself
        is_super = isinstance(value, ast.Call) and (
            isinstance(value.func, ast.Name) and value.func.id == 'super')
        if (is_own or is_super) and node.attr not in own:
            yield _at(node, OF_CONTROLLER[node.attr], behind=node.attr)


def _targets(controller: ast.ClassDef) -> Iterator[ast.Name]:
    for statement in controller.body:
        if isinstance(statement, ast.Assign):
            yield from (each for each in statement.targets if isinstance(each, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target


def _at(node: ast.AST, row: Row, behind: str | None = None) -> Finding:
    """Return a finding where a node begins; or where its last name begins, *behind* a dot."""
    if behind is not None:
        line, column = node.end_lineno, node.end_col_offset - len(behind)  # type: ignore[attr-defined]
    else:
        line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
    return Finding(line, column + 1, row)


def _at_name(method: Method, row: Row) -> Finding:
    """Return a finding at the name of a method, after the ``def``."""
    width = len('async def ' if isinstance(method, ast.AsyncFunctionDef) else 'def ')
    return Finding(method.lineno, method.col_offset + width + 1, row)
