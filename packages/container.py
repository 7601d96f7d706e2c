"""A Containerfile without a container engine: carried out in a chroot, and run as process 1 there.

It is what an engine does, as far as the program can tell: namespaces of its own, a read-only root
file system, an ordinary user without capabilities. What is not tried is the engine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from packages.chroot import ENVIRONMENT, ROOT, Chroot

CONTAINERFILE = ROOT / 'containers/Containerfile'

PATIENCE = 30.0
"""seconds for whatever is waited for"""


class Image:
    """What a Containerfile makes.

    :ivar environment: of the program.
    :ivar user: its numbers, ``uid:gid``.
    :ivar entrypoint: its command.
    :ivar healthcheck: the command that asks for its health.
    """

    def __init__(self, text: str) -> None:
        joined = re.sub(r'\\\n\s*', '', text)
        self.instructions = [
            (word, rest) for word, _, rest in (line.partition(' ') for line in joined.splitlines())
            if word.isupper()]
        self.environment: dict[str, str] = {}
        for word, rest in self.instructions:
            if word == 'ENV':
                name, _, value = rest.partition('=')
                self.environment[name] = value
        last = dict(self.instructions)
        self.user = last['USER']
        self.entrypoint: list[str] = json.loads(last['ENTRYPOINT'])
        self.healthcheck: list[str] = json.loads(last['HEALTHCHECK'].removeprefix('CMD '))

    def build(self, chroot: Chroot) -> None:
        """Carry the instructions out."""
        for word, rest in self.instructions:
            if word == 'COPY':
                *sources, target = rest.split()
                copy(sources, chroot.path / target.lstrip('/'), target.endswith('/'))
            elif word == 'RUN':
                chroot.run('sh', '-ec', f'({rest}) >/tmp/run.log 2>&1 || {{ cat /tmp/run.log; '
                           'exit 1; }')


def copy(sources: list[str], target: Path, is_folder: bool) -> None:
    """``COPY`` of files of the source tree."""
    (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
    for source in sources:
        for path in ROOT.glob(source):
            shutil.copyfile(path, target / path.name if is_folder else target)


class Container:
    """A program of an image that runs as process 1, from entering the ``with`` to leaving it."""

    def __init__(self, image: Image, chroot: Chroot) -> None:
        self.image = image
        self.root = chroot.path
        self.pid = 0

    def __enter__(self) -> Container:
        root = self.root
        script = (f'mount --bind {root} {root}; mount -t proc proc {root}/proc; '
                  f'mount -t tmpfs -o mode=1777,size=1m tmpfs '
                  f'{root}{self.image.environment["RUNTIME_DIRECTORY"]}; '
                  f'mount -o remount,bind,ro {root}; exec chroot {root} "$@"')
        self.process = subprocess.Popen(
            ['unshare', '--mount', '--pid', '--ipc', '--uts', '--fork', '--kill-child',
             'sh', '-ec', script, 'sh', *self._as_user(), *self.image.entrypoint],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            env={**ENVIRONMENT, **self.image.environment})
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
        self.wait(lambda: children.read_text().split())
        self.pid = int(children.read_text())
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, *command: str) -> int:
        """Run a command in the container, as its user; returns its status."""
        enter = ['nsenter', f'--target={self.pid}', '--mount', '--pid', '--root', '--wd=/']
        return subprocess.run([*enter, *self._as_user(), *command],
                              env={**ENVIRONMENT, **self.image.environment}).returncode

    def lines(self, count: int) -> list[dict[str, object]]:
        """The next lines of its standard output, each of them a JSON object."""
        assert self.process.stdout
        return [json.loads(self.process.stdout.readline()) for _ in range(count)]

    def wait(self, happened: object) -> None:
        """Wait until something has happened, which is asked now and then."""
        assert callable(happened)
        end = time.monotonic() + PATIENCE
        while not happened():
            if time.monotonic() > end:
                sys.exit('the container does not do what is waited for')
            time.sleep(0.05)

    def _as_user(self) -> list[str]:
        uid, _, gid = self.image.user.partition(':')
        return ['setpriv', f'--reuid={uid}', f'--regid={gid}', '--clear-groups', '--no-new-privs',
                '--bounding-set=-all', '--inh-caps=-all']


def check() -> None:
    """The Containerfile's program: who it is, what it writes, its probe, its reload, its end."""
    image = Image(CONTAINERFILE.read_text())
    with Chroot('container') as chroot:
        image.build(chroot)
        with Container(image, chroot) as container:
            container.wait(lambda: container.run(*image.healthcheck) == 0)
            status = Path(f'/proc/{container.pid}/status').read_text()
            uid = image.user.partition(':')[0]
            assert re.search(rf'^Uid:\t{uid}\t{uid}\t', status, re.MULTILINE), status
            assert re.search(r'^NSpid:\t\d+\t1$', status, re.MULTILINE), status
            assert re.search(r'^CapBnd:\t0+$', status, re.MULTILINE), status
            assert container.run('touch', '/etc/x', '/var/x') != 0, 'the root is not read-only'
            messages = [str(line['message']) for line in container.lines(6)]
            assert any('shipped' in message for message in messages), messages
            os.kill(container.pid, signal.SIGHUP)
            while 'SIGHUP' not in str(container.lines(1)[0]['message']):
                pass
            os.kill(container.pid, signal.SIGTERM)
            assert container.process.wait(PATIENCE) == 0, container.process.returncode
    print('ok: as process 1, without root, on a read-only root: JSON lines, probe, HUP, TERM')
