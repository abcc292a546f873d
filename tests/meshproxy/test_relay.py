"""The story of an opaque connection, with its neighbours played by recorders."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from meshproxy.contract.policies import HashKeySpec, RetryBudgetSpec
from meshproxy.contract.resources import TcpBackendSpec, TcpRouteSpec, TcpRuleSpec
from meshproxy.message import Field
from meshproxy.policies.deadline import NO_TIMEOUTS
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.consistent_hashing import hash_of
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.relay import EARLY_LIMIT, Cluster, Endpoint, Relay
from meshproxy.routing.tcp import TcpRoute, compile_tcp_route
from meshproxy.telemetry.metrics import TcpSeries
from meshproxy.timer_wheel import TimerWheel
from tests.helpers.recorder import Recorder


class FakeEndpoint:
    """Reached when the test says so."""

    def __init__(self) -> None:
        self.active = 0
        self.waiting: list[Relay] = []
        self.judged: list[tuple[str, float]] = []

    def connect(self, relay: Relay) -> None:
        self.waiting.append(relay)

    def disconnect(self, relay: Relay) -> None:
        self.waiting.remove(relay)

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        assert (status, grpc_status, began) == (0, None, 100.0)
        self.judged.append((code, seconds))

    def way(self) -> Recorder:
        """Give the relay that waits a side that is not yet known to lead anywhere."""
        side = Recorder()
        self.waiting.pop(0).on_upstream_ready(side)
        return side


class FakeCluster:
    service = "default/broker"

    def __init__(self, *endpoints: FakeEndpoint) -> None:
        self.endpoints = endpoints
        self.connections = Limit("connections")
        self.retry, self.budget = Retry(), RetryBudget()
        self.timeouts = NO_TIMEOUTS
        self.hash_key: HashKey | None = None
        self.keys: list[int | None] = []

    def pick(self, avoid: Collection[object] | None, key: int | None) -> Endpoint | None:
        self.keys.append(key)
        others = [one for one in self.endpoints if one not in (avoid or ())]
        return next(iter(others or self.endpoints), None)

    def admits(self, limit: Limit) -> bool:
        return not limit.full

    def refusal(self, limit: Limit) -> tuple[str, str, list[Field]]:
        return ("overflow" if limit.full else "circuit-open"), "", []


class FakeSurroundings:
    def __init__(self) -> None:
        self.time = 100.0
        self.now: Callable[[], float] = lambda: self.time
        self.ticks: list[Callable[[], None]] = []
        self.timers: TimerWheel[Relay] = TimerWheel(
            self.now, lambda _seconds, tick: self.ticks.append(tick)
        )
        self.random: Callable[[], float] = lambda: 0.5
        self.due: list[Callable[[], None]] = []
        self.retries: list[str] = []
        self.skipped: list[str] = []
        self.refusals: list[str] = []

    def rest(self, seconds: int) -> None:
        """Let time pass, a second at a time."""
        for _ in range(seconds):
            self.time += 1.0
            ticks, self.ticks = self.ticks, []
            for tick in ticks:
                tick()

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def retried(self, service: str, reason: str) -> None:
        self.retries.append(reason)

    def retry_skipped(self, service: str, reason: str) -> None:
        self.skipped.append(reason)

    def refused(self, direction: str, code: str) -> None:
        self.refusals.append(code)


class FakeGuard:
    def __init__(self, *, stops: bool) -> None:
        self.stops = stops

    def stop_connection(self, downstream: object) -> bool:  # the guard's shape
        return self.stops


class FakeCaller:
    direction = "outbound"
    source = "spiffe://test.mesh/ns/default/sa/storefront"

    def __init__(self, route: TcpRoute[Cluster] | None) -> None:
        self.surroundings = FakeSurroundings()
        self.tcp_route = route
        self.guard: FakeGuard | None = None
        self.relays: set[Relay] = set()
        self.counted: dict[tuple[str, str], TcpSeries] = {}

    def connections(self, route: str, service: str) -> TcpSeries:
        return self.counted.setdefault((route, service), TcpSeries())


class Scene:
    def __init__(self, *rules: TcpRuleSpec, endpoints: int = 2) -> None:
        self.endpoints = [FakeEndpoint() for _ in range(endpoints)]
        self.cluster = FakeCluster(*self.endpoints)
        clusters: dict[str, Cluster] = {"broker": self.cluster}
        rules = rules or (TcpRuleSpec(name="all", backends=(TcpBackendSpec(cluster="broker"),)),)
        self.caller = FakeCaller(compile_tcp_route(TcpRouteSpec(name="r", rules=rules), clusters))
        self.surroundings = self.caller.surroundings
        self.client: Any = Recorder()
        self.relay = Relay(self.client, self.caller)

    def connect(self) -> Recorder:
        """Begin, and let the first endpoint be there."""
        self.relay.begin()
        side = self.endpoints[0].way()
        self.relay.on_upstream_connected()
        return side

    def tick(self) -> None:
        due, self.surroundings.due = self.surroundings.due, []
        for callback in due:
            callback()

    @property
    def series(self) -> TcpSeries:
        return self.caller.counted["all", "default/broker"]


def test_bytes_and_ends_pass_in_both_directions() -> None:
    """Each half on its own; the last one ends the story, which is counted."""
    scene = Scene()
    server = scene.connect()
    relay = scene.relay
    relay.on_downstream_data(b"ask")
    relay.on_downstream_end()
    relay.on_upstream_data(b"answer")
    assert not relay.done
    assert scene.series.active == 1
    relay.on_upstream_end()

    assert server.heard == [("send_data", b"ask"), ("send_end",)]
    assert scene.client.heard == [("established",), ("send_data", b"answer"), ("send_end",)]
    assert (scene.series.received, scene.series.sent, scene.series.flags) == (3, 6, {"-": 1})
    assert scene.endpoints[0].active == 0


def test_the_server_may_end_first() -> None:
    """The client goes on, and all of it arrives."""
    scene = Scene()
    server = scene.connect()
    scene.relay.on_upstream_end()
    scene.relay.on_downstream_data(b"more")
    scene.relay.on_downstream_end()
    assert server.heard == [("send_data", b"more"), ("send_end",)]
    assert scene.relay.done


def test_what_comes_early_waits_and_keeps_its_order() -> None:
    """Also an end, and views that are valid only while they are shown."""
    scene = Scene()
    scene.relay.begin()
    buffer = bytearray(b"one")
    scene.relay.on_downstream_data(memoryview(buffer))
    buffer[:] = b"xxx"
    scene.relay.on_downstream_data(b"two")
    scene.relay.on_downstream_end()
    server = scene.endpoints[0].way()
    assert server.heard == [("send_data", b"one"), ("send_data", b"two"), ("send_end",)]


def test_a_client_that_says_much_too_early_is_paused() -> None:
    """Until somebody takes it; nothing of it is lost."""
    scene = Scene()
    scene.relay.begin()
    scene.relay.on_downstream_data(b"x" * EARLY_LIMIT)
    assert scene.client.words == []
    scene.relay.on_downstream_data(b"y")
    assert scene.client.words == ["pause"]
    server = scene.endpoints[0].way()
    assert scene.client.words == ["pause", "resume"]
    assert sum(len(call[1]) for call in server.heard) == EARLY_LIMIT + 1


@pytest.mark.parametrize("said", [b"", b"ask"])
def test_another_endpoint_is_asked_when_one_is_not_there(said: bytes) -> None:
    """Also when bytes were sent ahead: it is known that nobody has heard them."""
    scene = Scene()
    scene.relay.begin()
    if said:
        scene.relay.on_downstream_data(said)
    scene.endpoints[0].way()
    scene.relay.on_upstream_failed("connect-failed")
    assert (scene.surroundings.retries, scene.client.words) == (["connect-failed"], [])
    scene.tick()
    server = scene.endpoints[1].way()
    assert server.heard == ([("send_data", said)] if said else [])
    assert (scene.endpoints[0].active, scene.endpoints[1].active) == (0, 1)


def test_each_further_attempt_asks_who_was_not_asked() -> None:
    """The third one the third."""
    scene = Scene(endpoints=3)
    *others, third = scene.endpoints
    scene.relay.begin()
    for endpoint in others:
        endpoint.way()
        scene.relay.on_upstream_failed("connect-failed")
        scene.tick()
    assert third.waiting == [scene.relay]


def test_nothing_is_said_twice_that_may_have_been_heard() -> None:
    """A tunnel lost before the answer: bytes that went ahead may have arrived."""
    silent = Scene()
    silent.relay.begin()
    silent.endpoints[0].way()
    silent.relay.on_upstream_reset("upstream-closed")
    assert silent.surroundings.retries == ["upstream-closed"]

    talking = Scene()
    talking.relay.begin()
    talking.endpoints[0].way()
    talking.relay.on_downstream_data(b"pay")
    talking.relay.on_upstream_reset("upstream-closed")
    assert talking.surroundings.retries == []
    assert talking.client.heard == [("refuse", "upstream-closed")]


def test_attempts_and_budget_hold_for_connections_too() -> None:
    """Three tries; and when the budget is spent, what there is to say is said at once."""
    scene = Scene()
    scene.relay.begin()
    for endpoint in (0, 1, 0):
        scene.endpoints[endpoint].way()
        scene.relay.on_upstream_failed("connect-failed")
        scene.tick()
    assert scene.surroundings.retries == ["connect-failed"] * 2
    assert scene.client.heard == [("refuse", "connect-failed")]

    scene = Scene()
    scene.cluster.budget = RetryBudget(RetryBudgetSpec(percent=0, min_count=0))
    scene.relay.begin()
    scene.endpoints[0].way()
    scene.relay.on_upstream_failed("connect-failed")
    assert scene.surroundings.skipped == ["budget"]
    assert scene.client.heard == [("refuse", "connect-failed")]


def test_what_is_not_kept_cannot_be_said_again() -> None:
    """The missed attempt is counted as such."""
    scene = Scene()
    scene.relay.begin()
    scene.endpoints[0].way()
    scene.relay.on_downstream_data(b"x" * (EARLY_LIMIT + 1))
    scene.relay.on_upstream_failed("connect-failed")
    assert scene.surroundings.skipped == ["body-too-large"]
    assert scene.client.heard == [("refuse", "connect-failed")]


def test_attempts_come_to_an_end() -> None:
    """Then the client is refused, with the flag of the last failure."""
    scene = Scene()
    scene.relay.begin()
    for _ in range(3):
        scene.tick()
        scene.relay.on_upstream_failed("connect-timeout")
    assert scene.surroundings.refusals == ["connect-timeout"]
    assert scene.client.heard == [("refuse", "connect-timeout")]
    assert scene.series.flags == {"UF": 1}


def test_a_reset_is_passed_on_as_one() -> None:
    """From either side; never as an end."""
    scene = Scene()
    scene.connect()
    scene.relay.on_upstream_reset("upstream-reset")
    assert scene.client.words == ["established", "reset"]
    assert scene.series.flags == {"UR": 1}

    scene = Scene()
    server = scene.connect()
    scene.relay.on_downstream_reset()
    assert server.words == ["reset"]
    assert scene.series.flags == {"DC": 1}
    assert scene.endpoints[0].active == 0


def test_a_client_that_leaves_early_is_not_connected() -> None:
    """While an endpoint is dialled, and while another attempt is waited for."""
    scene = Scene()
    scene.relay.begin()
    scene.relay.on_downstream_reset()
    assert scene.endpoints[0].waiting == []

    scene = Scene()
    scene.relay.begin()
    scene.relay.on_upstream_failed("connect-failed")
    scene.relay.on_downstream_reset()
    scene.tick()
    assert scene.endpoints[1].waiting == []


def test_the_slower_side_pauses_the_other() -> None:
    """In both directions, and from the moment of the connection on."""
    scene = Scene()
    server = scene.connect()
    relay = scene.relay
    relay.on_upstream_blocked()
    relay.on_upstream_blocked()
    relay.on_upstream_writable()
    relay.on_downstream_blocked()
    relay.on_downstream_writable()
    assert scene.client.words == ["established", "pause", "resume"]
    assert server.words == ["pause", "resume"]

    scene = Scene()
    scene.client.blocked = True
    assert scene.connect().words == ["pause"]


@pytest.mark.parametrize(
    ("scene", "code", "flag", "labels"),
    [
        (Scene(TcpRuleSpec(name="r", server_names=("a.b",))), "no-route", "NR", ("-", "-")),
        (Scene(TcpRuleSpec(name="r")), "unresolved-backend", "NC", ("r", "-")),
        (
            Scene(TcpRuleSpec(name="r", backends=(TcpBackendSpec(cluster=None),))),
            "unresolved-backend",
            "NC",
            ("r", "-"),
        ),
        (Scene(endpoints=0), "circuit-open", "UO", ("all", "default/broker")),
    ],
    ids=["no rule", "no backend", "unresolved", "no endpoint"],
)
def test_refusals_are_told_and_counted(
    scene: Scene, code: str, flag: str, labels: tuple[str, str]
) -> None:
    """Under the route that was found, as far as one was."""
    scene.relay.begin()
    assert scene.client.heard == [("refuse", code)]
    assert scene.surroundings.refusals == [code]
    assert {key: series.flags for key, series in scene.caller.counted.items()} == {
        labels: {flag: 1}
    }
    assert scene.relay.done


def test_without_a_route_there_is_none() -> None:
    """A listener that knows HTTP alone."""
    scene = Scene()
    scene.caller.tcp_route = None
    scene.relay.begin()
    assert scene.client.heard == [("refuse", "no-route")]


def test_the_name_decides() -> None:
    """The rule that asks for it takes the connection."""
    named = TcpRuleSpec(
        name="named", server_names=("a.b",), backends=(TcpBackendSpec(cluster="broker"),)
    )
    scene = Scene(named, TcpRuleSpec(name="rest"))
    scene.relay.begin("a.b")
    assert list(scene.caller.counted) == [("named", "default/broker")]


# What its endpoint learns of it --------------------------------------------------------------------


def test_a_connection_is_judged_once_and_as_soon_as_it_stands() -> None:
    """What becomes of it later is between the client and the app."""
    scene = Scene()
    scene.relay.begin()
    side = scene.endpoints[0].way()
    assert scene.endpoints[0].judged == []
    scene.surroundings.now = lambda: 100.5
    scene.relay.on_upstream_connected()
    assert scene.endpoints[0].judged == [("", 0.5)]
    assert scene.cluster.connections.count == 1

    del side
    scene.relay.on_upstream_reset("upstream-reset")
    assert scene.endpoints[0].judged == [("", 0.5)]
    assert scene.cluster.connections.count == 0


def test_each_endpoint_learns_of_the_attempt_that_it_failed() -> None:
    """One that is not there, then one that is."""
    scene = Scene()
    scene.relay.begin()
    scene.endpoints[0].waiting.pop(0).on_upstream_failed("connect-failed")
    scene.surroundings.due.pop()()
    scene.endpoints[1].way()
    scene.relay.on_upstream_connected()
    assert scene.endpoints[0].judged == [("connect-failed", 0.0)]
    assert scene.endpoints[1].judged == [("", 0.0)]


def test_a_client_that_leaves_proves_nothing() -> None:
    """The endpoint hears that nobody waited."""
    scene = Scene()
    scene.relay.begin()
    scene.relay.on_downstream_reset()
    assert scene.endpoints[0].judged == [("downstream-closed", 0.0)]
    assert scene.cluster.connections.count == 0


def test_no_connection_above_the_limit() -> None:
    """It is refused at once, and an endpoint never hears of it."""
    scene = Scene()
    scene.cluster.connections.set(0)
    scene.relay.begin()
    assert scene.surroundings.refusals == ["overflow"]
    assert not scene.endpoints[0].waiting


def test_an_opaque_connection_is_hashed_by_its_caller() -> None:
    """By nothing else: nobody looks inside.  The second attempt has the same key."""
    scene = Scene()
    scene.cluster.hash_key = HashKey((HashKeySpec(source="address"),))
    scene.relay.begin()
    scene.relay.on_upstream_failed("connect-failed")
    scene.tick()
    key = hash_of(scene.client.address.encode())
    assert scene.cluster.keys == [key, key]


# Limits of time -----------------------------------------------------------------------------------


def test_silence_has_no_limit_unless_somebody_wants_one() -> None:
    """A pool of database connections is silent with reason; TCP keep-alive finds out who is gone."""
    scene = Scene()
    scene.connect()
    scene.surroundings.rest(10)
    assert scene.surroundings.timers.count == 0


def test_a_limit_of_silence() -> None:
    """Whatever passes, in either direction, begins it anew; then both sides are reset."""
    scene = Scene()
    scene.cluster.timeouts = NO_TIMEOUTS._replace(tunnel_idle=8.0)
    server = scene.connect()
    for say in (scene.relay.on_downstream_data, scene.relay.on_upstream_data) * 3:
        scene.surroundings.rest(7)
        assert not scene.relay.done
        say(b"x")
    scene.surroundings.rest(13)
    assert (server.words[-1], scene.client.words[-1]) == ("reset", "reset")
    assert scene.surroundings.refusals == ["stream-idle"]
    assert scene.series.flags == {"SI": 1}
    assert scene.surroundings.timers.count == 0


def test_a_limit_of_all() -> None:
    """However much passes."""
    scene = Scene()
    scene.cluster.timeouts = NO_TIMEOUTS._replace(duration=5.0)
    scene.connect()
    for _ in range(6):
        scene.relay.on_upstream_data(b"x")
        scene.surroundings.rest(1)
    assert scene.client.words[-1] == "reset"
    assert scene.series.flags == {"UMSDR": 1}


def test_a_connection_that_ends_leaves_no_timer_behind() -> None:
    """Nobody comes back to it."""
    scene = Scene()
    scene.cluster.timeouts = NO_TIMEOUTS._replace(duration=5.0)
    scene.connect()
    assert scene.surroundings.timers.count == 1
    scene.relay.on_downstream_reset()
    assert scene.surroundings.timers.count == 0


# Who may connect ------------------------------------------------------------------------------------


def test_who_may_not_connect_is_refused_before_anything_is_dialled() -> None:
    """And counted as everything that is refused."""
    scene = Scene()
    scene.caller.guard = FakeGuard(stops=True)
    scene.relay.begin()
    assert scene.client.heard == [("refuse", "access-denied")]
    assert not any(endpoint.waiting for endpoint in scene.endpoints)
    assert scene.caller.relays == set()


def test_a_policy_that_comes_later_resets_what_it_forbids() -> None:
    """Neither end may take it for the end of what was said."""
    scene = Scene()
    side = scene.connect()
    assert scene.caller.relays == {scene.relay}
    scene.relay.forbid()
    assert side.words[-1] == "reset"
    assert scene.client.words[-1] == "reset"
    assert scene.series.flags == {"UAEX": 1}
    assert scene.caller.relays == set()
    scene.relay.forbid()
    assert scene.series.flags == {"UAEX": 1}


def test_a_policy_that_comes_while_an_endpoint_is_dialled() -> None:
    """Nobody waits for it any more."""
    scene = Scene()
    scene.relay.begin()
    scene.relay.forbid()
    assert not any(endpoint.waiting for endpoint in scene.endpoints)
    assert scene.client.words[-1] == "reset"


def test_when_memory_is_short_both_ends_are_reset() -> None:
    """Once, and with a flag of its own."""
    scene = Scene()
    side = scene.connect()
    scene.relay.on_memory_short()
    scene.relay.on_memory_short()
    assert (side.words[-1], scene.client.words[-1]) == ("reset", "reset")
    assert scene.series.flags == {"OM": 1}
