"""The configuration as in 1.x: the contents of the file, and nothing else."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.config import Config

SECTIONS = ('Application', 'Daemon', 'Logging')


def as_written(config: Config) -> dict[str, Any]:
    """Return a copy of the file's sections, without defaults; a null section becomes empty."""
    written: dict[str, Any] = config.written()
    for name in SECTIONS:
        if written.get(name) is None:
            written[name] = {}
    return written
