"""The one error of this floor."""

from __future__ import annotations


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
