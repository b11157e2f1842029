"""Sending a snapshot: InstallSnapshot on a connection of its own, so that heartbeats and entries go on beside it.

hashicorp/raft reads exactly `size` bytes behind the request and answers when the state is restored. What bounds the time is progress: a peer that takes no bytes for
`timeout` seconds is given up, and the answer may take `timeout` seconds, as many more as it took to send, and a second more for each `STORED` bytes: a disk that
is slow to store it must not be sent the next one meanwhile.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import IO, Final

from coterie.proto.errors import WireError
from coterie.proto.raft_codec import encode_request
from coterie.proto.raft_messages import Response, RpcError, SnapshotRequest
from coterie.proto.raft_stream import ResponseDecoder
from coterie.transport.addresses import parse_address
from coterie.transport.errors import DialError
from coterie.transport.stream import dial
from coterie.transport.tls import Tls

CHUNK: Final = 256 << 10
READ_BYTES: Final = 64 << 10
STORED: Final = 4 << 20


def send_snapshot(
    address: str,
    request: SnapshotRequest,
    content: IO[bytes],
    timeout: float = 10.0,
    tls: Tls | None = None,
    opened: Callable[[socket.socket], None] = lambda sock: None,
) -> Response | RpcError:
    """The answer of the server at `address`. Blocks: for threads of its own. opened: sees the socket, so that another thread can hang up. Raises AddressError;
    DialError when it cannot be sent, or nothing comes back."""
    where = parse_address(address)
    sock = dial(where, timeout, opened)
    try:
        sock.settimeout(timeout)
        if tls is not None:  # one thread sends and reads, in turn: the standard library's own socket will do
            sock = tls.client().wrap_socket(sock, server_hostname=tls.name_of(where.host))
            opened(sock)
        began = time.monotonic()
        sock.sendall(encode_request(request))
        while chunk := content.read(CHUNK):
            sock.sendall(chunk)
        return _answer(sock, timeout + (time.monotonic() - began) + request.size / STORED)
    except TimeoutError as error:
        raise DialError(f"{where} took nothing, or gave no answer, for {timeout:g} s in the middle of a snapshot") from error
    except (OSError, WireError) as error:
        raise DialError(f"{where} broke off a snapshot: {error}") from error
    finally:
        sock.close()


def _answer(sock: socket.socket, patience: float) -> Response | RpcError:
    decoder = ResponseDecoder()
    decoder.expect(SnapshotRequest)
    deadline = time.monotonic() + patience
    while True:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        data = sock.recv(READ_BYTES)
        if not data:
            raise WireError("it closed the connection without an answer")
        answers = decoder.feed(data)
        if answers:
            return answers[0]
