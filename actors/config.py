"""The configuration of a node: every knob, its default, and what would be valid.

A bad value is refused when the `Config` is made, with an error that names the field, the value and the remedy, so that nothing of a node starts on a
configuration it cannot keep. Fields of features that come in a later version are known, and refused unless they are off: a knob is never
accepted and then ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import attrs

from coterie.actors.durations import seconds
from coterie.actors.errors import ConfigError
from coterie.actors.messages import LeaderInfo
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError

_LATER: Final = "this version does not have it yet; leave it at its default"


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
    validator = _not_yet if later else None
    return attrs.field(default=default, converter=attrs.Converter(_duration, takes_field=True), validator=validator)


def _text(limit: int, required: bool = False) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, str):
            raise ConfigError(field.name, value, "give a string")
        if required and not value:
            raise ConfigError(field.name, value, "give a name that no other node of the cluster has")
        if len(value.encode()) > limit or any(ord(c) < 32 or ord(c) == 127 for c in value):
            raise ConfigError(field.name, value, f"give at most {limit} bytes without control characters")

    return validate


def _address(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value == "" and field.default == "":
        return
    try:
        parse_address(value if isinstance(value, str) else "")
    except AddressError as error:
        raise ConfigError(field.name, value, str(error)) from None


def _seeds(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(field.name, value, "give 'host:port,host:port'")
    for part in filter(None, (part.strip() for part in value.split(","))):
        try:
            host, port = parse_address(part)
        except AddressError as error:
            raise ConfigError(field.name, value, f"{part!r}: {error}") from None
        if not host or not port:
            raise ConfigError(field.name, value, f"{part!r}: a seed is the gossip address of another node, host:port")


def _one_of(*valid: str) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if value not in valid:
            raise ConfigError(field.name, value, "give one of " + ", ".join(repr(v) for v in valid))

    return validate


def _integer(low: int, high: int) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def validate(_: object, field: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(field.name, value, f"give a whole number from {low} to {high}")

    return validate


def _flag(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(field.name, value, "give True or False")


def _path(value: str | os.PathLike[str]) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _callback(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not callable(value):
        raise ConfigError(field.name, value, "give a function, or None")


def _not_yet(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value != field.default:
        raise ConfigError(field.name, value, _LATER)


@attrs.define(frozen=True, kw_only=True)
class Config:
    """Everything a node is told. Addresses are `host:port`, `:port` (all interfaces) or with port 0 (a free port); durations are seconds, a
    `timedelta`, or Go's notation. Raises ConfigError.

    node_id: unique in the cluster. raft_addr: TCP bind of the Raft server. mem_bind, mem_adv: gossip bind (UDP and TCP), and the address others
    are told ("": from the bind).
    mgmt_addr, mgmt_proto: the management API, and whether HTTP or gRPC sits there; the other one sits on grpc_addr/http_addr, by default the
    next port up.
    seeds_csv: gossip addresses of other nodes. data_dir: the node's durable state; "" keeps all in memory, for tests.
    bootstrap: form a new one-voter cluster, unless there is Raft state already.
    repl_window: publishes per topic that may be unacknowledged before publishing waits. repl_retry: pause before a failed delivery is tried again.
    request_timeout: how long a request may take when it does not say. max_payload: largest record, in bytes.
    leave_on_stop: a graceful stop also leaves the quorum and says good-bye in gossip; False for a node that will come back.
    """

    node_id: str = attrs.field(validator=_text(128, required=True))
    raft_addr: str = attrs.field(default=":9520", validator=_address)
    mem_bind: str = attrs.field(default=":7946", validator=_address)
    mem_adv: str = attrs.field(default="", validator=_address)
    mgmt_addr: str = attrs.field(default=":17946", validator=_address)
    mgmt_proto: str = attrs.field(default="http", validator=_one_of("http", "grpc"))
    http_addr: str = attrs.field(default="", validator=_address)
    grpc_addr: str = attrs.field(default="", validator=_address)

    discovery_kind: str = attrs.field(default="static", validator=_one_of("static", "dns", "file"))
    seeds_csv: str = attrs.field(default="", validator=_seeds)
    dns_names_csv: str = attrs.field(default="", validator=_not_yet)
    dns_port: int = attrs.field(default=7946, validator=[_integer(1, 65535), _not_yet])
    disc_refresh: float = duration_field(5.0, later=True)
    file_path: str = attrs.field(default="", validator=_not_yet)
    file_env: str = attrs.field(default="", validator=_not_yet)

    data_dir: str = attrs.field(default="", validator=_text(4096), converter=_path)
    bootstrap: bool = attrs.field(default=False, validator=_flag)
    leave_on_stop: bool = attrs.field(default=False, validator=_flag)

    tls_enable: bool = attrs.field(default=False, validator=_not_yet)
    tls_ca: str = attrs.field(default="", validator=_not_yet)
    tls_cert: str = attrs.field(default="", validator=_not_yet)
    tls_key: str = attrs.field(default="", validator=_not_yet)
    tls_server_name: str = attrs.field(default="", validator=_not_yet)
    tls_skip_verify: bool = attrs.field(default=False, validator=_not_yet)

    app_handlers: Any = None
    repl_window: int = attrs.field(default=1024, validator=_integer(1, 1 << 30))
    repl_retry: float = duration_field(1.5)
    repl_buffer_dir: str = attrs.field(default="", validator=_text(4096), converter=_path)
    request_timeout: float = duration_field(10.0)
    max_payload: int = attrs.field(default=1 << 20, validator=_integer(1, 16 << 20))

    heartbeat_timeout: float = duration_field(1.0)
    election_timeout: float = duration_field(1.0)
    lease_timeout: float = duration_field(0.5)

    on_leader_change: Callable[[LeaderInfo], object] | None = attrs.field(default=None, validator=_callback)
    on_election_start: Callable[[], object] | None = attrs.field(default=None, validator=_callback)
    on_election_end: Callable[[LeaderInfo], object] | None = attrs.field(default=None, validator=_callback)

    def __attrs_post_init__(self) -> None:
        if self.discovery_kind != "static":
            raise ConfigError(
                "discovery_kind", self.discovery_kind, "this version discovers by 'static' seeds only; 'dns' and 'file' come later"
            )
        first, second = ("http_addr", "grpc_addr") if self.mgmt_proto == "http" else ("grpc_addr", "http_addr")
        if getattr(self, first):
            raise ConfigError(
                first,
                getattr(self, first),
                f"{self.mgmt_proto} sits on mgmt_addr; leave this empty, or say with {second} where the other sits",
            )
        if self.lease_timeout > self.heartbeat_timeout:
            raise ConfigError(
                "lease_timeout",
                self.lease_timeout,
                f"give at most heartbeat_timeout ({self.heartbeat_timeout} s), or a deposed leader could still serve",
            )
        if self.heartbeat_timeout > self.election_timeout:
            raise ConfigError("heartbeat_timeout", self.heartbeat_timeout, f"give at most election_timeout ({self.election_timeout} s)")
        if self.repl_buffer_dir and not self.data_dir:
            raise ConfigError(
                "repl_buffer_dir",
                self.repl_buffer_dir,
                "give data_dir too: a durable buffer without a durable Raft log would answer for what it cannot prove",
            )

    def seeds(self) -> tuple[str, ...]:
        """The gossip addresses of `seeds_csv`, in order, without empty ones."""
        return tuple(filter(None, (part.strip() for part in self.seeds_csv.split(","))))
