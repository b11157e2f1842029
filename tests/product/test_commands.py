"""Replicated commands on real nodes: who hears what, and what happens to them when leaders die, handlers raise and nodes come late."""

from __future__ import annotations

import random
import threading

import pytest
from pykka import ActorDeadError

from coterie import Applied, Apply, Config, CoterieError, HandlerActor, HandlerFailed, InvalidRequest, SessionExpired, Status
from coterie.actors.replication.room import Replication
from coterie.testing import ANY, LocalCluster, LocalNode


class Ledger(HandlerActor):
    """Keeps what it applied, in memory."""

    def __init__(self) -> None:
        self.ledger: list[tuple[int, str, bytes]] = []
        super().__init__()

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes | None:
        self.ledger.append((index, op, data))
        if op == "raise":
            raise ValueError(data.decode())
        if op == "nothing":
            return None
        if op == "wrong":
            return 7  # type: ignore[return-value]
        return b"%d:%s" % (len(self.ledger), data)

    def handle_read(self, op: str, request: bytes) -> bytes:
        return b"x"


def ledger_of(node) -> list[tuple[int, str, bytes]]:
    return list(node._actor._actor_weakref().ledger)


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(handler=Ledger) as running:
        yield running


def same_everywhere(cluster, count: int | None = None) -> list[tuple[int, str, bytes]]:
    """Until every node's ledger is the same and has `count` commands."""

    def settled():
        ledgers = [ledger_of(node) for node in cluster.nodes.values()]
        return ledgers[0] if all(one == ledgers[0] and (count is None or len(one) == count) for one in ledgers) else None

    return cluster.wait_until(settled, what=lambda: f"one ledger of {count}: {[len(ledger_of(n)) for n in cluster.nodes.values()]}")


def test_every_node_proposes_and_hears_its_own_result(cluster) -> None:
    for name in cluster.names:
        applied = cluster[name].apply("add", name.encode())
        assert applied.result == b"%d:%s" % (applied.index, name.encode())
    ledger = same_everywhere(cluster)
    assert [index for index, _, _ in ledger] == list(range(1, len(ledger) + 1))


def test_many_at_once_keep_the_order_of_their_proposer(cluster) -> None:
    futures = {name: [cluster[name].ref.ask(Apply(f"many-{name}", b"%d" % n), block=False) for n in range(300)] for name in cluster.names}
    indexes = {name: [future.get(timeout=30).index for future in waiting] for name, waiting in futures.items()}
    ledger = same_everywhere(cluster)
    for name in cluster.names:
        assert indexes[name] == sorted(indexes[name])
        assert [data for _, op, data in ledger if op == f"many-{name}"] == [b"%d" % n for n in range(300)]


def test_what_a_handler_raises_is_the_outcome_and_no_reason_to_try_again(cluster) -> None:
    before = len(same_everywhere(cluster))
    for name in cluster.names:
        with pytest.raises(HandlerFailed, match=r"handle_apply\('raise'\) raised ValueError: because"):
            cluster[name].apply("raise", b"because")
    assert cluster.apply("nothing").result == b""
    with pytest.raises(HandlerFailed, match="returned int"):
        cluster.apply("wrong")
    same_everywhere(cluster, before + 5)
    assert not any(node.status(local=True).failing for node in cluster.nodes.values())


def test_a_session_is_applied_once_whichever_node_is_asked(cluster) -> None:
    first = cluster["n1"].apply("add", b"once", session="client-1", number=1)
    for name in cluster.names:
        assert cluster[name].apply("add", b"once", session="client-1", number=1) == first
    assert [data for _, _, data in same_everywhere(cluster)].count(b"once") == 1
    with pytest.raises(SessionExpired, match="'never begun'"):
        cluster.apply("add", b"x", session="never begun", number=4)
    with pytest.raises(HandlerFailed) as one:
        cluster.apply("raise", b"kept", session="client-1", number=2)
    with pytest.raises(HandlerFailed) as two:
        cluster["n2"].apply("raise", b"kept", session="client-1", number=2)
    assert str(one.value) == str(two.value)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Apply(""), "op="),
        (Apply("x" * 256), "op="),
        (Apply("a", session="s"), "give both"),
        (Apply("a", number=1), "give both"),
        (Apply("a", session="s", number=0), "number=0"),
        (Apply("a", session="", number=1), "session="),
        (Apply("a", "text"), "data="),  # type: ignore[arg-type]
        (Apply("a", timeout=-1), "timeout="),
    ],
)
def test_what_makes_no_sense_is_refused_by_field(cluster, request_, said) -> None:
    with pytest.raises(InvalidRequest, match=said):
        cluster["n1"].ref.ask(request_)


def test_nobody_publishes_on_the_commands_topic(cluster) -> None:
    with pytest.raises(InvalidRequest, match="reserved"):
        cluster.publish("coterie.commands", b"x")


class NoCommands(HandlerActor):
    pass


def test_a_handler_without_handle_apply_is_said_before_anything_is_proposed() -> None:
    with LocalCluster(1, handler=NoCommands) as alone:
        with pytest.raises(HandlerFailed, match="does not override handle_apply"):
            alone.apply("add")
        assert "coterie.commands" not in {topic.topic for topic in alone["n1"].status(local=True).topics}


def test_the_leader_dies_under_commands_and_each_session_command_is_applied_once() -> None:
    with LocalCluster(handler=Ledger) as cluster:
        asked = cluster.followers[0]
        futures = [asked.ref.ask(Apply("add", b"%d" % n, "writer", n, timeout=20), block=False) for n in range(1, 201)]
        cluster.kill(cluster.leader)
        futures += [asked.ref.ask(Apply("add", b"%d" % n, "writer", n, timeout=20), block=False) for n in range(201, 301)]
        results = [future.get(timeout=30) for future in futures]
        ledger = same_everywhere(cluster)
        assert sorted(int(data) for _, _, data in ledger) == list(range(1, 301))
        by_index = {index: data for index, _, data in ledger}
        assert [by_index[applied.index] for applied in results] == [b"%d" % n for n in range(1, 301)]
        again = cluster.leader.apply("add", b"300", session="writer", number=300)
        assert again == results[-1]


# -- state ------------------------------------------------------------------------------------------------------------------------


class Words(Ledger):
    """With snapshots."""

    def __init__(self) -> None:
        self.restored, self.given = 0, 0
        super().__init__()

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes | None:
        self.given += 1
        return super().handle_apply(index, op, data)

    def handle_snapshot(self):
        for index, op, data in self.ledger:
            yield f"{index} {op} ".encode() + data

    def handle_restore(self, chunks) -> None:
        parts = [chunk.split(b" ", 2) for chunk in chunks]
        self.ledger = [(int(index), op.decode(), data) for index, op, data in parts]
        self.restored += 1


def handler_of(node) -> Words:
    return node._actor._actor_weakref()


def many(node, count: int, start: int = 0) -> None:
    futures = [node.ref.ask(Apply("add", b"%d" % n), block=False) for n in range(start, start + count)]
    for future in futures:
        future.get(timeout=30)


def test_a_node_that_starts_again_is_restored_from_its_snapshot_and_applies_the_rest(tmp_path) -> None:
    with LocalCluster(handler=Words, directory=tmp_path, command_snapshot_every=50) as cluster:
        first = cluster.apply("add", b"once", session="s", number=1)
        for round_ in range(5):
            many(cluster["n1"], 30, 30 * round_)
        same_everywhere(cluster, 151)
        cluster.kill("n2")
        many(cluster["n1"], 20, 150)
        cluster.restart("n2")
        same_everywhere(cluster, 171)
        again = handler_of(cluster["n2"])
        assert again.restored == 1 and again.given < 171
        assert cluster["n2"].apply("add", b"once", session="s", number=1) == first
        for name in cluster.names:  # all of them at once: nothing is left but what is on the disks
            cluster.kill(name)
        for name in cluster.names:
            cluster._start(name)
        cluster.wait_healthy()
        assert cluster["n3"].apply("add", b"once", session="s", number=1) == first
        same_everywhere(cluster, 171)


def test_a_new_server_gets_the_state_with_the_snapshot_of_the_log(tmp_path) -> None:
    short = {"trailing_entries": 20, "command_snapshot_every": 100}
    with LocalCluster(handler=Words, directory=tmp_path, **short) as cluster:
        cluster.kill("n3")
        for n in range(300):  # an entry each
            cluster["n1"].apply("add", b"%d" % n)
        cluster.wait_until(lambda: cluster.leader.ref.ask(Status(local=True)).applied_index > 300)
        node = cluster.restart("n3")
        same_everywhere(cluster, 300)
        assert node.apply("add", b"here").index == 301


def test_a_member_that_is_no_server_applies_proposes_and_fetches_what_it_missed(monkeypatch) -> None:
    """It joins the gossip late, when the first commands are forgotten: the leader's snapshot makes up for them."""
    monkeypatch.setitem(Replication.__init__.__kwdefaults__, "retain_records", 50)
    with LocalCluster(1, handler=Words, command_snapshot_every=40) as cluster:
        for n in range(200):
            cluster.apply("add", b"%d" % n)
        first = cluster.apply("add", b"once", session="s", number=1)
        seed = cluster["n1"].ref.addresses()["gossip"]
        config = Config(node_id="guest", raft_addr=ANY, mem_bind=ANY, mgmt_addr=ANY, seeds_csv=seed)
        guest = LocalNode(config, Words)
        try:
            cluster.wait_until(lambda: len(ledger_of(guest)) >= 201, what=lambda: f"the guest's: {len(ledger_of(guest))}")
            assert ledger_of(guest) == ledger_of(cluster["n1"])
            assert handler_of(guest).restored == 1 and handler_of(guest).given < 201
            assert guest.apply("add", b"from the guest").result == b"202:from the guest"
            assert guest.apply("add", b"once", session="s", number=1) == first
            with pytest.raises(HandlerFailed, match="ValueError"):
                guest.apply("raise", b"x")
        finally:
            guest.stop()


@pytest.mark.long
def test_the_leader_is_killed_in_the_middle_again_and_again_and_every_try_counts_once(tmp_path) -> None:
    """Each command is tried until it has an answer, at any node, as a client would; sessions make that harmless."""
    with LocalCluster(handler=Words, directory=tmp_path, command_snapshot_every=100) as cluster:
        answers: dict[tuple[str, int], Applied] = {}
        stop = threading.Event()

        def client(name: str) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                while (name, number) not in answers:
                    try:
                        node = random.choice(list(cluster.nodes.values()))
                        answers[name, number] = node.apply("add", f"{name}:{number}".encode(), session=name, number=number, timeout=3)
                    except (CoterieError, ActorDeadError, IndexError):
                        continue

        threads = [threading.Thread(target=client, args=(f"client{n}",), daemon=True) for n in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            before = len(answers)
            cluster.wait_until(lambda before=before: len(answers) > before + 40, 60, "clients go on")
            leader = cluster.leader.name
            cluster.kill(leader)
            before = len(answers)
            cluster.wait_until(lambda before=before: len(answers) > before + 40, 60, "clients go on without it")
            cluster.restart(leader)
        stop.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        ledger = same_everywhere(cluster)
        applied = [data for _, _, data in ledger]
        assert len(set(applied)) == len(applied)
        by_index = {index: data for index, _, data in ledger}
        assert {key: by_index[one.index] for key, one in answers.items()} == {(n, k): f"{n}:{k}".encode() for n, k in answers}
