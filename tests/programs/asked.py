"""A daemon to be asked: KIND says by which loop; the configuration, what it does meanwhile."""

import asyncio
import ctypes
import os
import time
import zlib  # noqa: F401  (the daemon's user may not be able to read the interpreter's folder)

import clihelper


class Doing:
    def _setup(self):
        if self.application_config.get('fail') in ('all', self.worker):
            raise ValueError('no hands')
        if self.application_config.get('slow'):
            self.note('in _setup')
            self.wait_for(self.application_config['slow'])
        self.logger.info('setup %d %s', self.worker, self.application_config.get('word'))

    def _process(self):
        self.logger.debug('debug of %d', self.worker)
        with open(os.path.join(os.path.dirname(self.config['Daemon']['pidfile']), 'beat'),
                  'a') as beat:
            beat.write('.')
        what = self.application_config.get('do')
        if what and self.application_config.get('only') in (None, self.worker):
            getattr(self, f'do_{what}')()

    def on_configuration_reloaded(self):
        self.logger.info('adopted %d %s', self.worker, self.application_config.get('word'))
        if self.application_config.get('fail_in_place'):
            raise ValueError('not in place')

    def do_seize(self):
        """Hang in C, with the interpreter's lock held; no signal ends a wait for a mutex."""
        lock, mutex = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
        self.note('seizing')
        lock(mutex)
        lock(mutex)

    def do_gate(self):
        self.note('at the gate')
        self.wait_for(self.application_config['gate'])

    def do_fork(self):
        """Leave a child behind that does not know of the daemon."""
        if not os.fork():
            time.sleep(60)
            os._exit(0)

    def wait_for(self, path):
        while not os.path.exists(path):
            time.sleep(0.01)

    def note(self, words):
        self.logger.info('%s: %d', words, self.worker)


class Interval(Doing, clihelper.Controller):
    pass


class OwnLoop(Doing, clihelper.Controller):
    def _loop(self):
        while self.is_running:
            self._process()
            time.sleep(0.05)


class Stubborn(Doing, clihelper.Controller):
    def on_sighup(self):
        self.logger.info('no')


class IOLoop(Doing, clihelper.IOLoopController):
    def _setup(self):
        super()._setup()
        asyncio.get_event_loop_policy().get_event_loop().create_task(
            self.wait_outside(), name='the waiting one')

    async def wait_outside(self):
        await self.wait_inside()

    async def wait_inside(self):
        await asyncio.sleep(3600)


KINDS = {'interval': Interval, 'own': OwnLoop, 'ioloop': IOLoop, 'stubborn': Stubborn}

clihelper.setup('asked', 'Is asked.', '1.0.0')
clihelper.run(KINDS[os.environ.get('KIND', 'interval')])
