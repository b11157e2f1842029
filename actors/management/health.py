"""The standard health service, `grpc.health.v1.Health`: Check, and Watch, which goes on telling.

What is served is known when the node opens, how it stands is told by the wiring at each change of the topology:

| service | SERVING while |
|---|---|
| "" (the node as a whole), `coterie.v1.Node`, reflection, health | the node lives; not after it has failed closed |
| `cluster.v1.Management`, `coterie.v1.Client` | it also knows a leader, its disk answers and it waits for no state (as `/readyz`) |
| `cluster.v1.Replication` | it leads: only the leader has subscribers |

So a probe that restarts what is not SERVING asks for "", one that takes a node out of a load balancer asks for `cluster.v1.Management`, and a client that looks for
the leader watches `cluster.v1.Replication`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from google.protobuf.message import DecodeError

from coterie.actors.management.client_api import CLIENT
from coterie.actors.management.grpc_api import MANAGEMENT
from coterie.actors.management.replication_api import REPLICATION
from coterie.proto.grpc_standard import message
from coterie.transport.grpc_server import Call, Method, Refused

__all__ = ["NOT_SERVING", "SERVICE_UNKNOWN", "SERVING", "HealthBoard", "health_service"]

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
LOOK: Final = 1.0  # seconds after which a Watch without news looks whether its client is still there

_Request: Final = message("grpc.health.v1.HealthCheckRequest")
_Response: Final = message("grpc.health.v1.HealthCheckResponse")


class HealthBoard:
    """How the services of a node stand. Told by the wiring, read by the server's threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._known: frozenset[str] = frozenset(("",))
        self._leader_known = self._leads = self._failed = self._stalled = self._waits = False

    def serves(self, services: Iterable[str]) -> None:
        with self._changed:
            self._known = frozenset(("", *services))
            self._changed.notify_all()

    def topology(self, leader_known: bool, leads: bool) -> None:
        with self._changed:
            self._leader_known, self._leads = leader_known, leads
            self._changed.notify_all()

    def failed(self) -> None:
        """The node has failed closed, for good."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()

    def stalled(self, stalled: bool) -> None:
        """The disk of the Raft log does not answer: the node lives, and can carry out nothing."""
        with self._changed:
            self._stalled = stalled
            self._changed.notify_all()

    def waits(self, waits: bool) -> None:
        """For a state that its leader, of go-cluster, cannot tell."""
        with self._changed:
            self._waits = waits
            self._changed.notify_all()

    def status(self, service: str) -> int:
        if service not in self._known:
            return SERVICE_UNKNOWN
        well = not self._failed
        if service in (MANAGEMENT, CLIENT):
            well = well and self._leader_known and not self._stalled and not self._waits
        elif service == REPLICATION:
            well = well and self._leads and not self._stalled
        return SERVING if well else NOT_SERVING

    def changed(self, service: str, shown: int, timeout: float) -> int:
        """The status of `service`, as soon as it is another one than `shown`, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.status(service) != shown, timeout)
            return self.status(service)


def health_service(board: HealthBoard) -> Mapping[str, Method]:
    """For `GrpcServer`."""

    def asked(body: bytes) -> str:
        try:
            return str(_Request.FromString(body).service)
        except DecodeError as error:
            raise Refused("INVALID_ARGUMENT", f"the request is no HealthCheckRequest: {error}") from None

    def check(body: bytes, call: Call) -> bytes:
        service = asked(body)
        status = board.status(service)
        if status == SERVICE_UNKNOWN:
            raise Refused("NOT_FOUND", f"no service {service!r} is served here")
        return bytes(_Response(status=status).SerializeToString())

    def watch(body: bytes, call: Call) -> Iterator[bytes]:
        service = asked(body)
        shown = -1
        while not call.over:
            status = board.changed(service, shown, LOOK)
            if status != shown:
                shown = status
                yield _Response(status=status).SerializeToString()

    return {"Check": Method("control", check), "Watch": Method("server_stream", watch)}
