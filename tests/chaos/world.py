"""A cluster of real processes, each on a machine of its own where network namespaces can be made, and what a fault does to it."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from tests.chaos.faults import Cut, Fault, HandOver, Kill, Mend, Pause, Restart, Resume, Retire, Stand, Step
from tests.chaos.network import Network
from tests.deploy.networks import reason_not_to
from tests.product.failover import first_write
from tests.product.nodes import CommandFailed, Node, NodeFailed, ProcessCluster
from tests.product.wait import wait_for

PROGRESS: Final = 10.0  # seconds in which every node must take writes again after the heal
STARTING: Final = 60.0  # seconds that a process may take to start on a busy machine


class World(ProcessCluster):
    """network: None where there are no namespaces, and then no links to cut. pause: what a client waits between two operations, seconds."""

    def __init__(self, directory: Path, count: int, network: Network | None, pause: float, **config: Any) -> None:
        super().__init__(directory, count, **config)
        self.network, self.pause = network, pause
        self.pool = ThreadPoolExecutor(count)
        for node in self.nodes:
            node.program = "tests.chaos.node"
            if network is not None:
                address = network.addresses[node.name]
                node.machine = network.at(node.name)
                node.config |= {"raft_addr": f"{address}:9520", "mem_bind": f"{address}:7946", "mgmt_addr": f"{address}:17946"}
        seed = self.nodes[0].config["mem_bind"]
        for node in self.nodes:
            # Each knows several, so that whoever starts apart from one finds another.
            node.config["seeds_csv"] = seed if count == 1 else ",".join(str(n.config["mem_bind"]) for n in self.nodes if n is not node)
        self.standing: set[Node] = set()
        self.down: set[Node] = set()

    def history_path(self, node: Node) -> Path:
        return self.directory / f"{node.name}.history"

    # -- all of them at once ----------------------------------------------------------------------------------------------------------

    def each(self, do: Callable[[Node], Any], nodes: list[Node]) -> list[Any]:
        return list(self.pool.map(do, nodes))

    def begin_clients(self, nodes: list[Node]) -> None:
        self.each(lambda node: node.ask("clients-begin", path=str(self.history_path(node)), pause=self.pause), nodes)

    def end_clients(self) -> None:
        for wrong in self.each(lambda node: node.ask("clients-end", wait=90), self.nodes):
            assert not wrong, f"{len(wrong)} answers that have no name, among them: {wrong[:3]}"

    def in_order(self, shuffled: list[Node]) -> list[Node]:
        """The leader, the one of the latest term if several say so, and then the others."""
        found: list[tuple[int, Node]] = []

        def look() -> bool:
            found[:] = [(status["term"], node) for node, status in self.statuses(self.nodes) if status["role"] == "leader"]
            return bool(found)

        wait_for(look, PROGRESS, "somebody leads")
        leader = max(found, key=lambda pair: pair[0])[1]
        return [leader, *(node for node in shuffled if node is not leader)]

    def statuses(self, nodes: list[Node]) -> Iterator[tuple[Node, dict[str, Any]]]:
        for node in nodes:
            with contextlib.suppress(CommandFailed, NodeFailed):
                yield node, node.ask("status", local=True, wait=5)

    # -- faults -----------------------------------------------------------------------------------------------------------------------

    def perform(self, fault: Fault, order: list[Node]) -> int:
        """-> when the last of its blows fell, in nanoseconds of CLOCK_MONOTONIC: what is acknowledged from then on, is so in spite of it."""
        fell = time.monotonic_ns()
        for step in fault.steps:
            self._perform(step, order)
            if isinstance(step, Kill | Stand | Cut | Retire | HandOver):
                fell = time.monotonic_ns()
        return fell

    def _perform(self, step: Step, order: list[Node]) -> None:
        match step:
            case Kill(places):
                self._kill([order[place] for place in places])
            case Retire(places):
                for node in (order[place] for place in places):
                    node.stop(30)
                    self.down.add(node)
            case Stand(places):
                for node in (order[place] for place in places):
                    node.signal(signal.SIGSTOP)
                    self.standing.add(node)
            case Resume():
                self._resume()
            case Restart():
                self._restart()
            case Cut(links):
                assert self.network is not None
                self.network.cut((order[a].name, order[b].name) for a, b in links)
            case Mend():
                assert self.network is not None
                self.network.mend()
            case HandOver():
                with contextlib.suppress(CommandFailed):  # it may lead no more, or find nobody that is near enough
                    order[0].ask("transfer")
            case Pause(seconds):
                time.sleep(seconds)  # what is wrong stays so for so long: it is the scenario

    def _kill(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.signal(signal.SIGKILL)
        for node in nodes:
            node.kill()
            self.down.add(node)
            self.standing.discard(node)

    def _resume(self) -> None:
        while self.standing:
            self.standing.pop().signal(signal.SIGCONT)

    def _restart(self) -> None:
        """Started, and with its clients at work; whether it finds the others is not waited for."""
        down = sorted(self.down, key=lambda node: node.name)
        self.each(lambda node: node.start(STARTING), down)
        self.begin_clients(down)
        self.down.clear()

    def heal(self, network_first: bool) -> int:
        """-> when it was over, as in `perform`."""
        self._resume()
        if network_first and self.network is not None:
            self.network.mend()
        self._restart()
        if self.network is not None:
            self.network.mend()
        return time.monotonic_ns()

    # -- what must hold after the heal -----------------------------------------------------------------------------------------------

    def wait_progress(self) -> float:
        """Every process runs, and every node has a write acknowledged. -> seconds until the last had."""
        for node in self.nodes:
            assert node.running, f"{node.name} has ended on its own"
        return max(self.each(lambda node: first_write(node, PROGRESS), self.nodes))

    def wait_same_registers(self, deadline: float) -> int:
        """-> how many commands made them."""
        found: list[Any] = []

        def same() -> bool:
            found[:] = [node.ask("registers") for node in self.nodes]
            return all(one == found[0] for one in found)

        try:
            wait_for(same, deadline, "the registers of all nodes are the same", every=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {found}") from None
        return int(found[0][0])

    def snapshots_installed(self) -> int:
        return sum(int(node.ask("raft").get("snapshots_installed", 0)) for node in self.nodes)

    def close(self) -> None:
        self._resume()
        for node in self.nodes:
            node.kill()
        self.pool.shutdown()


@contextlib.contextmanager
def world(directory: Path, count: int, pause: float, **config: Any) -> Iterator[World]:
    """Formed and under load. With root its nodes are in namespaces of their own."""
    with contextlib.ExitStack() as stack:
        names = [f"n{number}" for number in range(1, count + 1)]
        network = None if reason_not_to() else stack.enter_context(Network(*names))
        made = World(directory, count, network, pause, **config)
        stack.callback(made.close)
        made.start()
        made.begin_clients(made.nodes)
        yield made
