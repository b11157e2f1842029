"""Delivery of commands in a room between fakes: where a handler begins, what of its state is kept, and what happens where commands are missing."""

from __future__ import annotations

import gc
import io
import struct
import tempfile
import threading

import pytest

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.errors import AlreadyApplied, HandlerFailed, Indeterminate, InvalidRequest
from coterie.actors.handler import HandlerActor
from coterie.actors.handler_messages import AwaitCommands, WrittenState
from coterie.actors.messages import Applied, Apply, ReplicationGap
from coterie.actors.replication.buffer import StateHead
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.snapshots import check, dump, restore
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.proto.command_state import chunk_blocks, row_blocks
from coterie.proto.record_batch import encode_batch, encode_entry
from tests.unit.replication_support import actor_of, cluster, eventually


class InMemory(HandlerActor):
    """A list of what it applied; a snapshot of it in one chunk for each."""

    def __init__(self, snapshots=True):
        self.items, self.given, self.restored = [], [], 0
        self.broken = ""
        if not snapshots:
            self.handle_snapshot = super().handle_snapshot
            self.handle_restore = super().handle_restore
        super().__init__()

    def handle_apply(self, index, op, data):
        self.given.append(index)
        if op == "raise":
            raise ValueError("no")
        self.items.append(data)
        return b"%d:%s" % (index, data)

    def handle_snapshot(self):
        if self.broken:
            raise ValueError(self.broken)
        yield from self.items

    def handle_restore(self, chunks):
        self.items = list(chunks)
        self.restored += 1


class Slow(InMemory):
    """Takes its time with a snapshot."""

    def __init__(self, begun, go):
        self.begun, self.go = begun, go
        super().__init__()

    def handle_snapshot(self):
        self.begun.set()
        assert self.go.wait(10)
        yield from self.items


class Plain(HandlerActor):
    """As that one, without snapshots."""

    def __init__(self):
        self.items, self.given = [], []
        super().__init__()

    def handle_apply(self, index, op, data):
        self.given.append(index)
        self.items.append(data)
        return data


class Keeps(HandlerActor):
    """Keeps its state in a dict of the test, which may be put back to what it was."""

    def __init__(self, disk):
        self.disk, self.given = disk, []
        super().__init__()

    def applied_index(self):
        return self.disk.get("index", 0)

    def handle_apply(self, index, op, data):
        self.given.append(index)
        self.disk["items"] = [*self.disk.get("items", []), data]
        self.disk["index"] = index
        return b"%d:%s" % (index, data)


def register(node, handler, *args):
    ref = handler.start(*args)
    node.handlers.append(ref)
    node.room.set_handler(ref)
    return actor_of(ref)


def ask(node, op="add", data=b"x", **more):
    return node.publisher.ask(Apply(op, data, **more), timeout=10)


def fill(node, count, start=0):
    futures = [node.publisher.ask(Apply("add", b"%d" % n), block=False) for n in range(start, start + count)]
    return [future.get(timeout=10) for future in futures]


def handled(node):
    assert node.publisher.ask(AwaitCommands(known(node)), timeout=10) is True


def known(node):
    """How many commands this node has applied or has stored."""
    return max((topic.seq for topic in node.view().topics if topic.topic == COMMANDS_TOPIC), default=0)


def numbers(count, start=0):
    return [b"%d" % n for n in range(start, start + count)]


# -- snapshots of the handler's state ---------------------------------------------------------------------------------------------


def test_a_snapshot_is_taken_and_what_is_below_it_alone_may_go():
    with cluster("n1", every=20, retain_records=10, gap=0.0) as (n1, _):
        handler = register(n1, InMemory)
        fill(n1, 15)
        eventually(lambda: n1.buffer.state(COMMANDS_TOPIC).cursor == 16)
        assert n1.buffer.state_head() is None and n1.buffer.state(COMMANDS_TOPIC).first_seq == 1
        fill(n1, 100, 15)
        head = eventually(n1.buffer.state_head)
        assert head.index >= 20
        for n in range(10):
            fill(n1, 10, 115 + 10 * n)
            state, head = n1.buffer.state(COMMANDS_TOPIC), n1.buffer.state_head()
            assert state.first_seq <= head.index + 1
        eventually(lambda: n1.buffer.state(COMMANDS_TOPIC).first_seq > 100)
        assert handler.items == numbers(215)


def test_a_stop_waits_for_a_snapshot_that_is_being_written_and_leaves_no_file_open(caplog):
    begun, go = threading.Event(), threading.Event()
    with cluster("n1", every=20, gap=0.0) as (n1, _):
        register(n1, Slow, begun, go)
        fill(n1, 25)
        assert begun.wait(10)
        threading.Timer(0.1, go.set).start()
        n1.room.stop()
    gc.collect()  # a file that is open still is a warning, and that an error
    assert "did not finish" not in caplog.text


def test_bytes_of_commands_make_a_snapshot_due_too():
    with cluster("n1", every=1000, every_bytes=5000, gap=0.0) as (n1, _):
        register(n1, InMemory)
        ask(n1, data=bytes(6000))
        ask(n1)
        assert eventually(n1.buffer.state_head).index <= 2


def test_a_new_handler_in_memory_begins_with_the_snapshot():
    with cluster("n1", every=20, gap=0.0) as (n1, _):
        first = register(n1, InMemory)
        fill(n1, 25)
        head = eventually(n1.buffer.state_head)
        second = register(n1, InMemory)
        handled(n1)
        assert second.items == first.items == numbers(25)
        assert second.restored == 1 and second.given == list(range(head.index + 1, 26))
        assert ask(n1, data=b"y") == Applied(26, b"26:y")


def test_a_new_handler_without_snapshots_begins_with_the_first_command():
    with cluster("n1", gap=0.0) as (n1, _):
        register(n1, Plain)
        fill(n1, 25)
        second = register(n1, Plain)
        handled(n1)
        assert second.items == numbers(25)


def test_the_same_handler_registered_again_goes_on_where_it_was():
    with cluster("n1") as (n1, _):
        handler = register(n1, Plain)
        fill(n1, 5)
        n1.room.set_handler(handler.ref)
        fill(n1, 5, 5)
        handled(n1)
        assert handler.items == numbers(10) and handler.given == list(range(1, 11))


def test_a_handler_whose_snapshot_fails_loses_nothing_and_the_status_says_so():
    with cluster("n1", every=5, retain_records=3, gap=0.0) as (n1, _):
        handler = register(n1, InMemory)
        handler.broken = "disk of the handler"
        fill(n1, 30)
        said = eventually(lambda: [w for w in n1.view().warnings if "handle_snapshot fails" in w])
        assert "disk of the handler" in said[0]
        assert n1.buffer.state(COMMANDS_TOPIC).first_seq == 1
        handler.broken = ""
        fill(n1, 10, 30)
        eventually(n1.buffer.state_head)
        eventually(lambda: not [w for w in n1.view().warnings if "handle_snapshot" in w])


def test_sessions_are_in_the_snapshot():
    with cluster("n1", every=5, gap=0.0) as (n1, _):
        register(n1, InMemory)
        first = ask(n1, data=b"once", session="s", number=1)
        fill(n1, 10)
        eventually(lambda: (n1.buffer.state_head() or StateHead(0, 0, 0, 0)).index >= 5)
        second = register(n1, InMemory)
        handled(n1)
        assert second.restored == 1 and 1 not in second.given
        assert ask(n1, data=b"once", session="s", number=1) == first


# -- a handler that keeps its state itself ----------------------------------------------------------------------------------------


def test_a_handler_that_keeps_its_state_gets_what_it_lacks_and_no_more():
    disk = {}
    with cluster("n1") as (n1, _):
        register(n1, Keeps, disk)
        fill(n1, 10)
        before = dict(disk)
        fill(n1, 10, 10)
        ahead = register(n1, Keeps, dict(disk))
        handled(n1)
        assert ahead.given == []
        behind = register(n1, Keeps, before)
        handled(n1)
        assert behind.given == list(range(11, 21)) and before["items"] == numbers(20)


def test_what_it_gets_again_is_decided_as_it_was():
    """The retry is no new command, also where the first try comes again."""
    disk = {}
    with cluster("n1") as (n1, _):
        register(n1, Keeps, disk)
        fill(n1, 3)
        before = dict(disk)
        first = ask(n1, data=b"once", session="s", number=1)
        assert ask(n1, data=b"once", session="s", number=1) == first
        behind = register(n1, Keeps, before)
        handled(n1)
        assert behind.given == [4]
        assert ask(n1, data=b"once", session="s", number=1) == first


@pytest.fixture
def buffers(tmp_path):
    """open(): the same buffer on the disk, again."""
    directory = DataDir.open(str(tmp_path / "n1"), "n1")
    opened = []

    def again():
        while opened:
            opened.pop().close()
        opened.append(LmdbBuffer.open(tmp_path / "n1" / "buffer", directory.identity))
        return opened[-1]

    yield again
    while opened:
        opened.pop().close()
    directory.close()


def test_after_a_restart_a_handler_that_keeps_its_state_has_its_sessions(buffers):
    disk = {}
    with cluster("n1", buffers={"n1": buffers()}, gap=0.0) as (n1, _):
        register(n1, Keeps, disk)
        first = ask(n1, data=b"once", session="s", number=1)
        fill(n1, 5)
    with cluster("n1", buffers={"n1": buffers()}, gap=0.0) as (n1, raft):
        raft.log = [None] * n1.room.applied[0]
        handler = register(n1, Keeps, disk)
        assert ask(n1, data=b"once", session="s", number=1) == first
        assert handler.given == [] and ask(n1, data=b"z").index == 8


def test_a_crash_between_the_handlers_state_and_the_cursor_gives_nothing_twice(buffers):
    disk = {}
    with cluster("n1", buffers={"n1": buffers()}, gap=0.0) as (n1, _):
        register(n1, Keeps, disk)
        fill(n1, 5)
        ask(n1, data=b"once", session="s", number=1)
    disk["index"], disk["items"] = 7, [*disk["items"], b"seven"]  # it had this one too, and its node died before it knew
    with cluster("n1", buffers={"n1": buffers()}, gap=0.0) as (n1, raft):
        raft.log = [None] * n1.room.applied[0]
        n1.publisher.ask(AwaitCommands(known(n1)), timeout=5)
        handler = actor_of(Keeps.start(disk))
        n1.handlers.append(handler.ref)
        n1.room.set_handler(handler.ref)
        with pytest.raises(AlreadyApplied):  # number 7: the log has it now
            ask(n1, data=b"seven", session="t", number=1)
        assert handler.given == []
        assert ask(n1, data=b"eight").index == 8 and handler.given == [8]


def test_after_a_restart_a_handler_in_memory_is_restored_from_the_disk(buffers):
    with cluster("n1", buffers={"n1": buffers()}, every=10, gap=0.0) as (n1, _):
        register(n1, InMemory)
        first = ask(n1, data=b"0", session="s", number=1)
        fill(n1, 24, 1)
        eventually(n1.buffer.state_head)
    with cluster("n1", buffers={"n1": buffers()}, every=10, gap=0.0) as (n1, raft):
        raft.log = [None] * n1.room.applied[0]
        handler = register(n1, InMemory)
        handled(n1)
        assert handler.items == numbers(25) and handler.restored == 1
        assert ask(n1, data=b"0", session="s", number=1) == first


def test_what_a_handler_may_ask_for_is_kept_until_it_is_there(buffers):
    """A node that starts trims nothing of it, however late the handler is registered."""
    with cluster("n1", buffers={"n1": buffers()}, retain_records=5, every=1000, gap=0.0) as (n1, _):
        register(n1, InMemory)
        fill(n1, 30)
    with cluster("n1", buffers={"n1": buffers()}, retain_records=5, every=1000, gap=0.0) as (n1, raft):
        raft.log = [None] * n1.room.applied[0]
        n1.publisher.tell(Apply("add", b"x"))  # refused, since there is no handler
        for n in range(20):
            raft.publishers[0].send(committed(n1, b"more", n))
        eventually(lambda: n1.buffer.state(COMMANDS_TOPIC).next_seq == 51)
        handler = register(n1, InMemory)
        handled(n1)
        assert len(handler.items) == 50


def committed(node, data, n):
    """A command of another node, as Raft hands it out."""
    from coterie.actors.room_messages import Committed
    from coterie.proto.command import encode_command
    from coterie.proto.raft_messages import COMMAND, Entry

    batch = encode_batch(COMMANDS_TOPIC, 1, [encode_command("add", data, b"o" * 8, n)])
    return Committed([(Entry(node.room.applied[0] + 1 + n, 1, COMMAND, encode_entry([batch.data])), None)])


# -- commands that are missing ----------------------------------------------------------------------------------------------------


def state_file(items):
    blocks = [*row_blocks([]), *chunk_blocks(items)]
    content = tempfile.TemporaryFile()  # noqa: SIM115 - the delivery closes it
    for block in blocks:
        content.write(struct.pack(">I", len(block)) + block)
    content.seek(0)
    return WrittenState(content, len(blocks), sum(map(len, blocks)))


def lacking(n1):
    """A node whose buffer begins behind the first commands."""
    register(n1, Plain)
    for n in range(40):  # an entry each, since batches go as a whole
        fill(n1, 1, n)
    eventually(lambda: n1.buffer.state(COMMANDS_TOPIC).first_seq > 1)


def test_a_handler_that_lacks_commands_stands_and_says_so():
    with cluster("n1", retain_records=5, gap=0.0) as (n1, _):
        lacking(n1)
        handler = register(n1, Plain)
        gap = eventually(lambda: [event for event in n1.events if isinstance(event, ReplicationGap)])
        assert gap[0].topic == COMMANDS_TOPIC and gap[0].first_missing == 1
        with pytest.raises(HandlerFailed, match="were forgotten"):
            n1.publisher.ask(AwaitCommands(known(n1)), timeout=5)
        with pytest.raises(HandlerFailed, match="not applied"):
            ask(n1)
        assert eventually(lambda: [w for w in n1.view().warnings if "gets no more commands" in w])
        assert handler.given == []


def test_another_nodes_snapshot_makes_up_for_them():
    asked = []

    def fetch(at_least, fetched):
        asked.append(at_least)
        written = state_file(numbers(40))
        fetched(StateHead(40, 1, written.blocks, written.size), written)

    with cluster("n1", retain_records=5, gap=0.0, fetch_state=fetch) as (n1, _):
        lacking(n1)
        handler = register(n1, InMemory)
        handled(n1)
        assert handler.items == numbers(40) and handler.restored == 1 and handler.given == []
        assert asked and asked[0] < 40
        assert not [event for event in n1.events if isinstance(event, ReplicationGap)]
        assert ask(n1, data=b"y") == Applied(41, b"41:y")


def test_a_snapshot_that_comes_later_ends_the_standing(monkeypatch):
    monkeypatch.setattr("coterie.actors.replication.command_delivery.FETCH_PAUSE", 0.05)
    answers = [None, None, 40]

    def fetch(at_least, fetched):
        if (index := answers.pop(0)) is None:
            fetched(None, None)
        else:
            written = state_file(numbers(index))
            fetched(StateHead(index, 1, written.blocks, written.size), written)

    with cluster("n1", retain_records=5, gap=0.0, fetch_state=fetch) as (n1, _):
        lacking(n1)
        handler = register(n1, InMemory)
        eventually(lambda: handler.restored == 1)
        assert ask(n1, data=b"y").index == 41
        eventually(lambda: not n1.view().warnings)


def test_a_command_of_a_later_version_stops_it():
    from coterie.actors.room_messages import Committed
    from coterie.proto.raft_messages import COMMAND, Entry

    with cluster("n1") as (n1, raft):
        handler = register(n1, Plain)
        fill(n1, 2)
        index = len(raft.log) + 1
        batch = encode_batch(COMMANDS_TOPIC, 1, [b"\x92\x02\xa1a"])
        n1.publisher.tell(Committed([(Entry(index, 1, COMMAND, encode_entry([batch.data])), None)]))
        assert eventually(lambda: [w for w in n1.view().warnings if "later version" in w])
        assert handler.given == [1, 2]


# -- a snapshot of the whole state machine ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [MemoryBuffer, LmdbBuffer])
def test_the_handlers_state_travels_with_the_whole_state(kind, buffers):
    with cluster("n1", every=10, gap=0.0) as (n1, _):
        register(n1, InMemory)
        fill(n1, 25)
        head = eventually(n1.buffer.state_head)
        out = io.BytesIO()
        dump(n1.buffer, out)
        out.seek(0)
        content = check(out)
        assert content.state == head
        target = MemoryBuffer() if kind is MemoryBuffer else buffers()
        restore(target, out, content, b"mark")
        assert target.state_head() == head
        assert [target.block(head.index, n) for n in range(head.blocks)] == [n1.buffer.block(head.index, n) for n in range(head.blocks)]
        assert target.block(head.index, head.blocks) is None and target.block(head.index + 1, 0) is None


# -- proposers --------------------------------------------------------------------------------------------------------------------


def test_without_a_handler_a_command_is_refused():
    with cluster("n1") as (n1, _), pytest.raises(InvalidRequest, match="no handler"):
        ask(n1)


def test_a_command_whose_handler_does_not_come_to_it_says_that_it_is_committed():
    class Stuck(Plain):
        def handle_apply(self, index, op, data):
            import threading

            self.gate = threading.Event()
            self.gate.wait(10)
            return b""

    with cluster("n1") as (n1, _):
        handler = register(n1, Stuck)
        with pytest.raises(Indeterminate, match="is committed"):
            ask(n1, timeout=0.3)
        handler.gate.set()


def test_two_nodes_hear_their_own_results():
    with cluster("n1", "n2") as (n1, n2, _):
        register(n1, Plain)
        register(n2, Plain)
        assert ask(n2, data=b"a") == Applied(1, b"a")
        assert ask(n1, data=b"b") == Applied(2, b"b")


def test_a_lost_answer_is_made_good_by_the_handler():
    """The link to the leader breaks when the entry is in the log: the handler here gets the command, and the proposer its result."""
    with cluster("n1", "n2") as (n1, n2, raft):
        register(n1, Plain)
        register(n2, Plain)
        raft.hold = True
        future = n2.publisher.ask(Apply("add", b"a", timeout=10), block=False)
        eventually(lambda: raft.held)
        n2.links.open_links[-1].cut()
        raft.release()
        assert future.get(timeout=10) == Applied(1, b"a")
