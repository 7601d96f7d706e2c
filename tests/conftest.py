"""What all tests share: the broker, a queue's name, and three rules of the house.

- A test that needs root is marked so. An ordinary user is told so first, and does without it.
- A skipped test is a failed one in continuous integration (``CI=true``), where everything that
  the tests need is there.
- A test ends what it starts: a process left over when the tests are done is an error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import signal
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.broker import Broker

#: Files of tests that need what no release of Debian has all of: make test installs it from PyPI.
NEEDS = {
    'test_asyncapi_schema.py': ('jsonschema', 'msgspec'),
    'test_bodies.py': ('msgspec', 'pydantic'),
    'test_json_schema.py': ('jsonschema',),
    'test_tracing.py': ('opentelemetry', 'opentelemetry.sdk'),
    'test_parsers.py': ('jsonschema', 'msgspec', 'pydantic'),
    'test_types.py': ('mypy', 'pyright'),
}
collect_ignore = [name for name, modules in NEEDS.items()
                  if not all(map(importlib.util.find_spec, modules))]

CI = os.environ.get('CI') == 'true'

IS_ROOT = os.geteuid() == 0

#: In the environment of every process that the tests start, and so the way to find them again,
#: daemons of other sessions and parents included (proc_pid_environ(5)).
MARK = f'CLIHELPER_TESTS={uuid.uuid4()}'

#: What Python warns of is an error in the programs that the tests start, too.
WARNINGS = [
    'error',
    # What a program leaves open at its end is for the system to close.
    'ignore::ResourceWarning',
    # A program of 1.x is warned of each name of that time, and goes on.
    'default::DeprecationWarning:__main__',
    # What Python 3.12 and 3.13 say to Tornado's IOLoop.current(), where a program calls that.
    'ignore:There is no current event loop:DeprecationWarning',
    # What py-amqp before 5.4 calls to decode a timestamp, from Python 3.12 on.
    'ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning:amqp.serialization',
    # What kombu of Debian 12 calls to find its transports, in Python 3.11.
    'ignore:SelectableGroups dict interface:DeprecationWarning:kombu.utils.compat',
]


#: The files whose tests take longest. They begin first, so that no process has them left when the
#: others are done.
LONG = ('test_model', 'test_soak', 'test_cluster', 'test_messages', 'test_partitions',
        'test_consumer')


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config.option, 'loadscopereorder'):  # by the number of tests
        config.option.loadscopereorder = False


def pytest_report_header() -> list[str]:
    return [] if IS_ROOT else ['an ordinary user: tests that need root are skipped']


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)
    for item in items:
        if not IS_ROOT and item.get_closest_marker('root'):
            item.add_marker(pytest.mark.skip(reason='needs root'))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Notes a figure, and what it is of, for the end of the report."""

    def note(what: str, value: str) -> None:
        request.node.user_properties.append(('figure', f'{what:<64} {value}'))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    figures = [
        line
        for report in reports
        if getattr(report, 'when', None) == 'call'
        for name, line in report.user_properties
        if name == 'figure'
    ]
    if figures:
        terminalreporter.section('figures')
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture(scope='session')
def broker() -> Iterator[Broker]:
    """A private RabbitMQ node for all tests; a test that stops it starts it again."""
    with Broker() as node:
        yield node


@pytest.fixture
def queue_name() -> str:
    """A name that no other test uses, for a queue, an exchange or whatever the broker holds."""
    return f'test-{uuid.uuid4()}'


@pytest.fixture(scope='session', autouse=True)
def programs_end_by_warnings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('PYTHONWARNINGS', ','.join(WARNINGS))
        yield


@pytest.fixture(scope='session', autouse=True)
def nothing_left_running() -> Iterator[None]:
    """The guard. It is set up before every other fixture, and so torn down after them."""
    name, value = MARK.split('=')
    os.environ[name] = value
    yield
    del os.environ[name]
    left = [(pid, command) for pid, command in marked_processes() if not ends(pid)]
    for pid, _ in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f'the tests have left processes running: {left}'


def marked_processes() -> list[tuple[int, str]]:
    """The pid and the command line of each process that the tests have started."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
        try:
            with open(f'/proc/{pid}/environ', 'rb') as file:
                if MARK.encode() not in file.read().split(b'\0'):
                    continue
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                command = file.read().replace(b'\0', b' ').decode(errors='replace').strip()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended, or is another user's
        if pid != os.getpid():
            found.append((pid, command))
    return found


def ends(pid: int) -> bool:
    """Whether a process that may be on its way out is gone within two seconds."""
    try:
        exited = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([exited], [], [], 2)[0])
    finally:
        os.close(exited)


@pytest.hookimpl(hookwrapper=True)  # as pytest 7.2 knows it, Debian's
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = (yield).get_result()
    if CI and report.skipped and not hasattr(report, 'wasxfail'):
        fail_skipped(report)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = (yield).get_result()
    if CI and report.skipped:
        fail_skipped(report)


def fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = 'failed'
    report.longrepr = f'a skipped test is a failure in continuous integration: {reason}'
