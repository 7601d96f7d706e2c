"""The project's own commands on another release of Debian: ``make test-on``.

The release is a root below ``build/roots``, made with debootstrap once and kept. A copy of the
checkout, with a virtual environment of its own, is below ``build/checkouts``. Commands run as
root in a mount namespace; network, users' numbers and processes are this machine's.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packages.chroot import ENVIRONMENT, ROOT, System, fetched, tracked

ROOTS = Path(os.environ.get('ROOTS') or ROOT / 'build/roots')
CHECKOUTS = ROOT / 'build/checkouts'
FOLDER = '/srv/clihelper'

#: What a machine has before ``make test``, and what that would install there.
PREREQUISITES = (
    'ca-certificates', 'curl', 'libfaketime', 'logrotate', 'make', 'openssl',
    'postgresql', 'prometheus', 'python3', 'python3-venv', 'rabbitmq-server', 'systemd')

#: What clihelper and its tests need, as the release has it.
LIBRARIES = (
    'furo', 'python3-aiosqlite', 'python3-amqp', 'python3-daemon', 'python3-greenlet',
    'python3-kombu', 'python3-logutils', 'python3-prometheus-client', 'python3-psycopg',
    'python3-psycopg2', 'python3-pytest', 'python3-pytest-xdist', 'python3-setuptools',
    'python3-sphinx', 'python3-sphinx-copybutton', 'python3-sqlalchemy', 'python3-tornado',
    'python3-uvloop', 'python3-watchdog', 'python3-yaml')

#: What a release has to have besides: setuptools of Debian 12 makes no wheels of its own, and
#: sid has another Python.
BESIDES = {'bookworm': ('python3-wheel',), 'sid': ('python3.15', 'python3.15-venv')}

#: A virtual environment of the release's own packages: nothing is fetched. What they require of
#: each other is apt's to know; the metadata for pip has more of it.
OWN_PACKAGES = {
    'VENV_OPTIONS': '--system-site-packages',
    'PIP_NO_INDEX': '1',
    'PIP_NO_DEPS': '1',
    'PIP_NO_BUILD_ISOLATION': '0',  # the odd way to say yes: pypa/pip, issue 5735
}

#: Variables of make that are handed on.
HANDED_ON = ('ARGS', 'PROCESSES', 'PYTHON')


def make_root(release: str) -> Path:
    """The root of a release; it is made where it is not there yet.

    It is there whole or not at all, and made by one process at a time.
    """
    root = ROOTS / release
    wanted = ' '.join([*PREREQUISITES, *LIBRARIES, *BESIDES.get(release, ())])
    with locked(ROOTS / f'{release}.lock'):
        stamp = root / 'etc/installed'
        if stamp.exists() and stamp.read_text() == wanted:
            return root
        unfinished = System(ROOTS / f'{release}.unfinished')
        unfinished.copy(release)
        print(f'installing in {root}', flush=True)
        unfinished.apt('update')
        unfinished.install(*wanted.split())
        (unfinished.path / 'etc/installed').write_text(wanted)
        System(root).remove()
        unfinished.path.rename(root)
    return root


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file; say so where another process does, and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'waiting for {path}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def copy_checkout(name: str) -> Path:
    """A copy of the checkout as it is now; what was built in an earlier one stays."""
    target = CHECKOUTS / name
    target.mkdir(parents=True, exist_ok=True)
    for entry in target.iterdir():
        if entry.name in {'.venv', 'build'}:
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for name in [*tracked(ROOT), *fetched(ROOT)]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def pip_files() -> dict[str, str]:
    """pip as it is configured here: its files, and the paths that these and its variables name.

    :returns: the path of each, and its path for root.
    """
    home = os.path.expanduser('~')
    files = {path: path for path in ('/etc/xdg/pip/pip.conf', '/etc/pip.conf')}
    files |= {f'{home}/{name}': f'/root/{name}' for name in ('.pip/pip.conf',
                                                             '.config/pip/pip.conf')}
    found = {path: within for path, within in files.items() if os.path.exists(path)}
    text = '\n'.join([*(Path(path).read_text() for path in found), *pip_variables().values()])
    named = []
    for scheme, path in re.findall(r'(?:(?<=[\s=])|^|(file://))(/[^\s#]+)', text, re.MULTILINE):
        # What an index links to is beside it.
        named.append(os.path.dirname(path.rstrip('/')) if scheme else path)
    return found | {path: path for path in named if path != '/' and os.path.exists(path)}


def pip_variables() -> dict[str, str]:
    """What configures pip in the environment, and how it reaches its index."""
    proxies = {'http_proxy', 'https_proxy', 'no_proxy'}
    return {name: value for name, value in os.environ.items()
            if name.startswith('PIP_') or name.lower() in proxies}


def run(root: Path, command: list[str], binds: dict[str, str], env: dict[str, str]) -> int:
    """Run a command in a root.

    Not in a process namespace: what detaches is then somebody's to reap.

    :param binds: paths of this machine, and where they are in the root.
    :returns: its status.
    """
    words = [word for source, target in binds.items() for word in ('--bind', source, target)]
    return subprocess.run(
        ['unshare', '--mount', 'sh', ROOT / 'packages/boot.sh', root, *words, *command],
        env={**ENVIRONMENT, **env}, stdin=subprocess.DEVNULL).returncode


def main() -> int:
    """Run a target of the Makefile on a release."""
    parser = argparse.ArgumentParser(prog='python3 -m packages.release')
    parser.add_argument('release', help='as debootstrap knows it: trixie, sid')
    parser.add_argument('target', nargs='?', default='test', help='of the Makefile')
    parser.add_argument('--packages', choices=['pypi', 'debian'], default='pypi',
                        help="from where the libraries are: PyPI, or the release's own")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit('another release takes root: run it as root')
    root = make_root(options.release)
    python = os.environ.get('PYTHON') or 'python3'
    name = f'{options.release}-{options.packages}-{python}'
    with locked(CHECKOUTS / f'{name}.lock'):
        return run_target(root, name, options)


def run_target(root: Path, name: str, options: argparse.Namespace) -> int:
    """Run what the command line says in a copy of the checkout.

    :param name: of the copy, which nobody else uses meanwhile.
    :returns: its status.
    """
    checkout = copy_checkout(name)
    given = [f'{name}={os.environ[name]}' for name in HANDED_ON if os.environ.get(name)]
    own = OWN_PACKAGES if options.packages == 'debian' else {}
    env = {**pip_variables(), **own}
    if 'CI' in os.environ:
        env['CI'] = os.environ['CI']
    return run(root, ['make', '-C', FOLDER, options.target, *given],
               {str(checkout): FOLDER, **pip_files()}, env)


if __name__ == '__main__':
    sys.exit(main())
