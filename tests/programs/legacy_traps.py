"""What programs of 1.x did, one class for each: legacy_traps.py CLASS ...

Every one reports what is called.
"""

import logging
import os
import signal
import sys
import threading
import time

from reports import at, report
from tornado import ioloop

import clihelper

LOGGER = logging.getLogger('traps')
NAME = sys.argv.pop(1)


class ShutdownAlone(clihelper.Controller):
    """Has no super(), sets no state."""

    def _setup(self):
        report('setup', self._get_config('absent'))

    def _process(self):
        report('process')

    def _shutdown(self):
        report('shutdown', self.is_running)


class StopAlone(clihelper.Controller):
    """In the style of 1.6."""

    def setup(self):
        report('setup', self._get_config('absent'))

    def process(self):
        report('process')

    def stop(self):
        report('stop', self.is_running)


class RunsIOLoop(clihelper.Controller):
    """In the style of 1.4."""

    def _setup(self):
        self._ioloop = ioloop.IOLoop.instance()
        self._ioloop.add_callback(report, 'process')

    def run(self):
        self._setup()
        report('setup')
        self._set_state(self._STATE_RUNNING)
        try:
            self._ioloop.start()
        except KeyboardInterrupt:
            report('interrupt')
        if self.is_running:
            self._shutdown()

    def _shutdown(self):
        report('shutdown')
        self._set_state(self._STATE_SHUTTING_DOWN)
        self._ioloop.stop()


class RunsUntilCleanup(clihelper.Controller):
    """In the style of 1.6: only ``cleanup`` ends the loop."""

    def setup(self):
        report('setup')

    def run(self):
        self.setup()
        self._ioloop = ioloop.IOLoop.instance()
        self._ioloop.add_callback(report, 'process')
        self._ioloop.start()

    def cleanup(self):
        report('cleanup', threading.current_thread().name)
        self._ioloop.stop()


class OwnAlarm(clihelper.Controller):
    """Writes out what the main loop of 1.4 to 1.7 was."""

    WAKE_INTERVAL = 0.2

    def _setup(self):
        report('setup')

    def _process(self):
        report('process')

    def _cleanup(self):
        report('cleanup')

    def run(self):
        self._setup()
        self._process()
        signal.signal(signal.SIGALRM, self._wake)
        self._sleep()
        while self.is_running or self.is_sleeping:
            signal.pause()


class OwnLoop(clihelper.Controller):
    """Writes out what the main loop of 1.0 was."""

    _WAKE_INTERVAL = 0.1

    def _setup(self):
        report('setup')

    def _process(self):
        report('process')

    def _loop(self):
        while self.is_running:
            self._process()
            self._sleep()

    def _shutdown(self):
        report('shutdown')
        super(OwnLoop, self)._shutdown()

    def _shutdown_complete(self):
        report('complete')
        super(OwnLoop, self)._shutdown_complete()


class SleepsItself(clihelper.Controller):
    """In the style of 1.0."""

    def _setup(self):
        report('setup')

    def _process(self):
        report('process', self.is_running)

    def _sleep(self):
        self._set_state(self._STATE_SLEEPING)
        time.sleep(0.05)


class WakesItself(clihelper.Controller):
    """In the style of 1.4."""

    def _setup(self):
        report('setup')

    def _process(self):
        report('process')

    def _sleep(self):
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0)
        self._set_state(self._STATE_SLEEPING)

    def _wake(self, signum, frame):
        report('wake', signum)
        super(WakesItself, self)._wake(signum, frame)


HOOKS = ['setup', 'process', 'cleanup', 'on_sighup', 'on_sigusr1', 'on_sigusr2', 'on_sigterm',
         'stop', 'reload_configuration', 'run']
OLD_HOOKS = ['_setup', '_process', '_cleanup', '_on_sighup', '_on_sigusr1', '_on_sigusr2',
             '_on_sigterm', '_shutdown', '_shutdown_complete', '_reload_configuration']


def extending(name, names):
    """A class whose hooks report and go on to the next class."""
    def hook(word):
        def call(self):
            report(name, word)
            return getattr(super(cls, self), word)()

        return call

    cls = type(name, (object,), {word: hook(word) for word in names})
    return cls


First, Second = extending('First', HOOKS), extending('Second', HOOKS)
OldFirst, OldSecond = extending('First', OLD_HOOKS), extending('Second', OLD_HOOKS)


class Middle(Second, clihelper.Controller):
    pass


class Supers(First, Middle):
    pass


class OldMiddle(OldSecond, clihelper.Controller):
    pass


class OldSupers(OldFirst, OldMiddle):
    pass


class States(clihelper.Controller):
    def process(self):
        report('process', self._state, self.current_state, self.is_active)
        self.set_state(self.STATE_IDLE)
        report('idle', self._state, self.current_state, self.is_idle, self.is_running)
        self.set_state(self.STATE_CONNECTING)
        report('connecting', self.is_connecting, self.state_description)
        self.set_state(self.STATE_ACTIVE)
        self.set_state(self.STATE_INITIALIZING)
        report('refused', self._state)
        try:
            self.set_state(99)
        except ValueError as error:
            report('error', error)

    def cleanup(self):
        self.set_state(self.STATE_STOPPING)
        report('cleanup', self._state, self.is_stopping, self.is_running)
        self.set_state(self.STATE_ACTIVE)
        report('still', self._state)


class OldStates(clihelper.Controller):
    def _process(self):
        report('process', self._state, self.is_running, self.is_idle)
        self._set_state(self._STATE_RUNNING)
        report('running', self._state)
        self._set_state(2)
        report('sleeping', self._state, self.is_sleeping)

    def _cleanup(self):
        report('cleanup', self._state, self.is_shutting_down, self.is_running)


class EndsByState(clihelper.Controller):
    def process(self):
        report('process')
        self.set_state(self.STATE_STOPPING)

    def cleanup(self):
        report('cleanup')


class Told(clihelper.Controller):
    def process(self):
        report('process')

    def set_state(self, state):
        super(Told, self).set_state(state)
        report('state', state == self.STATE_ACTIVE, '%i' % state)


class Writes(clihelper.Controller):
    WAKE_INTERVAL = 30

    def __init__(self, options, arguments):
        self.configuration = sys.argv[sys.argv.index('-c') + 1]
        super(Writes, self).__init__(options, arguments)
        self.first = True

    def _process(self):
        report('process', self.wake_interval, self._get_wake_interval(),
               self._get_config('absent'), self._get_config('absent', 5),
               os.path.basename(self.configuration), sorted(self._config))
        self._config['Application']['wake_interval'] = 0.05


class Frames(clihelper.Controller):
    """In the style of 1.0."""

    def _process(self):
        report('process')

    def _on_sigusr2(self, frame):
        report('usr2', frame.f_code.co_name != '')

    def _on_sigusr1(self, frame):
        report('usr1')
        super(Frames, self)._on_sigusr1(frame)

    def _on_sighup(self, frame):
        report('hup')
        super(Frames, self)._on_sighup(frame)

    def _on_sigterm(self, frame):
        report('term')
        clihelper.Controller._on_sigterm(self, frame)


class Explicit(clihelper.Controller):
    """Calls the class that it inherits from by its name."""

    def __init__(self, options, arguments):
        clihelper.Controller.__init__(self, options, arguments)
        report('init', self._arguments, self._debug, self._options.level)

    def setup(self):
        clihelper.Controller.setup(self)
        report('setup')

    def process(self):
        report('process')

    def cleanup(self):
        report('cleanup')
        clihelper.Controller.cleanup(self)


class Ceaseless(clihelper.Controller):
    WAKE_INTERVAL = 0

    def process(self):
        report('process')


class StopsInProcess(clihelper.Controller):
    def process(self):
        report('process')
        self.stop()

    def cleanup(self):
        report('cleanup')


class ShutsDownInProcess(clihelper.Controller):
    def _process(self):
        report('process')
        self._shutdown()

    def _shutdown(self):
        report('shutdown')
        super(ShutsDownInProcess, self)._shutdown()

    def _cleanup(self):
        report('cleanup')


class CleansUpInStop(clihelper.Controller):
    """Writes out what ``stop`` was."""

    def process(self):
        report('process')

    def stop(self):
        report('stop')
        self.set_state(self.STATE_STOP_REQUESTED)
        signal.setitimer(signal.ITIMER_PROF, 0, 0)
        while self.is_running and self.is_waiting_to_stop:
            time.sleep(self.SLEEP_UNIT)
        if not self.is_stopping:
            self.set_state(self.STATE_STOPPING)
        self.cleanup()
        self._stopped()

    def cleanup(self):
        report('cleanup')


class StopsInThread(clihelper.Controller):
    def process(self):
        report('process')
        threading.Timer(0.05, self.stop).start()

    def cleanup(self):
        report('cleanup', threading.current_thread().name)


class OwnProcess(clihelper.Controller):
    """Of 1.4: its ``process`` is its own affair."""

    def _process(self):
        report('_process')
        self.process()

    def process(self):
        report('process')


class OwnUnderscore(clihelper.Controller):
    """Of 1.6: its ``_process`` is its own affair."""

    def process(self):
        report('process')
        self._process('with', 'arguments')

    def _process(self, *arguments):
        report('_process', *arguments)


class Helpers(clihelper.Controller):
    """Of today: its ``run`` and its ``setup`` are its own affair."""

    def _setup(self):
        self.setup('argument')

    def setup(self, argument):
        report('setup', argument)

    def _process(self):
        report('process')
        self.run()

    def run(self):
        report('run')


class CopiesHup(clihelper.Controller):
    """Writes out what HUP did."""

    def setup(self):
        report('setup')

    def process(self):
        report('process')

    def cleanup(self):
        report('cleanup')

    def on_sighup(self):
        self.stop()
        self.reload_configuration()
        self.run()


class Nothing(clihelper.Controller):
    """Has no process hook, and lives in its children."""

    def setup(self):
        report('setup')

    def cleanup(self):
        report('cleanup')


class Assigns(clihelper.Controller):
    def process(self):
        report('process', clihelper.EXCEPTION_LOG, clihelper.WRITE_EXCEPTION_LOG,
               clihelper.APPNAME, clihelper.CONTROLLER is self, clihelper.CONFIG_KEYS[-1],
               self._options.configuration == clihelper.CONFIG_FILE)


class LoopInProcess(clihelper.Controller):
    """Starts the IOLoop late, so that a signal may come before."""

    def _process(self):
        self._ioloop = ioloop.IOLoop.instance()
        at('process')
        self._ioloop.add_callback(report, 'loop')
        self._ioloop.start()
        report('returned')

    def _cleanup(self):
        report('cleanup')
        self._ioloop.stop()


class WorksBriefly(clihelper.Controller):
    """Is asked for something as it works, and has asyncio, but no event loop."""

    def process(self):
        at('process')

    def on_sigusr1(self):
        report('usr1')

    def on_sigusr2(self):
        report('usr2')


class Extended(clihelper.Controller):
    """Does more in ``run`` than the one that it extends."""

    def setup(self):
        report('setup')

    def process(self):
        report('process')

    def cleanup(self):
        report('cleanup')

    def run(self):
        report('run')
        super(Extended, self).run()
        report('ran')


class Interrupted(clihelper.Controller):
    """Knows nothing but Ctrl-C."""

    def run(self):
        try:
            report('process')
            while True:
                time.sleep(60)
        except KeyboardInterrupt:
            report('interrupt')


def options(parser):
    parser.add_option('-l', '--level', action='store', type='string', dest='level',
                      default='high', help='How high [default: %default]')


if __name__ == '__main__':
    clihelper.WRITE_EXCEPTION_LOG = False
    clihelper.EXCEPTION_LOG = '/var/log/traps.log'
    if NAME == 'Assigns':
        clihelper.CONFIG_KEYS = ['Application', 'Own']
    clihelper.setup('traps', 'Traps', '1.0.0')
    clihelper.run(globals()[NAME], options)
