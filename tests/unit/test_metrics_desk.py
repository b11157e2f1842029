"""What the supervisor tells the metrics, and in which order views may come."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from coterie.actors.node.metrics_desk import MetricsDesk
from coterie.actors.node.topology import Picture
from coterie.actors.observability.metrics import Metrics
from coterie.actors.room_messages import Member, MembershipView, PeerView, RaftView

ALL = MembershipView(tuple(Member(name, f"{name}:7946", {}, "alive") for name in ("n1", "n2", "n3")))


def leading(contact: float, commit: int = 10, term: int = 2) -> RaftView:
    servers = (
        PeerView("n1", "n1:1", "voter", 10, 0.0),
        PeerView("n2", "n2:1", "voter", 10, 0.0),
        PeerView("n3", "n3:1", "voter", 4, contact),
    )
    silent = frozenset({"n3"}) if contact > 0.5 else frozenset[str]()
    return RaftView(
        role="leader", term=term, leader_id="n1", commit_index=commit, last_index=commit, ready=True, silent=silent, servers=servers
    )


@pytest.fixture
def desk() -> MetricsDesk:
    picture = Picture("n1")
    picture.raft, picture.membership = leading(0.1), ALL
    rooms: Any = SimpleNamespace(metrics=Metrics("n1"))
    desk = MetricsDesk(rooms, picture, None, lambda work: work())  # type: ignore[arg-type]
    desk.raft(picture.raft)
    desk.topology(picture.look())
    return desk


def living(desk: MetricsDesk) -> str:
    return next(line for line in desk.metrics.text().decode().splitlines() if line.startswith("coterie_voters_live "))


def test_a_voter_that_a_later_look_found_silent_stays_so_when_gossip_has_news(desk: MetricsDesk) -> None:
    assert living(desk) == "coterie_voters_live 3.0"
    desk.refreshed(leading(9.0))
    assert living(desk) == "coterie_voters_live 2.0"
    desk.topology(desk._picture.look())
    assert living(desk) == "coterie_voters_live 2.0", "the contact in the last view of a change is as old as that change"
    desk.raft(leading(0.0))
    desk.topology(desk._picture.look())
    assert living(desk) == "coterie_voters_live 3.0"


@pytest.mark.parametrize(("older", "newer"), [(leading(9.0, commit=9), leading(0.1)), (leading(9.0, commit=99, term=1), leading(0.1))])
def test_an_answer_that_was_overtaken_by_a_change_is_not_shown(desk: MetricsDesk, older: RaftView, newer: RaftView) -> None:
    desk.raft(newer)
    desk.refreshed(older)
    assert living(desk) == "coterie_voters_live 3.0"
    assert f"coterie_raft_commit_index {newer.commit_index}.0" in desk.metrics.text().decode()
