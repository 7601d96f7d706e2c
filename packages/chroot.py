"""Chroots of a minimal Debian, without systemd: made with debootstrap, entered with unshare.

Everything is below ``build/chroots``. Nothing is mounted from outside: what a command mounts, and
what it leaves running, goes with its namespaces. The release is Debian 12, or what the
environment has as ``RELEASE``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
CHROOTS = ROOT / 'build/chroots'

SUITE = os.environ.get('RELEASE') or 'bookworm'
MIRROR = os.environ.get('DEBIAN_MIRROR', 'http://deb.debian.org/debian')

#: No service is started because its package is installed.
POLICY = '#!/bin/sh\nexit 101\n'

ENVIRONMENT = {
    'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/root',
    'LC_ALL': 'C.UTF-8',
    'DEBIAN_FRONTEND': 'noninteractive',
}


class System:
    """A Debian system in a folder.

    :param path: its root.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def copy(self, suite: str) -> None:
        """Have it be a fresh copy of a minimal Debian."""
        base = make_base(suite)
        self.remove()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(['cp', '-a', '--reflink=auto', base, self.path], check=True)

    def run(self, *command: str, user: str = 'root', cwd: str = '/',
            env: Mapping[str, str] | None = None, silent: bool = False) -> None:
        """Run a command, and end all that it leaves behind.

        :param silent: whether it is an error if it says anything.
        :raises SystemExit: it says something, and was to be silent.
        :raises subprocess.CalledProcessError: its status is not 0.
        """
        words = ['unshare', '--mount', '--pid', '--ipc', '--fork', '--kill-child',
                 f'--root={self.path}', f'--wd={cwd}', '--mount-proc']
        home = {}
        if user != 'root':
            home = {'HOME': f'/home/{user}'}
            words += ['setpriv', f'--reuid={user}', f'--regid={user}', '--init-groups']
        done = subprocess.run([*words, *command], check=True, stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE if silent else None,
                              stderr=subprocess.STDOUT if silent else None,
                              env={**ENVIRONMENT, **home, **(env or {})})
        if done.stdout:
            sys.exit(f'{" ".join(command)}: says\n{done.stdout}')

    def install(self, *packages: str, recommends: bool = False) -> None:
        """Install packages: by name, or by the path of a .deb within."""
        self.apt('install', *([] if recommends else ['--no-install-recommends']), *packages)

    def apt(self, *words: str) -> None:
        """Run apt-get."""
        archives = CHROOTS / 'archives'
        inside = self.path / 'var/cache/apt/archives'
        _link(archives.glob('*.deb'), inside)
        self.run('sh', '-ec', 'apt-get -qq -y -o Dpkg::Use-Pty=0 "$@" >/tmp/apt.log 2>&1'
                 ' || { cat /tmp/apt.log; exit 1; }', 'apt', *words)
        _link(inside.glob('*.deb'), archives)

    def copy_in(self, paths: Iterable[Path], folder: str) -> list[str]:
        """Copy files into a folder of the chroot; returns their paths there."""
        target = self.path / folder.lstrip('/')
        target.mkdir(parents=True, exist_ok=True)
        return [f'{folder}/{Path(shutil.copy2(path, target)).name}' for path in paths]

    def copy_tree(self, source: Path, folder: str) -> None:
        """Copy a source tree, without what is built from it."""
        target = self.path / folder.lstrip('/')
        for name in tracked(source):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)

    def remove(self) -> None:
        """Remove it, but nothing that is mounted in it."""
        subprocess.run(['rm', '-rf', '--one-file-system', self.path], check=True)


class Chroot(System):
    """A fresh chroot, from entering the ``with`` to leaving it.

    :param name: of its folder.
    """

    def __init__(self, name: str) -> None:
        super().__init__(CHROOTS / name)

    def __enter__(self) -> Self:
        self.copy(SUITE)
        return self

    def __exit__(self, *exception: object) -> None:
        if not os.environ.get('KEEP_CHROOTS'):
            self.remove()


def tracked(source: Path) -> list[str]:
    """The files of a source tree: what git knows or would, or all that is no build's output."""
    if (source / '.git').exists():
        command = ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        listed = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
        return sorted(name for name in listed.stdout.split('\0')
                      if name and (source / name).exists())
    left_out = {'.venv', 'build', 'dist', '__pycache__'}
    return sorted(
        str(path.relative_to(source)) for path in source.rglob('*')
        if path.is_file() and left_out.isdisjoint(path.relative_to(source).parts))


def fetched(source: Path) -> list[str]:
    """The files that make has fetched for the tests, so that another system need not."""
    return [str(path.relative_to(source)) for path in (source / 'build').glob('axe-core-*.js')]


def make_base(suite: str) -> Path:
    """The chroot that all others of a release are copies of; made where it is not there yet."""
    base = CHROOTS / f'base-{suite}'
    if base.exists():
        return base
    if os.geteuid() != 0:
        sys.exit('a chroot takes root: run it as root')
    print(f'making a minimal Debian {suite}', flush=True)
    unfinished = base.with_suffix('.unfinished')
    subprocess.run(['rm', '-rf', '--one-file-system', unfinished], check=True)
    (CHROOTS / 'archives').mkdir(parents=True, exist_ok=True)
    subprocess.run(['debootstrap', '--variant=minbase', suite, unfinished, MIRROR],
                   check=True, stdout=subprocess.DEVNULL)
    policy = unfinished / 'usr/sbin/policy-rc.d'
    policy.write_text(POLICY)
    policy.chmod(0o755)
    (unfinished / 'etc/apt/apt.conf.d/90host').write_text(_acquire_options())
    (unfinished / 'etc/hosts').write_text('127.0.0.1 localhost\n')
    unfinished.rename(base)
    return base


def _acquire_options() -> str:
    """How apt reaches its mirrors here: proxies and the like."""
    dump = subprocess.run(['apt-config', 'dump', 'Acquire'], check=True, capture_output=True,
                          text=True).stdout
    wanted = ('Acquire::http', 'Acquire::https', 'Acquire::Check-', 'Acquire::Retries')
    return ''.join(f'{line}\n' for line in dump.splitlines()
                   if line.startswith(wanted) and not line.endswith(' "";'))


def _link(paths: Iterable[Path], folder: Path) -> None:
    for path in paths:
        if not (folder / path.name).exists():
            os.link(path, folder / path.name)
