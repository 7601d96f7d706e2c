"""Fetches the pages of a site, many at a time, and those that they link to."""

import asyncio
import collections
import html.parser
from collections.abc import Iterable
from urllib.parse import urldefrag, urljoin, urlsplit

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse

import clihelper


class Crawler(clihelper.AsyncConsumerController):
    def _setup(self) -> None:
        # Of this process: a page may be fetched again by another, or later.
        self.seen: set[str] = set()
        self.polite: dict[str, asyncio.Semaphore] = collections.defaultdict(
            lambda: asyncio.Semaphore(self.per_host))
        self.client = AsyncHTTPClient(force_instance=True, max_clients=1000)

    def _cleanup(self) -> None:
        self.client.close()

    @property
    def per_host(self) -> int:
        return int(self.application_config['per_host'])

    async def _process(self) -> None:
        """Begin at the beginning: at the start, and every wake interval."""
        self.seen.clear()
        while self.is_running:
            try:
                await self.add(self.application_config['start'])
                return
            except clihelper.PublishError as error:  # as before the queue is declared
                self.logger.info('not begun yet: %s', error)
                await asyncio.sleep(1)

    async def on_message(self, body: str, message: clihelper.Message) -> None:
        response = await self.fetch(body)
        links: set[str] = set()
        if response.headers.get('Content-Type', '').startswith('text/html'):
            links = links_of(response.body.decode('utf-8', 'replace'), response.effective_url)
        await self.add(filter(self.is_wanted, links))
        self.logger.info('%s: %d bytes, %d links', body, len(response.body), len(links))

    async def fetch(self, url: str) -> HTTPResponse:
        """The page; what may be there later is tried again later, and what is not is given up."""
        timeout = self.application_config['timeout']
        async with self.polite[urlsplit(url).netloc]:
            try:
                return await self.client.fetch(
                    url, connect_timeout=timeout, request_timeout=timeout)
            except HTTPClientError as error:
                # 599 is Tornado's number for a timeout, and for a connection that was closed.
                if error.code in (408, 429) or error.code >= 500:
                    raise clihelper.Retry(str(error)) from error
                raise clihelper.Reject(str(error)) from error
            except OSError as error:  # refused, unreachable, a name that is not known
                raise clihelper.Retry(str(error)) from error
            except ValueError as error:
                raise clihelper.Reject(f'no URL: {error}') from error

    def is_wanted(self, url: str) -> bool:
        return urlsplit(url).netloc in self.application_config['hosts']

    async def add(self, urls: Iterable[str]) -> None:
        """Publish the URLs that are new."""
        new = set(urls) - self.seen
        self.seen |= new  # before the first await, so that no other coroutine adds them, too
        try:
            async with self.pipeline() as pipeline:
                for url in new:
                    await pipeline.publish(url, routing_key='urls')
        except clihelper.PublishError:
            self.seen -= new  # the message that they are from is run again
            raise


class Links(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == 'a':
            self.found += [value for name, value in attrs if name == 'href' and value]


def links_of(text: str, base: str) -> set[str]:
    parser = Links()
    parser.feed(text)
    urls = set()
    for link in parser.found:
        try:
            url = urldefrag(urljoin(base, link)).url
        except ValueError:  # as of http://[
            continue
        if url.startswith(('http:', 'https:')):
            urls.add(url)
    return urls


if __name__ == '__main__':
    clihelper.setup('crawler', 'Fetches the pages of a site.', '1.0.0')
    clihelper.run(Crawler)
