"""What keeps strangers out, in the configuration: TLS for everything that is TCP but gossip, a name and keys for gossip.

A key never stands in an error, a log or a `repr`: what is said of it is its place in the list and its length. The files of TLS are looked at when the node
starts (`open_tls`), not when the `Config` is made, since the configuration of one machine may be written on another.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final, Protocol

import attrs

from coterie.actors.errors import ConfigError
from coterie.proto.gossip_security import KEY_SIZES, LABEL_MAX, Security
from coterie.transport.errors import TlsFileError
from coterie.transport.tls import Tls, TlsSettings

HIDDEN: Final = "(hidden)"
_HEX: Final = re.compile(r"[0-9A-Fa-f]+\Z")


class SecurityFields(Protocol):
    """The fields of `Config` that this is about."""

    @property
    def node_id(self) -> str: ...
    @property
    def tls_enable(self) -> bool: ...
    @property
    def tls_ca(self) -> str: ...
    @property
    def tls_cert(self) -> str: ...
    @property
    def tls_key(self) -> str: ...
    @property
    def tls_server_name(self) -> str: ...
    @property
    def tls_skip_verify(self) -> bool: ...
    @property
    def gossip_key(self) -> str: ...
    @property
    def cluster_name(self) -> str: ...


def parse_keys(value: str) -> tuple[bytes, ...]:
    """The keys of a list, separated by commas: hex when a key's text has the length and the digits of one, else base64. Raises ValueError."""
    keys: list[bytes] = []
    for place, text in enumerate(filter(None, (part.strip() for part in value.split(","))), 1):
        try:
            if len(text) // 2 in KEY_SIZES and len(text) % 2 == 0 and _HEX.match(text):
                key = bytes.fromhex(text)
            else:
                key = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {place} is neither base64 nor hex") from None
        if len(key) not in KEY_SIZES:
            raise ValueError(f"key {place} has {len(key)} bytes")
        keys.append(key)
    if value and not keys:
        raise ValueError("there is no key in it")
    return tuple(keys)


def gossip_key(_: object, field: attrs.Attribute[Any], value: object) -> None:
    try:
        if not isinstance(value, str):
            raise ValueError("it is no string")
        parse_keys(value)
    except ValueError as error:
        raise ConfigError(
            field.name,
            HIDDEN,
            f"{error}; give keys of 16, 24 or 32 random bytes in base64 or hex, separated by commas, the one that encrypts first",
        ) from None


def cluster_name(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > LABEL_MAX or any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ConfigError(
            field.name,
            value,
            f"give a name of 1 to {LABEL_MAX} bytes without control characters, the same on every node; none for no label",
        )


def check_tls(config: SecurityFields) -> None:
    """What the fields of TLS mean to one another. Raises ConfigError."""
    if not config.tls_enable:
        for name in ("tls_ca", "tls_cert", "tls_key", "tls_server_name", "tls_skip_verify"):
            if getattr(config, name):
                raise ConfigError(name, getattr(config, name), "TLS is off: set tls_enable too, or leave this out")
        return
    missing = [name for name in ("tls_cert", "tls_key") if not getattr(config, name)]
    if missing:
        raise ConfigError(
            "tls_enable",
            True,
            f"{' and '.join(missing)} missing: a node needs both, as files in PEM; `clusterctl tls init` makes them for development",
        )
    if config.tls_server_name and not re.fullmatch(r"[A-Za-z0-9*_.:-]{1,253}", config.tls_server_name):
        raise ConfigError(
            "tls_server_name", config.tls_server_name, "give a DNS name or an IP address that stands in every node's certificate"
        )


def open_tls(config: SecurityFields) -> Tls | None:
    """The node's TLS, None when it is off. Raises ConfigError for files that cannot be used, with the reason."""
    if not config.tls_enable:
        return None
    settings = TlsSettings(config.tls_ca, config.tls_cert, config.tls_key, config.tls_server_name, config.tls_skip_verify)
    try:
        return Tls(settings, config.node_id)
    except TlsFileError as error:
        raise ConfigError(f"tls_{error.setting}", error.path, error.remedy) from None


def gossip_security(config: SecurityFields) -> Security | None:
    """Label and key ring of the gossip, None for neither."""
    keys, label = parse_keys(config.gossip_key), config.cluster_name.encode()
    return Security(label, keys) if keys or label else None
