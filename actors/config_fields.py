"""What is valid in a field of `Config`: validators and converters, each with an error that names the field, the value and the remedy.

A field of a feature that this version does not have is known, and refused unless it is at its default (`not_yet`): a knob is never accepted and then ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import attrs

from coterie.actors.durations import seconds
from coterie.actors.errors import ConfigError
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError

LATER: Final = "this version does not have it yet; leave it at its default"


def _duration(value: object, field: attrs.Attribute[Any]) -> float:
    try:
        number = seconds(value)
    except ValueError as error:
        raise ConfigError(field.name, value, str(error)) from None
    if number == 0:
        raise ConfigError(field.name, value, "give a duration above zero")
    return number


def duration_field(default: float, later: bool = False) -> Any:
    """later: of a feature that this version does not have, so that only the default is taken."""
    validator = not_yet if later else None
    return attrs.field(default=default, converter=attrs.Converter(_duration, takes_field=True), validator=validator)


def text(limit: int, required: bool = False) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str):
            raise ConfigError(field.name, value, "give a string")
        if required and not value:
            raise ConfigError(field.name, value, "give a name that no other node of the cluster has")
        if len(value.encode()) > limit or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise ConfigError(field.name, value, f"give at most {limit} bytes without control characters")

    return validate


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
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            host, port = parse_address(part)
        except AddressError as error:
            raise ConfigError(field.name, value, f"{part!r}: {error}") from None
        if not host or not port:
            raise ConfigError(field.name, value, f"{part!r}: a seed is the gossip address of another node, host:port")


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


def flag(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(field.name, value, "give True or False")


def path(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def callback(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(field.name, value, "give a function, or None")


def not_yet(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value != field.default:
        raise ConfigError(field.name, value, LATER)
