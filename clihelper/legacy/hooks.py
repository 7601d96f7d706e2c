"""Which methods of a program are hooks, by the names of 1.0 to 1.5 or by those of 1.6."""

from __future__ import annotations

from clihelper.legacy.deprecation import code_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
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
"""Hooks of today whose helpers may have any name"""

ORDINARY = ('setup', 'process', 'cleanup', 'run', 'stop', 'sleep', 'wake', 'stopped')
"""Hooks of 1.6 with names that a helper may have, too; they are called without arguments, but
``wake``"""


def resolve(methods: dict[str, Any]) -> tuple[frozenset[str], dict[str, str]]:
    """What a program defines, less what is a helper only; and its name for each hook.

    A method with one of the ordinary names is a helper if a hook of today calls it, or if it
    cannot be called without arguments. Where there are both names of a hook, the elder is it,
    unless it is called by the other.

    :param methods: what the program's classes define, by name.
    """
    called = {name: calls_of_itself(methods.get(name)) for name in {*TODAY, *ORDINARY}}
    helpers = {
        name for name in ORDINARY
        if name in methods
        and (any(name in called[hook] and hook not in called[name] for hook in TODAY)
             or (name != 'wake' and required_arguments(methods[name])))
    }
    defined = frozenset(methods) - helpers
    hooks = {}
    for which, (elder, later) in PAIRS.items():
        if later in defined and (elder not in defined or elder in called.get(later, ())):
            hooks[which] = later
        elif elder in defined:
            hooks[which] = elder
    return defined, hooks


def required_arguments(method: Any) -> int:
    """How many arguments a method cannot be called without, besides ``self``."""
    code = code_of(method)
    function = getattr(method, '__func__', method)
    if code is None:
        return 0
    required: int = code.co_argcount - 1 - len(getattr(function, '__defaults__', None) or ())
    return max(required, 0)


def calls_of_itself(method: Any) -> Iterable[str]:
    """The names of attributes of ``self`` that a method uses."""
    code = code_of(method)
    if code is None or not {*TODAY, *ORDINARY}.intersection(code.co_names):
        return ()
    import ast
    import inspect
    import textwrap

    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, SyntaxError):
        return tuple(code.co_names)  # there is no source: the receiver is not known
    itself = code.co_varnames[:1]
    return [
        node.attr for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        and node.value.id in itself
    ]
