"""The configuration as 1.x had it: what is in the file, and nothing else."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clihelper.config import Config

SECTIONS = ('Application', 'Daemon', 'Logging')


def as_written(config: Config) -> dict[str, Any]:
    """The sections of the file, made anew, without defaults; a null section is an empty one."""
    written: dict[str, Any] = config.written()
    for name in SECTIONS:
        if written.get(name) is None:
            written[name] = {}
    return written
