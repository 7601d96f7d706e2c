"""How requests are answered, whatever is asked: nothing is changed, and no other site may ask."""

from __future__ import annotations

import ipaddress
import socket

from tornado.web import HTTPError, RequestHandler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'"
)
"""the Content-Security-Policy: nothing is loaded from elsewhere, and nothing inline is run"""

HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': POLICY,
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


class Handler(RequestHandler):
    """Answers a request that changes nothing, unless a page of another site has made it."""

    SUPPORTED_METHODS = ('GET', 'HEAD')

    def set_default_headers(self) -> None:
        self.clear_header('Server')
        self.set_header('Allow', ', '.join(self.SUPPORTED_METHODS))
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if self._is_from_another_site():
            raise HTTPError(403)

    def _is_from_another_site(self) -> bool:
        """Whether another site's page asks, other than by a link that its reader has followed."""
        headers = self.request.headers
        origin = headers.get('Origin')
        if origin is not None and origin.partition('://')[2].lower() != self.request.host.lower():
            return True
        if headers.get('Sec-Fetch-Site') not in ('cross-site', 'same-site'):
            return False
        return (headers.get('Sec-Fetch-Mode'), headers.get('Sec-Fetch-Dest')) != (
            'navigate', 'document')

    def head(self, *arguments: str) -> Any:
        return self.get(*arguments)

    def compute_etag(self) -> None:
        """Say nothing of that: the answer is another each time."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.answer(f'{status_code} {self._reason}\n')

    def answer(self, content: str | bytes, kind: str = 'text/plain; charset=utf-8') -> None:
        """End with this content."""
        self.set_header('Content-Type', kind)
        self.finish(content)


class NothingThere(Handler):
    """Answers that there is nothing."""

    def prepare(self) -> None:
        if self.request.method in self.SUPPORTED_METHODS:
            raise HTTPError(404)


class NamedHandler(Handler):
    """Answers only under a name of its own, so that no other site can read it.

    Such a site would have its own name resolved to the address of the daemon (DNS rebinding).
    """

    def initialize(self, names: Collection[str]) -> None:
        self._names = names

    def prepare(self) -> None:
        super().prepare()
        if self.request.connection.stream.socket.family == socket.AF_UNIX:  # type: ignore[union-attr]
            return
        host = self.request.host_name.strip('[]').lower()
        if host not in self._names and not _is_address(host):
            raise HTTPError(403)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
