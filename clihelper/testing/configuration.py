"""The configuration of a test: a mapping, YAML text or a file, with the real validation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

import yaml

from clihelper import config
from clihelper.config import Config
from clihelper.errors import ConfigurationError

Source = Mapping[str, Any] | str | os.PathLike[str] | None
"""See :class:`~clihelper.testing.harness.Harness`."""

SHOWN = 'config'
"""What errors call a configuration that is not in a file."""


Required = Iterable[str] | Mapping[str, Any]
"""The sections that must be there; a mapping has the ``parse`` of each, or None."""


def read(source: Source, *, appname: str, required: Required) -> Config:
    """Read and validate a configuration, with the defaults filled in.

    The only rule that does not apply is the one about who may write to the file.

    :raises clihelper.errors.ConfigurationError: it is faulty, or cannot be read.
    """
    path = _path(source)
    if path is not None:
        data = _read_file(path)
    else:
        data = source.encode() if isinstance(source, str) else _written(source)
    return config.parse(
        data,
        os.path.abspath(path) if path is not None else '',
        required,
        appname=appname,
        shown=path or SHOWN,
        parsers={name: parse for name, parse in required.items() if parse is not None}
        if isinstance(required, Mapping) else None,
    )


def _path(source: Source) -> str | None:
    if isinstance(source, os.PathLike):
        return os.fspath(source)
    # YAML that is a mapping has a colon somewhere.
    if isinstance(source, str) and source and ':' not in source:
        return source
    return None


def _read_file(path: str) -> bytes:
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise ConfigurationError(f'{path}: cannot be read: {error.strerror}') from None


class _Dumper(yaml.SafeDumper):
    """Writes what tests put into mappings, including paths, tuples and kinds of dictionaries."""


_Dumper.add_multi_representer(PurePath, lambda dumper, path: dumper.represent_str(str(path)))
_Dumper.add_multi_representer(dict, lambda dumper, mapping: dumper.represent_dict(mapping))


def _written(mapping: Any) -> bytes:
    try:
        return yaml.dump(dict(mapping or {}), Dumper=_Dumper, sort_keys=False).encode()
    except yaml.representer.RepresenterError as error:
        raise TypeError(f'the configuration contains a value that YAML cannot: {error}') from None
