"""Connections as TCP gives them, on a bad day.

A connection belongs to who dialled it. Requests arrive in order and are answered in order, by position. A blocked direction (partition) holds
its bytes back, it does not lose them; a connection that waits too long for an answer is closed by its dialler. What makes the
days bad is between connections: a request of a closed one may still arrive, after those of its successor, or twice; and the answer to
a request of a closed one may reach the dialler when the next session is already under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tests.sim.kernel import Kernel


class Host(Protocol):
    """An end of a connection. Calls come only while it is up and not paused (the network asks `reachable` first)."""

    id: str
    life: int  # counts starts of the process: nothing of one life reaches the next

    def reachable(self) -> bool: ...
    def on_request(self, handle: object, message: Any) -> None: ...
    def on_response(self, peer: str, token: object, message: Any) -> None: ...
    def on_connected(self, peer: str, connection: Connection) -> None: ...
    def on_disconnected(self, peer: str, connection: Connection) -> None: ...


class Faults:
    """How bad the day is; a world changes these as it goes."""

    def __init__(self) -> None:
        self.delay = (0.0003, 0.003)
        self.spike = 0.0  # chance of a delay of up to 0.3 s
        self.reset = 0.0  # chance, per request, that the connection breaks
        self.duplicate = 0.0
        self.blocked: set[tuple[str, str]] = set()


STALL = 0.03


class Connection:
    """One dialled connection, between one life of each end."""

    def __init__(self, network: Network, client: Host, server: Host) -> None:
        self.network, self.client, self.server = network, client, server
        self.client_life, self.server_life = client.life, server.life
        self.open = True
        network.kernel.after(network.call_timeout / 2, self._watch)
        self.waiting: deque[tuple[object, float]] = deque()  # tokens sent and not answered, oldest first
        self._requests: deque[tuple[float, object, Any]] = deque()
        self._answers: deque[tuple[float, object, Any]] = deque()
        self._last_request = self._last_answer = 0.0

    def send(self, token: object, message: Any) -> None:
        network = self.network
        kernel = network.kernel
        self.waiting.append((token, kernel.now))
        self._last_request = max(self._last_request, kernel.now + network.latency())
        self._requests.append((self._last_request, token, message))
        if len(self._requests) == 1:
            kernel.at(self._last_request, self._deliver_request)
        if kernel.chance(network.faults.reset):
            kernel.after(network.latency(), lambda: self.close("reset"))

    def _watch(self) -> None:
        """A call that waits too long ends its connection."""
        if not self.open:
            return
        if self.waiting and self.network.kernel.now - self.waiting[0][1] > self.network.call_timeout and self.client.reachable():
            self.close("no answer")
        else:
            self.network.kernel.after(self.network.call_timeout / 2, self._watch)

    def _deliver_request(self) -> None:
        kernel = self.network.kernel
        if not self.open:
            return
        if self.server.life != self.server_life:
            self.close("reset by a restarted peer")
            return
        if (self.client.id, self.server.id) in self.network.faults.blocked or not self.server.reachable():
            kernel.after(STALL, self._deliver_request)
            return
        _, token, message = self._requests.popleft()
        if self._requests:
            kernel.at(self._requests[0][0], self._deliver_request)
        if kernel.chance(self.network.faults.duplicate):
            kernel.seen["requests twice"] += 1
            self.network.stray(self, message, None, kernel.between(0.0, 1.0))
        self.server.on_request((self, token), message)

    def answer(self, token: object, message: Any) -> None:
        """The server's side: answers come in the order of the requests."""
        if not self.open:
            self.network.late_answer(self, token, message)
            return
        self._last_answer = max(self._last_answer, self.network.kernel.now + self.network.latency())
        self._answers.append((self._last_answer, token, message))
        if len(self._answers) == 1:
            self.network.kernel.at(self._last_answer, self._deliver_answer)

    def _deliver_answer(self) -> None:
        kernel = self.network.kernel
        if not self.open:
            return
        if (self.server.id, self.client.id) in self.network.faults.blocked or not self.client.reachable():
            kernel.after(STALL, self._deliver_answer)
            return
        _, token, message = self._answers.popleft()
        if self._answers:
            kernel.at(self._answers[0][0], self._deliver_answer)
        expected, _ = self.waiting.popleft()
        assert expected is token, "answers left the server out of order"
        self.client.on_response(self.server.id, token, message)

    def close(self, why: str) -> None:
        """Broken: every open call fails, now or a little later; what was on its way may still arrive."""
        if not self.open:
            return
        self.open = False
        network, kernel = self.network, self.network.kernel
        network.connections.discard(self)
        kernel.note(self.client.id, "closed", f"to {self.server.id}: {why}")
        for _, token, message in self._requests:
            if kernel.chance(0.5):
                kernel.seen["requests late"] += 1
                network.stray(self, message, token, kernel.between(0.0, 2.0))
        for _, token, message in self._answers:
            network.late_answer(self, token, message)
        for token, _ in self.waiting:
            if kernel.chance(0.5):
                network.late_answer(self, token, None)
        network.when_reachable(self.client, lambda: self.client.on_disconnected(self.server.id, self))


class Network:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.faults = Faults()
        self.connections: set[Connection] = set()
        self.call_timeout = 2.0

    def latency(self) -> float:
        if self.kernel.chance(self.faults.spike):
            return self.kernel.between(0.0, 0.3)
        return self.kernel.between(*self.faults.delay)

    def open_path(self, a: str, b: str) -> bool:
        return (a, b) not in self.faults.blocked and (b, a) not in self.faults.blocked

    def when_reachable(self, host: Host, action: Any) -> None:
        if host.reachable():
            action()
        else:
            self.kernel.after(STALL, lambda: self.when_reachable(host, action))

    def post(self, sender: Host, receiver: Host, deliver: Callable[[], None]) -> None:
        """A message beside Raft's connections: it may be overtaken, waits a while at a cut or for who is paused, and is lost with a process."""
        life, deadline = receiver.life, self.kernel.now + 2.0

        def arrive() -> None:
            if receiver.life != life or self.kernel.now > deadline:
                return
            if receiver.reachable() and (sender.id, receiver.id) not in self.faults.blocked:
                deliver()
            else:
                self.kernel.after(STALL, arrive)

        self.kernel.after(self.latency(), arrive)

    def stray(self, connection: Connection, message: Any, token: object, delay: float) -> None:
        """A request arrives outside of its connection's order: late, or a second time."""
        server = connection.server

        def deliver() -> None:
            alive = server.reachable() and server.life == connection.server_life
            if alive and (connection.client.id, server.id) not in self.faults.blocked:
                server.on_request((None, None) if token is None else (connection, token), message)

        self.kernel.after(delay, deliver)

    def late_answer(self, connection: Connection, token: object, message: Any) -> None:
        client = connection.client

        def deliver() -> None:
            if client.reachable() and client.life == connection.client_life:
                client.on_response(connection.server.id, token, message)

        self.kernel.after(self.kernel.between(0.0, 1.0), deliver)

    def close_all_of(self, host: Host) -> None:
        """The process died: whoever was connected learns it at once, unless it is cut off (then its calls time out)."""
        for connection in sorted(self.connections, key=lambda c: (c.client.id, c.server.id)):
            if connection.client is host:
                self.connections.discard(connection)
                connection.open = False
            elif connection.server is host and self.open_path(connection.client.id, host.id):
                self.kernel.after(self.latency(), lambda connection=connection: connection.close("peer died"))
