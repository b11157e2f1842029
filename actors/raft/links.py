"""The connections of a Raft server to its peers: one `RaftPeer` each, kept in step with the configuration.

What comes back from their threads is told to the actor as plain tuples, stamped with the link's number, so that the last words of a link that
was replaced (its address changed) are told apart from those of its successor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from coterie.actors.raft.ready import Send
from coterie.proto.raft_codec import encode_append, encode_entries, encode_request
from coterie.proto.raft_messages import AppendRequest, Entry, Server
from coterie.transport.errors import AddressError
from coterie.transport.limits import LOG
from coterie.transport.raft_client import RaftPeer
from coterie.transport.tls import Tls

RESPONSE: Final = "response"
CONNECTED: Final = "connected"
DISCONNECTED: Final = "disconnected"
CLOSE_PATIENCE: Final = 2.0  # seconds


class Links:
    """tell: puts (what, peer id, link number, token, response) into the actor's inbox."""

    def __init__(self, name: str, tell: Callable[[tuple[Any, ...]], None], tls: Tls | None = None) -> None:
        self._name, self._tell, self._tls = name, tell, tls
        self._links: dict[str, tuple[int, str, RaftPeer]] = {}
        self._elsewhere: dict[str, str] = {}  # where gossip says that peers are
        self._undialled: dict[str, str] = {}  # peers whose address is none, and what it is
        self._number = 0
        self._encoded: tuple[Sequence[Entry] | None, bytes] = ((), encode_entries(()))
        self.unsent = 0

    def reconcile(self, wanted: Sequence[Server]) -> list[str]:
        """Dial who is new or has moved, hang up on who is gone. Returns the ids hung up on.

        A leader of another make takes a join with any text for an address. A server with one that is none is never reached, like one that is down.
        """
        addresses = {server.id: server.address for server in wanted}
        self._follow(addresses)
        gone = [peer for peer, (_, address, _) in self._links.items() if addresses.get(peer) != address]
        for peer in gone:
            self._hang_up(self._links.pop(peer)[2])
        self._undialled = {peer: address for peer, address in self._undialled.items() if addresses.get(peer) == address}
        for peer, address in addresses.items():
            if peer not in self._links and peer not in self._undialled:
                try:
                    self._dial(peer, address)
                except AddressError as error:
                    self._undialled[peer] = address
                    LOG.error(
                        "%s: the configuration has %s at an address that cannot be dialled: %s; let it leave", self._name, peer, error
                    )
        return gone

    def _follow(self, addresses: dict[str, str]) -> None:
        """A link that is connected already where its peer has moved to stays."""
        for peer, (number, address, link) in self._links.items():
            wanted = addresses.get(peer, address)
            if wanted != address and link.connected and str(link.address) == wanted:
                link.also_at(wanted, instead=True)
                self._links[peer] = (number, wanted, link)

    def elsewhere(self, addresses: dict[str, str]) -> None:
        """Where peers are said to be, by id, if not where the configuration has them: dialled in turn with that address. Each is one that can be dialled."""
        self._elsewhere = addresses
        for peer, (_, _, link) in self._links.items():
            link.also_at(addresses.get(peer, ""))

    def seen(self, peer: str) -> None:
        """Gossip says that this peer has come back: it is dialled at once, and not when its back-off is over."""
        link = self._links.get(peer)
        if link is not None:
            link[2].seen()

    def where(self, peer: str) -> str:
        """The address at which the peer is reached now; "" when it is not."""
        link = self._links.get(peer)
        return str(link[2].address) if link is not None and link[2].connected else ""

    def _dial(self, peer: str, address: str) -> None:
        self._number += 1
        number, tell = self._number, self._tell
        link = RaftPeer(
            address,
            lambda token, response: tell((RESPONSE, peer, number, token, response)),
            lambda: tell((CONNECTED, peer, number)),
            lambda: tell((DISCONNECTED, peer, number)),
            name=self._name,
            peer=peer,
            tls=self._tls,
        )
        link.also_at(self._elsewhere.get(peer, ""))
        self._links[peer] = (number, address, link)

    def current(self, peer: str, number: int) -> bool:
        link = self._links.get(peer)
        return link is not None and link[0] == number

    def send(self, send: Send) -> None:
        """Encode and send; a batch that goes to several followers is encoded once. What cannot be sent is answered with None at once."""
        request = send.request
        link = self._links.get(send.peer)
        if link is None or not link[2].connected:
            sent = False
        elif isinstance(request, AppendRequest):
            entries, encoded = self._encoded
            if entries is not request.entries:
                encoded = encode_entries(request.entries)
                self._encoded = (request.entries, encoded)
            data = encode_append(request.header, request.term, request.prev_index, request.prev_term, request.commit, encoded)
            sent = link[2].send(data, AppendRequest, send.token)
        else:
            sent = link[2].send(encode_request(request), type(request), send.token)
        if not sent:
            self.unsent += 1
            if link is not None:
                self._tell((RESPONSE, send.peer, link[0], send.token, None))

    def counters(self) -> dict[str, int]:
        total: dict[str, int] = {"unsent": self.unsent}
        if self._undialled:
            total["servers without an address now"] = len(self._undialled)
        for _, _, link in self._links.values():
            for reason, count in link.counters().items():
                total[reason] = total.get(reason, 0) + count
        return total

    def close(self) -> None:
        """Hang up on everybody at once, and wait: but not for a name look-up that hangs."""
        until = time.monotonic() + CLOSE_PATIENCE
        closing = [self._hang_up(link) for _, _, link in self._links.values()]
        self._links.clear()
        for thread in closing:
            thread.join(max(0.0, until - time.monotonic()))

    def _hang_up(self, link: RaftPeer) -> threading.Thread:
        thread = threading.Thread(target=link.close, name=f"{self._name}/raft-hang-up", daemon=True)
        thread.start()
        return thread
