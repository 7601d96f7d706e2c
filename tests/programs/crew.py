"""Workers that tell what they do, and do what their configuration says."""

import os
import time

import clihelper


class Crew(clihelper.Controller):
    def _setup(self):
        self.logger.info('setup %d %s', self.worker, self.application_config.get('word', ''))
        if self.application_config.get('fail') in ('all', self.worker):
            raise ValueError('no hands')
        if self.application_config.get('hang'):
            self.wait(self.application_config['hang'])

    def _process(self):
        self.logger.info('process %d', self.worker)
        if self.application_config.get('leak'):
            self.leak = bytearray(os.urandom(64)) * (self.application_config['leak'] * 2**14)
        if self.application_config.get('done'):
            self.stop()
        if self.application_config.get('busy'):
            end = time.monotonic() + self.application_config['busy']
            while time.monotonic() < end:
                time.sleep(0.01)

    def _cleanup(self):
        self.logger.info('cleanup %d', self.worker)

    def on_configuration_reloaded(self):
        self.logger.info('reloaded %d %s', self.worker, self.application_config.get('word'))


clihelper.setup('crew')
clihelper.run(Crew)
print('after run', flush=True)
