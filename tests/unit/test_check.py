"""`clusterctl check`: what is whole is sound, every kind of damage is found and named, and nothing is changed."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie import cli, cli_check
from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.findings import Finding
from coterie.actors.disk.lmdb_env import seal, unseal
from coterie.actors.errors import StorageError
from coterie.actors.raft.log import HardState, SnapshotMark
from coterie.actors.raft.log_format import index_key, pack_entries, pack_hard_state, pack_mark, pack_snapshot, pack_start
from coterie.actors.replication.buffer import Remembered, StoredBatch, TopicState
from coterie.actors.replication.buffer_format import (
    batch_key,
    block_key,
    order_key,
    pack_applied,
    pack_batch,
    pack_document,
    pack_remembered,
    pack_state,
    pack_topic,
    result_key,
)
from coterie.actors.stores.inspection import MOST_OF_A_KIND, Inspection, inspect
from coterie.proto.command_state import pack_row
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, Configuration, Entry, Server
from tests.unit.stored import BLOCKS, ROW, SERVERS, STATE, TERM, add_state, change, command, fingerprints, make, rows

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_state(make(tmp_path_factory.mktemp("sound") / "n1"))


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(sound, tmp_path / "n1"))


def checked(path: Path) -> tuple[list[Finding], Inspection]:
    items = list(inspect(path))
    assert isinstance(items[-1], Inspection)
    return [item for item in items if isinstance(item, Finding)], items[-1]


def texts(path: Path) -> list[str]:
    return [f"{finding.where}: {finding.what}" for finding in checked(path)[0] if finding.damage]


def test_a_whole_directory_is_sound_and_nothing_is_changed(directory: Path) -> None:
    before, names = fingerprints(directory), sorted(directory.rglob("*"))
    findings, seen = checked(directory)
    assert (findings, seen.damage, fingerprints(directory), sorted(directory.rglob("*"))) == ([], 0, before, names)
    assert seen.identity is not None and seen.identity.node_id == "n1"
    assert seen.log is not None and seen.buffer is not None
    assert (seen.log.first, seen.log.last, seen.log.entries, seen.log.last_term, seen.log.hard_state) == (
        11,
        40,
        30,
        TERM,
        HardState(TERM, "n1"),
    )
    assert (seen.log.configuration_index, seen.log.configuration) == (1, SERVERS)
    assert (seen.buffer.applied, seen.buffer.records, seen.buffer.message_ids, seen.buffer.members) == ((35, 4), 28, 6, 0)
    assert (seen.buffer.state, seen.buffer.results) == (STATE.head, 2)
    assert seen.buffer.topics == {"orders": TopicState(34, 6, 32, 28, seen.buffer.data_bytes)}


def sealed(body: bytes, part: str, table: str, key: bytes) -> Change:
    return lambda path: change(path, part, table, key, seal(key, body))


def gone(part: str, table: str, key: bytes) -> Change:
    return lambda path: change(path, part, table, key, None)


def entry(index: int, term: int, kind: int = COMMAND, data: bytes = b"x") -> Change:
    ((key, value),) = pack_entries([Entry(index, term, kind, data)], index)
    return lambda path: change(path, "raft", "log", key, value)


def topic(**changes: int) -> Change:
    def work(path: Path) -> None:
        ((key, _),) = rows(path, "buffer", "topics")
        size = sum(len(value) - 17 for _, value in rows(path, "buffer", "batches"))
        change(path, "buffer", "topics", key, seal(key, pack_topic(1, TopicState(34, 6, 32, 28, size)._replace(**changes))))

    return work


def remembered(position: int, seq: int, index: int, message_id: bytes, number: int = 1) -> Change:
    key = order_key(position)
    return sealed(pack_remembered(number, Remembered(message_id, "orders", seq, index)), "buffer", "dedupe", key)


def batch(seq: int, count: int = 1, index: int = 20, data: bytes = b"", number: int = 1) -> Change:
    key = batch_key(number, seq)
    return sealed(pack_batch(StoredBatch("orders", seq, count, index, data or command(seq + 2))), "buffer", "batches", key)


OTHER = Configuration((Server("n1", "127.0.0.1:9521"), Server("n1", "127.0.0.1:9522")))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (gone("raft", "log", index_key(20)), "raft log: entries 20..20 are missing"),
        (gone("raft", "log", index_key(11)), "raft log: entries 11..11 are missing"),
        (entry(9, 1), "raft log: entry 9 lies before its beginning, 11"),
        (lambda path: change(path, "raft", "log", b"odd", b"x"), "raft log: a record has the key 6f6464, which is no index"),
        (entry(25, 1), "raft log: entry 25 is of term 1, one before it of term 3"),
        (entry(40, 9), "raft log: entry 40 is of term 9, and this server was never in a later one than 4"),
        (entry(25, 3, kind=9), "raft log: entry 25 is of kind 9"),
        (entry(25, 3, CONFIGURATION, encode_configuration(SERVERS)), "the configuration of entry 25 is missing in its table"),
        (sealed(pack_hard_state(HardState(2, "n1")), "raft", "meta", b"hard_state"), "this server was never in a later one than 2"),
        (gone("raft", "meta", b"hard_state"), "raft log: it has entries and no hard state"),
        (sealed(pack_start(12, 2), "raft", "meta", b"start"), "raft log: entry 11 lies before its beginning, 12"),
        (gone("raft", "meta", b"snapshot"), "raft log: it begins at entry 11 and does not say what was compacted"),
        (sealed(pack_snapshot(9, 1), "raft", "meta", b"snapshot"), "it begins after entry 10 (term 2), and says it was compacted to (9, 1)"),
        (gone("raft", "configurations", index_key(1)), "raft log: it begins at entry 11 and does not say who is in the quorum"),
        (
            lambda path: change(
                path, "raft", "configurations", *pack_entries([Entry(1, 1, CONFIGURATION, encode_configuration(OTHER))], 1)[0]
            ),
            "raft log: the configuration of entry 1 has the id 'n1' twice",
        ),
        (gone("buffer", "batches", batch_key(1, 20)), "topic 'orders': there is a batch at seq 21, where records 20..20 are missing"),
        (gone("buffer", "batches", batch_key(1, 33)), "topic 'orders': its batches end before seq 33, its next is 34"),
        (batch(40, number=9), "the batch at seq 40 of topic number 9 belongs to no topic"),
        (batch(20, index=3), "the batch at seq 20 is of entry 3, one before it of entry 21"),
        (batch(20, count=2), "the batch at seq 20 holds 1 records of 'orders', and says 2"),
        (batch(20, data=b"\x93"), "the batch at seq 20 does not decode"),
        (topic(batches=27), "topic 'orders' has 28 batches"),
        (topic(size=1), "bytes, and says 28 of 1"),
        (topic(first_seq=40), "retains from seq 40 on, and its next is 34"),
        (remembered(1, 99, 30, b"x"), "a message id is of seq 99 of 'orders', whose next is 34"),
        (remembered(1, 28, 99, b"x"), "a message id is of entry 99, above 35, the last applied"),
        (remembered(9, 28, 30, b"\x06ordersid-31"), "a message id stands twice"),
        (remembered(1, 28, 30, b"x", number=7), "a message id belongs to topic number 7, which is no topic"),
        (sealed(pack_document(b"{"), "buffer", "meta", b"roster"), "replication buffer: the roster does not decode"),
        (sealed(pack_applied((41, 4)), "buffer", "meta", b"applied"), "the buffer has applied entry 41, and the log ends at 40: entries are lost"),
        (sealed(pack_applied((5, 1)), "buffer", "meta", b"applied"), "the buffer has applied entry 5, and the log begins at 11"),
        (sealed(pack_applied((35, 3)), "buffer", "meta", b"applied"), "has applied entry 35 of term 3, and the log has that of term 4"),
        (sealed(pack_document(b"x"), "buffer", "meta", b"installed"), "the buffer's the mark of a snapshot"),
        (sealed(pack_document(pack_mark(SnapshotMark(20, 9, 1, SERVERS))), "buffer", "meta", b"installed"), "a snapshot of term 9"),
        (gone("buffer", "meta", b"state"), "replication buffer: 2 blocks of a handler's state have no head"),
        (sealed(b"x", "buffer", "meta", b"state"), "the head of the handler's state is damaged"),
        (gone("buffer", "blocks", block_key(9, 0)), "the handler's state has block 1 of command 9, where 0 of 9 must stand"),
        (gone("buffer", "blocks", block_key(9, 1)), "bytes, and says 2 of"),
        (sealed(pack_document(b"x"), "buffer", "blocks", block_key(9, 1)), "block 1 of the handler's state is damaged: handler state: "),
        (sealed(pack_document(BLOCKS[0]), "buffer", "blocks", block_key(9, 1)), "has the row of command 7 behind that of 7"),
        (sealed(pack_document(BLOCKS[1]), "buffer", "blocks", block_key(9, 0)), "the handler's state has 2 blocks of"),
        (
            lambda path: [sealed(pack_document(BLOCKS[1 - n]), "buffer", "blocks", block_key(9, n))(path) for n in (0, 1)],
            "block 1 of the handler's state has rows of sessions, behind what the handler gave",
        ),
        (sealed(pack_state(STATE.head._replace(index=8)), "buffer", "meta", b"state"), "has block 0 of command 9, where 0 of 8 must stand"),
        (lambda path: change(path, "buffer", "blocks", b"odd", b"x"), "a block of the handler's state has the key 6f6464"),
        (sealed(pack_document(pack_row(ROW)), "buffer", "results", result_key(8)), "the row of command 8 says it is of command 7"),
        (sealed(pack_document(b"x"), "buffer", "results", result_key(7)), "the row of command 7 is damaged: handler state: "),
        (lambda path: change(path, "buffer", "results", b"odd", b"x"), "a row of the commands' sessions has the key 6f6464"),
        (sealed(b"n7", "raft", "meta", b"node_id"), "raft log: it belongs to node_id 'n7', the directory to 'n1'"),
        (lambda path: (path / "node.json").unlink(), "data directory: node.json is missing"),
        (lambda path: (path / "node.json").write_text("{"), "data directory: node.json is damaged"),
        (lambda path: (path / "buffer" / "data.mdb").unlink(), "replication buffer: "),
        (lambda path: shutil.copy(path / "raft" / "data.mdb", path / "buffer" / "data.mdb"), "is a coterie raft log, where a"),
        (lambda path: (path / "raft" / "data.mdb").write_bytes(b"garbage" * 4096), "raft log: coterie raft log in "),
    ],
    ids=lambda value: value.replace(" ", "-")[:60] if isinstance(value, str) else "",
)  # fmt: skip
def test_each_damage_is_found_and_named(directory: Path, damage: Change, said: str) -> None:
    damage(directory)
    found = texts(directory)
    assert any(said in text for text in found), found


PARTS = [
    ("raft", "meta"),
    ("raft", "log"),
    ("raft", "configurations"),
    *(("buffer", table) for table in ("meta", "topics", "batches", "dedupe", "blocks", "results")),
]


@pytest.mark.parametrize(("part", "table"), PARTS)
def test_a_flipped_bit_in_any_record_is_found(directory: Path, part: str, table: str) -> None:
    chance = random.Random(part + table)
    stored = rows(directory, part, table)
    for key, value in chance.sample(stored, min(4, len(stored))):
        flipped = bytearray(value)
        flipped[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
        change(directory, part, table, key, bytes(flipped))
        assert unseal(key, bytes(flipped)) is None
        assert texts(directory), (key, value)
        change(directory, part, table, key, value)
    assert texts(directory) == []


def test_a_file_whose_end_is_cut_off_is_read_as_far_as_it_goes_and_left_as_it_is(directory: Path) -> None:
    file = directory / "raft" / "data.mdb"
    os.truncate(file, file.stat().st_size * 2 // 3)
    before = fingerprints(directory)
    assert texts(directory)
    assert fingerprints(directory) == before


def test_many_findings_of_a_kind_are_counted(tmp_path: Path) -> None:
    path = make(tmp_path / "n1", last=200, applied=40)
    for key, value in rows(path, "raft", "log")[:100]:
        change(path, "raft", "log", key, value[:-1] + b"?")
    findings, seen = checked(path)
    assert len([finding for finding in findings if finding.kind == "checksum"]) == MOST_OF_A_KIND
    assert seen.more["raft log", "checksum"] == 100 - MOST_OF_A_KIND


def test_what_is_only_worth_knowing_is_no_damage(directory: Path) -> None:
    (directory / "snapshot-abc").touch()
    sealed(pack_document(pack_mark(SnapshotMark(50, TERM, 1, SERVERS))), "buffer", "meta", b"installed")(directory)
    sealed(pack_applied((50, TERM)), "buffer", "meta", b"applied")(directory)
    topic(cursor=40)(directory)
    findings, seen = checked(directory)
    assert seen.damage == 0
    said = " ".join(finding.what for finding in findings)
    for words in (
        "snapshot-abc is nothing of a node's",
        "the next start puts the log behind it",
        "the handler has had records up to seq 39",
    ):
        assert words in said


def test_a_running_node_no_directory_and_a_strangers_are_refused(directory: Path, tmp_path: Path) -> None:
    held = DataDir.open(directory, "n1")
    try:
        with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
            checked(directory)
    finally:
        held.close()
    (tmp_path / "other").mkdir()
    for path, says in ((tmp_path / "none", "is no directory"), (tmp_path / "other", "holds neither node.json nor a Raft log")):
        with pytest.raises(StorageError, match=says):
            checked(path)


def test_no_node_starts_while_it_is_checked(directory: Path) -> None:
    checking = inspect(directory)
    next(checking)
    with pytest.raises(StorageError, match="in use"):
        DataDir.open(directory, "n1")
    checking.close()  # type: ignore[attr-defined]
    DataDir.open(directory, "n1").close()


# -- the command ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clusterctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


def test_the_command_tells_by_table_json_and_exit_code(directory: Path, clusterctl: Any) -> None:
    code, out, _ = clusterctl("check", str(directory))
    document = json.loads(out)
    assert (code, document["sound"], document["findings"], document["raft"]["last"], document["buffer"]["applied"]) == (0, True, [], 40, 35)
    code, out, _ = clusterctl("check", str(directory), "--output", "table")
    assert code == 0
    for words in ("sound", "entries 11..40", "30 commands", "n1, n2, n3 (entry 1)", "entry 35 of term 4", "28 records"):
        assert words in out, out
    gone("raft", "log", index_key(20))(directory)
    code, out, _ = clusterctl("check", str(directory), "--output", "table")
    assert code == 1
    assert "damage  raft log: entries 20..20 are missing" in out and "remedy  take this server out of the quorum" in out
    code, _, err = clusterctl("check", str(directory / "none"))
    assert code == 2 and "is no directory" in err


def test_a_reader_that_is_killed_by_what_it_reads_is_a_finding(directory: Path, clusterctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    program = """import os, signal; print('{"progress": ["raft log", 1, 2]}', flush=True); os.kill(os.getpid(), signal.SIGBUS)"""
    monkeypatch.setattr(cli_check, "READER", [sys.executable, "-c", program])
    code, out, _ = clusterctl("check", str(directory))
    document = json.loads(out)
    assert (code, document["sound"], document["raft"]) == (1, False, None)
    assert document["findings"][0]["where"] == "raft log" and "LMDB crashed while it was read (SIGBUS)" in document["findings"][0]["what"]
    code, _, err = clusterctl("backup", str(directory), str(directory.parent / "b"))
    assert code == 1 and "LMDB crashed" in err
    monkeypatch.setattr(cli_check, "READER", [sys.executable, "-c", "raise SystemExit(3)"])
    code, _, err = clusterctl("check", str(directory))
    assert code == 2 and "ended with code 3" in err


@pytest.mark.parametrize("seed", range(12))
def test_garbage_in_the_file_is_a_finding_and_never_ends_the_check(sound: Path, tmp_path: Path, clusterctl: Any, seed: int) -> None:
    """Anywhere in the file: in LMDB's own pages too, where garbage may crash LMDB."""
    path, chance = Path(shutil.copytree(sound, tmp_path / "n1")), random.Random(seed)
    file = path / chance.choice(["raft", "buffer"]) / "data.mdb"
    content = bytearray(file.read_bytes())
    for _ in range(chance.choice([1, 30])):
        at = chance.randrange(8192, len(content) - 64)
        content[at : at + 64] = chance.randbytes(64)
    file.write_bytes(content)
    code, out, _ = clusterctl("check", str(path))
    assert code in (0, 1)
    document = json.loads(out)
    assert document["sound"] == (code == 0)
    if code == 0:  # it hit what LMDB does not use
        assert document["raft"]["entries"] == 30 and document["buffer"]["records"] == 28
