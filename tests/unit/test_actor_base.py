"""The actor base: batches, timers, later replies, failure, stopping, forks."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pykka
import pytest

from coterie.actors.base import LATER, MAX_RESTARTS, Actor, Crash
from coterie.actors.errors import CoterieError, InvalidRequest, StorageError
from coterie.actors.future import LightFuture, gather
from coterie.transport import logs


class Probe(Actor):
    """Does what the message says; tells the test through `seen`."""

    concern = "probe"

    def __init__(self, **kwargs: object) -> None:
        super().__init__("n1", **kwargs)  # type: ignore[arg-type]
        self.seen: list[object] = []
        self.bursts: list[int] = []
        self.starts = 0
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._in_burst = 0
        self.kept: list[LightFuture] = []

    def on_start(self) -> None:
        self.starts += 1

    def on_receive(self, message: object) -> object:
        self._in_burst += 1
        self.seen.append(message)
        if message == "wait":
            self.entered.set()
            assert self.gate.wait(10)
        elif message == "boom":
            raise ValueError("boom")
        elif message == "disk":
            raise StorageError("the disk is gone")
        elif message == "exit":
            raise SystemExit(3)
        elif message == "typed":
            raise InvalidRequest("no")
        elif message == "later":
            assert self.reply_to is not None
            self.kept.append(self.reply_to)
            return LATER
        elif isinstance(message, tuple) and message[0] == "wake":
            self.wake_at(time.monotonic() + message[1])
        return ("echo", message)

    def flush(self) -> None:
        self.bursts.append(self._in_burst)
        self._in_burst = 0

    def on_wake(self, now: float) -> None:
        self.seen.append("woken")

    def on_stop(self) -> None:
        for future in self.kept:
            future.fail(pykka.ActorDeadError("stopping"))
        self.kept = []


@pytest.fixture
def crashes() -> list[Crash]:
    return []


@pytest.fixture
def probe(crashes: list[Crash]):
    reported = threading.Condition()

    def on_crash(crash: Crash) -> None:
        with reported:
            crashes.append(crash)
            reported.notify_all()

    ref = Probe.start(on_crash=on_crash)
    ref.reported = reported  # type: ignore[attr-defined]
    yield ref
    ref.stop()


def wait_for_crashes(ref: object, crashes: list[Crash], count: int) -> None:
    with ref.reported:  # type: ignore[attr-defined]
        assert ref.reported.wait_for(lambda: len(crashes) >= count, 10)  # type: ignore[attr-defined]


def actor_of(ref: pykka.ActorRef) -> Probe:
    actor = ref._actor_weakref()
    assert isinstance(actor, Probe)
    return actor


def test_ask_returns_the_reply_and_raises_the_error(probe):
    assert probe.ask("x", timeout=5) == ("echo", "x")
    with pytest.raises(InvalidRequest):
        probe.ask("typed", timeout=5)
    assert probe.ask("still here", timeout=5) == ("echo", "still here")


def test_what_waits_in_the_inbox_is_one_burst_and_one_flush(probe):
    actor = actor_of(probe)
    probe.tell("wait")
    assert actor.entered.wait(10)
    for n in range(50):
        probe.tell(n)
    actor.gate.set()
    probe.ask("end", timeout=5)
    probe.ask("after the flush", timeout=5)
    assert actor.bursts[0] == 1
    assert max(actor.bursts[1:3]) >= 50


def test_a_later_reply_resolves_when_it_happens(probe):
    future = probe.ask("later", block=False)
    probe.ask("x", timeout=5)
    assert not future.done
    actor_of(probe).kept.pop().set("now")
    assert future.get(timeout=5) == "now"


def test_a_timer_never_fires_over_messages_that_wait(probe):
    actor = actor_of(probe)
    probe.ask(("wake", 0.05), timeout=5)
    probe.tell("wait")
    assert actor.entered.wait(10)
    probe.tell("heartbeat")
    time.sleep(0.1)  # the stall itself: the timer's time passes while the actor is held
    actor.gate.set()
    deadline = time.monotonic() + 5
    while "woken" not in actor.seen and time.monotonic() < deadline:
        probe.ask("tick", timeout=5)
    assert actor.seen.index("heartbeat") < actor.seen.index("woken")


def test_a_timer_fires_under_constant_load(probe):
    actor = actor_of(probe)
    probe.ask(("wake", 0.02), timeout=5)
    deadline = time.monotonic() + 5
    while "woken" not in actor.seen and time.monotonic() < deadline:
        for n in range(100):
            probe.tell(n)
    assert "woken" in actor.seen


def test_a_crash_in_a_tell_is_reported_and_the_actor_goes_on_with_its_inbox(probe, crashes, caplog):
    probe.tell("boom")
    wait_for_crashes(probe, crashes, 1)
    assert probe.ask("x", timeout=5) == ("echo", "x")
    assert not crashes[0].fatal
    assert actor_of(probe).starts == 2
    assert "boom" in caplog.text


def test_crashes_without_end_are_fatal(probe, crashes):
    for _ in range(MAX_RESTARTS + 1):
        probe.tell("boom")
    wait_for_crashes(probe, crashes, MAX_RESTARTS + 1)
    assert crashes[-1].fatal
    with pytest.raises(pykka.ActorDeadError):
        probe.ask("x", timeout=5)


def test_a_storage_error_is_fatal_at_once(probe, crashes):
    with pytest.raises(StorageError):
        probe.ask("disk", timeout=5)
    wait_for_crashes(probe, crashes, 1)
    assert crashes[0].fatal
    assert isinstance(crashes[0].error, StorageError)


def test_a_system_exit_stops_no_other_actor(probe, crashes):
    other = Probe.start()
    try:
        probe.tell("exit")
        wait_for_crashes(probe, crashes, 1)
        assert other.ask("x", timeout=5) == ("echo", "x")
    finally:
        other.stop()


def test_who_asked_for_what_ended_in_a_system_exit_is_answered(probe, crashes):
    with pytest.raises(CoterieError, match="SystemExit"):
        probe.ask("exit", timeout=5)
    wait_for_crashes(probe, crashes, 1)
    assert probe.ask("x", timeout=5) == ("echo", "x")


def test_asks_that_race_with_stop_are_all_answered():
    for _ in range(50):
        ref = Probe.start()
        futures: list[LightFuture] = []
        go = threading.Event()

        def ask(ref=ref, futures=futures, go=go) -> None:
            go.wait(5)
            for _ in range(20):
                futures.append(ref.ask("x", block=False))

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        go.set()
        ref.stop()
        for asker in askers:
            asker.join()
        for future in futures:
            with contextlib.suppress(pykka.ActorDeadError):
                assert future.get(timeout=5) == ("echo", "x")


def test_stop_fails_what_was_promised_for_later(probe):
    future = probe.ask("later", block=False)
    probe.stop()
    with pytest.raises(pykka.ActorDeadError):
        future.get(timeout=5)


def test_a_reference_used_after_a_fork_says_so(probe):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # the child must not run pytest's teardown
        try:
            probe.tell("x")
            os.write(writer, b"no error")
        except RuntimeError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 1000)
    os.close(reader)
    assert b"fork" in said


def test_an_actor_that_is_started_after_a_fork_works_there():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, repr(Probe.start().ask("x", timeout=10)).encode())
        except BaseException as error:  # noqa: BLE001 - said to the parent
            os.write(writer, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    said = os.read(reader, 1000)
    os.close(reader)
    assert said == repr(("echo", "x")).encode()


def test_pykka_proxies_still_work(probe):
    assert probe.proxy().starts.get(timeout=5) == 1


def test_a_future_waited_for_by_many_threads_wakes_them_all():
    future, got, barrier = LightFuture(), [], threading.Barrier(9)

    def wait() -> None:
        barrier.wait(5)
        got.append(future.get(timeout=10))

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait(5)
    future.set(7)
    for thread in threads:
        thread.join(10)
    assert got == [7] * 8


def test_a_future_times_out_and_can_be_asked_again():
    future = LightFuture()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.01)
    future.set(1)
    assert future.get(timeout=0) == 1
    assert future.map(lambda x: x + 1).get(timeout=1) == 2


def test_callbacks_run_once_before_and_after():
    future, calls = LightFuture(), []
    future.on_done(lambda: calls.append("before"))
    future.set(1)
    future.on_done(lambda: calls.append("after"))
    assert calls == ["before", "after"]


def test_gather_calls_once_when_all_are_there():
    futures, calls = [LightFuture() for _ in range(3)], []
    gather(futures, lambda: calls.append("all"))
    for future in futures[:2]:
        future.set(None)
    assert calls == []
    futures[2].fail(ValueError())
    assert calls == ["all"]


def test_a_callback_that_raises_harms_neither_whoever_resolves_nor_the_other_waiters(caplog):
    future, calls = LightFuture(), []
    future.on_done(lambda: 1 / 0)
    future.on_done(lambda: calls.append("the other"))
    future.fail(ValueError("x"))
    assert calls == ["the other"]
    assert logs.backlog.drain(5.0)
    assert "a callback of a future raised" in caplog.text
