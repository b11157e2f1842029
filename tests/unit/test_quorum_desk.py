"""What a node asks of its quorum, by what Raft and gossip show it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from coterie import Config
from coterie.actors.node.quorum_desk import QuorumDesk
from coterie.actors.node.topology import META_WANTS, Picture
from coterie.actors.room_messages import PeerView, RaftView


class Desk:
    """Of n2, a follower."""

    def __init__(self) -> None:
        config = Config(node_id="n2", auto_join=True)
        rooms: Any = SimpleNamespace(config=config, directory=None, addresses={"raft": "n2:9520"}, cluster="", raft=None)
        self.picture = Picture("n2")
        self.desk = QuorumDesk(rooms, self.picture, {}, lambda work: work(), logging.getLogger("n2"))

    def shows(self, *servers: str, news: bool = True) -> None:
        listed = tuple(PeerView(name, f"{name}:9520", "voter") for name in servers)
        self.picture.raft = RaftView(term=1, leader_id="n1", last_index=9, servers=listed, configuration_is_news=news)
        self.desk.look(0.0)

    @property
    def asks(self) -> str:
        return self.desk.meta().get(META_WANTS, "")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_who_was_taken_out_while_it_ran_asks_no_more(desk: Desk) -> None:
    desk.shows("n1", "n2")
    assert desk.asks
    desk.shows("n1")
    assert not desk.asks
    desk.shows("n1", "n3")
    assert not desk.asks, "whatever else happens to that quorum"


def test_who_hears_after_its_start_that_it_was_taken_out_before_goes_on_asking(desk: Desk) -> None:
    desk.shows("n1", "n2")
    desk.shows("n1", news=False)
    assert desk.asks
    desk.shows("n1", "n3")
    assert desk.asks, "it was in none since"


def test_who_is_a_server_again_asks_again_with_the_token_it_has(desk: Desk) -> None:
    """It was cut off when it was taken out, and is in again: its log brings both, one after the other."""
    desk.shows("n1", "n2")
    token = desk.asks
    desk.shows("n1")
    desk.shows("n1", "n2")
    assert desk.asks == token
