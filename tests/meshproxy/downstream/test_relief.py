"""Who is reset when memory is short, and who is not."""

import asyncio
from typing import Any, cast

import pytest

from meshproxy.codec.http2 import Session
from meshproxy.downstream.admission import AIM, LOOK, Admission
from meshproxy.downstream.relief import AT_EASE, COMPLAIN, LEAST, STALLED, URGENT, Relief
from meshproxy.flow import MUCH as COMES
from meshproxy.flow import Turn
from meshproxy.multiplex import Link
from tests.helpers.transport import FakeLoop, FakeTransport

LIMIT = 100 << 20
MUCH = 10 << 20


class Side:
    """A connection, or a stream, for which bytes wait; aborted, it holds no memory any more."""

    def __init__(self, unsent: int = 0, exchange: "Work | None" = None) -> None:
        self.held = unsent
        self.exchange = exchange
        self.aborted = False

    @property
    def unsent(self) -> int:
        return self.held

    def abort(self) -> None:
        self.aborted, self.held = True, 0


class Work:
    """An exchange or relay between two sides."""

    def __init__(self, downstream: int = 0, upstream: int = 0, *, done: bool = False) -> None:
        self.downstream, self.upstream = Side(downstream, self), Side(upstream)
        self.done = done
        self.broken_off = 0

    def on_memory_short(self) -> None:
        self.done = True
        self.broken_off += 1
        self.downstream.held = self.upstream.held = 0


class Listener:
    direction = "inbound"
    connections = 0

    def __init__(self, *accepted: Any) -> None:
        self.accepted: list[Any] = [*accepted]


class Process:
    """A process of 95 MiB besides what its connections hold."""

    def __init__(self, *accepted: Any, base: int = 95 << 20) -> None:
        self.now = 1000.0
        self.base = base
        self.listener = Listener(*accepted)
        self.trimmed = 0
        self.admission = Admission(
            10, LIMIT, now=lambda: self.now, resident=self.resident, trim=self.trim
        )
        self.admission.join(self.listener)
        self.refused: list[tuple[str, str]] = []
        self.turn = Turn(FakeLoop().as_loop)
        self.relief = Relief(self.admission, self.turn, lambda *what: self.refused.append(what))

    def resident(self) -> int:
        return self.base + sum(
            side.unsent + (side.exchange.upstream.unsent if side.exchange else 0)
            for side in self.listener.accepted
            if isinstance(side, Side)
        )

    def trim(self) -> None:
        self.trimmed += 1

    def look(self, seconds: float = STALLED) -> None:
        """Look, and again after that time."""
        self.relief.look(self.now)
        self.now += max(seconds, LOOK)
        self.relief.look(self.now)


def test_while_there_is_memory_nobody_goes() -> None:
    """However long somebody has stalled."""
    side = Side(4 << 20)
    process = Process(side)
    process.look(1e6)
    assert not side.aborted
    process = Process(side, base=int(LIMIT * AIM) - side.held)
    process.look(1e6)
    assert process.trimmed == 0


def test_above_the_limit_the_allocator_gives_back_what_is_free() -> None:
    """And new ones are refused; nobody is reset who has not stalled for some time."""
    side = Side(MUCH)
    process = Process(side)
    process.relief.look(process.now)
    assert process.admission.room(process.listener) == 0
    assert process.trimmed
    process.now += STALLED - 0.1
    process.relief.look(process.now)
    assert not side.aborted


def test_who_has_stalled_longest_goes_first_and_no_more_than_needed() -> None:
    """Until what is left is some way below the limit."""
    works = [Work(downstream=MUCH) for _ in range(6)]
    process = Process(*(work.downstream for work in works[:3]), base=LIMIT)
    process.relief.look(process.now)
    process.now += LOOK
    process.listener.accepted += [work.downstream for work in works[3:]]
    process.base = int(LIMIT * AIM) - 3 * MUCH
    process.look()
    assert [work.broken_off for work in works] == [1, 1, 1, 0, 0, 0]
    assert process.refused == []  # the exchanges say so themselves
    process.now += LOOK
    assert process.admission.room(process.listener) > 0


def test_when_it_is_urgent_nobody_is_given_time() -> None:
    """Whoever holds most goes, though all have only just come; and no more of them than needed."""
    works = [Work(downstream=size << 20) for size in (5, 20, 10)]
    process = Process(*(work.downstream for work in works), base=int(LIMIT * AIM) - (5 << 20))
    assert process.resident() > LIMIT * URGENT
    process.relief.look(process.now)
    assert [work.broken_off for work in works] == [0, 1, 1]


def test_who_moves_stays() -> None:
    """A slow download is not a stalled one; nor is one that has only just stopped."""
    slow, fresh = Side(MUCH), Side(MUCH)
    process = Process(slow, fresh, base=LIMIT - MUCH)
    for _ in range(20):
        slow.held -= 1
        fresh.held += 1
        process.look(STALLED / 2)
    assert not slow.aborted
    assert not fresh.aborted
    process.look(STALLED)
    assert slow.aborted


def test_who_holds_little_stays() -> None:
    """A thousand idle connections would not make room."""
    small = Side(LEAST - 1)
    process = Process(small, base=2 * LIMIT)
    process.look(1e6)
    assert not small.aborted


def test_the_app_may_be_the_one_that_does_not_read() -> None:
    """An upload that stalls is the exchange's, too."""
    work = Work(upstream=MUCH)
    process = Process(work.downstream, base=2 * LIMIT)
    process.look()
    assert work.broken_off == 1


def test_what_has_been_answered_is_counted_here() -> None:
    """No exchange is left to do so."""
    side, ended = Side(MUCH), Side(MUCH, Work(done=True))
    process = Process(side, ended, base=2 * LIMIT)
    process.look()
    assert side.aborted
    assert ended.aborted
    assert process.refused == [("inbound", "memory-pressure")] * 2


class Unread(FakeTransport):
    """The client does not take what was written."""

    held = 0

    def get_write_buffer_size(self) -> int:
        return self.held

    def abort(self) -> None:
        super().abort()
        self.held = 0


class Streams(Session):
    """A session of which nothing but its streams is asked."""

    def __init__(self, streams: dict[int, Any]) -> None:
        self.streams = streams


def many(*streams: Side) -> tuple[Link[Any], Unread]:
    """Return a connection of HTTP/2 with these streams, and its transport."""
    session = Streams(dict(enumerate(streams)))
    link, transport = Link[Any](FakeLoop().as_loop, session), Unread()
    link.connection_made(cast("asyncio.Transport", transport))
    return link, transport


class AnsweredStream(Side):
    code = 0

    def end_by_reset(self, code: int) -> None:
        self.code, self.held = code, 0


def test_a_stream_goes_and_its_neighbours_stay() -> None:
    """Unless it is the connection that does not read."""
    stalled, small = Work(downstream=MUCH), Work(downstream=10)
    answered = AnsweredStream(MUCH)
    link, transport = many(stalled.downstream, small.downstream, answered)
    process = Process(link, base=2 * LIMIT)
    process.look()
    assert (stalled.broken_off, small.broken_off) == (1, 0)
    assert answered.code == 0xB
    assert transport.state == "open"
    transport.held = MUCH
    process.look()
    assert transport.state == "aborted"


def test_the_log_says_so_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """With what was in use, and what was freed."""
    process = Process(base=2 * LIMIT)
    for _ in range(int(COMPLAIN / STALLED)):
        process.listener.accepted = [Side(MUCH)]
        process.look()
    [line] = [record.message for record in caplog.records]
    assert line.startswith("short of memory: 210 MiB in use, above 100; 1 that had")
    process.listener.accepted = [Side(MUCH)]
    process.look()
    assert len(caplog.records) == 2


def test_near_the_limit_each_may_hold_little() -> None:
    """Before anybody is refused; and much again only some way below, so that it does not flicker."""
    process = Process(base=int(LIMIT * AIM))
    process.look()
    assert not process.turn.tight
    for share, expected in [
        (AIM, True),
        (AT_EASE, True),
        (AIM, True),
        (AT_EASE - 0.01, False),
        (AIM, True),
    ]:
        process.base = int(LIMIT * share) + 1
        process.look()
        assert process.turn.tight is expected, share


def test_what_comes_in_one_turn_is_seen_in_it() -> None:
    """However recently somebody has looked; and nobody is reset amid what has just come."""
    side = Side(MUCH)
    process = Process(side, base=LIMIT // 2)
    process.relief.look(process.now)
    process.base = 2 * LIMIT
    process.turn.came(COMES - 1)
    process.relief.look(process.now)
    seen = [process.turn.tight]
    process.turn.came(1)
    assert [*seen, process.turn.tight] == [False, True]
    assert not side.aborted


def test_without_a_limit_nobody_asks_how_much_there_is() -> None:
    """On a laptop, for example."""
    turn = Turn(FakeLoop().as_loop)
    Relief(Admission(10, 0, resident=lambda: 1 << 40), turn, lambda *what: None).look(0.0)
    turn.came(COMES)
    assert not turn.tight
