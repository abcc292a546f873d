"""One request and its response, told with recorders in place of connections."""

from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Any, cast

import pytest

from meshproxy.codec.grpc import timeout_of
from meshproxy.contract.matching import MatchSpec, PathMatchSpec
from meshproxy.contract.policies import HashKeySpec, SessionPersistenceSpec
from meshproxy.contract.resources import (
    BackendSpec,
    HeaderModifierSpec,
    HeaderSpec,
    PathRewriteSpec,
    RedirectSpec,
    RewriteSpec,
    RouteSpec,
    VirtualHostSpec,
)
from meshproxy.exchange import (
    HOLD_LIMIT,
    LARGE,
    LASTING,
    NOTICEABLE,
    Exchange,
)
from meshproxy.message import CHUNKED, TUNNEL, Field, RequestHead, ResponseHead, field, value_of
from meshproxy.neighbours import Caller, Cluster, Endpoint, Guard, Series, Surroundings
from meshproxy.policies.deadline import LOOK, NO_TIMEOUTS, compiled
from meshproxy.policies.hedging import Latencies
from meshproxy.policies.limits import Limit
from meshproxy.policies.load_balancing.hash_key import HashKey
from meshproxy.policies.load_balancing.session import Session
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.policies.loop_detection import LoopDetection
from meshproxy.policies.mirroring import Load
from meshproxy.policies.outcome import FAIR, HURRIED
from meshproxy.policies.propagation import Propagation
from meshproxy.policies.replay import ReplayMemory
from meshproxy.policies.retry import Retry
from meshproxy.policies.retry_budget import RetryBudget
from meshproxy.policies.stalled_bodies import StalledBodies
from meshproxy.refusal import REFUSALS, refusal
from meshproxy.routing.table import Authorities, VirtualHost, compile_virtual_host
from meshproxy.timer_wheel import TICK, TimerWheel
from tests.helpers.recorder import Recorder


class Client(Recorder):
    """A connection that stays what it is when protocols are switched, as an HTTP/2 stream does."""

    is_connection = True

    def switch(self, head: ResponseHead) -> "Client":
        self.heard.append(("switch", head))
        return self

    def start_over(self, head: ResponseHead) -> bool:
        self.heard.append(("start_over", head))
        return self.is_connection


class FakeEndpoint(Endpoint):
    """An endpoint whose connections come when the test says so."""

    def __init__(self, name: str = "127.0.0.1:1") -> None:
        self.active = 0
        self.apart = 0
        self.name = name
        self.version = "v1"
        self.waiting: list[Exchange] = []
        self.judged: list[tuple[int, str | None, str, float]] = []

    def acquire_apart(self, exchange: Exchange) -> None:
        self.apart += 1
        self.acquire(exchange)

    def acquire(self, exchange: Exchange) -> None:
        self.waiting.append(exchange)

    def forget(self, exchange: Exchange) -> None:
        self.waiting.remove(exchange)

    def judge(
        self, status: int, grpc_status: str | None, code: str, seconds: float, began: float
    ) -> None:
        assert began >= 100.0
        self.judged.append((status, grpc_status, code, seconds))

    def lend(self) -> Recorder:
        """Hand a fresh stream to the exchange that waits."""
        stream = Recorder()
        self.waiting.pop(0).on_upstream_ready(stream)
        return stream


class FakeCluster(Cluster):
    def __init__(self, *endpoints: FakeEndpoint) -> None:
        self.service = "default/catalog"
        self.shedding = None
        self.endpoints = endpoints
        self.available = endpoints
        self.pick = self._pick
        self.mirrors = Load()
        self.stalled = StalledBodies()
        self.requests = Limit("requests")
        self.retries = Limit("retries")
        self.mtls = False
        self.retry = Retry()
        self.budget = RetryBudget()
        self.latencies = Latencies()
        self.timeouts = NO_TIMEOUTS
        self.sticky = False
        self.hash_key = None
        self.session = None
        self.keys: list[int | None] = []

    def resume(self, wanted: bytes, tokens: Tokens) -> Endpoint | None:
        named = {tokens.id_of(endpoint.name): endpoint for endpoint in self.endpoints}
        return named.get(wanted)

    def _pick(self, avoid: Collection[object] | None, key: int | None) -> Endpoint | None:
        self.keys.append(key)
        others = [one for one in self.endpoints if one not in (avoid or ())]
        return next(iter(others or self.endpoints), None)

    def admits(self, limit: Limit) -> bool:
        return not limit.full

    def refusal(self, limit: Limit) -> tuple[str, str, list[Field]]:
        if limit.full:
            return "overflow", "", []
        return "circuit-open", "try again later", [field(b"Retry-After", b"3")]


class FakeSurroundings(Surroundings):
    """A clock that stands still, chance that is known, and `later` at the test's word."""

    def __init__(self) -> None:
        self.exchanges = set()
        self.tunnels = 0
        self.tokens = None
        self.propagation = Propagation()
        self.replay = ReplayMemory(1 << 20)
        self.cancellations: list[str] = []
        self.time = 100.0
        self.now = lambda: self.time
        self.random = lambda: 0.5
        self.due: list[Callable[[], None]] = []
        self.waits: list[float] = []
        self.retries: list[str] = []
        self.shaped: list[tuple[str, str]] = []
        self.skipped: list[str] = []
        self.hedges: list[str] = []
        self.refusals: list[str] = []
        self.ticks: list[Callable[[], None]] = []
        self.timers = self.wheel = TimerWheel[Exchange](
            self.now, lambda _seconds, tick: self.ticks.append(tick)
        )

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)
        self.waits.append(seconds)

    def retried(self, service: str, reason: str) -> None:
        self.retries.append(reason)

    def rate_limited(self, direction: str, limit: str, why: str) -> None:
        self.shaped.append((limit, why))

    def fault_injected(self, direction: str, fault: str, kind: str) -> None:
        self.shaped.append((fault, kind))

    def shed(self, service: str, criticality: str) -> None:
        self.shaped.append((service, criticality))

    def mirrored(self, service: str, outcome: str) -> None:
        self.shaped.append((service, outcome))

    def retry_skipped(self, service: str, reason: str) -> None:
        self.skipped.append(reason)

    def hedged(self, service: str) -> None:
        self.hedges.append("begun")

    def hedge_won(self, service: str) -> None:
        self.hedges.append("won")

    def refused(self, direction: str, code: str) -> None:
        self.refusals.append(code)

    def cancelled(self, service: str) -> None:
        self.cancellations.append(service)

    def sleep(self, seconds: float) -> None:
        """Let time pass, and deadlines with it; first, somebody looks at all exchanges."""
        if seconds >= LOOK:
            for exchange in [one for one in self.exchanges if hasattr(one, "head")]:
                exchange.on_look(self.time)
        self.time += seconds
        ticks, self.ticks = self.ticks, []
        for tick in ticks:
            tick()

    def tick(self) -> None:
        """Let everything happen that was put off."""
        due, self.due = self.due, []
        for callback in due:
            callback()


class FakeGuard(Guard):
    """Stops what the test tells it to."""

    def __init__(self, why: tuple[str, str, Sequence[Field]] | None) -> None:
        self.why = why
        self.heads: list[RequestHead] = []

    def stop(
        self,
        head: RequestHead,
        downstream: object,  # the guard's shape
    ) -> tuple[str, str, Sequence[Field]] | None:
        self.heads.append(head)
        return self.why


class FakeCaller(Caller):
    surroundings: FakeSurroundings

    def __init__(self, host: VirtualHost[Cluster]) -> None:
        self.direction = "outbound"
        self.hop = "outbound of default/storefront"
        self.workload = "default/storefront"
        self.source = "spiffe://test.mesh/ns/default/sa/storefront"
        self.surroundings = FakeSurroundings()
        self.identity_field = None
        self.guard = None
        self.loops = LoopDetection("outbound", self.workload)
        self.virtual_host = host
        self.authorities = Authorities([])
        self.series = NotedSeries(self)
        self.places: set[bytes] = set()
        self.counted: list[tuple[str, str, str, int, str]] = []
        self.protocols: list[str] = []
        self.grpc: list[str] = []

    def grpc_ended(self, route: str, service: str, status: str) -> None:
        self.grpc.append(status)

    def leads_to(self, authority: bytes) -> bool:
        return authority in self.places


class NotedSeries(dict[tuple[str, str, str, str], Series]):
    """Whoever counts under some labels is noted by the caller."""

    def __init__(self, caller: FakeCaller) -> None:
        super().__init__()
        self._caller = caller

    def __missing__(self, labels: tuple[str, str, str, str]) -> Series:
        route, service, version, protocol = labels
        counted = self._caller.counted
        self._caller.protocols.append(protocol)

        class OneSeries(Series):
            def record(self, status: int, flag: str, seconds: float) -> None:
                counted.append((route, service, version, status, flag))

        return OneSeries()


class Scene:
    """A client, a caller with one virtual host, two endpoints, and an exchange between them."""

    def __init__(self, *routes: RouteSpec, protocol: str = "http") -> None:
        self.client = Client(protocol)
        self.first, self.second = FakeEndpoint(), FakeEndpoint()
        self.cluster = FakeCluster(self.first, self.second)
        clusters: dict[str, Cluster] = {"catalog": self.cluster}
        forward = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),))
        spec = VirtualHostSpec(name="host", routes=routes or (forward,))
        self.caller = FakeCaller(compile_virtual_host(spec, clusters))
        self.exchange = Exchange(self.client, self.caller)

    def ask(
        self, method: bytes = b"GET", path: bytes = b"/", length: int | None = None
    ) -> RequestHead:
        head = RequestHead(method, b"catalog", path, [], length)
        self.exchange.on_request_head(head)
        if length is None:
            self.exchange.on_request_end(None)
        return head

    def call(self, timeout: str | None = None) -> RequestHead:
        """Begin a gRPC call."""
        fields = [field(b"content-type", b"application/grpc")]
        if timeout is not None:
            fields.append(field(b"grpc-timeout", timeout.encode()))
        head = RequestHead(b"POST", b"catalog", b"/shop.Books/Get", fields, CHUNKED)
        self.exchange.on_request_head(head)
        return head

    @property
    def status(self) -> int:
        """Status of the response head that the client has heard."""
        [head] = [call[1] for call in self.client.heard if call[0] == "send_head"]
        assert isinstance(head, ResponseHead)
        return head.status

    def at_rest(self) -> bool:
        """Nothing is counted as under way any more."""
        counts = (
            self.first.active,
            self.second.active,
            self.cluster.requests.count,
            len(self.caller.surroundings.exchanges),
        )
        return counts == (0, 0, 0, 0) and not self.first.waiting and not self.second.waiting


OK = ResponseHead(200, [], length=2)


def test_a_request_goes_out_and_its_answer_comes_back() -> None:
    """Head, data and end pass in both directions in their legal order."""
    scene = Scene()
    head = scene.ask(b"POST", length=3)
    stream = scene.first.lend()
    scene.exchange.on_request_data(b"abc")
    scene.exchange.on_request_end(None)
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"ok")
    scene.exchange.on_response_end(None)

    assert [("send_head", head), ("send_data", b"abc"), ("send_end", None)] == stream.heard
    assert scene.client.heard == [("send_head", OK), ("send_data", b"ok"), ("send_end", None)]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "-")]
    assert scene.at_rest()


def test_a_body_that_comes_before_the_connection_waits_for_it() -> None:
    """What the client says while we dial is held, and the client is paused above the limit."""
    scene = Scene()
    head = scene.ask(b"PUT", length=HOLD_LIMIT + 2)
    scene.exchange.on_request_data(b"x" * HOLD_LIMIT)
    assert scene.client.words == []
    scene.exchange.on_request_data(b"yz")
    assert scene.client.words == ["pause_request"]

    stream = scene.first.lend()

    assert ("send_head", head) == stream.heard[0]
    assert b"".join(call[1] for call in stream.heard[1:]) == b"x" * HOLD_LIMIT + b"yz"
    assert scene.client.words == ["pause_request", "resume_request"]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_failed_connection_is_hidden_by_another_endpoint(method: bytes) -> None:
    """Nothing was sent, so any method may be tried again; the other endpoint is preferred."""
    scene = Scene()
    head = scene.ask(method)
    scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.caller.surroundings.tick()
    stream = scene.second.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_end(None)

    assert stream.heard == [("send_head", head)]  # without a body, that is all of it
    assert scene.status == 200
    assert scene.caller.surroundings.retries == ["connect-failed"]
    assert scene.at_rest()


def test_attempts_are_limited() -> None:
    """After the last attempt the client is told what the matter was."""
    scene = Scene()
    scene.ask()
    for endpoint in (scene.first, scene.second, scene.first):
        endpoint.waiting.pop().on_upstream_failed("connect-failed")
        scene.caller.surroundings.tick()

    assert scene.status == 503
    assert scene.caller.surroundings.refusals == ["connect-failed"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 503, "UF")]
    assert scene.at_rest()


def test_a_stale_connection_is_hidden_for_an_idempotent_request() -> None:
    """A reused connection that closes before a byte of the answer is not the client's concern."""
    scene = Scene()
    scene.ask(b"PUT", length=3)
    scene.exchange.on_request_data(b"abc")
    scene.exchange.on_request_end(None)
    scene.first.lend()
    scene.exchange.on_response_reset("upstream-closed", reused=True)
    scene.caller.surroundings.tick()
    stream = scene.second.lend()

    assert stream.words == ["send_head", "send_data", "send_end"]


@pytest.mark.parametrize(
    ("method", "reused"), [(b"POST", True), (b"POST", False), (b"GET", False)]
)  # fmt: skip
def test_what_may_have_been_processed_is_not_sent_again(method: bytes, reused: bool) -> None:
    """The answer is 502: nobody knows whether the service acted."""
    scene = Scene()
    scene.ask(method)
    scene.first.lend()
    scene.exchange.on_response_reset("upstream-closed", reused=reused)

    assert scene.status == 502
    assert scene.caller.surroundings.retries == []
    assert scene.at_rest()


def test_a_body_too_large_to_be_kept_is_sent_once_and_that_is_counted() -> None:
    """A PUT on a stale connection would be tried again; without its body it cannot be."""
    scene = Scene()
    scene.ask(b"PUT", length=HOLD_LIMIT + 1)
    scene.first.lend()
    scene.exchange.on_request_data(b"x" * (HOLD_LIMIT + 1))
    scene.exchange.on_response_reset("upstream-closed", reused=True)

    assert scene.status == 502
    assert scene.caller.surroundings.skipped == ["body-too-large"]
    assert scene.caller.surroundings.retries == []


def test_a_torn_response_is_torn_for_the_client_too() -> None:
    """Half a response must not end as if it were whole."""
    scene = Scene()
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"o")
    scene.exchange.on_response_reset("upstream-closed", reused=False)

    assert scene.client.words == ["send_head", "send_data", "reset"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "UC")]
    assert scene.at_rest()


def test_a_client_that_leaves_takes_its_attempt_with_it() -> None:
    """The upstream stream is reset, nothing is answered, and 499 is counted."""
    scene = Scene()
    scene.ask()
    stream = scene.first.lend()
    scene.exchange.on_request_reset()

    assert stream.words == ["send_head", "reset"]
    assert scene.client.words == []
    assert scene.caller.counted == [("all", "default/catalog", "v1", 499, "DC")]
    assert scene.at_rest()


def test_a_client_that_leaves_the_line_is_forgotten() -> None:
    """While a connection is dialled, or a retry waits, leaving gives everything back."""
    scene = Scene()
    scene.ask()
    scene.exchange.on_request_reset()
    assert scene.at_rest()

    scene = Scene()
    scene.ask()
    scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.exchange.on_request_reset()
    scene.caller.surroundings.tick()
    assert scene.at_rest()


def test_slow_sides_stop_fast_ones() -> None:
    """Each side's `blocked` pauses the other, `writable` lets it go on."""
    scene = Scene()
    scene.ask(b"POST", length=10)
    stream = scene.first.lend()
    scene.exchange.on_upstream_blocked()
    scene.exchange.on_upstream_writable()
    scene.exchange.on_downstream_blocked()
    scene.exchange.on_downstream_writable()

    assert scene.client.words == ["pause_request", "resume_request"]
    assert stream.words == ["send_head", "pause_response", "resume_response"]


def test_no_route_no_backend_and_redirects_are_answered_here() -> None:
    """404 without a matching route, 500 for a backend that does not resolve, 302 for a redirect."""
    only_api = RouteSpec(
        name="api", match=MatchSpec(path=PathMatchSpec(type="prefix", value="/api"))
    )
    scene = Scene(only_api)
    scene.ask(path=b"/other")
    assert scene.status == 404
    assert scene.caller.counted == [("-", "-", "", 404, "NR")]

    scene = Scene(RouteSpec(name="gone", backends=(BackendSpec(cluster=None),)))
    scene.ask()
    assert scene.status == 500
    assert scene.caller.surroundings.refusals == ["unresolved-backend"]

    scene = Scene(RouteSpec(name="moved", redirect=RedirectSpec(hostname="example.org")))
    scene.ask(path=b"/x?y")
    assert scene.status == 302
    [head] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert head.fields[0][1] == b"http://example.org/x?y"
    assert scene.at_rest()


def test_filters_change_what_the_endpoint_and_the_client_see() -> None:
    """Header modifiers and rewrites of route and backend are applied; mesh fields stay behind."""
    stamp = HeaderModifierSpec(set=(HeaderSpec(name="x-stamp", value="1"),))
    scene = Scene(
        RouteSpec(
            name="all",
            match=MatchSpec(path=PathMatchSpec(type="prefix", value="/old")),
            rewrite=RewriteSpec(path=PathRewriteSpec(type="prefix", value="/new")),
            request_headers=stamp,
            response_headers=stamp,
            backends=(BackendSpec(cluster="catalog"),),
        )
    )
    scene.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
    head = RequestHead(b"GET", b"catalog", b"/old/x", [])
    head.mesh_fields = [field(b"x-mesh-attempt", b"7")]
    scene.exchange.on_request_head(head)
    scene.exchange.on_request_end(None)
    scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(200, [], length=0))

    assert head.path == b"/new/x"
    names = [f[0] for f in head.fields]
    assert names == [b"x-stamp", b"x-forwarded-client-cert"]
    [answer] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert [f[0] for f in answer.fields] == [b"x-stamp"]


@pytest.mark.parametrize(("direction", "passes"), [("outbound", True), ("inbound", False)])
def test_only_a_sidecar_is_believed_to_be_one(direction: str, passes: bool) -> None:
    """`x-mesh-refusal` tells whether a request may be repeated: an app cannot claim that."""
    scene = Scene()
    scene.caller.direction = direction
    scene.ask()
    scene.first.lend()
    head = ResponseHead(503, [], length=0)
    head.mesh_fields = [field(b"x-mesh-refusal", b"connect-failed")]
    scene.exchange.on_response_head(head)
    [answer] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert [f[0] for f in answer.fields] == ([b"x-mesh-refusal"] if passes else [])


def test_a_404_tells_an_unknown_service_from_a_request_no_rule_wants() -> None:
    """The answer names the authority: a misspelt name, or a place outside the mesh, is seen at once."""
    scene = Scene()
    scene.caller.virtual_host = None
    scene.ask()
    said = b"".join(call[1] for call in scene.client.heard if call[0] == "send_data")
    assert scene.status == 404
    assert b"no service of the mesh is known here as catalog." in said

    scene = Scene()
    scene.caller.virtual_host = None
    scene.caller.places.add(b"catalog")
    scene.ask()
    said = b"".join(call[1] for call in scene.client.heard if call[0] == "send_data")
    assert scene.status == 404
    assert b"catalog is known, but does not speak HTTP; CONNECT leads there." in said

    only_api = MatchSpec(path=PathMatchSpec(type="prefix", value="/api"))
    scene = Scene(RouteSpec(name="api", match=only_api))
    scene.ask(path=b"/other")
    said = b"".join(call[1] for call in scene.client.heard if call[0] == "send_data")
    assert scene.status == 404
    assert b"catalog is known, but none of its rules matches." in said


@pytest.mark.parametrize(
    ("authority", "door", "connection", "status"),
    [
        (b"catalog:80", False, True, 200),
        (b"catalog.default:80", False, True, 200),
        (b"catalog:81", False, True, 404),
        (b"127.0.0.1:15000", False, True, 404),
        (b"catalog:80", True, True, 501),
        (b"catalog:80", False, False, 501),
    ],
)
def test_connect_starts_over_where_many_services_are(
    authority: bytes, door: bool, connection: bool, status: int
) -> None:
    """At the HTTP proxy, to a service, on a connection of its own; counted, and refused elsewhere."""
    scene = Scene()
    clusters: dict[str, Cluster] = {}
    spec = VirtualHostSpec(name="catalog", domains=("catalog:80", "catalog.default:80"))
    scene.caller.authorities = Authorities([compile_virtual_host(spec, clusters)])
    if not door:
        scene.caller.virtual_host = None
    scene.client.is_connection = connection
    head = RequestHead(b"CONNECT", authority, b"", [], TUNNEL)
    scene.exchange.on_request_head(head)

    if status == 200:
        assert scene.client.words == ["start_over"]
    else:
        assert scene.status == status
    assert [call[3] for call in scene.caller.counted] == [status]
    assert scene.at_rest()


class Switching(Scene):
    """A client that asks to switch protocols, and the endpoint that it is sent to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = RequestHead(b"GET", b"catalog", b"/chat", [], TUNNEL)
        self.asked.upgrade = b"websocket"
        self.exchange.on_request_head(self.asked)

    def switch(self, stream: Recorder) -> None:
        """Let the endpoint switch."""
        head = ResponseHead(101, [], TUNNEL)
        head.upgrade = b"websocket"
        self.exchange.on_response_head(head)


def test_a_tunnel_ends_when_both_directions_have() -> None:
    """Either first; it is counted once, with the code 101."""
    for client_first in (True, False):
        scene = Switching()
        stream = scene.first.lend()
        scene.switch(stream)
        assert scene.client.words == ["switch", "resume_request"]
        assert scene.caller.surroundings.tunnels == 1
        exchange = scene.exchange
        exchange.on_request_data(b"a")
        exchange.on_response_data(b"b")
        if client_first:
            exchange.on_request_end(None)
            exchange.on_response_data(b"c")
            assert not scene.caller.counted
            exchange.on_response_end(None)
        else:
            exchange.on_response_end(None)
            exchange.on_request_data(b"c")
            assert not scene.caller.counted
            exchange.on_request_end(None)

        assert stream.words[0] == "send_head"
        assert stream.words[1:] == [
            "send_data",
            *([] if client_first else ["send_data"]),
            "send_end",
        ]
        assert scene.client.words[-1] == "send_end"
        assert scene.caller.counted == [("all", "default/catalog", "v1", 101, "-")]
        assert scene.at_rest()
        assert scene.caller.surroundings.tunnels == 0
        exchange.on_response_reset("upstream-closed", reused=False)
        exchange.on_request_reset()
        assert len(scene.caller.counted) == 1


def test_nothing_goes_ahead_of_the_switch() -> None:
    """What is said early waits, and within limits; the endpoint hears it after its own 101."""
    scene = Switching()
    scene.exchange.on_request_data(b"early")
    stream = scene.first.lend()
    scene.exchange.on_request_data(b"x" * HOLD_LIMIT)
    scene.exchange.on_request_end(None)
    assert stream.words == ["send_head"]
    assert scene.client.words == ["pause_request"]
    scene.switch(stream)

    assert [call[1] for call in stream.heard[1:]] == [b"early", b"x" * HOLD_LIMIT, None]
    assert scene.client.words == ["pause_request", "switch", "resume_request"]


def test_what_is_said_early_to_an_endpoint_that_declines_is_dropped() -> None:
    """It would be its next request; the one that asked has ended without a body."""
    scene = Switching()
    stream = scene.first.lend()
    scene.exchange.on_request_data(b"GET /admin HTTP/1.1")
    scene.exchange.on_response_head(ResponseHead(200, [], 2))
    scene.exchange.on_request_data(b"more")
    scene.exchange.on_request_end(None)
    scene.exchange.on_response_data(b"ok")
    scene.exchange.on_response_end(None)

    assert set(stream.words) == {"send_head", "send_end"}
    assert scene.client.words == ["send_head", "send_data", "send_end"]
    assert scene.caller.counted[0][3:] == (200, "-")


def test_a_tunnel_that_breaks_off_is_torn_on_the_other_side() -> None:
    """Also when one direction has ended before."""
    for ended in (False, True):
        scene = Switching()
        stream = scene.first.lend()
        scene.switch(stream)
        if ended:
            scene.exchange.on_request_end(None)
        scene.exchange.on_response_reset("upstream-reset", reused=False)
        assert scene.client.words[-1] == "reset"
        assert scene.caller.counted[0][3:] == (101, "UR")

        scene = Switching()
        stream = scene.first.lend()
        scene.switch(stream)
        if ended:
            scene.exchange.on_response_end(None)
        scene.exchange.on_request_reset()
        assert stream.words[-1] == "reset"
        assert scene.caller.counted[0][3:] == (101, "DC")
        assert scene.caller.surroundings.tunnels == 0


def test_a_tunnel_begins_with_the_pauses_of_both_sides() -> None:
    """Whoever carries it from now on does not know what was said to the one before."""
    scene = Switching()
    stream = scene.first.lend()
    stream.blocked = scene.client.blocked = True
    scene.switch(stream)

    assert scene.client.words == ["switch", "pause_request"]
    assert stream.words == ["send_head", "pause_response"]


def test_a_switch_is_not_asked_for_twice() -> None:
    """On a reused connection that was closed nobody knows; where nothing was sent, it may be."""
    scene = Switching()
    scene.first.lend()
    scene.exchange.on_response_reset("upstream-closed", reused=True)
    assert scene.status == 502

    scene = Switching()
    scene.exchange.on_request_data(b"early")
    scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.caller.surroundings.tick()
    stream = scene.second.lend()
    assert stream.words == ["send_head"]
    scene.switch(stream)
    assert stream.heard[1] == ("send_data", b"early")


def test_a_stream_that_is_full_keeps_the_client_paused() -> None:
    """What the request before us left in the transport's buffer counts as well."""
    scene = Scene()
    scene.ask(b"PUT", length=2 * HOLD_LIMIT)
    scene.exchange.on_request_data(b"x" * (HOLD_LIMIT + 1))
    stream = Recorder()
    stream.blocked = True
    scene.first.waiting.pop(0).on_upstream_ready(stream)
    assert scene.client.words == ["pause_request"]
    scene.exchange.on_upstream_writable()

    assert scene.client.words == ["pause_request", "resume_request"]
    assert scene.exchange.body is None  # too large to be kept for another attempt


def test_a_client_that_does_not_read_keeps_the_answer_waiting() -> None:
    """A stream is paused from the start when the client is still busy with an earlier answer."""
    scene = Scene()
    scene.client.blocked = True
    scene.ask()

    assert scene.first.lend().words == ["send_head", "pause_response"]


def test_without_an_endpoint_the_answer_is_503_at_once() -> None:
    """Nothing is counted as an attempt under way."""
    scene = Scene()
    scene.first.waiting.clear()
    clusters: dict[str, Cluster] = {"catalog": FakeCluster()}
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),))
    host = compile_virtual_host(VirtualHostSpec(name="host", routes=(route,)), clusters)
    scene.caller.virtual_host = host
    scene.ask()

    assert scene.status == 503
    assert scene.caller.surroundings.refusals == ["circuit-open"]
    [head] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert isinstance(head, ResponseHead)
    assert value_of(head.fields, b"retry-after") == b"3"
    assert scene.caller.counted == [
        ("all", "default/catalog", "", 503, "UO")
    ]  # the service is known
    assert scene.at_rest()


def test_what_follows_an_answer_of_our_own_is_dropped() -> None:
    """The rest of a refused request's body reaches nobody and changes nothing."""
    scene = Scene(RouteSpec(name="gone", backends=(BackendSpec(cluster=None),)))
    scene.ask(b"POST", length=3)
    scene.exchange.on_request_data(b"abc")
    scene.exchange.on_request_end(None)
    scene.exchange.on_request_reset()

    assert scene.client.words == ["send_head", "send_data", "send_end"]
    assert scene.caller.counted == [("gone", "-", "", 500, "NC")]
    assert scene.at_rest()


def test_a_large_body_that_was_sent_is_not_sent_again() -> None:
    """What is no longer held in full cannot be repeated, whatever the method."""
    scene = Scene()
    scene.ask(b"PUT", length=HOLD_LIMIT + 2)
    stream = scene.first.lend()
    scene.exchange.on_request_data(b"x" * (HOLD_LIMIT + 1))
    scene.exchange.on_response_reset("upstream-closed", reused=True)

    assert stream.words == ["send_head", "send_data"]
    assert scene.status == 502
    assert scene.at_rest()


# gRPC ---------------------------------------------------------------------------------------------

GRPC_OK = [field(b"grpc-status", b"0")]
GRPC_HEAD = [field(b"content-type", b"application/grpc")]


@pytest.mark.parametrize("protocol", ["http", "http2"])
def test_requests_are_counted_by_protocol(protocol: str) -> None:
    """That of the client's connection, unless it is gRPC."""
    scene = Scene(protocol=protocol)
    scene.ask(b"POST")
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_end(None)
    scene.exchange = Exchange(scene.client, cast("Caller", scene.caller))
    scene.call()
    scene.exchange.on_request_reset()
    assert scene.caller.protocols == [protocol, "grpc"]
    assert scene.caller.grpc == ["1"]


@pytest.mark.parametrize(
    ("head", "trailers", "status"),
    [
        (GRPC_HEAD, GRPC_OK, "0"),
        (GRPC_HEAD, [field(b"grpc-status", b"13")], "13"),
        ([*GRPC_HEAD, field(b"grpc-status", b"5")], None, "5"),
        (GRPC_HEAD, None, "-"),
        (GRPC_HEAD, [field(b"grpc-status", b"99")], "other"),
    ],
)
def test_the_status_of_a_call_is_counted(
    head: list[Field], trailers: list[Field] | None, status: str
) -> None:
    """From the trailers, or from the head of an answer that has nothing else."""
    scene = Scene(protocol="http2")
    scene.call()
    scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(200, list(head)))
    scene.exchange.on_response_end(trailers)
    assert scene.caller.grpc == [status]
    assert scene.client.heard[-1] == ("send_end", trailers)


def test_no_route_is_unimplemented_for_grpc() -> None:
    """GRPCRoute: what no rule matches; as a proper answer of gRPC."""
    scene = Scene(RouteSpec(name="none", match=MatchSpec(method="GET")))
    scene.call()
    [head] = [call[1] for call in scene.client.heard if call[0] == "send_head"]
    assert (head.status, value_of(head.fields, b"grpc-status")) == (200, b"12")
    assert scene.caller.grpc == ["12"]


def test_a_call_that_nobody_answers_in_time_is_ended() -> None:
    """The work for it is given up, the caller gets DEADLINE_EXCEEDED, and all is at rest."""
    scene = Scene(protocol="http2")
    scene.call("250m")
    stream = scene.first.lend()
    scene.caller.surroundings.sleep(0.249)
    assert scene.client.words == []
    scene.caller.surroundings.sleep(2 * TICK)

    assert stream.words == ["send_head", "reset"]
    assert scene.client.words == ["send_head", "send_end"]
    head = scene.client.heard[0][1]
    assert (head.status, value_of(head.fields, b"grpc-status")) == (200, b"4")
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "UT")]
    assert scene.caller.grpc == ["4"]
    assert scene.caller.surroundings.refusals == ["deadline-exceeded"]
    assert scene.at_rest()


@pytest.mark.parametrize("waits_for", ["connection", "retry"])
def test_a_deadline_does_not_wait_for_a_connection(waits_for: str) -> None:
    """Who waits for one, or to try again, is forgotten."""
    scene = Scene(protocol="http2")
    scene.call("1S")
    if waits_for == "retry":
        scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.caller.surroundings.sleep(1 + 2 * TICK)
    scene.caller.surroundings.tick()

    assert scene.client.words == ["send_head", "send_end"]
    assert scene.at_rest()


def test_after_the_head_of_the_answer_the_status_comes_as_trailers() -> None:
    """A stream that is still going gets a proper end."""
    scene = Scene(protocol="http2")
    scene.call("1S")
    stream = scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(200, list(GRPC_HEAD)))
    scene.exchange.on_response_data(b"message")
    scene.caller.surroundings.sleep(1 + 2 * TICK)

    assert stream.words == ["send_head", "reset"]
    word, trailers = scene.client.heard[-1]
    assert (word, value_of(trailers, b"grpc-status")) == ("send_end", b"4")
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "UT")]
    assert scene.caller.grpc == ["4"]
    assert scene.at_rest()


def test_over_http1_a_late_deadline_tears_the_answer() -> None:
    """There, a status would have to stand in a body that is not ours (gRPC-Web)."""
    scene = Scene(protocol="http")
    scene.call("1S")
    scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(200, list(GRPC_HEAD)))
    scene.caller.surroundings.sleep(1 + 2 * TICK)
    assert scene.client.words == ["send_head", "reset"]


def test_an_answer_in_time_leaves_no_timer_behind() -> None:
    """Also one that was refused, and one whose client has left."""
    for end in ("answer", "refusal", "leaving"):
        scene = Scene(protocol="http2")
        scene.call("1H")
        if end == "answer":
            scene.first.lend()
            scene.exchange.on_response_head(ResponseHead(200, list(GRPC_HEAD)))
            scene.exchange.on_response_end(GRPC_OK)
        elif end == "refusal":
            scene.exchange.refuse("no-healthy-endpoint")
        else:
            scene.exchange.on_request_reset()
        assert scene.caller.surroundings.wheel.count == 0


@pytest.mark.parametrize(
    ("waited", "passed_on"), [(0.0, b"2S"), (0.0005, b"2S"), (0.5, b"1500000u"), (1.9, b"100000u")]
)
def test_the_next_hop_gets_what_is_left(waited: float, passed_on: bytes) -> None:
    """Unchanged where we took none of it; never more than the caller has."""
    scene = Scene(protocol="http2")
    head = scene.call("2S")
    scene.caller.surroundings.time += waited
    scene.first.lend()
    left = value_of(head.fields, b"grpc-timeout")
    assert left is not None
    seconds = timeout_of([field(b"grpc-timeout", left)])
    assert seconds is not None
    assert seconds <= 2 - waited or waited < NOTICEABLE
    assert seconds == pytest.approx(timeout_of([field(b"grpc-timeout", passed_on)]), abs=2e-6)


@pytest.mark.parametrize("timeout", ["", "S", "1", "1 S", "-1S", "1.5S", "123456789S", "1s"])
def test_a_timeout_that_is_none_is_not_ours_to_judge(timeout: str) -> None:
    """It travels on unchanged, and nothing is timed."""
    scene = Scene(protocol="http2")
    head = scene.call(timeout)
    scene.caller.surroundings.time += 1
    scene.first.lend()
    assert value_of(head.fields, b"grpc-timeout") == timeout.encode()
    assert scene.caller.surroundings.wheel.count == 0


def test_every_refusal_has_a_grpc_status() -> None:
    """Of the seventeen that there are, and none of them OK."""
    assert all(0 < why.grpc_status <= 16 for why in REFUSALS.values())
    assert refusal("deadline-exceeded").grpc_status == 4


# What its endpoint learns of it --------------------------------------------------------------------


def test_an_answer_is_judged_when_it_is_complete() -> None:
    """Its status, and how long its head took: a body may be as long as it likes."""
    scene = Scene()
    scene.ask()
    scene.first.lend()
    scene.caller.surroundings.time += 0.25
    scene.exchange.on_response_head(ResponseHead(503, [], length=2))
    scene.caller.surroundings.time += 9.0
    scene.exchange.on_response_data(b"ab")
    assert scene.first.judged == []
    scene.exchange.on_response_end(None)
    assert scene.first.judged == [(503, None, "", 0.25)]
    assert scene.at_rest()


def test_a_call_is_judged_by_its_grpc_status() -> None:
    """Which comes last, under a status of HTTP that says 200 to everything."""
    scene = Scene()
    scene.call()
    scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(200, [], length=CHUNKED))
    scene.exchange.on_response_end([field(b"grpc-status", b"14")])
    assert scene.first.judged == [(200, "14", "", 0.0)]


def test_each_endpoint_learns_of_the_attempt_that_it_failed() -> None:
    """The one that could not be reached, and the one that answered instead."""
    scene = Scene()
    scene.ask()
    scene.first.waiting.pop(0).on_upstream_failed("connect-failed")
    scene.caller.surroundings.tick()
    scene.second.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"ok", last=True)
    assert scene.first.judged == [(0, None, "connect-failed", 0.0)]
    assert scene.second.judged == [(200, None, "", 0.0)]


def test_half_an_answer_is_a_failure() -> None:
    """Whatever its head has said."""
    scene = Scene()
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_reset("upstream-closed", reused=False)
    assert scene.first.judged == [(200, None, "upstream-closed", 0.0)]
    assert scene.at_rest()


def test_a_client_that_leaves_proves_nothing() -> None:
    """The endpoint hears that nobody waited any longer."""
    scene = Scene()
    scene.ask()
    scene.first.lend()
    scene.exchange.on_request_reset()
    assert scene.first.judged == [(0, None, "downstream-closed", 0.0)]
    assert scene.at_rest()


@pytest.mark.parametrize("answered", [False, True])
def test_a_deadline_is_a_failure_of_who_had_not_begun_to_answer(answered: bool) -> None:
    """How long a stream takes that has begun, the request decides."""
    scene = Scene()
    scene.call(f"{FAIR * 1000 + 1:.0f}m")
    scene.first.lend()
    if answered:
        scene.exchange.on_response_head(ResponseHead(200, [], length=CHUNKED))
    scene.caller.surroundings.sleep(FAIR + 3 * TICK)
    [(_, _, code, _)] = scene.first.judged
    assert code == ("downstream-closed" if answered else "deadline-exceeded")
    assert scene.at_rest()


@pytest.mark.parametrize("how", ["struck", "answered", "ended", "reset", "early"])
def test_an_endpoint_is_not_judged_by_callers_in_a_hurry(how: str) -> None:
    """A caller that allows a millisecond proves nothing, however it comes to an end."""
    scene = Scene()
    scene.call("100m")
    scene.first.lend()
    exchange, late = scene.exchange, [field(b"grpc-status", b"4")]
    if how == "struck":
        scene.caller.surroundings.sleep(0.1 + 2 * TICK)
    elif how == "answered":
        exchange.on_response_head(ResponseHead(200, late, length=0))
        exchange.on_response_end(None)
    elif how == "ended":
        exchange.on_response_head(ResponseHead(200, [], length=CHUNKED))
        exchange.on_response_end(late)
    else:
        scene.caller.surroundings.time += 0.11 if how == "reset" else 0.05
        exchange.on_response_reset("upstream-reset", reused=False)
    [(_, _, code, _)] = scene.first.judged
    assert code == ("upstream-reset" if how == "early" else HURRIED)
    assert scene.at_rest()


def test_time_that_a_route_allows_is_held_against_the_endpoint() -> None:
    """However little that is, the operator has meant it; also where the caller allows more."""
    route = RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),), request_timeout=100)
    scene = Scene(route)
    scene.call("500m")
    scene.first.lend()
    scene.caller.surroundings.sleep(0.1 + 2 * TICK)
    [(_, _, code, _)] = scene.first.judged
    assert code == "deadline-exceeded"


def test_a_tunnel_is_judged_when_it_opens() -> None:
    """It may live for days, and how it ends is the business of its two ends."""
    scene = Scene()
    head = scene.ask(length=TUNNEL)
    stream = scene.first.lend()
    del head
    scene.exchange.on_upstream_switched(stream)
    scene.exchange.on_response_head(ResponseHead(101, [], length=TUNNEL))
    assert scene.first.judged == [(101, None, "", 0.0)]
    scene.exchange.on_response_reset("upstream-reset", reused=False)
    assert scene.first.judged == [(101, None, "", 0.0)]
    assert scene.at_rest()


def test_no_request_above_the_limit() -> None:
    """It is refused at once, and an endpoint never hears of it."""
    scene = Scene()
    scene.cluster.requests.set(0)
    scene.ask()
    assert scene.status == 503
    assert scene.caller.surroundings.refusals == ["overflow"]
    assert not scene.first.waiting
    assert scene.at_rest()


# Where a request belongs ----------------------------------------------------------------------------


RULE_SESSION = SessionPersistenceSpec(name="shop", type="header")


class StickyScene(Scene):
    """Two clusters of one endpoint each behind a rule, the second one without weight."""

    def __init__(
        self, *, of_rule: bool = False, of_cluster: bool = False, hashed: bool = False
    ) -> None:
        super().__init__()
        self.first, self.second = FakeEndpoint("10.0.0.1:80"), FakeEndpoint("10.0.0.2:80")
        self.cluster, self.other = FakeCluster(self.first), FakeCluster(self.second)
        clusters: dict[str, Cluster] = {"catalog": self.cluster, "old": self.other}
        backends = BackendSpec(cluster="catalog"), BackendSpec(cluster="old", weight=0)
        session = RULE_SESSION if of_rule else None
        rule = RouteSpec(name="all", backends=backends, session=session)
        self.caller = FakeCaller(
            compile_virtual_host(VirtualHostSpec(name="host", routes=(rule,)), clusters)
        )
        self.tokens = Tokens(b"s" * 32, lambda: 1_700_000_000.0)
        self.caller.surroundings.tokens = self.tokens
        for cluster in (self.cluster, self.other):
            cluster.sticky = of_cluster or hashed
            if of_cluster:
                cluster.session = Session(RULE_SESSION)
            if hashed:
                cookie = HashKeySpec(source="cookie", name="user", cookie_ttl=0)
                cluster.hash_key = HashKey((cookie,))

    def answered(
        self, *fields: Field, fail_first: bool = False
    ) -> tuple[FakeEndpoint, list[Field]]:
        """Return who has answered a request, and with which fields of ours."""
        exchange = Exchange(Client(), self.caller)
        exchange.on_request_head(RequestHead(b"GET", b"catalog", b"/", list(fields)))
        if fail_first:
            [endpoint] = [e for e in (self.first, self.second) if e.waiting]
            endpoint.waiting.clear()
            exchange.on_upstream_failed("connect-failed")
            self.caller.surroundings.tick()
        [endpoint] = [e for e in (self.first, self.second) if e.waiting]
        endpoint.lend()
        head = ResponseHead(204, [])
        exchange.on_response_head(head)
        exchange.on_response_end(None)
        return endpoint, head.fields

    def token(self, endpoint: FakeEndpoint) -> Field:
        return field(b"shop", self.tokens.make(self.tokens.id_of(endpoint.name), "all"))


@pytest.mark.parametrize("of_rule", [True, False])
def test_a_session_begins_with_its_first_answer(*, of_rule: bool) -> None:
    """And goes on where it began, without being told again."""
    scene = StickyScene(of_rule=of_rule, of_cluster=not of_rule)
    endpoint, [token] = scene.answered()
    assert token == scene.token(endpoint)
    assert scene.answered(token) == (endpoint, [])
    assert scene.at_rest()


def test_the_session_of_a_rule_comes_before_its_weights() -> None:
    """ "The persistence […] MUST be maintained across services, even if the weight is set to 0"."""
    scene = StickyScene(of_rule=True)
    assert scene.answered(scene.token(scene.second)) == (scene.second, [])
    assert scene.other.requests.count == 0
    assert scene.at_rest()


def test_the_session_of_a_cluster_does_not() -> None:
    """It says which endpoint of the one that the weights have chosen."""
    scene = StickyScene(of_cluster=True)
    endpoint, [token] = scene.answered(scene.token(scene.second))
    assert (endpoint, token) == (scene.first, scene.token(scene.first))


def test_an_endpoint_that_fails_ends_its_session() -> None:
    """The request goes where any other would, and its answer begins a new session."""
    scene = StickyScene(of_cluster=True)
    scene.cluster.endpoints = (scene.first, scene.second)
    endpoint, [token] = scene.answered(scene.token(scene.first), fail_first=True)
    assert (endpoint, token) == (scene.second, scene.token(scene.second))


def test_a_session_obeys_limits() -> None:
    """It is no way around the cluster's."""
    scene = StickyScene(of_cluster=True)
    scene.cluster.requests = Limit("requests", 0)
    exchange = Exchange(scene.client, cast("Caller", scene.caller))
    exchange.on_request_head(RequestHead(b"GET", b"catalog", b"/", [scene.token(scene.first)]))
    assert scene.status == 503


def test_a_key_goes_with_every_attempt() -> None:
    """Also one that was made for a client that had none; it gets its cookie with the answer."""
    scene = StickyScene(hashed=True)
    _, [cookie] = scene.answered(fail_first=True)
    first, second = scene.cluster.keys
    assert first is not None
    assert first == second
    pair = cookie[1].partition(b";")[0]
    assert scene.answered(field(b"Cookie", pair)) == (scene.first, [])
    assert scene.cluster.keys[2] == first


def test_what_belongs_nowhere_has_no_key() -> None:
    """As nearly always."""
    scene = Scene()
    scene.ask()
    assert scene.cluster.keys == [None]
    assert scene.exchange.affinity is None


# Limits of time -----------------------------------------------------------------------------------


def limited(**limits: Any) -> Scene:
    """A scene, by the `protocol` that is given, whose cluster allows no more than that."""
    scene = Scene(protocol=limits.pop("protocol", "http"))
    scene.cluster.timeouts = compiled(NO_TIMEOUTS._replace(**limits))
    return scene


def look(scene: Scene) -> None:
    """Go round all exchanges, as the process does every few seconds."""
    surroundings = scene.caller.surroundings
    for exchange in list(surroundings.exchanges):
        exchange.on_look(surroundings.time)


def body_of(scene: Scene) -> bytes:
    """Return what the client has heard behind the head of its answer."""
    return b"".join(call[1] for call in scene.client.heard if call[0] == "send_data")


def test_a_request_has_the_time_of_its_route() -> None:
    """HTTPRoute `timeouts.request`: then 504, and the work for it is given up."""
    scene = Scene(
        RouteSpec(name="all", backends=(BackendSpec(cluster="catalog"),), request_timeout=500)
    )
    head = scene.ask()
    stream = scene.first.lend()
    assert value_of(head.fields, b"x-mesh-deadline-ms") == b"500"
    scene.caller.surroundings.sleep(0.499)
    assert scene.client.words == []
    scene.caller.surroundings.sleep(2 * TICK)

    assert stream.words == ["send_head", "reset"]
    assert scene.status == 504
    assert b"default/catalog took 599 ms of it" in body_of(scene)
    assert scene.caller.surroundings.refusals == ["deadline-exceeded"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 504, "UT")]
    assert scene.at_rest()


def test_an_answer_that_takes_too_long_is_torn() -> None:
    """The request's time covers the body, too; half of it must not look whole."""
    scene = limited(request=1.0)
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"o")
    scene.caller.surroundings.sleep(1 + 2 * TICK)
    assert scene.client.words == ["send_head", "send_data", "reset"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "UT")]


@pytest.mark.parametrize("limit", ["attempt", "answer"])
def test_an_attempt_that_takes_too_long_is_given_up(limit: str) -> None:
    """Nobody knows whether it was processed: by default it is not made again."""
    scene = limited(**{limit: 0.5}, request=5.0)
    scene.ask()
    stream = scene.first.lend()
    scene.caller.surroundings.sleep(0.5 + 2 * TICK)
    assert stream.words == ["send_head", "reset"]
    assert scene.status == 504
    assert scene.caller.surroundings.refusals == ["attempt-timeout"]
    assert scene.at_rest()


def test_the_time_of_an_attempt_begins_with_its_connection() -> None:
    """BackendRequest: "from when the request first starts being sent"."""
    scene = limited(attempt=0.5)
    scene.ask()
    scene.caller.surroundings.sleep(2.0)
    scene.first.lend()
    scene.caller.surroundings.sleep(0.4)
    scene.exchange.on_response_head(ResponseHead(200, [], length=0))
    scene.exchange.on_response_end(None)
    assert scene.status == 200
    assert scene.caller.surroundings.wheel.count == 0


@pytest.mark.parametrize(("limit", "torn"), [("attempt", True), ("answer", False)])
def test_the_body_belongs_to_an_attempt_but_not_to_its_answers_head(limit: str, torn: bool) -> None:
    """BackendRequest runs "to when the full response has been received"; a per-try limit does not."""
    scene = limited(**{limit: 0.5})
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.caller.surroundings.sleep(0.5 + 2 * TICK)
    assert ("reset" in scene.client.words) is torn


def test_however_many_limits_there_are_there_is_one_timer() -> None:
    """It stands at the first of them, and moves no further while attempt and answer go on."""
    scene = limited(request=5.0, attempt=2.0, answer=1.0, idle=4.0, duration=6.0)
    timers = scene.caller.surroundings.wheel
    counts = []
    scene.ask()
    look(scene)
    counts.append(timers.count)
    scene.first.lend()
    counts.append(timers.count)
    scene.exchange.on_response_head(OK)
    counts.append(timers.count)
    scene.exchange.on_response_data(b"o")
    counts.append(timers.count)
    assert counts == [1, 1, 1, 1]
    scene.caller.surroundings.sleep(2 + 2 * TICK)
    assert "reset" in scene.client.words
    assert timers.count == 0


def test_far_limits_are_armed_only_of_what_lasts() -> None:
    """An answer comes in milliseconds: until somebody goes round, nothing stands in the wheel."""
    scene = limited(request=15.0, idle=300.0)
    head = scene.ask()
    scene.first.lend()
    timers = scene.caller.surroundings.wheel
    assert timers.count == 0
    assert value_of(head.fields, b"x-mesh-deadline-ms") == b"15000"  # it is said all the same
    scene.caller.surroundings.time += 5.0
    look(scene)
    look(scene)
    assert timers.count == 1
    scene.caller.surroundings.sleep(10 + 2 * TICK)
    assert scene.status == 504
    assert timers.count == 0


def rest(scene: Scene, seconds: float) -> None:
    """Let time pass, a second at a time."""
    for _ in range(int(seconds)):
        scene.caller.surroundings.sleep(1.0)


def test_silence_is_noticed_however_much_was_said_before() -> None:
    """Data push the end of the wait out; a quarter of the limit later, at most, it has come."""
    scene = limited(idle=8.0)
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    for _ in range(10):
        rest(scene, 7)
        assert not scene.exchange.done
        scene.exchange.on_response_data(b"x")
    rest(scene, 8)
    assert not scene.exchange.done
    rest(scene, 3)
    assert scene.client.words[-1] == "reset"
    assert scene.caller.surroundings.refusals == ["stream-idle"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "SI")]
    assert scene.at_rest()


def test_without_an_answer_silence_is_504() -> None:
    """An endpoint that takes a request and says nothing, when nobody has limited anything."""
    scene = limited(idle=8.0)
    scene.ask()
    scene.first.lend()
    rest(scene, 11)
    assert scene.status == 504
    assert scene.caller.surroundings.refusals == ["stream-idle"]


def test_a_client_that_reads_slowly_is_not_silent() -> None:
    """What leaves our buffers moves, too."""
    scene = limited(idle=8.0)
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    for _ in range(3):
        rest(scene, 7)
        scene.exchange.on_downstream_writable()
        scene.exchange.on_upstream_writable()
    assert not scene.exchange.done


@pytest.mark.parametrize(
    ("protocol", "length", "code"),
    [("http2", 10, "body-timeout"), ("http2", CHUNKED, "stream-idle"), ("http", 10, "stream-idle")],
)
def test_a_body_that_was_announced_must_come(protocol: str, length: int, code: str) -> None:
    """Over HTTP/2; an HTTP/1.1 connection sees to it itself, and messages may wait for answers."""
    scene = limited(protocol=protocol, idle=300.0)
    scene.ask(b"PUT", length=length)
    scene.first.lend()
    scene.exchange.on_request_data(b"x")
    look(scene)
    rest(scene, 400)
    assert scene.caller.surroundings.refusals == [code]


def test_a_client_is_not_slow_that_we_do_not_listen_to() -> None:
    """While its endpoint takes nothing, it is the endpoint that nothing moves to."""
    scene = limited(protocol="http2", idle=300.0)
    scene.ask(b"PUT", length=10)
    scene.first.lend()
    scene.exchange.on_upstream_blocked()
    look(scene)
    rest(scene, 200)
    assert not scene.exchange.done
    scene.exchange.on_upstream_writable()
    rest(scene, 90)
    assert scene.caller.surroundings.refusals == ["body-timeout"]


def test_request_and_answer_together_have_a_limit() -> None:
    """However much moves."""
    scene = limited(duration=5.0)
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    for _ in range(6):
        scene.exchange.on_response_data(b"x")
        rest(scene, 1)
    assert scene.client.words[-1] == "reset"
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "UMSDR")]


def tunnel_of(scene: Scene) -> Recorder:
    """Open a WebSocket, and return the endpoint's side of it."""
    head = RequestHead(b"GET", b"catalog", b"/", [], TUNNEL)
    head.upgrade = b"websocket"
    scene.exchange.on_request_head(head)
    stream = scene.first.lend()
    scene.exchange.on_response_head(ResponseHead(101, [], TUNNEL))
    return stream


def test_waiting_for_a_tunnel_has_the_limits_of_any_request() -> None:
    """Who never says 101 keeps nobody waiting."""
    scene = limited(request=1.0)
    head = RequestHead(b"GET", b"catalog", b"/", [], TUNNEL)
    head.upgrade = b"websocket"
    scene.exchange.on_request_head(head)
    scene.first.lend()
    scene.caller.surroundings.sleep(1 + 2 * TICK)
    assert scene.status == 504
    assert scene.at_rest()


def test_a_tunnel_outlives_the_time_of_its_request() -> None:
    """Request, attempt and idle limits were about the answer; a quiet WebSocket is an ordinary one."""
    scene = limited(request=5.0, attempt=4.0, answer=3.0, idle=2.0)
    tunnel_of(scene)
    rest(scene, 1000)
    assert not scene.exchange.done
    assert scene.caller.surroundings.wheel.count == 0


@pytest.mark.parametrize(
    ("limit", "flag"), [("tunnel_idle", "SI"), ("duration", "UMSDR")]
)  # fmt: skip
def test_a_tunnel_has_limits_where_somebody_wants_them(limit: str, flag: str) -> None:
    """Both sides of it are reset: what breaks off must not look like an end."""
    scene = limited(**{limit: 20.0})
    stream = tunnel_of(scene)
    rest(scene, 19)
    assert not scene.exchange.done
    rest(scene, 6)
    assert (scene.client.words[-1], stream.words[-1]) == ("reset", "reset")
    assert scene.caller.counted == [("all", "default/catalog", "v1", 101, flag)]
    assert scene.at_rest()


def test_what_is_forbidden_meanwhile_is_torn() -> None:
    """A tunnel is reset on both sides; it is counted as denied, and its endpoint is not to blame."""
    scene = limited()
    stream = tunnel_of(scene)
    assert scene.exchange.lasting
    scene.exchange.on_forbidden("5f0c")
    assert (scene.client.words[-1], stream.words[-1]) == ("reset", "reset")
    assert scene.caller.counted == [("all", "default/catalog", "v1", 101, "UAEX")]
    assert [code for _, _, code, _ in scene.first.judged] == [""]  # when it opened
    assert scene.at_rest()


def test_a_switch_that_is_forbidden_before_its_answer_is_refused() -> None:
    """With the number, and nothing else; the endpoint has not failed."""
    scene = limited()
    head = RequestHead(b"GET", b"catalog", b"/", [], TUNNEL)
    head.upgrade = b"websocket"
    scene.exchange.on_request_head(head)
    stream = scene.first.lend()
    assert scene.exchange.lasting
    scene.exchange.on_forbidden("5f0c")
    assert (scene.status, stream.words[-1]) == (403, "reset")
    said = body_of(scene)
    assert said == b"Access denied. (access-denied, UAEX; denial 5f0c, sent once)\n"
    assert [code for _, _, code, _ in scene.first.judged] == ["downstream-closed"]
    assert scene.at_rest()


def test_a_stream_of_grpc_that_is_forbidden_ends_with_its_status() -> None:
    """Once it has begun to answer, the status comes last; over HTTP/2 that is still possible."""
    scene = limited(protocol="http2")
    scene.call()
    scene.exchange.on_request_data(b"one")
    scene.first.lend()
    assert scene.exchange.lasting
    scene.exchange.on_response_head(ResponseHead(200, []))
    scene.exchange.on_forbidden("5f0c")
    [trailers] = [call[1] for call in scene.client.heard if call[0] == "send_end"]
    assert [(name, value) for name, value, _ in trailers] == [
        (b"grpc-status", b"7"),
        (b"grpc-message", b"access-denied: Access denied: denial 5f0c."),
    ]
    assert scene.at_rest()


def test_what_is_one_request_is_no_lasting_stream() -> None:
    """It was allowed when it was made, and is answered."""
    scene = limited()
    scene.ask()
    assert not scene.exchange.lasting
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    assert not scene.exchange.lasting
    called = limited(protocol="http2")
    called.call()
    called.exchange.on_request_end(None)
    assert not called.exchange.lasting
    declined = Switching()
    declined.first.lend()
    declined.exchange.on_response_head(OK)
    assert not declined.exchange.lasting


def test_no_further_attempt_is_made_for_nobody() -> None:
    """When the time has passed before the next attempt begins, it does not begin."""
    scene = limited(request=30.0)
    scene.ask()
    scene.first.waiting.pop().on_upstream_failed("connect-failed")
    scene.caller.surroundings.time += 30.0
    scene.caller.surroundings.tick()
    assert scene.status == 504
    assert b"no further attempt was made" in body_of(scene)
    assert not scene.second.waiting
    assert scene.at_rest()


# Across the app -----------------------------------------------------------------------------------

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Sidecar:
    """The inbound and the outbound half of one process, and an app that passes `traceparent` on."""

    def __init__(self) -> None:
        self.inbound, self.outbound = Scene(), Scene()
        self.inbound.caller.direction = "inbound"
        self.inbound.caller.hop = "inbound of default/storefront"
        self.inbound.caller.identity_field = field(b"x-forwarded-client-cert", b"URI=spiffe://a/b")
        self.surroundings = self.inbound.caller.surroundings
        self.outbound.caller.surroundings = self.surroundings
        self.outbound.exchange = self.another_call()

    def another_call(self) -> Exchange:
        return Exchange(self.outbound.client, cast("Caller", self.outbound.caller))

    def receive(self, *said: tuple[bytes, bytes]) -> RequestHead:
        """Let a request come in, with these fields of a mesh proxy's."""
        head = RequestHead(b"GET", b"here", b"/", [field(b"traceparent", TRACEPARENT)])
        head.trace_fields = head.fields[:]
        head.mesh_fields = [field(name, value) for name, value in said] or None
        self.inbound.exchange.on_request_head(head)
        return head

    def call(self, *said: tuple[bytes, bytes], trace: bytes = TRACEPARENT) -> RequestHead:
        """Let the app call another service."""
        head = RequestHead(b"GET", b"catalog", b"/", [field(b"traceparent", trace)])
        head.trace_fields = head.fields[:]
        head.mesh_fields = [field(name, value) for name, value in said] or None
        self.outbound.exchange.on_request_head(head)
        return head


def test_a_call_has_what_is_left_to_the_request_it_is_made_for() -> None:
    """Less what the app has taken, which is said along with it; attempt and criticality as they were."""
    sidecar = Sidecar()
    came = sidecar.receive(
        (b"x-mesh-deadline-ms", b"1000"), (b"x-mesh-attempt", b"2"),
        (b"x-mesh-criticality", b"sheddable"), (b"x-mesh-spent", b"default/edge=20"),
    )  # fmt: skip
    sidecar.inbound.first.lend()
    assert value_of(came.fields, b"x-mesh-deadline-ms") == b"1000"
    sidecar.surroundings.time += 0.25
    sidecar.outbound.exchange = sidecar.another_call()
    went = sidecar.call()
    sidecar.outbound.first.lend()
    said = {name: value for name, value, _ in went.fields if name.startswith(b"x-mesh-")}
    assert said == {
        b"x-mesh-deadline-ms": b"750",
        b"x-mesh-attempt": b"2",
        b"x-mesh-criticality": b"sheddable",
        b"x-mesh-spent": b"default/storefront=250",
    }


@pytest.mark.parametrize(
    ("told", "took", "passed_on"),
    [
        (b"", 0.04, None),
        (b"", 0.06, b"default/storefront=60"),
        (b"default/edge=40", 0.01, None),
        (b"default/edge=60", 0.01, b"default/edge=60"),
        (b"default/edge=60", 0.125, b"default/storefront=125"),
    ],
)
def test_who_took_a_twentieth_is_told_on_and_who_took_less_is_not(
    told: bytes, took: float, passed_on: bytes | None
) -> None:
    """Of what was left of the deadline: by the app beside us, or by somebody before it."""
    sidecar = Sidecar()
    said = [(b"x-mesh-deadline-ms", b"1000")]
    sidecar.receive(*said, *([(b"x-mesh-spent", told)] if told else []))
    sidecar.inbound.first.lend()
    sidecar.surroundings.time += took
    sidecar.outbound.exchange = sidecar.another_call()
    went = sidecar.call()
    sidecar.outbound.first.lend()
    assert value_of(went.fields, b"x-mesh-spent") == passed_on


def test_of_a_stranger_nothing_is_believed() -> None:
    """Whoever has not proved to be of the mesh neither limits nor favours a request."""
    sidecar = Sidecar()
    sidecar.inbound.caller.identity_field = None
    sidecar.receive((b"x-mesh-deadline-ms", b"1"), (b"x-mesh-criticality", b"critical"))
    assert sidecar.inbound.first.waiting
    assert sidecar.inbound.exchange.context.criticality is None
    assert sidecar.inbound.exchange.deadline == inf


def test_the_time_of_an_inbound_route_holds_for_the_calls() -> None:
    """Whoever has set the limit: it is the exchange's deadline that is inherited."""
    sidecar = Sidecar()
    sidecar.inbound.cluster.timeouts = compiled(NO_TIMEOUTS._replace(request=2.0))
    sidecar.receive()
    went = sidecar.call()
    sidecar.outbound.first.lend()
    assert value_of(went.fields, b"x-mesh-deadline-ms") == b"2000"


@pytest.mark.parametrize(("own", "passed_on"), [(b"300", b"300"), (b"9000", b"1000")])
def test_an_app_may_allow_less_to_its_calls(own: bytes, passed_on: bytes) -> None:
    """And not more."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"1000"))
    went = sidecar.call((b"x-mesh-deadline-ms", own), (b"x-mesh-attempt", b"7"))
    sidecar.outbound.first.lend()
    assert value_of(went.fields, b"x-mesh-deadline-ms") == passed_on
    assert value_of(went.fields, b"x-mesh-attempt") is None


def test_an_app_that_passes_nothing_on_has_its_own_word() -> None:
    """Without a match nothing is inherited; the deadline that the app itself gives, holds."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"1000"))
    went = sidecar.call((b"x-mesh-deadline-ms", b"3000"), trace=b"")
    sidecar.outbound.first.lend()
    assert value_of(went.fields, b"x-mesh-deadline-ms") == b"3000"
    assert sidecar.surroundings.propagation.unknown == 1


def test_what_is_spent_is_refused_at_once_and_says_by_whom() -> None:
    """The app has taken all the time: no endpoint is asked to work for nobody."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"20000"))
    sidecar.surroundings.time += 20.0
    sidecar.outbound.exchange = sidecar.another_call()
    sidecar.call()
    assert sidecar.outbound.status == 504
    body = body_of(sidecar.outbound)
    assert b"default/storefront took 20000 ms of it, and it was not sent on" in body
    assert not sidecar.outbound.first.waiting


def test_what_arrives_spent_is_refused_in_the_name_of_who_spent_it() -> None:
    """A hop before has said who it was."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"0"), (b"x-mesh-spent", b"default/cart=950"))
    assert sidecar.inbound.status == 504
    assert b"default/cart took 950 ms of it" in body_of(sidecar.inbound)
    assert not sidecar.surroundings.propagation.by_id


def test_an_inbound_request_blames_the_call_it_waits_for() -> None:
    """The app beside us has only waited, too."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"1000"))
    sidecar.inbound.first.lend()
    sidecar.surroundings.time += 0.1
    sidecar.outbound.exchange = sidecar.another_call()
    sidecar.call()
    sidecar.outbound.exchange.deadline = inf  # its own end would come in the same moment
    sidecar.surroundings.sleep(0.9 + 2 * TICK)
    assert b"default/catalog took 1000 ms of it" in body_of(sidecar.inbound)


def test_the_time_of_a_request_without_a_trace_ends_all_the_same() -> None:
    """Nobody can know which calls were made for it; so the app beside us has had the time."""
    inbound = Sidecar().inbound
    head = RequestHead(b"GET", b"here", b"/", [])
    head.mesh_fields = [field(b"x-mesh-deadline-ms", b"1000")]
    inbound.exchange.on_request_head(head)
    inbound.first.lend()
    inbound.caller.surroundings.sleep(1.0 + 2 * TICK)
    assert inbound.status == 504
    assert b"default/storefront took" in body_of(inbound)


def test_when_the_client_goes_its_calls_are_cancelled() -> None:
    """The endpoint's stream is reset, and the app is told why its call has ended."""
    sidecar = Sidecar()
    sidecar.receive()
    sidecar.inbound.first.lend()
    sidecar.call()
    stream = sidecar.outbound.first.lend()
    sidecar.inbound.exchange.on_request_reset()
    assert stream.words == ["send_head", "reset"]
    assert sidecar.outbound.status == 499
    assert sidecar.surroundings.refusals == ["caller-gone"]
    assert sidecar.surroundings.cancellations == ["default/catalog"]
    assert sidecar.inbound.at_rest()
    assert sidecar.outbound.at_rest()


def test_an_app_that_goes_on_for_nobody_is_told() -> None:
    """It may not have noticed: its next call is not made, and no endpoint works for it."""
    sidecar = Sidecar()
    sidecar.receive()
    sidecar.inbound.first.lend()
    sidecar.inbound.exchange.on_request_reset()
    sidecar.call()
    assert sidecar.outbound.status == 499
    assert sidecar.surroundings.refusals == ["caller-gone"]
    assert sidecar.outbound.at_rest()


def test_an_app_that_goes_on_after_its_time_is_told_who_took_it() -> None:
    """Also when the inbound request has been answered 504 for it."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-deadline-ms", b"500"))
    sidecar.inbound.first.lend()
    sidecar.surroundings.sleep(0.5 + 2 * TICK)
    assert sidecar.inbound.status == 504
    sidecar.outbound.exchange = sidecar.another_call()
    sidecar.call()
    assert sidecar.outbound.status == 504
    assert b"default/storefront took 600 ms of it" in body_of(sidecar.outbound)


def test_an_answer_that_has_begun_is_cancelled_as_well() -> None:
    """It is torn, and its endpoint is not blamed."""
    sidecar = Sidecar()
    sidecar.receive()
    sidecar.call()
    sidecar.outbound.first.lend()
    sidecar.outbound.exchange.on_response_head(OK)
    sidecar.inbound.exchange.on_request_reset()
    assert sidecar.outbound.client.words == ["send_head", "reset"]
    assert sidecar.outbound.caller.counted == [("all", "default/catalog", "v1", 200, "DC")]


def test_calls_outlive_the_request_that_was_answered() -> None:
    """What an app does after it has answered is its own business; a later call inherits nothing."""
    sidecar = Sidecar()
    sidecar.receive()
    sidecar.inbound.first.lend()
    sidecar.call()
    stream = sidecar.outbound.first.lend()
    sidecar.inbound.exchange.on_response_head(OK)
    sidecar.inbound.exchange.on_response_end(None)
    assert stream.words == ["send_head"]
    assert not sidecar.surroundings.propagation.by_id


def test_an_ended_call_is_not_cancelled() -> None:
    """It has left the list of those that are made for the request."""
    sidecar = Sidecar()
    sidecar.receive()
    sidecar.call()
    sidecar.outbound.first.lend()
    sidecar.outbound.exchange.on_response_head(OK)
    sidecar.outbound.exchange.on_response_end(None)
    sidecar.inbound.exchange.on_request_reset()
    assert sidecar.surroundings.cancellations == []


def test_a_further_attempt_says_which_it_is() -> None:
    """Over all hops: the second try of a third one is the fourth."""
    sidecar = Sidecar()
    sidecar.receive((b"x-mesh-attempt", b"3"))
    went = sidecar.call()
    sidecar.outbound.first.waiting.pop().on_upstream_failed("connect-failed")
    sidecar.surroundings.tick()
    sidecar.outbound.second.lend()
    assert value_of(went.fields, b"x-mesh-attempt") == b"4"


def test_a_call_of_grpc_has_its_own_field() -> None:
    """What a route or a request before allows is said in `grpc-timeout`, whoever set one."""
    scene = limited(protocol="http2", request=2.0)
    head = scene.call("5S")
    scene.first.lend()
    assert value_of(head.fields, b"grpc-timeout") == b"2000000u"
    assert value_of(head.fields, b"x-mesh-deadline-ms") is None
    scene = limited(protocol="http2", request=2.0)
    head = scene.call()
    scene.first.lend()
    assert value_of(head.fields, b"grpc-timeout") == b"2000000u"


# Who may ask ----------------------------------------------------------------------------------------


def test_who_may_not_ask_is_told_a_number_and_nothing_else() -> None:
    """Before anything else is found out: not whether there is a route, nor how this proxy is called."""
    scene = Scene()
    scene.caller.guard = guard = FakeGuard(("access-denied", "00ff", ()))
    head = scene.ask(path=b"/admin")
    assert guard.heads == [head]
    assert scene.status == 403
    body = b"".join(word[1] for word in scene.client.heard if word[0] == "send_data")
    assert b"denial 00ff" in body
    for secret in (b"catalog", b"storefront", b"admin"):
        assert secret not in body
    assert scene.at_rest()


def test_who_has_a_wrong_token_is_told_how_to_come_again() -> None:
    """With the fields that the guard gives."""
    scene = Scene()
    challenge = field(b"WWW-Authenticate", b"Bearer")
    scene.caller.guard = FakeGuard(("invalid-token", "1", (challenge,)))
    scene.ask()
    assert scene.status == 401
    [head] = [word[1] for word in scene.client.heard if word[0] == "send_head"]
    assert challenge in head.fields


def test_who_may_ask_is_answered() -> None:
    """The guard says nothing, and everything goes on."""
    scene = Scene()
    scene.caller.guard = FakeGuard(None)
    scene.ask()
    assert scene.exchange.endpoint is not None


def test_a_request_that_goes_in_a_circle_is_refused() -> None:
    """After a few turns, and before anybody is asked again."""
    scene = Scene()
    mark = field(b"x-mesh-via", b", ".join([scene.caller.loops.name] * 3))
    head = RequestHead(b"GET", b"catalog", b"/", [])
    head.mesh_fields = [mark]
    scene.exchange.on_request_head(head)
    assert scene.caller.surroundings.refusals == ["loop"]
    assert scene.first.active == scene.second.active == 0


def test_when_memory_is_short_an_answer_is_torn() -> None:
    """Nobody may take what there is of it for all; once is enough."""
    scene = Scene()
    scene.ask()
    scene.first.lend()
    scene.exchange.on_response_head(OK)
    scene.exchange.on_response_data(b"x")
    scene.exchange.on_memory_short()
    scene.exchange.on_memory_short()
    assert scene.client.words[-1] == "reset"
    assert scene.caller.surroundings.refusals == ["memory-pressure"]
    assert scene.caller.counted == [("all", "default/catalog", "v1", 200, "OM")]
    assert scene.at_rest()


def test_when_memory_is_short_and_nothing_is_answered_it_is_said() -> None:
    """Of an upload that its app does not take; it may have been executed."""
    scene = Scene()
    scene.ask(b"PUT", length=10)
    scene.first.lend()
    scene.exchange.on_request_data(b"x")
    scene.exchange.on_memory_short()
    assert scene.status == 502
    assert scene.caller.surroundings.refusals == ["memory-pressure"]
    assert scene.at_rest()


# Large bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "apart"), [(None, 0), (0, 0), (LARGE - 1, 0), (LARGE, 1), (CHUNKED, 0), (TUNNEL, 0)]
)
def test_a_large_body_may_go_apart(length: int | None, apart: int) -> None:
    """As its length announces it."""
    scene = Scene()
    scene.ask(b"POST", length=length)
    assert scene.first.apart + scene.second.apart == apart


def test_after_a_large_answer_the_next_requests_may_go_apart() -> None:
    """By that route, until answers are small again; calls of gRPC never."""

    def ask(length: int, *, call: bool = False) -> int:
        scene.first.apart = scene.second.apart = 0
        scene.exchange = Exchange(scene.client, cast("Caller", scene.caller))
        if call:
            scene.call()
        else:
            scene.ask()
        [waiting] = [one for one in (scene.first, scene.second) if one.waiting]
        waiting.lend()
        scene.exchange.on_response_head(ResponseHead(200, [], length))
        scene.exchange.on_response_end(None)
        return scene.first.apart + scene.second.apart

    scene = Scene()
    scene.exchange.on_request_reset()
    assert ask(LARGE) == 0
    assert ask(LARGE) == 1
    assert ask(LARGE, call=True) == 0
    assert [ask(1) for _ in range(LASTING + 2)] == [1] * LASTING + [0, 0]
