"""`clusterctl backup`, `restore` and `recover` as commands: files that appear whole or not at all, refusals that say what to do, exit codes."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie import Cluster, Config, cli
from coterie.actors.backup_messages import TakeBackup, TakenBackup
from coterie.actors.errors import InvalidRequest
from coterie.actors.management.http_app import http_app
from coterie.proto import backup
from coterie.proto.raft_messages import Configuration, Server
from coterie.testing import LocalCluster
from coterie.transport.http_server import HttpServer
from tests.product.management_world import FakeCluster
from tests.product.wait import wait_for
from tests.unit.stored import change, fingerprints, make, rows

ANY = "127.0.0.1:0"


@pytest.fixture
def clusterctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, Any, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        out = captured.out
        with contextlib.suppress(ValueError):
            out = json.loads(out)
        return int(ended.value.code or 0), out, " ".join(captured.err.split())

    return run


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    return make(tmp_path / "n1")


def names(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# -- a stopped node ---------------------------------------------------------------------------------------------------------------


def test_a_stopped_node_is_backed_up_checked_restored_and_nothing_of_it_is_changed(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    file, before = tmp_path / "n1.backup", fingerprints(stopped)
    code, document, err = clusterctl("backup", stopped, file)
    assert (code, err, document["index"], document["entries"], document["records"], document["online"]) == (0, "", 40, 5, 28, False)
    assert (fingerprints(stopped), names(tmp_path)) == (before, {"n1", "n1.backup"})
    assert file.stat().st_mode & 0o777 == 0o600, "it holds what the application published"
    code, checked, _ = clusterctl("check", file)
    assert (code, checked["sound"], {**checked, "sound": None, "findings": None}) == (
        0,
        True,
        {**document, "sound": None, "findings": None},
    )
    code, text, _ = clusterctl("check", file, "--output", "table")
    assert code == 0 and "of n1 (stopped)" in text and "n1, n2, n3 (entry 1)" in text and "5 of them beyond the snapshot" in text
    code, made, _ = clusterctl("restore", file, tmp_path / "m1", "--id", "m1", "--raft-addr", "10.0.0.1:9520")
    assert (code, made["last_index"], made["servers"]) == (0, 41, [{"id": "m1", "address": "10.0.0.1:9520", "non_voter": False}])
    assert clusterctl("check", tmp_path / "m1")[0] == 0
    code, text, _ = clusterctl("restore", file, tmp_path / "m2", "--id", "m2", "--raft-addr", "h:1", "--output", "table", "--deliver-again")
    assert code == 0 and "restored 28 records of n1" in text and "start m2 without --bootstrap" in text


def test_a_file_that_is_there_stays_unless_force_says_otherwise(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    file = tmp_path / "n1.backup"
    file.write_text("mine")
    code, _, err = clusterctl("backup", stopped, file)
    assert (code, file.read_text()) == (1, "mine") and "--force" in err
    assert clusterctl("backup", stopped, file, "--force")[0] == 0
    assert clusterctl("check", file)[0] == 0
    assert names(tmp_path) == {"n1", "n1.backup"}


def test_what_cannot_be_backed_up_leaves_no_file(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    key, value = rows(stopped, "raft", "log")[28]
    change(stopped, "raft", "log", key, value[:-1] + b"?")
    file = tmp_path / "b"
    for arguments, code, says in (
        ((stopped, file), 1, "entry 39 is damaged"),
        ((tmp_path / "none", file), 2, "name the data directory of a node"),
        ((stopped, tmp_path / "none" / "b"), 2, "name a directory that this user may write"),
        ((stopped, stopped), 1, "is there already"),
        ((stopped, file, file), 2, "3 paths"),
    ):
        ended, _, err = clusterctl("backup", *arguments)
        assert (ended, says in err) == (code, True), err
    assert names(tmp_path) == {"n1"}


def test_a_damaged_backup_is_told_and_not_restored(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    file = tmp_path / "n1.backup"
    clusterctl("backup", stopped, file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    code, document, _ = clusterctl("check", file)
    assert (code, document["sound"]) == (1, False) and "its checksum does not fit" in document["findings"][0]["what"]
    code, text, _ = clusterctl("check", file, "--output", "table")
    assert code == 1 and "damaged" in text and "remedy" in text
    code, _, err = clusterctl("restore", file, tmp_path / "m1", "--id", "m1", "--raft-addr", "h:1")
    assert code == 1 and "its checksum does not fit" in err and "m1" not in names(tmp_path)


def test_restore_refuses_what_is_not_certainly_meant(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    file, peers = tmp_path / "n1.backup", tmp_path / "peers.json"
    clusterctl("backup", stopped, file)
    peers.write_text('[{"id": "n5", "address": "h:1"}]')
    for arguments, code, says in (
        (("--id", "m1"), 2, "one of the two"),
        (("--id", "m1", "--raft-addr", "h:1", "--peers", str(peers)), 2, "one of the two"),
        (("--id", "m1", "--raft-addr", "h"), 2, "--raft-addr='h'"),
        (("--id", "m1", "--peers", str(peers)), 2, "'m1', whose data directory this is, is not among n5"),
        (("--id", "m1", "--peers", "none"), 2, "give a file that can be read"),
    ):
        ended, _, err = clusterctl("restore", file, tmp_path / "new", *arguments)
        assert (ended, says in err) == (code, True), err
    code, _, err = clusterctl("restore", file, stopped, "--id", "m1", "--raft-addr", "h:1")
    assert code == 1 and "is not empty" in err
    code, _, err = clusterctl("restore", tmp_path / "none", tmp_path / "new", "--id", "m1", "--raft-addr", "h:1")
    assert code == 2 and "give a backup that can be read" in err
    assert not (tmp_path / "new").exists()


# -- recover ----------------------------------------------------------------------------------------------------------------------


def test_recover_shows_copies_and_changes(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    peers, before = tmp_path / "peers.json", fingerprints(stopped)
    peers.write_text('[{"id": "n1", "address": "127.0.0.1:9521"}, {"id": "n4", "address": "10.0.0.4:9520", "non_voter": true}]')
    code, text, _ = clusterctl("recover", stopped, "--peers", peers, "--dry-run", "--output", "table")
    assert code == 0 and fingerprints(stopped) == before
    for words in (
        "nothing was changed",
        "5 entries beyond what is applied",
        "41 of term 1048580",
        "not in it",
        "learner at 10.0.0.4:9520",
        "on n4",
    ):
        assert words in text, text
    code, document, _ = clusterctl("recover", stopped, "--peers", peers)
    assert (code, document["changed"], document["entry"]["index"]) == (0, True, 41)
    assert Path(document["copy"]).parent == tmp_path and Path(document["copy"]).name.startswith("n1.before-recover-2")
    assert {k: v for k, v in fingerprints(Path(document["copy"])).items() if k != "LOCK"} == {
        k: v for k, v in before.items() if k != "LOCK"
    }
    assert clusterctl("check", stopped)[1]["raft"]["configuration"] == {
        "index": 41,
        "servers": [
            {"id": "n1", "address": "127.0.0.1:9521", "non_voter": False},
            {"id": "n4", "address": "10.0.0.4:9520", "non_voter": True},
        ],
    }


def test_recover_refuses_a_damaged_directory_and_a_file_that_is_not_meant_for_it(tmp_path: Path, stopped: Path, clusterctl: Any) -> None:
    peers = tmp_path / "peers.json"
    peers.write_text('[{"id": "n1", "address": "127.0.0.1:9521"}]')
    assert clusterctl("recover", stopped, "--peers", tmp_path / "none")[0] == 2
    key, value = rows(stopped, "raft", "log")[10]
    change(stopped, "raft", "log", key, value[:-1] + b"?")
    before = fingerprints(stopped)
    code, _, err = clusterctl("recover", stopped, "--peers", peers)
    assert code == 1 and "is damaged, and nothing was changed: raft log: entry 21" in err
    assert fingerprints(stopped) == before and names(tmp_path) == {"n1", "peers.json"}


# -- a running node ---------------------------------------------------------------------------------------------------------------


def test_a_running_node_is_backed_up_with_all_that_it_has_acknowledged(tmp_path: Path, clusterctl: Any) -> None:
    with LocalCluster(nodes=3) as cluster:
        for number in range(50):
            cluster.publish("orders", b"%d" % number, message_id=str(number))
        addr = cluster.leader.ref.addresses()["http"]
        code, document, err = clusterctl("backup", "--addr", addr, tmp_path / "b")
        assert (code, err, document["online"], document["records"], document["message_ids"]) == (0, "", True, 50, 50)
        assert {server["id"] for server in document["configuration"]["servers"]} == {"n1", "n2", "n3"}
        assert document["topics"]["orders"]["next_seq"] == 51
        code, _, err = clusterctl("backup", "--addr", addr, "--mgmt-proto", "grpc", tmp_path / "c")
        assert code == 2 and "comes over HTTP" in err
    assert clusterctl("check", tmp_path / "b")[0] == 0
    code, made, _ = clusterctl("restore", tmp_path / "b", tmp_path / "m1", "--id", "m1", "--raft-addr", "127.0.0.1:1")
    assert (code, made["records"]) == (0, 50)
    heard: list[bytes] = []

    class Handler:
        def handle_sync(self, topic: str, data: bytes) -> None:
            heard.append(data)

    config = Config(node_id="m1", raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, data_dir=str(tmp_path / "m1"), app_handlers=Handler())
    with Cluster(config) as alone:
        again = alone.publish("orders", b"49", message_id="49")
        assert again.seq == 50, "its message ids are those of the backup"
        assert alone.publish("orders", b"more").seq == 51


class World:
    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.server = HttpServer("127.0.0.1:0", http_app(self.cluster.service()), "n1")
        self.addr = f"127.0.0.1:{self.server.port}"


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.server.close()


def header() -> backup.Header:
    return backup.Header("n1", "2026-01-01T00:00:00+00:00", "1", True, 3, (5, 2), (5, 2), 1, Configuration((Server("n1", "n1:1"),)))


def wait_closed(content: Any) -> None:
    """The server closes it in a thread of its own, which may be after the client has its answer."""
    wait_for(lambda: content.closed, 20, "the file is closed")


def test_a_backup_that_is_refused_and_one_that_is_not_whole_leave_no_file(tmp_path: Path, world: World, clusterctl: Any) -> None:
    world.cluster.answers[TakeBackup] = InvalidRequest("n1 is in no quorum")
    code, _, err = clusterctl("backup", "--addr", world.addr, tmp_path / "b")
    assert (code, "n1 is in no quorum" in err) == (1, True)
    content = (tmp_path / "snapshot").open("w+b")
    world.cluster.answers[TakeBackup] = TakenBackup(header(), content)
    code, _, err = clusterctl("backup", "--addr", world.addr, tmp_path / "b")
    assert code == 1 and "backup:" in err
    wait_closed(content)
    assert names(tmp_path) == {"snapshot"}
    code, _, err = clusterctl("backup", "--addr", "127.0.0.1:1", tmp_path / "b")
    assert code == 2 and "cannot be asked" in err


def test_one_backup_at_a_time_and_a_client_that_goes_away_makes_room(tmp_path: Path, world: World, clusterctl: Any) -> None:
    content = (tmp_path / "snapshot").open("w+b")
    content.truncate(256 << 20)  # more than any socket takes at once
    content.seek(0)
    world.cluster.answers[TakeBackup] = TakenBackup(header(), content)
    host, _, port = world.addr.partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"GET /backup HTTP/1.1\r\nHost: n1\r\n\r\n")
        slow.recv(1000)
        code, _, err = clusterctl("backup", "--addr", world.addr, tmp_path / "b")
        assert (code, "on its way" in err) == (1, True)
    wait_closed(content)
    assert names(tmp_path) == {"snapshot"}
