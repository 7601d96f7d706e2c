"""A controller whose ``_setup`` does what it is told: reloading.py CLASS -c FILE ..."""

import asyncio
import socket
import sys

import reports

import clihelper

taken = []


class Reloading:
    listener = None

    def _setup(self):
        word = self.application_config['word']
        reports.report('setup', word)
        self.listener = socket.create_server(('127.0.0.1', self.application_config['port']))
        if 'take' in self.application_config:
            taken.append(socket.create_server(('127.0.0.1', self.application_config['take'])))
        fail = self.application_config.get('fail')
        if fail == 'exit':
            sys.exit('no hands')
        if fail == 'cancel':
            raise asyncio.CancelledError('no hands')
        if fail:
            raise ValueError('no hands')

    def _process(self):
        reports.report('process', self.application_config['word'])

    def _cleanup(self):
        reports.report('cleanup')
        self.listener.close()
        if self.application_config.get('break'):
            raise RuntimeError('a broken broom')

    def on_configuration_reloaded(self):
        if self.application_config.get('fail'):
            raise ValueError('no hands')


class Plain(Reloading, clihelper.Controller):
    pass


class Ioloop(Reloading, clihelper.IOLoopController):
    pass


class Web(Reloading, clihelper.IOLoopController):
    """Listens as Tornado's documentation has it, and keeps nothing to close."""

    def _setup(self):
        from tornado import web

        reports.report('setup', self.application_config['word'])
        web.Application().listen(self.application_config['port'], '127.0.0.1')
        if self.application_config.get('fail'):
            raise ValueError('no hands')

    def _cleanup(self):
        reports.report('cleanup')


class Consumer(clihelper.ConsumerController):
    def on_message(self, body, message):
        reports.report('message', body)


controller = globals()[sys.argv.pop(1)]
clihelper.setup('reloading')
clihelper.run(controller)
