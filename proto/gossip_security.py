"""Labels and encryption of gossip: who may speak, and what outsiders may read.

A label keeps clusters apart that share a network: a header in the clear in front of every packet, and of every stream that is dialled (the
answer on that stream goes without, but its encryption still vouches for the label). Encryption is AES-GCM; the keys form a ring, of which the
first seals and all are tried in order to open, so that keys can be changed while the cluster runs. With keys, nothing plain is taken.

Sealed: version, 12 bytes of nonce, ciphertext, 16 bytes of tag. Version 1 seals the text as it is; version 0, which old nodes send, pads it to
blocks of 16 first. We seal with version 1 and open both. A Go node dies of a padding longer than the text, and of an empty text on
a stream; here they are errors. What enciphers is imported with the first key: a node whose gossip is plain starts without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from coterie.proto.errors import Stranger, WireError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LABEL_TYPE: Final = 244
LABEL_MAX: Final = 255
KEY_SIZES: Final = (16, 24, 32)
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
BLOCK_SIZE: Final = 16
# What version 1 adds to a text.
OVERHEAD: Final = 1 + NONCE_SIZE + TAG_SIZE


@attrs.define(frozen=True)
class Security:
    """One cluster's label and key ring, the primary key first; both may be empty. `nonce(size)` gives bytes that never repeat under one key.

    Raises ValueError for a label above 255 bytes and for a key that is not of 16, 24 or 32 bytes.
    """

    label: bytes = b""
    keys: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    nonce: Callable[[int], bytes] = attrs.field(default=os.urandom, repr=False, eq=False)
    _ciphers: tuple[AESGCM, ...] = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if len(self.label) > LABEL_MAX:
            raise ValueError(f"label: {len(self.label)} bytes, at most {LABEL_MAX} fit; choose a shorter one")
        for position, key in enumerate(self.keys):
            if len(key) not in KEY_SIZES:
                raise ValueError(f"keys[{position}]: {len(key)} bytes; an AES key has 16, 24 or 32")
        object.__setattr__(self, "_ciphers", _ciphers(self.keys) if self.keys else ())

    @property
    def encrypts(self) -> bool:
        return bool(self.keys)

    @property
    def overhead(self) -> int:
        """What label and encryption add to a packet, in bytes."""
        return (2 + len(self.label) if self.label else 0) + (OVERHEAD if self.keys else 0)

    def header(self) -> bytes:
        """The label in front of packets and dialled streams; empty without one."""
        return bytes((LABEL_TYPE, len(self.label))) + self.label if self.label else b""

    def seal(self, plain: bytes, associated: bytes, version: int = 1) -> bytes:
        """`plain` under the primary key, vouching for `associated` too. Version 0 is for tests: only very old nodes need it."""
        if not self._ciphers:
            raise ValueError("seal: there is no key; give Security at least one")
        if version == 0:
            padding = BLOCK_SIZE - len(plain) % BLOCK_SIZE
            plain += bytes((padding,)) * padding
        nonce = self.nonce(NONCE_SIZE)
        return bytes((version,)) + nonce + self._ciphers[0].encrypt(nonce, plain, associated)

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """The text, under whichever key fits. Raises WireError."""
        if not sealed:
            raise WireError("encryption: empty")
        if sealed[0] > 1:
            raise Stranger("no key", f"encryption: version {sealed[0]} is not known; a plain message where only encrypted ones are taken?")
        if len(sealed) < OVERHEAD:
            raise Stranger("no key", f"encryption: {len(sealed)} bytes are too few, {OVERHEAD} at least; a plain message?")
        from cryptography.exceptions import InvalidTag

        nonce, ciphertext = sealed[1 : 1 + NONCE_SIZE], sealed[1 + NONCE_SIZE :]
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(nonce, ciphertext, associated)
            except InvalidTag:
                continue
            return plain if sealed[0] == 1 else _unpad(plain)
        raise Stranger(
            "wrong key", f"encryption: none of {len(self._ciphers)} keys fits (no or another key, another label, or altered bytes)"
        )


def _ciphers(keys: tuple[bytes, ...]) -> tuple[AESGCM, ...]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return tuple(map(AESGCM, keys))


# Who neither labels nor encrypts.
PLAIN: Final = Security()


def split_label(data: bytes) -> tuple[bytes, bytes] | None:
    """The label and what follows it; an empty label where there is no header; None while the header is not whole.

    Raises WireError for a header with an empty label.
    """
    if not data:
        return None
    if data[0] != LABEL_TYPE:
        return b"", data
    if len(data) < 2:
        return None
    if data[1] == 0:
        raise WireError("label: a header with an empty label")
    end = 2 + data[1]
    return (data[2:end], data[end:]) if len(data) >= end else None


def check_label(found: bytes, expected: bytes) -> None:
    """Raises Stranger unless the label is ours; "" stands for none on both sides."""
    if found != expected:
        reason = "wrong label" if found else "no label"
        raise Stranger(reason, f"label: {found!r} where {expected!r} belongs" if expected else f"label: {found!r} where none is configured")


def _unpad(plain: bytes) -> bytes:
    padding = plain[-1] if plain else 0
    if not 1 <= padding <= min(BLOCK_SIZE, len(plain)):
        raise WireError(f"encryption: a padding of {padding} in {len(plain)} bytes")
    return plain[:-padding]
