"""Finding the hooks among a program's methods, by their names in 1.0 to 1.5 or in 1.6."""

from __future__ import annotations

from clihelper.program import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from collections.abc import Iterable, Mapping
    from typing import Any

PAIRS = {
    '_setup': ('_setup', 'setup'),
    '_process': ('_process', 'process'),
    '_cleanup': ('_cleanup', 'cleanup'),
    'end': ('_shutdown', 'stop'),
    'sleep': ('_sleep', 'sleep'),
    'wake': ('_wake', 'wake'),
    'reload': ('_reload_configuration', 'reload_configuration'),
    'wake_interval': ('_get_wake_interval', 'wake_interval'),
    'set_state': ('_set_state', 'set_state'),
    'on_sigterm': ('_on_sigterm', 'on_sigterm'),
    'on_sighup': ('_on_sighup', 'on_sighup'),
    'on_sigusr1': ('_on_sigusr1', 'on_sigusr1'),
    'on_sigusr2': ('_on_sigusr2', 'on_sigusr2'),
}
"""The two names of each hook"""

TODAY = ('_setup', '_process', '_loop', '_shutdown', '_cleanup')
"""Hooks of 2.0, whose helpers may have any name"""

ORDINARY = ('setup', 'process', 'cleanup', 'run', 'stop', 'sleep', 'wake', 'stopped')
"""Hooks of 1.6 whose names a helper may have as well; all except ``wake`` are called without
arguments"""


def resolve(methods: dict[str, Any]) -> tuple[frozenset[str], dict[str, str]]:
    """Return the names that a program defines, without helpers, and its name for each hook.

    A method with one of the ordinary names is a helper if a hook of 2.0 calls it, or if it
    cannot be called without arguments. If both names of a hook are defined, the older one is the
    hook, unless the newer one calls it.

    :param methods: what the program's classes define, by name.
    """
    called = {name: calls_of_itself(methods.get(name)) for name in {*TODAY, *ORDINARY}}
    defined = _without_helpers(called, {
        name: required_arguments(method) for name, method in methods.items()
    })
    hooks = {}
    for which, (elder, later) in PAIRS.items():
        if later in defined and (elder not in defined or elder in called.get(later, ())):
            hooks[which] = later
        elif elder in defined:
            hooks[which] = elder
    return defined, hooks


def resolve_source(methods: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]) -> set[str]:
    """Like :func:`resolve`, for a class given as source; return only the names it defines."""
    called = {
        name: _attributes_of_first(methods[name]) if name in methods else ()
        for name in {*TODAY, *ORDINARY}
    }
    return set(_without_helpers(called, {
        name: max(len(method.args.args) - 1 - len(method.args.defaults), 0)
        for name, method in methods.items()
    }))


def _without_helpers(
    called: Mapping[str, Iterable[str]], methods: Mapping[str, int]
) -> frozenset[str]:
    """Return the names of the methods that are not helpers.

    :param called: the names that each of the hooks calls.
    :param methods: the number of arguments that each method requires.
    """
    return frozenset(
        name for name, required in methods.items()
        if name not in ORDINARY
        or not (any(name in called[hook] and hook not in called[name] for hook in TODAY)
                or (required and name != 'wake'))
    )


def required_arguments(method: Any) -> int:
    """Return the number of arguments that a method requires, besides ``self``."""
    code = code_of(method)
    function = getattr(method, '__func__', method)
    if code is None:
        return 0
    required: int = code.co_argcount - 1 - len(getattr(function, '__defaults__', None) or ())
    return max(required, 0)


def calls_of_itself(method: Any) -> Iterable[str]:
    """Return the names of attributes of ``self`` that a method uses."""
    code = code_of(method)
    if code is None or not {*TODAY, *ORDINARY}.intersection(code.co_names):
        return ()
    import ast
    import inspect
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return tuple(code.co_names)  # without the source, the receiver is unknown
    return _attributes_of_first(tree.body[0])


def _attributes_of_first(method: ast.AST) -> list[str]:
    """Return the names of attributes of its first argument that a method uses."""
    import ast

    if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) or not method.args.args:
        return []
    itself = method.args.args[0].arg
    return [
        node.attr for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        and node.value.id == itself
    ]
