"""Many membership cores in one thread, on a virtual clock and a network that loses, delays, doubles, reorders and cuts.

One seed gives one run, to the letter: the faults, the network and each core's dice come from it. A run has a stormy half (crashes, restarts with
incarnation 1 and at times at another address, leaves, new metadata, one-way and full partitions, loss) and a calm half, in which the
cluster must come to one view. What must hold at every step is checked at every step:

- a node that does not leave is alive in its own eyes, and its incarnation never falls;
- no observer's incarnation of a member ever falls;
- a suspicion runs out no sooner than its distinct accusers allow (an oracle counts them beside the core);
- a packet keeps to its budget and to 255 parts.

After the calm half: everybody up agrees on everybody (state, incarnation, address, metadata), nobody up is taken for dead, and who left
is nowhere taken for failed if anybody heard the leave.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from functools import partial

from coterie.actors.membership.core import MembershipCore
from coterie.actors.membership.effects import MemberFailed, MemberSuspected, Packet, PushPullWith, StreamPing
from coterie.actors.membership.settings import Settings
from coterie.proto.gossip_codec import encode_message
from coterie.proto.gossip_messages import ALIVE, DEAD, LEFT, SUSPECT, Ping, Suspect

STORM = 60.0
CALM = 120.0
STATE = {ALIVE: "alive", SUSPECT: "suspect", DEAD: "dead", LEFT: "left"}

Address = tuple[str, int]


class Node:
    """One process: `life` counts its starts, so that what was meant for an earlier one is dropped."""

    def __init__(self, name: str, address: Address) -> None:
        self.name, self.address = name, address
        self.core: MembershipCore | None = None
        self.life = 0
        self.leaving = False
        self.meta = b""
        self.seen: dict[str, int] = {}
        self.present = 1
        self.accusers: dict[str, tuple[float, tuple[int, int], set[str]]] = {}


class MembershipWorld:
    def __init__(self, seed: int, nodes: int, settings: Settings | None = None) -> None:
        self.dice = random.Random(seed)
        self.seed = seed
        self.settings = settings or Settings()
        self.now = 0.0
        self.nodes = {f"n{i}": Node(f"n{i}", (f"10.0.{i // 250}.{i % 250 + 1}", 7946)) for i in range(nodes)}
        self.by_address = {node.address: node for node in self.nodes.values()}
        self.cut: set[tuple[str, str]] = set()
        self.loss = 0.0
        self.slow = 0.0
        self.failures: list[tuple[float, str, str]] = []
        self.trace: deque[str] = deque(maxlen=400)
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0
        self._moves = 0

    # ---- time --------------------------------------------------------------------------------------------------------------------

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._queue, (when, self._serial, what))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, what = heapq.heappop(self._queue)
            what()
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: float) -> float:
        """Seconds until the condition held, looked at every 100 ms; fails the run after `limit`."""
        start = self.now
        while not condition():
            self.check(self.now - start < limit, f"not within {limit} s")
            self.run(0.1)
        return self.now - start

    def log(self, text: str) -> None:
        self.trace.append(f"{self.now:9.3f} {text}")

    def check(self, holds: bool, claim: str) -> None:
        if not holds:
            raise AssertionError(f"seed {self.seed}, {len(self.nodes)} nodes, t={self.now:.3f}: {claim}\n" + "\n".join(self.trace))

    # ---- nodes -------------------------------------------------------------------------------------------------------------------

    def up(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.core is not None and not node.leaving]

    def start(self, node: Node, move: bool = False) -> None:
        if move:
            self._moves += 1
            del self.by_address[node.address]
            node.address = (f"10.1.{self._moves // 250}.{self._moves % 250 + 1}", 7946)
            self.by_address[node.address] = node
        node.life += 1
        node.leaving = False
        node.seen, node.accusers = {}, {}
        dice = random.Random(self.dice.random())
        node.core = MembershipCore(node.name, *node.address, node.meta, 1, self.settings, self.now, dice)
        self.log(f"{node.name} starts, life {node.life}, at {node.address[0]}")
        self._join(node, node.life)
        self._settle(node)

    def _join(self, node: Node, life: int) -> None:
        """What the shell does: dial a seed that is not in the view, for the life of the node."""
        if node.core is None or node.life != life or node.leaving:
            return
        here = {(member.ip, member.port) for member in node.core.members() if member.state in (ALIVE, SUSPECT)}
        absent = [seed for seed in self.nodes.values() if seed.address not in here]
        if absent:
            self._push_pull(node, PushPullWith(*self.dice.choice(absent).address, True))
        self.at(self.now + (1.0 if len(here) < 2 else 10.0), lambda: self._join(node, life))

    def crash(self, node: Node) -> None:
        self.log(f"{node.name} crashes")
        node.core = None
        node.life += 1

    def leave(self, node: Node) -> None:
        assert node.core is not None
        self.log(f"{node.name} leaves")
        node.leaving = True
        node.core.leave(self.now)
        life = node.life
        self._settle(node)

        def go() -> None:
            if node.core is not None and node.life == life:
                self.crash(node)

        self.at(self.now + 3.0, go)

    def set_meta(self, node: Node, meta: bytes) -> None:
        assert node.core is not None
        node.meta = meta
        node.core.update_meta(meta)
        self._settle(node)

    # ---- what a core wants done ----------------------------------------------------------------------------------------------------

    def _settle(self, node: Node) -> None:
        core = node.core
        assert core is not None
        effects = core.take()
        sizes, node.present = node.present, sum(member.state in (ALIVE, SUSPECT) for member in core.members())
        for event in effects.events:
            self.log(f"{node.name}: {event}")
            if isinstance(event, MemberSuspected):
                # Its own failed probe is a confirmation that no packet brings.
                node.accusers[event.member.name] = (self.now, (sizes, node.present), {event.accuser, node.name})
            elif isinstance(event, MemberFailed):
                self.failures.append((self.now, node.name, event.member.name))
                if event.accuser == node.name:
                    self._patient(node, event.member.name)
        for packet in effects.packets:
            self._packet(node, packet)
        for ping in effects.stream_pings:
            self._stream_ping(node, ping)
        for exchange in effects.push_pulls:
            self._push_pull(node, exchange)
        self._invariants(node, core)
        life, due = node.life, core.deadline()

        def wake() -> None:
            if node.core is core and node.life == life and core.deadline() <= self.now:
                core.tick(self.now)
                self._settle(node)

        self.at(max(due, self.now), wake) if due < math.inf else None

    def _invariants(self, node: Node, core: MembershipCore) -> None:
        for member in core.members():
            before = node.seen.get(member.name, 0)
            self.check(
                member.incarnation >= before, f"{node.name} lets {member.name} fall from incarnation {before} to {member.incarnation}"
            )
            node.seen[member.name] = member.incarnation
            if member.name == node.name:
                self.check(
                    (member.state == LEFT) == node.leaving and member.state in (ALIVE, LEFT), f"{node.name} marks itself {member.state}"
                )

    def _patient(self, node: Node, name: str) -> None:
        """The oracle of suspicion: Lifeguard's formula over the accusers that this node has heard."""
        since, sizes, accusers = node.accusers[name]
        allowed = min(self._allowed(size, len(accusers) - 1) for size in sizes)
        took = self.now - since
        self.check(
            took >= allowed - 1e-6, f"{node.name} gave up {name} after {took:.3f} s; {sorted(accusers)} allow it after {allowed:.3f}"
        )

    def _allowed(self, size: int, confirmations: int) -> float:
        least, most = self.settings.suspicion_bounds(size)
        wanted = self.settings.confirmations_wanted(size)
        if wanted == 0:
            return least
        heard = min(confirmations, wanted)
        return max(least, most - (most - least) * math.log(heard + 1) / math.log(wanted + 1) - 0.001)

    # ---- the network -------------------------------------------------------------------------------------------------------------

    def _delay(self) -> float:
        return self.dice.uniform(0.0002, 0.002) + (self.dice.expovariate(1 / self.slow) if self.slow else 0.0)

    def _passes(self, source: str, target: str) -> bool:
        return (source, target) not in self.cut

    def _packet(self, node: Node, packet: Packet) -> None:
        size = sum(len(encode_message(message)) + 2 for message in packet.messages) + 2 + 5 * packet.crc
        self.check(size <= self.settings.packet_bytes + 2 and 0 < len(packet.messages) <= 255, f"{node.name} sends {size} bytes")
        target = self.by_address.get((packet.ip, packet.port))
        if target is None or not self._passes(node.name, target.name):
            return
        copies = 1 + (self.loss > 0 and self.dice.random() < self.loss / 2)
        for _ in range(copies):
            if self.dice.random() >= self.loss:
                self.at(self.now + self._delay(), partial(self._deliver, target, target.life, packet, node.address))

    def _deliver(self, target: Node, life: int, packet: Packet, source: Address) -> None:
        if target.core is None or target.life != life:
            return
        for message in packet.messages:
            if isinstance(message, Suspect) and message.node in target.accusers:
                target.accusers[message.node][2].add(message.accuser)
            if isinstance(message, Ping):
                self.check(message.node == target.name or target.life > 1 or message.node not in self.nodes, "a ping went astray")
        target.core.packet(packet.messages, source, self.now)
        self._settle(target)

    def _connected(self, node: Node, address: Address) -> Node | None:
        """A stream needs both directions; loss costs it time, not data."""
        target = self.by_address.get(address)
        if target is None or target.core is None or not self._passes(node.name, target.name) or not self._passes(target.name, node.name):
            return None
        return target

    def _stream_ping(self, node: Node, ping: StreamPing) -> None:
        target = self._connected(node, (ping.ip, ping.port))
        answered = target is not None and target.name == ping.ping.node
        life, core = node.life, node.core

        def result() -> None:
            if node.core is core and node.life == life and core is not None:
                core.stream_pinged(ping.ping.seq_no, answered)
                self._settle(node)

        self.at(self.now + (self._delay() * 4 if answered else ping.timeout), result)

    def _push_pull(self, node: Node, exchange: PushPullWith) -> None:
        """As Go nodes do it: the state leaves now, the answer before the merge, and the dialler merges last."""
        target, core = self._connected(node, (exchange.ip, exchange.port)), node.core
        if target is None or core is None or target is node:
            return
        states, life, target_life = core.push_pull_state(), node.life, target.life

        def arrive() -> None:
            if target.core is None or target.life != target_life:
                return
            answer = target.core.push_pull_state()
            target.core.merge(states, exchange.join, self.now)
            for state in states:
                if state.name in target.accusers:
                    target.accusers[state.name][2].add(target.name)
            self._settle(target)

            def back() -> None:
                if node.core is core and node.life == life:
                    core.merge(answer, exchange.join, self.now, (exchange.ip, exchange.port))
                    for state in answer:
                        if state.name in node.accusers:
                            node.accusers[state.name][2].add(node.name)
                    self._settle(node)

            self.at(self.now + self._delay() * 2, back)

        self.at(self.now + self._delay() * 2, arrive)

    # ---- faults ------------------------------------------------------------------------------------------------------------------

    def partition(self, group: list[Node], one_way: bool) -> None:
        inside = {node.name for node in group}
        self.log(f"{'one-way ' if one_way else ''}partition around {sorted(inside)}")
        for a in inside:
            for b in self.nodes.keys() - inside:
                self.cut.add((a, b))
                if not one_way:
                    self.cut.add((b, a))

    def heal(self) -> None:
        self.log("heals")
        self.cut.clear()
        self.loss = self.slow = 0.0

    def storm(self, seconds: float = STORM) -> None:
        end = self.now + seconds
        while self.now < end:
            self._fault()
            self.run(self.dice.uniform(0.2, 6.0))

    def _fault(self) -> None:
        dice = self.dice
        up, down = self.up(), [node for node in self.nodes.values() if node.core is None]
        kind = dice.choice(("crash", "restart", "restart", "bounce", "leave", "meta", "partition", "partition", "heal", "loss", "slow"))
        if kind == "crash" and len(up) > 2:
            self.crash(dice.choice(up))
        elif kind == "restart" and down:
            self.start(dice.choice(down), move=dice.random() < 0.3)
        elif kind == "bounce" and len(up) > 1:
            for node in dice.sample(up, dice.randint(1, len(up) - 1)):
                self.crash(node)
                self.start(node)
        elif kind == "leave" and len(up) > 2 and dice.random() < 0.5:
            self.leave(dice.choice(up))
        elif kind == "meta" and up:
            self.set_meta(dice.choice(up), dice.randbytes(dice.choice((0, 8, 200, 512))))
        elif kind == "partition" and len(up) > 1:
            self.partition(dice.sample(list(self.nodes.values()), dice.randint(1, len(self.nodes) - 1)), one_way=dice.random() < 0.5)
        elif kind == "heal":
            self.heal()
        elif kind == "loss":
            self.loss = dice.choice((0.02, 0.1, 0.3))
        elif kind == "slow":
            self.slow = dice.choice((0.01, 0.1, 0.4))

    # ---- the end -----------------------------------------------------------------------------------------------------------------

    def disagreement(self) -> str:
        """ "" when everybody up has the one right view; else the first thing that is wrong."""
        up = self.up()
        truth = {node.name: node for node in up}
        views = {node.name: {m.name: m for m in node.core.members()} for node in up if node.core is not None}
        heard_left: dict[str, int] = {}
        for member in (member for view in views.values() for member in view.values() if member.state == LEFT):
            heard_left[member.name] = max(member.incarnation, heard_left.get(member.name, 0))
        for observer, view in views.items():
            for name, node in truth.items():
                member = view.get(name)
                own = views[name][name]
                if member is None:
                    return f"{observer} does not know {name}"
                if member[:6] != own[:6]:
                    return f"{observer} has {member}, which itself says {own}"
                if member.meta != node.meta or (member.ip, member.port) != node.address:
                    return f"{observer} has {member}; its metadata is {node.meta!r}, its address {node.address}"
            for name in view.keys() - truth.keys():
                if view[name].state in (ALIVE, SUSPECT):
                    return f"{observer} takes {name} for {STATE[view[name].state]}"
                # A life that never learnt how high its name had been leaves below the death of an earlier one: that is not heard.
                if view[name].state == DEAD and view[name].incarnation <= heard_left.get(name, 0):
                    return f"{observer} takes {name} for failed, others know that it left"
        return ""

    def agree(self, within: float = CALM) -> float:
        """Seconds until there is one right view; fails the run when it takes longer."""
        start = self.now
        while wrong := self.disagreement():
            self.check(self.now - start < within, f"no agreement after {within} s of calm: {wrong}")
            self.run(0.5)
        return self.now - start


def run_membership(seed: int, nodes: int) -> None:
    """One run: start, storm, calm. Raises AssertionError with the seed and the last steps."""
    world = MembershipWorld(seed, nodes)
    for node in world.nodes.values():
        world.start(node)
    world.run(world.dice.uniform(0.0, 10.0))
    world.storm()
    world.heal()
    for node in world.nodes.values():
        if node.core is None and not node.leaving and world.dice.random() < 0.5:
            world.start(node, move=world.dice.random() < 0.3)
    world.run(4.0)
    world.agree()
    # What was agreed stays: nobody is accused in good weather.
    failed = len(world.failures)
    world.run(20.0)
    world.check(not world.disagreement(), world.disagreement())
    world.check(len(world.failures) == failed, "somebody was declared dead in good weather")
