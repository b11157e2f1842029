"""The TLS front of the HTTP server: a connection shakes hands first, and only then does its HTTP protocol hear of it.

asyncio's own TLS servers take one context for ever and tell nobody which handshakes failed. Here every connection is upgraded by itself: with the context
that is in force at that moment, within a bounded time, and what fails is counted and named. While it shakes hands it counts as a connection of the server,
so that a crowd of silent diallers is bounded like any other, and it ends with the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from coterie.transport.crowd import Crowd
from coterie.transport.limits import Complaints
from coterie.transport.listener import peer_text
from coterie.transport.tls import HANDSHAKE_TIMEOUT, Tls, explain

__all__ = ["TlsFront"]

SHUTDOWN_TIMEOUT: Final = 1.0


class TlsFront(asyncio.Protocol):
    """connections: those of the server; crowd: who may be inside. serve(): makes the protocol of a connection that has shaken hands."""

    def __init__(
        self, tls: Tls, connections: set[Any], crowd: Crowd, serve: Callable[[], asyncio.Protocol], complain: Complaints, timeout: float
    ) -> None:
        self._tls, self._connections, self._crowd, self._serve, self._complain = tls, connections, crowd, serve, complain
        self._timeout = min(timeout, HANDSHAKE_TIMEOUT)
        self._raw: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._early: list[bytes] = []  # what came with the end of the handshake
        self._over: list[Exception | None] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        raw = cast(asyncio.Transport, transport)
        self._raw = raw
        if not self._crowd.enter(self)[0]:
            self._complain("connections refused", _peer(raw), f"{self._crowd.most} are open")
            raw.abort()
            return
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._upgrade(raw))

    def put_out(self) -> None:
        self._raw.abort()

    def shutdown(self) -> None:
        """The server stops."""
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._over.append(exc)

    async def _upgrade(self, raw: asyncio.Transport) -> None:
        peer = _peer(raw)
        try:
            transport = await asyncio.get_running_loop().start_tls(
                raw,
                self,
                self._tls.server(),
                server_side=True,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        except (OSError, EOFError) as error:
            told = explain(TimeoutError() if "handshake is taking longer" in str(error) else error)
            self._complain(f"TLS: {told.reason}", peer, told)
            return
        finally:
            self._connections.discard(self)
            self._crowd.leave(self)
        if transport is None or self._over:
            self._complain("TLS: handshakes broken off", peer, "the other side hung up right after its handshake")
            return
        protocol = self._serve()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for data in self._early:
            protocol.data_received(data)


def _peer(transport: asyncio.Transport) -> str:
    name = transport.get_extra_info("peername")
    return peer_text(name) if name else "a peer that is gone"
