"""A daemon that reports each phase of its life: phases.py CLASS -c FILE ..."""

import os
import signal
import sys

import reports

import clihelper

reports.at('start')


class Reporting:
    """Reports the hooks of a controller, and its states."""

    def set_state(self, state):
        super().set_state(state)
        reports.report(state.name)

    def _setup(self):
        reports.at('setup')

    def _cleanup(self):
        reports.at('cleanup')

    def on_configuration_reloaded(self):
        reports.report('reloaded', self.wake_interval)

    def on_sigusr2(self):
        super().on_sigusr2()
        reports.report('stacks')


class Periodic(Reporting, clihelper.Controller):
    def _process(self):
        reports.at('process')
        reports.report('processed')


class Printing(Periodic):
    def _setup(self) -> None:
        super()._setup()
        print('printed by', '_setup', flush=True)


class Consumer(Reporting, clihelper.ConsumerController):
    has_published = False

    def _process(self):
        if not self.has_published:
            self.has_published = True
            self.publish('hello', routing_key='greetings')

    def on_message(self, body, message):
        reports.at('message')
        reports.report('handled', body)


def run_asyncio():
    """Run an event loop that handles signals, and leaves the defaults behind."""
    import asyncio

    async def main():
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGWINCH, signal.SIGTERM, signal.SIGUSR1):
            loop.add_signal_handler(signum, print)

    asyncio.run(main())


def take_wakeup_descriptor():
    """Do what another library does that wants to be woken by signals."""
    global taken
    taken = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(taken[1])


LIBRARIES = {'asyncio': run_asyncio, 'other': take_wakeup_descriptor}


class Sharing(Periodic):
    """Calls a library that handles signals, at each tick."""

    def _process(self):
        LIBRARIES[os.environ['LIBRARY']]()
        super()._process()


class SharingConsumer(Consumer):
    """The same for each message."""

    def on_message(self, body, message):
        LIBRARIES[os.environ['LIBRARY']]()
        super().on_message(body, message)


class Busy(clihelper.Controller):
    def _process(self):
        reports.at('process')


class BusyConsumer(clihelper.ConsumerController):
    def _setup(self):
        for number in range(3):
            self.publish('hello', routing_key='greetings', message_id=f'id-{number}')

    def on_message(self, body, message):
        reports.at('message')


class Ioloop(Reporting, clihelper.IOLoopController):
    def _process(self):
        reports.at('process')
        reports.report('processed')


class SharingIoloop(Ioloop):
    def _process(self):
        LIBRARIES[os.environ['LIBRARY']]()
        super()._process()


class SlowToImport(Reporting, clihelper.Controller):
    loop_class = 'slow_loop.IntervalLoop'


def options(parser):
    reports.at('options')


def main():
    controller = globals()[sys.argv.pop(1)]
    if 'fork' in os.environ['HELD_AT']:
        os.register_at_fork(after_in_child=lambda: reports.at('fork'))
    clihelper.setup('phases', 'Reports its phases.', '1.2.3')
    clihelper.run(controller, options)
    reports.report('after run')


if __name__ == '__main__':
    main()
