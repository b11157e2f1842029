"""How members are probed, and how probes are answered: second by second, with the neighbours played by the test."""

from __future__ import annotations

import pytest

from coterie.actors.membership.effects import MemberFailed, MemberRefuted, MemberSuspected
from coterie.proto.gossip_messages import ALIVE, DEAD, SUSPECT, Ack, Alive, Dead, IndirectPing, Nack, Ping, Suspect
from tests.unit.membership_helpers import ME, Bench, address, alive


def first_ping(bench):
    bench.run(1.0)
    return bench.said(Ping)[-1]


def test_a_ping_names_its_target_and_its_source():
    ping = first_ping(Bench(1))
    assert ping == Ping(1, "m1", *ME, "me")


def test_an_answer_in_time_ends_the_probe_well():
    bench = Bench(2)
    bench.hear(Ack(first_ping(bench).seq_no))
    bench.run(0.9)
    assert not bench.said(IndirectPing)
    assert not bench.stream_pings
    assert bench.core.health == 0


def test_without_an_answer_helpers_and_a_stream_ping_try_at_the_timeout():
    bench = Bench(5)
    ping = first_ping(bench)
    bench.run(0.499)
    assert not bench.said(IndirectPing)
    bench.run(0.001)
    asked = bench.said(IndirectPing)
    assert asked == [IndirectPing(ping.seq_no, *address(ping.node), ping.node, True, *ME, "me")] * 3
    helpers = {packet.node for packet in bench.packets if any(isinstance(m, IndirectPing) for m in packet.messages)}
    assert len(helpers) == 3
    assert ping.node not in helpers
    (stream,) = bench.stream_pings
    assert (stream.ip, stream.port, stream.ping) == (*address(ping.node), ping)
    assert stream.timeout == pytest.approx(0.5)


def test_suspicion_starts_only_at_the_end_of_the_interval_and_ends_in_death():
    bench = Bench(2)
    ping = first_ping(bench)
    bench.run(0.999)
    assert bench.member(ping.node).state == ALIVE
    bench.run(0.001)
    assert bench.member(ping.node).state == SUSPECT
    assert bench.happened(MemberSuspected)[0].accuser == "me"
    bench.run(3.99)
    assert bench.member(ping.node).state == SUSPECT
    bench.run(0.01)
    assert bench.member(ping.node).state == DEAD
    assert bench.happened(MemberFailed)[0].accuser == "me"
    assert Dead(1, ping.node, "me") in bench.said(Dead)


@pytest.mark.parametrize("when", [0.2, 0.7])
def test_an_acknowledgement_direct_or_through_a_helper_saves_it(when):
    bench = Bench(2)
    ping = first_ping(bench)
    bench.run(when)
    bench.hear(Ack(ping.seq_no))
    bench.run(0.99 - when)
    assert not bench.happened(MemberSuspected)


def test_an_answer_over_tcp_alone_saves_it_and_is_counted():
    bench = Bench(1)
    ping = first_ping(bench)
    bench.run(0.6)
    bench.core.stream_pinged(ping.seq_no, True)
    bench.run(0.4)
    assert not bench.happened(MemberSuspected)
    assert bench.core.counters["probe_only_over_stream"] == 1


def test_helpers_without_a_nack_speak_against_us():
    silent, told = Bench(4), Bench(4)
    for bench in (silent, told):
        ping = first_ping(bench)
        bench.run(0.6)
        for _ in range(3):
            if bench is told:
                bench.hear(Nack(ping.seq_no))
        bench.run(0.4)
        assert bench.happened(MemberSuspected)
    assert silent.core.health == 3
    assert told.core.health == 0


def test_ill_health_stretches_the_probe():
    bench = Bench(1)
    bench.hear(Suspect(1, "me", "m1"))
    assert bench.core.health == 1
    first_ping(bench)
    bench.run(1.9)
    assert not bench.happened(MemberSuspected)
    bench.run(0.1)
    assert bench.happened(MemberSuspected)


def test_the_ping_of_a_suspect_carries_the_suspicion():
    bench = Bench(1)
    bench.hear(Suspect(1, "m1", "m9"))
    bench.run(1.0)
    packet = next(p for p in bench.packets if any(isinstance(m, Ping) for m in p.messages))
    assert packet.messages[:2] == (Ping(1, "m1", *ME, "me"), Suspect(1, "m1", "me"))


def test_a_suspect_that_refutes_is_alive_again():
    bench = Bench(1)
    bench.hear(Suspect(1, "m1", "m9"))
    bench.hear(alive("m1", 2))
    assert bench.member("m1").state == ALIVE
    assert bench.happened(MemberRefuted)
    bench.run(0.5)
    assert not bench.happened(MemberFailed)


@pytest.mark.parametrize("name", ["", "me"])
def test_a_ping_for_us_is_acknowledged_to_the_source_it_names(name):
    bench = Bench()
    bench.hear(Ping(42, name, "10.7.7.7", 77, "m7"))
    (packet,) = bench.packets
    assert (packet.ip, packet.port, packet.messages[0]) == ("10.7.7.7", 77, Ack(42))


def test_a_ping_without_a_source_is_acknowledged_to_its_sender():
    bench = Bench()
    bench.hear(Ping(42), source=("10.8.8.8", 88))
    assert (bench.packets[0].ip, bench.packets[0].port) == ("10.8.8.8", 88)


def test_a_ping_for_another_is_not_answered():
    bench = Bench()
    bench.hear(Ping(42, "somebody", "10.7.7.7", 77, "m7"))
    assert not bench.packets
    assert bench.core.counters["ping_for_another"] == 1


def test_who_pings_us_while_taken_for_dead_is_told_with_the_answer():
    bench = Bench(2)
    bench.hear(Dead(1, "m1", "m2"))
    bench.forget()
    bench.hear(Ping(5, "me", *address("m1"), "m1"))
    assert bench.packets[0].messages[:2] == (Ack(5), Suspect(1, "m1", "me"))


def test_a_relayed_ping_has_its_own_number_and_its_answer_the_asker_s():
    bench = Bench()
    bench.hear(IndirectPing(900, *address("m2"), "m2", True, *address("m1"), "m1"))
    relayed = bench.said(Ping, to=address("m2"))[0]
    assert relayed == Ping(1, "m2", *ME, "me")
    bench.hear(Ack(relayed.seq_no))
    assert bench.said(Ack, to=address("m1")) == [Ack(900)]
    bench.run(1.0)
    assert not bench.said(Nack)


@pytest.mark.parametrize("nack", [True, False])
def test_a_relay_without_an_answer_says_nack_if_asked_to(nack):
    bench = Bench()
    bench.hear(IndirectPing(900, *address("m2"), "m2", nack, *address("m1"), "m1"))
    bench.run(0.499)
    assert not bench.said(Nack)
    bench.run(0.001)
    assert bench.said(Nack, to=address("m1")) == [Nack(900)] * nack


def test_relays_are_bounded_and_counted():
    bench = Bench(max_relays=3)
    for i in range(5):
        bench.hear(IndirectPing(i, *address("m2"), "m2", True, *address("m1"), "m1"))
    assert bench.core.counters["relay_limit"] == 2


def test_a_late_answer_is_harmless_and_counted():
    bench = Bench(1)
    bench.hear(Ack(77), Nack(78))
    bench.core.stream_pinged(79, True)
    assert (bench.core.counters["ack_late"], bench.core.counters["nack_late"]) == (1, 1)


def test_who_stood_still_does_not_accuse_the_others_of_silence():
    bench = Bench(3)
    bench.hear(Suspect(1, "m1", "m2"))
    ping = first_ping(bench)
    bench.now += 30.0
    bench.core.tick(bench.now)
    bench.collect()
    assert bench.core.counters["stalls"] == 1
    assert not bench.happened(MemberFailed)
    bench.hear(alive("m1", 2), Ack(ping.seq_no))
    bench.run(0.9)
    assert {member.state for member in bench.core.members()} == {ALIVE}


def test_idle_ticks_are_as_rare_as_the_probes():
    bench = Bench()
    bench.run(10.0)
    ticks = 0
    while bench.core.deadline() <= 200.0:
        bench.core.tick(bench.core.deadline())
        ticks += 1
    assert ticks <= 200


def test_a_packet_to_a_member_that_knows_checksums_asks_for_one():
    bench = Bench()
    bench.hear(Alive(1, "old", "10.0.1.2", 7946, b"", bytes((1, 4, 2, 0, 0, 0))))
    bench.hear(alive("m1"))
    bench.run(2.5)
    assert {packet.node: packet.crc for packet in bench.packets} == {"old": False, "m1": True}


def test_who_pings_us_and_is_not_known_is_asked_for_the_picture():
    bench = Bench(1)
    stranger = ("10.0.1.7", 7946)
    bench.hear(Ping(1, "me", *stranger, "m7"), source=stranger)
    assert [(p.ip, p.port) for p in bench.push_pulls] == [stranger]
    bench.hear(Ping(2, "me", *stranger, "m7"), Ping(3, "me", "10.0.1.8", 7946, "m8"), source=stranger)
    assert len(bench.push_pulls) == 1, "one in a probe interval, and never a host that the packet did not come from"
    bench.forget()
    bench.now += 1.0
    bench.hear(Ping(4, "me", *address("m1"), "m1"), source=address("m1"))
    bench.hear(Ping(5, "", *stranger, "m7"), source=stranger)
    bench.hear(Ping(6, "me", "10.0.1.8", 7946, "m8"), source=stranger)
    assert not bench.push_pulls
