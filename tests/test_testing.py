"""clihelper.testing: the harness in the test's process, programs, daemons, the notify socket."""

from __future__ import annotations

import array
import asyncio
import fcntl
import gc
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import clihelper
from clihelper import testing
from clihelper.errors import ConfigurationError, StopNow, UsageError
from clihelper.process.systemd import Notifier
from clihelper.states import State
from clihelper.testing import Outcome

ROOT = Path(__file__).resolve().parent.parent
TELLER = ROOT / 'tests' / 'programs' / 'testing_daemon.py'

QUEUE: dict[str, Any] = {'AMQP': {'queues': {'orders': {}}}}


class Diary(clihelper.Controller):
    """Writes down which hooks are called, in which state, and does what the test says."""

    fails_in: tuple[str, ...] = ()

    def __init__(self, options: Any, arguments: list[str]) -> None:
        super().__init__(options, arguments)
        self.entries: list[str] = []
        self.states: list[State] = []

    def write(self, entry: str) -> None:
        self.entries.append(entry)
        self.states.append(self.state)
        if entry in self.fails_in:
            raise ZeroDivisionError(entry)

    def _setup(self) -> None:
        self.write('setup')

    def _process(self) -> Any:
        self.write('process')
        return len(self.entries)

    def _shutdown(self) -> None:
        self.write('shutdown')
        super()._shutdown()

    def _cleanup(self) -> None:
        self.write('cleanup')

    def on_sigusr2(self) -> None:
        self.write('usr2')

    def on_configuration_reloaded(self) -> None:
        self.write('reloaded')


def diary_failing_in(*hooks: str) -> type[Diary]:
    return type('FailingDiary', (Diary,), {'fails_in': hooks})


@contextmanager
def harness_goes_on(harness: testing.Harness[Any]) -> Iterator[None]:
    yield
    assert harness.controller.is_running


# The harness: hooks.

def test_entering_sets_up_and_leaving_stops_gracefully() -> None:
    with testing.Harness(Diary) as harness:
        diary = harness.controller
        assert diary.entries == ['setup']
        assert diary.state is State.SLEEPING
    assert diary.entries == ['setup', 'shutdown', 'cleanup']
    assert diary.states == [State.INITIALIZING, State.STOP_REQUESTED, State.STOPPING]
    assert diary.state is State.STOPPED


def test_a_failing_test_cleans_up_and_its_failure_comes_out() -> None:
    harness = testing.Harness(Diary)
    with pytest.raises(AssertionError, match='the test itself') as caught, harness:
        raise AssertionError('the test itself')
    assert harness.controller.entries == ['setup', 'shutdown', 'cleanup']
    assert caught.value.__context__ is None


def test_a_tick_calls_process_once_and_returns_what_it_did() -> None:
    with testing.Harness(Diary) as harness:
        assert harness.tick() == 2
        assert harness.controller.entries == ['setup', 'process']
        assert harness.controller.states[-1] is State.ACTIVE
        assert harness.controller.state is State.SLEEPING


def test_what_process_raises_comes_out_when_the_controller_has_cleaned_up() -> None:
    with testing.Harness(diary_failing_in('process')) as harness:
        with pytest.raises(ZeroDivisionError, match='^process$'):
            harness.tick()
        assert harness.controller.entries == ['setup', 'process', 'cleanup']
        assert harness.controller.state is State.STOPPED
        with pytest.raises(RuntimeError, match='Diary is no longer running: it is STOPPED'):
            harness.tick()


def test_what_setup_raises_comes_out_and_nothing_is_cleaned_up() -> None:
    harness = testing.Harness(diary_failing_in('setup'))
    with pytest.raises(ZeroDivisionError, match='^setup$'):
        harness.__enter__()
    assert harness.controller.entries == ['setup']
    assert harness.controller.state is State.STOPPED


@pytest.mark.parametrize('hook', ['shutdown', 'cleanup'])
def test_what_the_hooks_of_the_end_raise_comes_out(hook: str) -> None:
    harness = testing.Harness(diary_failing_in(hook))
    with pytest.raises(ZeroDivisionError, match=f'^{hook}$'), harness:
        pass
    assert harness.controller.entries == ['setup', 'shutdown', 'cleanup']


def test_a_process_that_asks_for_a_stop_is_followed_by_the_end() -> None:
    class Once(Diary):
        def _process(self) -> None:
            self.stop()
            self.write('process')

    with testing.Harness(Once) as harness:
        harness.tick()
        assert harness.controller.state is State.STOPPED
    assert harness.controller.entries == ['setup', 'shutdown', 'process', 'cleanup']


def test_a_setup_that_asks_for_a_stop_is_followed_by_the_end() -> None:
    class Never(Diary):
        def _setup(self) -> None:
            self.stop()

    with testing.Harness(Never) as harness:
        assert harness.controller.entries == ['cleanup']


def test_the_shutdown_of_a_loop_of_its_own_is_not_called_since_the_loop_is_not() -> None:
    class Own(Diary):
        def _loop(self) -> None:
            self.write('loop')

    with testing.Harness(Own) as harness:
        harness.tick()
    assert harness.controller.entries == ['setup', 'process', 'cleanup']


# The harness: what the controller is given.

def test_a_mapping_is_a_configuration_with_the_defaults_filled_in(tmp_path: Path) -> None:
    config = {'Application': OrderedDict(dry_run=True, sizes=(1, 2)),
              'Daemon': {'working_directory': tmp_path}}
    with testing.Harness(Diary, config) as harness:
        assert harness.controller.application_config == {
            'wake_interval': 60, 'dry_run': True, 'sizes': [1, 2]}
        assert harness.controller.config['Daemon']['working_directory'] == str(tmp_path)
        assert harness.controller.config['AMQP']['prefetch'] == 100


def test_text_with_a_colon_is_a_configuration() -> None:
    with testing.Harness(Diary, 'Application: {wake_interval: 0.5}') as harness:
        assert harness.controller.wake_interval == 0.5


@pytest.mark.parametrize('kind', [str, Path])
def test_the_name_of_a_file_is_a_configuration(tmp_path: Path, kind: type) -> None:
    path = tmp_path / 'app.yml'
    path.write_text('Application: {secret: !file secret}')
    (tmp_path / 'secret').write_text('x')
    # It may belong to anybody, since it is not for a daemon.
    os.chmod(path, 0o666)
    with testing.Harness(Diary, kind(path)) as harness:
        assert harness.controller.application_config['secret'] == 'x'
        assert harness.controller.options.configuration == str(path)


def test_a_controller_is_given_its_configuration_before_it_is_made() -> None:
    class Early(Diary):
        def __init__(self, options: Any, arguments: list[str]) -> None:
            self.early = self.wake_interval
            super().__init__(options, arguments)

    with testing.Harness(Early, {'Application': {'wake_interval': 7}}) as harness:
        assert harness.controller.early == 7


def test_a_wrong_configuration_is_refused_with_all_its_faults() -> None:
    config = {'Application': {'wake_interval': 0}, 'Daemon': {'umsk': '022'}}
    with pytest.raises(ConfigurationError) as caught:
        testing.Harness(Diary, config, required=['Shop']).__enter__()
    text = str(caught.value)
    assert 'config:2:18: Application.wake_interval: expected a number above 0' in text
    assert 'config:4:3: Daemon.umsk: unknown key; did you mean umask?' in text
    assert 'Shop: a section that test requires is missing' in text


@pytest.mark.parametrize('config', ['missing.yml', Path('missing.yml')])
def test_a_file_that_is_not_there_is_no_configuration(config: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'^missing.yml: cannot be read: No such file'):
        testing.Harness(Diary, config).__enter__()


def test_a_value_that_yaml_has_not_is_no_configuration() -> None:
    with pytest.raises(TypeError, match='object object at'):
        testing.Harness(Diary, {'Application': {'thing': object()}}).__enter__()


def test_options_and_arguments_are_passed_on() -> None:
    with testing.Harness(Diary, options={'verbose': 3}, arguments=['a', 'b']) as harness:
        assert harness.controller.options.verbose == 3
        assert harness.controller.options.foreground is True
        assert harness.controller.arguments == ['a', 'b']


class Counting(clihelper.ConsumerController):
    def on_message(self, body: Any, message: Any) -> str:
        return f'{self.options.prefix} {self.options.limit} {self.options.key}'


def add_options(parser: Any) -> None:
    parser.add_option('--prefix', default='order', help='%default')
    parser.add_argument('--limit', type=int, default='5')
    parser.add_argument('--key', required=True)


ONE_QUEUE: dict[str, Any] = {'AMQP': {'queues': {'q': {}}}}


def test_the_options_that_the_program_adds_have_their_defaults() -> None:
    with testing.Harness(
        Counting, ONE_QUEUE, option_callback=add_options, options={'key': 'k'}, arguments=['a']
    ) as harness:
        reply = harness.deliver('x', reply_to='r').reply
        assert reply is not None
        assert reply.body == 'order 5 k'
        assert harness.controller.options.foreground
        assert harness.controller.arguments == ['a']


def test_options_can_be_given_as_words() -> None:
    with testing.Harness(
        Counting, ONE_QUEUE, option_callback=add_options,
        arguments=['--limit', '7', '--key', 'k', 'a'],
    ) as harness:
        assert (harness.controller.options.limit, harness.controller.arguments) == (7, ['a'])


@pytest.mark.parametrize(('options', 'arguments', 'fault'), [
    ({}, [], '--key'),
    ({'key': 'k', 'limits': 1}, [], 'there is no option limits; did you mean limit?'),
    ({'key': 'k'}, ['--nonsense'], '--nonsense'),
])
def test_options_that_the_program_has_not_are_an_error(
    options: dict[str, Any], arguments: list[str], fault: str
) -> None:
    harness = testing.Harness(
        Counting, ONE_QUEUE, option_callback=add_options, options=options, arguments=arguments
    )
    with pytest.raises(UsageError, match=re.escape(fault)), harness:
        pass


def test_the_addresses_of_the_configuration_are_listened_at_until_the_end() -> None:
    class Server(clihelper.Controller):
        pass

    with testing.Harness(Server, {'Daemon': {'listen': '127.0.0.1:0'}}) as harness:
        address = harness.controller.sockets[0].getsockname()
        socket.create_connection(address).close()
        harness.signal('HUP')
        socket.create_connection(address).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_the_logger_is_named_like_the_application() -> None:
    with testing.Harness(Diary, appname='orders') as harness:
        assert harness.controller.logger.name == 'orders'


# The harness: signals.

@pytest.mark.parametrize('signum', ['TERM', 'SIGINT', signal.SIGTERM, 15])
def test_term_and_int_bring_the_controller_to_its_end(signum: int | str) -> None:
    with testing.Harness(Diary) as harness:
        harness.signal(signum)
        assert harness.controller.state is State.STOPPED
    assert harness.controller.entries == ['setup', 'shutdown', 'cleanup']


def test_a_controller_that_answers_term_in_its_own_way_goes_on() -> None:
    class Stubborn(Diary):
        def on_sigterm(self) -> None:
            self.write('term')

    with testing.Harness(Stubborn) as harness:
        harness.signal('TERM')
        assert harness.controller.is_running
        harness.tick()
    assert harness.controller.entries == ['setup', 'term', 'process', 'shutdown', 'cleanup']


def test_hup_begins_again_with_the_configuration_that_was_given() -> None:
    with testing.Harness(Diary, {'Application': {'wake_interval': 1}}) as harness:
        harness.configure({'Application': {'wake_interval': 2}})
        assert harness.controller.wake_interval == 1
        harness.signal('HUP')
        assert harness.controller.wake_interval == 2
        assert harness.controller.entries == ['setup', 'shutdown', 'cleanup', 'setup']
        assert harness.controller.states[2] is State.RELOADING
        assert harness.controller.state is State.SLEEPING
        harness.tick()


def test_what_setup_raises_after_hup_comes_out() -> None:
    with testing.Harness(Diary) as harness:
        harness.controller.fails_in = ('setup',)
        with pytest.raises(ZeroDivisionError, match='^setup$'):
            harness.signal('HUP')
        assert harness.controller.state is State.STOPPED


def test_what_setup_raises_of_a_new_configuration_comes_out_and_the_old_one_goes_on() -> None:
    class Choosy(Diary):
        def _setup(self) -> None:
            super()._setup()
            if self.wake_interval == 2:
                raise ZeroDivisionError('too often')

    with testing.Harness(Choosy, {'Application': {'wake_interval': 1}}) as harness:
        harness.configure({'Application': {'wake_interval': 2}})
        with pytest.raises(ZeroDivisionError, match='^too often$'):
            harness.signal('HUP')
        assert harness.controller.wake_interval == 1
        assert harness.controller.entries == [
            'setup', 'shutdown', 'cleanup', 'setup', 'cleanup', 'setup']
        harness.configure({'Application': {'wake_interval': 3}})
        harness.signal('HUP')
        assert harness.controller.wake_interval == 3


def test_a_wrong_configuration_at_hup_leaves_all_as_it_was(
    caplog: pytest.LogCaptureFixture
) -> None:
    with testing.Harness(Diary, {'Application': {'wake_interval': 1}}) as harness:
        harness.configure({'Application': {'wake_interval': 'soon'}})
        harness.signal('HUP')
        assert harness.controller.wake_interval == 1
        assert harness.controller.entries == ['setup']
    assert "Application.wake_interval: expected a number, got 'soon'" in caplog.text


def test_usr1_takes_the_configuration_over_in_place() -> None:
    with testing.Harness(Diary) as harness:
        harness.configure({'Application': {'wake_interval': 2}})
        harness.signal('USR1')
        assert harness.controller.wake_interval == 2
        assert harness.controller.entries == ['setup', 'reloaded']


def test_what_the_hook_of_a_signal_raises_comes_out_and_the_controller_lives() -> None:
    with testing.Harness(diary_failing_in('usr2')) as harness:
        with pytest.raises(ZeroDivisionError, match='^usr2$'):
            harness.signal('USR2')
        harness.tick()


def test_quit_ends_the_controller_at_once() -> None:
    with testing.Harness(Diary) as harness:
        with pytest.raises(StopNow) as caught:
            harness.signal('QUIT')
        assert caught.value.signum is signal.SIGQUIT
        assert harness.controller.entries == ['setup', 'cleanup']


@pytest.mark.parametrize(('signum', 'complaint'), [
    ('TREM', "no signal is called 'TREM'"), ('WINCH', 'controllers do not handle SIGWINCH'),
])
def test_a_signal_that_means_nothing_is_refused(signum: str, complaint: str) -> None:
    with testing.Harness(Diary) as harness, harness_goes_on(harness), \
            pytest.raises(ValueError, match=complaint):
        harness.signal(signum)


def test_a_stop_ends_the_wait_of_a_thread_of_the_controller() -> None:
    class Threaded(Diary):
        def _setup(self) -> None:
            self.results: list[bool] = []
            self.thread = threading.Thread(target=lambda: self.results.append(self.wait(600)))
            self.thread.start()

        def _cleanup(self) -> None:
            self.thread.join(testing.TIMEOUT)

    with testing.Harness(Threaded) as harness:
        harness.signal('TERM')
        assert harness.controller.results == [False]


def test_a_thread_of_the_controller_waits_again_after_hup() -> None:
    class Threaded(Diary):
        def _process(self) -> None:
            before = time.monotonic()
            thread = threading.Thread(target=self.wait, args=[0.05])
            thread.start()
            thread.join()
            self.waited = time.monotonic() - before

    with testing.Harness(Threaded) as harness:
        harness.signal('HUP')
        harness.tick()
        assert harness.controller.waited >= 0.05


def test_a_stop_has_no_deadline_that_would_hit_the_process_of_the_tests() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        with testing.Harness(Diary, {'Daemon': {'stop_timeout': 0.001}}) as harness:
            harness.signal('TERM')
        assert signal.sigtimedwait([signal.SIGTERM], 0.1) is None
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


# The harness: messages.

class Clerk(clihelper.ConsumerController):
    """Does with a message as its body says."""

    def _process(self) -> None:
        self.publish({'number': 1}, exchange='shop', routing_key='order.new', priority=3)

    def on_message(self, body: Any, message: Any) -> Any:
        self.seen = (body, message)
        order = body if isinstance(body, str) else ''
        if order == 'raise':
            raise KeyError('order_id')
        if order == 'reject':
            raise clihelper.Reject('no such item')
        if order == 'requeue':
            raise clihelper.Requeue
        if order.startswith('message.'):
            getattr(message, order.removeprefix('message.'))()
        if order == 'publish':
            self.publish('text', routing_key='elsewhere', correlation_id='7')
            self.publish(b'bytes', headers={'x': 1})
        if order == 'stop':
            self.stop()
        return {'did': order} if order == 'reply' else None


@pytest.fixture
def clerk() -> Iterator[testing.Harness[Clerk]]:
    with testing.Harness(Clerk, QUEUE) as harness:
        yield harness


@pytest.mark.parametrize(('body', 'outcome', 'error', 'reason'), [
    ('return', Outcome.ACK, None, None),
    ('raise', Outcome.RETRY, KeyError, None),
    ('reject', Outcome.DEAD_LETTER, clihelper.Reject, 'rejected'),
    ('requeue', Outcome.REQUEUE, clihelper.Requeue, None),
    ('message.ack', Outcome.ACK, None, None),
    ('message.reject', Outcome.DEAD_LETTER, None, None),
    ('message.requeue', Outcome.REQUEUE, None, None),
])
def test_a_delivery_tells_what_became_of_the_message(
    clerk: testing.Harness[Clerk], body: str, outcome: Outcome, error: Any, reason: str | None
) -> None:
    delivered = clerk.deliver(body)
    assert delivered.outcome is outcome
    assert type(delivered.error) is (error or type(None))
    assert delivered.reason == reason
    assert delivered.reply is None
    assert clerk.controller.is_running


def test_a_body_arrives_as_it_was_published(clerk: testing.Harness[Clerk]) -> None:
    for body in ({'order_id': 1, 'item': 'thé'}, ['a'], 5, 'thé', b'\xff'):
        clerk.deliver(body)
        assert clerk.controller.seen[0] == body
        assert type(clerk.controller.seen[0]) is type(body)


def test_a_message_arrives_with_all_that_was_given(clerk: testing.Harness[Clerk]) -> None:
    clerk.deliver('x', exchange='shop', routing_key='order.new', redelivered=True,
                  headers={'a': 1}, message_id='m', priority=4, content_type='text/html')
    message = clerk.controller.seen[1]
    assert message.queue == 'orders'
    assert (message.exchange, message.routing_key) == ('shop', 'order.new')
    assert message.redelivered
    assert message.headers == {'a': 1}
    assert message.properties == {'message_id': 'm', 'priority': 4}
    assert message.content_type == 'text/html'


def test_a_message_arrives_by_default_as_if_sent_to_its_queue(
    clerk: testing.Harness[Clerk]
) -> None:
    message = clerk.deliver('x').message
    assert (message.exchange, message.routing_key, message.redelivered) == ('', 'orders', False)


@pytest.mark.parametrize(('body', 'properties', 'reason'), [
    (b'{', {'content_type': 'application/json'}, 'undecodable'),
    (b'\xff', {'content_type': 'text/plain'}, 'undecodable'),
    (b'x', {'content_type': 'application/x-pickle'}, 'unaccepted'),
    (b'12345678901', {}, 'oversize'),
])
def test_a_body_that_is_not_to_be_had_is_a_dead_letter(
    body: bytes, properties: dict[str, Any], reason: str
) -> None:
    config = {'AMQP': {'queues': {'orders': {}}, 'max_body': 10}}
    with testing.Harness(Clerk, config) as clerk:
        delivered = clerk.deliver(body, **properties)
        assert (delivered.outcome, delivered.reason) == (Outcome.DEAD_LETTER, reason)
        assert delivered.error is None
        assert not hasattr(clerk.controller, 'seen')


def test_a_dead_letter_has_all_of_the_message_and_why(clerk: testing.Harness[Clerk]) -> None:
    letter = clerk.deliver('raise', attempts=5, headers={'a': 1}, message_id='m').dead_letter
    assert letter is not None
    assert (letter.exchange, letter.routing_key) == ('', 'orders.dead')
    assert letter.body == 'raise'
    assert letter.properties['message_id'] == 'm'
    assert letter.headers['a'] == 1
    assert letter.headers['x-clihelper-exception'] == 'KeyError'


def test_a_reply_goes_where_it_is_awaited(clerk: testing.Harness[Clerk]) -> None:
    reply = clerk.deliver('reply', reply_to='answers', correlation_id='7').reply
    assert reply is not None
    assert (reply.exchange, reply.routing_key) == ('', 'answers')
    assert reply.body == {'did': 'reply'}
    assert reply.properties['correlation_id'] == '7'


def test_a_dead_letter_is_no_reply(clerk: testing.Harness[Clerk]) -> None:
    assert clerk.deliver('raise', reply_to='orders.dead').reply is None


def test_what_the_controller_publishes_is_kept_and_what_settles_a_message_is_not(
    clerk: testing.Harness[Clerk]
) -> None:
    clerk.tick()
    clerk.deliver('publish', reply_to='answers')
    clerk.deliver('reply', reply_to='answers')
    clerk.deliver('raise')
    clerk.deliver(b'{', content_type='application/json')
    clerk.tick()
    first, second, third, _ = clerk.published
    assert (first.exchange, first.routing_key, first.body) == ('shop', 'order.new', {'number': 1})
    assert first.raw == b'{"number":1}'
    assert first.properties == {
        'content_type': 'application/json', 'delivery_mode': 2, 'headers': {}, 'priority': 3}
    assert (second.body, second.properties['correlation_id']) == ('text', '7')
    assert (third.body, third.headers) == (b'bytes', {'x': 1})


def test_what_was_published_survives_hup(clerk: testing.Harness[Clerk]) -> None:
    clerk.tick()
    clerk.signal('HUP')
    clerk.tick()
    assert len(clerk.published) == 2


def test_a_publication_can_be_refused(clerk: testing.Harness[Clerk]) -> None:
    with clerk.refusing_publications():
        delivered = clerk.deliver('publish', attempts=5)
    assert isinstance(delivered.error, clihelper.PublishError)
    assert delivered.reason == 'exception'
    assert clerk.published == []
    assert clerk.deliver('publish').outcome is Outcome.ACK


def test_an_undecodable_publication_is_shown_as_it_is(clerk: testing.Harness[Clerk]) -> None:
    clerk.controller.publish(b'{', content_type='application/json')
    assert clerk.published[0].body == b'{'


def test_a_handler_that_asks_for_a_stop_finishes_its_message(
    clerk: testing.Harness[Clerk]
) -> None:
    assert clerk.deliver('stop').outcome is Outcome.ACK
    assert clerk.controller.state is State.STOPPED
    with pytest.raises(RuntimeError, match='Clerk is no longer running'):
        clerk.deliver('x')


def test_quit_in_a_handler_abandons_the_message_and_comes_out() -> None:
    class Quitter(Clerk):
        def on_message(self, body: Any, message: Any) -> None:
            raise StopNow(signal.SIGQUIT)

    with testing.Harness(Quitter, QUEUE) as harness, pytest.raises(StopNow):
        harness.deliver('x')


def test_a_message_is_of_one_of_the_queues_that_are_consumed() -> None:
    config = {'AMQP': {'queues': {'orders': {}, 'returns': {}}}}
    with testing.Harness(Clerk, config) as clerk:
        assert clerk.deliver('x', queue='returns').message.queue == 'returns'
        with pytest.raises(ValueError, match="which queue .* contains 'orders', 'returns'"):
            clerk.deliver('x')
        with pytest.raises(ValueError, match="no queue 'ordres' is consumed; .* 'orders', 'ret"):
            clerk.deliver('x', queue='ordres')
    with testing.Harness(Clerk) as clerk, \
            pytest.raises(ValueError, match='AMQP.queues contains none'):
        clerk.deliver('x')


def test_only_a_consumer_takes_messages_and_only_an_ioloop_runs_coroutines() -> None:
    with testing.Harness(Diary) as harness:
        with pytest.raises(TypeError, match='Diary is not a ConsumerController'):
            harness.deliver('x')
        with pytest.raises(TypeError, match='Diary is not an IOLoopController'):
            harness.run(asyncio.sleep)  # type: ignore[arg-type]


def test_a_body_that_cannot_be_published_is_no_fault_of_the_controller(
    clerk: testing.Harness[Clerk]
) -> None:
    with harness_goes_on(clerk), pytest.raises(TypeError, match='not JSON serializable'):
        clerk.deliver({'when': object()})


def test_no_broker_is_connected_to() -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        server.setblocking(False)
        url = f'amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}//'
        with testing.Harness(Clerk, {'AMQP': {**QUEUE['AMQP'], 'url': url}}) as clerk:
            clerk.tick()
            clerk.deliver('x')
        with pytest.raises(BlockingIOError):
            server.accept()


def test_two_harnesses_at_once_keep_to_themselves() -> None:
    with testing.Harness(Clerk, QUEUE) as one, testing.Harness(Clerk, QUEUE) as other:
        one.tick()
        other.signal('TERM')
        assert one.controller.is_running
        assert (len(one.published), len(other.published)) == (1, 0)


# The harness: the IOLoop.

class Web(clihelper.IOLoopController):
    """An HTTP server that answers when it is told to."""

    async def _setup(self) -> None:  # type: ignore[override]
        from tornado.web import Application, RequestHandler

        controller = self
        self.asked, self.released = asyncio.Event(), asyncio.Event()

        class Handler(RequestHandler):
            async def get(self) -> None:
                controller.asked.set()
                await controller.released.wait()
                self.write('served')

        (listener,) = Application([('/', Handler)]).listen(0, '127.0.0.1')._sockets.values()
        self.port = listener.getsockname()[1]

    async def _process(self) -> str:
        await asyncio.sleep(0)
        return 'processed'


def fetched(url: str) -> bytes:
    with urlopen(url, timeout=testing.TIMEOUT) as answer:
        return answer.read()


async def fetch(port: int) -> bytes:
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    writer.write(b'GET / HTTP/1.0\r\n\r\n')
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_coroutines_are_run_to_their_end_on_the_ioloop() -> None:
    with testing.Harness(Web) as web:
        assert web.tick() == 'processed'
        web.controller.released.set()
        assert b'served' in web.run(fetch(web.controller.port))


@pytest.mark.parametrize('signum', ['TERM', 'HUP'])
def test_a_request_in_hand_is_finished_first(signum: str) -> None:
    # The client is in a thread, because the tasks of the loop end with it.
    with testing.Harness(Web) as web, ThreadPoolExecutor() as client:
        url = f'http://127.0.0.1:{web.controller.port}/'
        answer = client.submit(fetched, url)
        web.run(web.controller.asked.wait())
        # It is answered only once the server has begun to stop.
        web.controller.io_loop.call_later(0.05, web.controller.released.set)
        web.signal(signum)
        assert answer.result() == b'served'


def test_what_a_coroutine_of_the_test_raises_is_no_fault_of_the_controller() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with testing.Harness(Web) as web:
        with pytest.raises(ZeroDivisionError):
            web.run(fail())
        assert web.tick() == 'processed'


def test_what_shutdown_raises_comes_out_and_the_ioloop_ends() -> None:
    class Failing(Web):
        def _shutdown(self) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), testing.Harness(Failing):
        pass


def test_the_end_of_one_harness_leaves_the_servers_of_others_alone() -> None:
    with testing.Harness(Web) as web:
        with testing.Harness(Web):
            pass
        web.controller.released.set()
        assert b'served' in web.run(fetch(web.controller.port))


def test_no_event_loop_is_left() -> None:
    with testing.Harness(Web):
        pass
    with pytest.raises(RuntimeError, match='no current event loop'):
        asyncio.get_event_loop()


# The harness: what it leaves alone.

def facts() -> dict[str, Any]:
    gc.collect()
    root = logging.getLogger()
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return {
        'handlers': [signal.getsignal(n) for n in signal.valid_signals()],
        'wakeup': fd,
        'logging': (root.handlers[:], root.level, logging.getLogger('clihelper').handlers[:]),
        'streams': (sys.stdin, sys.stdout, sys.stderr),
        'process': (os.getcwd(), threading.active_count()),
        'descriptors': sorted(os.listdir('/proc/self/fd')),
    }


def test_log_files_of_the_tests_are_not_reopened(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / 'log')
    try:
        stream = handler.stream
        os.unlink(tmp_path / 'log')
        with testing.Harness(Diary) as harness:
            harness.signal('USR1')
            harness.signal('HUP')
            harness.configure('Daemon: wrong')
            harness.signal('USR1')
        assert handler.stream is stream
    finally:
        handler.close()


@pytest.mark.parametrize('controller', [Diary, Clerk, Web])
def test_nothing_of_the_process_is_changed_however_often(controller: Any) -> None:
    config = {**QUEUE, 'Logging': {'root': {'level': 'DEBUG'}}, 'Daemon': {'umask': '077'}}

    def run() -> dict[str, Any]:
        with testing.Harness(controller, config) as harness:
            harness.tick()
            harness.configure({**config, 'Logging': {'root': {'level': 'ERROR'}}})
            harness.signal('USR1')
            inside = facts()
            harness.signal('HUP')
        return inside

    run()  # what is imported on first use stays
    before = facts()
    for _ in range(20):
        inside = run()
        for unchanged in ('handlers', 'wakeup', 'logging', 'streams', 'process'):
            assert inside[unchanged] == before[unchanged]
    assert facts() == before


def test_a_test_runner_is_not_needed() -> None:
    code = 'import sys, clihelper.testing; print("pytest" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True,
                          check=True)
    assert done.stdout == 'False\n'


# Programs.

def python(code: str, **options: Any) -> testing.Program:
    return testing.Program([sys.executable, '-c', code], **options)


def teller(config: Path, *arguments: str, **options: Any) -> testing.Program:
    return testing.Program([sys.executable, TELLER, '-c', config, *arguments],
                           env={'PYTHONPATH': str(ROOT)}, **options)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    os.chmod(tmp_path, 0o755)
    path = tmp_path / 'teller.yml'
    path.write_text('Application: {wake_interval: 600}\n'
                    f'Daemon: {{pidfile: {tmp_path}/teller.pid, redirect_output: false}}\n'
                    'Logging: {}\n')
    return path


def test_a_program_is_ready_reloads_and_stops(config: Path) -> None:
    with teller(config) as program:
        program.wait_ready()
        program.wait_line('^process$')
        program.signal('HUP')
        assert 'MONOTONIC_USEC' in program.wait_notified('RELOADING')
        program.wait_ready()
        program.wait_line('^process$')
        assert program.stop() == 0
    assert program.stdout.count(f'setup {os.geteuid()}') == 2
    assert program.stderr.count('cleanup') == 2
    assert {'STOPPING': '1', 'STATUS': 'finishing the current work'} in program.notifications


def test_a_program_under_the_notify_socket_does_not_detach(config: Path) -> None:
    with teller(config) as program:
        program.wait_ready()
        assert (config.parent / 'teller.pid').read_text() == f'{program.pid}\n'


def test_lines_are_read_one_behind_the_other_from_both_streams() -> None:
    code = ('import sys\n'
            'for n in range(3):\n'
            '    print("out", n, file=(sys.stdout, sys.stderr)[n % 2], flush=True)\n'
            '    input()\n')
    with python(code, stdin=subprocess.PIPE) as program:
        for number in range(3):
            assert program.wait_line('out (.)').group(1) == str(number)
            assert program.stdin is not None
            program.stdin.write(b'\n')
        assert program.wait() == 0
    assert program.lines == ['out 0', 'out 1', 'out 2']
    assert (program.stdout, program.stderr) == (['out 0', 'out 2'], ['out 1'])


def test_what_it_wrote_to_stderr_before_a_line_on_stdout_is_there_with_that() -> None:
    code = ('import os\n'
            'for words in ("1 begun", "1 first", "2 before", "1 after"):\n'
            '    stream, word = words.split()\n'
            '    if word != "after":\n'
            '        input()\n'
            '    os.write(int(stream), f"{word}\\n".encode())\n'
            'input()\n')
    selected, gate = threading.Semaphore(0), threading.Semaphore(0)
    with python(code, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        select = program._selector.select

        def select_and_wait() -> Any:
            ready = select()
            selected.release()
            assert gate.acquire(timeout=testing.TIMEOUT)
            return ready

        program._selector.select = select_and_wait
        program.stdin.write(b'\n')
        program.wait_line('begun')
        program.stdin.write(b'\n')
        assert selected.acquire(timeout=testing.TIMEOUT)
        # It knows that the first line is there to be read, and of nothing else.
        program.stdin.write(b'\n')
        while unread(program) < len('first\nafter\n'):
            time.sleep(0.001)
        gate.release()
        program.wait_line('after')
        assert program.stderr == ['before']
        gate.release(10)


def unread(program: testing.Program) -> int:
    """How many bytes of its standard output wait to be read."""
    count = array.array('i', [0])
    fcntl.ioctl(program._process.stdout, termios.FIONREAD, count)
    return count[0]


def test_all_that_a_program_wrote_is_there_when_it_has_ended() -> None:
    with python('print("x" * 100, end="\\n" + "y" * 1_000_000)') as program:
        assert program.wait() == 0
        assert program.lines == ['x' * 100, 'y' * 1_000_000]


def test_what_a_program_wrote_and_told_just_before_it_ended_is_there() -> None:
    code = ('import fcntl, os, socket\n'
            'fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)\n'
            'manager = "\\0" + os.environ["NOTIFY_SOCKET"][1:]\n'
            'with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:\n'
            '    for n in range(8):\n'
            '        notify.sendto(b"STATUS=%d" % n, manager)\n'
            '    os.write(1, b"x\\n" * 500_000)\n'
            '    os._exit(0)\n')
    with python(code) as program:
        assert program.wait() == 0
        assert program.lines == ['x'] * 500_000
        assert [each['STATUS'] for each in program.notifications] == list('01234567')


def test_what_is_no_text_is_shown_escaped() -> None:
    with python(r'import os; os.write(1, b"\xff\n")') as program:
        program.wait_line(r'^\\xff$')


def test_waiting_in_vain_ends_and_shows_the_output() -> None:
    with python('print("so far", flush=True); input()', stdin=subprocess.PIPE) as program:
        program.wait_line('so far')
        for wait in (lambda: program.wait_line('more', 0.01), lambda: program.wait_ready(0.01),
                     lambda: program.wait(0.01)):
            with pytest.raises(testing.WaitError, match=r'within 0.01 s\n.* running.*\n +so far'):
                wait()


def test_waiting_ends_when_the_program_does() -> None:
    with python('import sys; print("why"); sys.exit(3)') as program:
        with pytest.raises(testing.WaitError, match=r'(?s)READY was .*status 3.*why'):
            program.wait_ready(60)
        with pytest.raises(testing.WaitError, match='ended with status 3'):
            program.wait_line('more', 60)
        assert program.wait() == 3


def test_a_program_that_a_signal_kills_has_its_negative_number_as_status() -> None:
    with python('input()', stdin=subprocess.PIPE) as program:
        assert program.stop('KILL') == -9
        assert program.stop() == -9  # it may have ended before


def test_what_is_left_of_a_program_is_killed_with_its_children() -> None:
    code = ('import os, signal, sys\n'
            'signal.signal(signal.SIGTERM, signal.SIG_IGN)\n'
            'child = os.fork()\n'
            'if child: print(child, flush=True)\n'
            '{}\n')
    for ending in ('signal.pause()', 'child or signal.pause()'):
        with python(code.format(ending)) as program:
            child = os.pidfd_open(int(program.wait_line(r'^\d+$').group()))
            if ending != 'signal.pause()':
                program.wait()
        with pytest.raises(ProcessLookupError):
            os.kill(program.pid, 0)
        assert ends(child)


def ends(pidfd: int) -> bool:
    """Whether the process ends in time. It may be a zombie then: init(1) reaps when it likes."""
    try:
        return bool(select.select([pidfd], [], [], testing.TIMEOUT)[0])
    finally:
        os.close(pidfd)


def ended(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], 0)[0])
    finally:
        os.close(pidfd)


def test_a_program_is_given_its_environment_and_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('NOTIFY_SOCKET', '/run/of/the/tests')
    monkeypatch.setenv('REMOVED', '1')
    code = ('import os\n'
            'for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "REMOVED", "ADDED", "PATH"):\n'
            '    print(name in os.environ)\n'
            'print(os.getcwd())')
    with python(code, cwd=tmp_path, env={'REMOVED': None, 'ADDED': '1'}, watchdog=2.5) as program:
        program.wait()
        assert program.lines == ['True', 'True', 'False', 'True', 'True', str(tmp_path)]
    with python(code, notify=False) as program:
        program.wait()
        assert program.lines[:2] == ['False', 'False']
        with pytest.raises(ValueError, match='notify=False'):
            program.wait_ready()


@pytest.mark.root
@pytest.mark.parametrize('user', ['nobody', 65534])
def test_a_program_can_be_another_users(user: str | int) -> None:
    # Not Python, which may be where only root may go.
    with testing.Program(['setpriv', '--dump'], user=user, cwd='/') as program:
        assert program.wait() == 0
    assert program.stdout[:4] == ['uid: 65534', 'euid: 65534', 'gid: 65534', 'egid: 65534']
    assert 'Supplementary groups: 65534' in program.stdout


def test_a_program_that_is_not_there_says_so_and_leaves_nothing() -> None:
    before = sorted(os.listdir('/proc/self/fd'))
    with pytest.raises(FileNotFoundError, match='/no/such/program'):
        testing.Program(['/no/such/program']).__enter__()
    assert sorted(os.listdir('/proc/self/fd')) == before


def test_nothing_is_left_of_a_program_in_the_test() -> None:
    def run() -> None:
        with python('print(1)') as program:
            program.wait()

    run()
    before = facts()
    run()
    assert facts() == before


# Daemons.

def daemon(config: Path, *arguments: str, **options: Any) -> testing.Daemon:
    return testing.Daemon([sys.executable, TELLER, '-c', config, *arguments],
                          config.parent / 'teller.pid', env={'PYTHONPATH': str(ROOT)}, **options)


def test_a_daemon_runs_until_it_is_stopped(config: Path) -> None:
    with daemon(config) as running:
        assert running.is_running
        assert os.getsid(running.pid) not in (0, os.getsid(0))
        running.stop()
        assert not running.is_running
        assert not (config.parent / 'teller.pid').exists()
        with pytest.raises(ProcessLookupError):
            running.signal('TERM')


def test_a_daemon_is_killed_when_the_test_leaves_it_running(config: Path) -> None:
    with daemon(config) as running:
        pidfd = os.pidfd_open(running.pid)
    assert ends(pidfd)


def test_a_daemon_that_does_not_end_is_said_so(config: Path) -> None:
    with daemon(config) as running, pytest.raises(
            testing.WaitError, match=f'pid {running.pid}, did not end within 0.01 s'):
        running.wait(0.01)


def test_a_daemon_that_does_not_start_says_why(config: Path) -> None:
    with pytest.raises(testing.WaitError, match=r'(?s)no daemon was started\n.*the disk is full'):
        daemon(config, 'fail').__enter__()


def test_a_command_that_leaves_no_daemon_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(testing.WaitError, match=r'x.pid: .* a running daemon \(stopped\)'):
        testing.Daemon(['true'], tmp_path / 'x.pid').__enter__()


def test_a_daemon_that_runs_already_is_left_alone(config: Path) -> None:
    with daemon(config) as running:
        with pytest.raises(testing.WaitError, match='a daemon is already running'):
            daemon(config).__enter__()
        assert running.is_running


def test_a_daemon_whose_command_is_too_slow_is_killed(config: Path) -> None:
    pidfile = config.parent / 'teller.pid'
    slow = f'{sys.executable} {TELLER} -c {config} && cat {pidfile} && exec sleep 600'
    with pytest.raises(testing.WaitError, match=r'not end within 2 s(?s:.*)\n +\d+$') as caught:
        testing.Daemon(['sh', '-c', slow], pidfile, env={'PYTHONPATH': str(ROOT)},
                       timeout=2).__enter__()
    assert ended(int(str(caught.value).split()[-1]))


# The notify socket.

def test_a_notify_socket_hears_what_a_program_tells() -> None:
    with testing.NotifySocket(watchdog=1.5) as manager:
        notifier = Notifier.from_environment(manager.environ)
        assert notifier.watchdog_interval == 1.5
        notifier.ready('running')
        notifier.watchdog()
        notifier.stopping()
        assert manager.receive() == {'READY': '1', 'STATUS': 'running'}
        assert manager.wait_for('STOPPING') == {'STOPPING': '1'}
        assert manager.received[1] == {'WATCHDOG': '1'}
        notifier.close()


def test_a_notify_socket_without_a_watchdog_asks_for_none() -> None:
    with testing.NotifySocket() as manager:
        assert list(manager.environ) == ['NOTIFY_SOCKET']
        assert manager.address.startswith('@')


def test_a_notify_socket_can_be_a_file_which_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / 'notify'
    with testing.NotifySocket(path) as manager:
        notifier = Notifier.from_environment(manager.environ)
        assert manager.address == str(path)
        assert notifier.ready()
        assert manager.receive() == {'READY': '1'}
        notifier.close()
    assert not path.exists()


def test_waiting_for_a_notification_in_vain_shows_those_that_came() -> None:
    with testing.NotifySocket() as manager:
        notifier = Notifier.from_environment(manager.environ)
        notifier.status('busy')
        with pytest.raises(testing.WaitError, match=r"no READY within 0.01 s\n.*'STATUS': 'busy'"):
            manager.wait_for('READY', 0.01)
        with pytest.raises(testing.WaitError, match='no notification within 0.01 s'):
            manager.receive(0.01)
        notifier.close()


def test_a_notify_socket_that_is_not_read_fills_up() -> None:
    with testing.NotifySocket() as manager:
        notifier = Notifier.from_environment(manager.environ)
        while notifier.watchdog():
            pass
        assert manager.received == []
        manager.receive()
        assert notifier.watchdog()
        notifier.close()


# What became of messages, whatever handles them.


class OneAtATime(clihelper.ConsumerController):
    def on_message(self, body: Any, message: Any) -> Any:
        self.publish({'seen': body}, routing_key='events', delay=3)
        if body == 'later':
            raise clihelper.Retry(delay=7)
        if body == 'reject':
            raise clihelper.Reject('no')
        return {'to': body}


class InCoroutines(clihelper.AsyncConsumerController):
    async def on_message(self, body: Any, message: Any) -> Any:
        await self.publish({'seen': body}, routing_key='events', delay=3)
        return OneAtATime.on_message(_Silent(), body, message)  # type: ignore[arg-type]


class InBatches(clihelper.ConsumerController):
    def on_messages(self, messages: list[Any]) -> None:
        for message in messages:
            OneAtATime.on_message(self, message.body, message)  # type: ignore[arg-type]


class _Silent:
    def publish(self, *arguments: Any, **properties: Any) -> None:
        pass


@pytest.mark.parametrize('kind', [OneAtATime, InCoroutines, InBatches])
def test_it_shows_what_was_published_retried_and_dead_lettered(
    kind: type[clihelper.ConsumerController],
) -> None:
    with testing.Harness(kind, QUEUE) as harness:
        done = harness.deliver('tea', reply_to='r')
        later = harness.deliver('later', attempts=2)
        rejected = harness.deliver('reject')
    assert [each.body for each in done.published] == [{'seen': 'tea'}]
    assert [each.body for each in harness.published] == [
        {'seen': 'tea'}, {'seen': 'later'}, {'seen': 'reject'}]
    assert done.published[0].delay == 3
    assert (done.delay, done.retry, done.reason) == (None, None, None)
    if kind is not InBatches:
        assert done.reply is not None
        assert done.reply.body == {'to': 'tea'}
    assert later.outcome is Outcome.RETRY
    assert later.delay == 7
    assert later.retry is not None
    assert later.retry.headers['x-clihelper-attempts'] == 2
    assert harness.retried == [later.retry]
    assert rejected.reason == 'rejected'
    assert harness.dead_letters == [rejected.dead_letter]
