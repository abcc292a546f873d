"""A cluster through its changes: what stays, what goes."""

import pytest

from meshproxy.contract.resources import ClusterSpec, EndpointSpec
from meshproxy.upstream.cluster import Cluster
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
    }  # fmt: skip
    cluster.sweep(0.0)
    cluster.close()
