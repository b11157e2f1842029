"""What is valid in a field of `Config`: validators and converters, each with an error that names the field, the value and the remedy."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import Any

import attrs

from coterie.actors.durations import LONGEST, seconds
from coterie.actors.errors import ConfigError
from coterie.actors.handler import METHODS, HandlerActor
from coterie.proto.record_batch import MAX_NAME
from coterie.transport.addresses import Address, parse_address
from coterie.transport.errors import AddressError


def _duration(value: object, field: attrs.Attribute[Any]) -> float:
    try:
        number = seconds(value)
    except ValueError as error:
        raise ConfigError(field.name, value, str(error)) from None
    if number == 0:
        raise ConfigError(field.name, value, "give a duration above zero")
    if number > LONGEST:
        raise ConfigError(field.name, value, "give at most 30 years")
    return number


def duration_field(default: float) -> Any:
    return attrs.field(default=default, converter=attrs.Converter(_duration, takes_field=True))


def _duration_or_never(value: object, field: attrs.Attribute[Any]) -> float:
    return 0.0 if value in (0, "0", "") and value is not False else _duration(value, field)


def optional_duration_field() -> Any:
    """0 is off."""
    return attrs.field(default=0.0, converter=attrs.Converter(_duration_or_never, takes_field=True))


def text(limit: int, required: bool = False) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str):
            raise ConfigError(field.name, value, "give a string")
        if required and not value:
            raise ConfigError(field.name, value, "give a name that no other node of the cluster has")
        if len(value.encode()) > limit or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise ConfigError(field.name, value, f"give at most {limit} bytes without control characters")

    return validate


def topic_name(_: object, field: attrs.Attribute[Any], value: object) -> None:
    try:
        valid = isinstance(value, str) and 1 <= len(value.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ConfigError(field.name, value, f"give the name of a topic, 1 to {MAX_NAME} bytes of UTF-8")


def address(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value == "" and field.default == "":
        return
    try:
        parse_address(value if isinstance(value, str) else "")
    except AddressError as error:
        raise ConfigError(field.name, value, str(error)) from None


def seed_list(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(field.name, value, "give 'host:port,host:port'")
    for part in _parts(value):
        try:
            host, port = parse_address(part)
        except AddressError as error:
            raise ConfigError(field.name, value, f"{part!r}: {error}") from None
        if not host or not port:
            raise ConfigError(field.name, value, f"{part!r}: a seed is the gossip address of another node, host:port")


def dns_name_list(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(field.name, value, "give names with commas between: '_gossip._udp.example.com', 'nodes.example.com', 'host:port'")
    for part in _parts(value):
        try:
            host, port = (part, 1) if _is_ip(part) else parse_address(part if ":" in part else f"{part}:1")
        except AddressError as error:
            raise ConfigError(field.name, value, f"{part!r}: {error}") from None
        if not host or not port:
            raise ConfigError(field.name, value, f"{part!r}: give a name, or host:port")


def dns_server_list(_: object, field: attrs.Attribute[Any], value: object) -> None:
    try:
        dns_servers(value if isinstance(value, str) else "?")
    except AddressError as error:
        raise ConfigError(
            field.name, value, f"{error}; give the IP addresses of DNS servers, with a port unless it is 53: '10.0.0.2,10.0.0.3:5353'"
        ) from None


def dns_servers(csv: str) -> tuple[Address, ...]:
    """Raises AddressError."""
    servers = tuple(Address(part, 53) if _is_ip(part) else parse_address(part) for part in _parts(csv))
    for server in servers:
        if not _is_ip(server.host) or not server.port:
            raise AddressError(f"{str(server)!r} has no IP address and port")
    return servers


def _parts(csv: str) -> list[str]:
    return [part for part in (part.strip() for part in csv.split(",")) if part]


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def variable(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or (value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value)):
        raise ConfigError(field.name, value, "give the name of an environment variable, such as CLUSTER_SEEDS")


def one_of(*valid: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in valid:
            raise ConfigError(field.name, value, "give one of " + ", ".join(repr(v) for v in valid))

    return validate


def integer(low: int, high: int) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(field.name, value, f"give a whole number from {low} to {high}")

    return validate


def odd(low: int, high: int) -> Callable[[object, attrs.Attribute[Any], object], None]:
    whole = integer(low, high)

    def validate(instance: object, field: attrs.Attribute[Any], value: object) -> None:
        whole(instance, field, value)
        if isinstance(value, int) and value % 2 == 0:
            raise ConfigError(field.name, value, f"give an odd number: {value} voters tolerate no more losses than {value - 1}")

    return validate


def flag(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(field.name, value, "give True or False")


def path(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def application(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None or (hasattr(value, "actor_urn") and hasattr(value, "ask")):
        return
    if isinstance(value, type):
        if not issubclass(value, HandlerActor):
            raise ConfigError(field.name, value, "it is a class, and of no HandlerActor: give an object, or derive it from HandlerActor")
    elif not any(callable(getattr(value, name, None)) for name in METHODS):
        raise ConfigError(field.name, value, f"give a handler actor, or an object with some of {', '.join(METHODS)}")


def callback(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(field.name, value, "give a function, or None")
