"""``myapp -c FILE --message FILE``: the handler runs on one captured message, in the terminal.

The real life cycle, loop and settling run it, as in a test, so nothing is connected to: what is
published for the program, or to settle the message, is shown instead.
"""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clihelper.amqp.settlement import EXCEPTION, MESSAGE, Outcome
from clihelper.controller import ConsumerController
from clihelper.development import captured
from clihelper.errors import StopNow, UsageError, counted, encodable
from clihelper.testing.harness import Harness

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

    from clihelper.config import Config
    from clihelper.controller import Controller
    from clihelper.development.captured import Captured
    from clihelper.options import Options
    from clihelper.process.signals import Signals
    from clihelper.program import Parse
    from clihelper.testing.messages import Delivered, Published

ANY_PORT = '127.0.0.1:0'

TERMINAL = '/dev/tty'

SHOWN = 2000
"""the most characters of a body that are shown"""


class Trial:
    """One run of the handler, on one message.

    :param controller: the class of the controller.
    :param config: the configuration, which has been validated.
    :param options: the command line's options.
    :param arguments: its remaining words.
    :param parsers: the ``parse`` of each section that is required, or None.
    """

    def __init__(
        self,
        controller: type[Controller],
        config: Config,
        appname: str,
        options: Options,
        arguments: list[str],
        parsers: Mapping[str, Parse | None],
    ) -> None:
        self._class = controller
        self._config = config
        self._appname = appname
        self._options = options
        self._arguments = arguments
        self._parsers = parsers

    def run(self, signals: Signals) -> int:
        """Run it, and show what would have become of the message.

        :returns: the exit status: 0 if it would have been acknowledged, otherwise 1.
        :raises clihelper.errors.UsageError: there is no such message, or nothing handles it.
        """
        if not issubclass(self._class, ConsumerController):
            raise UsageError(f'--message: {self._class.__name__} is not a ConsumerController')
        message = captured.read(self._options.message_file, self._config.amqp['accept'])
        if self._options.post_mortem and self._options.message_file == captured.STDIN:
            _read_terminal()
        signals.urgent = _stop_now
        with self._debugging():
            return self._try(message)

    def _try(self, message: Captured) -> int:
        with self._harness() as harness:
            try:
                delivered = harness.deliver(
                    message.body, queue=message.queue, **message.properties)
            except (ValueError, TypeError) as error:
                raise UsageError(f'--message: {error}') from None
            _show(message, delivered, self._config.amqp['retry']['attempts'])
            if delivered.error is not None and self._options.post_mortem:
                _debug(delivered.error)
        return int(delivered.outcome is not Outcome.ACK)

    def _harness(self) -> Harness[Any]:
        return _Harness(
            self._class,
            Path(self._config.path),
            options=vars(self._options),
            arguments=self._arguments,
            appname=self._appname,
            required=self._parsers,
        )

    @contextmanager
    def _debugging(self) -> Iterator[None]:
        """A context in which what other hooks raise is debugged, too, if that is wanted."""
        try:
            yield
        except Exception as error:
            if self._options.post_mortem and not isinstance(error, UsageError):
                _debug(error)
            raise


class _Harness(Harness[Any]):
    """Runs it beside the daemon: it listens at addresses of its own."""

    def _addresses(self, config: Config) -> list[str]:
        return [ANY_PORT] * len(config.daemon['listen'])


def _stop_now(signum: int, frame: FrameType | None) -> None:
    if signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        raise StopNow(signum)


def _read_terminal() -> None:
    """Have the debugger read the terminal, as standard input has had the message."""
    try:
        sys.stdin = open(TERMINAL)  # noqa: SIM115 (it lasts as long as the program)
    except OSError as error:
        raise UsageError(f'--pdb: {TERMINAL}: {error.strerror}') from None


def _debug(error: BaseException) -> None:
    import pdb

    print(f'{type(error).__name__}: {error}', flush=True)
    pdb.post_mortem(error.__traceback__)


# What is shown.


def _show(message: Captured, delivered: Delivered, attempts: int) -> None:
    kind = message.properties.get('content_type') or 'no content type'
    assumed = '' if message.is_whole else ', as it seems'
    lines = [f'message from queue {delivered.message.queue}:'
             f' {counted(len(message.body), "byte")}, {kind}{assumed}']
    lines += [f'it would have published {_place(each)}' for each in delivered.published]
    lines += _outcome(delivered, attempts)
    if delivered.reply is not None:
        lines.append(f'the reply would have gone {_place(delivered.reply)}')
    sys.stderr.flush()
    for line in lines:
        print(encodable(line, sys.stdout.encoding))
    sys.stdout.flush()


def _outcome(delivered: Delivered, attempts: int) -> list[str]:
    """What would have become of the message, and why."""
    outcome, why = delivered.outcome, ''
    if delivered.error is not None:
        why = f': {type(delivered.error).__name__}: {delivered.error}'
    if outcome is Outcome.ACK:
        return [f'outcome: acknowledged{why}']
    if outcome is Outcome.REQUEUE:
        return [f'outcome: returned to its queue{why}']
    if outcome is Outcome.RETRY:
        return [f'outcome: run again in {delivered.delay:g} s, as run {delivered.message.attempts}'
                f' of {attempts} has failed{why}']
    letter = delivered.dead_letter
    if letter is None:
        return [f'outcome: dropped, or rejected by the handler itself{why}']
    why = f'{letter.headers.get(EXCEPTION)}: {letter.headers.get(MESSAGE)}'
    return [f'outcome: dead-lettered to {letter.routing_key} as {delivered.reason}: {why}']


def _place(message: Published) -> str:
    """Where a message would have gone, and its body."""
    body = message.body
    text = repr(body)
    shown = text if len(text) <= SHOWN else f'{text[:SHOWN]}...'
    exchange = f'exchange {message.exchange!r}, ' if message.exchange else ''
    later = f' after {message.delay:g} s' if message.delay else ''
    return f'to {exchange}routing key {message.routing_key!r}{later}: {shown}'
