"""A program that turns sections of its configuration into dataclasses, and says what it has."""

import dataclasses

import reports

import clihelper


@dataclasses.dataclass
class Settings:
    word: str = 'none'

    def __post_init__(self):
        if not isinstance(self.word, str):
            raise TypeError(f'word: expected a string, got {self.word!r}')


@dataclasses.dataclass
class Shipping:
    carriers: list[str]


class Parsed(clihelper.Controller):
    def _setup(self):
        if self.application_config.word == 'fatal':
            raise ValueError('no hands')
        reports.report('setup', self.application_config.word, self.config['Shipping'].carriers)

    def _process(self):
        reports.report('process', self.wake_interval)


clihelper.setup('parsed')
clihelper.add_config_key('Application', lambda section: Settings(**section))
clihelper.add_config_key('Shipping', lambda section: Shipping(**section))
clihelper.run(Parsed)
