"""Wounds of others that come from the disk: what was changed behind our back, and what never gives its room back."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import httpx
import pytest

from coterie import Cluster, Config, HandlerActor, StorageError
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.replication.buffer import BufferWrite, Remembered, StoredBatch
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.proto.raft_messages import COMMAND, Entry
from tests.product.nodes import free_port
from tests.product.wait import wait_for

WAIT = 10.0
ADDRESSES = ("raft_addr", "mem_bind", "mgmt_addr")


class Notes(HandlerActor):
    def __init__(self):
        super().__init__()
        self.notes = []

    def handle_sync(self, topic, data):
        self.notes.append(data)

    def on_message(self, message):
        return list(self.notes)


def config(tmp_path, name, **more):
    return Config(**dict.fromkeys(ADDRESSES, "127.0.0.1:0") | {"node_id": name, "data_dir": tmp_path / name, "app_handlers": Notes} | more)


def flip_one_bit(path, where):
    """In each place of the file where `where` stands: LMDB may have copied its page, and either copy may be the one in force."""
    content = bytearray(path.read_bytes())
    at = content.find(where)
    assert at >= 0
    while at >= 0:
        content[at] ^= 1
        at = content.find(where, at + 1)
    path.write_bytes(content)


def delivered(cluster):
    return sum(topic.delivered for topic in cluster.status(local=True).topics)


def damage_log(path, records):
    flip_one_bit(path, records[-1])


def cut_log(path, records):
    path.write_bytes(path.read_bytes()[:-8192])


@pytest.mark.parametrize(
    ("part", "damage"),
    [("raft", damage_log), ("buffer", damage_log), ("raft", cut_log), ("buffer", cut_log)],
    ids=lambda what: str(what)[:15],
)
def test_one_flipped_bit_or_cut_page_is_found_and_refused_and_all_is_fetched_again_from_the_peers(tmp_path, part, damage):
    """Jepsen on NATS 2.12.1: one node's damage lost data, or spread to the others. Here the node comes up by itself and has everything again; where the damage
    has hit what it promised (its hard state), it stays down, says so, and comes back empty."""
    records = [b"record %d of many" % number for number in range(20)]
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Cluster(config(tmp_path, "n1", bootstrap=True)))
        seed = first.ref.addresses()["gossip"]
        second = stack.enter_context(Cluster(config(tmp_path, "n2", seeds_csv=seed)))
        where = {address: f"127.0.0.1:{free_port()}" for address in ADDRESSES}  # it comes back at the same ones
        settings = config(tmp_path, "n3", seeds_csv=seed, **where)
        with Cluster(settings) as third:
            first.join("n2", second.ref.addresses()["raft"])
            first.join("n3", third.ref.addresses()["raft"])
            for record in records:
                first.publish("t", record)
            wait_for(lambda: delivered(third) == len(records), WAIT, "n3 has them")
        damage(tmp_path / "n3" / part / "data.mdb", records)
        assert first.publish("t", b"the others go on").seq == len(records) + 1
        again = stack.enter_context(started(settings, first))
        wait_for(lambda: delivered(again) == delivered(second) == len(records) + 1, WAIT, "n3 has everything again")
        assert stored(again) == stored(first) == stored(second)
        wait_for(lambda: not any("does not vote" in warning for warning in again.status(local=True).warnings), WAIT, "n3 votes again")
        second.stop()
        assert first.publish("t", b"n3 counts", timeout=WAIT).seq == len(records) + 2


def started(settings, leader):
    """It comes up with what is left, and moves the rest aside; or it is refused, with what to do, which is done."""
    directory = Path(settings.data_dir)
    try:
        again = Cluster(settings)
    except StorageError as error:
        assert re.search("(damaged|CORRUPTED|cannot be)(.|\n)*remedy: ", str(error)), error
        leader.leave("n3")
        directory.rename(directory.with_name("by hand"))
        again = Cluster(settings)
        leader.join("n3", again.ref.addresses()["raft"])
        print("by hand:", error)
    else:
        print("by itself:", sorted(path.name for path in directory.iterdir()))
    return again


def stored(cluster):
    supervisor = cluster.ref._actor_weakref()
    buffer = supervisor._rooms._replication._buffer

    def all_there():  # what is delivered is stored a moment later
        topic = buffer.load().topics.get("t")
        return topic is not None and topic.next_seq == 22

    wait_for(all_there, WAIT, "stored")
    return [batch.data for batch in buffer.read("t", 1, 1 << 20, 100)]


def test_the_file_of_the_buffer_does_not_grow_while_what_is_trimmed_makes_room(tmp_path):
    """vault #11072, boltdb #640: free lists that grow, writes that amplify. Here a topic of constant size is written over, many times."""
    buffer = LmdbBuffer.open(tmp_path / "buffer", Identity("n1", "a" * 32), map_bytes=1 << 20)
    sizes = random.Random(1)
    used = []
    for number in range(1, 601):
        data = bytes(sizes.randrange(100, 40_000))
        ids = [Remembered(b"id %d" % number, "t", number, number)]
        trim = [("t", max(1, number - 10))]
        buffer.write(
            BufferWrite(
                batches=[StoredBatch("t", number, 1, number, data)], applied=(number, 1), dedupe_add=ids, dedupe_limit=50, trim=trim
            )
        )
        used.append(buffer.usage().used_bytes)
    buffer.close()
    assert used[-1] <= 1.25 * used[100], "the room of what went is used again"
    assert used[-1] < 4 * 10 * 40_000


def test_how_much_room_the_files_take_is_shown(tmp_path, monkeypatch):
    """The same threads: what grows must be seen to grow."""
    monkeypatch.setattr("coterie.actors.node.metrics_desk.REFRESH", 0.1)
    with Cluster(config(tmp_path, "n1", bootstrap=True)) as cluster:
        cluster.publish("t", b"x")
        address = cluster.ref.addresses()["http"]

        def shown():
            text = httpx.get(f"http://{address}/metrics").text
            return all(f'coterie_storage_used_bytes{{store="{store}"}}' in text for store in ("raft", "buffer"))

        wait_for(shown, WAIT, "the supervisor's next look around")


def test_the_file_of_the_log_does_not_grow_while_it_is_compacted(tmp_path):
    """vault 11072, boltdb 640: what was deleted makes room for what comes, so that a log of a bounded length has a file of a bounded size."""
    log = LmdbLog.open(tmp_path / "raft", Identity("n1", "a" * 32))
    sizes = []
    for round_ in range(12):
        for part in range(10):
            first = log.last_index + 1
            log.append([Entry(first + n, 1 + round_, COMMAND, random.Random(part).randbytes(2000)) for n in range(100)])
        log.compact(log.last_index - 100)
        sizes.append(log.usage().used_bytes)
    log.close()
    assert sizes[-1] <= sizes[3] * 1.1, sizes
