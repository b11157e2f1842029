"""`GET /backup`: a backup of the running node, as it comes.

The node goes on meanwhile: the snapshot is one state of its buffer, in a file of its own, of which a thread reads a piece when the client has taken the one
before. One backup at a
time, since each takes as much of the disk as the node retains.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from starlette.responses import StreamingResponse

from coterie.actors.backup_messages import TakeBackup, TakenBackup
from coterie.actors.errors import Overloaded
from coterie.actors.management.service import ClusterService
from coterie.proto.backup import frames

__all__ = ["BackupFeed"]


class BackupFeed:
    """wait: awaits a future of the cluster for so many seconds."""

    def __init__(self, service: ClusterService, wait: Callable[[Any, float], Awaitable[Any]]) -> None:
        self._service, self._wait = service, wait
        self._busy = False

    async def answer(self) -> StreamingResponse:
        """Raises Overloaded while another one is on its way, and what the node refuses it with."""
        if self._busy:
            raise Overloaded("a backup of this node is on its way; ask again when it has ended, or ask another node")
        self._busy = True
        message = TakeBackup()
        asked = self._service.request(message)
        try:
            taken: TakenBackup = await self._wait(asked, message.timeout)
        except BaseException:
            self._busy = False
            asked.on_done(lambda: None if asked.error is not None else asked.get().content.close())  # it comes too late
            raise
        return _Stream(frames(taken.header, taken.content), lambda: self._over(taken))

    def _over(self, taken: TakenBackup) -> None:
        self._busy = False
        taken.content.close()


class _Stream(StreamingResponse):
    """Calls `over` at the end, also when the client is gone before it."""

    def __init__(self, pieces: Iterator[bytes], over: Callable[[], None]) -> None:
        super().__init__(_read(pieces), media_type="application/octet-stream", headers={"cache-control": "no-store"})
        self._over = over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


async def _read(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    with contextlib.closing(pieces):  # type: ignore[type-var]
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
