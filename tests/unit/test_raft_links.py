"""The links of a Raft server to its peers, as its actor sees them."""

from __future__ import annotations

import threading
import time

from coterie.actors.raft.links import Links
from coterie.actors.raft.ready import Send, VoteToken
from coterie.proto.raft_messages import Header, Server, VoteRequest
from coterie.transport import stream
from coterie.transport.raft_client import RaftPeer
from tests.product.wait import wait_for


def test_name_lookups_that_hang_do_not_keep_a_server_from_closing(monkeypatch):
    asked, answered, threads = [], threading.Event(), set(threading.enumerate())

    def hangs(host, *rest, **more):
        asked.append(host)
        answered.wait(30)
        raise OSError("no such name")

    monkeypatch.setattr(stream.socket, "getaddrinfo", hangs)
    links = Links("n1", lambda message: None)
    links.reconcile([Server(f"n{n}", f"host{n}.example:9520") for n in range(2, 7)])
    wait_for(lambda: len(asked) == 5, 10.0, "each is looked up")
    began = time.monotonic()
    links.close()
    took = time.monotonic() - began
    answered.set()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    assert took < 5.0


def test_a_server_whose_address_is_none_is_one_that_is_not_reached():
    """A go-cluster leader takes a join with any text: its configuration must not stop the servers of ours that get it."""
    links = Links("n1", lambda message: None)
    try:
        for _ in range(2):
            assert links.reconcile([Server("n2", "no address"), Server("n3", "127.0.0.1:1")]) == []
        assert links.counters()["servers without an address now"] == 1
        links.send(Send("n2", "no address", VoteRequest(Header("n1", "127.0.0.1:2"), 1, 0, 0), VoteToken(1, 1, False)))
        links.reconcile([Server("n2", "127.0.0.1:3")])
        assert "servers without an address now" not in links.counters()
        assert set(links._links) == {"n2"}
    finally:
        links.close()


def test_the_link_of_a_peer_that_is_seen_is_the_one_that_dials_at_once(monkeypatch):
    seen = []
    monkeypatch.setattr(RaftPeer, "seen", lambda link: seen.append(str(link.address)))
    links = Links("n1", lambda message: None)
    try:
        links.reconcile([Server("n2", "127.0.0.1:1"), Server("n3", "127.0.0.1:2")])
        for peer in ("n3", "n9"):
            links.seen(peer)
        assert seen == ["127.0.0.1:2"]
    finally:
        links.close()
