"""`GET /events`: what happens in the cluster, as lines of JSON for as long as somebody listens.

Each listener has an `EventStream` of its own, which wakes its task on the server's event loop; no thread waits, and no event waits for a listener. One that
reads slowly is held up by its own socket; its stream fills, what does not fit is lost to it, and it is told how many (`EventsMissed`). A line at the start,
and one whenever nothing has happened for `HEARTBEAT` seconds, tell both ends that the other is there. When the node stops, the streams end, and so do the answers.
(A thread for each listener lost: it would have to be stopped from without, and bounded twice.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import attrs
from starlette.requests import Request
from starlette.responses import StreamingResponse

from coterie.actors.errors import Overloaded, Unreachable
from coterie.actors.management.service import ClusterService
from coterie.actors.messages import Event, Subscribe

__all__ = ["EventFeed", "event_document"]

MAX_LISTENERS: Final = 64
CAPACITY: Final = 256  # events that may wait for one listener
HEARTBEAT: Final = 10.0


def event_document(event: Event) -> dict[str, Any]:
    """{"event": its name, "time": seconds since the epoch, "term": …} and the event's own fields, in camel case; "current": true where it is no news."""
    fields = attrs.asdict(event, filter=lambda field, value: field.name != "current" or value)
    return {"event": type(event).__name__, **{_camel(name): value for name, value in fields.items()}}


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


class EventFeed:
    """The listeners of one node. `close` ends their streams, from any thread. wait: awaits a future of the cluster for so many seconds."""

    def __init__(self, service: ClusterService, wait: Callable[[Any, float], Awaitable[Any]], heartbeat: float = HEARTBEAT) -> None:
        self._service, self._wait, self._heartbeat = service, wait, heartbeat
        self._streams: set[Any] = set()
        self._opening = 0
        self._closed = threading.Event()

    async def answer(self, request: Request) -> StreamingResponse:
        """Raises Overloaded when there are `MAX_LISTENERS` already, Unreachable when the node stops."""
        if self._closed.is_set():
            raise Unreachable("this node is stopping; listen to another one")
        if len(self._streams) + self._opening >= MAX_LISTENERS:
            raise Overloaded(f"{MAX_LISTENERS} listeners are there already; listen to another node, or end one of them")
        self._opening += 1
        asked = self._service.request(Subscribe(capacity=CAPACITY))
        try:
            stream = await self._wait(asked, self._service.timeout)
        except BaseException:
            asked.on_done(lambda: None if asked.error is not None else asked.get().close())  # it comes too late: nobody would ever close it
            raise
        finally:
            self._opening -= 1
        self._streams.add(stream)
        if self._closed.is_set():
            stream.end()

        def over() -> None:
            self._streams.discard(stream)
            stream.close()

        return _Lines(self._lines(stream), over)

    def close(self) -> None:
        self._closed.set()
        for stream in list(self._streams):
            stream.end()

    async def _lines(self, stream: Any) -> AsyncIterator[bytes]:
        loop, something = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has stopped
                loop.call_soon_threadsafe(something.set)

        stream.on_change(wake)
        yield self._beat(stream)
        while True:
            something.clear()
            closed = stream.closed
            while (event := stream.get(timeout=0)) is not None:
                yield _line(event_document(event))
            if closed:
                return
            try:
                async with asyncio.timeout(self._heartbeat):
                    await something.wait()
            except TimeoutError:
                yield self._beat(stream)

    def _beat(self, stream: Any) -> bytes:
        return _line({"event": "heartbeat", "time": time.time(), "node": self._service.node_id, "missed": stream.missed})


class _Lines(StreamingResponse):
    """Calls `over` at the end, also of a listener that is gone before the first line."""

    def __init__(self, lines: AsyncIterator[bytes], over: Callable[[], None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson", headers={"cache-control": "no-store"})
        self._over = over

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._over()


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
