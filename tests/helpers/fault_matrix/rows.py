"""The matrix.  `docs/resilience.md` shows it; `tests/integration/test_fault_matrix.py` tries it."""

from collections.abc import Mapping
from typing import Any

from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    FaultSpec,
    HashKeySpec,
    HealthCheckSpec,
    HedgeSpec,
    LimitsSpec,
    LoadBalancingSpec,
    MirrorSpec,
    OutlierSpec,
    RateLimitSpec,
    RetryBudgetSpec,
    RetrySpec,
    SessionPersistenceSpec,
    SheddingSpec,
)

from .row import NOBODY, Lane, Policy, Row

DEFAULTS = Policy("defaults", "Nothing is configured: what provably was not processed is repeated.")

HTTP1_ONLY: Mapping[Lane, str | None] = {"http2": None, "grpc": None}
HTTP2_ONLY: Mapping[Lane, str | None] = {"http1": None}
GRPC_ONLY: Mapping[Lane, str | None] = {"http1": None, "http2": None}

OF_DEFAULTS = (
    # Getting there
    Row(
        "nobody listens", "", "connect-failed",
        mode="closed", executed=0, counts={"retries connect-failed": 2},
    ),
    Row(
        "connections are accepted and reset", "", "upstream-closed or connect-failed",
        mode="reset", executed=0, counts=None,
    ),
    Row("connections are accepted, and nothing more", "", "waits", mode="silent", executed=0),
    Row("nobody listens at one of two endpoints", "", "200", second="nobody", counts=None),
    # Before the work
    Row("reset when the head has been read", "at=request do=reset", "upstream-closed", executed=0),
    Row(
        "the same, but the work is done",
        "at=request do=reset executes", "upstream-closed", executed=1,
    ),
    Row(
        "reset amid the request's body",
        "at=request+5000 do=reset", "upstream-closed", body=1_000_000, executed=0,
    ),
    Row("stalls when the head has been read", "at=request do=stall", "waits", executed=0),
    Row(
        "REFUSED_STREAM, once", "at=request do=rst:7 first=1", "200",
        lanes=HTTP2_ONLY, counts={"retries stream-refused": 1},
    ),
    Row(
        "REFUSED_STREAM, always", "at=request do=rst:7", "stream-refused",
        lanes=HTTP2_ONLY, executed=0, counts={"retries stream-refused": 2},
    ),
    Row(
        "REFUSED_STREAM, for a body too large to be kept",
        "at=request+70000 do=rst:7", "stream-refused",
        lanes=HTTP2_ONLY, body=100_000, executed=0, counts={"retries_skipped body-too-large": 1},
    ),
    Row(
        "GOAWAY below the request, once", "at=request do=goaway first=1", "200",
        lanes=HTTP2_ONLY, counts={"retries stream-refused": 1},
    ),
    Row("GOAWAY at the request", "at=head do=leave", "200", lanes=HTTP2_ONLY),
    Row(
        "the stream is reset with INTERNAL_ERROR",
        "at=request do=rst:2", "upstream-reset", lanes=HTTP2_ONLY, executed=0,
    ),
    # On a connection that has served before: perhaps it was on its way out when it was used again
    Row(
        "a reused connection is closed unread, GET",
        "at=request do=close reused first=1", "200",
        method="GET", before=("",), counts={"retries upstream-closed": 1},
    ),
    Row(
        "a reused connection is closed unread, POST",
        "at=request do=close reused first=1", "upstream-closed", before=("",), executed=0,
        counts={"retries_skipped not-idempotent": 1},
    ),
    # The answer's head
    Row("closed before the answer", "at=head do=close", "upstream-closed"),
    Row("reset before the answer", "at=head do=reset", "upstream-closed"),
    Row("closed amid the answer's head", "at=head+8 do=close", "upstream-closed"),
    Row("reset amid the answer's head", "at=head+8 do=reset", "upstream-closed"),
    Row("stalls before the answer", "at=head do=stall", "waits"),
    Row("stalls amid the answer's head", "at=head+8 do=stall", "waits"),
    Row("the answer's head is slow", "at=head pace=1", "200"),
    Row("no HTTP instead of an answer", "at=head do=garbage", "upstream-protocol-error"),
    # The answer's body
    Row("closed amid the answer's body", "at=body+10 do=close", "torn", flag="UC"),
    # A reset may be noticed while something is written, and then what had come before is not read.
    Row(
        "reset amid the answer's body", "at=body+10 do=reset", "torn or upstream-closed",
        lanes={"http1": "torn"}, flag="UC",
    ),
    Row(
        "the stream is reset amid the answer's body",
        "at=body+10 do=rst:2", "torn", lanes=HTTP2_ONLY, flag="UR",
    ),
    Row("stalls amid the answer's body", "at=body+10 do=stall", "waits"),
    Row("the answer's body is slow", "at=body pace=1 size=20", "200"),
    Row(
        "closed before the last chunk", "framing=chunked at=end do=close", "torn",
        lanes=HTTP1_ONLY, flag="UC",
    ),
    Row(
        "closed before the status, or the end of the stream", "at=end do=close", "torn",
        lanes=HTTP2_ONLY, flag="UC",
    ),
    # Lengths that are not true
    Row(
        "fewer bytes than Content-Length, then closed",
        "length=+5 at=end do=close", "torn", lanes={"grpc": None}, flag="UC",
    ),
    Row(
        "more bytes than Content-Length",
        "length=-5", "200",
        lanes={"http2": "torn", "grpc": None}, flag={"http1": "-", "http2": "UPE"},
    ),
    Row("chunks that are shorter than they say", "framing=lie", "torn", lanes=HTTP1_ONLY, flag="UPE"),
    Row("bytes behind the answer", "at=end do=garbage", "200", lanes=HTTP1_ONLY),
    # What the app says is not touched
    Row("answers 503", "status=503", "503", lanes={"grpc": None}),
    Row("answers 500", "status=500", "500", lanes={"grpc": None}),
    Row("answers 429 with Retry-After", "status=429 retry-after=1", "429", lanes={"grpc": None}),
    Row("answers UNAVAILABLE", "grpc=14", "14", lanes=GRPC_ONLY),
    Row(
        "answers UNAVAILABLE in the head (Trailers-Only)",
        "grpc=14 only", "14", lanes=GRPC_ONLY,
    ),
)  # fmt: skip

# The same failures, where the policy asks once more ---------------------------------------------

RETRIES = Policy(
    "retries",
    "`retry: {codes: [429, 503], retryOn: [grpc-unavailable], maxBackoff: 1500ms}`: three tries in all.",
    route={
        "retry": RetrySpec(codes=(429, 503), conditions=("grpc-unavailable",), max_backoff=1_500)
    },
)

HTTP: Mapping[Lane, str | None] = {"grpc": None}

OF_RETRIES = (
    Row(
        "answers 503 once, GET", "status=503 first=1", "200",
        method="GET", executed=2, counts={"retries 503": 1},
    ),
    Row(
        "answers 503 always, GET", "status=503", "503",
        method="GET", executed=3, flag="URX", counts={"retries 503": 2},
    ),
    Row(
        "answers 503 once, GET, in chunks", "status=503 first=1 framing=chunked size=5000", "200",
        lanes=HTTP1_ONLY, method="GET", executed=2, counts={"retries 503": 1},
    ),
    Row(
        "answers 503 once, POST", "status=503 first=1", "503",
        lanes=HTTP, counts={"retries_skipped not-idempotent": 1},
    ),
    Row(
        "answers 503 once, POST with Idempotency-Key", "status=503 first=1", "200",
        lanes=HTTP, fields={"idempotency-key": '"1"'}, body=1_000, executed=2, counts={"retries 503": 1},
    ),
    Row(
        "the same, but its body is too large to be kept", "status=503 first=1", "503",
        lanes=HTTP, fields={"idempotency-key": '"1"'}, body=100_000, counts={"retries_skipped body-too-large": 1},
    ),
    Row(
        "answers 429 and wants a second, GET", "status=429 retry-after=1 first=1", "200",
        method="GET", executed=2, counts={"retries 429": 1},
    ),
    Row(
        "answers 429 and wants a minute, GET", "status=429 retry-after=60 first=1", "429",
        method="GET", counts={"retries_skipped retry-after": 1},
    ),
    Row("answers 500, GET", "status=500 first=1", "500", method="GET"),
    Row(
        "closed amid the answer's body, GET", "at=body+10 do=close", "torn",
        method="GET", flag="UC",
    ),
    Row(
        "answers UNAVAILABLE in the head once (Trailers-Only)", "grpc=14 only first=1", "200",
        lanes=GRPC_ONLY, executed=2, counts={"retries grpc-14": 1},
    ),
    Row(
        "answers UNAVAILABLE in the head always", "grpc=14 only", "14",
        lanes=GRPC_ONLY, executed=3, flag="URX", counts={"retries grpc-14": 2},
    ),
    Row("answers UNAVAILABLE after a message", "grpc=14 first=1", "14", lanes=GRPC_ONLY),
)  # fmt: skip

RETRIED_TIMEOUTS = Policy(
    "retried timeouts",
    "`timeouts: {backendRequest: 1s}` and `retry: {retryOn: [timeout]}`: too late is asked for once more.",
    route={"backend_request_timeout": 1_000, "retry": RetrySpec(conditions=("timeout",))},
    timed=True,
)
OF_RETRIED_TIMEOUTS = (
    Row(
        "stalls before the answer, once, GET", "at=head do=stall first=1", "200",
        method="GET", executed=2, counts={"retries attempt-timeout": 1},
    ),
    Row(
        "stalls before the answer, once, POST", "at=head do=stall first=1", "attempt-timeout",
        counts={"retries_skipped not-idempotent": 1},
    ),
)  # fmt: skip

PER_TRY = Policy(
    "per try",
    "`retry: {perTryTimeout: 1s, retryOn: [timeout, reset, 5xx]}`: each try has so much time to begin its answer.",
    route={
        "retry": RetrySpec(per_try_timeout=1_000, conditions=("timeout", "reset", "5xx")),
    },
    timed=True,
)
OF_PER_TRY = (
    Row(
        "stalls before the answer, once, GET", "at=head do=stall first=1", "200",
        method="GET", executed=2, abandoned=1, counts={"retries attempt-timeout": 1},
    ),
    Row("the answer's body is slow", "at=body pace=10 size=150", "200"),
    Row(
        "reset before the answer, once, GET", "at=head do=reset first=1", "200",
        method="GET", executed=2, counts={"retries upstream-closed": 1},
    ),
    Row(
        "reset before the answer, once, POST", "at=head do=reset first=1", "upstream-closed",
        counts={"retries_skipped not-idempotent": 1},
    ),
    Row(
        "answers 500, once, GET", "status=500 first=1", "200",
        method="GET", executed=2, counts={"retries 500": 1},
    ),
)  # fmt: skip

BUDGET = Policy(
    "budget",
    "`retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 1, interval: 1h}}`: one, and no more.",
    cluster={
        "retry_budget": RetryBudgetSpec(percent=0, min_count=1, min_interval=3_600_000),
    },
)
OF_BUDGET = (
    Row(
        "nobody listens", "", "connect-failed",
        mode="closed", executed=0,
        counts={"retries connect-failed": 1, "retries_skipped budget": 1},
    ),
    Row(
        "REFUSED_STREAM, always", "at=request do=rst:7", "stream-refused",
        lanes=HTTP2_ONLY, executed=0,
        counts={"retries stream-refused": 1, "retries_skipped budget": 1},
    ),
)  # fmt: skip

BREAKER = Policy(
    "breaker",
    "`circuitBreaker: {minRequests: 3, failurePercent: 50}`: a service that fails is left alone.",
    cluster={"breaker": CircuitBreakerSpec(min_requests=3, failure_percent=50.0)},
)
OF_BREAKER = (
    Row(
        "two have failed, and one more does", "status=503", "503",
        before=("status=503",) * 2, lanes={"grpc": None},
        counts={"circuit_breaker_transitions open": 1},
    ),
    Row(
        "three have failed", "", "circuit-open",
        before=("status=503",) * 3, lanes={"grpc": None}, executed=0,
        counts={"circuit_breaker_transitions open": 1},
    ),
    Row(
        "three calls have failed with UNAVAILABLE", "", "circuit-open",
        before=("grpc=14",) * 3, lanes=GRPC_ONLY, executed=0,
        counts={"circuit_breaker_transitions open": 1},
    ),
    Row(
        "three have failed, but with 500: an answer", "", "200",
        before=("status=500",) * 3, lanes={"grpc": None},
    ),
)  # fmt: skip

SLOW_CALLS = Policy(
    "slow calls",
    "`circuitBreaker: {minRequests: 3, failurePercent: 0, slowCallPercent: 50, slowCallThreshold: 300ms}`:"
    " slowness is a failure, too.",
    cluster={
        "breaker": CircuitBreakerSpec(
            min_requests=3, failure_percent=None, slow_percent=50.0, slow_threshold=300
        )
    },
)
OF_SLOW_CALLS = (
    Row(
        "three have been slow", "", "circuit-open",
        before=("late=600",) * 3, executed=0, counts={"circuit_breaker_transitions open": 1},
    ),
)  # fmt: skip

LIMITS = Policy(
    "limits",
    "`limits: {maxRequests: 1}`: no more than so much goes on at once.",
    cluster={"limits": LimitsSpec(connections=1024, pending=1024, requests=1)},
)
OF_LIMITS = (
    Row(
        "another request is under way", "", "overflow",
        beside="at=head do=stall", executed=0, counts={"overflows requests/cluster": 1},
    ),
)  # fmt: skip

ENDPOINT_LIMITS = Policy(
    "endpoint limits",
    "`limits: {perEndpoint: {maxRequests: 1}}`: the same for each endpoint.",
    cluster={"endpoint_limits": LimitsSpec(connections=1024, pending=1024, requests=1)},
)
OF_ENDPOINT_LIMITS = (
    Row(
        "another request is under way at the only one", "", "overflow",
        beside="at=head do=stall", executed=0, counts={"overflows requests/endpoint": 1},
    ),
)  # fmt: skip

TIMEOUT = Policy(
    "timeout",
    "`timeouts: {request: 1s}`: request and answer together have so much time.",
    route={"request_timeout": 1_000},
    timed=True,
)
OF_TIMEOUT = (
    Row(
        "connections are accepted, and nothing more", "", "deadline-exceeded",
        mode="silent", executed=0,
    ),
    Row("stalls when the head has been read", "at=request do=stall", "deadline-exceeded", executed=0),
    Row("stalls before the answer", "at=head do=stall", "deadline-exceeded"),
    Row("stalls amid the answer's head", "at=head+8 do=stall", "deadline-exceeded"),
    Row(
        "stalls amid the answer's body", "at=body+10 do=stall", "torn",
        lanes={"grpc": "4"}, flag="UT",
    ),
    Row(
        "the answer's body is too slow", "at=body pace=10 size=300", "torn",
        lanes={"grpc": "4"}, flag="UT",
    ),
)  # fmt: skip

ATTEMPT_TIMEOUT = Policy(
    "attempt timeout",
    "`timeouts: {backendRequest: 1s}`: each attempt has so much time.",
    route={"backend_request_timeout": 1_000},
    timed=True,
)
OF_ATTEMPT_TIMEOUT = (
    Row("stalls before the answer", "at=head do=stall", "attempt-timeout"),
    Row(
        "stalls amid the answer's body",
        "at=body+10 do=stall",
        "torn",
        lanes={"grpc": "4"},
        flag="UT",
    ),
)

IDLE = Policy(
    "idle",
    "`timeouts: {streamIdle: 1s}`: something must move.",
    cluster={"stream_idle_timeout": 1_000},
    timed=True,
)
OF_IDLE = (
    Row("stalls before the answer", "at=head do=stall", "stream-idle"),
    Row(
        "stalls amid the answer's body",
        "at=body+10 do=stall",
        "torn",
        lanes={"grpc": "4"},
        flag="SI",
    ),
    Row("the answer's body is slow, but moves", "at=body pace=10 size=150", "200"),
)

DURATION = Policy(
    "duration",
    "`timeouts: {maxStream: 1s}`: nothing takes longer, whatever it is.",
    cluster={"max_stream_duration": 1_000},
    timed=True,
)
OF_DURATION = (
    Row("stalls before the answer", "at=head do=stall", "duration-exceeded"),
    Row(
        "the answer's body is slow, but moves",
        "at=body pace=10",
        "torn",
        lanes={"grpc": "4"},
        flag="UMSDR",
    ),
)

OUTLIERS = Policy(
    "outliers",
    "`outlierDetection: {consecutiveLocalOriginFailures: 1}`: who fails is not asked for a while.",
    cluster={"outliers": OutlierSpec(consecutive_local_failures=1)},
)
OF_OUTLIERS = (
    Row(
        "nobody listens at one of two endpoints: the 21st request", "", "200",
        before=("",) * 20, second="nobody",
        counts={"retries connect-failed": 1, "outlier_ejections consecutive-local-failures": 1},
    ),
)  # fmt: skip

SERVER_ERRORS = Policy(
    "server errors",
    "`outlierDetection: {consecutive5xxErrors: 1}` and `loadBalancing: {algorithm: RoundRobin}`:"
    " a 500 is one, where that is wanted.",
    cluster={
        "outliers": OutlierSpec(consecutive_5xx=1),
        "balancing": LoadBalancingSpec(algorithm="round-robin"),
    },
)
OF_SERVER_ERRORS = (
    Row(
        "one of two endpoints answers 500: the 21st request", "status=500 twin", "200",
        lanes={"grpc": None}, before=("status=500 twin",) * 20, second="twin", elsewhere=(1,),
        counts={"outlier_ejections consecutive-5xx": 1},
    ),
    Row(
        "one of two endpoints answers UNKNOWN: the 21st call", "grpc=2 twin", "200",
        lanes=GRPC_ONLY, before=("grpc=2 twin",) * 20, second="twin", elsewhere=(1,),
        counts={"outlier_ejections consecutive-5xx": 1},
    ),
)  # fmt: skip

RATE_LIMIT = Policy(
    "rate limit",
    "A RateLimitPolicy with `rules: [{name: rare, requests: 1, interval: 1m}]`: who asks too often is told so.",
    route={
        "rate_limits": (
            RateLimitSpec(name="RateLimitPolicy/default/p/rare", requests=1, interval=60_000),
        )
    },
)
OF_RATE_LIMIT = (
    Row("the second request within a minute", "", "rate-limited", before=("",), executed=0),
)

ABORT = Policy(
    "abort",
    "A FaultInjection with `rules: [{abort: {httpStatus: 503}}]`: as if it had failed.",
    route={
        "faults": (
            FaultSpec(name="FaultInjection/default/p/0", abort_status=503, abort_percent=100),
        )
    },
)
OF_ABORT = (Row("nothing, but that is meant", "", "fault-injected", executed=0),)

DELAY = Policy(
    "delay",
    "A FaultInjection with `rules: [{delay: {fixedDelay: 5s}}]`, and `timeouts: {request: 1s}`.",
    route={
        "faults": (FaultSpec(name="FaultInjection/default/p/0", delay=5_000, delay_percent=100),),
        "request_timeout": 1_000,
    },
)
OF_DELAY = (Row("nothing, but it is late", "", "deadline-exceeded", executed=0),)

MIRROR = Policy(
    "mirror",
    "A RequestMirror to a service where nobody listens: the original does not notice.",
    route={"mirrors": (MirrorSpec(cluster=NOBODY),)},
)
OF_MIRROR = (
    Row("the copy gets no answer", "", "200"),
    Row("both fail", "at=head do=reset", "upstream-closed"),
)

SHEDDING = Policy(
    "shedding",
    "`loadShedding: {initialLimit: 1, minLimit: 1, adaptive: false}`: the app gets one request at once.",
    inbound={"shedding": SheddingSpec(min_limit=1, initial=1, adaptive=False)},
)
OF_SHEDDING = (
    Row(
        "another request is under way", "", "overloaded",
        beside="at=head do=stall", fields={"x-mesh-criticality": "critical"}, executed=0,
    ),
)  # fmt: skip

PEER = Policy(
    "peer",
    "`timeouts: {connect: 1s}` and `retry: {attempts: 1}`: something else is where another sidecar should be.",
    cluster={"connect_timeout": 1_000, "retry": RetrySpec(attempts=2)},
    timed=True,
    peer=True,
)
OF_PEER = (
    Row(
        "nobody listens", "", "connect-failed",
        mode="closed", executed=0, counts={"retries connect-failed": 1},
    ),
    Row(
        "it accepts connections, and nothing more", "", "connect-timeout",
        mode="silent", executed=0, counts={"retries connect-timeout": 1},
    ),
    Row(
        "it is no sidecar", "", "handshake-failed",
        mode="nonsense", executed=0, counts={"retries handshake-failed": 1},
    ),
)  # fmt: skip

# Several endpoints -------------------------------------------------------------------------------

KNOWN = ("",) * 100
"""As many answers as hedging wants to have seen (`policies/hedging.py`)."""

HEDGING = Policy(
    "hedging",
    "`retry: {hedging: {minDelay: 1s}}` and `timeouts: {request: 2s}`, after a hundred requests:"
    " who is slow is not waited for.",
    route={"retry": RetrySpec(hedge=HedgeSpec(min_delay=1_000)), "request_timeout": 2_000},
)
OF_HEDGING = (
    Row(
        "one of two endpoints stalls before the answer, GET", "at=head do=stall first=1", "200",
        method="GET", before=KNOWN, second="twin", executed=2, abandoned=1,
        counts={"hedges": 1, "hedges_won": 1},
    ),
    Row(
        "the same, a call with Idempotency-Key", "at=head do=stall first=1", "200",
        lanes=GRPC_ONLY, fields={"idempotency-key": '"1"'}, before=KNOWN, second="twin", executed=2,
        abandoned=1, counts={"hedges": 1, "hedges_won": 1},
    ),
    Row(
        "the same, POST", "at=head do=stall first=1", "deadline-exceeded",
        ways=("alone",), before=KNOWN, second="twin", abandoned=1,
    ),
    Row(
        "both stall, GET", "at=head do=stall", "deadline-exceeded",
        ways=("alone",), method="GET", before=KNOWN, second="twin", executed=2, abandoned=2,
        counts={"hedges": 1},
    ),
)  # fmt: skip

HEDGING_BUDGET = Policy(
    "hedging budget",
    "`retry: {hedging: {minDelay: 1s}}`, `timeouts: {request: 2s}` and"
    " `retryConstraint: {budget: {percent: 0}, minRetryRate: {count: 0}}`: a hedge is a retry.",
    cluster={"retry_budget": RetryBudgetSpec(percent=0, min_count=0)},
    route=HEDGING.route,
)
OF_HEDGING_BUDGET = (
    Row(
        "one of two endpoints stalls before the answer, GET", "at=head do=stall first=1", "deadline-exceeded",
        ways=("alone",), method="GET", before=KNOWN, second="twin", abandoned=1,
        counts={"retries_skipped hedge-budget": 1},
    ),
)  # fmt: skip

ROUND_ROBIN = LoadBalancingSpec(algorithm="round-robin")
MANY = ("",) * 20

HTTP_CHECK = Policy(
    "http check",
    "`healthCheck: {http: {path: /health}, timeout: 10s, unhealthyThreshold: 1}`"
    " and `loadBalancing: {algorithm: RoundRobin}`: who says that it is ill is not asked.",
    cluster={
        "health_check": HealthCheckSpec(path="/health", timeout=10_000, unhealthy=1),
        "balancing": ROUND_ROBIN,
    },
)
OF_HTTP_CHECK = (
    Row(
        "one of two endpoints answers its checks with 503: the 21st request", "", "200",
        before=MANY, second="ill", awaits="unhealthy", elsewhere=(0,),
    ),
)  # fmt: skip

GRPC_CHECK = Policy(
    "grpc check",
    "`healthCheck: {grpc: {}, timeout: 10s, unhealthyThreshold: 1}`"
    " and `loadBalancing: {algorithm: RoundRobin}`: the same in gRPC's words.",
    cluster={
        "health_check": HealthCheckSpec(type="grpc", timeout=10_000, unhealthy=1),
        "balancing": ROUND_ROBIN,
    },
)
OF_GRPC_CHECK = (
    Row(
        "one of two endpoints is NOT_SERVING: the 21st request", "", "200",
        lanes=HTTP2_ONLY, before=MANY, second="ill", awaits="unhealthy", elsewhere=(0,),
    ),
)  # fmt: skip

TCP_CHECK = Policy(
    "tcp check",
    "`healthCheck: {tcp: {}, timeout: 10s, unhealthyThreshold: 1}`"
    " and `loadBalancing: {algorithm: RoundRobin}`: no request has to find out.",
    cluster={
        "health_check": HealthCheckSpec(type="tcp", timeout=10_000, unhealthy=1),
        "balancing": ROUND_ROBIN,
    },
)
OF_TCP_CHECK = (
    Row(
        "nobody listens at one of two endpoints: the 21st request", "", "200",
        before=MANY, second="nobody", awaits="unhealthy",
    ),
)  # fmt: skip

COOKIE = Policy(
    "session cookie",
    "`sessionPersistence: {}`, `outlierDetection: {consecutiveGatewayErrors: 1}` and"
    " `loadBalancing: {algorithm: RoundRobin}`: who keeps the cookie keeps the endpoint.",
    cluster={
        "session": SessionPersistenceSpec(name="mesh-session"),
        "outliers": OutlierSpec(consecutive_gateway_errors=1),
        "balancing": ROUND_ROBIN,
    },
)
HEADER = Policy(
    "session header",
    "`sessionPersistence: {type: Header}`, `outlierDetection: {consecutiveGatewayErrors: 1}` and"
    " `loadBalancing: {algorithm: RoundRobin}`: the same with a header.",
    cluster={
        "session": SessionPersistenceSpec(name="mesh-session", type="header"),
        "outliers": OutlierSpec(consecutive_gateway_errors=1),
        "balancing": ROUND_ROBIN,
    },
)


def of_affinity(who: str, **how: Any) -> tuple[Row, ...]:
    """Return the rows of what ties requests to one of two endpoints."""
    return (
        Row(
            f"nothing: the 21st request of {who}, all at one endpoint", "", "200",
            before=MANY, second="twin", elsewhere=(0, 21), **how,
        ),
        Row(
            f"REFUSED_STREAM by the endpoint of {who}, once: the other is asked",
            "at=request do=rst:7 first=1", "200",
            # With a sidecar beside the app, that one asks its app again.
            lanes=HTTP2_ONLY, ways=("alone",), before=("",), second="twin", elsewhere=(1,),
            counts={"retries stream-refused": 1}, **how,
        ),
        Row(
            f"the endpoint of {who} has been ejected: the other is asked", "", "200",
            lanes={"grpc": None}, before=("", "status=503"), second="twin", elsewhere=(1, 2),
            counts={"outlier_ejections consecutive-gateway-errors": 1}, **how,
        ),
        Row(
            "the same for calls", "", "200",
            lanes=GRPC_ONLY, before=("", "grpc=14"), second="twin", elsewhere=(1, 2),
            counts={"outlier_ejections consecutive-gateway-errors": 1}, **how,
        ),
    )  # fmt: skip


OF_COOKIE = (
    Row(
        "nothing: the 21st request without the cookie, half of them at each endpoint", "", "200",
        before=MANY, second="twin", elsewhere=(10, 11),
    ),
    *of_affinity("a session", keeps="cookie"),
)  # fmt: skip
OF_HEADER = of_affinity("a session", keeps="mesh-session")

BY_USER = (HashKeySpec(source="header", name="x-user"),)
MAGLEV = Policy(
    "maglev",
    "`loadBalancing: {algorithm: Maglev, hashKeys: [{type: Header, name: x-user}]}` and"
    " `outlierDetection: {consecutiveGatewayErrors: 1}`: the same key, the same endpoint.",
    cluster={
        "balancing": LoadBalancingSpec(algorithm="maglev", hash_keys=BY_USER),
        "outliers": OutlierSpec(consecutive_gateway_errors=1),
    },
)
RING_HASH = Policy(
    "ring hash",
    "`loadBalancing: {algorithm: RingHash, hashKeys: [{type: Header, name: x-user}]}` and"
    " `outlierDetection: {consecutiveGatewayErrors: 1}`: the same.",
    cluster={
        "balancing": LoadBalancingSpec(algorithm="ring-hash", hash_keys=BY_USER),
        "outliers": OutlierSpec(consecutive_gateway_errors=1),
    },
)
OF_HASHING = of_affinity("a user", fields={"x-user": "ada"})

BALANCED_ROUND_ROBIN = Policy(
    "round robin",
    "`loadBalancing: {algorithm: RoundRobin}`: one after the other.",
    cluster={"balancing": ROUND_ROBIN},
)
OF_ROUND_ROBIN = (
    Row(
        "nothing: the 21st request, half of them at each of two endpoints", "", "200",
        before=MANY, second="twin", elsewhere=(10, 11),
    ),
)  # fmt: skip

RANDOM = Policy(
    "random",
    "`loadBalancing: {algorithm: Random}`: any.",
    cluster={"balancing": LoadBalancingSpec(algorithm="random")},
)
OF_RANDOM = (
    Row(
        "nothing: the 41st request, about half of them at each of two endpoints", "", "200",
        before=("",) * 40, second="twin", elsewhere=range(4, 38),  # beyond: once in 10 million
    ),
)  # fmt: skip

LEAST_REQUEST = Policy(
    "least request",
    "`loadBalancing: {algorithm: LeastRequest}`: who is at work is spared.",
    cluster={"balancing": LoadBalancingSpec(algorithm="least-request")},
)
OF_LEAST_REQUEST = (
    Row(
        "one of two endpoints is at work: the 21st request, all at the other", "", "200",
        before=MANY, beside="at=head do=stall", second="twin", elsewhere=(0, 21),
    ),
)  # fmt: skip

PEAK_EWMA = Policy(
    "peak ewma",
    "Nothing is configured, so that balancing is `PeakEWMA`: who is slow is spared.",
)
OF_PEAK_EWMA = (
    Row(
        "one of two endpoints takes its time: the 21st request, most at the other", "late=1000 twin", "200",
        before=("late=1000 twin",) * 20, second="twin", elsewhere=range(6),
    ),
)  # fmt: skip

MATRIX: tuple[tuple[Policy, tuple[Row, ...]], ...] = (
    (DEFAULTS, OF_DEFAULTS),
    (RETRIES, OF_RETRIES),
    (RETRIED_TIMEOUTS, OF_RETRIED_TIMEOUTS),
    (PER_TRY, OF_PER_TRY),
    (BUDGET, OF_BUDGET),
    (TIMEOUT, OF_TIMEOUT),
    (ATTEMPT_TIMEOUT, OF_ATTEMPT_TIMEOUT),
    (IDLE, OF_IDLE),
    (DURATION, OF_DURATION),
    (BREAKER, OF_BREAKER),
    (SLOW_CALLS, OF_SLOW_CALLS),
    (LIMITS, OF_LIMITS),
    (ENDPOINT_LIMITS, OF_ENDPOINT_LIMITS),
    (OUTLIERS, OF_OUTLIERS),
    (SERVER_ERRORS, OF_SERVER_ERRORS),
    (RATE_LIMIT, OF_RATE_LIMIT),
    (ABORT, OF_ABORT),
    (DELAY, OF_DELAY),
    (MIRROR, OF_MIRROR),
    (SHEDDING, OF_SHEDDING),
    (PEER, OF_PEER),
    (HEDGING, OF_HEDGING),
    (HEDGING_BUDGET, OF_HEDGING_BUDGET),
    (HTTP_CHECK, OF_HTTP_CHECK),
    (GRPC_CHECK, OF_GRPC_CHECK),
    (TCP_CHECK, OF_TCP_CHECK),
    (COOKIE, OF_COOKIE),
    (HEADER, OF_HEADER),
    (MAGLEV, OF_HASHING),
    (RING_HASH, OF_HASHING),
    (BALANCED_ROUND_ROBIN, OF_ROUND_ROBIN),
    (RANDOM, OF_RANDOM),
    (LEAST_REQUEST, OF_LEAST_REQUEST),
    (PEAK_EWMA, OF_PEAK_EWMA),
)
