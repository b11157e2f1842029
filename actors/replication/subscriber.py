"""The leader's side of acknowledgements: one subscriber actor per live peer.

A peer's acknowledgements come in by its own connection, at any rate. Its subscriber takes what waits as one burst and tells the publisher once: so
neither many peers nor a talkative one fills the publisher's inbox. What arrives at a node that does not lead is dropped, but for the last
announcement of each peer: a peer may know of a new leader before that one does itself. Peers send everything anew to a new leader, and again from
time to time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from coterie.actors.base import Actor, Crash, Ref
from coterie.actors.replication.messages import AcksArrived, PeerAcks
from coterie.actors.replication.window import MAX_MEMBERS


class Subscriber(Actor):
    """Hears the acknowledgements of `peer`."""

    concern: ClassVar[str] = "subscriber"

    def __init__(
        self, node: str, peer: str, to_publisher: Callable[[Any], object], on_crash: Callable[[Crash], None] | None = None
    ) -> None:
        super().__init__(node, on_crash)
        self.peer = peer
        self._to_publisher = to_publisher
        self._acks: dict[str, int] = {}
        self._announce = False

    def on_receive(self, message: Any) -> Any:
        if message.__class__ is not AcksArrived:
            self.log.warning("unexpected message: a %s", type(message).__name__)
        elif message.announce:
            self._acks, self._announce = dict(message.acks), True
        else:
            for topic, seq in message.acks.items():
                if seq > self._acks.get(topic, 0):
                    self._acks[topic] = seq

    def flush(self) -> None:
        if self._acks or self._announce:
            acks, announce = self._acks, self._announce
            self._acks, self._announce = {}, False
            self._to_publisher(PeerAcks(self.peer, acks, announce))


class Subscribers:
    """The subscriber actors of this node. `set_peers` is called by the publisher alone; `acks_arrived` by any thread."""

    def __init__(self, node: str, to_publisher: Callable[[Any], object], on_crash: Callable[[Crash], None] | None = None) -> None:
        self._node, self._to_publisher, self._on_crash = node, to_publisher, on_crash
        self._refs: dict[str, Ref] = {}  # replaced, never changed: readers need no lock
        self._early: dict[str, AcksArrived] = {}  # announcements that came before this node knew that it leads

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The actors there are now; from any thread."""
        return tuple(self._refs.values())

    def set_peers(self, peers: frozenset[str]) -> None:
        """Start and stop actors so that there is one for each peer."""
        before = self._refs
        if peers == before.keys():
            return
        after = {peer: before.get(peer) or self._start(peer) for peer in peers}
        self._refs = after
        for peer in peers:
            early = self._early.pop(peer, None)
            if early is not None:
                after[peer].send(early)
        for peer, ref in before.items():
            if peer not in after:
                ref.stop(block=False)

    def acks_arrived(self, message: AcksArrived) -> bool:
        """Pass a peer's acknowledgements on. False: this node does not lead (yet), or does not know the peer; its last announcement is kept for when it does."""
        ref = self._refs.get(message.node_id)
        if ref is None and message.announce and len(self._early) < MAX_MEMBERS:
            self._early[message.node_id] = message
            ref = self._refs.get(message.node_id)  # it may have been started between the two lines above
        return ref is not None and ref.send(message)

    def stop(self) -> None:
        refs, self._refs = self._refs, {}
        for ref in refs.values():
            ref.stop()

    def _start(self, peer: str) -> Ref:
        ref: Ref = Subscriber.start(self._node, peer, self._to_publisher, self._on_crash)  # type: ignore[assignment]
        return ref
