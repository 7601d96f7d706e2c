"""The Containerfile and the manifest agree with each other and with the program.

The Containerfile is carried out, and its program run as process 1, by ``make deb-check``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from clihelper import config, logs
from packages.container import CONTAINERFILE, Image

CONTAINERS = CONTAINERFILE.parent


@pytest.fixture
def image() -> Image:
    return Image(CONTAINERFILE.read_text())


@pytest.fixture
def manifest() -> dict[str, Any]:
    """The objects of the manifest, by their kind."""
    documents = yaml.safe_load_all((CONTAINERS / 'kubernetes.yml').read_text())
    return {each['kind']: each for each in documents}


def read(text: str, folder: Path) -> config.Config:
    """A configuration, with the secret that it names in *folder*."""
    (folder / 'amqp-url').write_text('memory://')
    text = text.replace('/run/secrets/clihelper-example', str(folder))
    found = config.parse(text.encode(), '/etc/x.yml', appname='example', shown='x.yml')
    assert not logs.check(found.logging, found.locate, working_directory='/')
    return found


def test_the_images_configuration_is_valid_and_logs_json_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv('AMQP_URL', raising=False)
    found = read((CONTAINERS / 'example.yml').read_text(), tmp_path)
    assert found.amqp['url'] == 'memory://'
    assert found['Logging']['formatters']['json']['()'] == 'clihelper.logs.JSONFormatter'
    assert found['Logging']['handlers']['stdout']['stream'] == 'ext://sys.stdout'


def test_every_file_that_the_containerfile_copies_is_there_or_built_by_make_deb(
    image: Image
) -> None:
    sources = [source for word, rest in image.instructions if word == 'COPY'
               for source in rest.split()[:-1]]
    assert sources
    for source in sources:
        assert source.startswith('build/deb/') or (CONTAINERS.parent / source).exists(), source


def test_the_manifest_is_of_the_image(
    image: Image, manifest: dict[str, Any], tmp_path: Path
) -> None:
    pod = manifest['Deployment']['spec']['template']['spec']
    (container,) = pod['containers']
    uid, _, gid = image.user.partition(':')
    security = pod['securityContext']
    assert (security['runAsUser'], security['runAsGroup']) == (int(uid), int(gid))
    assert security['runAsNonRoot']
    assert container['securityContext']['readOnlyRootFilesystem']
    plain = [word for word in image.healthcheck if not word.startswith('--')]
    assert container['startupProbe']['exec']['command'] == plain
    mounted = {mount['mountPath'] for mount in container['volumeMounts']}
    assert mounted == {image.environment['RUNTIME_DIRECTORY'], image.entrypoint[-1],
                       '/run/secrets/clihelper-example'}
    (text,) = manifest['ConfigMap']['data'].values()
    found = read(text, tmp_path)
    assert found.amqp['url'] == 'memory://'
    (port,) = container['ports']
    assert found.daemon['metrics'] == f':{port["containerPort"]}'
    annotations = manifest['Deployment']['spec']['template']['metadata']['annotations']
    assert annotations['prometheus.io/port'] == str(port['containerPort'])
    for probe, path in (('readinessProbe', '/ready'), ('livenessProbe', '/live')):
        assert container[probe]['httpGet'] == {'path': path, 'port': port['name']}
    assert found.daemon['stop_timeout'] < pod['terminationGracePeriodSeconds']
