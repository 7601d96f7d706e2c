"""The schema of the configuration: every section and key of clihelper's, declared once.

Validation and defaults (:mod:`clihelper.config`) and the reference page (``docs/reference.py``)
are made from the tables at the end of this module. The types that they use come before them.
"""

from __future__ import annotations

import math
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

LONGEST_NAME = 255
"""The most bytes of a short string of AMQP 0-9-1 (section 4.2.5.3): names, routing keys, a virtual
host."""

LARGEST_PREFETCH = 65535
"""The most messages that AMQP 0-9-1 lets a broker send in advance (``basic.qos``)."""

DEAD_LETTERS = '.dead'
"""The suffix that makes the name of a dead-letter queue from that of its queue."""

RETRIES = '.retry.2.6e+06s'
"""The longest suffix that makes the name of a retry queue from that of its queue."""

LONGEST_FOLDER = 255
"""The most bytes of a folder's name in Linux's file systems (``NAME_MAX``)."""

MOST_FAILURES = 100
"""The most failures that a breaker counts."""

MOST_PARTITIONS = 1000
"""The most partitions of a queue: each is a queue of its own."""

STREAM_TIME = '_1796064475973329925'
"""The end of the name of a stream's folder on the broker: when the stream was declared, in
nanoseconds. They have 19 digits until 2286."""

NAMING_ARGUMENTS = ('alternate-exchange', 'x-dead-letter-exchange', 'x-dead-letter-routing-key')
"""Arguments that are names: RabbitMQ (3.10 to 4.3) accepts one that is too long, and then fails
(541) each time it delivers a message with it."""

#: The default of a key that is left out of the result if the file does not contain it.
ABSENT: Any = object()


class InvalidValue(ValueError):
    """A value that its type does not accept.

    :param expected: what would be valid, as a noun: ``a number above 0``.
    """


class WrongType(InvalidValue):
    """A value of another kind altogether, such as text instead of a number."""


# Types of one value

class Scalar:
    """A single value: neither a list nor a mapping.

    :ivar noun: the type in words: ``a number``.
    :ivar words: the noun with its limits: ``a number above 0``.
    :ivar secret: whether errors must not repeat the value.
    """

    secret = False

    def __init__(self, noun: str, words: str = '') -> None:
        self.noun = noun
        self.words = words or noun

    def read(self, value: object, text: str) -> Any:
        """Return the value as the program gets it.

        :param value: the value as YAML resolves it.
        :param text: the text as it is written.
        :raises InvalidValue: it is not of this type.
        """
        raise NotImplementedError


class Boolean(Scalar):
    """``true`` or ``false``, as YAML 1.1 spells them (also yes, no, on, off)."""

    def __init__(self) -> None:
        super().__init__('true or false')

    def read(self, value: object, text: str) -> bool:
        if not isinstance(value, bool):
            raise WrongType(self.noun)
        return value


class Number(Scalar):
    """A number within limits; never a boolean, never infinite.

    :param above: an exclusive lower limit, instead of ``least``.
    :param whole: whether fractions are refused.
    """

    def __init__(self, least: float | None = None, most: float | None = None, *,
                 above: float | None = None, whole: bool = False) -> None:
        limits = [words for limit, words in (
            (above, f'above {above}'), (least, f'of at least {least}'), (most, f'at most {most}'),
        ) if limit is not None]
        noun = 'an integer' if whole else 'a number'
        super().__init__(noun, ' '.join([noun, ' and '.join(limits)]))
        self._types = (int,) if whole else (int, float)
        self._within: Callable[[float], bool] = lambda value: (
            (least is None or value >= least) and (most is None or value <= most)
            and (above is None or value > above))

    def read(self, value: object, text: str) -> float:
        if not isinstance(value, self._types) or isinstance(value, bool):
            raise WrongType(self.noun)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValue('a finite number')
        if re.fullmatch('[-+]?0[0-7_]+', text) or ':' in text:
            raise InvalidValue(f'{self.noun} without a leading zero or a colon'
                               f' (YAML 1.1 reads this as {value})')
        if not self._within(value):
            raise InvalidValue(self.words)
        return value


class Text(Scalar):
    """A string.

    :param most: the most bytes in UTF-8; 0 for no limit.
    """

    def __init__(self, noun: str = 'a string', *, empty: bool = False, most: int = 0) -> None:
        super().__init__(noun)
        self._empty = empty
        self._most = most

    def read(self, value: object, text: str) -> str:
        if not isinstance(value, str):
            raise WrongType(self.noun)
        if not value and not self._empty:
            raise InvalidValue(f'{self.noun} that is not empty')
        if '\0' in value:
            raise InvalidValue(f'{self.noun} without a NUL')
        if self._most and utf8_size(value) is None:
            raise InvalidValue(f'{self.noun} in UTF-8')
        if self._most and (utf8_size(value) or 0) > self._most:
            raise InvalidValue(f'{self.noun} of at most {self._most} bytes')
        return value


def utf8_size(text: str) -> int | None:
    """Return the size of a text in UTF-8, in bytes.

    None if it cannot be encoded, as with undecodable bytes from the environment.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def vhost_size(url: str) -> int:
    """Return the size of the virtual host in a URL, in bytes; 0 if none is named."""
    path = url.partition('://')[2].partition('?')[0].partition('/')[2]
    return utf8_size(re.sub('%[0-9A-Fa-f]{2}', '%', path)) or 0


def is_short_string(text: str) -> bool:
    """Whether a text can be a name or a routing key in AMQP."""
    size = utf8_size(text)
    return size is not None and size <= LONGEST_NAME


class Choice(Text):
    """One of a few strings.

    :param pattern: a regular expression for further strings that are accepted.
    :param besides: the description of these, appended to the choices.
    """

    def __init__(self, *choices: str, pattern: str = '', besides: str = '') -> None:
        super().__init__(f'one of {", ".join(choices)}{besides}')
        self.choices = choices
        self._pattern = pattern

    def read(self, value: object, text: str) -> str:
        if value in self.choices:
            return str(value)
        if isinstance(value, str) and self._pattern and re.fullmatch(self._pattern, value):
            return value
        raise WrongType(self.noun)


class OctalMode(Scalar):
    """Permission bits, always read as octal: 027, 0o27, '27' and 27 are the same."""

    def __init__(self) -> None:
        super().__init__('an octal number from 0 to 0777')

    def read(self, value: object, text: str) -> int:
        # YAML 1.1 reads 027 as 23, 27 as 27 and 0o27 as a string: only the text is reliable.
        if not re.fullmatch('(0o)?[0-7]{1,12}', text) or int(text.removeprefix('0o'), 8) > 0o777:
            raise WrongType(self.noun)
        return int(text.removeprefix('0o'), 8)


class AbsolutePath(Text):
    """An absolute path, for a directory that relative paths are relative to."""

    def __init__(self) -> None:
        super().__init__('an absolute path')

    def read(self, value: object, text: str) -> str:
        path = super().read(value, text)
        if not path.startswith('/'):
            raise InvalidValue(self.noun)
        return path


class PidfilePath(Text):
    """A path in which ``%(app)s`` stands for the program's name and ``%%`` for ``%``."""

    def __init__(self) -> None:
        super().__init__('a path')

    def read(self, value: object, text: str) -> str:
        path = super().read(value, text)
        # With the % operator, a field width in the file could allocate gigabytes.
        if any('%' in part.replace('%(app)s', '') for part in path.split('%%')):
            raise InvalidValue('a path with no % except in %(app)s and %%')
        return path


class Size(Scalar):
    """A size in bytes: a number, or a number with K, M or G for powers of 1024."""

    _FACTORS = {'': 1, 'K': 1024, 'M': 1024**2, 'G': 1024**3}

    def __init__(self) -> None:
        super().__init__('a size in bytes, such as 512M')

    def read(self, value: object, text: str) -> int:
        found = re.fullmatch('([0-9]{1,18})([KMG]?)', str(value))
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not found:
            raise WrongType(self.noun)
        size = int(found[1]) * self._FACTORS[found[2]]
        if not size:
            raise InvalidValue('a size above 0')
        return size


class Rate(Scalar):
    """So many in a second, minute or hour: ``10/s``, ``900/m``, ``5/h``; as a number a second."""

    _SECONDS = {'s': 1, 'm': 60, 'h': 3600}

    def __init__(self) -> None:
        super().__init__('a rate such as 10/s, 900/m or 5/h')

    def read(self, value: object, text: str) -> float:
        found = re.fullmatch(r'([0-9]{1,9}(?:\.[0-9]{1,9})?) ?/ ?([smh])', str(value))
        if not isinstance(value, str) or not found:
            raise WrongType(self.noun)
        rate = float(found[1]) / self._SECONDS[found[2]]
        if not 1 / _MONTH <= rate <= 1_000_000:
            raise InvalidValue(f'{self.noun}, at least one a month and at most 1000000/s')
        return rate


class Address(Text):
    """An address to listen on: ``host:port``, ``[v6]:port``, ``:port`` or ``unix:/path``."""

    def __init__(self) -> None:
        super().__init__('an address such as localhost:8080, :8080 or unix:/path')

    def read(self, value: object, text: str) -> str:
        address = super().read(value, text)
        if address.startswith('unix:'):
            if not address.startswith('unix:/') or len(address.encode()) > 112:  # unix(7): 107
                raise InvalidValue(f'{self.noun}, of at most 107 bytes')
            return address
        found = re.fullmatch(r'(?:\[[0-9A-Fa-f:.%]+\]|[^:\[\]/]*):([0-9]{1,5})', address)
        if not found or int(found[1]) > 65535:
            raise InvalidValue(self.noun)
        return address


class BrokerURL(Text):
    """The URL of a broker (https://www.rabbitmq.com/docs/uri-spec). It may contain a password.

    The only query parameter is ``heartbeat``, for AMQP. Other parameters that libraries and
    brokers know are keys of ``AMQP`` here.
    """

    secret = True
    _INSTEAD = {
        'tls.ca': ('ca_certs', 'cacertfile', 'cafile', 'ssl_ca_certs'),
        'tls.certificate': ('certfile', 'ssl_certfile'),
        'tls.key': ('keyfile', 'ssl_keyfile'),
        'tls.server_name': ('server_hostname', 'server_name_indication'),
        'tls.verify': ('no_verify_ssl', 'ssl_cert_reqs', 'verify'),
        'tls': ('ssl', 'ssl_options'),
        'prefetch': ('prefetch', 'prefetch_count'),
    }
    """The keys of ``AMQP`` that replace query parameters."""
    _AMQP = ('amqp', 'amqps', 'pyamqp')
    _OTHERS = ('memory', 'redis', 'rediss', 'filesystem', 'sqs')

    def __init__(self) -> None:
        super().__init__('a URL such as amqp://user:password@host:5672/vhost')

    def read(self, value: object, text: str) -> str:
        url = super().read(value, text)
        scheme, separator, rest = url.partition('://')
        if not separator or scheme not in self._AMQP + self._OTHERS:
            raise InvalidValue('a URL that begins with amqp://, amqps:// or memory://, or with'
                               ' redis://, rediss://, filesystem:// or sqs://')
        if scheme in self._OTHERS:
            return url
        host = re.split('[/?#]', rest)[0].rpartition('@')[2]
        port = re.fullmatch(r'(?:\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?', host)
        if not port or (port.group(1) and not 0 < int(port.group(1)) < 65536):
            raise InvalidValue('a URL whose port is from 1 to 65535 (in a password / is %2F, : is'
                               ' %3A, @ is %40)')
        self._check_parameters(rest.partition('#')[0].partition('?')[2])
        if vhost_size(url) > LONGEST_NAME:
            raise InvalidValue(f'a URL whose virtual host has at most {LONGEST_NAME} bytes')
        return url

    def _check_parameters(self, query: str) -> None:
        seen: set[str] = set()
        for parameter in filter(None, query.split('&')):
            name, equals, value = parameter.partition('=')
            if name != 'heartbeat' or name in seen:
                hint = self._hint(name) if equals else ''
                raise InvalidValue(f'a URL with no parameter except one heartbeat{hint}')
            if not re.fullmatch(r'[0-9]{1,5}(\.[0-9]{1,9})?', value) or float(value) > 65535:
                raise InvalidValue('a URL whose heartbeat is a number from 0 to 65535')
            seen.add(name)

    def _hint(self, name: str) -> str:
        if not re.fullmatch('[A-Za-z][A-Za-z0-9_.-]{0,40}', name) or name == 'heartbeat':
            return ''
        for key, names in self._INSTEAD.items():
            if name.lower() in names:
                return f': use AMQP.{key} instead of {name}'
        return f': there is no key for {name}'


# Types of several values

class List:
    """A list.

    :param single: whether a single value stands for a list of one.
    """

    noun = 'a list'

    def __init__(self, item: Scalar | Table, *, least: int = 0, single: bool = False) -> None:
        self.item = item
        self.least = least
        self.single = single
        plural = 'one or more' if least else 'any number'
        self.words = f'a list ({plural}) of: {item.words}'
        if single:
            self.words += ', or one alone'


class Map:
    """A mapping whose keys are names that the user chooses. Null stands for an empty one.

    :param key: the type of the keys; None: any.
    """

    noun = 'a mapping'

    def __init__(self, value: Table, name: str, key: Scalar | None) -> None:
        self.value = value
        self.name = name
        self.key = key
        self.words = f'a mapping, for each {name} a mapping'


class Arguments:
    """A mapping of strings to values that an AMQP table can hold. Null stands for an empty one.

    The types are those of AMQP 0-9-1, section 4.2.1.
    """

    noun = 'a mapping'
    words = 'a mapping'
    fit = 'text, a number of at most 64 bits, true or false, null, or a list or mapping of such'

    def __init__(self) -> None:
        self.key = Text('a string as a key', most=LONGEST_NAME)

    def takes(self, value: object) -> bool:
        """Whether AMQP has a type for *value*."""
        if isinstance(value, list):
            return all(self.takes(each) for each in value)
        if isinstance(value, dict):
            return all(
                isinstance(key, str) and is_short_string(key) and self.takes(each)
                for key, each in value.items()
            )
        if isinstance(value, int):
            return -(2**63) <= value < 2**63
        if isinstance(value, str):
            return utf8_size(value) is not None
        return value is None or isinstance(value, (bytes, float))


class Table:
    """A mapping whose keys are known. Null stands for an empty one.

    :param free: whether further keys are passed on as they are; otherwise they are faults.
    :param required: the keys that must be there.
    """

    noun = 'a mapping'
    words = 'a mapping'

    def __init__(self, *keys: Key, free: bool = False, required: tuple[str, ...] = ()) -> None:
        self.keys = {key.name: key for key in keys}
        self.free = free
        self.required = required

    def defaults(self) -> dict[str, Any]:
        """Return what an empty mapping stands for, made anew at every call."""
        return {key.name: key.fresh() for key in self.keys.values() if key.default is not ABSENT}


class Either:
    """One of several types; the first that accepts a value wins.

    :param words: the type in words, where joining those of its types would read badly.
    """

    def __init__(self, *types: Scalar | List | Table, words: str = '') -> None:
        self.types = types
        self.scalars = [each for each in types if isinstance(each, Scalar)]
        self.noun = words or ' or '.join(each.noun for each in types)
        self.words = words or ' or '.join(each.words for each in types)
        self.secret = any(each.secret for each in self.scalars)

    def alternative(self, mapping: bool, sequence: bool) -> Scalar | Either | List | Table:
        """Return the type for a mapping or a list, if there is one; otherwise itself."""
        wanted = Table if mapping else List
        fits = (each for each in self.types if isinstance(each, wanted))
        return next(fits, self) if mapping or sequence else self

    def read(self, value: object, text: str) -> Any:
        """Return the value as the program gets it; see :meth:`Scalar.read`."""
        for each in self.scalars:
            try:
                return each.read(value, text)
            except WrongType:
                continue
        raise WrongType(self.noun)


class Nothing(Scalar):
    """Null, where it is a value of its own: :class:`Either` of it and another type."""

    def __init__(self) -> None:
        super().__init__('null')

    def read(self, value: object, text: str) -> None:
        if value is not None:
            raise WrongType(self.noun)


if TYPE_CHECKING:
    Type = Scalar | Either | List | Map | Arguments | Table


AT_ONCE, AT_RELOAD, AT_START = 'USR1', 'HUP', 'start'
"""When a change takes effect: after a reload in place (USR1) or by HUP; when the controller is set
up again or the workers are replaced (HUP); at the next start only."""


class Key:
    """One key of a table.

    :param default: the value if the file contains none; :data:`ABSENT`: left out, or computed by
        :mod:`clihelper.config`. The default of a table is made of its keys' defaults.
    :param meaning: one line for the reference, in reStructuredText.
    :param otherwise: the default in words, if the value does not explain itself.
    :param effect: when a change takes effect: :data:`AT_ONCE`, :data:`AT_RELOAD` or
        :data:`AT_START`.
    :param supervised: whether this holds only under a supervisor; without one, only the next
        start reads the key.
    """

    __slots__ = ('default', 'effect', 'meaning', 'name', 'otherwise', 'supervised', 'type')

    def __init__(self, name: str, type: Type, default: Any, meaning: str,
                 otherwise: str = '', *, effect: str | None = None,
                 supervised: bool = False) -> None:
        self.name = name
        self.type = type
        self.default = default
        self.meaning = meaning
        self.otherwise = otherwise
        self.effect = effect or AT_RELOAD
        self.supervised = supervised

    def fresh(self) -> Any:
        """Return the default, made anew at every call."""
        if isinstance(self.type, Table):
            return self.type.defaults()
        return self.default.copy() if isinstance(self.default, (list, dict)) else self.default


# Types used in the tables

_YEAR = 365 * 24 * 3600
_MONTH = 30 * 24 * 3600

BOOLEAN = Boolean()
SECONDS = Number(above=0, most=_YEAR)
DELAY = Number(0, _MONTH)
ACCOUNT = Either(Nothing(), Number(0, 2**32 - 2, whole=True), Text('a name'),
                 words='a name or a numeric id')
AMQP_NAME = Text('a name', most=LONGEST_NAME)
OPTIONAL_NAME = Text('a name', empty=True, most=LONGEST_NAME)
RATE = Rate()
ROUTING_KEY = Text('a routing key', empty=True, most=LONGEST_NAME)
LOG_LEVEL = Choice('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')
EXCHANGE_TYPE = Choice('direct', 'fanout', 'topic', 'headers',
                       pattern='x-[a-z0-9-]+', besides=", or a plugin's x-...")


# The tables

APPLICATION = Table(
    Key('wake_interval', SECONDS, 60, 'Seconds from one ``_process`` to the next.',
        effect=AT_ONCE),
    free=True,
)

DAEMON = Table(
    Key('user', ACCOUNT, None, 'The user that the daemon runs as.',
        'the user who starts it', effect=AT_START),
    Key('group', ACCOUNT, None, 'The group that it runs as.',
        "the user's group", effect=AT_START),
    Key('pidfile', Either(Nothing(), PidfilePath(), words='a path or null'), ABSENT,
        'The file with the process ID, locked so that a second daemon cannot start;'
        ' ``%(app)s`` stands for the name of the program, null for no file.',
        '``$RUNTIME_DIRECTORY/%(app)s.pid`` if that is set, ``/run/%(app)s.pid`` for root,'
        ' ``$XDG_RUNTIME_DIR/%(app)s.pid`` for others if that is set, otherwise none',
        effect=AT_START),
    Key('umask', OctalMode(), 0o027,
        'The permissions that new files do not get; always read as octal.', '``027``',
        effect=AT_START),
    Key('working_directory', AbsolutePath(), ABSENT,
        'The current directory of the daemon. Relative paths in the configuration are relative'
        ' to it.', '``/`` for root, otherwise where it was started', effect=AT_START),
    Key('prevent_core', BOOLEAN, True, 'Whether core dumps are prevented.', effect=AT_START),
    Key('start_timeout', SECONDS, 30,
        'Seconds that the starting command waits for the daemon to be ready, and in which a worker'
        ' that takes the place of another must be ready.', effect=AT_ONCE),
    Key('stop_timeout', SECONDS, 60,
        'Seconds that a graceful stop may take; then unfinished work is abandoned.',
        effect=AT_ONCE),
    Key('redirect_output', Either(BOOLEAN, Table(
        Key('logger', Text('the name of a logger'), 'stdout', 'The logger of the records.'),
        Key('level', LOG_LEVEL, 'INFO', 'The level of the records.'),
    ), words='true, false or a mapping'), True,
        "Whether the daemon's output goes to the log, and how.", effect=AT_ONCE),
    Key('state_directory', Either(Nothing(), Text('a path'), words='a path or null'), ABSENT,
        'Where the daemon keeps what must survive a restart.',
        '``$STATE_DIRECTORY`` if that is set, otherwise none', effect=AT_START),
    Key('logs_directory', Either(Nothing(), Text('a path'), words='a path or null'), ABSENT,
        'The directory that relative names of log files are relative to.',
        '``$LOGS_DIRECTORY`` if that is set, otherwise ``working_directory``, or with ``-f`` where'
        ' it was started', effect=AT_ONCE),
    Key('workers', Number(1, 1024, whole=True), 1,
        'Processes that share the work: see :doc:`workers`.', effect=AT_ONCE, supervised=True),
    Key('max_messages', Either(Nothing(), Number(1, 2**63 - 1, whole=True),
                               words='an integer of at least 1 or null'), None,
        'Messages after which a worker is replaced.', 'no limit', supervised=True),
    Key('max_memory', Either(Nothing(), Size(), words='a size in bytes, such as 512M, or null'),
        None,
        'Resident memory above which a worker is replaced: bytes, or with ``K``, ``M`` or ``G``'
        ' for as many times 1024, 1024\\ :sup:`2` or 1024\\ :sup:`3`.', 'no limit',
        supervised=True),
    Key('max_age', Either(Nothing(), SECONDS, words='a number above 0 or null'), None,
        'Seconds after which a worker is replaced.', 'no limit', supervised=True),
    Key('listen', List(Address(), single=True), [],
        'Where to listen, for the ``sockets`` of the controller: ``host:port``, ``[v6]:port``,'
        ' ``:port`` for every address, or ``unix:/path``.', effect=AT_START),
    Key('metrics', Either(Nothing(), Address(), words='an address such as localhost:9090 or null'),
        None, 'Where to serve metrics and probes by HTTP: see :doc:`metrics`; an address as for'
        ' ``listen``.', 'none', effect=AT_START),
    Key('control', Either(BOOLEAN, PidfilePath(), words='true, false or a path'), True,
        'The socket by which the daemon is asked, see :ref:`control-socket`; false for none.'
        ' There is none without a pidfile, and with ``-f``.',
        "the pidfile's path with ``.sock`` in the place of ``.pid``", effect=AT_START),
)

LOGGING = Table(
    Key('handlers', Map(Table(
        Key('debug_only', BOOLEAN, ABSENT,
            'Whether the handler exists only with ``-f``.', '``false``'),
        free=True,
    ), 'handler', None), ABSENT, "As for ``dictConfig``; one key is clihelper's.", 'none',
        effect=AT_ONCE),
    free=True,
)

EXCHANGE = Table(
    Key('type', EXCHANGE_TYPE, 'direct', 'How messages find their queues.'),
    Key('durable', BOOLEAN, True, 'Whether it survives a restart of the broker.'),
    Key('auto_delete', BOOLEAN, False,
        'Whether it is deleted with the last queue bound to it.'),
    Key('arguments', Arguments(), {},
        "The broker's own arguments, such as ``alternate-exchange``."),
)

BINDING = Table(
    Key('exchange', AMQP_NAME, ABSENT, 'The exchange that the queue is bound to.', 'required'),
    Key('routing_key', ROUTING_KEY, '', 'The routing key of the messages, or a pattern for it.',
        'empty'),
    Key('arguments', Arguments(), {},
        'What a ``headers`` exchange compares: headers, and ``x-match``.'),
    required=('exchange',),
)

BREAKER = Table(
    Key('failures', Number(1, MOST_FAILURES, whole=True), ABSENT,
        'How many runs have to fail for the queue not to be consumed any more.', 'required'),
    Key('within', SECONDS, 60, 'The seconds within which they have to.'),
    Key('pause', SECONDS, 30,
        'The seconds for which it is not consumed; then one message is tried first.'),
    required=('failures',),
)

QUEUE = Table(
    Key('name', OPTIONAL_NAME, ABSENT,
        "The queue's name on the broker; if it is empty, the broker names the queue anew at each"
        ' connection.', 'its key in ``queues``'),
    Key('exchange', OPTIONAL_NAME, ABSENT,
        'The exchange that it is bound to: one of ``exchanges`` or of the broker (``amq.*``).',
        'none'),
    Key('routing_keys', List(ROUTING_KEY, single=True), [],
        'The routing keys that it is bound with.'),
    Key('bindings', List(BINDING), [],
        'Further bindings: to several exchanges, or with arguments.'),
    Key('partitions', Number(1, MOST_PARTITIONS, whole=True), ABSENT,
        'How many queues it is divided into, called ``<name>.0``, ``<name>.1``, ..., each of which'
        ' one worker at a time consumes: see :ref:`partitions`.', 'none'),
    Key('durable', BOOLEAN, ABSENT, 'Whether it survives a restart of the broker.',
        '``true``; ``false`` if the broker names it'),
    Key('exclusive', BOOLEAN, ABSENT,
        'Whether it belongs to this connection and is deleted with it.',
        '``false``; ``true`` if the broker names it'),
    Key('auto_delete', BOOLEAN, False, 'Whether it is deleted with its last consumer.'),
    Key('arguments', Arguments(), {}, "The broker's own arguments, such as ``x-queue-type``."),
    Key('consumer_arguments', Arguments(), {},
        "The broker's own arguments for consuming it, such as ``x-priority``."),
    Key('consume', BOOLEAN, True,
        'Whether it is consumed; if not, it is only declared and bound, for what is published to'
        ' it or for other programs.'),
    Key('rate', RATE, ABSENT,
        'How many of its messages all workers of the daemon together begin to handle at most:'
        ' ``10/s``, ``900/m`` or ``5/h``; see :ref:`rate`.', 'no limit'),
    Key('breaker', Either(BOOLEAN, BREAKER, words='false or a mapping'), ABSENT,
        'After how many failures it is not consumed for a while; false for never.',
        'the value of ``AMQP.breaker``'),
)

RETRY = Table(
    Key('attempts', Number(1, 1_000_000, whole=True), 5,
        'How often one message is run in all.'),
    Key('delay', DELAY, 1, 'Seconds before the second run.'),
    Key('factor', Number(1, 1000), 2, 'The factor by which each further delay is longer.'),
    Key('max_delay', DELAY, 300, 'The longest delay, in seconds.'),
)

TLS = Table(
    Key('ca', Either(Nothing(), Text('a path'), words='a path or null'), None,
        "The authorities that may have signed the broker's certificate, a file in PEM.",
        "the system's"),
    Key('certificate', Either(Nothing(), Text('a path'), words='a path or null'), None,
        "The program's own certificate with its intermediate certificates, a file in PEM."),
    Key('key', Either(Nothing(), Text('a path'), words='a path or null'), None,
        'The private key of ``certificate``, a file in PEM, not encrypted.',
        'in the file of ``certificate``'),
    Key('verify', BOOLEAN, True,
        "Whether the broker's certificate must be valid and issued for the host's name."),
    Key('strict', BOOLEAN, False,
        'Whether certificates must also contain each extension that RFC 5280 requires. Those of'
        ' an authority made by ``openssl req -x509`` alone do not.'),
    Key('server_name', Either(Nothing(), Text('a host name'), words='a host name or null'), None,
        'The name that the certificate must be issued for.', 'the host in ``url``'),
)

BATCH = Table(
    Key('size', Number(1, 1000, whole=True), 100,
        'The most messages of one call. The broker sends at least twice as many in advance for'
        ' each call at a time.'),
    Key('wait', Number(0, 600), 0.1,
        'Seconds from the arrival of the first message until ``on_messages`` is called with'
        ' fewer.'),
)

AMQP = Table(
    Key('url', Either(BrokerURL(), List(BrokerURL(), least=1)),
        'amqp://guest:guest@localhost:5672//',
        'The broker, or a list of brokers, tried in turn; ``memory://`` needs no broker.'),
    Key('transport_options', Arguments(), {},
        "Options of kombu's transports for ``redis://``, ``filesystem://`` and ``sqs://``."),
    Key('tls', TLS, {}, 'How to connect to a broker by ``amqps://``.'),
    Key('heartbeat', Number(0, 65535), 10,
        'Seconds between heartbeats of the connection; 0 disables them.'),
    Key('prefetch', Number(1, LARGEST_PREFETCH, whole=True), 100,
        'How many unacknowledged messages the broker sends in advance.'),
    Key('concurrency', Either(Nothing(), Number(1, 65535, whole=True),
                              words='an integer of at least 1 and at most 65535, or null'), None,
        'How many messages an :class:`~clihelper.AsyncConsumerController` handles at a time. The'
        ' broker sends at least as many in advance.', 'the value of ``prefetch``'),
    Key('threads', Number(1, 1000, whole=True), 1,
        'How many messages a :class:`~clihelper.ConsumerController` handles at a time, each in a'
        ' thread; with 1, in the main thread.'),
    Key('batch', Either(Nothing(), BATCH, words='a mapping or null'), None,
        'How many messages ``on_messages`` gets at a time; only for a controller that has it.',
        'as below'),
    Key('declare', BOOLEAN, True,
        'Whether exchanges and queues are created; if not, they must exist, which is verified.'),
    Key('exchanges', Map(EXCHANGE, 'exchange', AMQP_NAME), {}, 'The exchanges, by name.'),
    Key('queues', Map(QUEUE, 'queue', OPTIONAL_NAME), {},
        'The queues that are declared and consumed, by name.'),
    Key('retry', RETRY, {}, 'How often and when a failed message is run again.'),
    Key('dead_letter', Either(BOOLEAN, AMQP_NAME), True,
        'Whether messages that cannot be handled go to the queue ``<queue>.dead``; or the name of'
        ' another queue for them.'),
    Key('accept', List(Choice('json', 'text', 'binary'), least=1), ['json', 'text', 'binary'],
        'The types of bodies that are accepted: JSON is decoded to objects, text to strings.'),
    Key('max_body', Number(1, 2**63 - 1, whole=True), 16 * 1024 * 1024,
        'The largest body that is handled, in bytes.'),
    Key('rate', Either(Nothing(), RATE, words='a rate such as 10/s, 900/m or 5/h, or null'), None,
        'How many messages of all queues all workers of the daemon together begin to handle at'
        ' most; see :ref:`rate`.', 'no limit'),
    Key('breaker', Either(Nothing(), BREAKER, words='a mapping or null'), None,
        'After how many failures a queue is not consumed for a while; see :ref:`breaker`.',
        'never'),
    Key('handler_timeout', Either(Nothing(), SECONDS, words='a number above 0 or null'), None,
        'Seconds that ``on_message``, or ``on_messages``, may take; then its process is killed'
        ' and replaced.',
        'no limit', supervised=True),
    Key('wait_for_broker', BOOLEAN, True,
        'Whether to wait for an unreachable broker; if not, the program ends with status 69.'),
    Key('tracing', BOOLEAN, False,
        'Whether there is a span of OpenTelemetry for each run of a handler, and for each message'
        ' that is published. It takes the package ``opentelemetry-api``.'),
)


def name_fault(label: str, queue: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """Return why a queue's name is too long for the names derived from it; empty if it is not.

    RabbitMQ (3.10 to 4.3) keeps a stream in a folder ``<vhost>_<queue>_<time>``. If that is too
    long for the name of a folder, it confirms the declaration all the same and then tries again
    for ever, from 4.0 on at the cost of all processors.

    :param label: the queue's key in ``AMQP.queues``.
    :param queue: its options. If there is no ``name`` among them, the label is its name on the
        broker; if that is empty, the broker names it.
    :param section: ``AMQP``; a faulty value in it is None.
    """
    name = queue.get('name', label)
    if name and queue.get('partitions'):
        name = f'{name}.{queue["partitions"] - 1}'
    limits = []
    if name and (queue['arguments'] or {}).get('x-queue-type') == 'stream':
        most = LONGEST_FOLDER - len(f'_{STREAM_TIME}') - _longest_vhost(section['url'])
        limits.append((name, most, 'the broker keeps a stream in a folder <vhost>_<queue>_<time>'))
    elif name and ((section['retry'] or {}).get('attempts') or 1) > 1:
        most = LONGEST_NAME - len(RETRIES)
        limits.append((name, most, 'its retry queues are called <queue>.retry.<delay>'))
    if section['dead_letter'] is True:
        most = LONGEST_NAME - len(DEAD_LETTERS)
        limits.append((name or label, most, 'its dead letters are in <queue>.dead'))
    for text, most, why in limits:
        if most < (size := utf8_size(text) or 0) <= LONGEST_NAME:
            return f'expected a name of at most {most} bytes, got {size}: {why}'
    return ''


def _longest_vhost(urls: str | list[str | None] | None) -> int:
    """Return the size in bytes of the longest virtual host in ``AMQP.url``; ``/`` is the default.

    :param urls: its value; what is faulty in it is None.
    """
    sizes = map(vhost_size, filter(None, [urls] if isinstance(urls, str) else urls or []))
    return max([1, *sizes])


#: The sections of clihelper. All others are the application's own.
SECTIONS = Table(
    Key('Application', APPLICATION, {},
        'Settings of the program itself. Further keys are its own.'),
    Key('Daemon', DAEMON, {}, 'How the program is run.'),
    Key('Logging', LOGGING, {},
        'The dictionary of :func:`logging.config.dictConfig`. If it is absent, records go to the'
        ' coloured console in the foreground, to syslog as a daemon.'),
    Key('AMQP', AMQP, {}, 'The broker of a :class:`~clihelper.ConsumerController`.'),
    free=True,
)
