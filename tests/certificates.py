"""Certificates for tests, made by openssl(1): an authority, and who is certified by it."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """A certification authority in a folder.

    :param usage: its certificate's extension ``keyUsage``; by default it has none.
    :ivar Path certificate: its own certificate.
    """

    def __init__(self, folder: Path, name: str = 'authority', usage: str = '') -> None:
        self.folder = folder
        self.certificate = folder / f'{name}.pem'
        self._key = folder / f'{name}.key'
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
        openssl(
            'x509', '-req', '-in', request, '-CA', self.certificate, '-CAkey', self._key,
            '-CAcreateserial', '-days', str(days), '-extfile', extensions, '-out', certificate,
        )
        return certificate


def openssl(*arguments: str | Path) -> None:
    """Run ``openssl``; raises :class:`subprocess.CalledProcessError`."""
    subprocess.run(
        ['openssl', *map(str, arguments)], check=True, capture_output=True, timeout=30
    )
