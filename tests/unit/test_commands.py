"""The commands' core: what a handler is given, what its proposers hear, and what of sessions is remembered; as a function of the log alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.actors.replication import sessions as bounds
from coterie.actors.replication.commands import Commands
from coterie.actors.replication.messages import APPLIED, EXPIRED, FAILED, FORGOTTEN
from coterie.actors.replication.sessions import Outcome, Sessions
from coterie.proto.command import Command, UnknownCommand, decode_command, encode_command
from coterie.proto.errors import WireError

MINE, THEIRS = b"m" * 8, b"t" * 8


def record(op, ticket=1, session=None, number=0, origin=MINE):
    return encode_command(op, op.encode(), origin, ticket, session, number)


def numbered(records, first=1):
    return [(index, data, None) for index, data in enumerate(records, first)]


def run(commands, records, handle=lambda index, op, data: (True, data)):
    """All of them through a handler; -> what it got."""
    got = []
    commands.decide(numbered(records, commands.position + 1))
    given_now = commands.given()
    got += given_now
    commands.settle([handle(*command) for command in given_now])
    return got


# -- the record -------------------------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    names,
    st.binary(max_size=200),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 1 << 62),
    st.none() | names,
    st.integers(1, (1 << 63) - 1),
)
def test_a_command_reads_as_it_was_written(op, data, origin, ticket, session, number):
    command = decode_command(encode_command(op, data, origin, ticket, session, number))
    assert command == Command(op, data, origin, ticket, session, number if session is not None else 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_command_or_a_wire_error(data):
    try:
        command = decode_command(data)
    except WireError:
        return
    assert decode_command(encode_command(*command)) == command


@pytest.mark.parametrize("damage", [b"", b"\x90", b"\x95\x01", b"\xc0", record("a") + b"x", record("a")[:-1]])
def test_what_is_no_command_says_so(damage):
    with pytest.raises(WireError):
        decode_command(damage)


def test_a_later_format_is_told_apart_from_damage():
    with pytest.raises(UnknownCommand, match="format 2"):
        decode_command(b"\x92\x02\xa1a")


# -- who gets what ----------------------------------------------------------------------------------------------------------------


def test_the_handler_gets_each_command_once_in_order_and_the_proposer_its_result():
    commands = Commands(MINE)
    got = run(commands, [record("a", 1), record("b", 7, origin=THEIRS), record("c", 2)])
    assert [op for _, op, _ in got] == ["a", "b", "c"] and commands.position == 3
    assert commands.answers == [(1, 1, APPLIED, b"a"), (2, 3, APPLIED, b"c")]


def test_a_command_that_fails_is_done():
    commands = Commands(MINE)
    run(commands, [record("a", 1), record("b", 2)], lambda index, op, data: (op != "a", data))
    assert commands.answers == [(1, 1, FAILED, b"a"), (2, 2, APPLIED, b"b")]
    assert commands.position == 2 and commands.counters["commands_failed"] == 1


def test_a_retry_of_a_session_has_the_first_result_and_is_not_given():
    commands = Commands(MINE)
    got = run(commands, [record("a", 1, "s", 1), record("a", 2, "s", 1), record("b", 3, "s", 2)])
    assert [op for _, op, _ in got] == ["a", "b"]
    got = run(commands, [record("a", 4, "s", 1, THEIRS), record("a", 5, "s", 1)])
    assert got == []
    assert commands.answers == [(1, 1, APPLIED, b"a"), (2, 1, APPLIED, b"a"), (3, 3, APPLIED, b"b"), (5, 1, APPLIED, b"a")]


def test_an_unknown_session_begins_with_number_one_only():
    commands = Commands(MINE)
    assert run(commands, [record("a", 1, "s", 2)]) == []
    assert commands.answers[0][2] == EXPIRED and b"'s'" in commands.answers[0][3]
    assert len(run(commands, [record("a", 2, "s", 1), record("b", 3, "s", 2)])) == 2


def test_a_result_that_is_too_large_is_applied_before_and_no_more_is_known():
    commands = Commands(MINE)
    big = bytes(bounds.MOST_RESULT + 1)
    run(commands, [record("a", 1, "s", 1)], lambda *_: (True, big))
    assert commands.answers.pop() == (1, 1, APPLIED, big)
    run(commands, [record("a", 2, "s", 1)])
    assert commands.answers[0][:3] == (2, 1, FORGOTTEN)


def test_what_is_no_command_is_passed_over_and_counted():
    commands = Commands(MINE)
    assert [op for _, op, _ in run(commands, [b"garbage", record("a"), b""])] == ["a"]
    assert commands.position == 3 and commands.counters["commands_malformed"] == 2


def test_at_a_command_of_a_later_version_nothing_goes_on():
    commands = Commands(MINE)
    later = b"\x92\x02\xa1a"
    assert len(run(commands, [record("a"), later, record("b")])) == 1
    with pytest.raises(UnknownCommand):
        commands.decide(numbered([later, record("b")], 2))
    assert commands.position == 1 and commands.undecided


def test_what_the_handler_has_already_is_decided_and_not_given():
    commands = Commands(MINE)
    commands.begin(0, Sessions(), 2)
    assert [op for _, op, _ in run(commands, [record("a", 1, "s", 1), record("b"), record("c"), record("a", 9, "s", 1)])] == ["c"]
    assert commands.answers[-1][:3] == (9, 1, FORGOTTEN)  # applied, and its result was the handler's of an earlier life


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.sampled_from("st"), st.integers(1, 4)), max_size=40), st.data())
def test_batches_and_handlers_that_stop_early_change_nothing(log, data):
    """However the log is cut into batches, and however few of them the handler takes at a time."""
    records = [record(op, at, session, number) for at, (op, session, number) in enumerate(log)]
    whole, pieces = Commands(MINE), Commands(MINE)
    expected = run(whole, records)
    got = []
    while pieces.position < len(records):
        if pieces.undecided:
            first = pieces.position
            pieces.decide(numbered(records[first : first + data.draw(st.integers(1, 9))], first + 1))
        now = pieces.given()
        if now:
            now = now[: data.draw(st.integers(1, len(now)))]
            got += now
            pieces.settle([(True, command[2]) for command in now])
    assert got == expected and pieces.answers == whole.answers


# -- sessions ---------------------------------------------------------------------------------------------------------------------


class Slow:
    """The rules, said plainly: a list of what was applied, looked through from its beginning."""

    def __init__(self):
        self.applied = []

    def decide(self, index, session, number):
        known = self.remembered()
        mine = {row[2]: row for row in known if row[1] == session}
        if number in mine:
            return mine[number]
        if not mine and number != 1:
            return None
        if len(mine) >= bounds.PER_SESSION and number < min(mine):
            return None
        self.applied.append((index, session, number))
        self.forget(session)
        return (index, session, number)

    def remembered(self):
        return self.applied

    def forget(self, session):
        mine = sorted(row for row in self.applied if row[1] == session)
        if len(mine) > bounds.PER_SESSION:
            self.applied.remove(min(mine, key=lambda row: row[2]))
        while len(self.applied) > bounds.MOST_ROWS:
            latest = {name: index for index, name, _ in self.applied}
            oldest = min(latest, key=latest.get)
            self.applied = [row for row in self.applied if row[1] != oldest]


tries = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 6)), max_size=60)


def decide_all(sessions, log, first=1):
    return [sessions.decide(index, *one) for index, one in enumerate(log, first)]


def told(verdict):
    return None if verdict.row is None else (verdict.row.index, verdict.row.session, verdict.row.number)


@given(tries)
def test_sessions_forget_by_the_rules_that_are_written_down(small_bounds, log):
    fast, slow = Sessions(), Slow()
    for index, (session, number) in enumerate(log, 1):
        assert told(fast.decide(index, session, number)) == slow.decide(index, session, number)
        assert len(fast) == len(slow.applied)


@given(tries, st.integers(0, 60))
def test_what_was_remembered_at_an_earlier_command_can_be_told(small_bounds, log, back):
    sessions = Sessions()
    decide_all(sessions, log)
    then = sessions.at(min(back, len(log)))
    if then is None:
        return
    fresh = Sessions()
    decide_all(fresh, log[:back])
    assert [told_row(row) for row in then.rows()] == [told_row(row) for row in fresh.rows()]
    assert [told(v) for v in decide_all(then, log[back:], back + 1)] == [told(v) for v in decide_all(fresh, log[back:], back + 1)]


@given(tries)
def test_sessions_made_of_their_rows_are_the_same(small_bounds, log):
    one = Sessions()
    for verdict in decide_all(one, log):
        if verdict.row is not None and not verdict.again:
            verdict.row.settle(Outcome(True, b"x"))
    other = Sessions(one.rows())
    assert [told(v) for v in decide_all(one, log, 100)] == [told(v) for v in decide_all(other, log, 100)]


def told_row(row):
    return row.index, row.session, row.number


@pytest.fixture(scope="module")
def small_bounds():
    """Module-wide, since Hypothesis runs many examples in one test."""
    before = bounds.PER_SESSION, bounds.MOST_ROWS, bounds.HISTORY
    bounds.PER_SESSION, bounds.MOST_ROWS, bounds.HISTORY = 3, 7, 6
    yield
    bounds.PER_SESSION, bounds.MOST_ROWS, bounds.HISTORY = before
