"""The links of a Raft server to its peers, as its actor sees them."""

from __future__ import annotations

import threading
import time

from coterie.actors.raft.links import Links
from coterie.proto.raft_messages import Server
from coterie.transport import stream
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
