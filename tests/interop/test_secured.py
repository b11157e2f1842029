"""Go servers and ours behind TLS and a gossip key: each is server and client to the other, and who has no certificate or no key stays outside."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.actors.errors import Unreachable
from coterie.actors.room_messages import GetMembership, MembershipView
from coterie.proto.gossip_security import Security
from coterie.transport.tls import Tls
from tests.authority import Authority, Files
from tests.interop.our_gossip import GossipPeer
from tests.interop.our_raft import RaftPeer
from tests.interop.support import LinePeer, PeerError
from tests.interop.test_gossip import all_see_all, meta_of
from tests.interop.test_raft import agree, apply, lead, new_leader
from tests.product.wait import wait_for

pytestmark = [pytest.mark.go, pytest.mark.timeout(300)]

KEY = bytes(range(32))
BLUE = Security(b"blue", (KEY,))


class Certificates:
    """Files and TLS of servers by name, all of one authority."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.authority = directory, Authority()

    def directory_of(self, name: str) -> str:
        Files(self.directory / name, self.authority.pem, self.authority.issue(name))
        return str(self.directory / name)

    def tls(self, name: str) -> Tls:
        return Tls(Files(self.directory / name, self.authority.pem, self.authority.issue(name)).settings, name, watch=False)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_a_quorum_of_both_kinds_over_tls(
    go_server: Callable[..., LinePeer], our_server: Callable[..., RaftPeer], certificates: Certificates
) -> None:
    first, second = (go_server(name, certificates.directory_of(name)) for name in ("g1", "g2"))
    ours = our_server("o1", tls=certificates.tls("o1"))
    lead(first)
    first.ask("voter", node="g2", addr=second.address)
    first.ask("voter", node="o1", addr=ours.address)
    commands = apply(first, "a", 500)
    agree([first, second, ours], commands)

    marks = {"g2": second.mark()}
    first.kill()
    leader = new_leader([second, ours], marks)
    commands += apply(leader, "b", 100)
    agree([second, ours], commands)


def test_ours_leads_a_go_server_over_tls(
    go_server: Callable[..., LinePeer], our_server: Callable[..., RaftPeer], certificates: Certificates
) -> None:
    ours = our_server("o1", bootstrap=True, tls=certificates.tls("o1"))
    ours.leads()
    go = go_server("g1", certificates.directory_of("g1"))
    ours.add("g1", go.address)
    commands = apply(ours, "a", 500)
    agree([ours, go], commands)
    plain = our_server("plain")
    with pytest.raises(Unreachable, match="over TLS"):
        ours.add("plain", plain.address, within=5)


def test_a_go_member_with_the_key_and_the_label_is_one_of_us(
    go_member: Callable[..., LinePeer], our_member: Callable[..., GossipPeer]
) -> None:
    go = go_member("g1", meta_of("g1"), key=base64.b64encode(KEY).decode(), label="blue")
    ours = our_member("o1", meta_of("o1"), go.address, BLUE)
    all_see_all([go, ours], 10)
    other = our_member("x", meta_of("x"), go.address, Security(b"blue", (bytes(32),)))
    strange = go_member("g2", meta_of("g2"))
    wait_for(lambda: view(other).counters.get("seed_unreached", 0) > 0, 20, "Go refuses who has another key")
    with pytest.raises(PeerError):
        strange.ask("join", addrs=[ours.address])
    assert view(ours).counters["streams of strangers: no label"] > 0
    assert set(ours.members()) == {"o1", "g1"}
    assert {member["node"] for member in go.ask("members")["members"]} == {"o1", "g1"}


def view(peer: GossipPeer) -> MembershipView:
    found: MembershipView = peer.ref.ask(GetMembership(), timeout=5)
    return found
