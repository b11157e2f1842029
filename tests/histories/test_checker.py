"""The checker of linearizability against histories that are known to be good or bad, and against a slow one that tries every order."""

from __future__ import annotations

import itertools
import random
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.histories.checker import check, check_key, smallest
from tests.histories.history import OPEN, History, Operation, load
from tests.histories.models import REFUSED, AppendList, Register


def op(action, argument, result, called, returned, process="c"):
    return Operation(process, "x", action, argument, result, called, returned)


def write(value, called, returned=OPEN):
    return op("write", value, None, called, returned)


def read(value, called, returned):
    return op("read", None, value, called, returned)


def cas(expected, new, swapped, called, returned=OPEN):
    return op("cas", (expected, new), swapped, called, returned)


def append(value, called, returned=OPEN):
    return op("append", value, None, called, returned)


GOOD = {
    "nothing": [],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "a read beside a write sees it or not": [write(1, 0, 10), read(None, 1, 2), read(1, 3, 4)],
    "two writes at once, in either order": [write(1, 0, 10), write(2, 0, 10), read(2, 11, 12)],
    "an answer at the moment of the next call": [write(1, 0, 5), read(None, 5, 6)],
    "an open write that is seen much later": [write(1, 0, 1), write(2, 2), read(1, 10, 11), read(2, 100, 101)],
    "an open write that is never seen": [write(1, 0, 1), write(2, 2), read(1, 10, 11)],
    "open writes seen out of the order of their calls": [
        write(1, 0),
        write(2, 1),
        write(3, 2),
        read(3, 5, 6),
        read(1, 7, 8),
        read(2, 9, 10),
    ],
    "a cas that swaps": [write(1, 0, 1), cas(1, 2, True, 2, 3), read(2, 4, 5)],
    "a cas that does not": [write(1, 0, 1), cas(7, 2, False, 2, 3), read(1, 4, 5)],
    "an open write is why a cas fails": [write(1, 0, 1), write(2, 2), cas(1, 3, False, 4, 5), read(2, 6, 7)],
    "an open write is why a cas fails, and is gone again": [
        write(1, 0, 1),
        write(2, 2),
        cas(1, 3, False, 4, 5),
        write(1, 6, 7),
        read(1, 8, 9),
    ],
    "an open cas that took effect": [write(1, 0, 1), cas(1, 2, None, 2), read(2, 10, 11)],
    "an open cas upon an open write": [write(1, 0), cas(1, 2, None, 1), read(2, 10, 11)],
    "a chain of cas, concurrent": [write(0, 0, 1), *(cas(n, n + 1, True, 2, 20) for n in reversed(range(8))), read(8, 21, 22)],
}
BAD = {
    "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "a lost write": [write(1, 0, 1), read(None, 2, 3)],
    "a value from nowhere": [write(1, 0, 1), read(2, 2, 3)],
    "read before it was written": [read(1, 0, 1), write(1, 2, 3)],
    "there and back": [write(1, 0, 1), write(2, 2, 20), read(2, 3, 4), read(1, 5, 6)],
    "two readers see two writes in two orders": [write(1, 0, 50), write(2, 0, 50), read(1, 1, 2), read(2, 3, 4), read(1, 5, 6)],
    "an open write is seen, and undone": [write(1, 0, 1), write(2, 2), read(2, 10, 11), read(1, 12, 13)],
    "two cas win against one value": [write(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, True, 2, 9)],
    "a cas fails without a reason": [write(1, 0, 1), cas(1, 2, False, 2, 3)],
    "a cas wins without a reason": [write(1, 0, 1), cas(2, 3, True, 2, 3)],
}
GOOD_LISTS = {
    "in order": [append(1, 0, 1), append(2, 2, 3), read((1, 2), 4, 5)],
    "concurrent appends": [append(1, 0, 9), append(2, 0, 9), read((2, 1), 10, 11)],
    "an open append late": [append(1, 0), read((), 5, 6), append(2, 7, 8), read((2, 1), 9, 10)],
    "an open append never": [append(1, 0), append(2, 7, 8), read((2,), 9, 10)],
    "appends after the longest read": [append(1, 0, 1), read((1,), 2, 3), append(2, 4, 5)],
}
BAD_LISTS = {
    "a lost append": [append(1, 0, 1), append(2, 2, 3), read((2,), 4, 5)],
    "order against time": [append(1, 0, 1), append(2, 2, 3), read((2, 1), 4, 5)],
    "reads that fork": [append(1, 0, 9), append(2, 0, 9), read((1,), 10, 11), read((2,), 12, 13)],
    "twice": [append(1, 0, 1), read((1, 1), 2, 3)],
    "a stale read": [append(1, 0, 1), append(2, 2, 3), read((1, 2), 4, 5), read((1,), 6, 7)],
    "a shorter list before a longer one in time": [append(1, 0, 1), read((), 2, 3), read((1,), 4, 5)],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_registers(name):
    assert check_key(GOOD[name], Register).linearizable is True


@pytest.mark.parametrize("name", BAD)
def test_bad_registers(name):
    verdict = check_key(BAD[name], Register)
    assert verdict.linearizable is False
    assert "none of these fits" in verdict.explanation


@pytest.mark.parametrize("name", GOOD_LISTS)
def test_good_lists(name):
    assert check_key(GOOD_LISTS[name], AppendList).linearizable is True


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_lists(name):
    assert check_key(BAD_LISTS[name], AppendList).linearizable is False


def slowly(operations, model):
    """Every order that time allows, with each subset of the open operations."""
    machine = model()
    machine.prepare(operations)

    def goes_on(state, left):
        if all(one.open for one in left):
            return True
        earliest = min(one.returned for one in left)
        for position, one in enumerate(left):
            if one.called <= earliest:
                new = machine.step(state, one)
                if new is not REFUSED and goes_on(new, left[:position] + left[position + 1 :]):
                    return True
        return False

    return goes_on(machine.initial(), list(operations))


@st.composite
def histories(draw):
    """Few operations, few values, crowded in time: about as many of these are good as bad."""
    operations = []
    for _ in range(draw(st.integers(1, 7))):
        called = draw(st.integers(0, 8))
        returned = draw(st.sampled_from([called + 1, called + 2, called + 5, OPEN]))
        kind = draw(st.sampled_from(["write", "read", "cas"]))
        value, other = draw(st.integers(0, 2)), draw(st.integers(0, 2))
        if kind == "write":
            operations.append(write(value, called, returned))
        elif kind == "cas":
            operations.append(cas(other, value, draw(st.booleans()) if returned != OPEN else None, called, returned))
        elif returned != OPEN:
            operations.append(read(draw(st.sampled_from([None, 0, 1, 2])), called, returned))
    return operations


@settings(max_examples=500, deadline=None)
@given(histories(), st.lists(st.sampled_from([None, 1.0, 2.0, 3.0, 4.0]), min_size=7, max_size=7))
def test_hints_change_no_verdict(operations, hints):
    hinted = [attrs.evolve(one, hint=hint) for one, hint in zip(operations, hints, strict=False)]
    assert check_key(hinted, Register).linearizable is slowly(operations, Register)


@settings(max_examples=500, deadline=None)
@given(histories())
def test_registers_are_judged_as_by_trying_every_order(operations):
    assert check_key(operations, Register).linearizable is slowly(operations, Register)


@st.composite
def list_histories(draw):
    count = draw(st.integers(1, 4))
    operations = []
    for value in range(count):
        called = draw(st.integers(0, 8))
        operations.append(append(value, called, draw(st.sampled_from([called + 1, called + 4, OPEN]))))
    order = draw(st.permutations(range(count)))
    for _ in range(draw(st.integers(0, 4))):
        called = draw(st.integers(0, 12))
        operations.append(read(tuple(order[: draw(st.integers(0, count))]), called, called + draw(st.integers(1, 3))))
    return operations


@settings(max_examples=500, deadline=None)
@given(list_histories())
def test_lists_are_judged_as_by_trying_every_order(operations):
    assert check_key(operations, AppendList).linearizable is slowly(operations, AppendList)


def test_what_only_looks_and_went_early_does_not_pass_others_by():
    """Here the open swap has its turn before the failed one, which can be had at once. A campaign had histories that were not decided for it."""
    history = [write(1, 0, 1), cas(1, 2, None, 3), cas(9, 8, False, 4, 20), cas(2, 7, True, 4, 21), write(3, 5, 22), read(3, 23, 24)]
    places = [1, 5, 8, 6, 7, None]
    verdict = check_key([attrs.evolve(one, hint=place) for one, place in zip(history, places, strict=True)], Register)
    assert verdict.linearizable and verdict.steps == len(history)


def executed(seed, count, clients, unknown=0.1):
    """A history of an object that really is one: each operation takes effect at a moment between call and answer."""
    chance = random.Random(seed)
    free, moments = [0.0] * clients, []
    for number in range(count):
        client = chance.randrange(clients)
        called = free[client] + chance.random()
        effect = called + chance.random()
        returned = free[client] = effect + chance.random()
        moments.append((effect, called, returned, client, number))
    state, operations = None, []
    for _, called, returned, client, number in sorted(moments):
        kind = chance.choice(["write", "read", "read", "cas"])
        argument, result = None, None
        if kind == "write":
            argument = state = number
        elif kind == "read":
            result = state
        else:
            argument, result = (state if chance.random() < 0.7 else -1, number), False
            if argument[0] == state:
                state, result = number, True
        known = kind == "read" or chance.random() > unknown
        operations.append(op(kind, argument, result if known else None, called, returned if known else OPEN, f"c{client}"))
    return operations


@pytest.mark.parametrize("seed", range(5))
def test_long_histories_with_open_operations_are_decided(seed):
    operations = executed(seed, 1500, 8)
    began = time.process_time()
    verdict = check_key(operations, Register)
    assert verdict.linearizable is True
    assert time.process_time() - began < 20.0


@pytest.mark.parametrize("seed", range(5))
def test_one_stale_read_in_a_long_history_is_found(seed):
    operations = executed(seed, 300, 6, unknown=0.03)
    reads = [number for number, one in enumerate(operations) if one.action == "read" and one.called > 40]
    number = random.Random(seed).choice(reads)
    earlier = [one.argument for one in operations if one.action == "write" and one.returned < operations[number].called - 10]
    operations[number] = attrs.evolve(operations[number], result=earlier[0])
    verdict = check_key(operations, Register)
    assert verdict.linearizable is False
    assert len(smallest(operations, Register)) < 60


def test_the_smallest_form_is_what_is_told():
    noise = [one for n in range(10, 30) for one in (write(n, 10 * n, 10 * n + 1), read(n, 10 * n + 2, 10 * n + 3))]
    verdicts = check([*noise, read(12, 1000, 1001), write(99, 2000, 2001)], Register)
    assert verdicts["x"].linearizable is False
    assert "smallest form, 3 operations" in verdicts["x"].explanation


def test_keys_are_judged_by_themselves():
    other = [attrs.evolve(one, key="y") for one in BAD["a stale read"]]
    verdicts = check([*GOOD["one after the other"], *other], Register)
    assert {key: verdict.linearizable for key, verdict in verdicts.items()} == {"x": True, "y": False}


def test_what_takes_too_long_is_undecided_and_says_so():
    writes = [write(n, 0, 1000) for n in range(12)]
    reads = [read(n, 1, 999) for n in range(12)]
    verdict = check_key([*writes, *reads, read(77, 1, 999)], Register, limit=500)
    assert verdict.linearizable is None
    assert verdict.steps > 500


def test_a_history_is_recorded_with_its_ends(tmp_path):
    clock = itertools.count().__next__
    with (tmp_path / "a.jsonl").open("w") as stream:
        history = History(clock, stream)
        first = history.call("c1", "x", "write", 1)
        second = history.call("c2", "x", "read")
        history.ok(first)
        history.ok(second, [1, 2])
        history.failed(history.call("c1", "x", "write", 2))
        history.call("c1", "x", "cas", (1, 2))  # nobody ever says
        history.call("c2", "x", "read")
    assert [str(one) for one in history.operations()] == [
        "[0 .. 2] c1: write(1) -> None",
        "[1 .. 3] c2: read() -> [1, 2]",
        "[5 .. ] c1: cas((1, 2)) -> ?",
    ]
    again = load([tmp_path / "a.jsonl"])
    assert [one.action for one in again] == ["write", "read", "cas"]
    assert again[1].result == (1, 2)
    assert again[2].argument == (1, 2)


def test_a_line_that_a_kill_cut_off_is_left_out_and_another_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('["call", 0, "c", "x", "write", 1, 5]\n["ok", 0, nu')
    assert [one.open for one in load([path])] == [True]
    path.write_text('["call", 0, "c", "x", "wri\n["ok", 0, null, 6]\n')
    with pytest.raises(ValueError, match="line 1"):
        load([path])
