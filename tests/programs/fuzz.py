"""A consumer whose handler does what :func:`tests.fuzz.act` says, and notes it in a pipe."""

import os
import sys
import threading
from pathlib import Path
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parents[2]))

import clihelper
from clihelper.amqp.properties import InvalidProperties
from clihelper.amqp.settlement import Unaccepted, Undecodable
from tests.fuzz import act, number_in
from tests.oddities import EXCEPTIONS, RESULTS

EXPECTED = (InvalidProperties, Undecodable, Unaccepted)
"""what reading an attribute of a message may raise"""


class Fuzz(clihelper.ConsumerController):
    def _setup(self):
        self.notes = os.open(self.application_config['notes'], os.O_WRONLY)
        self.seed = self.application_config['seed']
        self.returned = set()  # to the queue, which is done once

    def note(self, *words):
        os.write(self.notes, f'{"|".join(map(str, words))}\n'.encode())

    def on_message(self, body, message):
        raw = message.raw
        if raw.startswith(b'good '):
            self.note('good', raw[5:].decode())
            return None
        number = number_in(raw)
        does = act(self.seed, crc32(message.delivery.packed) if number is None else number)
        self.read(number, does.reads, message)
        settles = does.settles
        if 'requeue' in settles or does.error == 'Requeue':
            key = raw or message.delivery.packed
            if key in self.returned:
                self.note(number, 'settled by', '', 'returned', 'nothing')
                return None
            self.returned.add(key)
        for word in settles:
            self.settle(word, message)
        self.note(number, 'settled by', settles[0] if settles else '',
                  'raised' if does.error else 'returned', does.error or does.result)  # fmt: skip
        if does.error:
            raise EXCEPTIONS[does.error]()
        return RESULTS[does.result]()

    def read(self, number, names, message):
        """Read attributes; each time that one is read it is the same, be it an error."""
        found = {}
        for name in names:
            try:
                now = repr(getattr(message, name))
            except EXPECTED as error:
                now = f'{type(error).__name__}: {error}'
            except Exception as error:
                now = f'{type(error).__name__}: {error}'
                self.note(number, 'fault', f'{name} raises {now}'.replace('\n', ' ')[:300])
            if found.setdefault(name, now) != now:
                self.note(number, 'fault', f'{name} is not the same twice')

    def settle(self, word, message):
        method = getattr(message, word.split()[0])
        if 'thread' not in word:
            method()
            return
        thread = threading.Thread(target=method)
        thread.start()
        if 'not waited for' not in word:
            thread.join()


clihelper.setup('fuzz')
clihelper.run(Fuzz)
