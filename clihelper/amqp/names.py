"""Looking up a broker's name, which may take long, and which no signal interrupts."""

from __future__ import annotations

import socket
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Address = tuple[Any, Any, int, str, tuple[Any, ...]]


def look_up(host: str | bytes, port: int, seconds: float) -> list[Address]:
    """The addresses of a host, as getaddrinfo(3).

    A name is looked up in a thread, so that a signal does not wait for the answer.

    :param host: a name or an address.
    :raises TimeoutError: there is no answer within so many seconds; the thread is left behind.
    :raises socket.gaierror: there is no such name.
    """
    try:
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except socket.gaierror:
        pass  # it is a name
    found: list[Address] = []
    faults: list[OSError] = []
    done = threading.Event()

    def ask() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            faults.append(error)
        finally:
            done.set()

    threading.Thread(target=ask, name='look-up', daemon=True).start()
    if not done.wait(seconds):
        raise TimeoutError('no answer to what address that is')
    if faults:
        raise faults[0]
    return found
