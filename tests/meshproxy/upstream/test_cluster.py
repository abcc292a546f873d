"""A cluster through its changes: what stays, what goes."""

from typing import Any

import pytest

from meshproxy.contract.policies import HashKeySpec, LoadBalancingSpec, SessionPersistenceSpec
from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.contract.wire import ContractError
from meshproxy.policies.load_balancing.tokens import Tokens
from meshproxy.upstream.cluster import Cluster, Endpoint, check_balancing
from tests.helpers.environment import Environment

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


async def test_picking(cluster: Cluster) -> None:
    """The less busy, but not the one that has just failed, if there is another."""
    first, second = cluster.endpoints
    first.active = 1
    assert cluster.pick(None, None) is second
    assert cluster.pick(second, None) is first
    cluster.adopt(CATALOG, (A,))
    assert cluster.pick(first, None) is first
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
    ],
)
def test_what_cannot_be_obeyed(options: dict[str, Any], message: str) -> None:
    """Is found before anything is changed."""
    with pytest.raises(ContractError, match=message):
        check_balancing(ClusterSpec(name="catalog", **options))


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
