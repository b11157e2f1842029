"""The replicated state machine against a slow, obvious one: same log, same places, on every node, whoever proposed and wherever it was restarted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.replication.buffer import BufferWrite
from coterie.actors.replication.memory_buffer import MemoryBuffer
from coterie.actors.replication.recovery import recovered
from coterie.actors.replication.state_machine import StateMachine, dedupe_key
from coterie.proto.record_batch import decode_batch, decode_entry, encode_batch, encode_entry

record = st.binary(max_size=3) | st.tuples(st.binary(max_size=3), st.none() | st.sampled_from("abcdefgh"), st.none()).map(list)
batch = st.tuples(st.sampled_from(["a", "b", "a/b"]), st.lists(record, min_size=1, max_size=6))
logs = st.lists(st.lists(batch, max_size=3), max_size=15)


class Obvious:
    """Every record looked at one by one, the whole history kept."""

    def __init__(self, window):
        self.window, self.topics, self.ids = window, {}, []

    def apply(self, index, batches):
        places = []
        for topic, records in batches:
            for record in records:
                key = (topic, record[1]) if isinstance(record, list) and record[1] is not None else None
                known = next(((seq, i) for k, seq, i in self.ids[-self.window :] if k == key), None) if key else None
                if known is None:
                    history = self.topics.setdefault(topic, [])
                    history.append(record)
                    known = (len(history), index)
                    if key:
                        self.ids.append((key, *known))
                places.append((topic, known[0], known[1]))
        return places


def places_of(index, batches, placed):
    places = []
    for (topic, records), place in zip(batches, placed, strict=True):
        seq = place.first_seq
        for position in range(len(records)):
            if place.duplicates and position in place.duplicates:
                places.append((topic, *place.duplicates[position]))
            else:
                places.append((topic, seq, index))
                seq += 1
    return places


def packed(batches):
    return [encode_batch(topic, 0, records) for topic, records in batches]


@given(logs, st.integers(1, 5))
def test_places_are_those_of_the_obvious_machine(log, window):
    machine, model = StateMachine(window_size=window), Obvious(window)
    for index, batches in enumerate(log, 1):
        placed = machine.apply(index, 1, packed(batches))
        assert places_of(index, batches, placed) == model.apply(index, batches)
    stored = {}
    for held in machine.take_outcome().stored:
        assert held.first_seq == len(stored.setdefault(held.topic, [])) + 1
        stored[held.topic] += decode_batch(held.data).records
        assert len(decode_batch(held.data).records) == held.count
    assert stored == model.topics


@given(logs, st.integers(1, 5), st.data())
def test_a_follower_that_decodes_and_restarts_anywhere_agrees_with_the_leader(log, window, data):
    leader, buffer = StateMachine(window_size=window), MemoryBuffer()
    follower = StateMachine(window_size=window)
    cut = data.draw(st.integers(0, len(log)))
    for index, batches in enumerate(log, 1):
        mine = leader.apply(index, 1, packed(batches))
        entry = encode_entry([b.data for b in packed(batches)]) if batches else None
        assert follower.apply(index, 1, decode_entry(entry) if entry else []) == mine
        if index == cut:
            outcome = follower.take_outcome()
            follower = restarted(buffer, outcome, follower.applied, window)
    assert follower.next_seqs == leader.next_seqs
    assert follower._window == leader._window


def restarted(buffer, outcome, applied, window):
    entered = {}
    for key, remembered in outcome.ids:
        if remembered is None:
            entered.pop(key)
        else:
            entered[key] = remembered
    buffer.write(BufferWrite(batches=outcome.stored, applied=applied, dedupe_add=list(entered.values())))
    machine, state = recovered(buffer)
    assert state.applied == applied
    return StateMachine(machine.next_seqs, applied, state.dedupe, window)


def test_an_entry_applied_before_changes_nothing():
    machine = StateMachine()
    batches = packed([("t", [b"1"])])
    assert machine.apply(5, 2, batches)[0].first_seq == 1
    machine.take_outcome()
    assert machine.apply(5, 2, batches) == [] and machine.apply(4, 2, batches) == []
    assert machine.take_outcome().stored == [] and machine.last_seq("t") == 1


def test_the_same_id_in_two_topics_is_two_records():
    machine = StateMachine()
    machine.apply(1, 1, packed([("a", [[b"x", "id", None]]), ("b", [[b"x", "id", None]])]))
    assert machine.next_seqs == {"a": 2, "b": 2}
    assert dedupe_key("a", "bc") != dedupe_key("ab", "c")


def test_a_node_that_left_and_followed_by_stream_finds_its_place_again():
    buffer = MemoryBuffer()
    machine = StateMachine()
    for index in (1, 2):
        machine.apply(index, 1, packed([("t", [b"log"] * 3)]))
    buffer.write(BufferWrite(batches=machine.take_outcome().stored, applied=(2, 1)))
    ahead = StateMachine(machine.next_seqs, machine.applied)
    ahead.apply(3, 1, packed([("t", [b"stream"] * 3), ("new", [b"stream"])]))
    buffer.write(BufferWrite(batches=ahead.take_outcome().stored))
    found, state = recovered(buffer)
    assert found.applied == (2, 1) and state.topics["t"].next_seq == 10
    assert found.last_seq("t") == 6 and found.last_seq("new") == 0
