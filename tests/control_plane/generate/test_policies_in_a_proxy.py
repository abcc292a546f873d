"""What validates, a proxy obeys: one policy must not hold up the configuration of all others."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from control_plane.generate.snapshot import generate
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from meshproxy.config.snapshot import Mesh
from meshproxy.contract import wire
from meshproxy.contract.resources import Snapshot, TrustSpec
from tests.helpers.environment import Environment
from tests.helpers.mesh import policy, route, security, service, state, workload

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


# Security -----------------------------------------------------------------------------------------

TEXTS = st.sampled_from(
    [
        "a",
        "*",
        "a*",
        "*a",
        "**",
        "a*b",
        "",
        "\u00e9",
        "spiffe://m/ns/a/sa/b",
        "m/ns/a",
        "a b",
        "a\nb",
    ]
)
BLOCKS = st.sampled_from(
    ["10.0.0.0/8", "10.0.0.1/8", "10.0.0.1", "::/0", "fd00::1", "", "a", "1/2"]
)
HOSTS = st.sampled_from(
    [
        "a",
        "A.example",
        "*.example",
        "a:80",
        "a:*",
        "[::1]",
        "[::1",
        "a/b",
        "a:b",
        "",
        "*a*",
        "\u00e9",
    ]
)
METHODS = st.sampled_from(["GET", "get", "P*", "*", "", "G T", "M-SEARCH"])
TARGETS = st.sampled_from(
    [
        "/", "/a", "/a/*", "*", "*.php", "a", "", "/{*}", "/{**}", "/{**}/a", "/{a}", "/a{b}", "/{",
        "/a//b", "/a/../b", "/%61", "/a%20b", "/a b", "/;a", "/a?b", "/a#b", "/\u00e9", "/*/a", "/\\a",
    ]
)  # fmt: skip
PORTS = st.lists(st.sampled_from([0, 80, 8080, 65536]), max_size=2)
GRPC = some(
    service=st.sampled_from(["a.B", "a.*", "*", "", "a/B", "*B"]),
    method=st.sampled_from(["C", "C*", "*", "", "*C"]),
)
KEYS = st.sampled_from(
    [
        "request.headers[a]", "request.headers[a b]", "request.headers[]", "request.auth.claims[a]",
        "request.auth.claims[a][b]", "request.auth.claims", "request.auth.claims[]", "source.ip",
    ]
)  # fmt: skip


def listed(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(values, max_size=2)


def both(names: list[str], values: st.SearchStrategy[Any]) -> JSON:
    """Return fields with their twins: `hosts` and `notHosts`."""
    twins = [f"not{name[0].upper()}{name[1:]}" for name in names]
    return dict.fromkeys([*names, *twins], values)


SOURCE = some(
    **both(["principals", "namespaces", "trustDomains", "requestPrincipals"], listed(TEXTS)),
    **both(["ipBlocks"], listed(BLOCKS)),
)
OPERATION = some(
    **both(["hosts"], listed(HOSTS)),
    **both(["methods"], listed(METHODS)),
    **both(["paths"], listed(TARGETS)),
    **both(["ports"], PORTS),
    grpc=st.lists(GRPC, max_size=2),
)
CONDITION = st.fixed_dictionaries({"key": KEYS}, optional=both(["values"], listed(TEXTS)))
ACCESS = some(
    name=NAMES,
    **{"from": st.lists(SOURCE.map(lambda one: {"source": one}), max_size=2)},
    to=st.lists(OPERATION.map(lambda one: {"operation": one}), max_size=2),
    when=st.lists(CONDITION, max_size=2),
)
JWKS = [
    key.as_dict(private=False)
    for key in (
        ECKey.generate_key("P-256", {"kid": "1"}),
        OKPKey.generate_key("Ed25519"),
        RSAKey.generate_key(2048, {"alg": "PS256"}),
    )
]
WRONG_KEYS: list[Any] = [
    {**JWKS[0], "alg": "RS256"},
    {**JWKS[0], "x": "AA"},
    {**JWKS[0], "use": "enc"},
    ECKey.generate_key("P-256").as_dict(private=True),
    OctKey.import_key("a-secret-of-many-letters").as_dict(),
    {"kty": "X"},
    {},
    1,
]
KEY_SETS = st.lists(st.sampled_from([*JWKS, *WRONG_KEYS]), max_size=2).map(
    lambda keys: json.dumps({"keys": keys})
)
JWT_RULE = st.fixed_dictionaries(
    {
        "issuer": st.sampled_from(["", "i", "https://id.example", "\u00e9"]),
        "jwks": KEY_SETS | st.sampled_from(["", "{}", "[]", "x", '{"keys": 1}']),
    },
    optional={
        "audiences": listed(TEXTS),
        "fromHeaders": st.lists(some(name=NAMES, prefix=TEXTS), max_size=2),
        "fromParams": listed(TEXTS),
        "forwardOriginalToken": st.booleans(),
        "outputClaimToHeaders": st.lists(some(header=NAMES, claim=TEXTS), max_size=2),
        "leeway": DURATIONS,
    },
)


@settings(max_examples=150, deadline=None)
@given(ACCESS, st.sampled_from(["ALLOW", "DENY", "AUDIT"]))
def test_authorization_policies(rule: JSON, action: str) -> None:
    """Rule by rule; one of them that a proxy refused would leave all ports as they were."""
    spec = yaml({"action": action, "rules": [rule]})
    obeys(service("a"), workload("a"), security("AuthorizationPolicy", spec))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_conditions_one_by_one(data: st.DataObject) -> None:
    """So that few of the examples are refused for another one."""
    part = data.draw(
        st.one_of(
            SOURCE.map(lambda one: {"from": [{"source": one}]}),
            OPERATION.map(lambda one: {"to": [{"operation": one}]}),
            CONDITION.map(lambda one: {"when": [one]}),
        )
    )
    ((place, (one,)),) = part.items()
    (wrapped,) = one.values() if place != "when" else (one,)
    for name, value in wrapped.items():
        alone = {name: value} if place != "when" else {"key": wrapped["key"], name: value}
        inner = alone if place == "when" else {next(iter(one)): alone}
        spec = yaml({"rules": [{place: [inner]}]})
        obeys(service("a"), workload("a"), security("AuthorizationPolicy", spec))


@settings(max_examples=150, deadline=None)
@given(st.lists(JWT_RULE, min_size=1, max_size=2))
def test_request_authentications(rules: list[JSON]) -> None:
    """Keys are looked at where they are written, not where they are needed."""
    spec = yaml({"jwtRules": rules})
    obeys(service("a"), workload("a"), security("RequestAuthentication", spec))


@pytest.mark.parametrize(
    ("kind", "spec", "wrong"),
    [
        ("AuthorizationPolicy", "rules: [{to: [{operation: {paths: [/a]}}]}]", '"/a"'),
        ("RequestAuthentication", "jwtRules: [{issuer: i, jwksFile: k}]", '"keys": ""'),
    ],
)
def test_a_proxy_looks_at_them(kind: str, spec: str, wrong: str) -> None:
    """Otherwise the tests above would say nothing."""
    mesh = state(service("a"), workload("a"), security(kind, spec))
    text = wire.encode(generate(mesh, "default/a", TRUST)).decode()
    assert wrong in text.replace('":"', '": "')
    bad = text.replace('"/a"', '"a"').replace('"keys":""', '"keys":"x"')

    async def prepare() -> None:
        Mesh(Environment()).prepare(wire.decode(bad.encode(), Snapshot))

    with pytest.raises(wire.ContractError):
        asyncio.run(prepare())
