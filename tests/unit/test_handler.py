"""Handler actors: the application's methods, called in order, with its errors turned into answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from coterie.actors.base import Ref
from coterie.actors.errors import CoterieError, HandlerFailed, InvalidRequest
from coterie.actors.handler import HandlerActor, ObjectHandler, Record
from coterie.actors.handler_messages import ApplyCommands, BeginCommands, Deliver, Delivered, HandleRead, HandleWrite

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
        (SystemExit(3), r"handle_read\('get'\) raised SystemExit: 3"),
        (asyncio.CancelledError(), r"handle_read\('get'\) raised CancelledError"),
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


class Exits(HandlerActor):
    """Raises what is no Exception, wherever it is called."""

    def handle_sync(self, topic: str, data: bytes) -> None:
        if data == b"bad":
            sys.exit(3)

    def handle_apply(self, index: int, op: str, data: bytes) -> bytes | None:
        raise asyncio.CancelledError

    def applied_index(self) -> int | None:
        sys.exit("not now")

    def on_message(self, message: Any) -> Any:
        sys.exit(4)


def test_a_system_exit_is_a_failure_like_others_and_leaves_nobody_waiting(start: Start) -> None:
    ref = start(Exits)
    outcome = deliver(ref, batch(b"a", b"bad", b"c"))
    assert (outcome.count, type(outcome.error)) == (1, SystemExit)
    commands = ApplyCommands("n1", [(1, "op", b""), (2, "op", b"")], None)
    assert [ok for ok, _ in ref.ask(commands, timeout=WAIT)] == [False, False]
    with pytest.raises(HandlerFailed, match="Exits raised SystemExit: not now"):
        ref.ask(BeginCommands("n1"), timeout=WAIT)
    with pytest.raises(CoterieError, match="SystemExit"):
        ref.ask("a message of the application's own", timeout=WAIT)
    assert deliver(ref, batch(b"d")).count == 1


class Coroutine(HandlerActor):
    async def handle_sync(self, topic: str, data: bytes) -> None:  # type: ignore[override]
        raise AssertionError("nobody awaits it")


class Generator(HandlerActor):
    def handle_apply(self, index: int, op: str, data: bytes) -> Iterator[bytes]:  # type: ignore[override]
        yield b"nobody asks for it"


@pytest.mark.parametrize(("kind", "method"), [(Coroutine, "handle_sync"), (Generator, "handle_apply")])
def test_a_method_that_does_nothing_when_it_is_called_is_refused(kind: type[HandlerActor], method: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{method}: .*calling it runs nothing; remedy"):
        kind.start()


def test_an_object_with_a_coroutine_is_refused_too() -> None:
    class Service:
        async def handle_write(self, op: str, request: bytes) -> bytes:
            return b""

    with pytest.raises(InvalidRequest, match="handle_write"):
        ObjectHandler.start(Service())
