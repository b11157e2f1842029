"""All publishes of a node that wait for their entry: the lanes, and the bound over all of them.

`add` runs once per record: everything else in the room runs once per burst, chunk or batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from coterie.actors.dead_letters import OWN_BYTES, OWN_HEADERS
from coterie.actors.errors import Overloaded
from coterie.actors.future import LightFuture
from coterie.actors.messages import Acks, Publish, PublishMany
from coterie.actors.replication.packing import Chunk, Lane
from coterie.actors.replication.requests import (
    MAX_HEADERS,
    check_acks,
    check_data,
    check_records,
    check_timeout,
    check_topic,
    enriched,
    too_large,
)
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto.record_batch import Record

LETTER_RECORDS: Final = 1024  # room beyond the bound
LETTER_BYTES: Final = 64 << 20


class Waiting:
    """most_records, most_bytes: the bound. Above it a publish is refused at once. most_batch: bytes of one `PublishMany`. room_for_all: called for what is to be
    delivered by all; raises Overloaded when too much of that waits already.

    letters: the dead-letter topic. Letters have room of their own beyond the bound, also those that other nodes have written: the record that one is about
    holds its topic's window shut until its letter is committed, and what fills the queue then is just what waits for that window.
    """

    def __init__(
        self,
        max_payload: int,
        timeout: float,
        most_records: int,
        most_bytes: int,
        letters: str = "",
        most_batch: int = 1 << 20,
        room_for_all: Callable[[], object] = lambda: None,
    ) -> None:
        self._max_payload, self._timeout, self._most_records, self._most_bytes = max_payload, timeout, most_records, most_bytes
        self._most_batch, self._letters, self._room_for_all = most_batch, letters, room_for_all
        self._lanes: dict[str, Lane] = {}
        self._reserved = {COMMANDS_TOPIC: Lane(COMMANDS_TOPIC)}  # not among the lanes, where a publish on that topic would find it
        self.active: dict[str, Lane] = {}  # lanes with chunks, the next to be served first
        self._open: list[Lane] = []
        self.records = 0
        self.bytes = 0

    def add(self, message: Publish, reply: LightFuture | None) -> None:
        """Queue one publish. Raises InvalidRequest, PayloadTooLarge, Overloaded."""
        topic, data = message.topic, message.data
        lane = self._lanes.get(topic) if topic.__class__ is str else None
        if lane is None:
            lane = Lane(check_topic(topic))
        record: Any = data
        if data.__class__ is not bytes:
            record = data = check_data(data)
        size = len(data)
        if size > self._max_payload:
            raise too_large(topic, size, self._max_payload)
        if message.message_id is not None or message.headers is not None:
            record, size = enriched(message, data)
            if size > self._max_payload:
                raise too_large(topic, size, self._max_payload)
        if self.records >= self._most_records or self.bytes + size > self._most_bytes:
            raise self.full()
        chunk = lane.open
        if chunk is None or lane.key != (message.timeout, message.acks):
            chunk = self._begin(lane, message)
        chunk.records.append(record)
        chunk.replies.append(reply)
        chunk.size += size
        self.records += 1
        self.bytes += size

    def add_many(self, message: PublishMany, reply: LightFuture | None) -> None:
        """Queue the records of one call, which stay together. Raises as `add`."""
        topic = check_topic(message.topic)
        records, size = check_records(topic, message.data, self._max_payload, self._most_batch)
        timeout, acks = check_timeout(message.timeout, self._timeout), self._level(message.acks)
        self._check_room(topic, len(records), size)
        first = [] if message.trace is None else [[records[0], None, message.trace]]
        chunk = self._whole(topic, [*first, *records[len(first) :]], size, time.monotonic() + timeout, acks == "leader")
        chunk.whole, chunk.reply, chunk.by_all = True, reply, acks == "all"

    def add_own(self, message: Publish, reply: LightFuture | None) -> None:
        """Queue a publish of the node itself, which has headers of its own beside those of the application: the limits have room for them. Raises as `add`."""
        lane = self._lanes.get(message.topic) or Lane(check_topic(message.topic))
        record, size = enriched(message, message.data, MAX_HEADERS + OWN_HEADERS)
        if size > self._max_payload + OWN_BYTES:
            raise too_large(message.topic, size, self._max_payload)
        self._check_room(message.topic, 1, size)
        chunk = self._begin(lane, message)
        chunk.records.append(record)
        chunk.replies.append(reply)
        chunk.size += size
        self.records += 1
        self.bytes += size

    def add_command(self, record: Record, size: int, timeout: float, reply: Any) -> None:
        """Queue one command, which was checked. size: of its record; timeout: seconds; reply: as in `Chunk.replies`. Raises Overloaded."""
        lane = self._reserved[COMMANDS_TOPIC]
        self._check_room(COMMANDS_TOPIC, 1, size)
        chunk = lane.open
        if chunk is None or lane.key != (timeout, "quorum"):
            self.active[lane.topic] = lane
            self._open.append(lane)
            chunk = lane.begin(time.monotonic() + timeout, False, (timeout, "quorum"))
        chunk.records.append(record)
        chunk.replies.append(reply)
        chunk.size += size
        self.records += 1
        self.bytes += size

    def _begin(self, lane: Lane, message: Publish) -> Chunk:
        timeout, acks = check_timeout(message.timeout, self._timeout), self._level(message.acks)
        self._lanes[lane.topic] = self.active[lane.topic] = lane
        self._open.append(lane)
        chunk = lane.begin(time.monotonic() + timeout, acks == "leader", (message.timeout, acks))
        chunk.by_all = acks == "all"
        return chunk

    def _level(self, acks: Any) -> Acks:
        checked = check_acks(acks)
        if checked == "all":
            self._room_for_all()
        return checked

    def add_forwarded(self, topic: str, records: list[Any], size: int, deadline: float, early: bool, ticket: Any) -> None:
        """Queue a batch that a follower forwarded. Raises Overloaded."""
        self._check_room(topic, len(records), size)
        self._whole(topic, records, size, deadline, early, ticket)

    def _whole(self, topic: str, records: list[Any], size: int, deadline: float, early: bool, ticket: Any = None) -> Chunk:
        lane = self._lanes.get(topic) or self._reserved.get(topic)
        if lane is None:
            lane = self._lanes[topic] = Lane(topic)
        chunk = lane.begin(deadline, early, None, ticket)
        chunk.records, chunk.size = records, size
        lane.serial += len(records)
        self.active[topic] = lane
        self.records += len(records)
        self.bytes += size
        return chunk

    def close_open(self) -> None:
        """The burst is over."""
        for lane in self._open:
            lane.close()
        self._open.clear()

    def take(self, lane: Lane, room: int, limit: int, budget: int, uniform: bool = False) -> tuple[list[Chunk], int]:
        """As `Lane.take`; the lane goes to the end of the line, or out of it when it is empty."""
        taken, size = lane.take(room, limit, budget, uniform)
        for chunk in taken:
            self._leave(chunk)
        del self.active[lane.topic]
        if lane.chunks:
            self.active[lane.topic] = lane
        return taken, size

    def put_back(self, chunks: Iterable[Chunk]) -> None:
        """Chunks that are certainly not in the log go back to their places. What has its answer already does not."""
        by_topic: dict[str, list[Chunk]] = {}
        for chunk in chunks:
            if not chunk.settled:
                by_topic.setdefault(chunk.topic, []).append(chunk)
                self.records += len(chunk.records)
                self.bytes += chunk.size
        for topic, returned in by_topic.items():
            lane = self._reserved.get(topic) or self._lanes[topic]
            lane.put_back(returned)
            self.active[topic] = lane

    def remove(self, wanted: Any) -> list[Chunk]:
        """Take out every chunk for which `wanted(chunk)` holds."""
        removed = []
        for lane in list(self.active.values()):
            if not any(map(wanted, lane.chunks)):
                continue
            lane.close()
            kept = [chunk for chunk in lane.chunks if not wanted(chunk)]
            removed += [chunk for chunk in lane.chunks if wanted(chunk)]
            lane.chunks.clear()
            lane.chunks.extend(kept)
            if not kept:
                del self.active[lane.topic]
        for chunk in removed:
            self._leave(chunk)
        return removed

    def _check_room(self, topic: str, records: int, size: int) -> None:
        """For what applications do not publish here themselves. Raises Overloaded."""
        more_records, more_bytes = (LETTER_RECORDS, LETTER_BYTES) if topic == self._letters else (0, 0)
        if self.records + records > self._most_records + more_records or self.bytes + size > self._most_bytes + more_bytes:
            raise self.full()

    def full(self) -> Overloaded:
        return Overloaded(
            f"{self.records} publishes ({self.bytes} bytes) wait already; the queue holds {self._most_records} records and {self._most_bytes} bytes: publish "
            "slower, or look in the status for what holds the topics up"
        )

    def _leave(self, chunk: Chunk) -> None:
        self.records -= len(chunk.records)
        self.bytes -= chunk.size
