"""Whether a class or function takes the arguments that a configuration gives it.

The module ``inspect`` would know more, and costs more to import than all of this package.
"""

from __future__ import annotations

from clihelper.logs.suggesting import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType

_VARKEYWORDS = 0x08  # CO_VARKEYWORDS of the module inspect

# dictConfig tries the older name where a class does not know the newer one.
_OLDER_NAMES = {'stream': 'strm', 'format': 'fmt'}


def argument_faults(made: object, given: Iterable[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find what is wrong in the names of the arguments.

    :param made: a class or another callable; nothing is found if it is not written in Python.
    :param given: the keys of the configuration that become arguments.
    :returns: for each fault the path to it, and the fault in words.
    """
    function = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    code: CodeType | None = getattr(function, '__code__', None)
    if code is None:
        return
    given = [name for name in given if isinstance(name, str) and name.isidentifier()]
    first = 1 if isinstance(made, type) or hasattr(made, '__self__') else 0
    positional = code.co_varnames[first:code.co_argcount]
    by_keyword = code.co_varnames[code.co_argcount:code.co_argcount + code.co_kwonlyargcount]
    takes = {*positional, *by_keyword}
    if not code.co_flags & _VARKEYWORDS:
        for name in given:
            if name not in takes and _OLDER_NAMES.get(name) not in takes:
                yield (name,), f'unknown key{did_you_mean(name, takes)}'
    defaults = len(getattr(function, '__defaults__', None) or ())
    required = [*positional[:max(len(positional) - defaults, 0)],
                *(name for name in by_keyword
                  if name not in (getattr(function, '__kwdefaults__', None) or {}))]
    given_older = {_OLDER_NAMES.get(name) for name in given}
    for name in required:
        if name not in given and name not in given_older:
            yield (), f'{name!r} is missing'
