"""What validates, a proxy obeys: one policy must not hold up the configuration of all others."""

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.generate.snapshot import generate
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from meshproxy.config.snapshot import Mesh
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from tests.helpers.environment import Environment
from tests.helpers.mesh import policy, route, service, workload

JSON = dict[str, Any]
TRUST = TrustSpec(trust_domain="mesh.local", roots=("root",), session_secret="00" * 32)
DURATIONS = st.sampled_from(["0s", "1ms", "25ms", "10s", "99999h", "1h30m", "1.5s", "-1s", ""])
NUMBERS = st.sampled_from([-1, 0, 1, 2, 50, 65537, 2**32 - 1, 2**32])
PERCENTS = st.sampled_from([0, 0.1, 1, 50, 100, 101])
NAMES = st.sampled_from(
    ["a", "X-Mesh-A", "a b", "", "é", "a" * 128, "a" * 129, "__Host-a", "a=b", "a;b"]
)
CODES = st.lists(st.sampled_from([399, 400, 503, 599, 600]), max_size=2)
PATHS = st.sampled_from(["/", "/a?b=c", "a", "/a b", "/é", "/a#b", "/a\r\nb: c"])
PRINCIPALS = st.sampled_from(
    ["spiffe://m/a", "spiffe://m/*", "*", "spiffe://m", "a", "spiffe://m/a*b"]
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[JSON]:
    return st.fixed_dictionaries({}, optional=fields)


HASH_KEYS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Header", "Cookie", "QueryParam", "SourceIdentity", "SourceIP"])},
        optional={"name": NAMES, "ttl": DURATIONS},
    ),
    max_size=2,
)
SESSION = some(
    sessionName=NAMES,
    type=st.sampled_from(["Cookie", "Header"]),
    absoluteTimeout=DURATIONS,
    cookieConfig=some(lifetimeType=st.sampled_from(["Session", "Permanent"])),
)
TIMEOUTS = some(request=DURATIONS, backendRequest=DURATIONS)
SECTIONS = some(
    timeouts=some(
        request=DURATIONS, backendRequest=DURATIONS, connect=DURATIONS, streamIdle=DURATIONS,
        tunnelIdle=DURATIONS, maxStream=DURATIONS, idleConnection=DURATIONS,
    ),
    retry=some(
        attempts=NUMBERS, codes=CODES, backoff=DURATIONS, maxBackoff=DURATIONS,
        perTryTimeout=DURATIONS, bodyLimit=st.sampled_from([0, "16Mi", "17Mi", "64Ki", -1, "x"]),
        hedging=some(percentile=PERCENTS, minDelay=DURATIONS),
    ),
    retryConstraint=some(
        budget=some(percent=PERCENTS, interval=DURATIONS),
        minRetryRate=some(count=NUMBERS, interval=DURATIONS),
    ),
    limits=some(
        maxConnections=NUMBERS, maxPendingRequests=NUMBERS, maxRequests=NUMBERS, maxRetries=NUMBERS,
        perEndpoint=some(maxConnections=NUMBERS, maxRequests=NUMBERS),
    ),
    circuitBreaker=some(
        window=DURATIONS, minRequests=NUMBERS, failurePercent=PERCENTS, slowCallPercent=PERCENTS,
        slowCallThreshold=DURATIONS, openTime=DURATIONS, maxOpenTime=DURATIONS, probes=NUMBERS,
    ),
    outlierDetection=some(
        enabled=st.booleans(), consecutive5xxErrors=NUMBERS, interval=DURATIONS,
        successRate=st.booleans(), failurePercent=PERCENTS, minHosts=NUMBERS,
        baseEjectionTime=DURATIONS, maxEjectionTime=DURATIONS, maxEjectionPercent=PERCENTS,
    ),
    healthCheck=some(
        http=some(path=PATHS), grpc=some(service=NAMES), tcp=some(), interval=DURATIONS,
        timeout=DURATIONS, healthyThreshold=NUMBERS,
    ),
    loadBalancing=some(
        algorithm=st.sampled_from(["PeakEWMA", "RoundRobin", "RingHash", "Maglev"]),
        hashKeys=HASH_KEYS, ringSize=st.sampled_from([0, 1, 2, 64, 1024, 65537]), slowStart=DURATIONS,
    ),
    sessionPersistence=SESSION,
    maxConnectionAge=DURATIONS,
    loadShedding=some(
        adaptive=st.booleans(), initialLimit=NUMBERS, minLimit=NUMBERS, maxLimit=NUMBERS
    ),
)  # fmt: skip
MATCH = some(
    path=some(type=st.sampled_from(["Exact", "PathPrefix", "RegularExpression"]), value=PATHS),
    headers=st.lists(st.fixed_dictionaries({"name": NAMES, "value": NAMES}), max_size=1),
)
WHO = some(principals=st.lists(PRINCIPALS, max_size=2))
LIMITS = st.fixed_dictionaries(
    {"requests": NUMBERS},
    optional={
        "name": NAMES,
        "match": MATCH,
        "from": WHO,
        "per": some(type=st.sampled_from(["All", "Identity", "Header"]), header=NAMES),
        "interval": DURATIONS,
        "burst": NUMBERS,
    },
)
FAULTS = some(
    name=NAMES,
    match=MATCH,
    **{"from": WHO},
    delay=st.fixed_dictionaries({"fixedDelay": DURATIONS}, optional={"percent": PERCENTS}),
    abort=some(
        httpStatus=st.sampled_from([100, 200, 418, 599, 600]),
        grpcStatus=st.sampled_from(["OK", "UNAVAILABLE", 14]),
        percent=PERCENTS,
    ),
)
MIRROR = some(
    percent=PERCENTS, fraction=some(numerator=NUMBERS, denominator=st.sampled_from([0, 1, 8]))
)
RULE = some(
    timeouts=TIMEOUTS,
    retry=some(attempts=NUMBERS, codes=CODES, backoff=DURATIONS),
    sessionPersistence=SESSION,
    filters=st.lists(
        MIRROR.map(
            lambda share: {
                "type": "RequestMirror",
                "requestMirror": {"backendRef": {"name": "a", "port": 80}, **share},
            }
        ),
        max_size=1,
    ),
)


def obeys(*texts: str) -> None:
    """Fail where what has no error is refused by a proxy."""
    files = {Path(f"{n}.yaml"): examine(text, Path(f"{n}.yaml")) for n, text in enumerate(texts)}
    mesh = state_of(choose(files, {}), Placements())
    if any(finding.severity == "error" for finding in mesh.findings):
        return
    snapshot = wire.decode(wire.encode(generate(mesh, "default/a", TRUST)), Snapshot)

    async def prepare() -> None:
        proxy = Mesh(Environment())
        proxy.discard(proxy.prepare(snapshot))

    asyncio.run(prepare())


def yaml(rule: JSON) -> str:
    return json.dumps(rule)[1:-1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_traffic_policies(data: st.DataObject) -> None:
    """One section at a time, so that few of the examples are refused for another one."""
    section = data.draw(SECTIONS)
    for name, value in section.items():
        obeys(service("a"), workload("a"), policy("p", yaml({name: value})))


@settings(max_examples=60, deadline=None)
@given(LIMITS, FAULTS)
def test_limits_and_faults(limit: JSON, fault: JSON) -> None:
    """At the caller and at the workload, which here are one."""
    obeys(
        service("a"), workload("a"), policy("p", yaml({"rules": [limit]}), kind="RateLimitPolicy")
    )
    obeys(service("a"), workload("a"), policy("p", yaml({"rules": [fault]}), kind="FaultInjection"))


@settings(max_examples=60, deadline=None)
@given(RULE)
def test_rules_of_routes(rule: JSON) -> None:
    """What they say besides where requests go."""
    obeys(
        service("a"),
        workload("a"),
        route("r", "a", json.dumps([{**rule, "backendRefs": [{"name": "a", "port": 80}]}])),
    )
