"""Rounds of faults under load, with a look at everything after every few of them."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from tests.chaos.faults import Deck, Fault
from tests.chaos.histories import check_lists, read_operations
from tests.chaos.registers import check_registers
from tests.chaos.world import World, world
from tests.product.checks import check_same

LOOKS: Final = 10  # rounds between two looks
NEVER: Final = (
    "committed_entry_contradicted",
    "second_leader_of_term",
    "mismatch_below_match",
)  # counters of the Raft room that show a broken promise

Tell = Callable[[str], object]


@attrs.define
class Figures:
    """taken_over: by fault, seconds from its last blow to the next acknowledged write; healed: seconds from each heal to the write that every node has had."""

    taken_over: dict[str, list[float]] = attrs.field(factory=lambda: defaultdict(list))
    healed: list[float] = attrs.field(factory=list)
    outcomes: Counter[str] = attrs.field(factory=Counter)
    commands: Counter[str] = attrs.field(factory=Counter)
    snapshots: int = 0

    def lines(self) -> list[str]:
        rows = [f"  {name:<44} {spread(times)}" for name, times in sorted(self.taken_over.items())]
        return [
            f"  appends: {sum(self.outcomes.values())}: {dict(sorted(self.outcomes.items()))}",
            f"  registers: {dict(self.commands)}; snapshots installed: {self.snapshots}",
            f"  from the heal until every node has had a write acknowledged: {spread(self.healed)}",
            "  from the last blow to the next acknowledged write, where a quorum was left:",
            *rows,
        ]


def spread(times: list[float]) -> str:
    if not times:
        return "none"
    return f"median {statistics.median(times):.2f} s, worst {max(times):.2f} s, of {len(times)}"


class Campaign:
    def __init__(self, world_: World, rng: random.Random, tell: Tell) -> None:
        self.world, self.random, self.tell = world_, rng, tell
        self.deck = Deck(rng, len(world_.nodes), world_.network is not None)
        self.figures = Figures()
        self.looked = 0
        self.blows: list[tuple[Fault, int, int]] = []  # since the last look: fault, its last blow, the heal

    def run(self, rounds: int) -> Figures:
        for number in range(1, rounds + 1):
            self.round(f"{number} of {rounds}")
            if number % LOOKS == 0 or number == rounds:
                self.look()
                if number < rounds:
                    self.world.begin_clients(self.world.nodes)
        return self.figures

    def round(self, name: str) -> None:
        fault = self.deck.draw()
        shuffled = self.random.sample(self.world.nodes, len(self.world.nodes))
        network_first = self.random.random() < 0.5
        order = self.world.in_order(shuffled)
        fell = self.world.perform(fault, order)
        healing = self.world.heal(network_first)
        took = self.world.wait_progress()
        self.figures.healed.append(took)
        self.blows.append((fault, fell, healing))
        where = ", ".join(node.name for node in order)
        self.tell(f"round {name}: {fault.name} ({where}); every node writes {took:.2f} s after the heal")

    def look(self) -> None:
        """The clients rest; all nodes must have had the same, and the histories must be possible."""
        world_ = self.world
        world_.end_clients()
        world_.wait_whole(60)
        world_.wait_settled(60)
        for node in world_.nodes:
            counters = node.ask("raft")
            broken = {name: counters[name] for name in NEVER if counters.get(name)}
            assert not broken, f"{node.name}: {broken}"
            said = (node.directory / f"{node.name}.stderr").read_text()
            assert "Traceback" not in said, f"{node.name}: {said[said.index('Traceback') :][:3000]}"
        operations = read_operations(world_.history_path(node) for node in world_.nodes)
        history = check_same(world_.nodes)
        self.figures.outcomes = check_lists(history, operations)
        self.figures.commands["commands applied"] = world_.wait_same_registers(60)
        checked, undecided = check_registers(list(world_.directory.glob("*.registers")), self.looked)
        self.figures.commands += Counter({"operations checked": checked, "of them undecided": undecided})
        self.looked = time.monotonic_ns()
        self.figures.snapshots += world_.snapshots_installed()
        acknowledged = sorted((operation.began, operation.ended) for operation in operations if operation.outcome == "ok")
        for fault, fell, healing in self.blows:
            if fault.hits_leader and fault.quorum_left:
                first = min((ended for began, ended in acknowledged if began >= fell), default=healing)
                self.figures.taken_over[fault.name].append((first - fell) / 1e9)
        self.blows.clear()
        self.tell(
            f"looked at: {sum(map(len, history.values()))} records, one order on all nodes; {dict(self.figures.outcomes)}; registers: {dict(self.figures.commands)}"
        )


def run(directory: Path, count: int, rounds: int, seed: int, tell: Tell, pause: float = 0.03) -> Figures:
    """`rounds` rounds on `count` nodes. Raises AssertionError with what does not hold."""
    # A short log, so that whoever was away for some seconds gets a snapshot.
    with world(directory, count, pause, trailing_entries=300) as world_:
        if world_.network is None:
            tell("no network namespaces here (they need root and iproute2): nothing is cut, processes alone are killed and stopped")
        return Campaign(world_, random.Random(f"{seed}/{count}"), tell).run(rounds)
