"""Rereading the configuration while the program runs, on HUP and on USR1."""

from __future__ import annotations

import logging

from clihelper.config import schema
from clihelper.errors import Error, in_one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clihelper.config import Config

LOGGER = logging.getLogger('clihelper.config')


class Reloader:
    """Rereads the configuration, and puts its logging into effect.

    :param read: reads and validates the configuration; raises :class:`~clihelper.errors.Error`.
    :param configure_logging: sets up logging from it; raises the same.
    :ivar faults: why the last reading has failed, a line for each fault.
    """

    def __init__(
        self, read: Callable[[], Config], configure_logging: Callable[[Config], None]
    ) -> None:
        self._read = read
        self._configure_logging = configure_logging
        self.faults: list[str] = []

    def read(self, current: Config) -> Config | None:
        """Return the new configuration; None if it is faulty, after logging each fault.

        :param current: the configuration that then stays in use. Its log files are reopened.
        """
        try:
            return self._read()
        except Error as error:
            self.faults = str(error).splitlines()
            for line in self.faults:
                LOGGER.error('%s', line)
        except Exception as error:  # no descriptor is free, say
            self.faults = [in_one_line(error)]
            LOGGER.exception('reading the configuration failed')
        LOGGER.error('the configuration was not read; going on with the old one')
        self.configure_logging(current)
        return None

    def configure_logging(self, config: Config) -> None:
        """Set up logging from *config*. If that fails, logging goes on as before."""
        try:
            self._configure_logging(config)
        except Error as error:
            LOGGER.error('%s; logging goes on as before', error)
        except Exception:
            LOGGER.exception('logging goes on as before')

    def put_into_effect(
        self, config: Config, old: Config, *, begins_anew: bool, supervised: bool
    ) -> None:
        """Set up logging from *config*, and warn of each change that is not in effect yet.

        :param begins_anew: whether the controller is set up again, or its workers are replaced.
        :param supervised: whether a supervisor runs workers.
        """
        self.configure_logging(config)
        for name, when in _not_in_effect(config, old, begins_anew, supervised):
            LOGGER.warning('%s changed: %s', name, when)


def _not_in_effect(
    config: Config, old: Config, begins_anew: bool, supervised: bool
) -> Iterator[tuple[str, str]]:
    """Yield the keys that changed and are not in effect, each with what puts it into effect."""
    for section in ('Daemon', 'AMQP'):
        for key in schema.SECTIONS.keys[section].type.keys.values():  # type: ignore[union-attr]
            if config[section][key.name] == old[section][key.name]:
                continue
            effect = key.effect if supervised or not key.supervised else schema.AT_START
            if effect == schema.AT_START:
                yield f'{section}.{key.name}', 'the next start will read it'
            elif effect == schema.AT_RELOAD and not begins_anew:
                yield f'{section}.{key.name}', 'a HUP will put it into effect'
