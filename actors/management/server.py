"""The actor that owns the two management servers.

`mgmt_proto` says which protocol sits on `mgmt_addr`. The other one sits on `http_addr` or `grpc_addr`, by default on the next port up of the same host (and on any
free port where `mgmt_addr` asks for one). Both are bound by `Open`, in one step: either both listen, or none does and the asker gets `BindFailed`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import attrs

from coterie.actors.base import Actor
from coterie.actors.errors import BindFailed
from coterie.actors.management.client_api import client_service
from coterie.actors.management.event_feed import EventFeed
from coterie.actors.management.grpc_api import management_services
from coterie.actors.management.health import HealthBoard, health_service
from coterie.actors.management.http_app import answer, http_app
from coterie.actors.management.node_api import NodePorts, node_service, refusing_ports
from coterie.actors.management.reflection import reflection_service
from coterie.actors.management.replication_api import ReplicationPorts, refusing_replication, replication_service
from coterie.actors.management.service import ClusterService
from coterie.actors.management.spans import traced_services
from coterie.proto.grpc_standard import HEALTH, REFLECTION
from coterie.transport.addresses import Address, advertised, parse_address
from coterie.transport.errors import AddressError, BindError
from coterie.transport.grpc_client import ChannelPool
from coterie.transport.grpc_reception import StreamPlaces
from coterie.transport.grpc_server import GrpcServer, Method
from coterie.transport.http_server import HttpServer
from coterie.transport.tls import Tls

__all__ = ["ManagementAddresses", "ManagementServer", "Open", "bind_addresses", "grpc_services"]

EVICT_EVERY: Final = 30.0
MAX_PORT: Final = 65535


@attrs.define(frozen=True)
class Open:
    """Ask the management server to listen. -> ManagementAddresses. Raises BindFailed, which names the setting, the address and the remedy."""


@attrs.define(frozen=True)
class ManagementAddresses:
    """What others dial (host:port): `mgmt` is the one of `http` and `grpc` that `mgmt_proto` names."""

    http: str
    grpc: str
    mgmt: str


@attrs.define(frozen=True)
class ManagementSettings:
    """The fields of `Config` of the same names."""

    mgmt_addr: str
    mgmt_proto: str = "http"
    http_addr: str = ""
    grpc_addr: str = ""


def bind_addresses(settings: ManagementSettings) -> tuple[str, str]:
    """(HTTP bind, gRPC bind). Raises BindFailed when there is no next port."""
    first = settings.mgmt_addr
    second_setting, second = ("grpc_addr", settings.grpc_addr) if settings.mgmt_proto == "http" else ("http_addr", settings.http_addr)
    if not second:
        address = parse_address(first)
        if address.port == MAX_PORT:
            raise BindFailed(f"mgmt_addr {first!r} has no next port for {second_setting}: give {second_setting}")
        second = str(Address(address.host, address.port + 1 if address.port else 0))
    return (first, second) if settings.mgmt_proto == "http" else (second, first)


def grpc_services(
    service: ClusterService, ports: NodePorts, replication: ReplicationPorts, board: HealthBoard
) -> dict[str, Mapping[str, Method]]:
    """All that a node serves over gRPC, for `GrpcServer`. `board` is told what there is."""
    services = {
        **management_services(service),
        **client_service(service),
        **replication_service(replication),
        **node_service(service, ports),
        HEALTH: health_service(board),
    }
    names = (*services, *REFLECTION)
    services |= {name: reflection_service(name, names) for name in REFLECTION}
    board.serves(names)
    return services


class ManagementServer(Actor):
    """Serves `service` over HTTP and gRPC, `ports` to other nodes and `replication` to subscribers, from `Open` until it stops.

    pool: the node's channels, whose idle ones it closes; board: what the health service tells; places: for streams over gRPC."""

    concern = "management"

    def __init__(
        self,
        settings: ManagementSettings,
        service: ClusterService,
        ports: NodePorts | None = None,
        pool: ChannelPool | None = None,
        replication: ReplicationPorts | None = None,
        board: HealthBoard | None = None,
        places: StreamPlaces | None = None,
        tls: Tls | None = None,
        **actor: Any,
    ) -> None:
        super().__init__(**actor)
        self._settings = settings
        self._service = service
        self._ports = ports or refusing_ports()
        self._replication = replication or refusing_replication()
        self._board = board or HealthBoard()
        self._pool = pool
        self._places = places
        self._tls = tls
        self._feed: EventFeed | None = None
        self._http: HttpServer | None = None
        self._grpc: GrpcServer | None = None

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Open):
            return self._open()
        self.log.warning("unexpected message: a %s", type(message).__name__)
        return None

    def counters(self) -> dict[str, int]:
        """What both servers have refused so far, by reason. From any thread."""
        servers = {"http": self._http, "grpc": self._grpc}
        return {
            f"{name}: {reason}": count
            for name, server in servers.items()
            if server is not None
            for reason, count in server.counters.snapshot().items()
        }

    def on_wake(self, now: float) -> None:
        if self._pool is not None:
            self._pool.evict_idle()
            self.wake_at(now + EVICT_EVERY)

    def on_restart(self) -> None:
        """The servers have threads of their own and go on."""
        self.wake_at(time.monotonic() + EVICT_EVERY)

    def on_stop(self) -> None:
        http, self._http = self._http, None
        grpc, self._grpc = self._grpc, None
        if self._feed is not None:
            self._feed.close()
        if http is not None:
            http.close()
        if grpc is not None:
            grpc.stop()

    def _open(self) -> ManagementAddresses:
        if self._http is None or self._grpc is None:
            try:
                self._bind()
            except (BindError, AddressError) as error:
                self.on_stop()
                raise BindFailed(str(error)) from error
            except BaseException:
                self.on_stop()
                raise
            self.wake_at(time.monotonic() + EVICT_EVERY)
        assert self._http is not None
        assert self._grpc is not None
        http = str(advertised(self._http.address, self._http.port))
        grpc = str(advertised(self._grpc.address, self._grpc.port))
        return ManagementAddresses(http, grpc, http if self._settings.mgmt_proto == "http" else grpc)

    def _bind(self) -> None:
        http_bind, grpc_bind = bind_addresses(self._settings)
        http_setting, grpc_setting = ("mgmt_addr", "grpc_addr") if self._settings.mgmt_proto == "http" else ("http_addr", "mgmt_addr")
        self._feed = EventFeed(self._service, answer)
        self._http = HttpServer(http_bind, http_app(self._service, self._feed), self.node, http_setting, tls=self._tls)
        services = grpc_services(self._service, self._ports, self._replication, self._board)
        traced = traced_services(self.node, services)
        self._grpc = GrpcServer(grpc_bind, traced, self.node, grpc_setting, places=self._places, tls=self._tls)
