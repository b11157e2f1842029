"""Seeds from DNS: which records are asked for, how often, and what an answer that fails to come costs. Look-ups against a real server on a socket."""

from __future__ import annotations

import socket

import pytest

from coterie.actors.config import Config
from coterie.actors.membership import sources
from coterie.actors.membership.discovery import Found
from coterie.actors.membership.dns_seeds import HOLD, LONGEST_ABSENCE, LONGEST_TTL, DnsSeeds
from coterie.transport.addresses import parse_address
from coterie.transport.name_lookup import NameNotFound, NameUnanswered, Records, Resolver, Target
from tests.dns_server import dns_server

NODES = "nodes.test"
SERVICE = "_gossip._udp.test"


class FakeResolver:
    """answers: (method, name) -> Records, or the error to raise; anything else does not exist."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def _look(self, kind, name):
        self.asked.append((kind, name))
        answer = self.answers.get((kind, name), NameNotFound("there is no such name (NXDOMAIN)"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ipv4(self, name):
        return self._look("ipv4", name)

    def ipv6(self, name):
        return self._look("ipv6", name)

    def services(self, name):
        return self._look("services", name)


class Bench:
    def __init__(self, *names, port=7946, **answers):
        self.now = 1000.0
        self.resolver = FakeResolver({})
        self.seeds = DnsSeeds(names, port, 5.0, self.resolver, lambda: self.now)

    def put(self, kind, name, *values, ttl=0.0):
        self.resolver.answers[kind, name] = Records(values, ttl)

    def fail(self, kind, name, error=None):
        self.resolver.answers[kind, name] = error or NameUnanswered("no DNS server answered")

    def find(self, later=0.0):
        self.now += later
        self.resolver.asked.clear()
        return self.seeds.find()


def test_a_name_is_every_address_it_has_with_the_port_of_the_configuration():
    bench = Bench(NODES, port=8946)
    bench.put("ipv4", NODES, "10.0.0.1", "10.0.0.2")
    bench.put("ipv6", NODES, "fd00::1")
    assert bench.find() == Found(("10.0.0.1:8946", "10.0.0.2:8946", "[fd00::1]:8946"))


def test_addresses_and_host_with_port_are_taken_as_they_are():
    bench = Bench("10.0.0.9", "fd00::9", "db:7000", "[::1]:7001")
    assert bench.find() == Found(("10.0.0.9:7946", "[fd00::9]:7946", "db:7000", "[::1]:7001"))
    assert bench.resolver.asked == []


def test_srv_records_bring_ports_and_an_order():
    bench = Bench(SERVICE)
    bench.put(
        "services",
        SERVICE,
        Target(20, 0, "c.test.", 3),
        Target(10, 1, "b.test.", 2),
        Target(10, 9, "a.test.", 1),
        Target(9, 0, "10.0.0.4", 4),
    )
    for number, name in enumerate("abc", 1):
        bench.put("ipv4", f"{name}.test.", f"10.0.0.{number}")
    assert bench.find() == Found(("10.0.0.4:4", "10.0.0.1:1", "10.0.0.2:2", "10.0.0.3:3"))


def test_a_service_that_says_it_is_not_there_and_a_target_that_is_missing_are_problems():
    bench = Bench(SERVICE)
    bench.put("services", SERVICE, Target(0, 0, ".", 0))
    assert "no such service" in bench.find().problems[0]
    bench.put("services", SERVICE, Target(0, 0, "a.test.", 1), Target(0, 0, "b.test.", 2), Target(0, 0, "c.test.", 0))
    bench.put("ipv4", "b.test.", "10.0.0.2")
    found = bench.find()
    assert found.seeds == ("10.0.0.2:2",)
    assert found.problems == ("a.test: there is no such name (NXDOMAIN)", f"{SERVICE}: its SRV record for c.test has port 0")


def test_one_family_of_addresses_is_enough():
    bench = Bench(NODES)
    bench.put("ipv6", NODES, "fd00::1")
    assert bench.find() == Found(("[fd00::1]:7946",))


def test_a_name_is_asked_again_when_its_time_to_live_is_over_and_not_before():
    bench = Bench(NODES)
    bench.put("ipv4", NODES, "10.0.0.1", ttl=30.0)
    bench.put("ipv6", NODES, "fd00::1", ttl=300.0)
    bench.find()
    bench.put("ipv4", NODES, "10.0.0.2", ttl=30.0)
    assert bench.find(29.9) == Found(("10.0.0.1:7946", "[fd00::1]:7946"))
    assert bench.resolver.asked == []
    assert bench.find(0.1).seeds[0] == "10.0.0.2:7946"
    assert bench.resolver.asked == [("ipv4", NODES)]


def test_without_a_time_to_live_every_look_asks_and_a_long_one_counts_as_an_hour():
    bench = Bench(NODES)
    bench.put("ipv4", NODES, "10.0.0.1", ttl=0.0)
    bench.put("ipv6", NODES, "fd00::1", ttl=10 * LONGEST_TTL)
    for _ in range(3):
        bench.find(5.0)
        assert ("ipv4", NODES) in bench.resolver.asked
    bench.find(LONGEST_TTL)
    assert ("ipv6", NODES) in bench.resolver.asked


def test_that_a_name_is_absent_holds_as_long_as_its_zone_says_but_no_longer_than_a_minute():
    bench = Bench(NODES)
    bench.fail("ipv4", NODES, NameNotFound("absent", 20.0))
    bench.fail("ipv6", NODES, NameNotFound("absent", 9999.0))
    bench.find()
    bench.find(20.0)
    assert bench.resolver.asked == [("ipv4", NODES)]
    bench.find(LONGEST_ABSENCE)
    assert ("ipv6", NODES) in bench.resolver.asked


@pytest.mark.parametrize("error", [NameUnanswered("SERVFAIL"), NameNotFound("there is no such name (NXDOMAIN)")])
def test_a_failure_keeps_the_last_good_answer_for_a_while_and_says_so(error):
    bench = Bench(NODES)
    bench.put("ipv4", NODES, "10.0.0.1", ttl=5.0)
    bench.find()
    bench.fail("ipv4", NODES, error)
    found = bench.find(5.0)
    assert found == Found(("10.0.0.1:7946",), (f"{NODES}: {error}; its last good answer stays in use for now",))
    assert bench.find(HOLD - 0.1).seeds == ("10.0.0.1:7946",)
    assert bench.find(0.2) == Found((), (f"{NODES}: {error}",))
    bench.put("ipv4", NODES, "10.0.0.2")
    assert bench.find(5.0) == Found(("10.0.0.2:7946",))


def test_a_family_that_fails_to_answer_is_a_problem_only_if_something_is_missing():
    bench = Bench(NODES)
    bench.put("ipv4", NODES, "10.0.0.1")
    bench.fail("ipv6", NODES)
    assert bench.find() == Found(("10.0.0.1:7946",))
    bench.put("ipv6", NODES, "fd00::1")
    bench.find(5.0)
    bench.fail("ipv4", NODES)
    found = bench.find(5.0)
    assert found.seeds == ("10.0.0.1:7946", "[fd00::1]:7946")
    assert len(found.problems) == 1


def test_what_srv_records_name_no_more_is_forgotten():
    bench = Bench(SERVICE)
    for number in range(50):
        bench.put("services", SERVICE, Target(0, 0, f"n{number}.test.", 1))
        bench.put("ipv4", f"n{number}.test.", "10.0.0.1")
        bench.find(5.0)
    assert len(bench.seeds._answers) == 3


# -- against a server on a socket -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    with dns_server() as (made, address):
        made.resolver = Resolver((parse_address(address),))
        made.address = address
        yield made


def test_records_and_the_shortest_time_on_the_way_to_them(server):
    server.set(NODES, "A", "10.0.0.1", "10.0.0.2", ttl=30)
    server.set(NODES, "AAAA", "fd00::1", ttl=7)
    server.set(SERVICE, "SRV", "10 5 7946 a.test.", "20 0 8946 b.test.", ttl=9)
    found = server.resolver.ipv4(NODES)
    assert (set(found.values), found.ttl) == ({"10.0.0.1", "10.0.0.2"}, 30.0)
    assert server.resolver.ipv6(NODES) == Records(("fd00::1",), 7.0)
    services = server.resolver.services(SERVICE)
    assert set(services.values) == {Target(10, 5, "a.test.", 7946), Target(20, 0, "b.test.", 8946)}


def test_what_does_not_exist_says_so_and_for_how_long(server):
    server.set(NODES, "A", "10.0.0.1")
    server.absent_ttl = 17
    with pytest.raises(NameNotFound, match="NXDOMAIN") as absent:
        server.resolver.ipv4("nobody.test")
    assert absent.value.ttl == 17.0
    with pytest.raises(NameNotFound, match="no AAAA records") as absent:
        server.resolver.ipv6(NODES)
    assert absent.value.ttl == 17.0
    server.set(NODES, "AAAA")
    with pytest.raises(NameNotFound) as absent:
        server.resolver.ipv6(NODES)
    assert absent.value.ttl == 0.0


def test_a_server_that_fails_is_named_with_what_it_said(server):
    server.fail[NODES] = "SERVFAIL"
    with pytest.raises(NameUnanswered, match=f"127.0.0.1:{server.address.split(':')[1]} said SERVFAIL|said SERVFAIL"):
        server.resolver.ipv4(NODES)


def test_a_server_that_is_silent_is_waited_for_only_so_long(server):
    server.fail[NODES] = "silence"
    with pytest.raises(NameUnanswered, match="within 3 s"):
        server.resolver.ipv4(NODES)


def test_nobody_listens():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    with pytest.raises(NameUnanswered):
        Resolver((parse_address(f"127.0.0.1:{port}"),)).ipv4(NODES)


def test_an_answer_too_long_for_a_packet_comes_over_tcp(server):
    server.set(NODES, "A", "10.0.0.1", ttl=3)
    server.fail[NODES] = "truncated"
    assert server.resolver.ipv4(NODES) == Records(("10.0.0.1",), 3.0)
    assert server.over_tcp == 1


def test_a_machine_without_dns_servers_is_a_failure_like_another(monkeypatch):
    import dns.resolver

    def unconfigured(*_, **__):
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver, "Resolver", unconfigured)
    with pytest.raises(NameUnanswered, match=r"resolv\.conf"):
        Resolver().ipv4(NODES)


def test_a_config_becomes_a_source_that_asks_its_servers_and_keeps_the_static_seeds(server):
    server.set(NODES, "A", "10.0.0.1")
    config = Config(
        node_id="n1",
        discovery_kind="dns",
        dns_names_csv=NODES,
        dns_servers_csv=server.address,
        disc_refresh="2s",
        seeds_csv="10.0.0.7:7946",
    )
    source = sources.source(config)
    assert source.refresh == 2.0
    assert source.find() == Found(("10.0.0.7:7946", "10.0.0.1:7946"))


def test_a_source_that_names_thousands_is_cut(tmp_path):
    path = tmp_path / "seeds"
    path.write_text("\n".join(f"10.0.{n // 250}.{n % 250 + 1}:7946" for n in range(1000)))
    found = sources.source(Config(node_id="n1", discovery_kind="file", file_path=path)).find()
    assert len(found.seeds) == sources.MOST_SEEDS
    assert "1000 seeds" in found.problems[-1]
