"""The policies of a proxy in words, and as JSON."""

import json

import pytest

from control_plane.cli.policies import as_table, data
from control_plane.generate.snapshot import generate
from control_plane.placement import Placement
from meshproxy.contract.resources import Snapshot
from tests.helpers.mesh import TRUST, policy, route, service, state, workload


def snapshot(*texts: str) -> Snapshot:
    place = {"default/a": Placement(inbound_ports={8080: 1}, app_ports={8080: 2})}
    mesh = state(service("a"), workload("a"), *texts, placements=place)
    return generate(mesh, "default/a", TRUST)


def rows(made: Snapshot) -> list[tuple[str, ...]]:
    head, *lines = as_table(made, None).splitlines()
    places = [head.index(name) for name in ("AT", "POLICY", "SETTING")]
    return [
        tuple(
            line[start:end].strip() for start, end in zip(places, [*places[1:], None], strict=True)
        )
        for line in lines
    ]


def setting(what: str, *texts: str, at: str = "default/a:80") -> list[str]:
    return [said for where, name, said in rows(snapshot(*texts)) if (where, name) == (at, what)]


def test_without_policies_there_are_the_defaults() -> None:
    """Said once; clusters that follow them have no row."""
    found = rows(snapshot())
    assert {where for where, _, _ in found} == {"(default)", "inbound:8080"}
    assert (
        "(default)",
        "timeouts",
        "request -, backend request -, connect 5s, stream idle 5m, tunnel idle -, max stream -, idle connection 1m",
    ) in found
    assert ("(default)", "circuit breaker", "off") in found


@pytest.mark.parametrize(
    ("sections", "what", "said"),
    [
        (
            "timeouts: {request: 90s, backendRequest: 1s, streamIdle: 0s}, maxConnectionAge: 1h",
            "timeouts",
            (
                "request 1m30s, backend request 1s, connect 5s, stream idle -, tunnel idle -, max stream -, "
                "idle connection 1m, connection age 1h"
            ),
        ),
        ("retry: {attempts: 0}", "retry", "none"),
        (
            (
                "retry: {codes: [503], retryOn: [reset], anyMethod: true, ofRetries: true, "
                "perTryTimeout: 1s, bodyLimit: 0, hedging: {}}"
            ),
            "retry",
            (
                "at most 2, also of 503, reset, any method, of retries, too, backoff 25ms to 1s, "
                "each try 1s, bodies to 0 bytes, hedged after p95 and 10ms"
            ),
        ),
        (
            "retryConstraint: {budget: {percent: 5}}",
            "retry constraint",
            "5% of the requests of 10s, at least 10 in 1s",
        ),
        (
            "limits: {maxPendingRequests: 0, maxRetries: 3}",
            "limits",
            "connections 1024, pending 0, requests 1024, retries 3",
        ),
        (
            "limits: {perEndpoint: {maxRequests: 9}}",
            "limits per endpoint",
            "connections 1024, pending 1024, requests 9",
        ),
        (
            "circuitBreaker: {slowCallPercent: 80}",
            "circuit breaker",
            "opens when 50% failed or 80% slower than 1s, of at least 20 in 10s, for 5s to 1m, 3 probes",
        ),
        (
            (
                "outlierDetection: {consecutiveGatewayErrors: 0, consecutive5xxErrors: 7, "
                "successRate: true, failurePercent: 85}"
            ),
            "outlier detection",
            (
                "7 5xx in a row, 5 local failures in a row, success rate 1.9 stdev below, 85% failed, "
                "ejected for 30s to 5m, at most 10%, panic below 50%"
            ),
        ),
        ("outlierDetection: {enabled: false}", "outlier detection", "off"),
        (
            "healthCheck: {http: {path: /up, statuses: [200]}}",
            "health check",
            "http /up, expecting 200, every 10s, timeout 1s, healthy after 2, unhealthy after 3",
        ),
        (
            "healthCheck: {tcp: {}}",
            "health check",
            "tcp, every 10s, timeout 1s, healthy after 2, unhealthy after 3",
        ),
        (
            (
                "loadBalancing: {algorithm: RingHash, ringSize: 64, locality: Ignore, "
                "hashKeys: [{type: Cookie, name: c, ttl: 1h}, {type: SourceIP}]}"
            ),
            "load balancing",
            "ring-hash, by cookie c (set for 1h), then address, ring size 64, wherever they are",
        ),
        (
            "loadBalancing: {slowStart: 30s}",
            "load balancing",
            "peak-ewma, slow start 30s, near first",
        ),
        (
            "sessionPersistence: {absoluteTimeout: 1h, cookieConfig: {lifetimeType: Permanent}}",
            "session persistence",
            "by cookie mesh-session, for 1h, permanent",
        ),
    ],
)
def test_what_differs_from_the_defaults(sections: str, what: str, said: str) -> None:
    """In the words of a TrafficPolicy, with the numbers that the proxy has."""
    assert setting(what, policy("p", sections)) == [said]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("{}", "above 4 to 1000 at once, as latency says, default when unsaid"),
        ("{adaptive: false}", "above 20 at once, default when unsaid"),
    ],
)
def test_load_shedding_is_at_the_workload(section: str, said: str) -> None:
    """At the port that all callers share."""
    text = policy("p", f"loadShedding: {section}")
    assert setting("load shedding", text, at="inbound:8080") == [said]


def test_what_a_rule_says() -> None:
    """Once for each rule, however many matches it has."""
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 5}}"
    rule = (
        "{matches: [{method: GET}, {method: PUT}], timeouts: {request: 0s}, retry: {}, "
        f"sessionPersistence: {{type: Header}}, filters: [{mirror}]}}"
    )
    faults = policy(
        "f",
        "rules: [{delay: {fixedDelay: 1s, percent: 1}, match: {method: GET}}, "
        "{abort: {httpStatus: 503, grpcStatus: UNAVAILABLE, percent: 0.5}, "
        "from: {principals: [spiffe://m/*]}}]",
        kind="FaultInjection",
    )
    found = [
        row for row in rows(snapshot(route("r", "a", f"[{rule}]"), faults)) if "Route" in row[0]
    ]
    assert found == [
        ("HTTPRoute/default/r/0", what, said)
        for what, said in (
            ("timeouts", "request -"),
            (
                "retry",
                "at most 2, of what was not processed, backoff 25ms to 1s, bodies to 65536 bytes",
            ),
            ("session persistence", "by header mesh-session"),
            ("mirror", "5% to default/a:80"),
            ("fault", "delay 1s of 1%, of GET, PathPrefix /, FaultInjection/default/f/0"),
            (
                "fault",
                "abort 503 and gRPC 14 of 0.5%, from spiffe://m/*, FaultInjection/default/f/1",
            ),
        )
    ]


def test_rate_limits_of_an_inbound_port() -> None:
    """For all its callers together."""
    text = policy(
        "l",
        "rules: [{requests: 5, per: {type: Identity}}, "
        "{requests: 9, interval: 1m, burst: 3, per: {type: Header, header: x-user}}]",
        kind="RateLimitPolicy",
    )
    assert setting("rate limit", text, at="inbound:8080") == [
        "5 in 1s for each identity, burst 5, RateLimitPolicy/default/l/0",
        "9 in 1m for each x-user, burst 3, RateLimitPolicy/default/l/1",
    ]


def test_as_json_everything_is_written_out() -> None:
    """For programs, which need not know the defaults."""
    found = data(snapshot(policy("p", "retry: {attempts: 1}")))
    assert json.loads(json.dumps(found)) == found
    (outward, inward) = found["clusters"]
    assert (outward["name"], inward["name"]) == ("default/a:80", "inbound:8080")
    assert outward["retry"]["attempts"] == 2
    assert outward["retry"]["backoff"] == 25
    assert (outward["breaker"], inward["outliers"]) == (None, None)
    (first, _) = found["routes"]
    assert first["virtual_host"] == "default/a:80"
    assert (first["retry"], first["faults"]) == (None, [])
    assert [one["rate_limits"] for one in found["virtual_hosts"]] == [[], []]
    assert [one["authorization"] for one in found["virtual_hosts"]] == [[], []]
    assert {one["name"] for one in found["tcp_routes"]} == {"default/a:80", "inbound:8080"}
    assert found["mtls"] == {"inbound:8080": "strict"}
