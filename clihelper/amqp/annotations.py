"""What the annotation of a handler says of the bodies that it gets.

A model of pydantic, a ``msgspec.Struct``, a dataclass, a TypedDict or an Enum in it, alone or
within others (``list[Order]``, ``Order | None``), has bodies validated and converted. Annotations
with nothing but Python's own types, such as ``dict[str, Any]``, change nothing.
"""

from __future__ import annotations

import enum
import sys

from clihelper.errors import Error, in_one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from clihelper.amqp.bodies import BodyType

PLAIN = frozenset({'Any', 'bool', 'bytes', 'dict', 'float', 'int', 'list', 'object', 'str'})
"""names for which nothing needs to be evaluated: most programs have no others"""

MSGSPEC, PYDANTIC, PYDANTIC_1, EITHER = 'msgspec', 'pydantic', 'pydantic 1', 'either'


def body_type(function: Any, name: str, where: str) -> BodyType | None:
    """Return what a handler's annotation has bodies converted to; None: nothing.

    :param function: the handler.
    :param name: the parameter that gets the body.
    :param where: the handler and the parameter, for errors.
    :raises clihelper.errors.Error: the annotation cannot be evaluated, no body would ever fit it,
        or the library is missing.
    """
    written = _written(function, name)
    if isinstance(written, str):
        is_plain = written in PLAIN
    else:
        is_plain = written is None or (type(written) is type and written.__name__ in PLAIN)
    if is_plain:
        return None
    return convertible(evaluated(function, written, where), where)


def convertible(annotation: Any, where: str) -> BodyType | None:
    """Return what converts to an evaluated annotation; see :func:`body_type`."""
    libraries: set[str] = set()
    for cls in _classes(annotation):
        library = _library_of(cls)
        if library == '':
            raise Error(
                f'{where}: no body would be of class {cls.__name__}, which is neither a model of'
                ' pydantic, a msgspec.Struct, a dataclass nor a TypedDict')
        if library is not None:
            libraries.add(library)
    if not libraries:
        return None
    library = _chosen(libraries - {EITHER}, where)
    try:
        return _make(library, annotation)
    except Exception as error:
        raise Error(f'{where}: {library} cannot handle it: {in_one_line(error)}') from error


def body_type_of_messages(function: Any, name: str, where: str) -> BodyType | None:
    """Return what the bodies of a batch are converted to, as ``list[Message[Order]]`` says.

    :raises clihelper.errors.Error: as by :func:`body_type`.
    """
    import typing

    from clihelper.amqp.message import Message

    written = _written(function, name)
    if written is None or (isinstance(written, str) and 'Message[' not in written):
        return None
    waiting = [evaluated(function, written, where)]
    while waiting:
        each = waiting.pop()
        found = typing.get_args(each)
        if typing.get_origin(each) is Message:
            return convertible(found[0], where)
        waiting += found
    return None


def evaluated(function: Any, annotation: Any, where: str) -> Any:
    """Return an annotation of *function*, evaluated if it is text or contains text."""
    import inspect
    import typing

    def holder() -> None: ...

    holder.__annotations__ = {'body': annotation}
    from clihelper.amqp.message import Message

    # What is imported only for type checkers is usually one of these.
    own = getattr(inspect.unwrap(function), '__globals__', {})
    names = {**vars(typing), 'Message': Message, **own}
    try:
        return typing.get_type_hints(holder, names, include_extras=True)['body']
    except Exception as error:
        raise Error(f'{where}: the annotation {annotation!r} cannot be evaluated:'
                    f' {in_one_line(error)}') from error


def _written(function: Any, name: str) -> Any:
    """The annotation of a parameter as it is written: text, or an object; None: there is none."""
    try:
        found = getattr(function, '__annotations__', {}).get(name)
    except Exception:  # from Python 3.14 on they are evaluated here, even those of no interest
        import annotationlib

        forms = annotationlib.get_annotations(
            function, format=annotationlib.Format.FORWARDREF)
        found = forms.get(name)
    return getattr(found, '__forward_arg__', found)


# The classes in an annotation.


def _classes(annotation: Any) -> Iterator[Any]:
    """Yield the classes in an annotation, and in the fields of those that are dataclasses."""
    import typing

    waiting = [annotation]
    seen: list[Any] = []
    while waiting:
        each = waiting.pop()
        if any(each is other for other in seen):
            continue
        seen.append(each)
        origin = typing.get_origin(each)
        if origin is typing.Literal:
            continue
        if origin is typing.Annotated:
            yield from _constraints(each)
            waiting.append(typing.get_args(each)[0])
            continue
        waiting += typing.get_args(each)
        for attribute in ('__supertype__', '__value__'):  # of a NewType, of a type alias
            if not isinstance(each, type) and hasattr(each, attribute):
                waiting.append(getattr(each, attribute))
        cls = origin or each
        if isinstance(cls, type):
            yield cls
            waiting += _fields(cls)


def _constraints(annotation: Any) -> Iterator[Any]:
    """Yield the classes of what ``Annotated`` says besides, where a library reads it."""
    for each in annotation.__metadata__:
        if type(each).__module__.partition('.')[0] in ('msgspec', 'pydantic'):
            yield type(each)


def _fields(cls: Any) -> list[Any]:
    """The annotations of the fields of a dataclass or a TypedDict."""
    import typing

    if _library_of(cls) != EITHER or issubclass(cls, enum.Enum):
        return []
    try:
        return list(typing.get_type_hints(cls, include_extras=True).values())
    except Exception:  # the library has the same trouble, and says so
        return []


def _library_of(cls: Any) -> str | None:
    """The library that converts to a class; None: none is needed; '': none could."""
    if hasattr(cls, '__struct_fields__'):
        return MSGSPEC
    if hasattr(cls, '__pydantic_validator__') or hasattr(cls, '__get_pydantic_core_schema__'):
        return PYDANTIC
    if hasattr(cls, '__get_validators__') or hasattr(cls, '__pydantic_model__'):
        return PYDANTIC_1
    package: str = cls.__module__.partition('.')[0]
    if package in (MSGSPEC, PYDANTIC):
        return package
    is_typed_dict = hasattr(cls, '__required_keys__') and issubclass(cls, dict)
    if hasattr(cls, '__dataclass_fields__') or hasattr(cls, '__attrs_attrs__') or is_typed_dict:
        return EITHER
    if package in sys.stdlib_module_names or getattr(cls, '_is_protocol', False):
        return None
    return EITHER if issubclass(cls, enum.Enum) else ''


# The library.


def _chosen(libraries: set[str], where: str) -> str:
    """The library to use, if these are needed; any that is installed if none is."""
    if len(libraries) > 1:
        raise Error(f'{where}: no library handles classes of {" and ".join(sorted(libraries))}'
                    ' in one body')
    if libraries:
        return libraries.pop()
    from importlib.util import find_spec

    for library in (MSGSPEC, PYDANTIC):
        if find_spec(library) is not None:
            return library
    raise Error(f'{where}: needs msgspec or pydantic, and neither is installed')


def _make(library: str, annotation: Any) -> BodyType:
    from clihelper.amqp import bodies

    if library == MSGSPEC:
        return bodies.MsgspecBody(annotation)
    import pydantic

    if not pydantic.VERSION.startswith('1.'):
        if library == PYDANTIC:
            return bodies.PydanticBody(annotation)
        return bodies.Pydantic1Body(annotation, 'pydantic.v1')
    return bodies.Pydantic1Body(annotation)
