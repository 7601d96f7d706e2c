"""The page of a daemon in Chromium: at a telephone's width and a desktop's, in light and in dark.

``make test-pages`` installs Chromium, and fetches axe-core. The page is that of a daemon that is
made up, or of one that runs.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from clihelper.testing import Daemon
from tests.browser import Browser, BrowserError
from tests.picture import SHOWN, shop
from tests.test_metrics import server_of, start_ticker
from tests.test_pages import COMPLAINTS, barriers

ROOT = Path(__file__).resolve().parent.parent

WINDOWS = [(width, scheme) for width in (360, 1440) for scheme in ('light', 'dark')]

MARKUP = '<img src=x onerror="document.title=1"><script>document.title=1</script>'

SIDEWAYS = """
[...document.querySelectorAll('*:not(.wide)')]
    .filter(each => each.scrollWidth > each.clientWidth + 1
            && (each === document.documentElement
                || getComputedStyle(each).overflowX !== 'visible'))
    .map(each => `${each.tagName} ${each.className}: ${each.scrollWidth - each.clientWidth}`)
"""

ALL_OPEN = "document.querySelectorAll('details').forEach(each => { each.open = true; })"


@pytest.fixture(scope='module')
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp('browser')) as browser:
        yield browser


@pytest.fixture(scope='module')
def axe() -> str:
    (file,) = (ROOT / 'build').glob('axe-core-*.js')  # make test-pages fetches it
    return file.read_text()


@pytest.fixture
def url() -> Iterator[str]:
    with shop() as url:
        yield url


@pytest.fixture
def daemon(tmp_path, port):
    with start_ticker(tmp_path, f'127.0.0.1:{port}') as daemon:
        yield daemon
        daemon.stop()


@pytest.fixture
def port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def look(browser: Browser, url: str, width: int = 1440, scheme: str = 'light') -> None:
    browser.look(width, scheme)
    browser.open(url)
    browser.evaluate(SHOWN)


def wait(browser: Browser, condition: str) -> None:
    """Wait until an expression is true in the page."""
    browser.evaluate(f"""new Promise(resolve => {{
        const look = () => ({condition}) ? resolve() : setTimeout(look, 20);
        look();
    }})""")


def press(browser: Browser, key: str) -> None:
    code = {'Tab': 9, 'Enter': 13, 'ArrowLeft': 37, 'ArrowDown': 40, 'End': 35}[key]
    for kind in ('rawKeyDown', 'keyUp'):
        browser.call('Input.dispatchKeyEvent', type=kind, key=key, code=key,
                     windowsVirtualKeyCode=code)
        if key == 'Enter' and kind == 'rawKeyDown':
            browser.call('Input.dispatchKeyEvent', type='char', key=key, text='\r')


def complaints(browser: Browser) -> list[str]:
    return [json.dumps(event) for event in browser.events if event[0] in COMPLAINTS]


@pytest.mark.parametrize(('width', 'scheme'), WINDOWS)
def test_it_can_be_read_by_everybody(browser, url, axe, width, scheme):
    look(browser, url, width, scheme)
    browser.evaluate(ALL_OPEN)
    assert complaints(browser) == []
    requested = {parameters['request']['url'] for method, parameters in browser.events
                 if method == 'Network.requestWillBeSent'}
    assert requested == {url, *(url + name for name in (
        'page.css', 'page.js', 'icon.svg', 'events'))}
    assert browser.evaluate(SIDEWAYS) == []
    dark = browser.evaluate('getComputedStyle(document.body).backgroundColor') == 'rgb(15, 19, 24)'
    assert dark == (scheme == 'dark')
    assert browser.evaluate('document.querySelectorAll("svg .curve").length') == 5
    browser.call('Page.setBypassCSP', enabled=True)
    try:
        look(browser, url, width, scheme)
        browser.evaluate(axe)
        browser.evaluate(ALL_OPEN)
        assert barriers(browser, "{resultTypes: ['violations']}") == []
    finally:
        browser.call('Page.setBypassCSP', enabled=False)


def test_what_a_program_has_written_is_shown_as_text(browser):
    with shop(MARKUP) as url:
        look(browser, url)
        assert MARKUP in browser.evaluate("document.querySelector('#errors').textContent")
        assert browser.evaluate("document.querySelectorAll('img, script:not([src])').length") == 0
        assert browser.evaluate('document.title') == 'orders'


def test_nothing_that_is_brought_in_would_run(browser, url):
    look(browser, url)
    with pytest.raises(BrowserError, match='TrustedScript|TrustedHTML'):
        browser.evaluate("document.body.innerHTML = '<b>x</b>'")
    refused = browser.evaluate("""new Promise(resolve => {
        document.addEventListener('securitypolicyviolation',
                                  event => resolve(event.effectiveDirective));
        const image = document.createElement('img');
        image.src = 'https://127.0.0.1:1/x.png';
        document.body.append(image);
    })""")
    assert refused == 'img-src'


def test_it_can_be_used_with_the_keyboard(browser, url):
    look(browser, url)
    reached = []
    for _ in range(30):
        press(browser, 'Tab')
        reached.append(browser.evaluate(
            'document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)'))
        name = reached[-1]
        if name == 'cursor':
            press(browser, 'ArrowLeft')
            press(browser, 'ArrowLeft')
            moment = browser.evaluate("document.querySelector('#moment').textContent")
            assert moment != 'now'
            assert browser.evaluate("document.querySelectorAll('svg .mark').length") == 3
            assert browser.evaluate(
                "document.querySelector('#cursor').getAttribute('aria-valuetext')") == moment
        if name == 'choice':
            press(browser, 'ArrowDown')
            assert browser.evaluate("document.querySelector('#choice').value") == 'orders'
        if name == 'AMQP':
            press(browser, 'Enter')
            break
    assert reached[0] == 'Skip to the queues'
    assert {'choice', 'cursor', 'Application', 'Daemon', 'AMQP'} <= set(reached)
    before = browser.evaluate("document.querySelector('#worker-table').textContent")
    wait(browser, f"document.querySelector('#worker-table').textContent !== {json.dumps(before)}")
    for opened in ("document.querySelector('details[open] summary')", 'document.activeElement'):
        assert browser.evaluate(f'{opened}.textContent') == 'AMQP'
    assert browser.evaluate("document.querySelector('#choice').value") == 'orders'
    assert 'secret' not in browser.evaluate("document.querySelector('#configuration').textContent")


def test_a_choice_of_a_queue_is_that_of_the_plots(browser, url):
    look(browser, url)

    def values():
        return browser.evaluate("document.querySelector('figcaption').textContent")

    before = values()
    browser.evaluate("""
        document.querySelector('#choice').value = 'mails';
        document.querySelector('#choice').dispatchEvent(new Event('change'))""")
    assert values() != before


def test_it_is_live(browser, daemon, port):
    look(browser, f'http://127.0.0.1:{port}/')
    ticks = "[...document.querySelectorAll('dt')].find(each => each.textContent === 'Ticks')"
    before = browser.evaluate(f'Number({ticks}.nextSibling.textContent)')
    wait(browser, f'Number({ticks}.nextSibling.textContent) > {before + 5}')
    assert browser.evaluate("document.querySelector('#ready').textContent") == 'ready'


def test_it_says_that_the_connection_is_lost_and_connects_again(browser, daemon, port):
    look(browser, f'http://127.0.0.1:{port}/')
    for _ in range(2):
        os.kill(server_of(daemon.pid)[1], signal.SIGKILL)
        wait(browser, "document.querySelector('#connection').textContent.includes('lost')")
        wait(browser, "document.querySelector('#connection').textContent === 'Live'")
    assert browser.evaluate("document.querySelectorAll('.old').length") == 0


CONSUMER = """\
import clihelper


class Shipper(clihelper.ConsumerController):
    def on_message(self, body, message):
        pass


clihelper.setup('shipper')
clihelper.run(Shipper)
"""


def test_it_says_why_a_daemon_is_not_ready(browser, tmp_path, port):
    (tmp_path / 'shipper.py').write_text(CONSUMER)
    (tmp_path / 'shipper.yml').write_text(
        f"Daemon: {{pidfile: {tmp_path}/pid, start_timeout: 0.1, metrics: '127.0.0.1:{port}'}}\n"
        'AMQP: {url: "amqp://u:hunter2@127.0.0.1:1", queues: {orders: }}\n')
    argv = [sys.executable, str(tmp_path / 'shipper.py'), '-c', str(tmp_path / 'shipper.yml')]
    with Daemon(argv, tmp_path / 'pid', env={'PYTHONPATH': str(ROOT)}) as daemon:
        look(browser, f'http://127.0.0.1:{port}/', 360)
        wait(browser, "document.querySelector('#alarms').textContent.includes('no broker: ')")
        assert browser.evaluate("document.querySelector('#ready').textContent") == 'not ready'
        assert 'hunter2' not in browser.evaluate('document.documentElement.textContent')
        assert browser.evaluate(SIDEWAYS) == []
        daemon.stop()


def test_it_waits_for_a_place_if_there_are_too_many(browser, daemon, port):
    from clihelper.operations import web

    others = []
    for _ in range(web.MOST_STREAMS):
        others.append(socket.create_connection(('127.0.0.1', port)))
        others[-1].sendall(b'GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n')
        assert others[-1].recv(100)
    browser.look(1440, 'light')
    browser.open(f'http://127.0.0.1:{port}/')
    wait(browser, "document.querySelector('#connection').textContent.includes('lost')")
    for each in others:
        each.close()
    wait(browser, "document.querySelector('#connection').textContent === 'Live'")
