"""grpclib as `grpc_json_client` uses it: bodies are bytes that are called JSON on the wire. Imported with the first call to a node of go-cluster."""

from __future__ import annotations

from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from coterie.transport.addresses import Address
from coterie.transport.grpc_server import MAX_MESSAGE
from coterie.transport.tls import Tls

__all__ = ["Bodies", "GRPCError", "StreamTerminatedError", "TooLarge", "UnaryStreamMethod", "UnaryUnaryMethod", "dial", "limit"]


class TooLarge(Exception):
    """The other side has begun a message above the limit. Nothing of it is read."""


class Bodies(CodecBase):
    """Bytes as they are."""

    __content_subtype__ = "json"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return bytes(data)


def dial(where: Address, tls: Tls | None) -> Channel:
    """A channel that connects with its first call."""
    if tls is None:
        return Channel(where.host, where.port, codec=Bodies())
    name = Configuration(ssl_target_name_override=tls.settings.server_name or None)
    return Channel(where.host, where.port, codec=Bodies(), ssl=tls.client_of_grpc(), config=name)


def limit(stream: Any) -> None:
    """Take no message above `MAX_MESSAGE` on a stream whose request has been sent. grpclib has no setting for it, and would gather the four GiB that a message can
    claim: every message is read by asking its HTTP/2 stream for so many bytes, which is where they are counted."""
    read = stream._stream.recv_data

    async def recv_data(size: int) -> bytes:
        if size > MAX_MESSAGE:
            raise TooLarge(f"a message of {size} bytes has begun, and at most {MAX_MESSAGE} are taken")
        data: bytes = await read(size)
        return data

    stream._stream.recv_data = recv_data
