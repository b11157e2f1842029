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
    """Everything a node is told. Only `node_id` is required; the defaults suit one node on a machine of its own.

    Addresses are `host:port`, `:port` (all interfaces), or with port 0 (a free port). Durations are seconds, a `timedelta`, or Go's notation (`1500ms`, `5s`).
    A bad value raises ConfigError, which names the field, the value and what would be valid.

    Attributes:
        node_id: The node's id, unique in the cluster.
        raft_addr: TCP address to bind for Raft.
        mem_bind: Address to bind for gossip, UDP and TCP.
        mem_adv: Gossip address that other nodes are told. Empty: the one that is bound.
        mgmt_addr: Address to bind for the management API.
        mgmt_proto: Protocol at mgmt_addr, `http` or `grpc`.
        http_addr: Address to bind for HTTP when mgmt_proto is `grpc`. Empty: the next port up from mgmt_addr.
        grpc_addr: Address to bind for gRPC when mgmt_proto is `http`. Empty: the next port up from mgmt_addr.
        discovery_kind: Where the gossip addresses of other nodes come from, beside seeds_csv: `static` (nowhere else), `dns` or `file`.
        seeds_csv: Gossip addresses of other nodes, separated by commas. Used with every kind of discovery.
        dns_names_csv: Names to look up: `_service._proto.domain` for SRV records, other names for A and AAAA records, `host:port` as it is.
        dns_port: Gossip port of the nodes whose names are looked up for A and AAAA records.
        dns_servers_csv: DNS servers to ask, by IP address. Empty: those of /etc/resolv.conf.
        disc_refresh: Pause between looks for other nodes, for the life of the node. A DNS answer is kept for its TTL.
        file_path: A file with seeds, or a pattern of files: one seed a line or separated by commas, `#` for comments.
        file_env: Name of an environment variable with seeds. When it is set, it wins over the file.
        data_dir: Directory of the node's durable state. Empty: everything is in memory, for tests.
        bootstrap: Form a new cluster with this node as its only voter, unless it has Raft state already.
        bootstrap_expect: Form a new cluster with so many voters, once so many nodes that are given this number, and have no state, see one another.
            It must be more than half of the nodes that are ever started with it. Not together with bootstrap. 0: off.
        auto_join: As a node, ask for a place in the quorum. As the leader, give one to nodes that ask: as learner, then as voter.
        max_voters: How many voters auto_join makes at most, an odd number.
        min_voters: How many voters remove_dead_after leaves at least.
        remove_dead_after: As the leader, take a server out of the quorum that neither Raft nor gossip has heard for so long, as long as more than
            half of the remaining voters answer. 0: never.
        leave_on_stop: A graceful stop also takes the node out of the quorum and says good-bye in gossip. Leave it off for a node that will come back.
        tls_enable: Use TLS for the management API (HTTP and gRPC), between nodes, and for Raft. Gossip has gossip_key instead.
        tls_ca: Certificates of the authorities, a PEM file. When it is given, every connection needs a certificate that one of them issued (mutual
            TLS).
        tls_cert: The node's certificate with its chain, a PEM file. It is read again when it changes.
        tls_key: The private key of tls_cert, a PEM file. It is read again when it changes.
        tls_server_name: Name that the certificates of other nodes must have. Empty: the address that is dialled.
        tls_skip_verify: Accept any certificate of a server that this node dials. For experiments only.
        gossip_key: Keys that encrypt gossip, 16, 24 or 32 bytes each in base64 or hex, separated by commas. The first one encrypts, all of them
            decrypt.
        cluster_name: Label that tells this cluster's gossip from another's on the same network, up to 255 bytes. The same on every node.
        app_handlers: The application: a running HandlerActor's reference, a HandlerActor class, or an object with some of its methods. A handler can
            be registered later too.
        repl_window: How many publishes of a topic may be unacknowledged by the members before publishing waits.
        repl_retry: Pause before a failed delivery is tried again.
        repl_attempts: How often a handler may fail on a record before it becomes a dead letter. 0: it is tried for ever.
        dead_letter_topic: Topic of the dead letters. The same on every node.
        command_snapshot_every: After so many replicated commands the handler is asked for a snapshot of its state, if it has `handle_snapshot`.
        command_snapshot_bytes: The same after so many bytes of replicated commands, whichever comes first.
        repl_buffer_dir: Directory of the replication buffer. Empty: under data_dir, or in memory.
        request_timeout: How long a request may take that gives no timeout of its own.
        max_payload: Size of the largest record, in bytes.
        trailing_entries: How many applied entries of the Raft log are kept at most, so that a server that was away for a while catches up without a
            snapshot.
        trailing_bytes: How many bytes of them are kept at most, whichever is reached first.
        trailing_age: Applied entries that are older than this go too, counted from when this run of the node got them. 0: however old.
        metric_topics: How many topics have series of their own in the metrics. Further topics are counted together as `(other topics)`.
        take_over_from_go: While publishes wait here because a node of go-cluster leads, this node campaigns for the leadership, at most once in five
            seconds. Off: they wait until a node of coterie is elected.
        heartbeat_timeout: A follower that has heard nothing from its leader for this long (up to twice that, at random) asks for an election.
        election_timeout: How long a candidate waits before it tries again.
        lease_timeout: A leader that a quorum has not answered for this long steps down. At most heartbeat_timeout.
        store_timeout: A write to the Raft log that takes longer than this counts as a disk that does not answer: the node says so and does not lead.
            Its heartbeats stop as soon as a write waits.
        on_leader_change: Called with a LeaderInfo, in an actor of its own, one call at a time.
        on_election_start: Called without arguments, in the same actor.
        on_election_end: Called with a LeaderInfo, in the same actor.
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
