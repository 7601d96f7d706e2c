"""kombu's other transports: the consumer works with them by kombu's ordinary road."""

from __future__ import annotations

import sys

import pytest

from clihelper.testing import Program

BESIDE = '''\
import clihelper

class Beside(clihelper.ConsumerController):
    def _process(self):
        self.publish({'word': 'fail'}, routing_key='orders', headers={'mine': 1})
        self.publish('fine', routing_key='orders')

    def on_message(self, body, message):
        self.logger.info('run %d of %r from %s', message.attempts, body, message.queue)
        if body == {'word': 'fail'}:
            raise ValueError('no')

clihelper.setup('beside')
clihelper.run(Beside)
'''


@pytest.fixture
def program(tmp_path):
    """Starts the consumer with this in its section ``AMQP``."""
    (tmp_path / 'beside.py').write_text(BESIDE)
    (tmp_path / 'messages').mkdir()

    def start(section):
        config = tmp_path / 'beside.yml'
        config.write_text(
            'Application: {wake_interval: 3600}\n'
            f'AMQP:\n  queues: {{orders: {{}}}}\n  retry: {{attempts: 3, delay: 0.1}}\n{section}'
        )
        words = [sys.executable, str(tmp_path / 'beside.py'), '-c', str(config), '-f']
        return Program(words, cwd=tmp_path)

    return start


@pytest.mark.parametrize(
    'section',
    [
        '  url: memory://\n',
        '  url: filesystem://\n  transport_options:\n'
        '    {data_folder_in: messages, data_folder_out: messages, control_folder: control}\n',
    ],
)
def test_messages_are_handled_run_again_and_dead_lettered(program, section):
    # Nothing there has a TTL: what failed waits in the program.
    with program(section) as program:
        for number in (1, 2, 3):
            program.wait_line(f"run {number} of {{'word': 'fail'}} from orders")
        program.wait_line('dead-lettered a message')
        assert program.stop() == 0
        # In which order they come, a folder does not say.
        assert [line for line in program.lines if "run 1 of 'fine' from orders" in line]


def test_a_library_that_is_missing_is_said_in_one_line(program, tmp_path):
    (tmp_path / 'redis.py').write_text("raise ImportError('there is none')\n")
    with program('  url: redis://user:secret@nowhere/0\n') as program:
        assert program.wait(30) == 69
        (line,) = [line for line in program.stderr if line.startswith('beside: ')]
    assert line.startswith('beside: AMQP.url: redis:// needs a library that is not installed: ')
    assert 'secret' not in '\n'.join(program.lines)
