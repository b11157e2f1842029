"""What can go wrong with sockets, typed; each message names the address and says what to do."""

from __future__ import annotations

__all__ = ["AddressError", "BindError", "DialError", "StreamError"]


class AddressError(ValueError):
    """A text that is no address, or a name that does not resolve."""


class BindError(OSError):
    """A local address that cannot be listened on."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class DialError(OSError):
    """Nobody answers at an address, or what answers does not speak the protocol."""


class StreamError(OSError):
    """A gossip stream that was opened but did not bring its answer."""
