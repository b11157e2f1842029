"""The data directory: made once, opened only by its own node, by one process at a time, and never somebody else's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.actors.disk.data_dir import DataDir
from coterie.actors.errors import StorageError
from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.lmdb_buffer import LmdbBuffer


def test_a_new_directory_gets_an_identity_and_keeps_it(tmp_path: Path) -> None:
    first = DataDir.open(tmp_path / "var" / "n1", "n1")
    assert (first.path.stat().st_mode & 0o777, first.identity.node_id) == (0o700, "n1")
    assert (first.path / "LOCK").read_text() == f"{os.getpid()}\n"
    first.close()
    again = DataDir.open(tmp_path / "var" / "n1", "n1")
    assert (again.identity, again.created) == (first.identity, first.created)
    again.close()
    other = DataDir.open(tmp_path / "n2", "n1")
    assert other.identity.incarnation_id != first.identity.incarnation_id
    other.close()


def test_its_places(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path, "n1")
    assert (directory.raft_path, directory.members_path) == (tmp_path / "raft", tmp_path / "members.json")
    assert directory.buffer_path() == tmp_path / "buffer"
    assert directory.buffer_path("/elsewhere") == Path("/elsewhere")
    directory.close()


def test_a_second_opening_is_refused_with_the_pid_that_holds_it_until_it_is_closed(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path, "n1")
    with pytest.raises(StorageError, match=rf"data_dir=.*in use by process {os.getpid()}.*remedy"):
        DataDir.open(tmp_path, "n1")
    directory.close()
    directory.close()
    DataDir.open(tmp_path, "n1").close()


HOLDER = """
import os, signal, sys
from coterie.actors.disk.data_dir import DataDir
directory = DataDir.open(sys.argv[1], "n1")
if sys.argv[2] == "fork" and os.fork() == 0:
    print(os.getpid(), flush=True)
    signal.pause()
if sys.argv[2] == "alone":
    print(0, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("manner", ["alone", "fork"])
def test_another_process_holds_it_until_it_dies_even_if_a_forked_child_lives_on(tmp_path: Path, manner: str) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), manner], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(StorageError, match=rf"in use by process {holder.pid};"):
                DataDir.open(tmp_path, "n1")
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            DataDir.open(tmp_path, "n1").close()
        finally:
            holder.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_another_nodes_directory_is_refused(tmp_path: Path) -> None:
    DataDir.open(tmp_path, "n1").close()
    with pytest.raises(StorageError, match=r"node_id='n2'.*belongs to node 'n1'.*remedy"):
        DataDir.open(tmp_path, "n2")
    DataDir.open(tmp_path, "n1").close()


def test_a_foreign_directory_is_refused_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"beach")
    with pytest.raises(StorageError, match=r"data_dir=.*holiday.jpg.*nothing was changed; remedy"):
        DataDir.open(tmp_path, "n1")
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_fresh_file_system_and_a_creation_that_was_cut_short_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "LOCK").touch()
    (tmp_path / "node.json.tmp").write_text('{"for')
    DataDir.open(tmp_path, "n1").close()
    assert json.loads((tmp_path / "node.json").read_text())["node_id"] == "n1"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"format":2}', r"format 2 is newer.*remedy"),
        ('{"format":1,"node_id":"n1"', r"node\.json is damaged.*remedy"),
        ('{"format":1,"node_id":"n1"}', r"node\.json is damaged"),
        ('{"format":"1","node_id":"n1","incarnation_id":"a","created":"x"}', r"node\.json is damaged"),
        ("[]", r"node\.json is damaged"),
        ("\ufffd", r"node\.json is damaged"),
    ],
)
def test_a_newer_or_damaged_node_file_is_refused_and_the_lock_given_back(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "node.json").write_text(text, encoding="utf-16" if text == "\ufffd" else "utf-8")
    for _ in range(2):
        with pytest.raises(StorageError, match=says):
            DataDir.open(tmp_path, "n1")


def test_keys_of_a_later_version_in_the_node_file_are_left_alone(tmp_path: Path) -> None:
    DataDir.open(tmp_path, "n1").close()
    node = json.loads((tmp_path / "node.json").read_text())
    text = json.dumps({**node, "later": True})
    (tmp_path / "node.json").write_text(text)
    DataDir.open(tmp_path, "n1").close()
    assert (tmp_path / "node.json").read_text() == text


def test_a_file_and_a_place_below_a_file_are_not_directories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=r"data_dir=.*is not a directory; remedy"):
            DataDir.open(path, "n1")


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc, where not even root can make a directory")
    with pytest.raises(StorageError, match=r"data_dir='/proc/n1'.*not writable.*remedy"):
        DataDir.open("/proc/n1", "n1")


def test_a_read_only_directory_is_named(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("permission bits do not stop root")
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match=r"not writable.*remedy"):
        DataDir.open(tmp_path, "n1")


def test_a_buffer_elsewhere_belongs_to_the_same_directory(tmp_path: Path) -> None:
    directory = DataDir.open(tmp_path / "n1", "n1")
    elsewhere = directory.buffer_path(tmp_path / "fast-disk")
    buffer = LmdbBuffer.open(elsewhere, directory.identity)
    buffer.write(BufferWrite(applied=(1, 1)))
    buffer.close()
    directory.close()
    stranger = DataDir.open(tmp_path / "n2", "n2")
    with pytest.raises(StorageError, match=r"node_id 'n1', this is 'n2'.*remedy"):
        LmdbBuffer.open(elsewhere, stranger.identity)
    stranger.close()
