"""systemd itself in a chroot, as process 1 of namespaces of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from packages.chroot import ENVIRONMENT, ROOT, Chroot

TARGET = """\
[Unit]
Description=What a service needs here
DefaultDependencies=no
Wants=systemd-journald.service dbus.service
"""

SYSTEMD = ('/lib/systemd/systemd', '--system', '--unit=check.target', '--log-target=journal',
           '--show-status=no')

PATIENCE = 30.0
"""seconds that booting may take"""


class Booted:
    """A chroot whose systemd runs, from entering the ``with`` to leaving it."""

    def __init__(self, chroot: Chroot) -> None:
        self.root = chroot.path
        hierarchy = Path('/sys/fs/cgroup')
        if not (hierarchy / 'cgroup.controllers').exists():
            # As packages/boot.sh chooses.
            hierarchy /= 'unified' if (hierarchy / 'unified').exists() else 'systemd'
        self.group = hierarchy / f'clihelper-check-{os.getpid()}'

    def __enter__(self) -> Booted:
        (self.root / 'etc/systemd/system/check.target').write_text(TARGET)
        self.group.mkdir()
        enter = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
        self.process = subprocess.Popen(
            ['sh', '-ec', enter, 'sh', self.group, 'unshare', '--mount', '--pid', '--ipc', '--uts',
             '--cgroup', '--fork', '--kill-child', 'sh', ROOT / 'packages/boot.sh', self.root,
             *SYSTEMD],
            stdin=subprocess.DEVNULL, env={**ENVIRONMENT, 'container': 'check'})
        end = time.monotonic() + PATIENCE
        while self.run('systemctl', 'is-active', '--quiet', 'check.target', 'dbus.service'):
            if time.monotonic() > end:
                sys.exit('systemd does not boot here')
            time.sleep(0.1)
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                # Its processes end with their namespace, but not at once.
                for folder, _, _ in os.walk(self.group, topdown=False):
                    os.rmdir(folder)
                return
            except OSError:
                time.sleep(0.05)

    def run(self, *command: str) -> int:
        """Run a command beside systemd; returns its status."""
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children').read_text()
        if not children:
            return -1
        enter = ['nsenter', f'--target={children.split()[0]}', '--mount', '--pid', '--ipc',
                 '--uts', '--cgroup', 'env', '--chdir=/']
        return subprocess.run([*enter, *command], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
                              stderr=None if command[0] != 'systemctl' else subprocess.DEVNULL,
                              ).returncode
