"""Machines whose links can be cut one by one and one way.

Each machine knows the others' hardware addresses for good. A link is cut by giving the sender a wrong one: its frames go to nobody, no error comes back to anyone,
and what goes the other way arrives as before. That is how a bad switch or a wrong rule looks from inside, and it needs no packet filter.
"""

from __future__ import annotations

from collections.abc import Iterable

from tests.deploy.networks import Machines

NOBODY = "02:00:00:00:ff:ff"

Link = tuple[str, str]  # from, to


class Network(Machines):
    def __enter__(self) -> Network:
        super().__enter__()
        self.cuts: set[Link] = set()
        for name in self.addresses:
            self._inside(name, "link", "set", "eth0", "address", self._hardware(name))
        for name in self.addresses:
            for other in self.addresses:
                if other != name:
                    self._point(name, other, self._hardware(other))
        return self

    def cut(self, links: Iterable[Link]) -> None:
        for sender, receiver in set(links) - self.cuts:
            self._point(sender, receiver, NOBODY)
            self.cuts.add((sender, receiver))

    def mend(self) -> None:
        """Every link as it was."""
        while self.cuts:
            sender, receiver = self.cuts.pop()
            self._point(sender, receiver, self._hardware(receiver))

    def _hardware(self, name: str) -> str:
        return f"02:00:00:00:00:{list(self.addresses).index(name) + 1:02x}"

    def _point(self, sender: str, receiver: str, hardware: str) -> None:
        self._inside(sender, "neigh", "replace", self.addresses[receiver], "lladdr", hardware, "nud", "permanent", "dev", "eth0")
