"""The names of clihelper 1.0 to 1.7, declared once.

A row is ``(old name, new name, since, note)``. *since* is the versions that had the name; *note*
is any further information, or empty. The tables determine what the names do, the
DeprecationWarning, ``docs/upgrading.rst`` and the findings of ``clihelper upgrade-check``. A row
whose new name equals the old one is there for the page: the name is still in use, and there is no
warning.

The rows are plain tuples, since every program with a controller imports this module to check
whether it is written for 1.x.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Row = tuple[str, str, str, str]
    Table = tuple[Row, ...]

FUNCTIONS: Table = (
    ('setup', 'setup', '1.0', ''),
    ('run', 'run', '1.0', ''),
    ('add_config_key', 'add_config_key', '1.2', ''),
    ('set_appname', 'setup', '1.0', ''),
    ('set_description', 'setup', '1.0', ''),
    ('set_version', 'setup', '1.0', ''),
    ('set_controller', 'run', '1.0', 'Sets ``CONTROLLER``.'),
    ('set_configuration_file', '-c', '1.0',
     'Sets what ``get_configuration`` reads. A running program keeps the file of ``-c``.'),
    ('get_configuration', 'Controller.config', '1.2',
     'Reads the file again, and returns its contents without defaults.'),
    ('_get_configuration', 'Controller.config', '1.0-1.1', ''),
    ('setup_logging', 'the Logging section', '1.3', 'Safe to call again in a child.'),
    ('_setup_logging', 'the Logging section', '1.0-1.2', ''),
    ('get_logging_config', "Controller.config['Logging']", '1.5', ''),
    ('Logging', 'logging.config.dictConfig', '1.6',
     '``config``, ``configure()``, and since 1.6.3 ``set_configuration()``.'),
)
"""Functions and classes of the module."""

GLOBALS: Table = (
    ('APPNAME', 'setup', '1.6', ''),
    ('DESCRIPTION', 'setup', '1.6', ''),
    ('VERSION', 'setup', '1.6', ''),
    ('APPLICATION', "'Application'", '1.6', 'An assignment has no effect.'),
    ('DAEMON', "'Daemon'", '1.6', 'An assignment has no effect.'),
    ('LOGGING', "'Logging'", '1.6', 'An assignment has no effect.'),
    ('CONFIG_KEYS', 'add_config_key', '1.6', 'May be appended to, and assigned.'),
    ('CONFIG_FILE', 'Controller.options.configuration', '1.6', ''),
    ('CONTROLLER', 'Controller', '1.6', 'The controller that runs.'),
    ('PIDFILE', 'Daemon.pidfile', '1.6', 'An assignment is the default of ``Daemon.pidfile``.'),
    ('EXCEPTION_LOG', 'the log', '1.6', 'No such file is written: the traceback is in the log.'),
    ('WRITE_EXCEPTION_LOG', 'the log', '1.6', 'No such file is written.'),
    ('LOGGING_DEFAULT', 'the Logging section', '1.6.3',
     'What ``get_logging_config`` starts from.'),
    ('DEFAULT_FORMAT', 'the Logging section', '1.6.3', ''),
    ('LOGGING_OBJ', 'logging.config.dictConfig', '1.6.3', 'What ``setup_logging`` made.'),
    ('LOGGER', "logging.getLogger('clihelper')", '1.4', ''),
    ('_APPNAME', 'setup', '1.0-1.5', ''),
    ('_DESCRIPTION', 'setup', '1.0-1.5', ''),
    ('_VERSION', 'setup', '1.0-1.5', ''),
    ('_APPLICATION', "'Application'", '1.0-1.5', 'An assignment has no effect.'),
    ('_DAEMON', "'Daemon'", '1.0-1.5', 'An assignment has no effect.'),
    ('_LOGGING', "'Logging'", '1.0-1.5', 'An assignment has no effect.'),
    ('_CONFIG_KEYS', 'add_config_key', '1.0-1.5', 'May be appended to, and assigned.'),
    ('_CONFIG_FILE', 'Controller.options.configuration', '1.0-1.5', ''),
    ('_CONTROLLER', 'Controller', '1.0-1.5', 'The controller that runs.'),
    ('_PIDFILE', 'Daemon.pidfile', '1.0-1.5',
     'An assignment is the default of ``Daemon.pidfile``.'),
)
"""Variables of the module."""

HOOKS: Table = (
    ('_setup', '_setup', '1.0', ''),
    ('_process', '_process', '1.0', ''),
    ('_loop', '_loop', '1.0-1.3', ''),
    ('_shutdown', '_shutdown', '1.0', 'The program ends even if this hook does nothing.'),
    ('_cleanup', '_cleanup', '1.4', ''),
    ('on_sighup', 'on_sighup', '1.6', ''),
    ('on_sigterm', 'on_sigterm', '1.6', ''),
    ('on_sigusr1', 'on_sigusr1', '1.6', ''),
    ('on_sigusr2', 'on_sigusr2', '1.6', "By default, it logs every thread's stack."),
    ('stop', 'stop', '1.6', 'If overridden, TERM and HUP call it.'),
    ('set_state', 'set_state', '1.6', 'Accepts the numbers; a refusal is a line in the log.'),
    ('wake_interval', 'wake_interval', '1.6', ''),
    ('setup', '_setup', '1.6', 'If both are defined, ``_setup`` is the hook.'),
    ('process', '_process', '1.6', 'If both are defined, ``_process`` is the hook.'),
    ('cleanup', '_cleanup', '1.6', 'If both are defined, ``_cleanup`` is the hook.'),
    ('run', '_loop', '1.0', "The program's own main loop; it calls ``setup`` itself."),
    ('reload_configuration', 'on_configuration_reloaded', '1.6', ''),
    ('_reload_configuration', 'on_configuration_reloaded', '1.0-1.5', ''),
    ('_shutdown_complete', '_cleanup', '1.0', 'Called after ``_cleanup``.'),
    ('_stopped', '_cleanup', '1.6.1', 'Called after ``_cleanup``.'),
    ('stopped', '_cleanup', '1.6.0', 'Called after ``_cleanup``.'),
    ('_on_sighup', 'on_sighup', '1.0-1.5', 'Until 1.3 with the frame as an argument.'),
    ('_on_sigterm', 'on_sigterm', '1.0-1.5', 'Until 1.3 with the frame as an argument.'),
    ('_on_sigusr1', 'on_sigusr1', '1.0-1.5', 'Until 1.3 with the frame as an argument.'),
    ('_on_sigusr2', 'on_sigusr2', '1.0-1.5', 'Until 1.3 with the frame as an argument.'),
    ('_get_wake_interval', 'wake_interval', '1.0', ''),
    ('_set_state', 'set_state', '1.0', ''),
    ('_sleep', 'wait', '1.0',
     'In a main loop it sleeps for the wake interval, or sets the alarm if SIGALRM has a handler;'
     ' in ``_process`` it sleeps for ``SLEEP_UNIT`` seconds.'),
    ('_wake', '_process', '1.4', ''),
    ('sleep', 'wait', '1.6.0', 'Like ``_sleep``.'),
    ('wake', '_process', '1.6.0', 'Like ``_wake``.'),
)
"""Methods that a subclass overrides or calls."""

ACCESSORS: Table = (
    ('config', 'config', '1.6', 'Only the sections and keys of the file, without defaults.'),
    ('application_config', 'application_config', '1.6', ''),
    ('_config', 'config', '1.0', 'May be written to.'),
    ('_logger', '_logger', '1.0', ''),
    ('_state', 'state', '1.0', 'A number.'),
    ('_options', 'options', '1.0', ''),
    ('_arguments', 'arguments', '1.0', ''),
    ('_debug', 'options.foreground', '1.0', ''),
    ('_get_application_config', 'application_config', '1.0', ''),
    ('_get_config', 'application_config.get', '1.0', ''),
    ('logging_config', "config['Logging']", '1.6', ''),
    ('is_running', 'is_running', '1.0', 'Also true while it sleeps, in every version.'),
    ('is_idle', 'is_idle', '1.3', 'Until 1.5: the program has ended or not started.'),
    ('is_sleeping', 'is_sleeping', '1.3', ''),
    ('is_active', 'is_active', '1.6', ''),
    ('is_initializing', 'is_initializing', '1.6', ''),
    ('is_stopped', 'is_stopped', '1.6', ''),
    ('is_stopping', 'is_stopping', '1.6', 'Also true while the current work is being finished.'),
    ('is_waiting_to_stop', 'is_waiting_to_stop', '1.6', ''),
    ('is_shutting_down', 'is_stopping', '1.0-1.5', ''),
    ('is_connecting', 'is_active', '1.6.0', 'Whether the program has set that state.'),
    ('current_state', 'state', '1.6.1', ''),
    ('state_description', 'state', '1.6.0', ''),
)
"""Attributes and methods that a subclass reads."""

CONSTANTS: Table = (
    ('WAKE_INTERVAL', 'Application.wake_interval', '1.6', ''),
    ('_WAKE_INTERVAL', 'Application.wake_interval', '1.0-1.5', ''),
    ('SLEEP_UNIT', 'wait', '1.6', ''),
    ('_SLEEP_UNIT', 'wait', '1.0-1.5', '1 until 1.3, then 0.5.'),
    ('STATE_INITIALIZING', 'State.INITIALIZING', '1.6', ''),
    ('STATE_CONNECTING', 'State.ACTIVE', '1.6.0', 'Now 8; it was 2.'),
    ('STATE_SLEEPING', 'State.SLEEPING', '1.6', ''),
    ('STATE_IDLE', 'State.IDLE', '1.6', ''),
    ('STATE_ACTIVE', 'State.ACTIVE', '1.6', ''),
    ('STATE_STOP_REQUESTED', 'State.STOP_REQUESTED', '1.6', ''),
    ('STATE_STOPPING', 'State.STOPPING', '1.6', ''),
    ('STATE_STOPPED', 'State.STOPPED', '1.6', ''),
    ('_STATE_IDLE', 'State.STOPPED', '1.0-1.5', ''),
    ('_STATE_RUNNING', 'State.ACTIVE', '1.0-1.5', ''),
    ('_STATE_SLEEPING', 'State.SLEEPING', '1.0-1.5', ''),
    ('_STATE_SHUTTING_DOWN', 'State.STOPPING', '1.0-1.5', ''),
)
"""Constants of the class."""

BEHAVIOUR: Table = (
    ('A signal arrives while ``_process`` runs', 'It is handled when ``_process`` returns.', '1.0',
     'The hook ran in the signal handler, in the middle of the work; TERM was lost, waited for a'
     ' condition that was never met, or cleaned up while the work was running.'),
    ('TERM while an event loop runs inside ``_process``',
     '``_cleanup`` is called on that loop, once; ``_process`` then returns.', '1.4',
     'The same, in the signal handler.'),
    ('The umask of a daemon', '``027``, or ``Daemon.umask``.', '1.0', '0.'),
    ('An uncaught exception', 'The traceback is in the log; status 1.', '1.5',
     'It was appended to ``/tmp/clihelper-exceptions.log``, which anyone could write to.'),
    ('``sys.exit(3)`` in ``_process``', 'Status 3 after ``_cleanup``; the pidfile is released.',
     '1.0', 'Status 3 without ``_cleanup``; the pidfile stayed.'),
    ('HUP and USR1 with a broken configuration',
     'The log says where it is broken; the program keeps the old one.', '1.0',
     'The program ended with status 1.'),
    ('A second start', 'Refused with status 73.', '1.0',
     'It waited silently, and took over when the first one ended.'),
    ('A start after ``kill -9``', 'It starts.', '1.4', 'It hung on a stale lock.'),
    ('The command that starts a daemon', 'Returns when the daemon is ready.', '1.0',
     'Returned at once, whatever happened to the daemon.'),
    ("The pidfile's folder is missing", 'One line, status 73, before anything detaches.', '1.0',
     'Status 0; the daemon died silently.'),
    ('An unknown user or group', 'One line, status 77.', '1.0', 'A traceback.'),
    ('A required section is missing', 'One line that names it, status 78.', '1.0',
     'A traceback.'),
    ('``wake_interval`` is 0 or a string', 'One line, status 78.', '1.0',
     'A busy loop, a program that never woke up again, or a traceback.'),
    ('The interval', 'A fixed grid, unless the program overrides ``wake_interval`` or'
     ' ``_get_wake_interval``: then it is counted from the end of ``_process``, as it was.', '1.0',
     'Counted from the end of ``_process``.'),
    ("INT with the program's own ``run``",
     'KeyboardInterrupt in ``run``, as before; otherwise as TERM.', '1.0', ''),
    ('USR2', "By default the state and every thread's stack are logged.", '1.0',
     'By default only the signal was logged.'),
    ('Child processes of :mod:`multiprocessing`',
     'Are forked, even on Python 3.14 and later, unless the program chooses another start method'
     " that is not Python's default.", '1.0', ''),
    ("The program's own section ``AMQP``", 'Belongs to clihelper: use another name.', '1.0',
     "The program's."),
    ('Unknown keys in ``Daemon``', 'Are errors.', '1.0', 'Were ignored.'),
    ("An option with ``action='callback'``", 'Is refused: use a type.', '1.0',
     'optparse called the function.'),
    ('An ``optparse.OptionGroup``', 'Is refused: use ``parser.add_argument_group``.', '1.0',
     'It was added to the parser.'),
    ('``clihelper-init``', 'Was removed: ``clihelper new`` generates a project.', '1.6.1',
     'Wrote a project.'),
)
"""Situations, what 2.0 does, since which version it was different, and what was done then."""

CONTROLLER = (HOOKS, ACCESSORS, CONSTANTS)
MODULE = (FUNCTIONS, GLOBALS)

#: The old names of the module and of a controller, with their rows.
OF_MODULE = {row[0]: row for table in MODULE for row in table if row[0] != row[1]}
OF_CONTROLLER = {row[0]: row for table in CONTROLLER for row in table if row[0] != row[1]}

#: A subclass of ``Controller`` that defines one of these is written for 1.x,
DEFINED = frozenset(OF_CONTROLLER)

#: and so is one whose methods use one of these names: no other program has reason to.
MENTIONED = frozenset(
    name for name, row in OF_CONTROLLER.items()
    if name.startswith(('_', 'STATE_', 'is_')) or row in CONSTANTS
) | {'current_state', 'state_description', 'logging_config', 'reload_configuration'}
