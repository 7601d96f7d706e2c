"""An editor: what its language server proposes where someone types (the protocol is LSP's)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self


class Editor:
    """pyright's language server, asked for completions; used in a ``with``.

    :param folder: where the modules are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._requests = 0

    def __enter__(self) -> Self:
        self._server = subprocess.Popen(
            [sys.executable, '-m', 'pyright.langserver', '--stdio'], cwd=self._folder,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._ask('initialize', {
            'processId': None, 'capabilities': {'workspace': {'configuration': True}},
            'rootUri': self._folder.as_uri(),
            'workspaceFolders': [{'uri': self._folder.as_uri(), 'name': 'tests'}],
        })
        self._tell('initialized', {})
        return self

    def __exit__(self, *_: object) -> None:
        self._ask('shutdown', None)
        self._tell('exit', None)
        self._server.communicate(timeout=30)

    def completions(self, text: str) -> list[str]:
        """Return what is proposed where the text has a ``|``."""
        before, _, after = text.partition('|')
        uri = (self._folder / 'typed.py').as_uri()
        self._tell('textDocument/didOpen', {'textDocument': {
            'uri': uri, 'languageId': 'python', 'version': 1, 'text': before + after}})
        lines = before.split('\n')
        found = self._ask('textDocument/completion', {
            'textDocument': {'uri': uri},
            'position': {'line': len(lines) - 1, 'character': len(lines[-1])}})
        self._tell('textDocument/didClose', {'textDocument': {'uri': uri}})
        return [each['label'] for each in found['items']]

    def _tell(self, method: str, params: Any) -> None:
        self._send({'method': method, 'params': params})

    def _ask(self, method: str, params: Any) -> Any:
        """Return the answer; what the server asks meanwhile is answered."""
        self._requests += 1
        self._send({'id': self._requests, 'method': method, 'params': params})
        while True:
            message = self._receive()
            if 'method' not in message and message.get('id') == self._requests:
                return message['result']
            if 'method' in message and 'id' in message:
                wanted = message['method'] == 'workspace/configuration'
                answer = [
                    {'pythonPath': sys.executable} if each.get('section') == 'python' else {}
                    for each in message['params']['items']] if wanted else None
                self._send({'id': message['id'], 'result': answer})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps({'jsonrpc': '2.0', **message}).encode()
        assert self._server.stdin
        self._server.stdin.write(b'Content-Length: %d\r\n\r\n%s' % (len(data), data))
        self._server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._server.stdout
        length = 0
        while (line := self._server.stdout.readline()) != b'\r\n':
            assert line, 'the language server has ended'
            name, _, value = line.decode().partition(':')
            if name == 'Content-Length':
                length = int(value)
        message: dict[str, Any] = json.loads(self._server.stdout.read(length))
        return message
