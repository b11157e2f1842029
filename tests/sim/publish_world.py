"""Publishing on top of the simulated Raft: state machine, dedupe window and buffer of each node, under the same faults.

A client publishes batches at nodes that it takes for the leader, half of the records with a message id, and publishes again, with the same id, what it
got no answer for. Each node applies what is committed and writes its buffer now and then; a crash loses what was not written. What must hold:

- every place (topic, seq) holds the same record on every node, for ever, whoever applied it and after whichever restarts;
- what was acknowledged is at the place that was acknowledged;
- a record with a message id has one place, however often it was tried;
- each node delivers each topic in order, without a hole, and goes back only to where its buffer was written last.
"""

from __future__ import annotations

import io
from random import Random
from typing import Any

from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Role
from coterie.actors.raft.refusals import Refusal
from coterie.actors.replication.buffer import BufferWrite, Remembered
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.recovery import recovered
from coterie.actors.replication.snapshots import check, dump, restore
from coterie.actors.replication.state_machine import StateMachine
from coterie.proto.raft_messages import COMMAND, Entry
from coterie.proto.record_batch import Batch, decode_batch, decode_entry, encode_batch, encode_entry
from tests.sim.application import Application
from tests.sim.node import SimNode

TOPICS = ("orders", "a/b", "a_b")


def identity(record: Any) -> tuple[bytes, str | None]:
    return (record, None) if isinstance(record, bytes) else (record[0], record[1])


class PublishState:
    """One node: `buffer` survives a crash, the rest does not."""

    def __init__(self, buffer: MemoryBuffer) -> None:
        self.buffer = buffer
        self.machine: StateMachine
        self.cursors: dict[str, int]
        self.restart()

    def restart(self) -> None:
        self.machine, state = recovered(self.buffer)
        self.cursors = {topic: stored.cursor or 1 for topic, stored in state.topics.items()}

    def become(self, snapshot: io.BytesIO) -> None:
        """The snapshot takes the place of what the buffer holds; what was not written yet is part of it."""
        content = check(snapshot)
        restore(self.buffer, snapshot, content, b"mark")
        self.machine.become(
            {topic: next_seq for topic, (next_seq, _) in content.topics.items()}, content.applied, content.ids, content.roster
        )
        for topic, (next_seq, _) in content.topics.items():
            self.cursors[topic] = max(next_seq, self.cursors.get(topic, 1))  # delivered from the buffer, where it is retained
        self.buffer.write(BufferWrite(cursors=dict(self.cursors)))

    @property
    def index(self) -> int:
        return self.machine.applied[0]

    def write(self) -> None:
        """The buffer writer's transaction."""
        outcome = self.machine.take_outcome()
        entered: dict[bytes, Remembered] = {}
        left = []
        for key, remembered in outcome.ids:
            if remembered is not None:
                entered[key] = remembered
            elif entered.pop(key, None) is None:
                left.append(key)
        self.buffer.write(BufferWrite(outcome.stored, {}, dict(self.cursors), self.machine.applied, list(entered.values()), left))


class Publishing(Application):
    """The application of the `publish` world."""

    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.proposed = 0
        self.acknowledged: dict[tuple[bytes, str | None], tuple[str, int, int]] = {}
        self.places: dict[tuple[str, int], tuple[bytes, str | None]] = {}
        self.place_of_id: dict[str, tuple[str, int]] = {}
        self.retries: list[tuple[str, Any]] = []

    def start(self, node: SimNode) -> int:
        if node.state is None:
            node.state = PublishState(MemoryBuffer())
        node.state.restart()
        return node.state.index

    def read(self, random: Random, lease: bool) -> None:
        """Reads are asked in the world of commands, whose oracle knows what they may see."""

    def sync(self, node: SimNode) -> int:
        node.state.write()
        return int(node.state.index)

    def snapshot(self, node: SimNode) -> tuple[int, bytes]:
        """Of what the buffer holds: behind what is applied, as in a real node."""
        out = io.BytesIO()
        index, _ = dump(node.state.buffer, out)
        return index, out.getvalue()

    def restore(self, node: SimNode, mark: SnapshotMark, content: bytes) -> None:
        node.state.write()
        node.state.become(io.BytesIO(content))
        self.world.kernel.require(node.state.index == mark.index, f"{node.id}: the snapshot of {mark.index} ends at {node.state.index}")
        for topic, stored in node.state.buffer.load().topics.items():
            for batch in node.state.buffer.read(topic, stored.first_seq, 1 << 40, 1 << 20) if stored.batches else ():
                for offset, record in enumerate(decode_batch(batch.data).records):
                    self._holds(node, topic, batch.first_seq + offset, identity(record))

    def apply(self, node: SimNode, entry: Entry, context: Any) -> None:
        require = self.world.kernel.require
        state: PublishState = node.state
        batches: list[Batch] = decode_entry(entry.data) if entry.kind == COMMAND else []
        if context is not None:
            require(context == batches, f"{node.id}: the entry at {entry.index} is not what was packed for it")
            batches = context
        require(entry.index == state.index + 1, f"{node.id}: entry {entry.index} after {state.index}")
        self.world.kernel.seen["proposals acknowledged"] += context is not None
        for batch, placed in zip(batches, state.machine.apply(entry.index, entry.term, batches), strict=True):
            self._placed(node, batch, placed, entry.index, own=context is not None)
        if self.world.kernel.chance(0.3):
            state.write()

    def _placed(self, node: SimNode, batch: Batch, placed: Any, index: int, own: bool) -> None:
        seq, cursors = placed.first_seq, node.state.cursors
        for position, record in enumerate(batch.records):
            known = (placed.duplicates or {}).get(position)
            place = known or (seq, index)
            self._holds(node, batch.topic, place[0], identity(record))
            if own:
                self.world.kernel.seen["duplicates found"] += known is not None
                self.acknowledged[identity(record)] = (batch.topic, *place)
                self.acknowledged_at = self.world.kernel.now
            if known is None:
                if cursors.get(batch.topic, 1) != seq:
                    self.world.kernel.fail(f"{node.id} delivers {batch.topic} {seq} at cursor {cursors.get(batch.topic, 1)}")
                cursors[batch.topic] = seq + 1
                seq += 1

    def _holds(self, node: SimNode, topic: str, seq: int, record: tuple[bytes, str | None]) -> None:
        fail = self.world.kernel.fail
        before = self.places.setdefault((topic, seq), record)
        if before != record:
            fail(f"{node.id}: {topic} {seq} is {record}; elsewhere it is {before}")
        if record[1] is not None:
            place = self.place_of_id.setdefault(record[1], (topic, seq))
            if place != (topic, seq):
                fail(f"{node.id}: {record} is at {topic} {seq} and at {place}")

    def abandoned(self, node: SimNode, context: Any) -> None:
        """Indeterminate: what has an id is tried again."""
        self.retries += [(batch.topic, record) for batch in context for record in batch.records if not isinstance(record, bytes)]

    def client(self) -> None:
        kernel, world = self.world.kernel, self.world
        up = [node for node in world.nodes.values() if node.reachable()]
        if not up:
            return
        leaders = [node for node in up if node.core.role is Role.LEADER]
        node = kernel.random.choice(leaders if leaders and kernel.chance(0.9) else up)
        batches = self._batches(int(node.clock.wall(kernel.now) * 1000))
        try:
            node.core.propose([encode_entry([batch.data for batch in batches])], [batches], node.now())
        except Refusal:
            self.abandoned(node, batches)
            return
        kernel.note(node.id, "publish", [(batch.topic, len(batch.records)) for batch in batches])
        if kernel.chance(0.1):  # the connection breaks before the answer: published again although it may be in the log
            self.abandoned(node, batches)
        node.step()

    def _batches(self, time: int) -> list[Batch]:
        random = self.world.kernel.random
        waiting: dict[str, list[Any]] = {}
        for _ in range(random.randint(1, 6)):
            if self.retries and random.random() < 0.4:
                topic, record = self.retries.pop(random.randrange(len(self.retries)))
                self.world.kernel.seen["records published again"] += 1
            else:
                self.proposed += 1
                data = b"r%d" % self.proposed
                topic, record = random.choice(TOPICS), [data, f"id{self.proposed}", None] if random.random() < 0.5 else data
            waiting.setdefault(topic, []).append(record)
        return [encode_batch(topic, time, records) for topic, records in waiting.items()]

    def finish(self, members: list[SimNode]) -> None:
        """Every log, replayed from its begin, gives the places that were ever given."""
        fail = self.world.kernel.fail
        judged: list[Entry] | None = None
        for node in members:
            name, log = node.id, node.disk.log[: node.core.commit]
            if log == judged:
                continue
            judged = log
            machine = StateMachine()
            replayed: dict[tuple[str, int], tuple[bytes, str | None]] = {}
            for entry in log:
                batches = decode_entry(entry.data) if entry.kind == COMMAND else []
                machine.apply(entry.index, entry.term, batches)
                for batch in machine.take_outcome().fresh:
                    replayed |= {(batch.topic, batch.first_seq + n): identity(record) for n, record in enumerate(batch.records)}
            for place, record in self.places.items():
                if replayed.get(place) != record:
                    fail(f"{name}: {place} was {record}; its log gives {replayed.get(place)}")
            for record, (topic, seq, _) in self.acknowledged.items():
                if replayed.get((topic, seq)) != record:
                    fail(f"{name}: {record} was acknowledged at {topic} {seq} and is not there")
