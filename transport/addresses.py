"""Addresses as users write them: `host:port`, `:port` for all interfaces, `[v6]:port`.

Three questions are kept apart, since mixing them is how clusters come to gossip `0.0.0.0`:
- what to *bind*: `:9520` is every IPv4 interface, `[::]:9520` every interface of both families; port 0 lets the system choose;
- what to *advertise*: what others dial. It is given, or it is the bound host; a bind on all interfaces advertises the IPv4 address of the
  interface that holds the default route, failing that the first interface's that is not loopback, failing that 127.0.0.1;
- what to *resolve*: gossip carries raw IP addresses, so a name is looked up once, IPv4 first, before it is advertised there.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
import urllib.parse
from typing import Final, NamedTuple

from coterie.transport.errors import AddressError

__all__ = ["Address", "advertised", "format_address", "host_of", "local_ipv4", "parse_address", "plain_ip", "resolve"]

VALID: Final = "an address is host:port, :port for all interfaces, or [ipv6]:port, with a port from 0 to 65535"
LOOPBACK: Final = "127.0.0.1"

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?\Z")
_SIOCGIFADDR: Final = 0x8915
# An address reserved for documentation: routing it shows the default route's interface, and nothing is ever sent there.
_ELSEWHERE: Final = ("203.0.113.1", 9)


class Address(NamedTuple):
    """A host (name, IPv4 or IPv6 text without brackets; "" is all interfaces) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)

    @property
    def everywhere(self) -> bool:
        """True when a bind to it takes all interfaces."""
        return self.host in ("", "0.0.0.0", "::")


def format_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(text: str) -> Address:
    """`text` as an Address. Raises AddressError, which names the text and what would be valid."""
    host, colon, port_text = text.rpartition(":")
    if not colon:
        raise AddressError(f"{text!r} has no port: {VALID}")
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535):
        raise AddressError(f"{text!r} has the port {port_text!r}: {VALID}")
    return Address(_host(host, text), int(port_text))


def _host(host: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError as error:
            raise AddressError(f"{text!r}: {error}; {VALID}") from None
    if ":" in host:
        raise AddressError(f"{text!r}: an IPv6 address stands in brackets; {VALID}")
    if host and not _NAME.match(host):
        raise AddressError(f"{text!r} has the host {host!r}, which is neither a name nor an IP address: {VALID}")
    if host.replace(".", "").isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError as error:
            raise AddressError(f"{text!r}: {error}; {VALID}") from None
    return host


def advertised(bind: Address, port: int, advertise: str = "") -> Address:
    """What others dial to reach a listener.

    bind: as configured; port: the port it got; advertise: as configured, "" for none. A port 0 in `advertise` stands for the bound one.
    Raises AddressError when `advertise` is no address or names no single host.
    """
    if advertise:
        wanted = parse_address(advertise)
        if wanted.everywhere:
            raise AddressError(f"cannot advertise {advertise!r}: others need one host to dial; leave it empty to have one chosen")
        return Address(wanted.host, wanted.port or port)
    return Address(local_ipv4() if bind.everywhere else bind.host, port)


def resolve(address: Address) -> tuple[str, int]:
    """(IP text, port) of an address, IPv4 preferred. Looks a name up, so it may block. Raises AddressError when it does not resolve."""
    try:
        found = socket.getaddrinfo(address.host or LOOPBACK, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{str(address)!r} does not resolve: {error}; check the name, or give the IP address") from error
    found.sort(key=lambda info: info[0] != socket.AF_INET)
    return plain_ip(str(found[0][4][0])), address.port


def plain_ip(ip: str) -> str:
    """An IPv4 address that a dual-stack socket shows as `::ffff:a.b.c.d`, as IPv4; others as they are."""
    return ip[7:] if ip.startswith("::ffff:") and "." in ip else ip


def local_ipv4() -> str:
    """The IPv4 address that a node advertises when it binds all interfaces (see above); never fails."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            ip = str(probe.getsockname()[0])
        except OSError:
            ip = ""
        if ip and not ip.startswith(("127.", "0.")):
            return ip
        for _, interface in socket.if_nameindex():
            ip = _interface_ipv4(probe, interface)
            if ip and not ip.startswith("127."):
                return ip
    return LOOPBACK


def _interface_ipv4(probe: socket.socket, interface: str) -> str:
    try:
        import fcntl  # POSIX alone has it

        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
    except (ImportError, OSError):
        return ""  # an interface without an IPv4 address
    return socket.inet_ntoa(answer[20:24])


def host_of(peer: str) -> str:
    """The address in what gRPC says of a peer ("ipv4:10.0.0.1:9", "ipv6:%5B::1%5D:9") or in a host:port; as it is where it is no address."""
    text = urllib.parse.unquote(peer)
    host = text.removeprefix("ipv4:").removeprefix("ipv6:").rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return str((address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address)
