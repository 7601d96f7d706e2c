"""Certificates for tests, made by openssl(1): an authority, and who is certified by it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

CONFIG = """\
[ca]
default_ca = authority
[authority]
database = {folder}/{name}.index
new_certs_dir = {folder}
default_md = sha256
policy = policy
rand_serial = yes
unique_subject = no
[policy]
commonName = supplied
"""
"""of ``openssl ca``, which each version lets make a certificate that has expired"""


class Authority:
    """A certification authority in a folder.

    :param usage: its certificate's extension ``keyUsage``; by default it has none.
    :ivar Path certificate: its own certificate.
    """

    def __init__(self, folder: Path, name: str = 'authority', usage: str = '') -> None:
        self.folder = folder
        self.certificate = folder / f'{name}.pem'
        self._key = folder / f'{name}.key'
        self._config = folder / f'{name}.cnf'
        self._config.write_text(CONFIG.format(folder=folder, name=name))
        (folder / f'{name}.index').touch()
        openssl(
            'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', f'/CN={name}',
            '-days', '2', '-keyout', self._key, '-out', self.certificate,
            *(['-addext', f'keyUsage={usage}'] if usage else []),
        )

    def certify(
        self, name: str, alternative: str = 'DNS:nobody', days: int = 2, more: str = ''
    ) -> Path:
        """Certify *name*; what it has is ``<name>.pem`` and ``<name>.key`` in the folder.

        :param alternative: the names of the host, as ``DNS:broker,IP:127.0.0.1``.
        :param days: for how long; less than 0: it has expired.
        :param more: further lines of extensions.
        :returns: the certificate.
        """
        certificate, request = self.folder / f'{name}.pem', self.folder / f'{name}.csr'
        openssl(
            'req', '-newkey', 'rsa:2048', '-nodes', '-subj', f'/CN={name}',
            '-keyout', self.folder / f'{name}.key', '-out', request,
        )
        extensions = self.folder / f'{name}.ext'
        extensions.write_text(f'subjectAltName={alternative}\n{more}')
        begin, end = sorted(time.time() - 60 + 86400 * each for each in (0, days))
        openssl(
            'ca', '-batch', '-notext', '-config', self._config, '-in', request,
            '-cert', self.certificate, '-keyfile', self._key, '-extfile', extensions,
            '-startdate', written(begin), '-enddate', written(end), '-out', certificate,
        )
        return certificate


def written(when: float) -> str:
    """A time as a certificate has it."""
    return time.strftime('%Y%m%d%H%M%SZ', time.gmtime(when))


def openssl(*arguments: str | Path) -> None:
    """Run ``openssl``; raises :class:`subprocess.CalledProcessError`."""
    subprocess.run(
        ['openssl', *map(str, arguments)], check=True, capture_output=True, timeout=30
    )
