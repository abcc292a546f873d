"""A mirrored request, told with recorders in place of connections."""

from collections.abc import Callable
from typing import Any

import pytest

from meshproxy.message import CHUNKED, Field, RequestHead, ResponseHead, field
from meshproxy.mirror import Mirror
from meshproxy.policies.limits import Limit
from meshproxy.policies.mirroring import AT_ONCE, DROPPED, HELD_EACH, MARK, TIMEOUT, Load
from meshproxy.policies.propagation import criticality_field
from meshproxy.timer_wheel import TICK, TimerWheel
from tests.helpers.recorder import Recorder


class Endpoint:
    def __init__(self) -> None:
        self.active = 0
        self.waiting: list[Any] = []
        self.judged: list[tuple[int, str | None, str]] = []

    def acquire(self, exchange: Any) -> None:
        self.waiting.append(exchange)

    def forget(self, exchange: Any) -> None:
        self.waiting.remove(exchange)

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        self.judged.append((status, grpc_status, code))


class Cluster:
    service = "default/shadow"

    def __init__(self, endpoint: Endpoint | None) -> None:
        self.mirrors = Load()
        self.mtls = True
        self.requests = Limit("requests")
        self._endpoint = endpoint

    def pick(self, avoid: None, key: None) -> Endpoint | None:
        return self._endpoint

    def admits(self, limit: Limit) -> bool:
        return not limit.full

    def refusal(self, limit: Limit) -> tuple[str, str, list[Field]]:
        return "overflow" if limit.full else "no-healthy-endpoint", "", []


class Surroundings:
    def __init__(self) -> None:
        self.time = 100.0
        self.ticks: list[Any] = []
        self.now: Callable[[], float] = lambda: self.time
        self.timers: TimerWheel[Any] = TimerWheel(self.now, lambda _, tick: self.ticks.append(tick))
        self.outcomes: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        ticks, self.ticks = self.ticks, []
        for tick in ticks:
            tick()

    def mirrored(self, service: str, outcome: str) -> None:
        self.outcomes.append(outcome)


class Scene:
    """A mirror, and an endpoint whose connections come when the test says so."""

    def __init__(self, length: int | None = CHUNKED, *, grpc: bool = False) -> None:
        self.endpoint = Endpoint()
        self.cluster = Cluster(self.endpoint)
        self.around = Surroundings()
        fields = [field(b"content-type", b"application/grpc")] if grpc else []
        self.head = RequestHead(b"POST", b"catalog", b"/", fields, length)
        self.mirror = Mirror(self.head, self.cluster, self.around)
        self.mirror.begin()

    def lend(self) -> Recorder:
        stream = Recorder()
        self.endpoint.waiting.pop().on_upstream_ready(stream)
        return stream

    def over(self, outcome: str) -> None:
        """Nothing is left but the count."""
        assert self.around.outcomes == [outcome]
        assert self.mirror.done
        assert (self.endpoint.active, self.cluster.mirrors.active, self.cluster.mirrors.held) == (
            0, 0, 0,
        )  # fmt: skip
        assert self.around.timers.count == self.cluster.requests.count == 0
        assert len(self.endpoint.judged) == 1
        assert not self.endpoint.waiting


def test_the_whole_request_goes_out() -> None:
    """Marked, and to be turned away first; what came before the connection is said when it comes."""
    scene = Scene()
    scene.mirror.on_request_data(b"one")
    stream = scene.lend()
    scene.mirror.on_request_data(b"two")
    scene.mirror.on_request_end([field(b"x-sum", b"3")])
    assert stream.heard == [
        ("send_head", scene.mirror.head),
        ("send_data", b"one"),
        ("send_data", b"two"),
        ("send_end", [field(b"x-sum", b"3")]),
    ]
    assert scene.mirror.head.fields == [MARK, criticality_field("sheddable")]
    assert scene.head.fields == []
    scene.mirror.on_response_head(ResponseHead(201, []))
    scene.mirror.on_response_data(b"dropped")
    scene.mirror.on_response_end(None)
    scene.over("2xx")
    assert scene.endpoint.judged == [(201, None, "")]


def test_a_request_without_a_body() -> None:
    """Is its head; the end of its answer may come with the last data."""
    scene = Scene(None)
    stream = scene.lend()
    assert stream.heard == [("send_head", scene.mirror.head)]
    scene.mirror.on_response_head(ResponseHead(404, []))
    scene.mirror.on_response_data(b"dropped", True)
    scene.over("4xx")


@pytest.mark.parametrize("fields", [[field(b"grpc-status", b"5")], []])
def test_a_call_is_counted_by_its_status(fields: list[Any]) -> None:
    """In the trailers, or in the head of an answer without a body."""
    scene = Scene(grpc=True)
    scene.lend()
    scene.mirror.on_request_data(b"call", True)
    scene.mirror.on_response_head(ResponseHead(200, fields))
    scene.mirror.on_response_end(None if fields else [field(b"grpc-status", b"5")])
    scene.over("grpc-5")


def test_a_slow_endpoint_is_waited_for_with_bounds() -> None:
    """What it does not take is held, in order; too much, and it is given up."""
    scene = Scene()
    stream = scene.lend()
    stream.blocked = True
    scene.mirror.on_request_data(b"a")
    scene.mirror.on_request_data(b"b")
    assert stream.words == ["send_head"]
    stream.blocked = False
    scene.mirror.on_upstream_writable()
    assert stream.heard[1:] == [("send_data", b"a"), ("send_data", b"b")]
    stream.blocked = True
    scene.mirror.on_upstream_blocked()
    scene.mirror.on_request_data(b"x" * HELD_EACH)
    assert not scene.mirror.done
    scene.mirror.on_request_data(b"y")
    assert stream.words[-1] == "reset"
    scene.over("overflow")
    scene.mirror.on_request_data(b"more")  # of which it hears no more
    scene.mirror.on_request_end(None)
    assert stream.words[-1] == "reset"


def test_the_end_waits_its_turn() -> None:
    """Behind what is held."""
    scene = Scene()
    stream = scene.lend()
    stream.blocked = True
    scene.mirror.on_request_data(b"a", True)
    assert stream.words == ["send_head"]
    stream.blocked = False
    scene.mirror.on_upstream_writable()
    assert stream.heard[1:] == [("send_data", b"a"), ("send_end", None)]


def test_an_endpoint_that_cannot_be_had() -> None:
    """Is the end of it: there is no second attempt."""
    scene = Scene()
    scene.mirror.on_request_data(b"held")
    scene.endpoint.waiting.pop().on_upstream_failed("connect-failed")
    scene.over("connect-failed")


def test_no_endpoint() -> None:
    """Is counted, too."""
    around, cluster = Surroundings(), Cluster(None)
    mirror = Mirror(RequestHead(b"GET", b"a", b"/", []), cluster, around)
    mirror.begin()
    assert around.outcomes == ["no-healthy-endpoint"]
    assert cluster.mirrors.active == 0


def test_too_many_at_once() -> None:
    """One more is not begun."""
    scene = Scene()
    scene.cluster.mirrors.active = AT_ONCE
    more = Mirror(scene.head, scene.cluster, scene.around)
    more.begin()
    more.on_request_data(b"a")
    more.on_request_end(None)
    assert scene.around.outcomes == ["too-many"]
    assert scene.cluster.mirrors.active == AT_ONCE
    assert len(scene.endpoint.waiting) == 1
    scene.cluster.mirrors.active = 1
    scene.cluster.requests.set(1)
    Mirror(scene.head, scene.cluster, scene.around).begin()
    assert scene.around.outcomes == ["too-many", "overflow"]


def test_an_answer_that_does_not_come() -> None:
    """Is waited for so long, counted from the end of the request."""
    scene = Scene()
    stream = scene.lend()
    scene.around.sleep(TIMEOUT * 2)
    assert not scene.mirror.done
    scene.mirror.on_request_end(None)
    scene.around.sleep(TIMEOUT - TICK)
    assert not scene.mirror.done
    scene.around.sleep(3 * TICK)
    assert stream.words[-1] == "reset"
    scene.over("timeout")
    assert scene.endpoint.judged == [(0, None, "deadline-exceeded")]


def test_a_connection_that_does_not_come() -> None:
    """Is waited for no longer, either."""
    scene = Scene(None)
    scene.around.sleep(TIMEOUT + 2 * TICK)
    scene.over("timeout")


def test_an_endless_answer() -> None:
    """Nobody reads it: the stream is reset; what became of the request is known."""
    scene = Scene(None)
    stream = scene.lend()
    scene.mirror.on_response_head(ResponseHead(200, []))
    scene.mirror.on_response_data(b"x" * DROPPED)
    assert not scene.mirror.done
    scene.mirror.on_response_data(b"x")
    assert stream.words[-1] == "reset"
    scene.over("2xx")


def test_a_broken_answer() -> None:
    """Is the mirror's affair alone."""
    scene = Scene(None)
    scene.lend()
    scene.mirror.on_response_informational(ResponseHead(103, []))
    scene.mirror.on_response_reset("upstream-closed", reused=False)
    scene.over("upstream-closed")


def test_half_a_request_is_given_up() -> None:
    """When the original has ended before it had said all; a complete one goes on."""
    scene = Scene()
    stream = scene.lend()
    scene.mirror.on_request_data(b"half")
    scene.mirror.on_original_ended()
    assert stream.words[-1] == "reset"
    scene.over("unfinished")

    scene = Scene()
    scene.lend()
    scene.mirror.on_request_data(b"all", True)
    scene.mirror.on_original_ended()
    assert not scene.mirror.done


def test_a_copy_that_is_turned_away_says_nothing_about_the_endpoint() -> None:
    """Copies are the first to be turned away when their app is busy."""
    scene = Scene(length=None)
    scene.lend()
    head = ResponseHead(503, [], length=0)
    head.mesh_fields = [field(b"x-mesh-refusal", b"overloaded")]
    scene.mirror.on_response_head(head)
    scene.mirror.on_response_end(None)
    scene.over("5xx")
    assert scene.endpoint.judged == [(503, None, "overloaded")]
