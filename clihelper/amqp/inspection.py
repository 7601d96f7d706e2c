"""The checks of ``--check --broker``, and of ``clihelper doctor``: what on a broker is not right.

Nothing is created. What exists is declared again, as at start-up, since only then does a broker
say how it differs; what does not exist is not declared.
"""

from __future__ import annotations

from clihelper.amqp.connection import Connection, Lost, Unreachable
from clihelper.amqp.declare_errors import FOR_GOOD, DeclarationRefused
from clihelper.amqp.declarer import TYPE, Declarer, type_of
from clihelper.amqp.entities import bindings_of
from clihelper.amqp.retries import steps
from clihelper.amqp.risks import DLX, DLX_KEY, risks_of
from clihelper.amqp.topology import (
    AT_LEAST_ONCE,
    KNOWS_CONSUMER_TIMEOUT,
    LEAST_CONSUMER_TIMEOUT,
    NOT_KEPT,
    STREAM,
    Topology,
)
from clihelper.errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Literal

    from clihelper.amqp.entities import Options
    from clihelper.config import Config

    Keys = tuple[object, ...]
    Level = Literal['note', 'warning', 'fault']
    OwnTopology = tuple[Sequence[Any], Sequence[Any], str]


class Line:
    """One finding.

    :ivar level: ``note``: what the program will do; ``warning``: what can lose messages;
        ``fault``: what prevents the program from running.
    :ivar where: the place in the configuration.
    :ivar code: the broker's reply code, if it has refused something; otherwise 0.
    """

    __slots__ = ('code', 'level', 'text', 'where')

    def __init__(self, level: Level, where: str, text: str, code: int = 0) -> None:
        self.level = level
        self.where = where
        self.text = text
        self.code = code

    def __str__(self) -> str:
        warning = 'warning: ' if self.level == 'warning' else ''
        return f'{self.where}: {warning}{self.text}'


class Report:
    """The findings, each with its place in the configuration.

    :ivar lines: all of them.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.lines: list[Line] = []

    @property
    def notes(self) -> list[str]:
        """What the program will do, in lines for the terminal."""
        return self._of_level('note')

    @property
    def warnings(self) -> list[str]:
        """What can lose messages, in lines for the terminal."""
        return self._of_level('warning')

    @property
    def faults(self) -> list[str]:
        """What prevents the program from running, in lines for the terminal."""
        return self._of_level('fault')

    def note(self, keys: Keys, text: str) -> None:
        """Add something that the program will do."""
        self._add('note', keys, text)

    def warn(self, keys: Keys, text: str) -> None:
        """Add something that can lose messages."""
        self._add('warning', keys, text)

    def fault(self, keys: Keys, text: str, code: int = 0) -> None:
        """Add something that prevents the program from running."""
        self._add('fault', keys, text, code)

    def _add(self, level: Level, keys: Keys, text: str, code: int = 0) -> None:
        self.lines.append(Line(level, self._config.locate(*keys), text, code))

    def _of_level(self, level: Level) -> list[str]:
        # Several brokers may produce the same line.
        return list(dict.fromkeys(str(each) for each in self.lines if each.level == level))


def inspect(config: Config, own: OwnTopology | None, appname: str) -> Report:
    """Inspect each broker of ``AMQP.url``.

    :param own: what the program itself declares, and the name of its class; None: it declares
        nothing, not even what the section lists.
    :raises clihelper.errors.Error: a file of ``AMQP.tls`` cannot be used.
    """
    report = Report(config)
    if own is None and 'AMQP' not in config.written():
        report.note((), 'no broker is used: there is no section AMQP')
        return report
    for keys, url in urls_of(config):
        connection = connection_to(config, url, appname)
        try:
            connection.open()
            inspect_topology(config, own, connection, report)
        except UnavailableError as error:
            report.fault(keys, str(error))
        except (Unreachable, Lost) as error:
            report.fault(keys, f'AMQP.url: {error}')
        finally:
            connection.close()
    return report


def urls_of(config: Config) -> list[tuple[Keys, str]]:
    """Each URL of ``AMQP.url``, with its keys."""
    url = config.amqp['url']
    if isinstance(url, str):
        return [(('AMQP', 'url'), url)]
    return [(('AMQP', 'url', number), each) for number, each in enumerate(url)]


def connection_to(config: Config, url: str, appname: str) -> Connection:
    """A connection to one broker, without heartbeats; it is still to be opened."""
    section = config.amqp
    return Connection([url], 0, appname, section['tls'], section['transport_options'])


def inspect_topology(
    config: Config, own: OwnTopology | None, connection: Connection, report: Report
) -> None:
    """Inspect what the program needs on a broker.

    :param own: as for :func:`inspect`.
    :param connection: an open connection to it.
    :param report: gets the findings.
    :raises Lost: the connection is lost.
    """
    if own is not None and connection.expires:  # elsewhere there are no such queues
        Inspection(config, Topology(config.amqp, *own), connection, report).run()


class Inspection:
    """Inspects one broker.

    :param connection: an open connection to it.
    :param report: gets the findings.
    """

    def __init__(
        self, config: Config, topology: Topology, connection: Connection, report: Report
    ) -> None:
        self._section = config.amqp
        self._topology = topology
        self._entities = topology.entities
        self._connection = connection
        self._declarer = Declarer(connection.channel(), connection.refusals)
        self._report = report

    def run(self) -> None:
        """Inspect everything that the program needs.

        :raises Lost: the connection is lost.
        """
        topology = self._topology
        with self._connection.guard():
            for name, options in self._entities.exchanges.items():
                keys: Keys = self._entities.keys_of('exchanges', name)
                self._try(keys, self._exchange, keys, name, options)
            for label, options in self._entities.queues.items():
                keys = self._entities.keys_of('queues', label)
                self._try(keys, self._queue, keys, label, options)
            for each in self._entities.partitioned:
                keys = ('AMQP', 'queues', each.label)
                for binding in each.bindings:
                    position = f'AMQP.queues.{each.label}'
                    self._try(keys, self._check_binding, position, binding['exchange'])
            for position, name, options in topology.further_queues():
                self._try(_keys(position), self._further_queue, position, name, options)
            for label in () if topology.declares else topology.queues:
                self._try(('AMQP', 'retry'), self._retry_queues, label)

    def _try(self, keys: Keys, look: Callable[..., None], *what: Any) -> None:
        """Inspect one thing; it is a fault if the broker refuses it."""
        try:
            look(*what)
        except DeclarationRefused as refused:
            self._report.fault(keys, str(refused), refused.code)
            if refused.code in FOR_GOOD:
                raise Lost('the broker has closed the connection') from refused

    def _exchange(self, keys: Keys, name: str, options: Options) -> None:
        position = self._entities.position_of(name)
        declares = self._topology.declares
        if declares and not self._declarer.has_exchange(position, name):
            self._is_missing(keys, position)
        else:
            self._topology.declare_exchange(self._declarer, name, options)

    def _is_missing(self, keys: Keys, position: str) -> None:
        self._report.note(keys, f'{position}: does not exist yet, and will be declared')

    def _queue(self, keys: Keys, label: str, options: Options) -> None:
        position = self._entities.positions[label]
        own = self._topology.is_own(label)
        if not own:
            options = self._as_it_is(keys, position, label, options)
        for binding in bindings_of(options):
            self._check_binding(position, binding['exchange'])
        self._look_for_dead_letter_exchange(keys, position, options)
        for risk in risks_of(options, own):
            self._report.warn((*keys, *risk.keys), f'{position}: {risk.text}')
        is_consumed = self._topology.is_consumed(label)
        is_dropped = is_consumed and self._topology.dead_letters_of(label) is None
        if is_dropped and DLX not in options['arguments']:
            self._report.warn(
                ('AMQP', 'dead_letter'),
                f'{position}: AMQP.dead_letter is false and the queue has no {DLX}: what cannot be'
                ' handled is dropped',
            )
        if not own and is_consumed:
            self._look_at_timeout(position, type_of(options))

    def _as_it_is(self, keys: Keys, position: str, label: str, options: Options) -> Options:
        """The options of a queue as it exists on the broker, or will exist.

        :raises DeclarationRefused: it is missing, or not as declared.
        """
        declarer, name = self._declarer, options['name']
        if not self._topology.declares_queue(label):
            declarer.queue(position, name, options, False)
            arguments = declarer.arguments_of(position, name, options)
            found = options if arguments is None else {**options, 'arguments': arguments}
        elif not declarer.has_queue(position, name):
            self._is_missing(keys, position)
            return options
        elif type_of(options) is None:
            _, found = declarer.adopt(position, name, options, (TYPE,))
        else:
            declarer.queue(position, name, options)
            found = options
        self._topology.find_type(declarer, label, found)
        return found

    def _check_binding(self, position: str, exchange: str) -> None:
        """Check that the exchange to bind to exists; raises :class:`DeclarationRefused`."""
        if exchange not in self._entities.exchanges:
            # It is only verified: the type is arbitrary.
            options = {'type': 'direct', 'durable': True, 'auto_delete': False, 'arguments': {}}
            self._declarer.exchange(position, exchange, options, False)

    def _look_for_dead_letter_exchange(self, keys: Keys, position: str, options: Options) -> None:
        """Warn if what a queue dead-letters would be dropped; the broker would not report that."""
        arguments = options['arguments']
        exchange, key = arguments.get(DLX), arguments.get(DLX_KEY)
        if exchange is None:
            return
        keys = (*keys, 'arguments', DLX)
        if exchange:
            declared = self._topology.declares and exchange in self._entities.exchanges
            if not declared and not self._declarer.has_exchange(position, exchange):
                self._report.warn(
                    keys, f'{position}: there is no exchange {exchange!r}: what the queue'
                    ' dead-letters is dropped'
                )  # fmt: skip
        elif key and key not in self._declared and not self._declarer.has_queue(position, key):
            self._report.warn(
                keys,
                f'{position}: there is no queue {key!r}: what the queue dead-letters is dropped',
            )

    @property
    def _declared(self) -> set[str]:
        """The names of the queues that exist once the program has declared them."""
        topology = self._topology
        names = {each['name'] for each in self._entities.queues.values()}
        names.update(name for _, name, _ in topology.further_queues())
        return names if topology.declares else set()

    def _further_queue(self, position: str, name: str, options: Options) -> None:
        keys = _keys(position)
        if not self._topology.declares:
            self._declarer.queue(position, name, options, False)
            return
        if not self._declarer.has_queue(position, name):
            self._is_missing(keys, f'{position}: {name}')
            return
        _, found = self._declarer.adopt(position, name, options, (TYPE,))
        if type_of(found) == STREAM:
            self._report.warn(
                keys, f'{position}: {name} is a stream, from which nothing can be taken; delete it'
            )

    def _retry_queues(self, label: str) -> None:
        """With ``declare: false``, check that the retry queues exist, and lose nothing."""
        topology, declarer = self._topology, self._declarer
        if topology.is_own(label):
            return
        for delay in steps(self._section['retry']):
            topology.declare_retries(declarer, label, delay)
            name = topology.name_of_retries(label, delay)
            known = declarer.arguments_of('AMQP.retry', name, topology.retry_options(label, delay))
            if known is not None and not AT_LEAST_ONCE.items() <= known.items():
                wanted = ', '.join(f'{key}: {value}' for key, value in AT_LEAST_ONCE.items())
                self._report.warn(
                    ('AMQP', 'retry'),
                    f'AMQP.retry: {name} is not declared with {wanted}: {NOT_KEPT}',
                )

    def _look_at_timeout(self, position: str, kind: str | None) -> None:
        """Warn if the broker may requeue a message that a handler is still processing."""
        timeout, version = self._section['handler_timeout'], self._declarer.version
        if timeout is None or timeout < LEAST_CONSUMER_TIMEOUT or not version:
            return
        if version >= KNOWS_CONSUMER_TIMEOUT or kind == STREAM:
            return
        self._report.warn(
            ('AMQP', 'handler_timeout'),
            f'{position}: AMQP.handler_timeout is {timeout}, but the broker takes a message back'
            f' after {LEAST_CONSUMER_TIMEOUT} s unless its consumer_timeout is longer',
        )


def _keys(position: str) -> Keys:
    """The keys of a position such as ``AMQP.dead_letter`` or ``AMQP.retry``."""
    return tuple(position.split('.'))
