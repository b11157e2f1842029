"""Addresses: what is an address, what is advertised, and what an error says."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.transport import addresses
from coterie.transport.addresses import Address, advertised, parse_address, resolve
from coterie.transport.errors import AddressError, BindError
from coterie.transport.listener import bind_socket


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9520", Address("127.0.0.1", 9520)),
        (":9520", Address("", 9520)),
        (":0", Address("", 0)),
        ("node-1.example.org:80", Address("node-1.example.org", 80)),
        ("my_service:80", Address("my_service", 80)),
        ("[::1]:9520", Address("::1", 9520)),
        ("[2001:DB8::1]:1", Address("2001:db8::1", 1)),
    ],
)
def test_valid_addresses_parse(text, address):
    assert parse_address(text) == address


INVALID = """
localhost  ::1  ::1:9520  host:  host:http  host:65536  host:-1  host:1.5  host:٣  host:0000080  300.1.1.1:1  1.2.3:4
[::1]  [zz]:1  [127.0.0.1]:1  http://host:1  -x:1
"""


@pytest.mark.parametrize("text", ["", "a b:1", *INVALID.split()])
def test_an_invalid_address_is_refused_with_the_text_and_what_would_be_valid(text):
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert repr(text) in str(caught.value)
    assert "host:port" in str(caught.value)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 65535))
def test_format_and_parse_are_inverse(ip, port):
    address = Address(str(ip), port)
    assert parse_address(str(address)) == address


@given(st.text(max_size=40))
def test_parsing_any_text_gives_an_address_or_an_address_error(text):
    try:
        address = parse_address(text)
    except AddressError:
        return
    assert 0 <= address.port <= 65535


def test_a_single_host_advertises_itself_with_the_port_it_got():
    assert advertised(Address("127.0.0.1", 0), 4711) == Address("127.0.0.1", 4711)


@pytest.mark.parametrize("bind", [Address("", 0), Address("0.0.0.0", 0), Address("::", 0)])
def test_all_interfaces_advertise_one_address_that_can_be_dialled(bind):
    address = advertised(bind, 4711)
    assert address.port == 4711
    assert socket.inet_aton(address.host)
    assert not address.host.startswith("0.")


def test_without_any_other_address_the_loopback_is_advertised(monkeypatch):
    monkeypatch.setattr(addresses, "_ELSEWHERE", ("127.0.0.1", 9))
    monkeypatch.setattr(addresses, "_interface_ipv4", lambda probe, interface: "127.0.0.1")
    assert addresses.local_ipv4() == "127.0.0.1"


def test_without_a_default_route_the_first_interface_that_is_not_loopback_is_advertised(monkeypatch):
    monkeypatch.setattr(addresses, "_ELSEWHERE", ("127.0.0.1", 9))
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "v6only"), (3, "eth0"), (4, "eth1")])
    known = {"lo": "127.0.0.1", "v6only": "", "eth0": "10.0.0.7", "eth1": "10.0.0.8"}
    monkeypatch.setattr(addresses, "_interface_ipv4", lambda probe, interface: known[interface])
    assert addresses.local_ipv4() == "10.0.0.7"


def test_what_is_given_to_advertise_wins_and_takes_the_bound_port_for_zero():
    assert advertised(Address("", 0), 4711, "10.1.2.3:80") == Address("10.1.2.3", 80)
    assert advertised(Address("", 0), 4711, "10.1.2.3:0") == Address("10.1.2.3", 4711)


def test_all_interfaces_cannot_be_advertised():
    with pytest.raises(AddressError, match="one host to dial"):
        advertised(Address("", 0), 4711, ":80")


def test_a_name_resolves_to_ipv4_first():
    assert resolve(Address("localhost", 80)) == ("127.0.0.1", 80)


def test_a_name_that_does_not_resolve_is_named():
    with pytest.raises(AddressError, match=r"no\.such\.host\.invalid:80"):
        resolve(Address("no.such.host.invalid", 80))


def test_a_port_in_use_is_an_error_that_names_setting_address_and_remedy():
    with bind_socket(Address("127.0.0.1", 0), socket.SOCK_STREAM, "raft_addr") as first:
        port = first.getsockname()[1]
        with pytest.raises(BindError, match=rf"raft_addr '127\.0\.0\.1:{port}'.*choose another port"):
            bind_socket(Address("127.0.0.1", port), socket.SOCK_STREAM, "raft_addr")


def test_an_address_of_another_host_is_an_error_with_its_remedy():
    with pytest.raises(BindError, match="no interface of this host"):
        bind_socket(Address("203.0.113.77", 0), socket.SOCK_STREAM, "raft_addr")
