"""The file with which an operator says who is in the quorum from now on, in the form of hashicorp/raft's `peers.json`. Pure.

    [{"id": "n1", "address": "10.0.0.1:9520", "non_voter": false}, {"id": "n4", "address": "10.0.0.4:9520"}]

`non_voter` may be left out. Anything that is not certainly meant is refused: a key that is not known may be a `non_voter` that was mistyped.
"""

from __future__ import annotations

import json
from typing import Any, Final

from coterie.actors.errors import InvalidRequest
from coterie.proto.raft_messages import NONVOTER, VOTER, Configuration, Server
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError

MAX_ID: Final = 128
FORM: Final = 'give [{"id": "n1", "address": "10.0.0.1:9520", "non_voter": false}, …]'


def parse_peers(text: str | bytes) -> Configuration:
    """Raises InvalidRequest, which names the row, the field, the value and the remedy."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"peers: the file is no JSON ({error}); {FORM}") from None
    if not isinstance(rows, list) or not rows:
        raise InvalidRequest(f"peers: the file holds no list of servers; {FORM}")
    servers = tuple(_server(f"peers[{number}]", row) for number, row in enumerate(rows))
    for field, values in (("id", [server.id for server in servers]), ("address", [server.address for server in servers])):
        for number, value in enumerate(values):
            if value in values[:number]:
                raise InvalidRequest(f"peers[{number}].{field}={value!r}: stands there twice; each server has an {field} of its own")
    configuration = Configuration(servers)
    if not configuration.voters():
        raise InvalidRequest("peers: every server is a non_voter; at least one must vote")
    return configuration


def check_among(me: str, configuration: Configuration) -> None:
    """Raises InvalidRequest when the server `me` is not in it."""
    if configuration.get(me) is None:
        raise InvalidRequest(
            f"peers: {me!r}, whose data directory this is, is not among {', '.join(server.id for server in configuration.servers)}; add it, or leave it "
            "stopped: a server that is in no configuration is not recovered"
        )


def _server(where: str, row: Any) -> Server:
    if not isinstance(row, dict):
        raise InvalidRequest(f"{where}={row!r}: is no object with id and address; {FORM}")
    unknown = row.keys() - {"id", "address", "non_voter"}
    if unknown:
        raise InvalidRequest(f"{where}.{min(unknown)}: no such field; there are id, address and non_voter")
    name, address, non_voter = row.get("id"), row.get("address"), row.get("non_voter", False)
    if not isinstance(name, str) or not 0 < len(name.encode(errors="replace")) <= MAX_ID or not name.isprintable():
        raise InvalidRequest(f"{where}.id={name!r}: give the server's id, 1 to {MAX_ID} bytes without control characters")
    if not isinstance(non_voter, bool):
        raise InvalidRequest(f"{where}.non_voter={non_voter!r}: give true or false")
    try:
        parsed = parse_address(address if isinstance(address, str) else "")
    except AddressError as error:
        raise InvalidRequest(f"{where}.address={address!r}: {error}") from None
    if not parsed.host or not parsed.port or parsed.everywhere:
        raise InvalidRequest(f"{where}.address={address!r}: give the host and port at which the others dial its Raft server")
    return Server(name, str(address), NONVOTER if non_voter else VOTER)
