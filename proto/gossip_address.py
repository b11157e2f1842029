"""IP addresses of gossip messages: text here, 4 or 16 raw bytes on the wire.

A Go node keeps an IPv4 address that comes in 16 bytes as it came, and then takes the same node with 4 for a conflict. So we always
send 4, and read both as the same text.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from coterie.proto.errors import WireError


@lru_cache(maxsize=4096)
def pack_ip(text: str) -> bytes:
    """Raises ValueError for what is no IP address."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.packed


def unpack_ip(raw: bytes | None, where: str) -> str:
    """Raises WireError for anything but 4 or 16 bytes."""
    if raw is None or len(raw) not in (4, 16):
        raise WireError(f"{where}: an address of {len(raw or b'')} bytes; IPv4 has 4, IPv6 has 16")
    return _unpack(raw)


@lru_cache(maxsize=4096)
def _unpack(raw: bytes) -> str:
    address = ipaddress.ip_address(raw)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)
