"""Config and durations: every knob has its default, good values are taken in every notation, bad ones are refused by name."""

from __future__ import annotations

import math
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.config import Config
from coterie.actors.durations import seconds
from coterie.actors.errors import ConfigError

# -- durations --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_as", "expected"),
    [
        (0, 0.0),
        (2, 2.0),
        (1.5, 1.5),
        (timedelta(milliseconds=1500), 1.5),
        ("0", 0.0),
        ("1500ms", 1.5),
        ("1.5s", 1.5),
        ("1m30s", 90.0),
        ("2h45m", 9900.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        (" 5s ", 5.0),
        ("100us", 1e-4),
        ("100µs", 1e-4),
        ("100μs", 1e-4),
        ("1ns", 1e-9),
    ],
)
def test_durations_in_every_notation(given_as: object, expected: float) -> None:
    assert seconds(given_as) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    "bad",
    ["", "soon", "5", "s", "5 s", "5s5", "-5s", "1e3s", "5S", "٥s5", "1,5s", -1, math.nan, math.inf, None, True, [], b"5s", timedelta(-1)],
)
def test_what_is_no_duration_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="give"):
        seconds(bad)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["h", "m", "s", "ms", "us", "ns"])), min_size=1, max_size=5))
def test_parts_add_up(parts: list[tuple[int, str]]) -> None:
    units = {"h": 3600, "m": 60, "s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    assert seconds("".join(f"{number}{unit}" for number, unit in parts)) == pytest.approx(sum(n * units[u] for n, u in parts))


@given(st.text(max_size=20))
def test_any_text_is_a_finite_duration_or_a_value_error(text: str) -> None:
    try:
        number = seconds(text)
    except ValueError:
        return
    assert number >= 0 and math.isfinite(number)


# -- the configuration ------------------------------------------------------------------------------------------------------------

DEFAULTS = {
    "raft_addr": ":9520",
    "mem_bind": ":7946",
    "mem_adv": "",
    "mgmt_addr": ":17946",
    "mgmt_proto": "http",
    "discovery_kind": "static",
    "seeds_csv": "",
    "dns_names_csv": "",
    "dns_port": 7946,
    "dns_servers_csv": "",
    "disc_refresh": 5.0,
    "file_path": "",
    "file_env": "",
    "data_dir": "",
    "bootstrap": False,
    "tls_enable": False,
    "tls_ca": "",
    "tls_cert": "",
    "tls_key": "",
    "tls_server_name": "",
    "tls_skip_verify": False,
    "app_handlers": None,
    "repl_window": 1024,
    "repl_retry": 1.5,
    "repl_buffer_dir": "",
    "on_leader_change": None,
    "on_election_start": None,
    "on_election_end": None,
}


def test_the_defaults_are_those_of_the_contract() -> None:
    config = attrs.asdict(Config(node_id="n1"))
    assert {name: config[name] for name in DEFAULTS} == DEFAULTS


BAD: list[tuple[str, Any]] = [
    ("request_timeout", 1e300),
    ("repl_retry", "9999999999h"),
    ("remove_dead_after", 1e10),
    ("node_id", ""),
    ("node_id", 7),
    ("node_id", "a\tb"),
    ("node_id", "x" * 129),
    ("node_id", "я" * 65),
    ("raft_addr", ""),
    ("raft_addr", "127.0.0.1"),
    ("raft_addr", "127.0.0.1:70000"),
    ("raft_addr", None),
    ("mem_bind", "::1:7946"),
    ("mem_adv", "a b:1"),
    ("mgmt_addr", 17946),
    ("mgmt_proto", "HTTP"),
    ("http_addr", "x"),
    ("grpc_addr", "x"),
    ("discovery_kind", "dns"),  # without names
    ("discovery_kind", "file"),  # without a path
    ("discovery_kind", "gossip"),
    ("seeds_csv", "127.0.0.1"),
    ("seeds_csv", "127.0.0.1:0"),
    ("seeds_csv", ":7946"),
    ("seeds_csv", ["127.0.0.1:7946"]),
    ("dns_names_csv", "a.b"),
    ("dns_port", 0),
    ("dns_port", "7946"),
    ("dns_port", True),
    ("dns_port", 65536),
    ("dns_names_csv", "nodes.example.com,a..b"),
    ("dns_names_csv", "a b"),
    ("dns_names_csv", "nodes.example.com:0"),
    ("dns_names_csv", 7),
    ("dns_servers_csv", "ns.example.com"),
    ("dns_servers_csv", "ns.example.com:53"),
    ("dns_servers_csv", "10.0.0.2:0"),
    ("dns_servers_csv", None),
    ("disc_refresh", "0s"),
    ("disc_refresh", "often"),
    ("http_addr", "127.0.0.1:8080"),
    ("file_path", "seeds"),
    ("file_env", "SEEDS"),
    ("file_env", "9 SEEDS"),
    ("file_path", 7),
    ("data_dir", None),
    ("data_dir", "a\x00b"),
    ("bootstrap", 1),
    ("leave_on_stop", "yes"),
    ("tls_enable", True),
    ("tls_ca", "ca.pem"),
    ("tls_cert", "c.pem"),
    ("tls_key", "k.pem"),
    ("tls_server_name", "n"),
    ("tls_skip_verify", True),
    ("app_handlers", 3),
    ("app_handlers", print),
    ("app_handlers", threading.Thread),  # a class, and of no handler actor
    ("repl_window", 0),
    ("repl_window", 1.5),
    ("repl_retry", -1),
    ("repl_retry", math.nan),
    ("repl_buffer_dir", "/somewhere"),
    ("request_timeout", 0),
    ("max_payload", 0),
    ("max_payload", 1 << 30),
    ("heartbeat_timeout", 5.0),
    ("lease_timeout", 3.0),
    ("on_leader_change", "print"),
    ("on_election_start", 1),
    ("on_election_end", []),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_value_names_field_value_and_remedy(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}={re.escape(repr(value))}: ") as raised:
        Config(**{"node_id": "n1", field: value})
    assert (raised.value.field, raised.value.value) == (field, value)
    assert raised.value.remedy


def test_good_values_in_every_notation() -> None:
    config = Config(
        node_id="узел 1",
        raft_addr="[::1]:0",
        mem_bind=":0",
        mem_adv="db.example.com:7946",
        seeds_csv=" 10.0.0.1:7946 ,, db-2:7946, ",
        data_dir=Path("/var/lib/x"),
        repl_buffer_dir=Path("/var/lib/y"),
        repl_retry="250ms",
        disc_refresh=timedelta(seconds=5),
        request_timeout=timedelta(minutes=1),
        election_timeout="3s",
        heartbeat_timeout="3s",
    )
    assert config.seeds() == ("10.0.0.1:7946", "db-2:7946")
    assert (config.data_dir, config.repl_buffer_dir) == ("/var/lib/x", "/var/lib/y")
    assert (config.repl_retry, config.disc_refresh, config.request_timeout, config.election_timeout) == (0.25, 5.0, 60.0, 3.0)


def test_discovery_in_every_kind() -> None:
    config = Config(
        node_id="n1",
        discovery_kind="dns",
        dns_names_csv=" _gossip._udp.example.com, nodes.example.com. ,10.0.0.9, ::1,db:7946,",
        dns_servers_csv="10.0.0.2, ::1,10.0.0.3:5353,[::1]:5353",
        seeds_csv="10.0.0.1:7946",
    )
    assert config.dns_names() == ("_gossip._udp.example.com", "nodes.example.com.", "10.0.0.9", "::1", "db:7946")
    assert config.dns_servers() == (("10.0.0.2", 53), ("::1", 53), ("10.0.0.3", 5353), ("::1", 5353))
    assert Config(node_id="n1", discovery_kind="file", file_path=Path("/etc/seeds/*")).file_path == "/etc/seeds/*"
    assert Config(node_id="n1", discovery_kind="file", file_env="SEEDS").file_env == "SEEDS"


def test_seeds_that_nothing_would_look_at_are_refused_with_what_to_set() -> None:
    with pytest.raises(ConfigError, match="set discovery_kind to 'dns'"):
        Config(node_id="n1", dns_names_csv="nodes.example.com")
    with pytest.raises(ConfigError, match="set discovery_kind to 'file'"):
        Config(node_id="n1", discovery_kind="dns", dns_names_csv="a", file_path="seeds")
    with pytest.raises(ConfigError, match="give file_path or file_env too"):
        Config(node_id="n1", discovery_kind="file")


def test_a_config_is_frozen_takes_names_only_and_knows_no_other_field() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config(node_id="n1").node_id = "n2"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Config("n1")  # type: ignore[misc]
    with pytest.raises(TypeError, match="nodeid"):
        Config(nodeid="n1")  # type: ignore[call-arg]


@pytest.mark.parametrize("value", [0, 2, 4, 100, "5", True])
def test_the_number_of_voters_is_odd(value):
    with pytest.raises(ConfigError, match=r"^max_voters="):
        Config(node_id="n1", max_voters=value)


def test_one_node_begins_alone_or_so_many_together():
    assert Config(node_id="n1", bootstrap_expect=3).bootstrap_expect == 3
    with pytest.raises(ConfigError, match=r"^bootstrap_expect=3: leave bootstrap out"):
        Config(node_id="n1", bootstrap=True, bootstrap_expect=3)


def test_fewer_voters_than_must_stay_are_refused():
    with pytest.raises(ConfigError, match=r"^min_voters=5: give at most max_voters \(3\)"):
        Config(node_id="n1", max_voters=3, min_voters=5)


@pytest.mark.parametrize(("value", "seconds"), [(0, 0), ("0", 0), ("", 0), ("90s", 90), ("24h", 86400), (60, 60)])
def test_dead_servers_are_removed_after_a_time_or_never(value, seconds):
    assert Config(node_id="n1", remove_dead_after=value).remove_dead_after == seconds
    with pytest.raises(ConfigError, match=r"^remove_dead_after="):
        Config(node_id="n1", remove_dead_after="soon")
