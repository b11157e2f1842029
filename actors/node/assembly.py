"""A node's rooms: in which order they are opened, how they are wired, and in which order they are closed.

Opening: data directory and log, then everything that binds a port (so that a port in use is said before anything is promised), then Raft and publishing. What
was opened is closed again when a later step fails. Closing is the reverse, and each step is bounded in time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pykka

from coterie import __version__
from coterie.actors.base import LATER, Crash, Ref
from coterie.actors.config import Config
from coterie.actors.config_security import gossip_security, open_tls
from coterie.actors.disk.data_dir import DataDir
from coterie.actors.disk.lmdb_env import Damaged
from coterie.actors.errors import BindFailed, InvalidRequest, StorageError
from coterie.actors.event_bus import Callbacks, EventBus
from coterie.actors.future import LightFuture
from coterie.actors.handler import HandlerActor, ObjectHandler
from coterie.actors.management.client import NodeClient
from coterie.actors.management.foreign_client import ForeignClient
from coterie.actors.management.health import HealthBoard
from coterie.actors.management.server import ManagementAddresses, ManagementServer, ManagementSettings, Open
from coterie.actors.management.service import ClusterService
from coterie.actors.membership.actor import MembershipActor
from coterie.actors.membership.sources import source
from coterie.actors.messages import Condition, DeadLetters, Here, Requeue, Subscribe, TransferLeadership
from coterie.actors.node.state_fetch import StateFetch
from coterie.actors.node.state_of_others import StateForOthers, StateOfOthers
from coterie.actors.node.topology import META_CLUSTER, META_LEADS, META_RAFT, NO_CLUSTER, SOME_CLUSTER, members_by_host, own_meta
from coterie.actors.node.wires import Wires
from coterie.actors.observability.metrics import Metrics
from coterie.actors.raft.actor import RaftActor
from coterie.actors.raft.lmdb_log import LmdbLog
from coterie.actors.raft.log import RaftLog
from coterie.actors.raft.memory_log import MemoryLog
from coterie.actors.raft.recovery import check_start, finish_installation
from coterie.actors.raft.settings import Settings
from coterie.actors.raft.sink import SetSink
from coterie.actors.replication.buffer import ReplicationBuffer
from coterie.actors.replication.limits import Limits
from coterie.actors.replication.lmdb_buffer import LmdbBuffer
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.room import Replication
from coterie.actors.room_messages import Emit, GetMembership, GetRaftView, LeaveGossip, MembershipEvent, MembershipView, RaftView, Topology
from coterie.actors.stores.storage import note_damage, open_stores
from coterie.proto.raft_messages import Entry
from coterie.transport.addresses import parse_address
from coterie.transport.errors import AddressError, BindError
from coterie.transport.gossip import check_bind
from coterie.transport.grpc_client import ChannelPool
from coterie.transport.grpc_json_client import JsonChannels
from coterie.transport.grpc_reception import GUESTS, StreamPlaces
from coterie.transport.tls import Tls

STOP_PATIENCE = 5.0  # seconds for each room to stop
TRANSFER_PATIENCE = 2.0
_LOG_CHUNK = 1 << 20  # bytes of the log read at a time


class Rooms:
    """The rooms of one node. `supervisor`: its reference, as a user holds it; `on_crash`: told of every crash, in the crashed actor's thread."""

    raft: Ref
    membership: Ref
    publisher: Ref
    reads: Ref
    events: Ref

    def __init__(self, config: Config, supervisor: Any, on_crash: Callable[[Crash], None]) -> None:
        self.config, self._supervisor, self._on_crash = config, supervisor, on_crash
        self.addresses: dict[str, str] = {}
        self.directory: DataDir | None = None
        self.cluster = ""  # the id of the cluster whose log this node has, as far as it is known
        self.metrics = Metrics(config.node_id, __version__, config.metric_topics)
        self.health = HealthBoard()
        self.app_handler: Any = None
        self._snapshots: Path | None = None
        self._directory: DataDir | None = None
        self.tls: Tls | None = None
        self._closing: list[Callable[[], object]] = []  # what is open, latest last
        self._closing_since = 0.0
        self._replication: Replication | None = None
        self.stores: dict[str, LmdbLog | LmdbBuffer] = {}  # by name, of a node with a data directory
        self._serving: dict[str, Ref] = {}  # the actors that have no name here, by concern

    # -- opening --------------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Raises ConfigError, StorageError, BindFailed."""
        config = self.config
        self.tls = open_tls(config)
        if self.tls is not None:
            self._closing.append(self.tls.close)
        self.stream_places = StreamPlaces(a_host=None if self.tls is not None and self.tls.mutual else GUESTS // 2)
        self.directory, log, buffer = self._open_storage()
        self.events = self._start(EventBus, config.node_id, self._on_crash)
        if Callbacks.wanted(config):
            callbacks = self._serving["callbacks"] = self._start_application(Callbacks, config, self._on_crash)
            self.events.ask(Subscribe(listener=callbacks, capacity=1 << 20))
        self._open_management(log, buffer)
        try:
            check_bind(config.mem_bind)  # gossip tells Raft's address and opens after it, but Raft must not begin to lead for nothing
        except (BindError, AddressError) as error:
            raise BindFailed(str(error)) from error
        raft = self._open_raft(log, buffer)
        self._open_membership(self.directory)
        replication = self._replication
        assert replication is not None
        self.publisher = replication.start(raft)
        self.reads = replication.reads
        self._closing.append(replication.stop)
        raft.tell(SetSink(self.publisher))
        if config.app_handlers is not None:
            self.app_handler = self._application(config.app_handlers)

    def _start(self, actor: Any, *args: Any, **kwargs: Any) -> Ref:
        ref: Ref = actor.start(*args, **kwargs)
        self._closing.append(lambda: ref.stop(timeout=STOP_PATIENCE))
        return ref

    def _start_application(self, actor: Any, *args: Any) -> Ref:
        """An actor that runs the application's code, which may never return: all of them together get `STOP_PATIENCE`."""
        ref: Ref = actor.start(*args)
        self._closing.append(lambda: ref.stop(timeout=max(0.1, self._closing_since + STOP_PATIENCE - time.monotonic())))
        return ref

    def _open_storage(self) -> tuple[DataDir | None, RaftLog, ReplicationBuffer]:
        config = self.config
        if not config.data_dir:
            buffer: ReplicationBuffer = MemoryBuffer()
            return None, MemoryLog(), buffer
        directory = DataDir.open(config.data_dir, config.node_id)
        self._closing.append(lambda: self._give_back(directory))
        self._directory = directory
        closing = self._closing
        stores = open_stores(
            directory, directory.buffer_path(config.repl_buffer_dir), lambda store: closing.append(store.close), self._supervisor_log()
        )
        self.stores = {"raft": stores.log, "buffer": stores.buffer}
        self._snapshots = directory.path
        return directory, stores.log, stores.buffer

    def note_damage(self, error: Damaged) -> None:
        """This node has failed on it: its next start reads all of that part. What cannot be written down needs `clusterctl check`."""
        if self._directory is not None:
            self._try(partial(note_damage, self._directory.path, error))

    def _give_back(self, directory: DataDir) -> None:
        """The directory is another's to take once nothing of this node can write into it any more."""
        busy = [name for name, store in self.stores.items() if not store.released]
        if busy:
            raise StorageError(
                f"data_dir={str(directory.path)!r}: stays locked by this process: the disk of {' and '.join(busy)} does not answer"
            )
        directory.close()

    def _open_management(self, log: RaftLog, buffer: ReplicationBuffer) -> None:
        config, supervisor = self.config, self._supervisor
        pool = ChannelPool(config.node_id, observer=self.metrics.channels, tls=self.tls)
        self._closing.append(pool.close)
        self.client = NodeClient(pool, config.node_id)
        self._json_channels = JsonChannels(config.node_id, observer=self.metrics.channels.beside(), tls=self.tls)
        self._closing.append(self._json_channels.close)
        self.foreign_client = ForeignClient(self._json_channels, config.node_id)
        self.wires = Wires(config.node_id, self.client)
        self._closing.append(self.wires.close)
        service = ClusterService(
            lambda message: supervisor.ask(message, block=False),
            lambda message: supervisor.ask(Here(message), block=False),
            node_id=config.node_id,
            timeout=config.request_timeout,
            max_payload=config.max_payload,
            metrics=self.metrics.text,
            on_join=self.metrics.join_request,
            condition=self._condition,
        )
        settings = ManagementSettings(config.mgmt_addr, config.mgmt_proto, config.http_addr, config.grpc_addr)
        server = self._serving["management"] = self._start(
            ManagementServer,
            settings,
            service,
            self.wires.ports(self._publishing, StateForOthers(config.node_id, log, buffer, self._ask_publisher)),
            pool,
            self.wires.replication_ports(self._publishing),
            self.health,
            self.stream_places,
            tls=self.tls,
            node=config.node_id,
            on_crash=self._on_crash,
        )
        self._management: Any = server._actor_weakref()
        where: ManagementAddresses = server.ask(Open())
        self.addresses |= {"http": where.http, "grpc": where.grpc, "mgmt": where.mgmt}

    def _publishing(self) -> Replication | None:
        """The replication room once it runs."""
        return self._replication if hasattr(self, "publisher") else None

    def _ask_publisher(self, question: Any) -> LightFuture | None:
        if self._publishing() is None:
            return None
        asked: LightFuture = self.publisher.ask(question, block=False)
        return asked

    def _condition(self) -> Condition:
        actor = self._supervisor._actor_weakref()
        return actor.condition() if actor is not None else Condition("stopping", "this node has stopped")

    def _open_raft(self, log: RaftLog, buffer: ReplicationBuffer) -> Ref:
        config = self.config
        if finish_installation(log, buffer.mark()):
            self._supervisor_log().warning("finished the installation of a snapshot that an earlier life of this node had begun")
        check_start(log, buffer.applied[0])
        self._replication = Replication(
            config.node_id,
            buffer,
            self.wires,
            self.wires.send_acks,
            lambda event: self.events.send(Emit(event)),
            follow_link=self.wires.follow_link,
            past=lambda index: _entries_up_to(log, index),
            snapshots=self._snapshots,
            limits=Limits(
                request_timeout=config.request_timeout,
                max_payload=config.max_payload,
                window=config.repl_window,
                take_over_from_go=config.take_over_from_go,
            ),
            foreign_link=self.foreign_client,
            told=self._leader_told,
            read_index=self.wires.read_index,
            retry=config.repl_retry,
            attempts=config.repl_attempts,
            letters=config.dead_letter_topic,
            fetch_state=StateFetch(config.node_id, self.client, lambda: self.wires.topology, self._snapshots),
            every=config.command_snapshot_every,
            every_bytes=config.command_snapshot_bytes,
            metrics=self.metrics,
            on_crash=self._on_crash,
        )
        settings = Settings(
            heartbeat_timeout=config.heartbeat_timeout,
            election_timeout=config.election_timeout,
            lease_timeout=config.lease_timeout,
            trailing_entries=config.trailing_entries,
            trailing_bytes=config.trailing_bytes,
            trailing_age=config.trailing_age,
            store_timeout=config.store_timeout,
        )
        self.raft = self._start(
            RaftActor,
            config.node_id,
            config.raft_addr,
            log,
            settings,
            applied=self._replication.applied[0],
            bootstrap=config.bootstrap,
            snapshots=self._snapshots,
            wait_for_sink=True,
            tls=self.tls,
            observe=self._raft_changed,
            on_stored=self.metrics.fsync_seconds if self.stores else None,
            ask_others=StateOfOthers(config.node_id, self.client, lambda: self.wires.topology, self._snapshots),
            on_crash=self._on_crash,
        )
        actor: Any = self.raft._actor_weakref()
        self.addresses["raft"] = actor.started.get()
        return self.raft

    def _raft_changed(self, view: RaftView, events: list[Any]) -> None:
        supervisor = self._supervisor._actor_weakref()
        if supervisor is not None:
            supervisor.raft_changed(view, events)

    def _leader_told(self, term: int, leader: str) -> None:
        supervisor = self._supervisor._actor_weakref()
        if supervisor is not None:
            supervisor.leader_told(term, leader)

    def _open_membership(self, directory: DataDir | None) -> None:
        config = self.config
        crashed = LightFuture()

        def on_crash(crash: Crash) -> None:
            if not crashed.done:
                crashed.set(crash.error)
            self._on_crash(crash)

        self.membership = self._start(
            MembershipActor,
            config.node_id,
            config.mem_bind,
            config.mem_adv,
            self.meta(None),
            source(config),
            self._membership_changed,
            members_path=directory.members_path if directory is not None else None,
            security=gossip_security(config),
            on_crash=on_crash,
        )
        try:
            view: MembershipView = self.membership.ask(GetMembership(), timeout=STOP_PATIENCE)
        except pykka.ActorDeadError:
            raise crashed.get(timeout=STOP_PATIENCE) from None  # told in a moment: the asker is released first
        self.addresses["gossip"] = next(member.addr for member in view.members if member.id == config.node_id)

    def _membership_changed(self, view: MembershipView, event: MembershipEvent | None) -> None:
        self.stream_places.known = members_by_host(view)
        supervisor = self._supervisor._actor_weakref()
        if supervisor is not None:
            supervisor.membership_changed(view, event)

    def _application(self, handlers: Any) -> Any:
        """`Config.app_handlers`: a running handler's reference, a HandlerActor class, or any object with some of the four methods."""
        if isinstance(handlers, type) and issubclass(handlers, HandlerActor):
            return self._start_application(handlers)
        if hasattr(handlers, "actor_urn") and hasattr(handlers, "ask"):
            return handlers
        return self._start_application(ObjectHandler, handlers)

    # -- while it runs --------------------------------------------------------------------------------------------------------

    def meta(self, leads_in: int | None) -> dict[str, str]:
        return own_meta(self.addresses, leads_in)

    def topology_changed(self, topology: Topology) -> None:
        self.wires.topology = topology
        self.health.topology(bool(topology.leader_id), topology.leads)
        if self._replication is not None:
            self.wires.tidy(self._replication)  # a leader that hands over tells first how far its subscribers are
            self._replication.told_topology(topology)

    def handler_changed(self, handler: Any) -> None:
        self._serving["handler"] = handler
        if self._replication is not None:
            self._replication.set_handler(handler)

    def management_counters(self) -> dict[str, int]:
        """What the HTTP and the gRPC server have refused, and what subscribers over gRPC have missed."""
        counters: dict[str, int] = self._management.counters()
        if self.tls is not None:
            counters |= {f"tls: {reason}": count for reason, count in self.tls.counters.snapshot().items()}
        return counters if self._replication is None else {**counters, **self._replication.counters()}

    def read_counters(self) -> dict[str, int]:
        return self._replication.read_counters() if self._replication is not None else {}

    def tidy(self) -> None:
        """Every few seconds."""
        if self._replication is not None:
            self.wires.tidy(self._replication)
        self._json_channels.evict_idle()

    def actors(self) -> Iterator[tuple[str, Ref]]:
        """Every actor of this node but the supervisor, with its concern; the application's handler and one subscriber for each peer among them."""
        yield from (("raft", self.raft), ("membership", self.membership), ("publisher", self.publisher), ("events", self.events))
        yield from self._serving.items()
        replication = self._replication
        if replication is not None:
            yield from replication.actors()

    def tls_warnings(self) -> tuple[str, ...]:
        return self.tls.warnings() if self.tls is not None else ()

    def subscribe(self, message: Subscribe, reply: LightFuture | None) -> Any:
        """Pass a subscription to the bus; its answer goes to whoever asked."""
        return self._pass_on(self.events, message, reply)

    def _pass_on(self, room: Ref, message: Any, reply: LightFuture | None) -> Any:
        future = room.ask(message, block=False)
        if reply is None:
            return None
        future.on_done(lambda: reply.fail(future.error) if future.error is not None else reply.set(future.get()))
        return LATER

    def ask_letters(self, message: DeadLetters | Requeue, reply: LightFuture | None) -> Any:
        """Pass a question about dead letters to the desk that has them; its answer goes to whoever asked."""
        assert self._replication is not None
        return self._pass_on(self._replication.letter_desk, message, reply)

    def check_join(self, member: str, raft_addr: str, membership: MembershipView) -> None:
        """What can be said about a join before Raft is asked. Raises InvalidRequest."""
        try:
            address = parse_address(raft_addr if isinstance(raft_addr, str) else "")
        except AddressError as error:
            raise InvalidRequest(f"raftAddr={raft_addr!r}: {error}") from None
        if not address.host or not address.port or address.everywhere:
            raise InvalidRequest(f"raftAddr={raft_addr!r}: give the host and port that the other nodes can dial")
        known = next((m for m in membership.members if m.id == member and m.state in ("alive", "suspect")), None)
        if known is not None and META_LEADS in known.meta and member != self.config.node_id:
            raise InvalidRequest(
                f"id={member!r}: it leads a cluster of its own (was it started with bootstrap?); remedy: start it without bootstrap and with an empty "
                "data_dir, or wait a moment if it led this cluster until now"
            )
        cluster = known.meta.get(META_CLUSTER, "") if known is not None else ""
        if self.cluster and cluster not in ("", NO_CLUSTER, SOME_CLUSTER, self.cluster):
            raise InvalidRequest(
                f"id={member!r}: it has the log of another cluster ({cluster}, this one is {self.cluster}); remedy: start it with an empty data_dir"
            )
        told = known.meta.get(META_RAFT, "") if known is not None else ""
        if told and told != raft_addr and parse_address(told).port != address.port:
            raise InvalidRequest(f"raftAddr={raft_addr!r}: {member!r} itself says in gossip that its Raft address is {told}; give that one")

    # -- closing --------------------------------------------------------------------------------------------------------------

    def say_good_bye(self, raft: RaftView, failed: bool) -> None:
        """A graceful stop: hand leadership over, leave the quorum if configured, tell the gossip. Each is tried, none is waited for long."""
        if failed or not hasattr(self, "publisher"):
            return
        quietly = self._try
        me = self.config.node_id
        others = [server for server in raft.servers if server.id != me and server.suffrage == "voter"]
        if raft.role == "leader" and others:
            heir = self.wires.topology.heir([server.id for server in others])
            quietly(lambda: self.raft.ask(TransferLeadership(heir), timeout=TRANSFER_PATIENCE), "handing leadership over")
        if self.config.leave_on_stop:
            if others:
                quietly(lambda: self._leave_quorum(me), "leaving the quorum")
            quietly(lambda: self.membership.ask(LeaveGossip(), timeout=STOP_PATIENCE), "leaving the gossip")

    def _leave_quorum(self, me: str) -> None:
        topology = self.wires.topology
        deadline = threading.Event()
        for _ in range(20):
            view: RaftView = self.raft.ask(GetRaftView(), timeout=1)
            address = topology.grpc_addr.get(view.leader_id, "")
            if view.leader_id and view.leader_id != me and address:
                self.client.leave(address, me, STOP_PATIENCE).get(timeout=STOP_PATIENCE)
                return
            deadline.wait(0.1)

    def _try(self, step: Callable[[], object], what: str = "closing") -> None:
        try:
            step()
        except pykka.Timeout as error:
            self._supervisor_log().info("while stopping: %s took longer than %s and was given up", what, error)
        except Exception as error:  # noqa: BLE001 - the node stops anyway; what it could not say, the others find out by themselves
            self._supervisor_log().info("while stopping: %s: %s: %s", what, type(error).__name__, error)

    def _supervisor_log(self) -> Any:
        return self._supervisor._actor_weakref().log

    def close(self) -> None:
        self._closing_since = time.monotonic()
        closing, self._closing = self._closing, []
        for step in reversed(closing):
            self._try(step)


def _entries_up_to(log: RaftLog, last: int) -> Iterator[Entry]:
    first = log.first_index
    while first <= last:
        for entry in log.entries(first, last, _LOG_CHUNK):
            yield entry
            first = entry.index + 1
