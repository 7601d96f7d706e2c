"""``clihelper new``: generate a starter project, with its tests and its packaging."""

from __future__ import annotations

import os
import re
import sys

from clihelper.commands import arguments
from clihelper.errors import Error, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from clihelper.commands.templates import File

USAGE = """\
usage: clihelper new NAME [--loop interval|ioloop|consumer]

Write a program into the new folder NAME: a package, its configuration with every key explained,
tests, a README, a Makefile, a service for systemd and sysvinit, a Debian package, and alerts and a
dashboard for Prometheus and Grafana.

  NAME              the name of the program, its package and its service: 2 to 31 lower-case
                    letters, digits and single dashes, beginning with a letter
  --loop LOOP       what it waits for: an interval (interval, the default), events on Tornado's
                    IOLoop (ioloop), or messages from a broker (consumer)

The maintainer is taken from DEBFULLNAME and DEBEMAIL."""

LONGEST = 31
"""The most characters of a name: the service's user is named by an underscore and the name."""

RESERVED = {'amqp', 'build', 'clihelper', 'daemon', 'debian', 'dist', 'kombu', 'logutils',
            'pytest', 'tests', 'tornado', 'yaml'}
"""Packages and folders that a program would hide, besides the modules of Python."""


class Loop:
    """What a program with one kind of loop consists of.

    :ivar description: what the program does, in words.
    :ivar depends: the Debian packages that it needs besides clihelper.
    :ivar has_socket: whether systemd listens for it.
    """

    def __init__(self, description: str, *depends: str, has_socket: bool = False) -> None:
        self.description = description
        self.depends = depends
        self.has_socket = has_socket


LOOPS = {
    'interval': Loop('Says hello every minute'),
    'ioloop': Loop('Says hello over HTTP', 'python3-tornado', has_socket=True),
    'consumer': Loop('Says hello to whoever a message names', 'python3-amqp', 'python3-kombu'),
}


def main(argv: Sequence[str]) -> int:
    """Write the files of a new program, and return the exit status."""
    if '-h' in argv or '--help' in argv:
        print(USAGE)
        return 0
    asked = arguments.parse(argv, command='new', values={'--loop': 'loop'}, flags=(),
                        max_names=1)
    if not asked.names:
        raise UsageError('new: expected a NAME (see clihelper new --help)')
    name, loop = asked.names[0], asked.values.get('loop', 'interval')
    if loop not in LOOPS:
        raise UsageError(f'new: --loop: expected {", ".join(LOOPS)}, got {loop!r}')
    check_name(name)
    files = project(name, loop)
    write(name, files)
    print(f'{name}: {len(files)} files; cd {name} && make run')
    return 0


def check_name(name: str) -> None:
    """Check that a program can have that name.

    :raises UsageError: it cannot.
    """
    import keyword

    module = name.replace('-', '_')
    if not re.fullmatch('[a-z][a-z0-9]*(-[a-z0-9]+)*', name) or not 2 <= len(name) <= LONGEST:
        fault = (f'a name consists of 2 to {LONGEST} lower-case letters, digits and single'
                 ' dashes, and begins with a letter')
    elif keyword.iskeyword(module) or keyword.issoftkeyword(module):
        fault = 'a name must not be a keyword of Python'
    elif module in sys.stdlib_module_names:
        fault = f'Python has a module {module} of its own'
    elif module in RESERVED:
        fault = 'that name is taken'
    else:
        return
    raise UsageError(f'new: {name!r}: {fault}')


def project(name: str, loop: str) -> dict[str, File]:
    """Return the files of a new program, by their path."""
    from clihelper.commands.templates import File, render

    facts = _facts(name, loop)
    parts = render(loop, facts)
    return {
        **render('project', facts),
        **render('service', facts),
        f'{facts["module"]}/controller.py': parts.pop('controller.py'),
        f'tests/test_{facts["module"]}.py': parts.pop('test.py'),
        **parts,
        f'{name}.yml': File(configuration(name, name, sections(name, loop))),
    }


def sections(name: str, loop: str) -> dict[str, dict[str, Any]]:
    """Return the values that the configuration of a new program sets."""
    own = {'greeting': 'hello'}
    if loop == 'interval':
        return {'Application': own}
    if loop == 'ioloop':
        return {'Daemon': {'listen': '127.0.0.1:8888'}, 'Application': own}
    # memory:// needs no broker. No messages arrive until it is replaced.
    return {'Application': own, 'AMQP': {'url': 'memory://', 'queues': {name: {}}}}


def configuration(name: str, appname: str, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the configuration of a program, with every key explained.

    :param name: the name of its service.
    :param appname: the name that the program uses for itself.
    :param sections: the values that are not left at their default.
    """
    from clihelper.commands import config_template, templates

    log = templates.fill(LOGGING, {'appname': appname, 'name': name})
    return config_template.render(
        f'The configuration of {name}. Keys that are commented out have their defaults.'
        ' A value can be !env VARIABLE or !file PATH. To check the file:\n'
        f'{name} -c {name}.yml --check',
        {'Daemon': {}, **sections, 'Logging': log})


def write(folder: str, files: Mapping[str, File]) -> None:
    """Write files into a new folder.

    :raises Error: the folder already exists, or cannot be written; in that case it is removed.
    """
    try:
        os.mkdir(folder)
    except FileExistsError:
        raise Error(f'new: {folder}: already exists, and is left alone') from None
    except OSError as error:
        raise Error(f'new: {folder}: {error.strerror}') from None
    try:
        for path, file in files.items():
            whole = os.path.join(folder, path)
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            with open(whole, 'x', encoding='utf-8') as stream:
                stream.write(file.text)
                if file.executable:
                    mode = os.fstat(stream.fileno()).st_mode
                    os.fchmod(stream.fileno(), mode | (mode & 0o444) >> 2)
    except OSError as error:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
        raise Error(f'new: {folder}: {error.strerror}') from None


LOGGING = """\
formatters:
  file: {format: '%(asctime)s %(levelname)s %(name)s: %(message)s'}
handlers:
  # Shows colours in a terminal, levels in systemd's journal; shows nothing after detaching.
  console: {class: clihelper.logs.ConsoleHandler}
  # The name is relative to Daemon.logs_directory: /var/log/@name@ for a service.
  file: {class: logging.FileHandler, filename: @appname@.log, formatter: file}
root: {level: INFO, handlers: [console, file]}
"""


def _facts(name: str, loop: str) -> dict[str, str]:
    """Return the facts that the templates of a program are filled with."""
    import time
    from email.utils import formatdate

    from clihelper.commands import templates

    description = LOOPS[loop].description
    depends = ''.join(f'\n {package},' for package in LOOPS[loop].depends)
    return {
        **templates.service_facts(name, appname=name, description=description),
        'class': ''.join(part.capitalize() for part in name.split('-')),
        'title': f'{name}\n{"=" * len(name)}',
        'synopsis': description[0].lower() + description[1:],
        'depends': depends,
        'build_depends': ''.join(f'\n {package} <!nocheck>,' for package in LOOPS[loop].depends),
        'installsystemd': '\n\t'.join(_installsystemd(name, LOOPS[loop].has_socket)),
        'maintainer': _maintainer(),
        'year': time.strftime('%Y'),
        'date': formatdate(localtime=True),
    }


def _installsystemd(name: str, has_socket: bool) -> list[str]:
    """Return the commands that install the units: an upgrade does not close the socket."""
    command = f'dh_installsystemd --name={name}'
    if not has_socket:
        return [command]
    return [f'{command} --no-stop-on-upgrade {name}.socket', f'{command} {name}.service']


def _maintainer() -> str:
    """Return the maintainer of the package, from the same variables as Debian's tools."""
    import pwd
    import socket

    account = pwd.getpwuid(os.geteuid())
    name = os.environ.get('DEBFULLNAME') or account.pw_gecos.partition(',')[0] or account.pw_name
    email = (os.environ.get('DEBEMAIL') or os.environ.get('EMAIL')
             or f'{account.pw_name}@{socket.getfqdn()}')
    return f'{name} <{email}>'
