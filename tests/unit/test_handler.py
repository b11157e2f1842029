"""Handler actors: the application's methods, called in order, with its errors turned into answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from coterie.actors.base import Ref
from coterie.actors.errors import HandlerFailed
from coterie.actors.handler import HandlerActor, ObjectHandler, Record
from coterie.actors.room_messages import Deliver, Delivered, HandleRead, HandleWrite

WAIT = 10.0
Start = Callable[..., Ref]


@pytest.fixture
def start() -> Iterator[Start]:
    refs: list[Ref] = []

    def start(kind: type[HandlerActor], *arguments: Any) -> Ref:
        refs.append(kind.start(*arguments))
        return refs[-1]

    yield start
    for ref in refs:
        ref.stop()


def batch(*records: bytes, attempt: int = 1, first: int = 1) -> Deliver:
    return Deliver("t", [(seq, data, {"k": "v"} if seq == 1 else None) for seq, data in enumerate(records, first)], 7, 123.0, attempt)


def deliver(ref: Ref, message: Deliver) -> Delivered:
    delivered: Delivered = ref.ask(message, timeout=WAIT)
    return delivered


class Plain(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.had: list[Any] = []

    def handle_sync(self, topic: str, data: bytes) -> None:
        if data == b"bad":
            raise ValueError("no good")
        self.had.append((topic, data))

    def handle_write(self, op: str, request: bytes) -> bytes:
        return op.encode() + b":" + request

    def on_message(self, message: Any) -> Any:
        return self.had if message == "had" else super().on_message(message)


class WithRecord(HandlerActor):
    def __init__(self) -> None:
        super().__init__()
        self.had: list[Record] = []

    def handle_sync(self, topic: str, data: bytes, record: Record | None = None) -> None:
        assert record is not None
        self.had.append(record)

    def on_message(self, message: Any) -> Any:
        return self.had


def test_records_come_one_by_one_in_order(start: Start) -> None:
    ref = start(Plain)
    outcome = deliver(ref, batch(b"a", b"", b"c"))
    assert (outcome.count, outcome.error) == (3, None)
    assert ref.ask("had") == [("t", b"a"), ("t", b""), ("t", b"c")]


def test_a_raise_says_how_far_it_came(start: Start) -> None:
    ref = start(Plain)
    outcome = deliver(ref, batch(b"a", b"bad", b"c"))
    assert (outcome.count, type(outcome.error)) == (1, ValueError)
    assert ref.ask("had") == [("t", b"a")]
    assert ref.is_alive()


def test_who_asks_for_the_record_sees_seq_index_time_attempt_and_headers(start: Start) -> None:
    ref = start(WithRecord)
    deliver(ref, batch(b"a", b"b", attempt=3))
    assert ref.ask("had") == [Record("t", 1, 7, 123.0, 3, {"k": "v"}), Record("t", 2, 7, 123.0, 1, None)]


def test_a_handler_without_handle_sync_takes_every_record(start: Start) -> None:
    assert deliver(start(HandlerActor), batch(b"a", b"b")).count == 2


def test_writes_answer_bytes(start: Start) -> None:
    assert start(Plain).ask(HandleWrite("op", b"x"), timeout=WAIT) == b"op:x"


def test_what_is_not_overridden_says_so(start: Start) -> None:
    ref = start(Plain)
    with pytest.raises(HandlerFailed, match=r"Plain does not override handle_read \(op 'get'\)"):
        ref.ask(HandleRead("get", b""), timeout=WAIT)
    with pytest.raises(HandlerFailed, match="HandlerActor does not override handle_write"):
        start(HandlerActor).ask(HandleWrite("set", b""), timeout=WAIT)


class Odd(HandlerActor):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def handle_read(self, op: str, request: bytes) -> bytes:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("text", r"handle_read\('get'\) returned str; it must return bytes"),
        (None, "returned NoneType"),
        (KeyError("k"), r"handle_read\('get'\) raised KeyError: 'k'"),
        (HandlerFailed("my own words"), "^my own words$"),
    ],
)
def test_no_bytes_and_exceptions_are_handler_failed(start: Start, answer: Any, said: str) -> None:
    ref = start(Odd, answer)
    with pytest.raises(HandlerFailed, match=said):
        ref.ask(HandleRead("get", b""), timeout=WAIT)
    assert ref.is_alive()


@pytest.mark.parametrize("answer", [bytearray(b"x"), memoryview(b"x"), b"x"])
def test_whatever_holds_bytes_is_bytes(start: Start, answer: Any) -> None:
    got = start(Odd, answer).ask(HandleRead("get", b""), timeout=WAIT)
    assert (type(got), got) == (bytes, b"x")


def test_a_plain_object_with_some_of_the_methods_is_a_handler(start: Start) -> None:
    class Service:
        had: list[bytes] = []  # noqa: RUF012 - one for the class is what this test wants

        def handle_sync(self, topic: str, data: bytes, record: Any) -> None:
            self.had.append(data + str(record.seq).encode())

    ref = start(ObjectHandler, Service())
    assert deliver(ref, batch(b"a", b"b")).count == 2
    assert Service.had == [b"a1", b"b2"]
    with pytest.raises(HandlerFailed, match="does not override handle_write"):
        ref.ask(HandleWrite("op", b""), timeout=WAIT)


def test_a_handler_is_a_pykka_actor_with_messages_of_its_own(start: Start) -> None:
    ref = start(Plain)
    assert isinstance(ref, pykka.ActorRef)
    assert ref.proxy().had.get(timeout=WAIT) == []
    assert ref.ask("unknown", timeout=WAIT) is None
