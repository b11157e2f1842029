"""The servers of the cluster as bytes: the Data of a configuration entry, and the Configuration of InstallSnapshot.

A Go follower dies of a configuration that does not decode, so none leaves unchecked: whoever appends a configuration entry that came from
elsewhere decodes it first.
"""

from __future__ import annotations

from typing import Final

from coterie.proto.errors import WireError
from coterie.proto.gomsgpack import Reader, pack_array_header, pack_fields, pack_signed
from coterie.proto.raft_messages import VOTER, Configuration, Server

_MAX_SERVERS: Final = 65_536


def encode_configuration(configuration: Configuration) -> bytes:
    """`{"Servers": [{"Address", "ID", "Suffrage"}…]}`, the servers in their order; nil when there are none."""
    if not configuration.servers:
        return b"\x81\xa7Servers\xc0"
    servers = (
        b"\x83" + pack_fields({"Address": server.address, "ID": server.id}) + b"\xa8Suffrage" + pack_signed(server.suffrage)
        for server in configuration.servers
    )
    return b"\x81\xa7Servers" + pack_array_header(len(configuration.servers)) + b"".join(servers)


def decode_configuration(data: bytes) -> Configuration:
    """Raises WireError for what would make a Go follower panic: nothing, or not a configuration. Unknown suffrages pass, as they do there."""
    fields = Reader(data, "configuration").struct(_CONFIGURATION)
    return Configuration(fields.get(b"Servers", ()))


def _servers(reader: Reader, name: bytes) -> tuple[Server, ...]:
    if reader.is_nil(name):
        return ()
    count = reader.array(name)
    if count > _MAX_SERVERS:
        raise WireError(f"configuration.Servers: {count} servers, above {_MAX_SERVERS}")
    found = (reader.struct(_SERVER) for _ in range(count))
    return tuple(Server(fields.get(b"ID", ""), fields.get(b"Address", ""), fields.get(b"Suffrage", VOTER)) for fields in found)


_SERVER: Final = {b"Address": Reader.text, b"ID": Reader.text, b"Suffrage": Reader.signed}
_CONFIGURATION: Final = {b"Servers": _servers}
