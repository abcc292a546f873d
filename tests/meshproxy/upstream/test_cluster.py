"""A cluster through its changes: what stays, what goes."""

import asyncio
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import structs

from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    HashKeySpec,
    HealthCheckSpec,
    LimitsSpec,
    LoadBalancingSpec,
    OutlierSpec,
    RetrySpec,
    SessionPersistenceSpec,
    SheddingSpec,
)
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.contract.wire import ContractError
from meshproxy.hedge import SecondAttempt
from meshproxy.message import RequestHead
from meshproxy.mirror import Mirror
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.policies.outlier_detection import EJECTED, IN_SERVICE, PROBATION
from meshproxy.telemetry.gauges import Gauges
from meshproxy.upstream.cluster import Cluster, Endpoint, check_policies
from tests.helpers.environment import Environment
from tests.helpers.recorder import Recorder

CATALOG = ClusterSpec(name="catalog", service="default/catalog")
A, B = (EndpointSpec(address="127.0.0.1", port=port, version=f"v{port}") for port in (1, 2))


@pytest.fixture
async def cluster() -> Cluster:
    cluster = Cluster(CATALOG, Environment())
    cluster.adopt(CATALOG, (A, B))
    return cluster


async def test_endpoints_that_stay_are_the_same_objects(cluster: Cluster) -> None:
    """Their pools and counters go on; weight, version and limits are the new ones."""
    first, second = cluster.endpoints
    second.active = 3
    new = EndpointSpec(address="127.0.0.1", port=2, version="v3", weight=7)
    cluster.adopt(ClusterSpec(name="catalog", idle_timeout=5), (new,))

    assert list(cluster.endpoints) == [second]
    assert (second.active, second.weight, second.version) == (3, 7, "v3")
    assert second.pool.cluster.idle_timeout == 5
    assert second.pool.endpoint is new
    assert (first.pool.retired, second.pool.retired) == (True, False)
    assert cluster.service == "catalog"  # without a service, metrics call it by its own name


@pytest.mark.parametrize(
    ("spec", "endpoint"),
    [
        (CATALOG, EndpointSpec(address="127.0.0.1", port=1, identities=("spiffe://a/b",))),
        (ClusterSpec(name="catalog", mtls=True), A),
    ],
)
async def test_another_identity_or_security_needs_new_connections(
    cluster: Cluster, spec: ClusterSpec, endpoint: EndpointSpec
) -> None:
    """A connection was made under the old expectation; it finishes and is not used again."""
    old = cluster.endpoints[0]
    cluster.adopt(spec, (endpoint,))

    assert cluster.endpoints[0] is not old
    assert old.pool.retired


async def test_a_new_spec_keeps_what_the_budget_has_counted(cluster: Cluster) -> None:
    """A change of configuration is no new allowance; retries and the limit of bodies are the new ones."""
    cluster.budget.deposit(1000.0)
    assert sum(cluster.budget.withdraw(1000.0) for _ in range(20)) == 10
    cluster.adopt(ClusterSpec(name="catalog", mtls=True, retry=RetrySpec(replay_limit=7)), (A, B))
    assert not cluster.budget.withdraw(1000.0)
    assert (cluster.mtls, cluster.retry.replay_limit) == (True, 7)


async def test_picking(cluster: Cluster) -> None:
    """The less busy, but not the one that has just failed, if there is another."""
    first, second = cluster.endpoints
    first.active = 1
    assert cluster.pick(None, None) is second
    assert cluster.pick((second,), None) is first
    cluster.adopt(CATALOG, (A,))
    assert cluster.pick((first,), None) is first
    cluster.adopt(CATALOG, ())
    assert cluster.pick(None, None) is None


async def test_a_retired_cluster_retires_its_endpoints(cluster: Cluster) -> None:
    """It still serves requests that began with it."""
    cluster.retire()

    assert all(endpoint.pool.retired for endpoint in cluster.endpoints)
    assert cluster.pick(None, None) is not None


async def test_statistics_say_what_an_operator_asks(cluster: Cluster) -> None:
    """Address, version, weight, requests under way and connections of each endpoint."""
    cluster.endpoints[0].active = 2
    told = cluster.statistics()

    assert (told["name"], told["service"], told["mtls"]) == ("catalog", "default/catalog", False)
    assert told["endpoints"][0] == {
        "address": "127.0.0.1:1", "workload": "", "version": "v1", "weight": 1, "priority": 0,
            "identities": (), "latency_ms": 0.0,
        "active": 2, "connections": 0, "idle": 0, "dialling": 0, "waiting": 0,
        "state": "in-service", "ejections": 0,
    }  # fmt: skip
    assert told["breaker"] is None
    assert told["limits"]["requests"] == {"now": 0, "most": 1024}
    assert told["retry_budget"] == {"requests": 0, "retries": 0, "left": 10}
    cluster.sweep(0.0)
    cluster.close()


HTTP_OK = (200, None, "")


@pytest.mark.parametrize(
    ("how", "seconds", "expected"),
    [
        (HTTP_OK, 0.02, 0.02),
        ((500, None, ""), 0.02, 0.02),
        ((503, None, ""), 0.001, 1.0),
        ((503, None, ""), 3.0, 3.0),
        ((429, None, ""), 0.001, 1.0),
        ((200, "14", ""), 0.001, 1.0),
        ((0, None, "connect-failed"), 0.0, 1.0),
        ((0, None, "downstream-closed"), 0.0, 0.0),
        ((503, None, "overloaded"), 0.001, 1.0),
        ((0, None, ""), 0.004, 0.004),
    ],
)
async def test_what_an_attempt_says_about_latency(
    cluster: Cluster, how: tuple[int, str | None, str], seconds: float, expected: float
) -> None:
    """Who fails fast is not fast; who was left waiting by the client has said nothing."""
    endpoint = cluster.endpoints[0]
    endpoint.judge(*how, seconds, 100.0)
    assert endpoint.latency == expected


async def test_other_algorithms_measure_nothing(cluster: Cluster) -> None:
    """What is not needed is not done with every request."""
    cluster.adopt(with_(LoadBalancingSpec(algorithm="least-request")), (A, B))
    cluster.endpoints[0].judge(*HTTP_OK, 0.02, 100.0)
    assert cluster.endpoints[0].latency == 0.0


def with_(balancing: LoadBalancingSpec) -> ClusterSpec:
    return ClusterSpec(name="catalog", service="default/catalog", balancing=balancing)


async def test_latency_and_turns_outlive_updates(cluster: Cluster) -> None:
    """An update about another cluster, or another endpoint, forgets nothing about those that stayed."""
    first, second = cluster.endpoints
    first.judge(*HTTP_OK, 0.02, 100.0)
    pick = cluster.pick
    cluster.adopt(CATALOG, (A, B))
    assert cluster.pick is pick
    cluster.adopt(CATALOG, (A,))
    assert cluster.pick is not pick
    assert (cluster.endpoints, first.latency) == ((first,), 0.02)
    assert second.pool.retired


async def test_who_comes_later_begins_slowly(cluster: Cluster) -> None:
    """Not those that are there from the beginning; who comes back into service does, too."""
    environment = Environment()
    time = 100.0
    environment.now = lambda: time
    spec = with_(LoadBalancingSpec(algorithm="random", slow_start=10_000))
    cluster = Cluster(spec, environment)
    cluster.adopt(spec, (A,))
    cluster.adopt(spec, (A, B))
    old, new = cluster.endpoints

    def takes(point: float) -> Endpoint | None:
        points = iter((point, 0.5, *([0.0] * 20)))
        environment.random = lambda: next(points)
        cluster.adopt(
            with_(LoadBalancingSpec()), (A, B)
        )  # chance is asked for when balancing is made
        cluster.adopt(spec, (A, B))
        return cluster.pick(None, None)

    assert takes(0.9) is old  # drawn, and refused
    time = 108.0
    assert takes(0.9) is new
    time = 111.0
    cluster.sweep(time)
    assert takes(0.9) is new
    cluster._use((old,))
    cluster._use((old, new))
    assert takes(0.9) is old


@pytest.mark.parametrize("algorithm", ["ring-hash", "maglev"])
async def test_keys_go_to_the_endpoint_they_belong_to(algorithm: Any) -> None:
    """All proxies agree on it, so it must not change by itself."""
    spec = with_(
        LoadBalancingSpec(algorithm=algorithm, hash_keys=(HashKeySpec(source="identity"),))
    )
    picked = set()
    for endpoints in ((A, B), (B, A)):
        cluster = Cluster(spec, Environment())
        cluster.adopt(spec, endpoints)
        assert cluster.sticky
        assert cluster.hash_key is not None
        endpoint = cluster.pick(None, 12345)
        assert endpoint is not None
        picked.add(endpoint.name)
    assert len(picked) == 1


async def test_sessions_are_resumed_with_who_is_in_service(cluster: Cluster) -> None:
    """By what tokens call it; not with who is out, or unknown."""
    tokens = Tokens(b"s" * 32, lambda: 0.0)
    first, second = cluster.endpoints
    named = tokens.id_of("127.0.0.1:1")
    assert cluster.resume(named, tokens) is first
    assert cluster.resume(tokens.id_of("127.0.0.1:3"), tokens) is None
    cluster._use((second,))
    assert cluster.resume(named, tokens) is None
    cluster._use((first, second))
    assert cluster.resume(named, tokens) is first
    changed = Tokens(b"t" * 32, lambda: 0.0)
    assert cluster.resume(named, changed) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {
                "balancing": LoadBalancingSpec(
                    algorithm="maglev", hash_keys=(HashKeySpec(source="header"),)
                )
            },
            r"cluster/catalog balancing.hash_keys\[0\].name: expected the name of the header",
        ),
        (
            {"session": SessionPersistenceSpec(name="a b")},
            "cluster/catalog session.name: expected the name of a cookie, got 'a b'",
        ),
        (
            {"health_check": HealthCheckSpec(type="grpc")},
            "cluster/catalog health_check.type: grpc needs protocol http2",
        ),
    ],
)
def test_what_cannot_be_obeyed(options: dict[str, Any], message: str) -> None:
    """Is found before anything is changed."""
    with pytest.raises(ContractError, match=message):
        check_policies(ClusterSpec(name="catalog", **options))


async def test_shedding_comes_and_goes_with_the_spec(cluster: Cluster) -> None:
    """Off by default; what is counted outlives a change of the numbers."""
    assert "shedding" not in cluster.statistics()
    cluster.adopt(ClusterSpec(name="catalog", shedding=SheddingSpec(adaptive=False, initial=7)), ())
    shedding = cluster.shedding
    assert shedding is not None
    assert shedding.admit(None, 0.0) is None
    cluster.adopt(ClusterSpec(name="catalog", shedding=SheddingSpec(adaptive=False, initial=9)), ())
    assert cluster.shedding is shedding
    assert cluster.statistics()["shedding"] == {
        "limit": 9, "active": 1, "min_rtt_ms": 0.0, "measuring": False,
    }  # fmt: skip
    cluster.adopt(ClusterSpec(name="catalog"), ())
    assert "shedding" not in cluster.statistics()


async def test_workers_share_what_the_app_can_bear() -> None:
    """It is one app, whoever gives it requests."""
    environment = Environment()
    environment.workers = 4
    spec = ClusterSpec(name="catalog", shedding=SheddingSpec(adaptive=False, initial=20))
    cluster = Cluster(spec, environment)
    cluster.adopt(spec, ())
    assert cluster.shedding is not None
    assert cluster.shedding.limit == 5


async def test_a_zone_that_is_down_is_no_reason_to_panic() -> None:
    """Two of three endpoints are out, less than half are left, and the far one can do the work."""
    spec = ClusterSpec(name="catalog")
    near = [EndpointSpec(address="127.0.0.1", port=port) for port in (1, 2)]
    far = EndpointSpec(address="127.0.0.1", port=3, priority=1)
    cluster = Cluster(spec, Environment())
    cluster.adopt(spec, (*near, far))
    for endpoint in cluster.endpoints[:2]:
        endpoint.healthy = False
    cluster._restate()
    assert cluster.available == cluster.endpoints[2:]
    cluster.adopt(with_(LoadBalancingSpec(locality=False)), (*near, far))
    assert cluster.available == cluster.endpoints
    cluster.close()


# Who may be called, and how much at once ------------------------------------------------------------

GUARDED = ClusterSpec(
    name="catalog",
    breaker=CircuitBreakerSpec(min_requests=2, open_time=5_000, probes=1),
    outliers=OutlierSpec(consecutive_gateway_errors=1, base_ejection=30_000),
    limits=LimitsSpec(requests=2, connections=2),
)


class Guarded:
    """A cluster with everything armed, and a clock that the test moves."""

    def __init__(self, spec: ClusterSpec = GUARDED, *endpoints: EndpointSpec) -> None:
        self.environment = Environment()
        self.time = 100.0
        self.environment.now = lambda: self.time
        self.cluster = Cluster(spec, self.environment)
        self.cluster.adopt(spec, endpoints or (A, B))
        self.first, self.second = self.cluster.endpoints[0], self.cluster.endpoints[-1]

    def admits(self) -> bool:
        requests = self.cluster.requests
        return requests.count < requests.ceiling or self.cluster.admits(requests)

    def counted(self, name: str) -> dict[tuple[str, ...], int]:
        return dict(self.environment.metrics.counts().counters[name])

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        detection = self.cluster._availability.detection
        assert detection is not None
        detection.tick(self.time)


async def test_the_breaker_shuts_the_limits_and_says_when_to_come_again() -> None:
    """While it is closed nobody asks it; open, everybody has to."""
    scene = Guarded(GUARDED, A)
    cluster = scene.cluster
    for _ in range(2):
        scene.first.judge(0, None, "connect-failed", 0.0, scene.time)
    assert (cluster.requests.ceiling, cluster.connections.ceiling) == (0, 0)
    assert not scene.admits()
    code, _, [(_, _, line)] = cluster.refusal(cluster.requests)
    assert (code, line) == ("circuit-open", b"Retry-After: 5")
    scene.time += 5.0
    assert scene.admits()
    assert not scene.admits()
    assert cluster.refusal(cluster.requests)[2][0][1] == b"1"
    scene.first.judge(200, None, "", 0.1, scene.time)
    assert (cluster.requests.ceiling, cluster.connections.ceiling) == (2, 2)
    assert scene.counted("breaker_transitions") == {
        ("catalog", "open"): 1, ("catalog", "half-open"): 1, ("catalog", "closed"): 1,
    }  # fmt: skip
    cluster.close()


async def test_other_settings_begin_with_a_closed_breaker() -> None:
    """The same ones go on as they were; without one, nothing is shut."""
    scene = Guarded(GUARDED, A)
    for _ in range(2):
        scene.first.judge(503, None, "", 0.1, scene.time)
    scene.cluster.adopt(GUARDED, (A, B))
    assert not scene.admits()
    assert scene.cluster.endpoints[1].breaker is scene.cluster.breaker
    other = structs.replace(GUARDED, breaker=CircuitBreakerSpec())
    scene.cluster.adopt(other, (A,))
    assert scene.admits()
    for _ in range(20):
        scene.first.judge(503, None, "", 0.1, scene.time)
    assert not scene.admits()
    scene.cluster.adopt(structs.replace(GUARDED, breaker=None), (A,))
    assert scene.admits()
    assert scene.cluster.breaker is None
    scene.cluster.close()


async def test_a_full_limit_is_named_and_counted() -> None:
    """It comes before the breaker: who is over the limit is no probe."""
    scene = Guarded()
    cluster = scene.cluster
    cluster.requests.count = 2
    assert not scene.admits()
    assert cluster.refusal(cluster.requests) == ("overflow", "requests", [])
    assert scene.counted("overflows") == {("catalog", "cluster", "requests"): 1}
    cluster.close()


async def test_nobody_to_call_is_another_matter() -> None:
    """No endpoints at all, with a breaker that has nothing against it."""
    scene = Guarded()
    scene.cluster.adopt(GUARDED, ())
    assert scene.cluster.pick(None, None) is None
    assert scene.cluster.refusal(scene.cluster.requests) == ("no-healthy-endpoint", "", [])
    scene.cluster.close()


@pytest.mark.parametrize(
    ("how", "state", "failed"),
    [
        ((200, None, ""), IN_SERVICE, 0),
        ((404, None, ""), IN_SERVICE, 0),
        ((429, None, ""), IN_SERVICE, 0),
        ((500, None, ""), IN_SERVICE, 0),
        ((200, "5", ""), IN_SERVICE, 0),
        ((200, "14", ""), EJECTED, 1),
        ((503, None, ""), EJECTED, 1),
        ((0, None, "upstream-reset"), IN_SERVICE, 1),
        ((0, None, "downstream-closed"), IN_SERVICE, 0),
        ((503, None, "overloaded"), IN_SERVICE, 0),
    ],
)
async def test_who_judges_is_told(
    how: tuple[int, str | None, str], state: str, failed: int
) -> None:
    """Detector and breaker learn of the same attempt what is theirs to know."""
    scene = Guarded()
    scene.first.judge(*how, 0.1, scene.time)
    assert scene.first.host.state == state
    assert scene.cluster.breaker is not None
    told = scene.cluster.breaker.statistics(scene.time)
    given_up = how[2] in ("downstream-closed", "overloaded")
    assert (told["requests"], told["failed"]) == (0 if given_up else 1, failed)
    scene.cluster.close()


async def test_one_request_at_a_time_during_probation() -> None:
    """The others go elsewhere until it is known how that one went; then all is as before."""
    scene = Guarded(structs.replace(GUARDED, breaker=None))
    scene.first.judge(503, None, "", 0.1, scene.time)
    assert {scene.cluster.pick(None, None) for _ in range(20)} == {scene.second}
    scene.sleep(30.0)
    scene.second.active = 5
    picked = [scene.cluster.pick(None, None) for _ in range(10)]
    assert picked == [scene.first] + [scene.second] * 9
    scene.first.judge(0, None, "downstream-closed", 0.0, scene.time)
    assert scene.cluster.pick(None, None) is scene.first
    scene.first.judge(200, None, "", 0.1, scene.time)
    assert scene.first.host.state == IN_SERVICE
    assert {scene.cluster.pick(None, None) for _ in range(20)} == {scene.first}
    scene.cluster.close()


async def test_updates_keep_ejections_of_those_that_stay() -> None:
    """Others come and go; who leaves has nothing more to say to who is left."""
    scene = Guarded(structs.replace(GUARDED, breaker=None))
    scene.first.judge(503, None, "", 0.1, scene.time)
    third = EndpointSpec(address="127.0.0.1", port=3)
    scene.cluster.adopt(scene.cluster.spec, (A, third))
    assert scene.cluster.endpoints[0].host.state == EJECTED
    assert scene.cluster.available == (scene.cluster.endpoints[1],)
    scene.second.judge(503, None, "", 0.1, scene.time)  # the one that has left
    assert scene.cluster._availability.states()[EJECTED] == 1
    scene.cluster.adopt(scene.cluster.spec, (A,))
    assert scene.cluster.available == scene.cluster.endpoints  # never the last one
    scene.cluster.close()


async def test_an_endpoint_may_have_a_limit_of_its_own() -> None:
    """Of requests, the one that is being counted included; of opaque connections."""
    spec = ClusterSpec(name="catalog", endpoint_limits=LimitsSpec(requests=1, connections=0))
    scene = Guarded(spec)
    exchange, relay = Recorder(), Recorder()
    scene.first.active = 2
    exchange.attempts = 1  # type: ignore[attr-defined]
    scene.first.acquire(exchange)
    scene.first.connect(relay)
    assert exchange.heard == relay.heard == [("on_upstream_failed", "overflow")]
    assert scene.counted("overflows") == {
        ("catalog", "endpoint", "requests"): 1, ("catalog", "endpoint", "connections"): 1,
    }  # fmt: skip
    scene.first.active = 1
    scene.first.acquire(exchange)
    assert scene.first.pool.statistics()["waiting"] == 1
    scene.cluster.close()


async def test_retries_of_an_endpoint_may_be_limited() -> None:
    """First attempts pass; retries that are over make room for others."""
    scene = Guarded(ClusterSpec(name="catalog", endpoint_limits=LimitsSpec(retries=1)))
    exchanges = [Recorder() for _ in range(3)]
    for attempts, exchange in zip((1, 2, 2), exchanges, strict=True):
        exchange.attempts, exchange.endpoint = attempts, scene.first  # type: ignore[attr-defined]
        scene.first.acquire(exchange)
    assert [exchange.words for exchange in exchanges] == [[], [], ["on_upstream_failed"]]
    exchanges[1].endpoint = None  # type: ignore[attr-defined]
    scene.first.acquire(exchanges[2])
    scene.first.acquire(exchanges[2])
    assert exchanges[2].words == ["on_upstream_failed"]
    assert scene.counted("overflows") == {("catalog", "endpoint", "retries"): 1}
    scene.cluster.close()


async def test_what_is_no_exchange_is_limited_as_well() -> None:
    """Copies and hedges: a hedge is a retry, until it is over."""
    spec = ClusterSpec(name="catalog", endpoint_limits=LimitsSpec(requests=9, retries=1))
    scene = Guarded(spec)
    request = RequestHead(b"GET", b"catalog", b"/", [])
    copy = Mirror(request, scene.cluster, scene.environment)
    copy.begin()
    assert copy.done is False

    first = Recorder()
    hedges = [SecondAttempt(first, scene.first, 100.0) for _ in range(2)]  # type: ignore[arg-type]
    for hedge in hedges:
        hedge.begin()
    assert first.words == ["on_second_failed"]
    for hedge in hedges:
        hedge.end(0, None, "downstream-closed", 0.0)
    SecondAttempt(first, scene.first, 100.0).begin()  # type: ignore[arg-type]
    assert first.words == ["on_second_failed"]
    scene.cluster.close()


async def test_gauges() -> None:
    """How things stand, for as long as there is something to say."""
    scene = Guarded()
    scene.first.judge(503, None, "", 0.1, scene.time)
    gauges = Gauges()
    scene.cluster.gauge(gauges)
    told = {(name, *labels): value for name, labels, value in gauges.readings()}
    assert told["mesh_circuit_breaker_state", "catalog", "closed"] == 1
    assert told["mesh_endpoints", "catalog", "ejected"] == 1
    assert told["mesh_limit_remaining", "catalog", "requests"] == 2
    assert ("mesh_limit_remaining", "catalog", "retries") not in told
    scene.cluster.close()


class Machine(RuleBasedStateMachine):
    """Attempts begin and end in any way, over a cluster of five, while time goes by."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scene = self.loop.run_until_complete(self.make())
        self.under_way: list[tuple[Endpoint, float]] = []

    @staticmethod
    async def make() -> Guarded:
        spec = ClusterSpec(
            name="catalog",
            breaker=CircuitBreakerSpec(min_requests=10, open_time=2_000, probes=2),
            outliers=OutlierSpec(
                consecutive_gateway_errors=2, base_ejection=3_000, max_ejected_percent=40.0
            ),
            limits=LimitsSpec(requests=6),
        )
        ports = range(1, 6)
        return Guarded(spec, *(EndpointSpec(address="127.0.0.1", port=port) for port in ports))

    def teardown(self) -> None:
        self.scene.cluster.close()
        self.loop.close()

    @rule()
    def begin(self) -> None:
        self.scene.time += 0.001
        if not self.scene.admits():
            return
        endpoint = self.scene.cluster.pick(None, None)
        assert endpoint is not None
        healthy = [one for one in self.scene.cluster.endpoints if one.host.state == IN_SERVICE]
        assert healthy
        assert endpoint.host.state != EJECTED
        self.scene.cluster.requests.count += 1
        endpoint.active += 1
        self.under_way.append((endpoint, self.scene.time))

    @rule(which=st.integers(0, 5), code=st.sampled_from(["", "", "upstream-reset", "downstream-closed"]),
          status=st.sampled_from([200, 200, 503, 500]))  # fmt: skip
    def end(self, which: int, code: str, status: int) -> None:
        if not self.under_way:
            return
        self.scene.time += 0.001
        endpoint, began = self.under_way.pop(which % len(self.under_way))
        self.scene.cluster.requests.count -= 1
        endpoint.active -= 1
        endpoint.judge(status, None, code, 0.001, began)

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.scene.sleep(seconds)

    @invariant()
    def limits_hold(self) -> None:
        assert self.scene.cluster.requests.count <= 6
        states = self.scene.cluster._availability.states()
        assert states[EJECTED] + states[PROBATION] <= 2

    @invariant()
    def one_at_a_time_on_probation(self) -> None:
        for endpoint in self.scene.cluster.endpoints:
            if endpoint.host.state == PROBATION:
                since = endpoint.host.since
                probes = [one for one in self.under_way if one[0] is endpoint and one[1] >= since]
                assert len(probes) <= 1


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
