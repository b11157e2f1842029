"""The watch over disks: what it says of a write that waits, and when it takes it back; and what the node makes of it."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import httpx
import pytest

from coterie import ClusterSupervisor, Config, CoterieError, Publish, Status, StorageError
from coterie.actors.disk import lmdb_env
from coterie.actors.disk.disk_watch import DiskWatch
from coterie.actors.disk.lmdb_env import META, Identity, Layout, LmdbEnvironment
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.transport.logs import Log
from tests.product.wait import wait_for

WAIT = 15.0
ANY = "127.0.0.1:0"


class Store:
    path = Path("/data/raft")

    def __init__(self) -> None:
        self.since: float | None = None

    def stalled(self, now: float) -> float:
        return 0.0 if self.since is None else now - self.since


@pytest.fixture
def watched():
    stores, told = {"raft": Store(), "buffer": Store()}, []
    return stores, DiskWatch(stores, 1.5, lambda store, seconds: told.append((store, seconds)), Log("coterie.test")), told


def test_a_write_is_late_after_the_patience_and_not_before(watched, caplog):
    caplog.set_level(logging.INFO)
    stores, watch, told = watched
    stores["raft"].since = 100.0
    watch.look(101.4)
    assert watch.warnings == {} and watch.stalled == "" and told == [("raft", 0.0), ("buffer", 0.0)]
    watch.look(101.6)
    watch.look(103.0)
    assert "Raft log does not answer" in watch.stalled and "3.0 s" in watch.stalled and "/data/raft" in watch.stalled
    assert told[-2:] == [("raft", 3.0), ("buffer", 0.0)]
    assert watch.next_time > 103.0
    stores["raft"].since = None
    watch.look(104.0)
    assert watch.warnings == {} and watch.stalled == "" and told[-2:] == [("raft", 0.0), ("buffer", 0.0)]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"], "once at the beginning, once at the end"


def test_a_buffer_that_does_not_answer_is_only_a_warning(watched):
    stores, watch, _ = watched
    stores["buffer"].since = 100.0
    watch.look(110.0)
    assert watch.stalled == "" and "replication buffer does not answer" in watch.warnings["buffer"]


@pytest.mark.parametrize("began", [99.5, 100.1, 104.9])
def test_a_process_that_stood_still_does_not_accuse_its_disk(watched, caplog, began):
    stores, watch, told = watched
    watch.look(100.0)
    stores["raft"].since = began  # before, in or at the end of a pause from 100.2 to 105
    watch.look(105.0)
    watch.look(105.2)
    stores["raft"].since = None
    watch.look(105.5)
    assert watch.warnings == {} and not caplog.records
    assert {seconds for _, seconds in told} == {0.0}


def test_a_disk_that_hangs_is_noticed_also_after_a_pause_and_by_looks_that_come_late(watched):
    stores, watch, told = watched
    watch.look(100.0)
    stores["raft"].since = 100.0
    for late in range(1, 7):
        watch.look(100.0 + late)
        assert bool(watch.stalled) is (late == 6), f"{late} looks, each of which vouches for a quarter of a second"
    assert told[-2] == ("raft", pytest.approx(6.0))
    stores["raft"].since = 106.05  # the next write, which has not waited long
    watch.look(106.25)
    assert watch.stalled == ""


class Hang:
    """Every commit of an environment waits, as in the kernel, until `free`."""

    def __init__(self, monkeypatch, where):
        self.free = threading.Event()
        self.waits = threading.Event()
        write = LmdbEnvironment.write

        def slow(environment, work):
            if environment.path.name != where or self.free.is_set():
                return write(environment, work)

            def waits(transaction):
                result = work(transaction)
                self.waits.set()
                assert self.free.wait(60)
                return result

            return write(environment, waits)

        monkeypatch.setattr(LmdbEnvironment, "write", slow)


def test_a_node_whose_disk_hangs_answers_says_so_and_goes_on(tmp_path, monkeypatch):
    config = Config(node_id="n1", bootstrap=True, data_dir=tmp_path, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, store_timeout=0.3)
    node = ClusterSupervisor.start(config)
    try:
        assert node.ask(Publish("t", b"1")).seq == 1
        http = node.addresses()["http"]
        hang = Hang(monkeypatch, "raft")
        waiting = node.ask(Publish("t", b"2", timeout=60), block=False)
        assert hang.waits.wait(WAIT)
        wait_for(lambda: httpx.get(f"http://{http}/readyz").status_code == 503, WAIT, "it is not ready")
        began = time.monotonic()
        status = node.ask(Status(), timeout=WAIT)
        assert time.monotonic() - began < 5
        assert any("the disk of the Raft log does not answer" in warning for warning in status.warnings)
        assert (status.role, status.leader_id, status.healthy) == ("follower", "", False)
        assert httpx.get(f"http://{http}/livez").status_code == 200
        assert "go_cluster_is_leader 0.0" in httpx.get(f"http://{http}/metrics").text
        with pytest.raises(CoterieError):
            node.ask(Publish("t", b"3", timeout=0.3), timeout=WAIT)
        hang.free.set()
        assert waiting.get(timeout=WAIT).seq == 2
        wait_for(lambda: httpx.get(f"http://{http}/readyz").status_code == 200, WAIT, "it is ready")
        status = node.ask(Status())
        assert status.leader_id == "n1" and not any("disk" in warning for warning in status.warnings)
        assert node.ask(Publish("t", b"4")).seq == 3
    finally:
        node.stop()


def test_a_node_whose_disk_hangs_for_ever_stops_and_keeps_its_directory_locked(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_env, "CLOSE_PATIENCE", 0.2)
    monkeypatch.setattr("coterie.actors.node.assembly.STOP_PATIENCE", 0.3)
    monkeypatch.setattr("coterie.actors.replication.room.STOP_PATIENCE", 0.3)
    config = Config(node_id="n1", bootstrap=True, data_dir=tmp_path, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY)
    node = ClusterSupervisor.start(config)
    node.ask(Publish("t", b"1"))
    hang = Hang(monkeypatch, "buffer")
    node.ask(Publish("t", b"2"))
    assert hang.waits.wait(WAIT)
    node.stop(timeout=WAIT)
    with pytest.raises(StorageError, match="in use by process"):
        ClusterSupervisor.start(config)
    hang.free.set()

    def again():
        try:
            return ClusterSupervisor.start(config)
        except StorageError:
            return None

    assert again() is None, "the lock goes with the process, not with the disk's answer"


LAYOUT = Layout("coterie test", 1, ("things",), False, "none")


def test_an_environment_says_how_long_a_write_has_waited_and_closes_when_it_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_env, "CLOSE_PATIENCE", 0.2)
    environment = LmdbEnvironment.open(tmp_path / "x", LAYOUT, Identity("n1", "a"))
    assert environment.stalled(time.monotonic()) == 0.0
    begun, free = threading.Event(), threading.Event()

    def work(transaction):
        transaction.put(b"k", b"v", db=environment.database("things"))
        begun.set()
        assert free.wait(60)

    writer = threading.Thread(target=lambda: environment.write(work))
    writer.start()
    assert begun.wait(WAIT)
    assert environment.stalled(time.monotonic() + 5.0) >= 5.0
    with pytest.raises(StorageError, match=r"has not answered for 0\.2 s"):
        environment.close()
    assert not environment.released
    free.set()
    writer.join(WAIT)
    wait_for(lambda: environment.released, WAIT, "closed after all")
    environment = LmdbEnvironment.open(tmp_path / "x", LAYOUT, Identity("n1", "a"))
    with environment.read() as transaction:
        assert transaction.get(b"k", db=environment.database("things")) == b"v"
        assert transaction.get(b"format", db=environment.database(META)) is not None
    environment.close()
    assert environment.released


def test_nothing_of_lmdb_s_lock_is_on_the_disk_of_the_data(tmp_path):
    log = LmdbLog.open(tmp_path / "raft", Identity("n1", "a"))
    assert {path.name for path in (tmp_path / "raft").iterdir()} == {"data.mdb"}
    log.close()
