"""What the Raft log owes beyond the contract because it is on a disk: it survives, it notices damage, it refuses what is not its own."""

from __future__ import annotations

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from coterie.actors.disk.lmdb_env import Identity, LmdbEnvironment
from coterie.actors.errors import StorageError
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState
from coterie.proto.raft_codec import encode_configuration
from coterie.proto.raft_messages import COMMAND, CONFIGURATION, Configuration, Entry, Server

ME = Identity("n1", "a" * 32)
UNBOUNDED = 1 << 40


def command(index: int, term: int = 1, data: bytes = b"x" * 100) -> Entry:
    return Entry(index, term, COMMAND, data, None, b"\x01" * 15)


def stored(path: Path, count: int) -> None:
    log = LmdbLog.open(path, ME)
    log.append([command(index) for index in range(1, count + 1)], HardState(1, "n1"))
    log.close()


def tamper(path: Path, change: Callable[[lmdb.Transaction, lmdb._Database], object], database: bytes = b"log") -> None:
    with lmdb.open(str(path), max_dbs=4, map_size=1 << 30) as environment:
        handle = environment.open_db(database)
        with environment.begin(write=True) as transaction:
            change(transaction, handle)


def key(index: int) -> bytes:
    return struct.pack(">Q", index)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    configuration = Configuration((Server("n1", "127.0.0.1:9521"),))
    entries = [Entry(1, 1, CONFIGURATION, encode_configuration(configuration)), *(command(index, 2) for index in range(2, 300))]
    log = LmdbLog.open(tmp_path / "raft", ME)
    log.append(entries, HardState(2, "n1"))
    log.close()
    log = LmdbLog.open(tmp_path / "raft", ME)
    assert (log.first_index, log.last_index, log.term(299), log.hard_state()) == (1, 299, 2, HardState(2, "n1"))
    assert log.entries(1, 299, UNBOUNDED) == entries
    assert log.configuration() == (1, configuration)
    log.close()


WRITER = """
import sys
from pathlib import Path
from coterie.actors.disk.lmdb_env import Identity
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import HardState
from coterie.proto.raft_messages import Entry
log = LmdbLog.open(Path(sys.argv[1]), Identity("n1", "a" * 32))
batch = 0
while True:
    batch += 1
    log.append([Entry(log.last_index + n, batch, 0, b"%d" % batch) for n in (1, 2, 3)], HardState(batch, "n1"))
    print(batch, flush=True)
"""


def test_what_append_returned_for_survives_a_sigkill(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "raft")], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        seen = 0
        while seen < 200:
            seen = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        seen = max([seen, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    log = LmdbLog.open(tmp_path / "raft", ME)
    term = log.hard_state().term
    assert term in (seen, seen + 1), "acknowledged appends are there; at most the one under way is there beyond them"
    assert log.last_index == 3 * term, "hard state and entries of an append are there together"
    assert [entry.data for entry in log.entries(1, log.last_index, UNBOUNDED)] == [b"%d" % (n // 3 + 1) for n in range(3 * term)]
    log.close()


@pytest.mark.parametrize("place", [0, 3, 4, 5, 8, 18, 19, 40, -1])
def test_a_flipped_bit_in_an_entry_is_found_wherever_it_is(tmp_path: Path, place: int) -> None:
    stored(tmp_path / "raft", 5)

    def flip(transaction: lmdb.Transaction, database: lmdb._Database) -> None:
        value = bytearray(transaction.get(key(3), db=database))
        value[place] ^= 0x10
        transaction.put(key(3), bytes(value), db=database)

    tamper(tmp_path / "raft", flip)
    log = LmdbLog.open(tmp_path / "raft", ME)
    for read in (lambda: log.term(3), lambda: log.entries(1, 5, UNBOUNDED)):
        with pytest.raises(StorageError, match=r"entry 3.*damaged.*remedy") as raised:
            read()
        assert str(tmp_path / "raft" / "data.mdb") in str(raised.value)
    assert [entry.index for entry in log.entries(1, 2, UNBOUNDED)] == [1, 2], "what is sound is still read"
    log.close()


def test_a_value_that_moved_to_another_index_is_found(tmp_path: Path) -> None:
    stored(tmp_path / "raft", 5)
    tamper(tmp_path / "raft", lambda transaction, log: transaction.put(key(3), transaction.get(key(2), db=log), db=log))
    log = LmdbLog.open(tmp_path / "raft", ME)
    with pytest.raises(StorageError, match="entry 3"):
        log.entries(1, 5, UNBOUNDED)
    log.close()


def test_a_damaged_last_entry_or_a_hole_or_a_damaged_vote_stops_the_opening(tmp_path: Path) -> None:
    damages: dict[str, tuple[Callable[[lmdb.Transaction, lmdb._Database], object], bytes]] = {
        "entry 5": (lambda transaction, log: transaction.put(key(5), b"\0" * 40, db=log), b"log"),
        "missing": (lambda transaction, log: transaction.delete(key(3), db=log), b"log"),
        "hard state": (lambda transaction, meta: transaction.put(b"hard_state", b"\0" * 16, db=meta), b"meta"),
        "start": (lambda transaction, meta: transaction.put(b"start", b"\0" * 21, db=meta), b"meta"),
        "format": (lambda transaction, meta: transaction.delete(b"format", db=meta), b"meta"),
    }
    for name, (change, database) in damages.items():
        stored(tmp_path / name, 5)
        tamper(tmp_path / name, change, database)
        with pytest.raises(StorageError, match=name):
            LmdbLog.open(tmp_path / name, ME)


def test_a_file_that_was_cut_is_an_error_and_never_a_dead_process(tmp_path: Path) -> None:
    stored(tmp_path / "raft", 2000)
    whole = (tmp_path / "raft" / "data.mdb").read_bytes()
    program = (
        "import sys; from pathlib import Path; from coterie.actors.errors import StorageError; from coterie.actors.disk.lmdb_env import Identity\n"
        "from coterie.actors.raft.lmdb_log import LmdbLog\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        log = LmdbLog.open(Path(path), Identity('n1', 'a' * 32))\n"
        "        try: print(len(log.entries(1, 2000, 1 << 40)))\n"
        "        finally: log.close()\n"
        "    except StorageError as error: print('refused')\n"
    )
    cuts = [1, 100, 4096, 4097, 8192, 12288, len(whole) // 2, len(whole) - 8192, len(whole) - 4096, len(whole) - 1]
    for cut in cuts:
        (tmp_path / str(cut)).mkdir()
        (tmp_path / str(cut) / "data.mdb").write_bytes(whole[:cut])
    answer = subprocess.run(
        [sys.executable, "-c", program, *(str(tmp_path / str(cut)) for cut in cuts)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer
    assert set(answer.stdout.split()) <= {"refused", "2000"}
    assert answer.stdout.split()[: len(cuts) - 2] == ["refused"] * (len(cuts) - 2)


def test_another_nodes_log_and_another_life_of_this_node_are_refused(tmp_path: Path) -> None:
    stored(tmp_path / "raft", 1)
    before = (tmp_path / "raft" / "data.mdb").read_bytes()
    with pytest.raises(StorageError, match=r"node_id 'n1'.*'n2'"):
        LmdbLog.open(tmp_path / "raft", Identity("n2", "a" * 32))
    with pytest.raises(StorageError, match="incarnation_id"):
        LmdbLog.open(tmp_path / "raft", Identity("n1", "b" * 32))
    assert (tmp_path / "raft" / "data.mdb").read_bytes() == before


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    stored(tmp_path / "raft", 1)
    body = struct.pack(">I", 2) + b"coterie raft log"
    sealed = struct.pack(">I", zlib.crc32(b"format" + body)) + body
    tamper(tmp_path / "raft", lambda transaction, meta: transaction.put(b"format", sealed, db=meta), b"meta")
    with pytest.raises(StorageError, match=r"format 2 is newer.*remedy"):
        LmdbLog.open(tmp_path / "raft", ME)


def test_the_map_grows_under_the_writer_while_others_read(tmp_path: Path) -> None:
    log = LmdbLog.open(tmp_path / "raft", ME, map_bytes=1 << 17)
    log.append([command(1)])
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.wait(0.001):
            last = log.last_index
            if [entry.index for entry in log.entries(max(1, last - 9), last, UNBOUNDED)] != list(range(max(1, last - 9), last + 1)):
                wrong.append(last)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for batch in range(10):
            log.append([command(1 + batch * 5 + n, data=b"y" * 40_000) for n in range(1, 6)])
    finally:
        stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert log.usage().growths >= 4
    assert log.usage().map_bytes == (1 << 17) << log.usage().growths
    assert log.last_index == 51
    log.close()


def test_after_a_failed_write_nothing_more_is_written_but_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LmdbLog.open(tmp_path / "raft", ME, map_bytes=1 << 17)
    log.append([command(1)])
    with monkeypatch.context() as patch:
        patch.setattr(LmdbEnvironment, "_grow", _refuse)
        with pytest.raises(StorageError, match=r"writing failed.*No space left.*remedy: free space"):
            log.append([command(2, data=b"x" * (1 << 18))], HardState(7, "n7"))
    with pytest.raises(StorageError, match="earlier write failed"):
        log.append([command(2)])
    assert log.entries(1, 1, UNBOUNDED) == [command(1)]
    assert (log.last_index, log.hard_state()) == (1, HardState())
    log.close()


def _refuse(environment: LmdbEnvironment) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
