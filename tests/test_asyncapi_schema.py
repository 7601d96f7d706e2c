"""The AsyncAPI document against the schema of AsyncAPI, which npm has: ``make test-pages``."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema

from tests.test_asyncapi import CONFIG, document

ROOT = Path(__file__).resolve().parent.parent


def test_it_is_valid(tmp_path: Path) -> None:
    (schema,) = (ROOT / 'build').glob('asyncapi-3.0.0-*.json')
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    for config in (CONFIG, CONFIG.replace('consume: false', 'exclusive: true')):
        found = document(tmp_path, config)
        assert [error.message for error in validator.iter_errors(found)] == []
    del found['info']['title']
    assert list(validator.iter_errors(found))
