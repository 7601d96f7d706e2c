"""Child processes of a program of 1.x are forked, as they were.

Python 3.14 no longer forks them by default: a child of :mod:`multiprocessing` then knows neither
the configuration nor the controller, nor what its parent has put into variables.
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
    """Make ``fork`` the default start method of multiprocessing; import it not for this.

    A start method that the program itself chooses holds, but for one that is Python's default:
    it looks like no choice.
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
        # A lock or a queue that was made already has made it the one that is used.
        multiprocessing.set_start_method(None, force=True)
    # Not by set_start_method(), which could not be called a second time, by the program.
    multiprocessing.context._default_context._default_context = (
        multiprocessing.get_context('fork'))


class _ImportHook:
    """Among the finders of :data:`sys.meta_path`, until multiprocessing is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        """Find multiprocessing where the others do, to have its default set when it is loaded."""
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
