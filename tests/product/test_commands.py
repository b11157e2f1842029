"""Replicated commands on real nodes: who hears what, and what happens to them when leaders die, handlers raise and nodes come late."""

from __future__ import annotations

import pytest

from coterie import Apply, HandlerActor, HandlerFailed, InvalidRequest, SessionExpired
from coterie.testing import LocalCluster


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
