"""The init script that clihelper new writes, as root runs it where there is no systemd.

The program is installed into overlays of the file system, in a mount namespace of the test's own.
Whole packages, other init systems and upgrades are for ``make deb-check``.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clihelper.commands import new

ROOT = Path(__file__).resolve().parent.parent

NAME = 'my-service'

#: What the program needs of this environment, which an ordinary user may not be able to read.
LIBRARIES = ['yaml', '_yaml', 'daemon', 'logutils', 'lockfile']

ENTER = """\
set -e
for folder in etc usr/bin usr/local var run; do
    mkdir -p "$1/$folder/upper" "$1/$folder/work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work" \\
        overlay "/$folder"
done
cp -R "$2/." /
chmod -R go+rX /usr/local/lib/check /etc/my-service.yml
echo '_my-service:x:64901:64901::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
echo '_my-service:x:64901:' >>/etc/group
shift 2
exec "$@"
"""

LAUNCHER = """\
#!/usr/bin/python3 -E
import sys
sys.path.insert(0, '/usr/local/lib/check')
from {module} import main
main()
"""

FAULTS = """\
set -u
service() { /etc/init.d/my-service "$@" 2>&1; echo "= $?"; }
echo 'Nonsense without a colon' >>/etc/my-service.yml
service start
sed -i '$d' /etc/my-service.yml
service start
echo 'Deamon: {}' >>/etc/my-service.yml
service reload
service restart
service status
sed -i '$d' /etc/my-service.yml
kill -KILL "$(cat /run/my-service/my-service.pid)"
while clihelper status --pidfile /run/my-service/my-service.pid >/dev/null; do :; done
service status
service reload
service start
service stop
service status
service nonsense
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the packages would install, in a folder."""
    folder = tmp_path / 'files'
    project = new.project(NAME, 'interval')
    for source, target in {
        f'{NAME}.yml': f'etc/{NAME}.yml',
        f'debian/{NAME}.init': f'etc/init.d/{NAME}',
        f'debian/{NAME}.default': f'etc/default/{NAME}',
        f'debian/{NAME}.logrotate': f'etc/logrotate.d/{NAME}',
        'debian/tests/service': 'usr/bin/check-my-service',
        'my_service/__init__.py': 'usr/local/lib/check/my_service/__init__.py',
        'my_service/controller.py': 'usr/local/lib/check/my_service/controller.py',
        'my_service/settings.py': 'usr/local/lib/check/my_service/settings.py',
    }.items():
        write(folder / target, project[source].text, project[source].executable)
    write(folder / f'usr/bin/{NAME}', LAUNCHER.format(module='my_service'), True)
    write(folder / 'usr/bin/clihelper', LAUNCHER.format(module='clihelper.commands'), True)
    libraries = folder / 'usr/local/lib/check'
    shutil.copytree(ROOT / 'clihelper', libraries / 'clihelper')
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations:
            shutil.copytree(next(iter(spec.submodule_search_locations)), libraries / name)
    return folder


def write(path: Path, text: str, executable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755 if executable else 0o644)


def run(files: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the files are installed; what it leaves running ends with it."""
    # An overlay cannot be on another: a file system of its own has its folders.
    mount = 'mount -t tmpfs tmpfs /mnt; exec sh -c "$0" sh /mnt "$@"'
    return subprocess.run(
        ['unshare', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc',
         'sh', '-ec', mount, ENTER, str(files), *command],
        cwd='/', env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL': 'C.UTF-8'},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


@pytest.mark.root
def test_the_service_starts_reloads_rotates_restarts_and_stops(files: Path) -> None:
    done = run(files, 'check-my-service')
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith('The service works as expected.\n')


@pytest.mark.root
def test_the_init_script_says_what_is_wrong_and_its_statuses_are_lsbs(files: Path) -> None:
    done = run(files, 'sh', '-c', FAULTS)
    lines = done.stdout.splitlines()
    statuses = [line for line in lines if line.startswith('= ')]
    assert statuses == [f'= {status}' for status in (6, 0, 6, 6, 0, 1, 7, 0, 0, 3, 2)], done.stdout
    places = [line for line in lines if line.startswith('/etc/my-service.yml:')]
    assert len(places) >= 3
    assert 'did you mean Daemon?' in done.stdout


def test_the_interpreter_of_the_test_is_that_of_the_system() -> None:
    """The libraries are copied from one to the other."""
    code = 'import sys; print(*sys.version_info[:2])'
    version = subprocess.run(['/usr/bin/python3', '-c', code],
                             capture_output=True, text=True, check=True).stdout.split()
    assert tuple(map(int, version)) <= sys.version_info[:2]
