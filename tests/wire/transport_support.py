"""What the transport's tests share: recorders that wait on conditions, and sockets that misbehave."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

DEADLINE = 10.0


class Recorder:
    """Collects what callbacks bring, in order, and waits for it with a deadline."""

    def __init__(self) -> None:
        self.seen: list = []
        self._more = threading.Condition()

    def __call__(self, *what) -> None:
        with self._more:
            self.seen.append(what[0] if len(what) == 1 else what)
            self._more.notify_all()

    def wait(self, number: int, deadline: float = DEADLINE) -> list:
        """The first `number` things, as soon as they are there."""
        with self._more:
            assert self._more.wait_for(lambda: len(self.seen) >= number, deadline), f"{len(self.seen)} of {number} came: {self.seen[-5:]}"
            return self.seen[:number]


def eventually(condition: Callable[[], bool], what: str, deadline: float = DEADLINE) -> None:
    """Polls a state that no callback tells of (a counter) until it holds."""
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.002)


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A plain client socket on a local port."""
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        yield sock


def read_to_end(sock: socket.socket) -> bytes:
    """All that comes until the other end closes; a reset is an end too."""
    sock.settimeout(DEADLINE)
    out = bytearray()
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            out += data
    return bytes(out)


def reset(sock: socket.socket) -> None:
    """Closes with RST instead of FIN, as a killed process's kernel does with unread data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def silent_listener() -> Iterator[tuple[int, Recorder]]:
    """Accepts connections and never says a word: what a stopped process looks like. Gives its port and the accepted sockets."""
    accepted = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        done = threading.Event()

        def accept() -> None:
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    accepted(listener.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1], accepted
        finally:
            done.set()
            thread.join()
            for sock in accepted.seen:
                sock.close()
