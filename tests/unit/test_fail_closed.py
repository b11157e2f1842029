"""A node whose disk fails closes: nobody waits, every later request hears the reason, and the status still says what happened."""

from __future__ import annotations

import threading

import pytest

from coterie import ClusterSupervisor, Config, Publish, Status, StorageError, Write
from coterie.actors.base import Crash
from coterie.actors.disk.lmdb_env import LmdbEnvironment
from coterie.actors.errors import Indeterminate
from tests.product.wait import wait_for

WAIT = 10.0
ANY = "127.0.0.1:0"


@pytest.fixture
def node(tmp_path):
    ref = ClusterSupervisor.start(Config(node_id="n1", bootstrap=True, data_dir=tmp_path, raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY))
    yield ref
    ref.stop()


def test_a_node_whose_disk_is_full_fails_closed_and_says_so_in_its_status(node, monkeypatch):
    assert node.ask(Publish("t", b"1")).seq == 1

    def full(environment, work):
        raise StorageError("no space left on device")

    monkeypatch.setattr(LmdbEnvironment, "write", full)
    with pytest.raises(Indeterminate):
        node.ask(Publish("t", b"2"))
    assert isinstance(node.ask("failed") or wait_until_failed(node), StorageError)
    for _ in range(2):
        for request in (Publish("t", b"3"), Write("op"), Write("op", b"", 0.5)):
            with pytest.raises(StorageError, match="no space left"):
                node.ask(request)
        node.tell(Write("told"))
        status = node.ask(Status())
        assert not status.healthy
        assert any("serves no more" in warning for warning in status.warnings)
    supervisor = node._actor_weakref()
    assert "go_cluster_is_leader 0.0" in supervisor._rooms.metrics.text().decode()


def wait_until_failed(node):
    wait_for(lambda: node.ask("failed") is not None, WAIT, "the supervisor has heard of it")
    return node.ask("failed")


def test_a_publish_hears_the_reason_also_while_the_publisher_has_not_stopped_yet(node, monkeypatch):
    free = threading.Event()

    publisher = node.publisher
    actor = publisher._actor_weakref()
    monkeypatch.setitem(actor._handlers, str, lambda message: free.wait(WAIT))
    publisher.tell("a message that holds the publisher up")
    supervisor = node._actor_weakref()
    try:
        supervisor._crashed_elsewhere(Crash("raft", StorageError("no space left on device"), True))
        assert isinstance(wait_until_failed(node), StorageError)
        assert not publisher.actor_stopped.is_set()
        with pytest.raises(StorageError, match="no space left"):
            node.ask(Publish("t", b"1"), timeout=WAIT)
    finally:
        free.set()
