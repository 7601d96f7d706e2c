"""Try the Debian packages as an administrator would: ``make deb-check``.

Everything happens in fresh chroots of a minimal Debian 12 without systemd, but for the last word
on the units, which systemd itself has. Any failure ends it with a status other than 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from packages import build, container
from packages.booted import Booted
from packages.chroot import CHROOTS, ENVIRONMENT, MIRROR, ROOT, SUITE, Chroot, fetched

LOOPS = ('interval', 'ioloop', 'consumer')

#: The line of its log that tells that a program is at work.
WORKING = {
    'clihelper-example': 'order [0-9]* shipped',
    'my-interval': 'hello, world',
    'my-ioloop': 'listening at',
    'my-consumer': 'consuming my-consumer',
}

PROGRAMS = CHROOTS.parent / 'programs'


def debs(*names: str) -> list[Path]:
    """The packages that were built, by name."""
    return [next(iter([*build.DEBS.glob(f'{name}_*.deb'), *PROGRAMS.glob(f'{name}_*.deb')]))
            for name in names]


def check_example() -> None:
    """The example's service, from its installation to its purge."""
    with Chroot('example') as chroot:
        chroot.apt('update')
        check_service(chroot, 'clihelper-example', 'example')


def check_rotation() -> None:
    """The example's log, rotated while it writes: no line is lost."""
    with Chroot('rotation') as chroot:
        chroot.apt('update')
        install(chroot, 'clihelper-example')
        run_script(chroot, 'check-rotation.sh')


def check_broker() -> None:
    """The example, as it consumes from RabbitMQ what others publish."""
    from tests.broker import Broker

    with Chroot('broker') as chroot, Broker() as broker:
        chroot.apt('update')
        install(chroot, 'clihelper-example')
        run_script(chroot, 'check-broker.sh', broker.url())


def check_new() -> None:
    """What ``clihelper new`` writes: it builds, lintian finds nothing, and it is a service."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with Chroot('new') as chroot:
        (chroot.path / 'build').mkdir()
        build.prepare(chroot, '/build')
        chroot.install(*chroot.copy_in(debs('python3-clihelper'), '/debs'), 'python3-amqp',
                       'python3-kombu', 'python3-tornado', 'lintian')
        for loop in LOOPS:
            name = f'my-{loop}'
            chroot.run('clihelper', 'new', name, '--loop', loop, user='builder', cwd='/build',
                       env={'DEBFULLNAME': 'Jo Doe', 'DEBEMAIL': 'jo.doe@debian.org'})
            chroot.apt('build-dep', '--no-install-recommends', f'/build/{name}')
            chroot.run('make', 'deb', user='builder', cwd=f'/build/{name}')
            subprocess.run(['cp', *(chroot.path / f'build/{name}/build').glob('*.deb'), PROGRAMS],
                           check=True)
    for loop in LOOPS:
        with Chroot(f'my-{loop}') as chroot:
            chroot.apt('update')
            check_service(chroot, f'my-{loop}', f'my-{loop}')


def check_make() -> None:
    """The Makefile of what ``clihelper new`` writes, with pip told where clihelper is."""
    wheels = CHROOTS.parent / 'wheels'
    pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps']
    subprocess.run([*pip, '--wheel-dir', wheels, ROOT], check=True)
    links = ' '.join(filter(None, [str(wheels), os.environ.get('PIP_FIND_LINKS')]))
    folder = CHROOTS / 'make'
    subprocess.run(['rm', '-rf', folder], check=True)
    folder.mkdir(parents=True)
    for loop in LOOPS:
        command = [sys.executable, ROOT / 'bin/clihelper', 'new', 'hello', '--loop', loop]
        subprocess.run(command, cwd=folder, check=True,
                       env={**os.environ, 'PYTHONPATH': str(ROOT)})
        subprocess.run(['make', 'test', 'lint'], cwd=folder / 'hello', check=True,
                       env={**os.environ, 'PIP_FIND_LINKS': links})
        subprocess.run(['rm', '-rf', folder / 'hello'], check=True)


def check_units() -> None:
    """What systemd says of the units."""
    with Chroot('systemd') as chroot:
        chroot.apt('update')
        chroot.install('systemd', 'man-db')
        for name in WORKING:
            install(chroot, name)
        for name in WORKING:
            for unit in (chroot.path / 'lib/systemd/system').glob(f'{name}.*'):
                chroot.run('systemd-analyze', 'verify', f'/lib/systemd/system/{unit.name}',
                           silent=True)
            chroot.run('systemd-analyze', 'security', '--offline=true', '--threshold=15',
                       '--no-pager', f'/lib/systemd/system/{name}.service')


def check_systemd() -> None:
    """The example's unit, run by systemd as process 1."""
    with Chroot('systemd') as chroot:
        chroot.apt('update')
        chroot.install('systemd', 'dbus')
        install(chroot, 'clihelper-example')
        chroot.copy_in([ROOT / 'packages/check-systemd.sh'], '/usr/local/bin')
        with Booted(chroot) as booted:
            if booted.run('/usr/local/bin/check-systemd.sh'):
                sys.exit('the unit is not as it should be')


def check_socket() -> None:
    """The socket of what ``clihelper new --loop ioloop`` writes, held by systemd as process 1."""
    with Chroot('socket') as chroot:
        chroot.apt('update')
        chroot.install('systemd', 'dbus')
        install(chroot, 'my-ioloop')
        chroot.copy_in([ROOT / 'packages/check-socket.sh'], '/usr/local/bin')
        with Booted(chroot) as booted:
            if booted.run('/usr/local/bin/check-socket.sh'):
                sys.exit('the socket does not outlive the service')


def check_piuparts() -> None:
    """Installing, upgrading, removing and purging leave nothing behind."""
    base = CHROOTS / 'base.tar.gz'
    with Chroot('piuparts') as chroot:
        # Else systemd itself would be installed for its sysusers, and leaves folders behind.
        chroot.apt('update')
        chroot.install('systemd-standalone-sysusers')
        chroot.apt('clean')
        subprocess.run(['tar', '-C', chroot.path, '--exclude=./usr/sbin/policy-rc.d',
                        '-I', 'gzip -1', '-cf', base, '.'], check=True)
    piuparts = ['piuparts', '--basetgz', base, '--distribution', SUITE, '--mirror',
                f'{MIRROR} main', '--no-eatmydata']
    packages = debs('python3-clihelper', *WORKING, 'python-clihelper-doc')
    log = CHROOTS / 'piuparts.log'
    log.unlink(missing_ok=True)
    done = subprocess.run([*piuparts, '--log-file', log, *packages], stdout=subprocess.DEVNULL)
    text = log.read_text()
    print(*[line for line in text.splitlines() if 'ERROR' in line or 'PASS' in line], sep='\n')
    if done.returncode:
        sys.exit('piuparts does not pass: ' + str(log))


def check_suite() -> None:
    """The whole suite, with the versions of Debian's packages."""
    with Chroot('suite') as chroot:
        chroot.apt('update')
        chroot.copy_tree(ROOT, '/srv/clihelper')
        chroot.copy_in([ROOT / name for name in fetched(ROOT)], '/srv/clihelper/build')
        chroot.install(
            'acl', 'chromium', 'faketime', 'furo', 'gcc', 'git', 'libc6-dev', 'libfaketime',
            'make', 'procps', 'logrotate', 'python3-aiosqlite', 'python3-amqp',
            'python3-daemon', 'python3-dev', 'python3-kombu', 'python3-logutils',
            'python3-pytest', 'python3-sphinx', 'python3-sphinx-copybutton',
            'python3-sqlalchemy', 'python3-tornado', 'python3-uvloop', 'python3-watchdog',
            'python3-yaml',
            'rabbitmq-server', 'systemd',
            *chroot.copy_in(debs('python3-clihelper'), '/debs'))
        # Not in a process namespace, so that what detaches is somebody's to reap.
        subprocess.run(['unshare', '--mount', 'sh', ROOT / 'packages/boot.sh', chroot.path,
                        'sh', '-ec', 'cd /srv/clihelper; exec python3 -m pytest -q'],
                       check=True, stdin=subprocess.DEVNULL,
                       env={**ENVIRONMENT, 'PYTHONPATH': '/srv/clihelper'})


def install(chroot: Chroot, name: str) -> None:
    """Install a service, and the library; without systemd where that is not there."""
    sysusers = [] if (chroot.path / 'lib/systemd/systemd').exists() else [
        'systemd-standalone-sysusers']
    packages = chroot.copy_in(debs('python3-clihelper', name), '/debs')
    chroot.install('logrotate', *sysusers, *packages)


def check_service(chroot: Chroot, name: str, appname: str) -> None:
    """Run ``check-service.sh``: see there."""
    tests = chroot.path / 'usr/local/bin/check-installed'
    tests.write_text(service_tests(name, appname))
    tests.chmod(0o755)
    packages = chroot.copy_in(debs('python3-clihelper', name), '/debs')
    run_script(chroot, 'check-service.sh', name, appname, '/usr/local/bin/check-installed',
               WORKING[name], *packages)


def service_tests(name: str, appname: str) -> str:
    """The ``debian/tests/service`` of a program."""
    from clihelper.commands import templates

    facts = templates.service_facts(name, appname=appname, description='It')
    return templates.render('service', facts)['debian/tests/service'].text


def run_script(chroot: Chroot, script: str, *words: str) -> None:
    """Run one of the scripts beside this file in a chroot."""
    chroot.copy_in([ROOT / 'packages' / script], '/usr/local/bin')
    chroot.run(f'/usr/local/bin/{script}', *words)


CHECKS: dict[str, Callable[[], None]] = {
    'example': check_example,
    'rotation': check_rotation,
    'broker': check_broker,
    'new': check_new,
    'make': check_make,
    'container': container.check,
    'units': check_units,
    'systemd': check_systemd,
    'socket': check_socket,
    'piuparts': check_piuparts,
    'suite': check_suite,
}


def main() -> int:
    """Run the checks that are named, or all of them."""
    if not list(build.DEBS.glob('*.deb')):
        build.build()
    for name in sys.argv[1:] or CHECKS:
        print(f'== {name}: {CHECKS[name].__doc__}', flush=True)
        CHECKS[name]()
    print('All is well.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
