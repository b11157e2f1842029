"""One core, its neighbours played by the test."""

from __future__ import annotations

import random

from coterie.actors.membership.core import MembershipCore
from coterie.actors.membership.settings import Settings
from coterie.proto.gossip_messages import Alive

ME = ("10.0.0.1", 7946)


def address(name):
    return f"10.0.1.{int(name[1:])}", 7946


def alive(name, incarnation=1, meta=b"", at=None, **more):
    return Alive(incarnation, name, *(at or address(name)), meta, **more)


class Bench:
    """A core called "me", with members m1..mN alive; `now` moves by `run`."""

    def __init__(self, members=0, seed=1, incarnation=1, **settings):
        self.now = 100.0
        self.core = MembershipCore("me", *ME, b"", incarnation, Settings(**settings), self.now, random.Random(seed))
        self.packets, self.stream_pings, self.push_pulls, self.events = [], [], [], []
        for i in range(1, members + 1):
            self.hear(alive(f"m{i}"))
        self.collect()

    def hear(self, *messages, source=("10.9.9.9", 9)):
        self.core.packet(messages, source, self.now)
        self.collect()

    def collect(self):
        effects = self.core.take()
        self.packets += effects.packets
        self.stream_pings += effects.stream_pings
        self.push_pulls += effects.push_pulls
        self.events += effects.events

    def run(self, seconds):
        """Every deadline on the way, to the point."""
        end = self.now + seconds
        while self.core.deadline() <= end:
            self.now = max(self.now, self.core.deadline())
            self.core.tick(self.now)
            self.collect()
        self.now = end

    def forget(self):
        """Only what happens from here on."""
        for seen in (self.packets, self.stream_pings, self.push_pulls, self.events):
            seen.clear()

    def member(self, name):
        return next((member for member in self.core.members() if member.name == name), None)

    def said(self, kind, to=None):
        """Messages of one kind sent so far (to one address), piggybacked ones too."""
        return [m for p in self.packets if to is None or (p.ip, p.port) == to for m in p.messages if isinstance(m, kind)]

    def happened(self, kind):
        return [event for event in self.events if isinstance(event, kind)]
