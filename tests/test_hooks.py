"""Hooks that would never be run: found when the program starts, or in what a handler returns."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import clihelper
from clihelper.amqp.settlement import Outcome
from clihelper.errors import Error
from clihelper.testing import Harness

ROOT = Path(__file__).resolve().parent.parent
CONFIG = 'AMQP: {url: "memory://", queues: {q: }, retry: {attempts: 1}}'


class Plain(clihelper.Controller):
    def _process(self):
        pass


async def coroutine(self, *arguments):
    pass


def generator(self, *arguments):
    yield


async def async_generator(self, *arguments):
    yield


@pytest.mark.parametrize(('base', 'methods', 'line'), [
    (clihelper.ConsumerController, {'on_message': coroutine},
     'Odd.on_message is a coroutine function, which would never be run: only that of an'
     ' AsyncConsumerController may be'),
    (clihelper.ConsumerController, {'on_message': generator},
     'Odd.on_message is a generator function, which would never be run: it has a yield'),
    (clihelper.ConsumerController, {'on_message': async_generator},
     'Odd.on_message is a generator function, which would never be run: it has a yield'),
    (clihelper.Controller, {'_setup': coroutine}, 'Odd._setup is a coroutine function, '),
    (clihelper.Controller, {'_process': coroutine}, 'Odd._process is a coroutine function, '),
    (clihelper.Controller, {'_cleanup': generator}, 'Odd._cleanup is a generator function, '),
    (clihelper.IOLoopController, {'_process': generator}, 'Odd._process is a generator'),
    (clihelper.IOLoopController, {'on_sigterm': coroutine}, 'Odd.on_sigterm is a coroutine'),
    (clihelper.ConsumerController, {'on_mesage': print},
     'Odd.on_mesage would never be called; did you mean on_message?'),
    (clihelper.AsyncConsumerController, {'on_message': coroutine, 'order_key': coroutine},
     'Odd.order_key is a coroutine function, which would never be run: '),
    (clihelper.ConsumerController, {'order_key': generator}, 'Odd.order_key is a generator'),
    (clihelper.ConsumerController, {'on_message': print, 'order_keys': print},
     'Odd.order_keys would never be called; did you mean order_key?'),
    (clihelper.Controller, {'_proces': print},
     'Odd._proces would never be called; did you mean _process?'),
    (Plain, {'_clenup': print}, 'Odd._clenup would never be called; did you mean _cleanup?'),
])
def test_a_hook_that_would_never_be_run_is_an_error(base, methods, line):
    odd = type('Odd', (base,), {'on_message': print, **methods} if 'on_mesage' not in methods
               and base is clihelper.ConsumerController else methods)
    with pytest.raises(Error) as raised, Harness(odd, CONFIG):
        pass
    assert str(raised.value).startswith(line)


@pytest.mark.parametrize(('base', 'methods'), [
    (clihelper.IOLoopController, {'_setup': coroutine, '_process': coroutine}),
    (clihelper.AsyncConsumerController, {'on_message': coroutine, '_setup': coroutine}),
    (clihelper.Controller, {'_process': print, '_processes': print}),
    # What the program itself calls is a helper of its own.
    (clihelper.Controller, {'_process': lambda self: self._setups(), '_setups': print}),
    (clihelper.Controller, {'_proces': print, '_process': print}),
])
def test_hooks_that_are_run_and_helpers_are_not(base, methods):
    with Harness(type('Even', (base,), methods)):
        pass


def test_the_command_says_it_in_one_line(tmp_path):
    (tmp_path / 'odd.py').write_text(
        'import clihelper\n'
        'class Odd(clihelper.ConsumerController):\n'
        '    async def on_message(self, body, message):\n'
        '        pass\n'
        "clihelper.setup('odd')\n"
        'clihelper.run(Odd)\n'
    )
    (tmp_path / 'odd.yml').write_text(CONFIG)
    for options in (['-f'], ['--check']):
        done = subprocess.run(
            [sys.executable, 'odd.py', '-c', 'odd.yml', *options], cwd=tmp_path, text=True,
            env={'PYTHONPATH': str(ROOT)}, capture_output=True, timeout=30,
        )
        assert done.returncode == 1
        assert done.stderr.startswith('odd: Odd.on_message is a coroutine function')
        assert done.stderr.count('\n') == 1


class Wrapped(clihelper.ConsumerController):
    def on_message(self, body, message):
        return self.answers[body]()


@pytest.mark.parametrize('answer', [
    functools.partial(coroutine, None), functools.partial(generator, None),
    functools.partial(async_generator, None), asyncio.Future.__new__,
], ids=['coroutine', 'generator', 'async generator', 'future'])
def test_a_handler_that_returns_what_was_not_run_has_failed(answer):
    if answer is asyncio.Future.__new__:
        loop = asyncio.new_event_loop()
        answer = loop.create_future
    Wrapped.answers = {'x': answer}
    with Harness(Wrapped, CONFIG) as harness:
        delivered = harness.deliver('x', content_type='text/plain')
    assert delivered.outcome is Outcome.DEAD_LETTER
    assert 'which would never be run' in delivered.dead_letter.headers['x-clihelper-message']
