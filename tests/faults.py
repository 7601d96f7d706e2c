"""What the tests of faults share: a consumer that does what messages say, and how to tell it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu

from clihelper.testing import Program

PROGRAM = str(Path(__file__).parent / 'programs' / 'faults.py')

HEARTBEAT = 1
"""seconds, of the configuration that :func:`write` writes if not told otherwise"""


def write(
    folder: Path,
    url: str,
    queue: str,
    more: str = '',
    wake_interval: float = 3600,
    heartbeat: int = HEARTBEAT,
    options: str = '',
) -> str:
    """Write a configuration for one queue; its path.

    :param more: further lines of the section ``AMQP``.
    :param options: of the queue.
    """
    path = folder / 'faults.yml'
    path.write_text(
        f'Application: {{wake_interval: {wake_interval}, go: {folder}/go}}\n'
        f'AMQP:\n  url: {url}\n  heartbeat: {heartbeat}\n  queues: {{{queue}: {options}}}\n{more}'
    )
    return str(path)


@contextlib.contextmanager
def consuming(config: str) -> Iterator[Program]:
    """The consumer, once it consumes."""
    with Program([sys.executable, PROGRAM, '-c', config, '-f']) as program:
        program.wait_ready(30)
        yield program


def send(channel: Any, queue: str, body: Any, **properties: Any) -> None:
    kombu.Producer(channel).publish(body, routing_key=queue, **properties)


def take(channel: Any, queue: str) -> list[Any]:
    """The messages in *queue*, taken from it."""
    found = []
    while (message := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(channel.message_to_python(message))
    return found


def logged(program: Program, words: str) -> int:
    """How many of its lines have the *words*."""
    return sum(words in line for line in program.lines)


def goes_on(program: Program, channel: Any, queue: str) -> None:
    """It consumes again."""
    program.wait_line('consuming', 30)
    send(channel, queue, 'after')
    program.wait_line('done after')


def ends(program: Program, signum: str, status: int, most: float) -> str:
    """A signal ends it, with that status and within so many seconds; the time as a figure."""
    began = time.monotonic()
    program.signal(signum)
    assert program.wait() == status
    took = time.monotonic() - began
    assert took < most
    return f'{took * 1000:.0f} ms'
