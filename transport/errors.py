"""What can go wrong with sockets, typed; each message names the address and says what to do."""

from __future__ import annotations

__all__ = ["AddressError", "BindError", "DialError", "StreamError", "TlsError", "TlsFileError"]


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


class TlsError(OSError):
    """A TLS connection that did not come to be, or broke. `reason` is short, and counted by; the text says what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class TlsFileError(ValueError):
    """A file of certificates or a key that cannot be used. `setting` (as in `TlsSettings`, "ca", "cert" or "key"), its path, the remedy."""

    def __init__(self, setting: str, path: str, remedy: str) -> None:
        super().__init__(f"tls_{setting}={path!r}: {remedy}")
        self.setting, self.path, self.remedy = setting, path, remedy
