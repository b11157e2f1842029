"""grpclib as `grpc_json_client` uses it: bodies are bytes that are called JSON on the wire. Imported with the first call to a node of go-cluster."""

from __future__ import annotations

from typing import Any

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.config import Configuration
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from coterie.transport.addresses import Address
from coterie.transport.tls import Tls

__all__ = ["Bodies", "GRPCError", "StreamTerminatedError", "UnaryStreamMethod", "UnaryUnaryMethod", "dial"]


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
