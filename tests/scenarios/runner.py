"""Scenarios as text: steps at the margin, and indented under each what the servers had to say to it.

    servers n1 n2 n3
    bootstrap n1
      n1 leads in term 2
    isolate n1
    pass 4
      n1 follows in term 2: no answer of a quorum within the lease
      n2 leads in term 3

What a step prints: who began or ceased to lead, transfers that failed, configurations in force, commands that were abandoned, reads that may be answered or never
will be, refusals. `show` and `logs` print
states. Time passes in `pass` alone. `leader` stands for whoever leads in the latest term. `SCENARIOS_REWRITE=1` writes what was printed into the files, for a
review of the difference.

| step | |
|---|---|
| `servers A B …` `learners C …` | who there is; with `learners`, and those who are not in the configuration by `strangers D …` |
| `bootstrap A` | A forms the cluster and leads it |
| `settings NAME=VALUE …` | of the servers that come next |
| `isolate A …`, `block A>B …`, `heal` | a silent partition around A …; one direction of one link; all of it is over |
| `allow A>B N` | N more messages from A pass to B, then the direction is blocked |
| `delay B>A …`, `arrive B>A …` | what B answers A stays on its way; all of that comes in |
| `stop A …`, `restart A …`, `wipe A` | the process dies; comes back with its disk; comes back with an empty one |
| `damage A INDEX` | the entries from INDEX on are found damaged when A, which is stopped, comes back |
| `doubts` | who does not vote, since it has lost what it had acknowledged |
| `compact A [INDEX]` | what is applied (up to INDEX) goes from A's log |
| `no-pre-vote A …` | A … know no pre-vote: they hang up on the question, as hashicorp/raft before 1.7 does |
| `freeze A`, `thaw A` | its disk does not answer; answers again |
| `pass SECONDS` | |
| `doze SECONDS` | time passes in which everybody stands still: whoever wakes believes that the leader is gone |
| `campaign A` | A's patience with its leader is over at once |
| `propose A x y …`, `flood A N` | commands; N of them |
| `add-voter A B`, `add-learner A B`, `remove A B` | a change of the configuration, asked of A |
| `transfer A [B]` | |
| `take-over A [B]` | A is to take the leadership from B, or from whom it follows: has it begun to? |
| `read A x y …`, `lease-read A x …` | A is asked, in one burst, from which index on these reads may be answered; by a round, or by its lease where that is enough |
| `rounds A` | how many rounds of reads A began |
| `vote A B TERM [transfer]` | B, with a log as long as A's, asks A for its vote |
| `pre-vote A B TERM` | |
| `snapshots A` | how many A sent, and how many failed |
| `show`, `logs` | roles and indices; every entry as index.term and its kind or command |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from coterie.actors.raft.membership import AddNonvoter, AddVoter, RemoveServer
from coterie.actors.raft.node import Role
from coterie.actors.raft.ready import BecameLeader, ConfigurationChanged, DoubtSettled, LostLeadership, TransferFailed
from coterie.actors.raft.refusals import Refusal
from coterie.actors.raft.settings import Settings
from coterie.proto.raft_messages import BARRIER, COMMAND, CONFIGURATION, NONVOTER, NOOP, Entry, PreVoteRequest, VoteRequest
from tests.sim.disk import SimDisk
from tests.unit.raft_cluster import Member, RaftCluster, header

KINDS = {NOOP: "noop", BARRIER: "barrier", CONFIGURATION: "conf"}


@attrs.frozen
class Step:
    line: int
    text: str
    wanted: tuple[str, ...]


def steps(path: Path) -> list[Step]:
    """The steps of a file; lines that begin with # are for people."""
    found: list[Step] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("  "):
            last = found.pop()
            found.append(Step(last.line, last.text, (*last.wanted, line.strip())))
        else:
            found.append(Step(number, line.strip(), ()))
    return found


class Scenario:
    """One run. `do` carries out a step and gives what was said."""

    def __init__(self) -> None:
        self.cluster = RaftCluster()
        self._heard: dict[str, int] = {}
        self._abandoned: dict[str, int] = {}
        self._read_by: dict[str, tuple[int, int]] = {}
        self._said: list[str] = []
        self._chosen: dict[str, Any] = {}

    def do(self, text: str) -> list[str]:
        """Raises ValueError for a step that there is none of."""
        word, *arguments = text.split()
        arguments = [self._leader() if argument == "leader" else argument for argument in arguments]
        action: Callable[..., object] | None = getattr(self, "_" + word.replace("-", "_"), None)
        if action is None:
            raise ValueError(f"no step is called {word!r}")
        self._said = []
        try:
            action(*arguments)
        except Refusal as refusal:
            self._said.append(f"refused: {type(refusal).__name__}: {refusal}")
        for member in self.cluster.members.values():
            self._listen(member)
        return self._said

    def _leader(self) -> str:
        leading = [member for member in self.cluster.alive() if member.core.role is Role.LEADER]
        return max(leading, key=lambda member: member.core.term).name

    def _listen(self, member: Member) -> None:
        heard = self._heard.get(member.name, 0)
        for event in member.events[heard:]:
            match event:
                case BecameLeader():
                    self._said.append(f"{member.name} leads in term {event.term}")
                case LostLeadership():
                    self._said.append(f"{member.name} leads no more in term {event.term}: {event.reason}")
                case DoubtSettled():
                    self._said.append(f"{member.name} has caught up with what it lost, and votes")
                case TransferFailed():
                    self._said.append(f"{member.name} did not hand over to {event.target}: {event.reason}")
                case ConfigurationChanged():
                    names = " ".join(f"({s.id})" if s.suffrage == NONVOTER else s.id for s in event.configuration.servers)
                    self._said.append(f"{member.name} has configuration {event.index}: {names}")
        self._heard[member.name] = len(member.events)
        lost = member.abandoned[self._abandoned.get(member.name, 0) :]
        if lost:
            self._said.append(f"{member.name} does not know what became of {' '.join(map(str, lost))}")
        self._abandoned[member.name] = len(member.abandoned)
        self._listen_to_reads(member)

    def _listen_to_reads(self, member: Member) -> None:
        confirmed, unconfirmed = self._read_by.get(member.name, (0, 0))
        for read in member.confirmed[confirmed:]:
            self._said.append(
                f"{member.name} answers {read.context} from index {read.index} by {'its lease' if read.by_lease else 'a round'}"
            )
        if member.unconfirmed[unconfirmed:]:
            self._said.append(f"{member.name} cannot answer {' '.join(map(str, member.unconfirmed[unconfirmed:]))}")
        self._read_by[member.name] = (len(member.confirmed), len(member.unconfirmed))

    # -- the table ------------------------------------------------------------------------------------------------------------

    def _settings(self, *words: str) -> None:
        self._chosen = {name: float(value) if "." in value else int(value) for name, _, value in (word.partition("=") for word in words)}

    def _servers(self, *words: str) -> None:
        groups: dict[str, list[str]] = {"servers": [], "learners": [], "strangers": []}
        group = groups["servers"]
        for word in words:
            if word in groups:
                group = groups[word]
            else:
                group.append(word)
        self.cluster = RaftCluster(*groups["servers"], nonvoters=tuple(groups["learners"]), settings=Settings(**self._chosen))
        for name in groups["strangers"]:
            self.cluster.members[name] = Member(name, self.cluster.settings, self.cluster.now)

    def _bootstrap(self, name: str) -> None:
        self.cluster.bootstrap(name)

    def _isolate(self, *names: str) -> None:
        self.cluster.cut_off = set(names)
        self.cluster.settle()

    def _block(self, *links: str) -> None:
        for link in links:
            self._allow(link, "0")

    def _allow(self, link: str, number: str) -> None:
        sender, _, receiver = link.partition(">")
        self.cluster.allowed[sender, receiver] = int(number)

    def _delay(self, *links: str) -> None:
        for link in links:
            sender, _, receiver = link.partition(">")
            self.cluster.delayed[sender, receiver] = []

    def _arrive(self, *links: str) -> None:
        for link in links:
            sender, _, receiver = link.partition(">")
            self.cluster.arrive(sender, receiver)

    def _heal(self) -> None:
        torn = [way for a, b in self.cluster.allowed for way in ((a, b), (b, a))]
        self.cluster.cut_off, self.cluster.allowed = set(), {}
        self.cluster.reconnect(*torn)

    def _stop(self, *names: str) -> None:
        for name in names:
            self.cluster.stop(name)

    def _restart(self, *names: str) -> None:
        for name in names:
            self._forget(name)
            self.cluster.restart(name)

    def _wipe(self, name: str) -> None:
        self.cluster[name].disk = SimDisk()
        self._restart(name)

    def _damage(self, name: str, index: str) -> None:
        self.cluster[name].disk.damage(int(index))

    def _doubts(self) -> None:
        for member in self.cluster.alive():
            doubt = member.core.doubt
            if doubt is not None:
                self._said.append(f"{member.name} does not vote: it had entries up to {doubt.last}, and was in term {doubt.term}")

    def _forget(self, name: str) -> None:
        self._heard[name] = self._abandoned[name] = 0
        self._read_by[name] = (0, 0)

    def _no_pre_vote(self, *names: str) -> None:
        self.cluster.without_pre_vote |= set(names)

    def _freeze(self, name: str) -> None:
        self.cluster[name].stuck = True

    def _thaw(self, name: str) -> None:
        self.cluster[name].stuck = False
        self.cluster.reconnect(*((other, name) for other in self.cluster.members))

    def _compact(self, name: str, index: str = "") -> None:
        member = self.cluster[name]
        member.disk.compact(min(member.core.applied, int(index) if index else member.core.applied))

    def _pass(self, seconds: str) -> None:
        self.cluster.pass_time(float(seconds))

    def _doze(self, seconds: str) -> None:
        self.cluster.now += float(seconds)

    def _campaign(self, name: str) -> None:
        core = self.cluster[name].core
        core._node.election_deadline = self.cluster.now
        core.tick(self.cluster.now)
        self.cluster.settle()

    # -- what is asked of a server --------------------------------------------------------------------------------------------

    def _propose(self, name: str, *commands: str) -> None:
        self.cluster[name].core.propose([command.encode() for command in commands], list(commands), self.cluster.now)
        self.cluster.settle()

    def _flood(self, name: str, number: str) -> None:
        self._propose(name, *(f"f{n}" for n in range(int(number))))

    def _add_voter(self, name: str, who: str) -> None:
        self._change(name, AddVoter(who, f"{who}:9520"))

    def _add_learner(self, name: str, who: str) -> None:
        self._change(name, AddNonvoter(who, f"{who}:9520"))

    def _remove(self, name: str, who: str) -> None:
        self._change(name, RemoveServer(who))

    def _change(self, name: str, change: AddVoter | AddNonvoter | RemoveServer) -> None:
        self.cluster[name].core.change(change, None, self.cluster.now)
        self.cluster.settle()

    def _transfer(self, name: str, target: str | None = None) -> None:
        self.cluster[name].core.transfer(target, self.cluster.now)
        self.cluster.settle()

    def _take_over(self, name: str, leader: str = "") -> None:
        core = self.cluster[name].core
        begun = core.take_over(leader or (core.leader.id if core.leader is not None else ""), self.cluster.now)
        self._said.append("begun" if begun else "not begun")
        self.cluster.settle()

    def _read(self, name: str, *reads: str) -> None:
        for read in reads:
            self.cluster[name].core.read_index(read, self.cluster.now)
        self.cluster.settle()

    def _lease_read(self, name: str, *reads: str) -> None:
        for read in reads:
            self.cluster[name].core.read_index(read, self.cluster.now, lease=True)
        self.cluster.settle()

    def _rounds(self, name: str) -> None:
        self._said.append(f"rounds {self.cluster[name].core.counters().get('read_rounds', 0)}")

    def _vote(self, name: str, candidate: str, term: str, *flags: str) -> None:
        log = self.cluster[name].disk
        request = VoteRequest(header(candidate), int(term), log.last_index, log.last_term, "transfer" in flags)
        self._said.append("granted" if self.cluster[name].answer(request, self.cluster.now).granted else "refused")
        self.cluster.settle()

    def _pre_vote(self, name: str, candidate: str, term: str) -> None:
        log = self.cluster[name].disk
        request = PreVoteRequest(header(candidate), int(term), log.last_index, log.last_term)
        self._said.append("granted" if self.cluster[name].answer(request, self.cluster.now).granted else "refused")
        self.cluster.settle()

    # -- what they are --------------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        for member in self.cluster.members.values():
            core = member.core
            what = "stopped" if member.name in self.cluster.gone else core.role.value
            follows = f" of {core.leader.id}" if core.role is Role.FOLLOWER and core.leader is not None and what != "stopped" else ""
            self._said.append(f"{member.name} {what}{follows}, term {core.term}, commit {core.commit}, last {core.last_index}")

    def _snapshots(self, name: str) -> None:
        counters = self.cluster[name].core.counters()
        self._said.append(f"sent {counters.get('snapshots_sent', 0)}, failed {counters.get('snapshots_failed', 0)}")

    def _logs(self) -> None:
        for member in self.cluster.members.values():
            disk = member.disk
            compacted = [f"[..{disk.start}]"] if disk.start else []
            self._said.append(f"{member.name}: " + (" ".join([*compacted, *map(_entry, disk.log[disk.start :])]) or "nothing"))


def _entry(entry: Entry) -> str:
    what = (entry.data or b"").decode() if entry.kind == COMMAND else KINDS[entry.kind]
    return f"{entry.index}.{entry.term}:{what}"


def play(path: Path) -> list[tuple[Step, list[str]]]:
    """Each step, and what was said to it."""
    scenario = Scenario()
    return [(step, scenario.do(step.text)) for step in steps(path)]


def rewritten(path: Path, played: list[tuple[Step, list[str]]]) -> str:
    """The file, with what was said in place of what was wanted."""
    said = {step.line: answer for step, answer in played}
    lines: list[str] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("  ") and line.strip():
            continue
        lines.append(line)
        lines += [f"  {answer}" for answer in said.get(number, ())]
    return "\n".join(lines) + "\n"
