"""Forking the child processes of a program of 1.x, as older versions of Python did.

Python 3.14 no longer forks them by default: without a fork, a child of :mod:`multiprocessing` has
neither the configuration nor the controller, nor the values of its parent's variables.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def fork_by_default() -> None:
    """Make ``fork`` the default start method of multiprocessing, without importing it.

    A start method chosen by the program itself remains in effect, unless it is Python's default:
    that cannot be distinguished from no choice.
    """
    loaded = sys.modules.get('multiprocessing')
    if loaded is not None:
        _set_default(loaded)
    elif _hook not in sys.meta_path:
        sys.meta_path.insert(0, _hook)


def _set_default(multiprocessing: Any) -> None:
    default, *_ = multiprocessing.get_all_start_methods()
    if default == 'fork':
        return
    if multiprocessing.get_start_method(allow_none=True) == default:
        # A lock or a queue made earlier has already selected the default.
        multiprocessing.set_start_method(None, force=True)
    # Not with set_start_method(), which the program could then not call itself.
    multiprocessing.context._default_context._default_context = (
        multiprocessing.get_context('fork'))


class _ImportHook:
    """A finder in :data:`sys.meta_path`, until multiprocessing is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find multiprocessing as the other finders do, and set its default once it is loaded."""
        if name != 'multiprocessing':
            return None
        import importlib.util

        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _set_default(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_hook = _ImportHook()
