"""The pictures of the documentation are drawn from their sources, and show what is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clihelper.states import TRANSITIONS, State

DOCS = Path(__file__).resolve().parent.parent / 'docs'
SOURCES = sorted(DOCS.glob('*.dot'))

EDGES = re.compile(r'^    (\w+(?: -> \w+)+)(.*)$', re.MULTILINE)


def edges_of(source: Path) -> set[tuple[str, str]]:
    edges = set()
    for names, attributes in EDGES.findall(source.read_text()):
        if 'style=invis' in attributes:
            continue
        chain = names.split(' -> ')
        for pair in zip(chain, chain[1:], strict=False):
            edges.add(pair)
            if 'dir=both' in attributes:
                edges.add(pair[::-1])
    return edges


@pytest.mark.parametrize('source', SOURCES, ids=[source.stem for source in SOURCES])
def test_a_picture_is_drawn_from_its_source(source: Path) -> None:
    picture = source.with_suffix('.svg').read_text()
    titles = re.findall(r'<title>(\w+)&#45;&gt;(\w+)</title>', picture)
    drawn = {*titles} | {
        pair[::-1] for pair in titles if pair[::-1] in edges_of(source)}
    assert drawn == edges_of(source), 'make diagrams'


@pytest.mark.parametrize('source', SOURCES, ids=[source.stem for source in SOURCES])
def test_a_picture_is_in_a_page(source: Path) -> None:
    assert any(f':: {source.stem}.svg' in page.read_text() for page in DOCS.glob('*.rst'))


def test_the_picture_of_the_states_shows_allowed_transitions_and_every_state() -> None:
    edges = edges_of(DOCS / 'states.dot')
    assert {name for edge in edges for name in edge} == {state.name for state in State}
    assert all(State[new] in TRANSITIONS[State[old]] for old, new in edges)
