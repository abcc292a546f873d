from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from meshproxy.message import CHUNKED, TUNNEL, RequestHead
from meshproxy.policies.stalled_bodies import HURRIED, PATIENCE, PAUSE, RATE, StalledBodies


@dataclass(eq=False)
class Fake:
    """A request under way, of which a hundred bytes are to come."""

    length: int | None = 100
    source: str = ""
    address: str = "192.0.2.1"
    protocol: str = "http"
    started: float = 0.0
    idle_since: float = 0.0
    moved: bool = False
    status: int = 0
    request_ended: bool = False
    request_paused: bool = False
    body: list[bytes] | None = field(default_factory=list)
    body_size: int = 0

    @property
    def head(self) -> RequestHead:
        return RequestHead(b"POST", b"catalog", b"/", [], self.length)

    @property
    def caller(self) -> SimpleNamespace:
        return SimpleNamespace(source=self.source)

    @property
    def downstream(self) -> SimpleNamespace:
        return SimpleNamespace(address=self.address)


def stalls(one: Fake, now: float) -> bool:
    """Say whether it does, among enough others."""
    others = [Fake(address=f"198.51.100.{n}", request_ended=True) for n in range(8)]
    return StalledBodies.among([one, *others], now) == [one]


def test_who_says_nothing_stalls() -> None:
    """But not at once."""
    assert not stalls(Fake(), PATIENCE - 0.1)
    assert stalls(Fake(), PATIENCE)


@pytest.mark.parametrize(
    "other",
    [
        Fake(request_ended=True),
        Fake(length=None),
        Fake(length=TUNNEL),
        Fake(request_paused=True),
        Fake(status=200),
        Fake(length=CHUNKED, protocol="grpc", body_size=5),
    ],
    ids=[
        "complete",
        "no body",
        "tunnel",
        "told to wait",
        "being answered",
        "a call that has begun",
    ],
)
def test_who_is_not_to_blame_does_not(other: Fake) -> None:
    """It is the app's turn, or ours, or may be."""
    assert not stalls(other, 1000.0)


def test_a_call_that_has_said_nothing_stalls() -> None:
    """No app can be at work on it."""
    assert stalls(Fake(length=CHUNKED, protocol="grpc"), PATIENCE)


def test_a_body_that_comes_is_waited_for() -> None:
    """However long it takes, if it comes to something."""
    one = Fake(length=1 << 30, body=None)
    for second in range(1, 100):
        one.moved = True
        one.body_size += RATE
        assert not stalls(one, float(second))
    assert not stalls(one, 99 + PATIENCE - 0.1)
    assert stalls(one, 99 + PATIENCE)


def test_a_byte_now_and_then_is_no_body() -> None:
    """Who keeps a place with next to nothing keeps it from others."""
    one = Fake()
    for second in range(1, 100):
        one.moved = True
        one.body_size += 1
        if stalls(one, float(second)):
            break
    assert second < PATIENCE + 2


def test_who_has_many_is_waited_for_less() -> None:
    """By identity, and by address where there is none; the others keep their patience."""
    for crowd in ([Fake() for _ in range(10)], [Fake(source="spiffe://a/b") for _ in range(10)]):
        lone = [Fake(address=f"198.51.100.{n}") for n in range(10)]
        assert StalledBodies.among([*crowd, *lone], HURRIED) == crowd
        assert StalledBodies.among([*crowd, *lone], PATIENCE) == [*crowd, *lone]


def test_a_look_is_not_worth_it_each_time() -> None:
    """It is work, and who is refused asks again soon."""
    stalled = StalledBodies()
    assert stalled.look(10.0)
    assert not stalled.look(10.0 + PAUSE / 2)
    assert stalled.look(10.0 + PAUSE)
