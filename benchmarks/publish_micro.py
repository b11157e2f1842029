"""What a publish costs in one process: inbox, check, packing, applying, answering, delivery, buffer; with a Raft that commits at once.

python -m benchmarks.publish_micro [records] [in flight]
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

from coterie.actors.base import Actor
from coterie.actors.handler import HandlerActor
from coterie.actors.handler_messages import SetHandler
from coterie.actors.messages import Publish
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.room import Replication
from coterie.actors.room_messages import Committed, Propose, Topology
from coterie.proto.raft_messages import COMMAND, Entry


class InstantRaft(Actor):
    """Commits what is proposed, a burst at a time."""

    concern = "raft"

    def __init__(self) -> None:
        super().__init__("bench")
        self.publisher: Any = None
        self._burst_entries: list[tuple[Entry, Any]] = []
        self.index = 0

    def on_receive(self, message: Any) -> Any:
        if message.__class__ is Propose:
            self.index += 1
            self._burst_entries.append((Entry(self.index, 1, COMMAND, message.data), message.context))
        elif message.__class__ is tuple:
            self.publisher = message[0]

    def flush(self) -> None:
        if self._burst_entries:
            entries, self._burst_entries = self._burst_entries, []
            self.publisher.tell(Committed(entries))


class NoLink:
    def open(self, leader_id: str, on_reply: Any, on_closed: Any) -> None:
        return None


class Handler(HandlerActor):
    def handle_sync(self, topic: str, data: bytes) -> None:
        pass


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    depth = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    room = Replication("bench", MemoryBuffer(), NoLink(), lambda *_: True, lambda _: None)
    raft = InstantRaft.start()
    publisher = room.start(raft)
    raft.tell((publisher,))
    handler = Handler.start()
    publisher.tell(SetHandler(handler))
    publisher.tell(Topology(term=1, leader_id="bench", leads=True, in_quorum=True, live=frozenset({"bench"})))
    payload = b"x" * 128
    for how in ("ask", "ask", "tell"):
        waiting: deque[Any] = deque()
        began = time.perf_counter()
        for n in range(count):
            if how == "tell" and n % depth:
                publisher.tell(Publish("topic", payload))
                continue
            waiting.append(publisher.ask(Publish("topic", payload), block=False))
            if len(waiting) >= (depth if how == "ask" else 2):
                waiting.popleft().get(timeout=30)
        while waiting:
            waiting.popleft().get(timeout=30)
        took = time.perf_counter() - began
        print(f"{how}, {depth} in flight: {count / took:,.0f} records/s, {1e6 * took / count:.2f} us each")
    room.stop()
    raft.stop()
    handler.stop()


if __name__ == "__main__":
    main()
