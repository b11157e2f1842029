"""The errors of this floor: one, and a kind of it."""

from __future__ import annotations

from typing import Final

TLS_RECORD: Final = 22  # the first byte of a TLS connection; none of our protocols begins with it
TLS_HERE: Final = "TLS at a plain port"


class WireError(Exception):
    """Bytes from a peer that do not say anything valid, or more than we are willing to hold. The text says what and where.

    On a stream it is final: what follows cannot be cut into messages any more, so the connection must be closed.

    answerable: a gossip stream whose outer layers (encryption, compression) could not be taken off. Go tells the dialler why before it
        closes; over everything else it closes in silence.
    """

    def __init__(self, text: str, answerable: bool = False) -> None:
        super().__init__(text)
        self.answerable = answerable

    def again(self) -> WireError:
        """The same error, to be raised once more by a decoder that has met it."""
        return WireError(str(self), self.answerable)


class Stranger(WireError):
    """The bytes may well be valid, but not here: another label, another key, TLS where none is. `reason` is short, and counted by."""

    def __init__(self, reason: str, text: str, answerable: bool = False) -> None:
        super().__init__(text, answerable)
        self.reason = reason

    def again(self) -> Stranger:
        return Stranger(self.reason, str(self), self.answerable)
