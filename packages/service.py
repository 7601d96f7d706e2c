"""The example's service in debian/, from the templates of ``clihelper new``.

``python3 -m packages.service`` writes it anew; ``tests/test_new.py`` holds that it is as written.
"""

from __future__ import annotations

from pathlib import Path

from clihelper.commands import new, templates
from clihelper.commands.templates import File

ROOT = Path(__file__).resolve().parent.parent

SECTIONS = {
    'Application': {'wake_interval': 1},
    'AMQP': {
        'url': 'memory://',
        'exchanges': {'shop': {'type': 'topic'}},
        'queues': {'orders': {'exchange': 'shop', 'routing_keys': ['order.*']}},
    },
}
"""What ``example.yml`` has"""


def files() -> dict[str, File]:
    """The files, by their path."""
    facts = templates.service_facts(
        'clihelper-example', appname='example', description='Ships what is ordered')
    configuration = new.configuration('clihelper-example', 'example', SECTIONS)
    return {
        **templates.render('service', facts),
        'debian/clihelper-example.yml': File(configuration),
    }


if __name__ == '__main__':
    for path, file in files().items():
        (ROOT / path).write_text(file.text)
        (ROOT / path).chmod(0o755 if file.executable else 0o644)
