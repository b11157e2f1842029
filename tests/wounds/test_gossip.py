"""The wounds of gossip clusters, one test each: what hurt the users of such systems, and must not hurt here."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from coterie.actors.membership.core import MembershipCore
from coterie.actors.membership.effects import (
    AddressConflict,
    MemberFailed,
    MemberJoined,
    MemberLeft,
    MemberUpdated,
    MergeRefused,
    MetaTooLarge,
    SelfRefuted,
)
from coterie.actors.membership.rumours import HIGHEST
from coterie.actors.membership.settings import Settings
from coterie.actors.node.status import combine
from coterie.actors.room_messages import MembershipView, RaftView, ReplicationView
from coterie.proto.errors import WireError
from coterie.proto.gossip_codec import decode_packet, encode_compressed, encode_message
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT, SUSPECT, VSN, Alive, Dead, IndirectPing, NodeState, Ping, Suspect
from coterie.proto.gossip_stream import StreamDecoder
from tests.unit.membership_helpers import ME, Bench, address, alive

JUMP = Settings().incarnation_jump


def state(name, incarnation, what, at=None, vsn=VSN):
    return NodeState(name, *(at or address(name)), b"", incarnation, what, vsn)


@pytest.mark.parametrize("accusation", [Suspect(40, "me", "m1"), Dead(40, "me", "m1"), Dead(40, "me", "me"), alive("me", 40, at=ME)])
def test_mass_restart_incarnation_1_rises_above_what_is_said_at_once(accusation):
    bench = Bench(1, incarnation=1)
    bench.hear(accusation)
    assert bench.core.incarnation == 41
    assert bench.happened(SelfRefuted)[0].accused == 40
    bench.run(0.5)
    assert Alive(41, "me", *ME) in bench.said(Alive)
    assert bench.member("me").state == ALIVE


@pytest.mark.parametrize("what", [ALIVE, SUSPECT, DEAD, LEFT])
def test_mass_restart_across_push_pull_too_and_the_answer_goes_back_at_once(what):
    bench = Bench(1)
    bench.core.merge((state("me", 40, what, at=ME),), True, bench.now, address("m1"))
    bench.collect()
    assert bench.core.incarnation == 41
    assert [(p.ip, p.port) for p in bench.push_pulls] == [address("m1")]


def test_mass_restart_a_node_taken_for_dead_comes_back_above_its_last_incarnation():
    bench = Bench(2)
    bench.hear(Dead(1, "m1", "m2"))
    bench.hear(alive("m1", 1))
    assert bench.member("m1").state == DEAD
    bench.hear(alive("m1", 2))
    assert bench.member("m1").state == ALIVE
    assert len(bench.happened(MemberJoined)) == 3


@pytest.mark.parametrize("kind", [Suspect, Dead])
def test_one_message_with_the_highest_incarnation_evicts_nobody(kind):
    bench = Bench(2)
    bench.hear(kind(HIGHEST, "m1", "m2"))
    assert bench.member("m1")[4:6] == (ALIVE, 1)
    assert bench.core.counters["incarnation_jump"] == 1


def test_one_message_with_the_highest_incarnation_about_us_can_be_refuted_and_the_next_one_too():
    bench = Bench(2)
    other = Bench()
    other.hear(alive("me", 1, at=ME))
    for _ in range(20):
        bench.hear(Suspect(HIGHEST, "me", "m1"))
        assert bench.core.incarnation < HIGHEST // 100
        other.hear(alive("me", bench.core.incarnation, at=ME))
    believer = MembershipCore("other", "10.0.3.3", 1, b"", 1, Settings(), 0.0, random.Random(1))
    believer.packet((alive("me", 1, at=ME), Suspect(1 + JUMP, "me", "m2")), ("", 0), 0.0)
    answer = Bench(incarnation=1)
    answer.hear(Suspect(1 + JUMP, "me", "m2"))
    believer.packet((alive("me", answer.core.incarnation, at=ME),), ("", 0), 0.1)
    assert next(m for m in believer.members() if m.name == "me").state == ALIVE


def test_one_alive_message_with_the_highest_incarnation_is_checked_with_the_member_itself():
    bench = Bench(1)
    bench.hear(alive("m1", HIGHEST), alive("m7", HIGHEST))
    assert bench.member("m1").incarnation == 1
    assert bench.member("m7") is None
    assert [(p.ip, p.port) for p in bench.push_pulls] == [address("m1"), address("m7")]
    bench.core.merge((state("m7", 9 * JUMP, ALIVE), state("m1", 9 * JUMP, ALIVE)), False, bench.now, address("m7"))
    assert bench.member("m7").incarnation == 9 * JUMP
    assert bench.member("m1").incarnation == 1


def test_a_node_whose_state_was_lost_climbs_to_a_far_incarnation_step_by_step():
    bench = Bench(1)
    for _ in range(4):
        bench.hear(alive("me", 3 * JUMP, at=ME))
    assert bench.core.incarnation == 3 * JUMP + 1


def test_after_a_long_partition_a_dead_member_is_dialled_again():
    bench = Bench(2)
    bench.hear(Dead(1, "m1", "m2"))
    bench.forget()
    bench.run(11.0)
    assert address("m1") in [(p.ip, p.port) for p in bench.push_pulls]


def test_same_name_with_a_new_address_is_taken_when_the_old_one_is_dead():
    bench = Bench(2)
    bench.hear(Dead(1, "m1", "m2"))
    bench.hear(alive("m1", 2, at=("10.5.5.5", 5)))
    assert bench.member("m1")[1:3] == ("10.5.5.5", 5)
    assert bench.member("m1").state == ALIVE


def test_same_name_with_a_new_address_that_came_early_is_taken_at_the_death_of_the_old():
    bench = Bench(2)
    bench.hear(alive("m1", 2, b"moved", at=("10.5.5.5", 5)))
    assert bench.member("m1")[1:3] == address("m1")
    bench.hear(Dead(1, "m1", "m2"))
    assert bench.member("m1")[1:5] == ("10.5.5.5", 5, b"moved", ALIVE)


def test_same_name_with_a_new_address_waits_for_the_reclaim_time():
    bench = Bench(2, reclaim_after=30.0)
    bench.hear(Dead(1, "m1", "m2"))
    bench.hear(alive("m1", 2, at=("10.5.5.5", 5)))
    assert bench.member("m1").state == DEAD
    bench.run(30.0)
    bench.hear(alive("m1", 2, at=("10.5.5.5", 5)))
    assert bench.member("m1").state == ALIVE


def test_same_name_with_a_new_address_is_taken_at_once_of_who_has_left():
    bench = Bench(1, reclaim_after=1e9)
    bench.hear(Dead(1, "m1", "m1"), alive("m1", 2, at=("10.5.5.5", 5)))
    assert bench.member("m1")[1:3] == ("10.5.5.5", 5)


def test_duplicate_address_conflict_is_named_counted_and_does_not_flap():
    bench = Bench(1)
    for incarnation in range(2, 9):
        bench.hear(alive("m1", incarnation, at=("10.5.5.5", 5)))
    assert bench.happened(AddressConflict) == [AddressConflict("m1", address("m1"), ("10.5.5.5", 5))]
    assert bench.core.counters["address_conflict"] == 7
    assert bench.member("m1")[1:3] == address("m1")
    assert not bench.happened(MemberUpdated)


def test_duplicate_of_our_own_name_is_named_and_answered():
    bench = Bench(1)
    bench.hear(alive("me", 5, at=("10.5.5.5", 5)))
    assert bench.happened(AddressConflict) == [AddressConflict("me", ME, ("10.5.5.5", 5))]
    assert bench.member("me")[1:3] == ME
    assert bench.core.incarnation == 6


@pytest.mark.parametrize("seed", range(200))
def test_indirect_probe_in_3_node_clusters_always_finds_its_helper(seed):
    bench = Bench(2, seed=seed)
    bench.run(1.5)
    assert len(bench.said(IndirectPing)) == 1


def test_local_socket_error_counts_as_a_failed_probe():
    bench = Bench(3)
    bench.run(1.0)
    target = bench.said(Ping)[0].node
    bench.core.send_failed(address(target), bench.now)
    bench.collect()
    assert len(bench.said(IndirectPing)) == 2
    assert len(bench.stream_pings) == 1
    bench.run(1.0)
    assert bench.member(target).state == SUSPECT
    assert bench.core.counters["send_failed"] == 1


def test_compound_of_more_than_255_parts_is_split_and_keeps_to_the_budget():
    bench = Bench()
    for i in range(1, 255):
        bench.hear(Alive(1, f"{i}", "10.0.2.1", i))
    for i in range(255, 700):
        bench.hear(Alive(1, f"{i}", "10.0.2.2", i))
    bench.run(30.0)
    assert len({m.node for m in bench.said(Alive)}) == 700
    for packet in bench.packets:
        assert len(packet.messages) <= 255
        assert sum(len(encode_message(m)) + 2 for m in packet.messages) + 2 + 5 * packet.crc <= 1400


def test_compound_part_count_is_bounded_also_where_bytes_are_not():
    bench = Bench(packet_bytes=60_000)
    for i in range(1, 600):
        bench.hear(Alive(1, f"m{i}", "10.0.2.1", i))
    bench.run(1.0)
    assert max(len(packet.messages) for packet in bench.packets) == 255


@pytest.mark.parametrize("vsn", [b"", bytes((1, 5, 2)), bytes((1, 5, 2, 0, 0)), bytes((0, 5, 2, 0, 0, 0)), bytes((3, 5, 3, 0, 0, 0))])
def test_short_version_array_is_refused_and_poisons_nothing(vsn):
    bench = Bench(1)
    bench.hear(alive("m2", vsn=vsn))
    assert bench.member("m2") is None
    assert bench.core.counters["alive_bad_vsn"] == 1
    with pytest.raises(MergeRefused, match="m2"):
        bench.core.merge((state("m3", 1, ALIVE), state("m2", 1, ALIVE, vsn=vsn)), False, bench.now)
    assert bench.member("m3") is None
    bench.core.merge((state("m3", 1, ALIVE),), False, bench.now)
    assert bench.member("m3").state == ALIVE


def test_meta_of_600_bytes_is_taken_from_others_and_never_sent_as_ours():
    bench = Bench(1)
    bench.hear(alive("m1", 2, bytes(600)))
    assert len(bench.member("m1").meta) == 600
    with pytest.raises(MetaTooLarge, match="600"):
        bench.core.update_meta(bytes(600))
    with pytest.raises(MetaTooLarge):
        Bench().core.__class__("me", *ME, bytes(513), 1, Settings(), 0.0, random.Random(1))


def test_what_we_say_of_ourselves_always_has_six_versions():
    bench = Bench(2)
    bench.core.update_meta(bytes(512))
    bench.hear(Suspect(9, "me", "m1"))
    bench.run(5.0)
    assert {m.vsn for m in bench.said(Alive)} == {VSN}
    assert {s.vsn for s in bench.core.push_pull_state()} == {VSN}


def test_a_leave_is_no_failure_and_is_told_to_the_limit_with_the_current_incarnation():
    bench = Bench(1, incarnation=7)
    bench.run(3.0)
    bench.forget()
    bench.core.leave(bench.now)
    assert not bench.core.has_left()
    bench.run(2.0)
    assert bench.core.has_left()
    assert bench.said(Dead) == [Dead(7, "me", "me")] * 4
    bench.hear(Suspect(9, "me", "m1"), alive("me", 9, at=ME))
    assert bench.member("me").state == LEFT
    other = Bench(2)
    other.hear(Dead(1, "m1", "m1"))
    assert other.member("m1").state == LEFT
    assert other.happened(MemberLeft)
    assert not other.happened(MemberFailed)


def test_a_failure_that_was_a_leave_becomes_one_and_never_the_reverse():
    bench = Bench(2)
    bench.hear(Dead(1, "m1", "m2"), Dead(1, "m1", "m1"), Dead(1, "m1", "m2"))
    bench.core.merge((state("m1", 1, DEAD),), False, bench.now)
    assert bench.member("m1").state == LEFT


def test_gossip_goes_on_to_the_recently_dead_and_not_to_the_left():
    bench = Bench(4)
    bench.hear(Dead(1, "m1", "m3"), Dead(1, "m2", "m2"))
    bench.forget()
    bench.run(1.0)
    told = {packet.node for packet in bench.packets}
    assert "m1" in told
    assert "m2" not in told


def test_a_push_pull_death_is_a_suspicion_first_and_the_unknown_dead_stay_unknown():
    bench = Bench(2)
    bench.core.merge((state("m1", 1, DEAD), state("m8", 1, DEAD), state("m9", 1, LEFT)), False, bench.now)
    assert bench.member("m1").state == SUSPECT
    assert bench.member("m8") is bench.member("m9") is None


def test_members_are_bounded_and_refusals_counted():
    bench = Bench(5, max_members=4)
    assert len(bench.core.members()) == 4
    assert bench.core.counters["member_limit"] == 2


DECODER_BOMBS = {
    "a count of nodes": b"\x06\x82\xa5Nodes\xce\x00\x10\x00\x01\xacUserStateLen\x00",
    "a length of user state": b"\x06\x82\xa5Nodes\x00\xacUserStateLen\xce\x01\x40\x00\x01",
    "a length of a user message": b"\x08\x81\xaaUserMsgLen\xce\x01\x40\x00\x01",
    "a compressed nothing": b"\x09\xc0",
}


@pytest.mark.parametrize("promise", DECODER_BOMBS)
def test_decoder_bombs_on_a_stream_are_refused_at_the_promise(promise):
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            StreamDecoder().feed(DECODER_BOMBS[promise])
        assert tracemalloc.get_traced_memory()[1] < 1 << 18
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "packet", [encode_compressed(b"\x08" + bytes(9 << 20)), b"\x07\xff", b"\x07\x01\xff\xff", b"\x01\xc0", b"\x04", b""]
)
def test_decoder_bombs_in_a_packet_are_refused_or_empty(packet):
    try:
        decoded = decode_packet(packet)
    except WireError:
        return
    assert not decoded.messages
    assert decoded.errors


@pytest.mark.parametrize(
    ("forged", "counted"),
    [
        (alive("m1", 2, at=("10.5.5.5", 5)), "address_conflict"),
        (alive("me", 5, at=("10.5.5.5", 5)), "address_conflict"),
        (Dead(HIGHEST, "m1", "m2"), "incarnation_jump"),
        (alive("m3", vsn=b""), "alive_bad_vsn"),
    ],
)
def test_replayed_forged_or_name_stealing_gossip_is_counted_and_shown(forged, counted):
    bench = Bench(2)
    bench.hear(forged)
    assert bench.core.counters[counted] == 1
    status = combine("me", RaftView(), MembershipView(counters=bench.core.counters), ReplicationView(), {})
    assert status.dropped[f"gossip: {counted}"] == 1
    bench.hear(Suspect(1, "m1", "m2"), alive("m1", 2), alive("m1", 1), Suspect(1, "m1", "m2"), Dead(1, "m1", "m2"))
    assert bench.member("m1").state == ALIVE, "what is replayed is older than what was said since"
