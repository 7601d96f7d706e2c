"""Reads every name of 1.x that can be read, and prints what it is, as JSON."""

import json
import logging
import os
import warnings

import clihelper

SEEN = {}
WARNED = {}


def note(name, read):
    """What reading *name* gives, and the warning that it caused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        value = read()
        SEEN.setdefault(name, value if isinstance(value, (str, int, float, dict, list)) else (
            None if value is None else repr(value)))
    for warning in caught:
        WARNED[name] = [str(warning.message), warning.filename == __file__]
    return value


def of_module(*names):
    for name in names:
        note(name, lambda name=name: getattr(clihelper, name))


note('setup', lambda: clihelper.setup('names', 'Names', '1.2.3'))
note('set_appname', lambda: clihelper.set_appname('named'))
note('set_description', lambda: clihelper.set_description('Named'))
note('set_version', lambda: clihelper.set_version('3.2.1'))
note('add_config_key', lambda: clihelper.add_config_key('Own'))


class Names(clihelper.Controller):
    def process(self):
        of_module(
            'APPNAME', 'DESCRIPTION', 'VERSION', 'APPLICATION', 'DAEMON', 'LOGGING',
            'CONFIG_KEYS', 'PIDFILE', 'EXCEPTION_LOG', 'WRITE_EXCEPTION_LOG', 'DEFAULT_FORMAT',
            'LOGGING_OBJ', 'LOGGER', '_APPNAME', '_DESCRIPTION', '_VERSION', '_APPLICATION',
            '_DAEMON', '_LOGGING', '_CONFIG_KEYS', '_PIDFILE',
        )
        note('CONFIG_FILE', lambda: os.path.relpath(clihelper.CONFIG_FILE))
        note('_CONFIG_FILE', lambda: os.path.relpath(clihelper._CONFIG_FILE))
        note('CONTROLLER', lambda: clihelper.CONTROLLER is self)
        note('_CONTROLLER', lambda: clihelper._CONTROLLER is self)
        note('LOGGING_DEFAULT', lambda: sorted(clihelper.LOGGING_DEFAULT))
        note('get_configuration', lambda: clihelper.get_configuration()['Own'])
        note('_get_configuration', lambda: clihelper._get_configuration()['Own'])
        note('get_logging_config', lambda: sorted(clihelper.get_logging_config()['handlers']))
        note('setup_logging', lambda: clihelper.setup_logging(self.options.foreground))
        note('_setup_logging', lambda: clihelper._setup_logging(True))
        note('Logging', self.configure)
        note('set_configuration_file', lambda: clihelper.set_configuration_file('/other'))
        note('set_controller', lambda: clihelper.set_controller('another'))
        SEEN['set'] = [clihelper.CONFIG_FILE, clihelper.CONTROLLER,
                       type(clihelper.LOGGING_OBJ).__name__]
        for name in (
            'config', 'application_config', '_config', '_state', '_options',
            '_arguments', '_debug', 'is_running', 'is_idle', 'is_sleeping', 'is_active',
            'is_initializing', 'is_stopped', 'is_stopping', 'is_waiting_to_stop',
            'is_shutting_down', 'is_connecting', 'current_state', 'state_description',
            'wake_interval', '_logger',
        ):
            note(name, lambda name=name: getattr(self, name))
        note('logging_config', lambda: self.logging_config['loggers']['clihelper'])
        for name in dir(clihelper.Controller) + dir(Names):
            if name.isupper():
                note(name, lambda name=name: getattr(Names, name))
        note('_get_application_config', lambda: self._get_application_config())
        note('_get_config', lambda: self._get_config('wake_interval'))
        note('_get_wake_interval', lambda: self._get_wake_interval())
        note('_set_state', lambda: self._set_state(self.state))
        note('set_state', lambda: self.set_state(self.STATE_IDLE))
        self.stop()

    def configure(self):
        logging_ = clihelper.Logging(
            {'version': 1, 'handlers': {'one': {'class': 'logging.NullHandler',
                                                'debug_only': True}},
             'loggers': {'names': {'handlers': ['one']}}}, False)
        logging_.configure()
        without = [logging_.config['loggers']['names']['handlers'],
                   len(logging.getLogger('names').handlers)]
        logging_.set_configuration(
            {'version': 1, 'handlers': {'two': {'class': 'logging.NullHandler',
                                                'debug_only': True}},
             'loggers': {'names': {'handlers': ['two']}}}, True)
        logging_.configure()
        return [*without, len(logging.getLogger('names').handlers)]


if __name__ == '__main__':
    note('run', lambda: clihelper.run(Names))
    print(json.dumps({'seen': SEEN, 'warned': WARNED}), flush=True)
