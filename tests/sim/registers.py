"""Registers and lists on top of the simulated Raft, and clients that write and read them: the application of the `raft` world.

Every write carries a value of its own. Writes are proposals at a node; reads go to any node (`reads`). Some writers have a session: what they get no answer for
they propose again, here or elsewhere, and it must take effect once (the real `Sessions` decide, on each node, through its restarts and snapshots).

Whatever a client asks for, and whatever it is answered, is recorded, and in the end the history must be linearizable: each register's as a register with
compare-and-swap, each list's as an append-list. What was acknowledged must also be in the log of every member, where it was acknowledged.

Which value a key has after the entry at an index is the same on all nodes, or the run has been stopped before: so it is kept once, and a node reads it as of the
index that it has applied.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import count
from typing import Any

from coterie.actors.raft.log import SnapshotMark
from coterie.actors.raft.node import Role
from coterie.actors.raft.refusals import Refusal
from coterie.actors.replication.sessions import Row, Sessions
from coterie.proto.raft_messages import COMMAND, Entry
from tests.histories.checker import check
from tests.histories.history import READ, History
from tests.histories.models import AppendList, Register
from tests.sim.application import Application
from tests.sim.node import SimNode

REGISTERS = ("x", "y")
LISTS = ("l", "m")
SESSIONS = ("s1", "s2", "s3")
LIMIT = 100_000  # steps of the checker for a key


class State:
    """One node's state machine. `index` is applied, `synced` of it is sure to survive a crash."""

    def __init__(self) -> None:
        self.index = self.synced = 0
        self.sessions = Sessions()


class Session:
    """A client that proposes a command until it has its answer, and then the next. asked: (command, its operation in the history), None for nothing."""

    def __init__(self, name: str) -> None:
        self.name, self.number = name, 0
        self.asked: tuple[bytes, int] | None = None


class Registers(Application):
    def __init__(self, world: Any) -> None:
        super().__init__(world)
        self.history = History(count().__next__)
        self.acknowledged: dict[bytes, int] = {}
        self.proposed = 0
        self._executed = 0
        self._numbers: dict[bytes, int] = {}  # command -> its operation in the history
        self._values: dict[str, tuple[list[int], list[Any]]] = {key: ([0], [None]) for key in REGISTERS} | {key: ([], []) for key in LISTS}
        self._swapped: dict[int, bool] = {}
        self._effective: dict[int, int] = {}  # of a command of a session at that index: where it took effect
        self._sessions = {name.encode(): Session(name) for name in SESSIONS}

    # -- the state machine -------------------------------------------------------------------------------------------------------

    def start(self, node: SimNode) -> int:
        if node.state is None:
            node.state = State()
        state = node.state
        index = self.world.kernel.random.randint(state.synced, max(state.synced, min(state.index, node.disk.last_index)))
        if index < state.index:
            state.sessions = state.sessions.at(index)
            state.index = index
        return int(index)

    def sync(self, node: SimNode) -> int:
        node.state.synced = node.state.index
        return int(node.state.index)

    def snapshot(self, node: SimNode) -> tuple[int, Any]:
        return self.sync(node), [(row.index, row.session, row.number) for row in node.state.sessions.rows()]

    def restore(self, node: SimNode, mark: SnapshotMark, content: Any) -> None:
        node.state.index = node.state.synced = mark.index
        node.state.sessions = Sessions([Row(*row) for row in content], exact_from=mark.index)

    def apply(self, node: SimNode, entry: Entry, context: Any) -> None:
        node.state.index = index = entry.index
        data = entry.data or b""
        effective = index  # where what this entry asks for took effect
        if entry.kind == COMMAND and data[:1] != b"-":
            effective = self._decide(node, index, data)
        if index == self._executed + 1:
            self._executed += 1
            if entry.kind == COMMAND and effective == index:
                self._execute(index, data.decode().split()[1:])
                self.history.hint(self._numbers[data], index)
        if context is not None:
            self._answer(node, entry, context, effective)

    def _decide(self, node: SimNode, index: int, data: bytes) -> int:
        """A command of a session: the index at which it took effect, on this node as on all others."""
        session, number = data.split(b" ", 1)[0].decode().split(".")
        row, again = node.state.sessions.decide(index, session, int(number))
        if row is None:
            self.world.kernel.fail(f"{node.id}: {data!r} at {index} is refused, as if its session were unknown or ahead")
        if again and row.index >= index:
            self.world.kernel.fail(f"{node.id}: {data!r} at {index} is remembered before it is applied")
        self.world.kernel.seen["commands of a session again"] += again
        known = self._effective.setdefault(index, row.index)
        if known != row.index:
            self.world.kernel.fail(f"{node.id}: {data!r} at {index} took effect at {row.index}; elsewhere at {known}")
        return int(row.index) if again else index

    def _answer(self, node: SimNode, entry: Entry, context: Any, effective: int) -> None:
        data, number = context
        kernel = self.world.kernel
        if entry.data != data:
            kernel.fail(f"{node.id}: context {data!r} came back with {entry}")
        self.acknowledged[data] = entry.index
        self.acknowledged_at = kernel.now
        kernel.seen["proposals acknowledged"] += 1
        session = self._sessions.get(data[: data.index(b".")]) if data[:1] != b"-" else None
        if session is not None and session.asked != context:
            return  # an earlier try had its answer
        if kernel.chance(0.95):  # else the answer is lost on its way
            self.history.ok(number, self._swapped.get(effective), effective)
            if session is not None:
                session.asked = None

    def _execute(self, index: int, command: list[str]) -> None:
        action, key, *arguments = command
        places, values = self._values[key]
        if action == "cas":
            expected = None if arguments[0] == "None" else int(arguments[0])
            self._swapped[index] = values[-1] == expected
            if values[-1] != expected:
                return
        places.append(index)
        values.append(int(arguments[-1]))

    def read(self, node: SimNode, key: str) -> Any:
        """What the node's state machine has there now."""
        places, values = self._values[key]
        end = bisect_right(places, node.applied)
        return tuple(values[:end]) if key in LISTS else values[end - 1]

    # -- clients -----------------------------------------------------------------------------------------------------------------

    def client(self) -> None:
        """A client turns to a node; to write, more often than not to one that leads."""
        kernel, world = self.world.kernel, self.world
        up = [node for node in world.nodes.values() if node.reachable()]
        if not up:
            return
        if kernel.chance(world.mood.reading):
            node = kernel.random.choice(up)
            key = kernel.random.choice((*REGISTERS, *LISTS))
            node.reads.ask(key, self.history.call("reader", key, READ), lease=world.mood.leases and kernel.chance(0.5))
            node.step()
            return
        leaders = [node for node in up if node.core.role is Role.LEADER]
        node = kernel.random.choice(leaders if leaders and kernel.chance(0.9) else up)
        session = kernel.random.choice(list(self._sessions.values())) if kernel.chance(world.mood.sessions) else None
        contexts = [self._next_of(session)] if session else [self._command("-") for _ in range(kernel.random.randint(1, 4))]
        try:
            node.core.propose([data for data, _ in contexts], contexts, node.now())
        except Refusal:
            for _, number in contexts if session is None else ():
                self.history.failed(number)
            return
        kernel.note(node.id, "propose", contexts)
        node.step()

    def _next_of(self, session: Session) -> tuple[bytes, int]:
        """What it has no answer for, once more, or the next."""
        if session.asked is None:
            session.number += 1
            session.asked = self._command(f"{session.name}.{session.number}")
        else:
            self.world.kernel.seen["commands of a session proposed again"] += 1
        return session.asked

    def _command(self, writer: str) -> tuple[bytes, int]:
        """A command, and the number of its operation."""
        random, history = self.world.kernel.random, self.history
        self.proposed = value = self.proposed + 1
        if random.random() < 0.4:
            key = random.choice(LISTS)
            text, number = f"append {key} {value}", history.call(writer, key, "append", value)
        elif random.random() < 0.6:
            key = random.choice(REGISTERS)
            text, number = f"write {key} {value}", history.call(writer, key, "write", value)
        else:
            key = random.choice(REGISTERS)
            values = self._values[key][1]
            expected = values[-1] if random.random() < 0.7 else random.choice(values)
            text, number = f"cas {key} {expected} {value}", history.call(writer, key, "cas", (expected, value))
        data = f"{writer} {text}".encode()
        self._numbers[data] = number
        return data, number

    # -- the end -----------------------------------------------------------------------------------------------------------------

    def finish(self, members: list[SimNode]) -> None:
        """All is healed and silent."""
        kernel = self.world.kernel
        for node in members:
            log = node.disk.log[: node.core.commit]
            for data, index in self.acknowledged.items():
                if index > len(log) or log[index - 1].data != data:
                    kernel.fail(f"{data!r} was acknowledged at {index}; {node.id} has it not there")
            for key in (*REGISTERS, *LISTS):
                self.history.ok(self.history.call(node.id, key, READ), self.read(node, key))
        operations = self.history.operations()
        for keys, model in ((REGISTERS, Register), (LISTS, AppendList)):
            for key, verdict in check([one for one in operations if one.key in keys], model, LIMIT).items():
                judged = "is not linearizable" if verdict.linearizable is False else f"was not decided in {LIMIT} steps"
                kernel.require(verdict.linearizable is True, f"the history of {key!r} {judged}: {verdict.explanation}")
                kernel.seen["histories linearizable"] += 1
                kernel.seen["operations in histories"] += verdict.operations
