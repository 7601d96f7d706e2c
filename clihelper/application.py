"""From the command line to the exit status: :func:`setup` and :func:`run`.

Everything acquired on the way is put on one stack, in the order of :meth:`Run.run`, and released
in reverse::

    argv -> options -> configuration -> user, group, pidfile -> detach -> identity, logging
         -> controller -> life cycle -> exit status
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import partial

from clihelper import config as configuration
from clihelper import logs, program, supervisor
from clihelper.controller import ConsumerController, check_class, own_topology
from clihelper.errors import (
    ConfigurationError,
    Error,
    StopNow,
    StoppedEarly,
    UsageError,
    encodable,
    in_one_line,
)
from clihelper.lifecycle import LifeCycle, WorkerContext
from clihelper.process import daemonize
from clihelper.process.flow import CALL
from clihelper.process.signals import Signals
from clihelper.process.systemd import Notifier, listen_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket
    from types import FrameType
    from typing import Any

    from clihelper.config import Config
    from clihelper.controller import Controller
    from clihelper.operations.control import ControlServer
    from clihelper.options import Options
    from clihelper.parser import Parser
    from clihelper.process.pidfile import Pidfile
    from clihelper.process.privileges import Identity
    from clihelper.process.scoreboard import Scoreboard
    from clihelper.process.sockets import Listening
    from clihelper.process.statistics import Statistics
    from clihelper.program import Parse
    from clihelper.supervisor.child import WorkerChannel

LOGGER = logging.getLogger('clihelper')

OF_MODELS = ('__struct_fields__', '__attrs_attrs__', 'model_validate', 'parse_obj')
"""what a class of msgspec's, attrs' or pydantic's has; the first two would take a section for the
value of their first field, silently"""


def setup(appname: str, description: str | None = None, version: str | None = None) -> None:
    """Describe the program.

    :param appname: its name, used in messages, for its logger and for its default pidfile.
    :param description: a sentence for ``--help``.
    :param version: what ``--version`` prints after the name.
    """
    program.current.name = appname
    program.current.description = description
    program.current.version = version


def add_config_key(name: str, parse: Parse | None = None) -> None:
    """Require the section *name* in the configuration; without it the program ends with 78.

    :param parse: turns the section, a dictionary, into what the program wants of it: the
        ``model_validate`` of a pydantic model, what :func:`clihelper.json_schema` returns, or any
        function; or a dataclass, which gets the keys as arguments. ``config[name]`` is what it
        returns. What it raises is reported as faults of the configuration, at the keys that the
        error names (pydantic, msgspec, jsonschema, unknown and missing arguments), or else at the
        section: by ``--check``, at the start, and by a reload before anything is stopped for it.
        It is called for each of these, so it should open nothing. That of ``Application`` is
        called without ``wake_interval``, and ``application_config`` is what it returns.
    :raises ValueError: *parse* is given for ``Daemon``, ``Logging`` or ``AMQP``.
    :raises TypeError: *parse* cannot be called, or is a class that would take the section for its
        first field.
    """
    if parse is not None:
        if name in ('Daemon', 'Logging', 'AMQP'):
            raise ValueError(f'the section {name} is read by clihelper itself')
        if not callable(parse):
            raise TypeError(f'parse is no function: {parse!r}')
        if any(hasattr(parse, each) for each in OF_MODELS):
            raise TypeError(f'parse is a class of models, {parse.__name__}: expected a function'
                            ' that makes one of a dictionary')
        program.current.parsers[name] = parse
    if name not in program.current.required_sections:
        program.current.required_sections.append(name)


def run(
    controller: type[Controller], option_callback: Callable[[Parser], object] | None = None
) -> None:
    """Run *controller* according to the command line and the configuration.

    After a clean stop it returns in the process that ran the controller, so that the program can
    go on. Every other process, and the program after every other outcome, ends with the exit
    status.

    :param controller: a subclass of :class:`clihelper.Controller`.
    :param option_callback: called with the parser (an :class:`argparse.ArgumentParser` that also
        has ``add_option``) to add the application's options.
    :raises SystemExit: with the exit status, except after a clean stop.
    """
    line = program.explain_hidden()
    if line is not None:
        raise ImportError(line)  # in the run that has imported the program as a module of its own
    daemonize.mend_standard_streams()
    collects = gc.isenabled()
    gc.disable()  # until the loop runs: what is imported until then is never freed
    signals = Signals()
    signals.install()
    _stop_early(signals)
    atexit.register(_flush_output)
    appname = program.current.name
    try:
        from clihelper import options as command_line

        appname = appname or command_line.program_name()
        options, arguments = command_line.parse(
            sys.argv[1:],
            appname=appname,
            description=program.current.description,
            version=program.current.version,
            option_callback=option_callback,
        )
        status = Run(appname, signals, controller, options, arguments, collects).run()
    except ConfigurationError as error:
        # A fault starts with its file's name, so that people and editors can open the place.
        for fault in error.faults:
            _say(None, fault)
        status = error.status
    except (Error, StopNow, StoppedEarly) as error:
        _say(appname, str(error))
        status = error.status
    except (ImportError, AttributeError) as fault:
        line = program.explain_hidden(fault)
        if line is None:
            raise
        _say(appname, line)
        status = Error.status
    if status:
        sys.exit(status)


class Run:
    """One run of the program, starting with its command line.

    :param controller: the class of the controller.
    :param options: the command line's options.
    :param arguments: its remaining words.
    :param collects: whether to enable the garbage collector when the loop runs.
    """

    def __init__(
        self,
        appname: str,
        signals: Signals,
        controller: type[Controller],
        options: Options,
        arguments: list[str],
        collects: bool,
    ) -> None:
        self.appname = appname
        self.signals = signals
        self.controller = controller
        self.options = options
        self.arguments = arguments
        self.collects = collects
        self.foreground: bool = options.foreground
        self.detaches = daemonize.should_detach(self.foreground)
        self.readiness: daemonize.Readiness | daemonize.Attached = daemonize.Attached(self._say)
        self.is_child = False
        self.status = 0
        self.lines: list[str] = []
        self.config: Config
        self.identity: Identity
        self._redirect: bool | dict[str, Any] = False
        self.pidfile: Pidfile | None = None
        self.listening: Listening | None = None
        self.metrics_listening: Listening | None = None
        self.control: Listening | None = None
        # The path stays valid after the directory has changed; messages show it as it was typed.
        self._shown: str = options.configuration
        self._path = os.path.abspath(options.configuration)
        # The defaults are those of the user who started it, even after the user has changed.
        self._as_root = os.geteuid() == 0
        if self.foreground:
            # It stays in its directory, and so do log files with a relative name, as in 1.x.
            with suppress(FileNotFoundError):
                program.current.default_logs_directory = os.getcwd()

    def run(self) -> int:
        """Take the program from its configuration to its exit status.

        :returns: the exit status.
        :raises clihelper.errors.Error: something that the user can fix is wrong.
        """
        # What is logged before logging is configured is told on the terminal as well.
        LOGGER.addHandler(logging.NullHandler())
        if not self.detaches:
            self.signals.follow_terminal()
        if self.options.restarts:
            self._run_anew()
        self.config = self.read_configuration()
        if self.options.print_asyncapi:
            self._print_asyncapi()
            sys.exit(0)
        if self.options.check:
            sys.exit(self._check())
        if self.options.message_file is not None:
            return self._try()
        with ExitStack() as held:
            # Pushed first, so that it reports last: with all released, it can be started again.
            held.callback(self._report)
            self._warn_of_logs()
            if self.foreground:
                self._say_who()
            else:
                self._look_ahead(held)
            self._listen(held)
            if self.detaches or (os.getpid() == 1 and not supervisor.is_needed(self.config)):
                self._go_on_in_child()
            self.status, self.lines = self._work_and_judge(partial(self._work, held))
        return self.status

    def read_configuration(self) -> Config:
        """Read and validate the configuration, at the start and at each reload."""
        config = configuration.load(
            self._path,
            program.current.required_sections,
            appname=self.appname,
            shown=self._shown,
            as_root=self._as_root,
            parsers=program.current.parsers,
        )
        if config.logging is not None:
            faults = logs.check(
                config.logging,
                config.locate,
                working_directory=config.daemon['logs_directory'],
            )
            if faults:
                raise ConfigurationError(*faults)
        options = config.amqp['tls']
        if options['ca'] or options['certificate']:
            from clihelper.amqp import tls

            tls.check(config)
        check_class(self.controller, config)
        return config

    def _check(self) -> int:
        """Report that the configuration is valid; with ``--broker``, check the broker as well.

        :returns: the exit status.
        """
        if self.options.check_broker:
            from clihelper.amqp.inspection import inspect

            report = inspect(self.config, own_topology(self.controller), self.appname)
            for line in report.notes:
                print(encodable(line, sys.stdout.encoding))
            for line in (*report.warnings, *report.faults):
                _say(None, line)
            if report.faults:
                return os.EX_UNAVAILABLE
        if self.options.check_verbose and issubclass(self.controller, ConsumerController):
            for handler in self.controller.handler_table().all:
                print(encodable(f'{self.controller.__name__}.{handler}', sys.stdout.encoding))
        print(encodable(f'{self._shown}: ok', sys.stdout.encoding))
        return 0

    def _run_anew(self) -> None:
        """Start the program again whenever it changes, unless this is a process started so.

        :raises SystemExit: with its last exit status.
        """
        from clihelper.development import restarting

        if not restarting.is_watched():
            sys.exit(restarting.Restarter(self.signals, self._path, self._say).run())

    def _try(self) -> int:
        """Run the handler on one message; see :mod:`clihelper.development.trial`.

        Whatever another hook raises has its traceback on the terminal.

        :returns: the exit status.
        """
        from clihelper.development.trial import Trial

        self._warn_of_logs()
        self.configure_logging(self.config)
        parsers = {
            name: program.current.parsers.get(name) for name in program.current.required_sections}
        return Trial(
            self.controller, self.config, self.appname, self.options, self.arguments, parsers
        ).run(self.signals)

    def _print_asyncapi(self) -> None:
        """Print a document of what the program receives.

        :raises clihelper.errors.UsageError: it receives nothing.
        """
        own = own_topology(self.controller)
        if own is None or not issubclass(self.controller, ConsumerController):
            raise UsageError(f'argument --asyncapi: {self.controller.__name__} is no consumer')
        import json

        from clihelper.amqp.asyncapi import document
        from clihelper.amqp.entities import Entities

        amqp = self.config.amqp
        described = document(
            amqp, Entities(amqp, *own), self.controller.handler_table(), self.appname,
            program.current.description, program.current.version,
        )
        print(json.dumps(described, indent=2))

    # Before detaching: everything that can be wrong is found here.

    def _look_ahead(self, held: ExitStack) -> None:
        from clihelper.process import privileges
        from clihelper.process.pidfile import Pidfile

        daemon = self.config.daemon
        self.identity = privileges.resolve(daemon['user'], daemon['group'])
        self.identity.check()
        daemonize.check_working_directory(daemon['working_directory'])
        if daemon['pidfile'] is not None:
            self.pidfile = Pidfile(daemon['pidfile'])
            self.pidfile.acquire()
            held.callback(self.pidfile.release_last)
            if daemon['control'] is not None:
                self._bind_control(daemon['control'], held)

    def _bind_control(self, path: str, held: ExitStack) -> None:
        """Bind the control socket. Without one in the default place, the daemon does its work."""
        from clihelper.process.sockets import PRIVATE, Listening

        control = Listening('Daemon.control', PRIVATE)
        try:
            control.bind([f'unix:{path}'], self.identity.uid, self.identity.gid)
        except Error as error:
            default = configuration.default_control(self.config.daemon['pidfile'])
            if path != default:
                raise
            self._say(f'{error}: it cannot be asked')
            return
        held.callback(control.close)
        self.control = control

    def _control_server(self, statistics: Statistics) -> ControlServer | None:
        """Return what serves the control socket, in the process that does."""
        if self.control is None:
            return None
        from clihelper.operations.control import ControlServer
        from clihelper.operations.pausing import Pausing, file_in

        server = ControlServer(self.control.sockets[0], {0, os.geteuid()})
        path = file_in(self.config.daemon['state_directory'], self.appname)
        pausing = Pausing(statistics.flow, path)
        pausing.answer(server)
        pausing.restore()
        return server

    def _warn_of_logs(self) -> None:
        """Tell which handlers lose what they are given, because nobody is there to take it."""
        section = self.config.logging
        if section is not None:
            lines = logs.warnings(section, self.config.locate, foreground=self.foreground)
        else:
            lines = list(filter(None, [logs.check_default(self.detaches)]))
        for line in lines:
            self._say(line)

    def _listen(self, held: ExitStack) -> None:
        passed, metrics = listen_fds(), self.config.daemon['metrics']
        if not passed and not self.config.daemon['listen'] and metrics is None:
            return
        from clihelper.process.sockets import Listening

        ids = (-1, -1) if self.foreground else (self.identity.uid, self.identity.gid)
        if passed or self.config.daemon['listen']:
            self.listening = Listening()
            held.callback(self.listening.close)
            self.listening.inherit(passed)
            self.listening.bind(self.config.daemon['listen'], *ids)
        if metrics is not None:
            self.metrics_listening = Listening('Daemon.metrics')
            held.callback(self.metrics_listening.close)
            self.metrics_listening.bind([metrics], *ids)

    def _go_on_in_child(self) -> None:
        """Fork; the parent only waits for the child, and ends here."""
        if self.detaches:
            self._detach()
        else:
            from clihelper.process import init

            init.fork(self.signals)
        self.is_child = True
        for listening in filter(None, (self.listening, self.metrics_listening, self.control)):
            listening.take_over()

    def _detach(self) -> None:
        """Become the daemon; the command that was typed waits for it and ends here."""
        daemon = self.config.daemon
        side = daemonize.detach(
            umask=daemon['umask'], working_directory=daemon['working_directory']
        )
        if isinstance(side, daemonize.Command):
            self.signals.urgent = None
            side.leave(side.wait(daemon['start_timeout'], self.signals, self._say))
        self.readiness = side

    # In the process that does the work.

    def _work_and_judge(self, work: Callable[[], int]) -> tuple[int, list[str]]:
        """Do the work, which returns an exit status.

        :returns: the exit status, and the lines for the terminal, which are also logged.
        """
        try:
            status = work()
            return (status, [str(StoppedEarly())]) if status else (0, [])
        except (StopNow, StoppedEarly) as stop:
            LOGGER.warning('%s', stop)
            return stop.status, [str(stop)]
        except SystemExit as leaving:
            return _judge_exit(leaving)
        except Error as error:
            LOGGER.critical('%s', error)
            return error.status, str(error).splitlines()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # asyncio.CancelledError is no Exception
            LOGGER.critical('%s', error, exc_info=True)
            return 1, [program.explain_hidden(error) or in_one_line(error)]

    def _report(self) -> None:
        if self.status:
            self.readiness.failed(self.status, self.lines)

    def _work(self, held: ExitStack) -> int:
        if self.is_child:
            self._begin_process()
        if not self.foreground:
            self._become_daemon_user()
        if self.config.daemon['prevent_core']:
            daemonize.prevent_core()
        held.callback(logs.restore_output)
        self.configure_logging(self.config)
        is_supervised = supervisor.is_needed(self.config)
        statistics = self._make_statistics(is_supervised)
        self._serve_metrics(held, statistics)
        if is_supervised:
            return self._supervise(statistics)
        server = self._control_server(statistics)
        if server is not None:
            held.callback(server.call, server.close)
        context = self._make_context(statistics)
        return self._control(Notifier.from_environment(), context, server=server)

    def _serve_metrics(self, held: ExitStack, statistics: Statistics) -> None:
        """Start the process for ``Daemon.metrics``, before there are threads."""
        listening = self.metrics_listening
        if listening is None:
            return
        from socket import gethostname

        from clihelper.operations.server import MetricsServer

        pidfile = self.pidfile.path if self.pidfile is not None else None
        facts = {'name': self.appname, 'pidfile': pidfile, 'state': 'running', 'status': 0}
        host = self.config.daemon['metrics'].rpartition(':')[0]
        server = MetricsServer(
            self.appname, statistics, listening.sockets, (gethostname(), host), facts,
            lambda: self.configure_logging(self.config),
        )
        logs.reopen()  # appending from now on, as the other process will
        server.start()
        held.callback(server.end)
        listening.leave()

    def _supervise(self, statistics: Statistics) -> int:
        """Run several workers; each of them calls :meth:`_work_in`."""
        from clihelper.process import scoreboard
        from clihelper.process.in_hand import InHand
        from clihelper.supervisor.supervisor import Supervisor

        if self.pidfile is not None:
            self.pidfile.is_shared = True
        self._preload()
        _warn_of_threads()
        gc.freeze()  # what exists by now is shared by all of them, and must not be copied
        if self.collects:
            gc.enable()
        board = self._find_scoreboard(mapped=False) or scoreboard.Scoreboard.anonymous()
        board.in_hand = InHand.anonymous(statistics.slots)
        return Supervisor(
            appname=self.appname,
            config=self.config,
            signals=self.signals,
            notifier=Notifier.from_environment(),
            scoreboard=board,
            statistics=statistics,
            reread=self.read_configuration,
            configure_logging=self.configure_logging,
            report_ready=self.readiness.ready,
            ending=ForcedEnd(self),
            stop_listening=self._stop_listening,
            control=self._control_server(statistics),
            work=self._work_in,
        ).run()

    def _work_in(self, channel: WorkerChannel, config: Config) -> int:
        """Do the work in a worker's process, whose signals are blocked."""
        from clihelper.backoff import jittered

        if self.pidfile is not None:
            self.pidfile.is_shared = False  # what a worker forks is not a worker
        self.config = config
        self.readiness = daemonize.Attached(channel.explain)
        life: list[LifeCycle] = []

        def work() -> int:
            self._begin_process()
            channel.prepare(jittered(config.daemon['max_messages']))
            context = WorkerContext(
                channel.number, channel.slot, self._sockets(), self._names(),
                channel.statistics, supervised=True,
            )
            return self._control(channel, context, life, self._server_for(channel))

        status, lines = self._work_and_judge(work)
        if status:
            self.readiness.failed(status, lines)
        elif life and not life[0].was_told:
            channel.left()
        return status

    def _server_for(self, channel: WorkerChannel) -> ControlServer | None:
        """Return what serves the supervisor's requests in a worker."""
        if channel.control is None:
            return None
        from clihelper.operations.control import ControlServer
        from clihelper.supervisor.control import AT_A_TIME

        server = ControlServer()
        server.adopt(channel.control, AT_A_TIME)
        return server

    def _begin_process(self) -> None:
        """Set up the signals of a process that was just forked; a pending one may end it."""
        self.signals.install()
        _stop_early(self.signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        gc.disable()  # until the loop runs

    def _preload(self) -> None:
        """Import before the first fork what each worker needs, so that they share it."""
        from clihelper import loops

        loops.load(self.controller.loop_class).preload(self.config)

    def _find_scoreboard(self, *, mapped: bool) -> Scoreboard | None:
        from clihelper.process import scoreboard

        if not hasattr(self.controller, 'on_message') and not self.config.amqp['queues']:
            return None
        directory = self.config.daemon['state_directory']
        return scoreboard.find(directory, self.appname, mapped=mapped)

    def _make_statistics(self, is_supervised: bool) -> Statistics:
        """Make what this process and its workers write what they do into."""
        from clihelper.process.statistics import Statistics

        most = 1
        if is_supervised:
            from clihelper.process.scoreboard import SLOTS as most
        try:
            statistics = Statistics.make(most)
        except OSError:  # a limit of address space, or of files; see setrlimit(2)
            statistics = Statistics.make(2 * self.config.daemon['workers'] + 2)
        statistics.tell(
            program=self.appname,
            version=program.current.version,
            pid=os.getpid(),
            started=time.time(),
            config=self._path,
            config_read=time.time(),
            control=self.config.daemon['control'] if self.control is not None else None,
            workers=self.config.daemon['workers'],
        )
        if self.metrics_listening is not None:
            statistics.tell_configuration(self.config.shown())
        return statistics

    def _make_context(self, statistics: Statistics) -> WorkerContext:
        """Return the context of a single process, without a supervisor."""
        context = WorkerContext(
            listening=self._sockets(), names=self._names(), statistics=statistics.slot(0))
        has_state = self.config.daemon['state_directory'] is not None
        if has_state and (scoreboard := self._find_scoreboard(mapped=True)):
            context.slot = scoreboard.slot(0)
            context.slot.claim()
        return context

    def _sockets(self) -> Sequence[socket]:
        return self.listening.sockets if self.listening is not None else ()

    def _names(self) -> Sequence[str]:
        return self.listening.names if self.listening is not None else ()

    def _stop_listening(self) -> None:
        if self.listening is not None:
            self.listening.close()

    def _control(
        self,
        notifier: Notifier,
        context: WorkerContext,
        made: list[LifeCycle] | None = None,
        server: ControlServer | None = None,
    ) -> int:
        """Run the controller in this process.

        :param made: a list to which the life cycle is appended.
        :param server: serves requests to this process; None: there are none.
        """
        life = LifeCycle(
            appname=self.appname,
            config=self.config,
            signals=self.signals,
            notifier=notifier,
            reread=self.read_configuration,
            configure_logging=self.configure_logging,
            before_loop=self._collect_garbage,
            report_ready=self.readiness.ready,
            ending=ForcedEnd(self),
            context=context,
        )
        if made is not None:
            made.append(life)
        self.signals.take_over((CALL,))
        if server is not None:
            from clihelper.operations.agent import Agent

            Agent(server, life, context.worker, supervised=context.supervised).start()
        from clihelper import legacy  # --help, and --check, do without it

        return life.run(
            legacy.make_controller(self.controller, life, self.options, self.arguments))

    def _become_daemon_user(self) -> None:
        """Become the daemon's user, in its directory, with its pid in the pidfile."""
        daemon = self.config.daemon
        if not self.detaches:
            os.umask(daemon['umask'])
            os.chdir(daemon['working_directory'])
        if self.pidfile is not None:
            self.pidfile.write()
        self.identity.assume()

    def _say_who(self) -> None:
        user = self.config.daemon['user']
        if user is None:
            return
        from clihelper.process import privileges

        if privileges.resolve(user, None).uid != os.geteuid():
            self._say(f'with -f it runs as the current user, not as {user}')

    def _say(self, line: str) -> None:
        _say(None if line.startswith(f'{self._shown}:') else self.appname, line)

    def configure_logging(self, config: Config) -> None:
        """Set up logging from *config*, at the start and when a reload has changed it."""
        logs.configure(
            config.logging,
            foreground=self.foreground,
            detached=self.detaches,
            appname=self.appname,
            locate=config.locate,
            working_directory=config.daemon['logs_directory'],
        )
        self._redirect_output(config.daemon['redirect_output'])

    def _redirect_output(self, redirect: bool | dict[str, Any]) -> None:
        """Redirect printed output to the log, or restore it."""
        if self.foreground or redirect == self._redirect:
            return
        self._redirect = redirect
        if redirect:
            logs.redirect_output(**(redirect if isinstance(redirect, dict) else {}))
        else:
            logs.restore_output()

    def _collect_garbage(self) -> None:
        """Collect garbage from here on, except objects that exist already: they are permanent."""
        gc.freeze()
        if self.collects:
            gc.enable()


class ForcedEnd:
    """Ends the process if the main thread does not: see :class:`~.process.deadline.Deadline`."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def unblock(self) -> bool:
        """Discard output that nobody reads; return whether any was blocked."""
        return logs.unblock()

    def report(self, signum: int) -> None:
        """Report it in the log, and to the command that waits for the daemon."""
        stop = StopNow(signum)
        threads = ', '.join(
            thread.name for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        )
        LOGGER.critical(
            'still not stopped: ending at once with status %d%s',
            stop.status, f', in spite of these threads: {threads}' if threads else '',
        )
        self._run.readiness.failed(stop.status, [str(stop)])

    def end(self, signum: int) -> None:
        """Release the control socket and the pidfile, and end the process."""
        if self._run.control is not None:
            self._run.control.close()
        if self._run.pidfile is not None:
            self._run.pidfile.release()
        os._exit(128 + signum)


def _flush_output() -> None:
    """Write what is buffered while a deadline still holds: the interpreter would write it later.

    A write that nobody reads would then block the process for ever.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _stop_early(signals: Signals) -> None:
    """Make a stop end the program at once until its life cycle runs: no work is in progress."""

    def stop(signum: int, frame: FrameType | None) -> None:
        if signum not in (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT):
            return
        # The next signal must not interrupt what is released on the way out.
        signals.urgent = None
        raise StopNow(signum) if signum == signal.SIGQUIT else StoppedEarly

    signals.urgent = stop


def _warn_of_threads() -> None:
    """Log which threads the workers will not have; those of log listeners are begun anew there."""
    import threading

    from clihelper.logs.setup import running_listeners

    known = {threading.main_thread(), *running_listeners()}
    for thread in threading.enumerate():
        if thread not in known:
            LOGGER.warning('the thread %s is in the main process only: the workers, which are'
                           ' forked from it, do without', thread.name)


def _judge_exit(leaving: SystemExit) -> tuple[int, list[str]]:
    """Return the status and lines of a ``sys.exit``; with a message, the status is 1."""
    if leaving.code is None or isinstance(leaving.code, int):
        status = (leaving.code or 0) & 0xFF
        return status, [f'ended itself with status {status}'] if status else []
    LOGGER.critical('%s', leaving.code)
    return 1, str(leaving.code).splitlines()


def _say(appname: str | None, line: str) -> None:
    """Print one line for the user on the terminal. It is not an error if nobody reads it."""
    try:
        print(f'{appname}: {line}' if appname else line, file=sys.stderr, flush=True)
    except OSError:
        pass
