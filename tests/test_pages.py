"""The documentation as it is read: each page, built and opened in Chromium.

At a telephone's width and a desktop's, in light and in dark. ``make test-pages`` installs
Chromium, and fetches axe-core, which knows what keeps people from reading a page.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urldefrag

import pytest

import clihelper
from tests.browser import Browser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / 'docs'
SOURCES = sorted(path.stem for path in DOCS.glob('*.rst'))
PAGES = [*SOURCES, 'genindex', 'py-modindex', 'search']

NARROW, WIDE = 360, 1280
WINDOWS = [(width, scheme) for width in (NARROW, WIDE) for scheme in ('light', 'dark')]

#: Which rules of axe-core's hold in which window; most do not depend on it.
AXE_OPTIONS = {
    # The theme has its switches, which nobody hears, outside of the landmarks.
    (WIDE, 'light'): "{rules: {region: {enabled: false}}, resultTypes: ['violations']}",
    (NARROW, 'dark'): "{runOnly: ['color-contrast', 'scrollable-region-focusable']}",
}

#: What in a page is an error of it, wherever the browser reports that.
COMPLAINTS = {'Runtime.exceptionThrown', 'Runtime.consoleAPICalled', 'Log.entryAdded'}


#: Debian's Furo is not bundled: its script is a module that is loaded as none, its style sheet
#: names another that is not there, and that of Debian 12 knows no dark. It has no switch then.
OF_DEBIANS_FURO = ('/scripts/furo.js', 'normalize.css')


class Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


class Reader:
    """Who opens pages, each only once, and notes what there is to see.

    :param url: of the folder of the pages.
    """

    def __init__(self, browser: Browser, url: str, axe: str, site: Path) -> None:
        self.browser = browser
        self.url = url
        self.furo_is_bundled = 'import ' not in (site / '_static/scripts/furo.js').read_text()[:9]
        self.has_dark = 'prefers-color-scheme' in (site / '_static/styles/furo.css').read_text()
        self._axe = axe
        self._visits: dict[str, Visit] = {}

    def visit(self, page: str) -> Visit:
        if page not in self._visits:
            self.open(f'{page}.html')
            complaints = self.complaints()
            self._visits[page] = Visit(self.browser, self._axe, complaints)
        return self._visits[page]

    def complaints(self) -> list[str]:
        """What the browser has complained of, since the page was opened."""
        found = [json.dumps(event) for event in self.browser.events if event[0] in COMPLAINTS]
        return [each for each in found
                if self.furo_is_bundled or not any(name in each for name in OF_DEBIANS_FURO)]

    def open(self, path: str, width: int = WIDE, scheme: str = 'light') -> None:
        self.browser.look(width, scheme)
        self.browser.open(self.url + path)


class Visit:
    """What there is to see of the page that is open.

    :ivar complaints: of the browser.
    :ivar requested: the addresses of all that was loaded.
    :ivar anchors: where in the page a link can lead.
    :ivar links: the addresses that it links to.
    :ivar sideways: what is too wide for which window, and by how many pixels.
    :ivar barriers: what axe-core finds.
    """

    def __init__(self, browser: Browser, axe: str, complaints: list[str]) -> None:
        self.complaints = complaints
        self.requested = [parameters['request']['url'] for method, parameters in browser.events
                          if method == 'Network.requestWillBeSent']
        self.anchors = set(browser.evaluate('[...document.querySelectorAll("[id]")]'
                                            '.map(each => each.id)'))
        self.links = set(browser.evaluate('[...document.querySelectorAll("a[href]")]'
                                          '.map(each => each.href)'))
        browser.evaluate(axe)
        self.sideways = {}
        self.barriers = []
        for window in WINDOWS:
            browser.look(*window)
            self.sideways[window] = browser.evaluate(SIDEWAYS)
            if window in AXE_OPTIONS:
                self.barriers += barriers(browser, AXE_OPTIONS[window])


#: What has to be scrolled sideways, other than what may be: code, tables and pictures. The theme
#: keeps the whole from it, and has the part with the text scroll.
SIDEWAYS = """
[...document.querySelectorAll('*:not(pre, .table-wrapper, figure.diagram, .visually-hidden)')]
    .filter(each => each.scrollWidth > each.clientWidth
            && (each === document.documentElement
                || getComputedStyle(each).overflowX !== 'visible'))
    .map(each => `${each.tagName} ${each.className}: ${each.scrollWidth - each.clientWidth}`)
"""


def barriers(browser: Browser, options: str) -> list[str]:
    """The rule, the element and the reason of each violation."""
    found: list[str] = browser.evaluate(
        f'axe.run({options}).then(result => result.violations.flatMap(rule => rule.nodes.map('
        'node => `${rule.id}: ${node.html}: ${node.failureSummary}`)))')
    return found


@pytest.fixture(scope='module')
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built without a warning."""
    folder = tmp_path_factory.mktemp('site')
    # What the libraries of Sphinx are warned of is not ours.
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONWARNINGS'}
    subprocess.run(
        [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html',
         '-d', folder / 'doctrees', DOCS, folder / 'html'], env=environment, check=True)
    return folder / 'html'


@pytest.fixture(scope='module')
def url(site: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Files, directory=str(site))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()
        thread.join()


@pytest.fixture(scope='module')
def reader(
    url: str, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    (axe,) = (ROOT / 'build').glob('axe-core-*.js')  # make test-pages fetches it
    with Browser(tmp_path_factory.mktemp('browser')) as browser:
        yield Reader(browser, url, axe.read_text(), site)


every_page = pytest.mark.parametrize('page', PAGES)


def test_each_page_is_built(site: Path) -> None:
    assert sorted(path.stem for path in site.glob('*.html')) == sorted(PAGES)


@every_page
def test_a_page_makes_the_browser_complain_of_nothing(page: str, reader: Reader) -> None:
    assert not reader.visit(page).complaints


@every_page
def test_a_page_loads_nothing_from_elsewhere(page: str, reader: Reader) -> None:
    requested = reader.visit(page).requested
    assert f'{reader.url}{page}.html' in requested
    assert [each for each in requested if not each.startswith((reader.url, 'data:'))] == []


@every_page
def test_a_page_does_not_scroll_sideways(page: str, reader: Reader) -> None:
    assert reader.visit(page).sideways == {window: [] for window in WINDOWS}


@every_page
def test_a_link_of_a_page_leads_to_what_is_there(
    page: str, reader: Reader, site: Path
) -> None:
    broken = []
    for link in reader.visit(page).links:
        address, anchor = urldefrag(link)
        if not address.startswith(reader.url):
            continue
        path = site / unquote(address.removeprefix(reader.url))
        if not path.is_file() or (
            anchor and unquote(anchor) not in reader.visit(path.stem).anchors
        ):
            broken.append(link)
    assert broken == []


@every_page
def test_a_page_can_be_read_by_everybody(page: str, reader: Reader) -> None:
    assert reader.visit(page).barriers == []


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_page_is_as_light_or_dark_as_its_reader_has_chosen(scheme: str, reader: Reader) -> None:
    if scheme == 'dark' and not reader.has_dark:
        pytest.xfail('the Furo of Debian 12 is always light')
    reader.open('index.html', scheme=scheme)
    colour = reader.browser.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (colour == 'rgb(255, 255, 255)') == (scheme == 'light')


#: Of each picture in a page, as it is shown: its name, how opaque it is at its corner, and the
#: brightness of what is drawn: on the whole, and of the darkest and the brightest of it.
PICTURES = """
Promise.all([...document.querySelectorAll('article img')].map(async picture => {
    await picture.decode();
    const canvas = document.createElement('canvas');
    canvas.width = picture.width;
    canvas.height = picture.height;
    const context = canvas.getContext('2d');
    context.filter = getComputedStyle(picture).filter;
    context.drawImage(picture, 0, 0, picture.width, picture.height);
    const data = context.getImageData(0, 0, picture.width, picture.height).data;
    let sum = 0, count = 0, darkest = 255, brightest = 0;
    for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] < 255) continue;
        const brightness = (data[i] + data[i + 1] + data[i + 2]) / 3;
        sum += brightness;
        count += 1;
        darkest = Math.min(darkest, brightness);
        brightest = Math.max(brightest, brightness);
    }
    return [picture.src.split('/').at(-1), data[3], sum / count, darkest, brightest];
}))
"""

ILLUSTRATED = [page for page in SOURCES if '.svg' in (DOCS / f'{page}.rst').read_text()]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('page', ILLUSTRATED)
def test_a_picture_is_drawn_in_the_brightness_of_its_page(
    page: str, scheme: str, reader: Reader
) -> None:
    reader.open(f'{page}.html', scheme=scheme)
    pictures = reader.browser.evaluate(PICTURES)
    assert pictures
    for name, corner, whole, darkest, brightest in pictures:
        assert corner == 0, f'{name} has a background'
        assert (whole > 128) == (scheme == 'light'), name
        assert darkest < 32, name
        assert brightest > 223, name


def test_the_version_is_shown(reader: Reader) -> None:
    reader.open('index.html')
    assert clihelper.__version__ in reader.browser.evaluate(
        'document.querySelector(".sidebar-brand").textContent')


def headings_of(page: str) -> list[str]:
    """The headings of the source of a page, below its title, that have no markup."""
    text = (DOCS / f'{page}.rst').read_text()
    return re.findall(r'^([A-Z][\w ]{8,})\n[-~]+$', text, re.MULTILINE)


#: Where what a search has found leads to, once it has come to its end.
FOUND = """
new Promise(resolve => {
    const results = document.querySelector('#search-results');
    const look = () => {
        if (results.querySelector('h2')?.textContent === 'Search Results')
            resolve([...results.querySelectorAll('li a')].map(each => each.href));
    };
    new MutationObserver(look).observe(results, {childList: true, subtree: true});
    look();
})
"""


@pytest.mark.parametrize('page', [page for page in SOURCES if headings_of(page)])
def test_a_search_for_a_heading_leads_to_it(page: str, reader: Reader) -> None:
    heading = headings_of(page)[0]
    anchor = heading.lower().replace(' ', '-')
    assert anchor in reader.visit(page).anchors
    reader.open(f'search.html?q={quote(heading)}')
    assert f'{reader.url}{page}.html#{anchor}' in {
        re.sub(r'\?[^#]*', '', link) for link in reader.browser.evaluate(FOUND)}


#: What is in the clipboard when the last button of a page is pressed.
COPIED = """
new Promise(resolve => {
    document.addEventListener('copy', () => resolve(document.activeElement.value));
    [...document.querySelectorAll('button.copybtn')].at(-1).click();
})
"""


def test_commands_are_copied_without_prompts_and_what_they_show(reader: Reader) -> None:
    reader.open('index.html')
    assert reader.browser.evaluate(COPIED) == 'python greeter.py -c greeter.yml -f'
