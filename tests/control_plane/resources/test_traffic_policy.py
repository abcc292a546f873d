import pytest

from tests.helpers.mesh import messages, policy


def found(sections: str) -> list[str]:
    prefix = "f.yaml:5: TrafficPolicy/default/p: spec."
    return [one.removeprefix(prefix) for one in messages(policy("p", sections))]


@pytest.mark.parametrize(
    "sections",
    [
        "",
        (
            "timeouts: {}, retry: {}, retryConstraint: {}, limits: {}, circuitBreaker: {}, "
            "outlierDetection: {}, healthCheck: {tcp: {}}, loadBalancing: {}, sessionPersistence: {}, "
            "loadShedding: {}"
        ),
        "timeouts: {request: 0s, backendRequest: 1s}",
        "timeouts: {request: 1s, backendRequest: 1s}",
        "retry: {attempts: 0, codes: [503], retryOn: [5xx], bodyLimit: 0, perTryTimeout: 250ms}",
        "retry: {bodyLimit: 1Mi, hedging: {percentile: 99.9, minDelay: 0s}}",
        "limits: {maxConnections: 4294967295, perEndpoint: {maxPendingRequests: 0}}",
        "circuitBreaker: {failurePercent: 0, slowCallPercent: 100}",
        "outlierDetection: {enabled: false, consecutiveGatewayErrors: 0}",
        "healthCheck: {http: {path: '/up?deep=1', statuses: [200, 204]}}",
        (
            "loadBalancing: {algorithm: Maglev, ringSize: 65537, hashKeys: [{type: Header, name: a}, "
            "{type: Cookie, name: b, ttl: 0s}, {type: QueryParam, name: 'a b'}, {type: SourceIP}]}"
        ),
        "loadShedding: {adaptive: false, initialLimit: 5000}",
        "maxConnectionAge: 30m",
    ],
)
def test_accepted(sections: str) -> None:
    """Nothing is wrong with these."""
    assert found(sections) == []


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ("timeout: {}", 'timeout: unknown field, did you mean "timeouts" or '),
        (
            "timeouts: {request: 5 s}",
            'timeouts.request: "5 s" is not a duration, expected a duration such as 1h30m',
        ),
        (
            "timeouts: {request: 5}",
            'timeouts.request: "5" is an integer, expected a duration such as 1h30m, 10s or 250ms',
        ),
        ("timeouts: {connect: 0s}", 'timeouts.connect: "0s" is too short, expected at least 1ms'),
        (
            "timeouts: {request: 1s, backendRequest: 2s}",
            'timeouts.backendRequest: "2s" is longer than request "1s", expected at most that',
        ),
        (
            "timeouts: {request: 1s, connect: 2s}",
            'timeouts.connect: "2s" is longer than request "1s", expected less',
        ),
        (
            "retry: {attempts: 100}",
            "retry.attempts: 100 is out of range, expected an integer 0 to 99",
        ),
        (
            "retry: {codes: [200]}",
            "retry.codes[0]: 200 is out of range, expected an integer 400 to",
        ),
        ("retry: {codes: [503, 503]}", "retry.codes[1]: 503 stands twice, also at [0]"),
        ("retry: {retryOn: [5xx, 5xx]}", "retry.retryOn[1]: 5xx stands twice, also at [0]"),
        (
            "retry: {retryOn: [6xx]}",
            'retry.retryOn[0]: "6xx" is not known, expected one of 5xx, conn',
        ),
        (
            "retry: {maxBackoff: 10ms}",
            'retry.backoff: "25ms" is longer than maxBackoff "10ms", expected at most that',
        ),
        ("retry: {bodyLimit: 64KB}", 'retry.bodyLimit: "64KB" is not a number of bytes, expected'),
        ("retry: {bodyLimit: 17Mi}", "retry.bodyLimit: 17Mi is too large, expected at most 16Mi"),
        (
            "retry: {attempts: 0, hedging: {}}",
            "retry.hedging: needs a second attempt, expected attempts of at least 1",
        ),
        (
            "retry: {perTryTimeout: 10ms, hedging: {}}",
            'retry.hedging.minDelay: "10ms" is no less than perTryTimeout "10ms", expected less',
        ),
        (
            "retry: {hedging: {percentile: 100}}",
            "retry.hedging.percentile: 100 is out of range, expected a number above 0 and below 100",
        ),
        (
            "retryConstraint: {budget: {percent: 101}}",
            "retryConstraint.budget.percent: 101 is out of range, expected an integer 0 to 100",
        ),
        (
            "limits: {maxRequests: 0}",
            "limits.maxRequests: 0 is out of range, expected an integer 1 to",
        ),
        (
            "circuitBreaker: {failurePercent: 0}",
            "circuitBreaker.failurePercent: and slowCallPercent are 0: it would never trip",
        ),
        (
            "circuitBreaker: {openTime: 2m}",
            'circuitBreaker.openTime: "2m" is longer than maxOpenTime "1m"',
        ),
        (
            "outlierDetection: {consecutiveGatewayErrors: 0, consecutiveLocalOriginFailures: 0}",
            "outlierDetection: has every detector off, expected one, or enabled: false",
        ),
        (
            "outlierDetection: {consecutive5xxErrors: -1}",
            "outlierDetection.consecutive5xxErrors: -1 is out of range, expected an integer 0 to",
        ),
        (
            "outlierDetection: {baseEjectionTime: 10m}",
            'outlierDetection.baseEjectionTime: "10m" is longer than maxEjectionTime "5m"',
        ),
        ("healthCheck: {}", "healthCheck: has neither http nor grpc nor tcp, expected one of them"),
        (
            "healthCheck: {http: {}, tcp: {}}",
            "healthCheck.tcp: cannot stand beside http, expected one",
        ),
        (
            "healthCheck: {http: {path: up}}",
            'healthCheck.http.path: "up" is not absolute, expected',
        ),
        (
            "healthCheck: {http: {path: '/a?b c'}}",
            'healthCheck.http.path: "b c" has characters that a',
        ),
        (
            "healthCheck: {http: {statuses: [200, 200]}}",
            "healthCheck.http.statuses[1]: 200 stands twice, also at [0]",
        ),
        (
            "healthCheck: {tcp: {}, timeout: 11s}",
            'healthCheck.timeout: "11s" is longer than interval "10s", expected at most that',
        ),
        (
            "loadBalancing: {algorithm: RingHash}",
            "loadBalancing.hashKeys: is missing, expected what RingHash looks at",
        ),
        (
            "loadBalancing: {hashKeys: [{type: SourceIP}]}",
            "loadBalancing.hashKeys: does not go with algorithm PeakEWMA, expected RingHash or Maglev",
        ),
        (
            "loadBalancing: {ringSize: 3}",
            "loadBalancing.ringSize: does not go with algorithm PeakEWMA",
        ),
        (
            "loadBalancing: {algorithm: Maglev, ringSize: 65536, hashKeys: [{type: SourceIP}]}",
            "loadBalancing.ringSize: 65536 is not prime, expected such as 65537 for Maglev",
        ),
        (
            "loadBalancing: {algorithm: RingHash, slowStart: 1s, hashKeys: [{type: SourceIP}]}",
            "loadBalancing.slowStart: does not go with algorithm RingHash",
        ),
        (
            "loadBalancing: {algorithm: RingHash, hashKeys: [{type: Header}]}",
            "loadBalancing.hashKeys[0].name: is missing, expected it with type Header",
        ),
        (
            "loadBalancing: {algorithm: RingHash, hashKeys: [{type: Header, name: a b}]}",
            'loadBalancing.hashKeys[0].name: "a b" is not a header name',
        ),
        (
            "loadBalancing: {algorithm: RingHash, hashKeys: [{type: SourceIP, name: a}]}",
            "loadBalancing.hashKeys[0].name: does not go with type SourceIP",
        ),
        (
            "loadBalancing: {algorithm: RingHash, hashKeys: [{type: Header, name: a, ttl: 1s}]}",
            "loadBalancing.hashKeys[0].ttl: does not go with type Header, expected Cookie",
        ),
        (
            "loadBalancing: {algorithm: LeastRequests}",
            'loadBalancing.algorithm: "LeastRequests" is not known, expected one of LeastRequest',
        ),
        ("loadShedding: {minLimit: 2000}", "loadShedding.minLimit: 2000 is above maxLimit 1000"),
        (
            "loadShedding: {initialLimit: 2}",
            "loadShedding.initialLimit: 2 is out of range, expected 4",
        ),
    ],
)
def test_refused(sections: str, expected: str) -> None:
    """Each is one finding, with line and field; a section is judged with its defaults in place."""
    (only,) = found(sections)
    assert only.startswith(expected)
