"""The configuration of a node: every knob, its default, and what would be valid.

A bad value is refused when the `Config` is made, with an error that names the field, the value and the remedy, so that nothing of a node starts on a
configuration it cannot keep. What is valid in one field says `config_fields.py`; what fields mean to one another is checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from coterie.actors.config_fields import (
    address,
    application,
    callback,
    dns_name_list,
    dns_server_list,
    dns_servers,
    duration_field,
    flag,
    integer,
    odd,
    one_of,
    optional_duration_field,
    path,
    seed_list,
    text,
    topic_name,
    variable,
)
from coterie.actors.config_security import check_tls, cluster_name, gossip_key
from coterie.actors.errors import ConfigError
from coterie.actors.messages import LeaderInfo
from coterie.actors.room_messages import COMMANDS_TOPIC
from coterie.transport.addresses import Address


@attrs.define(frozen=True, kw_only=True)
class Config:
    """Everything a node is told. Addresses are `host:port`, `:port` (all interfaces) or with port 0 (a free port); durations are seconds, a
    `timedelta`, or Go's notation. Raises ConfigError.

    node_id: unique in the cluster. raft_addr: TCP bind of the Raft server. mem_bind: gossip bind, UDP and TCP. mem_adv: the gossip address
    that others are told; "": from the bind.
    mgmt_addr: bind of the management API. mgmt_proto: what sits there, http or grpc. http_addr, grpc_addr: where the other one sits; "": the next port up.
    discovery_kind: where the gossip addresses of other nodes come from, beside seeds_csv: static (nowhere else), dns or file. seeds_csv: gossip
    addresses of other nodes, with every kind of discovery. dns_names_csv: `_service._proto.domain` for SRV records, other names for A and AAAA records,
    `host:port` as it is. dns_port: gossip port of names that are looked up for A and AAAA. dns_servers_csv: the DNS servers to ask, by IP address;
    "": those of /etc/resolv.conf. disc_refresh: the pause between looks, for the life of the node; a DNS answer is kept for its TTL.
    file_path: a file with seeds, or a pattern of files: one seed a line or with commas, # comments. file_env: the environment variable with seeds that wins
    over the file when it is set.
    data_dir: the node's durable state; "" keeps all in memory, for tests.
    bootstrap: form a new one-voter cluster, unless there is Raft state already.
    bootstrap_expect: form a new cluster with so many voters, once so many nodes that are given this number, and have no state, see one another; more than half
    of those that are ever started with it; not together with bootstrap. 0: off. auto_join: as a node, ask for a place in the quorum; as the leader, give one to
    who asks: as learner, then as voter. max_voters: how many voters auto_join makes at most, an odd number. remove_dead_after: as the leader, take a server out
    of the quorum that neither Raft nor gossip has heard for so long, while more than half of the voters that are left answer; 0: never. min_voters: how many
    voters that leaves at least.
    repl_window: publishes per topic that may be unacknowledged before publishing waits; with `PublishMany`, several calls' worth.
    repl_retry: pause before a failed delivery is tried again.
    repl_attempts: how often a handler may fail on a record before the record becomes a dead letter; 0: it is tried for ever.
    dead_letter_topic: where dead letters go; give all nodes the same.
    command_snapshot_every, command_snapshot_bytes: after so many replicated commands, or bytes of them, the handler is asked for a snapshot of its state
    (whichever is reached first), if it offers `handle_snapshot`.
    repl_buffer_dir: where the replication buffer lives; "": under data_dir, or in memory.
    request_timeout: how long a request may take when it does not say. max_payload: largest record, in bytes.
    trailing_entries, trailing_bytes: how much of the Raft log is kept of what is applied (whichever is reached first), so that a server that was away for a while
    catches up without a snapshot. trailing_age: what is older goes too, counted from when it came in this life of the node; 0: however old.
    leave_on_stop: a graceful stop also leaves the quorum and says good-bye in gossip; False for a node that will come back.
    tls_enable: TLS on the management API (HTTP and gRPC), on what nodes say to one another, and on Raft; not on gossip. tls_cert, tls_key: the node's
    certificate, with its chain, and its key: files in PEM, read again when they change. tls_ca: authorities, a file in PEM; with it every connection needs a
    certificate that one of them issued (mutual TLS). tls_server_name: what the certificates of other nodes must name; "": the address that is dialled.
    tls_skip_verify: take any certificate of a server that this node dials; for experiments.
    gossip_key: keys that encrypt the gossip, of 16, 24 or 32 bytes in base64 or hex, separated by commas: the first one encrypts, all of them decrypt.
    cluster_name: what tells this cluster's gossip from another's on the same network, up to 255 bytes; the same on every node.
    app_handlers: the application: a running HandlerActor's reference, a HandlerActor class, or an object with some of its methods; a handler can be
    registered later too.
    metric_topics: how many topics have series of their own in the metrics; further ones are shown together, as "(other topics)".
    take_over_from_go: while publishes wait here and a node of go-cluster leads, which takes none, this node campaigns for the leadership, at most once in five
    seconds; off: they wait until one of ours is elected.
    heartbeat_timeout: a follower that has heard nothing from its leader for this long (up to twice, by chance) asks for an election. election_timeout: how long
    a candidate waits before it tries again. lease_timeout: a leader that a quorum has not answered for this long steps down; at most heartbeat_timeout.
    store_timeout: a write to the Raft log that takes longer than this is a disk that does not answer: the node says so, and is no leader any more. (Its
    heartbeats stop as soon as a write waits.)
    on_leader_change, on_election_end: called with a LeaderInfo, in an actor of their own, one at a time. on_election_start: called without arguments.
    """

    node_id: str = attrs.field(validator=text(128, required=True))
    raft_addr: str = attrs.field(default=":9520", validator=address)
    mem_bind: str = attrs.field(default=":7946", validator=address)
    mem_adv: str = attrs.field(default="", validator=address)
    mgmt_addr: str = attrs.field(default=":17946", validator=address)
    mgmt_proto: str = attrs.field(default="http", validator=one_of("http", "grpc"))
    http_addr: str = attrs.field(default="", validator=address)
    grpc_addr: str = attrs.field(default="", validator=address)

    discovery_kind: str = attrs.field(default="static", validator=one_of("static", "dns", "file"))
    seeds_csv: str = attrs.field(default="", validator=seed_list)
    dns_names_csv: str = attrs.field(default="", validator=dns_name_list)
    dns_port: int = attrs.field(default=7946, validator=integer(1, 65535))
    dns_servers_csv: str = attrs.field(default="", validator=dns_server_list)
    disc_refresh: float = duration_field(5.0)
    file_path: str = attrs.field(default="", validator=text(4096), converter=path)
    file_env: str = attrs.field(default="", validator=variable)

    data_dir: str = attrs.field(default="", validator=text(4096), converter=path)
    bootstrap: bool = attrs.field(default=False, validator=flag)
    bootstrap_expect: int = attrs.field(default=0, validator=integer(0, 99))
    auto_join: bool = attrs.field(default=False, validator=flag)
    max_voters: int = attrs.field(default=5, validator=odd(1, 99))
    min_voters: int = attrs.field(default=3, validator=integer(1, 99))
    remove_dead_after: float = optional_duration_field()
    leave_on_stop: bool = attrs.field(default=False, validator=flag)

    tls_enable: bool = attrs.field(default=False, validator=flag)
    tls_ca: str = attrs.field(default="", validator=text(4096), converter=path)
    tls_cert: str = attrs.field(default="", validator=text(4096), converter=path)
    tls_key: str = attrs.field(default="", validator=text(4096), converter=path)
    tls_server_name: str = attrs.field(default="", validator=text(253))
    tls_skip_verify: bool = attrs.field(default=False, validator=flag)
    gossip_key: str = attrs.field(default="", validator=gossip_key, repr=False)
    cluster_name: str = attrs.field(default="", validator=cluster_name)

    app_handlers: Any = attrs.field(default=None, validator=application)
    repl_window: int = attrs.field(default=1024, validator=integer(1, 1 << 30))
    repl_retry: float = duration_field(1.5)
    repl_attempts: int = attrs.field(default=10, validator=integer(0, 1 << 30))
    dead_letter_topic: str = attrs.field(default="dead-letters", validator=topic_name)
    command_snapshot_every: int = attrs.field(default=10_000, validator=integer(1, 1 << 30))
    command_snapshot_bytes: int = attrs.field(default=64 << 20, validator=integer(1, 1 << 40))
    repl_buffer_dir: str = attrs.field(default="", validator=text(4096), converter=path)
    request_timeout: float = duration_field(10.0)
    max_payload: int = attrs.field(default=1 << 20, validator=integer(1, 16 << 20))
    trailing_entries: int = attrs.field(default=10_240, validator=integer(1, 1 << 30))
    trailing_bytes: int = attrs.field(default=64 << 20, validator=integer(1, 1 << 40))
    trailing_age: float = optional_duration_field()

    metric_topics: int = attrs.field(default=256, validator=integer(1, 1 << 20))

    take_over_from_go: bool = attrs.field(default=True, validator=flag)
    heartbeat_timeout: float = duration_field(1.0)
    election_timeout: float = duration_field(1.0)
    lease_timeout: float = duration_field(0.5)
    store_timeout: float = duration_field(1.5)

    on_leader_change: Callable[[LeaderInfo], object] | None = attrs.field(default=None, validator=callback)
    on_election_start: Callable[[], object] | None = attrs.field(default=None, validator=callback)
    on_election_end: Callable[[LeaderInfo], object] | None = attrs.field(default=None, validator=callback)

    def __attrs_post_init__(self) -> None:
        self._check_discovery()
        self._check_quorum()
        first, second = ("http_addr", "grpc_addr") if self.mgmt_proto == "http" else ("grpc_addr", "http_addr")
        if getattr(self, first):
            raise ConfigError(
                first,
                getattr(self, first),
                f"{self.mgmt_proto} sits on mgmt_addr; leave this empty, or say with {second} where the other sits",
            )
        check_tls(self)
        if self.lease_timeout > self.heartbeat_timeout:
            raise ConfigError(
                "lease_timeout",
                self.lease_timeout,
                f"give at most heartbeat_timeout ({self.heartbeat_timeout} s), or a deposed leader could still serve",
            )
        if self.heartbeat_timeout > self.election_timeout:
            raise ConfigError("heartbeat_timeout", self.heartbeat_timeout, f"give at most election_timeout ({self.election_timeout} s)")
        if self.dead_letter_topic == COMMANDS_TOPIC:
            raise ConfigError("dead_letter_topic", self.dead_letter_topic, "it is the topic of commands; give another name")
        if self.repl_buffer_dir and not self.data_dir:
            raise ConfigError(
                "repl_buffer_dir",
                self.repl_buffer_dir,
                "give data_dir too: a durable buffer without a durable Raft log would answer for what it cannot prove",
            )

    def _check_quorum(self) -> None:
        if self.bootstrap and self.bootstrap_expect:
            raise ConfigError(
                "bootstrap_expect", self.bootstrap_expect, "leave bootstrap out: either one node begins alone, or so many begin together"
            )
        if self.min_voters > self.max_voters:
            raise ConfigError("min_voters", self.min_voters, f"give at most max_voters ({self.max_voters})")

    def _check_discovery(self) -> None:
        """Seeds that are named and never looked at would be found out when they are needed most."""
        for kind, names in (("dns", ("dns_names_csv",)), ("file", ("file_path", "file_env"))):
            given = [name for name in names if getattr(self, name)]
            if self.discovery_kind == kind and not given:
                raise ConfigError("discovery_kind", kind, f"give {' or '.join(names)} too")
            if self.discovery_kind != kind and given:
                raise ConfigError(given[0], getattr(self, given[0]), f"set discovery_kind to {kind!r} to use it, or leave it out")

    def seeds(self) -> tuple[str, ...]:
        """The gossip addresses of `seeds_csv`, in order, without empty ones."""
        return tuple(filter(None, (part.strip() for part in self.seeds_csv.split(","))))

    def dns_names(self) -> tuple[str, ...]:
        """The names of `dns_names_csv`."""
        return tuple(filter(None, (part.strip() for part in self.dns_names_csv.split(","))))

    def dns_servers(self) -> tuple[Address, ...]:
        """The servers of `dns_servers_csv`."""
        return dns_servers(self.dns_servers_csv)
