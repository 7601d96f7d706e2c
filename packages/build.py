"""Build the Debian packages in a clean chroot, and say what lintian says: ``make deb``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from packages.chroot import ROOT, Chroot

DEBS = ROOT / 'build/deb'


def build() -> list[Path]:
    """Build the packages of this source tree into ``build/deb``.

    :returns: the packages.
    """
    with Chroot('build') as chroot:
        chroot.copy_tree(ROOT, '/build/clihelper')
        prepare(chroot, '/build')
        chroot.apt('build-dep', '--no-install-recommends', '/build/clihelper')
        chroot.install('lintian')
        chroot.run('dpkg-buildpackage', '--build=binary', '--no-sign', user='builder',
                   cwd='/build/clihelper')
        results = sorted((chroot.path / 'build').glob('*_*'))
        shutil.rmtree(DEBS, ignore_errors=True)
        DEBS.mkdir(parents=True)
        for result in results:
            shutil.copy(result, DEBS)
        lint(chroot, next(f'/build/{each.name}' for each in results if each.suffix == '.changes'))
    return sorted(DEBS.glob('*.deb'))


def prepare(chroot: Chroot, folder: str) -> None:
    """Have a user who builds, to whom a folder belongs."""
    chroot.apt('update')
    chroot.run('useradd', '--create-home', 'builder')
    chroot.run('chown', '-R', 'builder:builder', folder)


def lint(chroot: Chroot, changes: str) -> None:
    """Ask lintian about packages; whatever it finds is an error."""
    chroot.run('lintian', '--info', '--display-info', changes, user='builder', silent=True)
    print('lintian finds nothing', flush=True)


def main() -> int:
    """Build, and list what was built."""
    for package in build():
        print(package.relative_to(ROOT))
    return 0


if __name__ == '__main__':
    sys.exit(main())
