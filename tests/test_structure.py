"""The house is as it was drawn: imports point one way, starting is cheap, functions are short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'clihelper'

#: From the top to the bottom: a module imports what stands below it, types included.
LAYERS = [
    {'', '__main__'},
    {'commands'},
    {'doctor'},
    {'application'},
    {'development'},
    {'testing'},
    {'legacy'},
    {'supervisor'},
    {'lifecycle'},
    {'controller'},
    {'loops'},
    {'operations'},
    {'amqp'},
    {'process'},
    {'logs'},
    {'options'},
    {'parser'},
    {'config'},
    {'program'},
    {'backoff', 'errors', 'states'},
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
    """What a module imports, anywhere in it, for types and by :func:`importlib.import_module` too.

    :param known: the names of the modules of the package.
    :ivar names: absolute names. Of ``from a import b`` it is ``a.b`` if that is a module, and
        ``a`` if it is a name in it.
    """

    def __init__(self, module: str, is_package: bool, known: Collection[str]) -> None:
        self._module = module
        self._package = module if is_package else module.rpartition('.')[0]
        self._known = known
        self.names: set[str] = set()

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802 (so ast calls it)
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        origin = node.module or ''
        if node.level:
            parents = self._package.split('.')
            parents = parents[:len(parents) - node.level + 1]
            origin = '.'.join([*parents, *filter(None, [node.module])])
        for alias in node.names:
            name = f'{origin}.{alias.name}'
            self.names.add(name if name in self._known else origin)

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        if ast.unparse(node.func).endswith('import_module'):
            self.names.update(
                each.value for each in node.args if isinstance(each, ast.Constant))
        self.generic_visit(node)


def imports(module: str, path: Path, known: Collection[str]) -> set[str]:
    visitor = Imports(module, path.name == '__init__.py', known)
    visitor.visit(without_docstrings(ast.parse(path.read_text())))
    return visitor.names


def without_docstrings(tree: ast.Module) -> ast.Module:
    """The tree without the texts that are statements by themselves."""
    for node in ast.walk(tree):
        if isinstance(getattr(node, 'body', None), list):
            node.body = [
                each for each in node.body
                if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
            ]
    return tree


def imports_within_the_package() -> dict[str, set[str]]:
    """Each module of the package with those of it that it imports."""
    known = modules()
    return {
        module: {name for name in imports(module, path, known) if name in known} - {module}
        for module, path in known.items()
    }


def part(module: str) -> str:
    """The entry of :data:`LAYERS` that a module belongs to."""
    return (module.split('.') + [''])[1]


def level(module: str) -> int:
    return next(n for n, layer in enumerate(LAYERS) if part(module) in layer)


def test_each_module_is_in_a_layer() -> None:
    layered = {name for layer in LAYERS for name in layer}
    assert {part(module) for module in modules()} == layered


def test_imports_point_down() -> None:
    upward = [
        f'{module} imports {name}'
        for module, names in imports_within_the_package().items()
        for name in names
        if level(name) <= level(module) and part(module) != part(name)
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


def test_imports_are_found_wherever_they_are() -> None:
    known = ['clihelper', 'clihelper.errors', 'clihelper.logs', 'clihelper.logs.setup',
             'clihelper.loops', 'clihelper.loops.ioloop', 'clihelper.config.schema',
             'clihelper.states']
    visitor = Imports('clihelper.loops.interval', is_package=False, known=known)
    visitor.visit(without_docstrings(ast.parse(
        '"""Not clihelper.config."""\n'
        'from . import ioloop\n'
        'from ..errors import Error\n'
        'if TYPE_CHECKING:\n'
        '    from clihelper import logs\n'
        '    from clihelper.logs import setup, configure\n'
        'def f():\n'
        '    import clihelper.config.schema as schema\n'
        '    importlib.import_module("clihelper.states")\n'
    )))
    assert visitor.names == {
        'clihelper.loops.ioloop', 'clihelper.errors', 'clihelper.logs', 'clihelper.logs.setup',
        'clihelper.config.schema', 'clihelper.states',
    }


#: Names with an underscore that are hooks of a controller, for subclasses and callers alike.
HOOKS = {'_setup', '_process', '_loop', '_shutdown', '_cleanup'}


def private_names_defined(tree: ast.Module) -> set[str]:
    """The private functions, classes, methods, variables and attributes that a module makes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif (isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
                and ast.unparse(node.value) in ('self', 'cls')):
            names.add(node.attr)
    return {name for name in names if name.startswith('_') and not name.startswith('__')} - HOOKS


def private_names_used(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """The attributes of other objects than ``self``, and the imports, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif (isinstance(node, ast.Attribute)
                and ast.unparse(node.value) not in ('self', 'cls', 'super()')):
            yield node.attr, node.lineno


def test_no_module_uses_private_names_of_another() -> None:
    trees = {path: ast.parse(path.read_text()) for path in modules().values()}
    defined = {path: private_names_defined(tree) for path, tree in trees.items()}
    all_defined = set().union(*defined.values())
    # Libraries have attributes of the same names.
    others = {'_exit', '_lock', '_name', '_open', '_sockets'}
    used = [
        f'{path.relative_to(ROOT)}:{line}: {name}'
        for path, tree in trees.items()
        for name, line in private_names_used(tree)
        if name in all_defined - defined[path] - others
    ]
    assert used == []


def test_the_root_of_the_package_has_few_modules() -> None:
    assert len(list(PACKAGE.glob('*.py'))) <= 11


def modules_listed() -> list[str]:
    """The modules that CONTRIBUTING.rst lists, as paths in the package."""
    text = (ROOT / 'CONTRIBUTING.rst').read_text()
    listed = text[text.index('\n    clihelper/\n'):text.index('\n    example ')]
    found, folder = [], ''
    for line in listed.splitlines()[2:]:
        if re.match(r'      [a-z]+/', line):
            folder = line.split()[0]
        elif not line.startswith('        '):
            folder = ''
        found += [folder + name for name in re.findall(r'(?<=[ ])[a-z_]+\.py(?=\s|$)', line)]
    return found


def test_the_list_of_files_in_contributing_is_the_tree() -> None:
    there = [str(path.relative_to(PACKAGE)) for path in modules().values()]
    assert sorted(modules_listed()) == sorted(there)


def test_the_drawing_has_each_part() -> None:
    text = (ROOT / 'docs/architecture.dot').read_text()
    drawn = {name.removesuffix('.py').rstrip('/') for name in re.findall(r'<b>([^<]*)</b>', text)}
    assert drawn == {part(module) for module in modules()} - {'', '__main__'}
    svg = (ROOT / 'docs/architecture.svg').read_text()
    assert all(f'>{name}' in svg for name in re.findall(r'<b>([^<]*)</b>', text))
