"""
The specs of policies: what is done for requests besides finding their way.

Of a cluster, unless a docstring says otherwise.  What acts on a spec has its bare name and a file of
its own in `meshproxy/policies/`.
"""

from typing import Annotated, Literal

from msgspec import Meta

from .matching import IdentityMatchSpec, MatchSpec
from .spec import Milliseconds, Name, Percent, Positive, Spec

# What is done for requests that go wrong ------------------------------------------------------------

RetryCondition = Literal[
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
    "5xx",
    "gateway-error",
    "retriable-4xx",
    "timeout",
    "grpc-cancelled",
    "grpc-deadline-exceeded",
    "grpc-internal",
    "grpc-resource-exhausted",
    "grpc-unavailable",
]
"""When an attempt that failed is made once more, in Envoy's words where it has them (`x-envoy-retry-on`);
`timeout` is that of one attempt."""


class HedgeSpec(Spec, frozen=True, kw_only=True):
    """
    A second attempt beside a slow first one; the first answer wins.

    Attributes:
        percentile: Of the cluster's recent latencies: when it has passed, the second attempt begins.
        min_delay: Milliseconds; never sooner.
    """

    percentile: Annotated[float, Meta(gt=0, lt=100)] = 95.0
    min_delay: Milliseconds = 10


class RetrySpec(Spec, frozen=True, kw_only=True):
    """
    Which attempts are repeated beyond those that provably were not processed.

    Attributes:
        attempts: Tries in all, the first included.
        codes: Statuses of an answer that is asked for once more (HTTPRoute `retry.codes`).
        conditions: Other reasons.
        backoff: Milliseconds before the first repetition, doubled with each (full jitter).
        max_backoff: Milliseconds; never longer, whatever `Retry-After` says.
        per_try_timeout: Milliseconds for the head of one attempt's answer; None for no limit.
        any_method: Repeat methods that are not idempotent, too.  Without it they are repeated only
            with an `Idempotency-Key`, or where they provably were not processed.
        of_retries: Repeat also what is itself a retry of a proxy before us.
        replay_limit: Bytes of a request's body that are kept for the next attempt.
        hedge: None for attempts one after the other.
    """

    attempts: Annotated[int, Meta(ge=1, le=100)] = 3
    codes: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = ()
    conditions: tuple[RetryCondition, ...] = ()
    backoff: Milliseconds = 25
    max_backoff: Milliseconds = 1_000
    per_try_timeout: Positive | None = None
    any_method: bool = False
    of_retries: bool = False
    replay_limit: Annotated[int, Meta(ge=0, le=16 << 20)] = 64 << 10
    hedge: HedgeSpec | None = None


class RetryBudgetSpec(Spec, frozen=True, kw_only=True):
    """
    How much of a cluster's load may be retries (Gateway API `retryConstraint`).

    Attributes:
        percent: Of the requests of the last `interval` milliseconds.
        min_count: Retries that are always allowed, per `min_interval` milliseconds.
    """

    percent: Percent = 20.0
    interval: Positive = 10_000
    min_count: Annotated[int, Meta(ge=0)] = 10
    min_interval: Positive = 1_000


class LimitsSpec(Spec, frozen=True, kw_only=True):
    """
    How much may go on at once (Envoy's circuit breaker thresholds); None for no limit.

    Attributes:
        connections: Connections that stand or are dialled; requests above wait.
        pending: Requests that wait for a connection.
        requests: Requests under way, the waiting included.
        retries: Of these, attempts that are not the first.
    """

    connections: Positive | None = None
    pending: Annotated[int, Meta(ge=0)] | None = None
    requests: Positive | None = None
    retries: Annotated[int, Meta(ge=0)] | None = None


class CircuitBreakerSpec(Spec, frozen=True, kw_only=True):
    """
    A cluster's closed / open / half-open breaker.

    Attributes:
        window: Milliseconds that are looked back upon.
        min_requests: With fewer in the window, it stays closed.
        failure_percent: Share of failed requests that opens it; None to ignore failures.
        slow_percent: Share of slow requests that opens it; None to ignore slowness.
        slow_threshold: Milliseconds above which a request is slow.
        open_time: Milliseconds that it stays open, doubled each time a probe fails.
        max_open_time: Milliseconds; never longer.
        probes: Requests let through when half-open; all must succeed.
    """

    window: Positive = 10_000
    min_requests: Positive = 20
    failure_percent: Percent | None = 50.0
    slow_percent: Percent | None = None
    slow_threshold: Positive = 1_000
    open_time: Positive = 5_000
    max_open_time: Positive = 60_000
    probes: Positive = 3


class OutlierSpec(Spec, frozen=True, kw_only=True):
    """
    When an endpoint is ejected for a while (Envoy's outlier detection, its names and defaults).

    Attributes:
        consecutive_5xx: Answers in a row; None to ignore.
        consecutive_gateway_errors: 502, 503, 504 in a row; None to ignore.
        consecutive_local_failures: In a row: connects, handshakes, resets, timeouts.
        interval: Milliseconds between two looks at the statistics below.
        success_rate: Eject who succeeds less often than the mean minus `stdev_factor` standard
            deviations of all.
        stdev_factor: In thousandths, as in Envoy.
        failure_percent: Eject who fails at least that often; None to ignore.
        min_hosts: Endpoints with `min_requests` in the interval, for the statistics to mean anything.
        min_requests: Per endpoint and interval.
        base_ejection: Milliseconds for the first time, times the number of ejections in a row.
        max_ejection: Milliseconds; never longer.
        max_ejected_percent: Of the cluster's endpoints; but one may always be.
        panic_percent: With fewer endpoints left in service, all are used.
    """

    consecutive_5xx: Positive | None = None
    consecutive_gateway_errors: Positive | None = 5
    consecutive_local_failures: Positive | None = 5
    interval: Positive = 10_000
    success_rate: bool = False
    stdev_factor: Positive = 1_900
    failure_percent: Percent | None = None
    min_hosts: Positive = 5
    min_requests: Positive = 100
    base_ejection: Positive = 30_000
    max_ejection: Positive = 300_000
    max_ejected_percent: Percent = 10.0
    panic_percent: Percent = 50.0


class HealthCheckSpec(Spec, frozen=True, kw_only=True):
    """
    Active questions to each endpoint, besides what its traffic shows.

    Attributes:
        type: `http` asks for `path` and expects 200 to 299 (or `statuses`), `grpc` asks gRPC's health
            service, `tcp` expects a connection.
        interval: Milliseconds between two checks of one endpoint (with jitter).
        timeout: Milliseconds for one.
        healthy: Good answers in a row that bring an endpoint back.
        unhealthy: Bad ones that take it out.
        service: The name that gRPC's health service is asked for.
    """

    type: Literal["http", "grpc", "tcp"] = "http"
    path: str = "/"
    statuses: tuple[int, ...] = ()
    interval: Positive = 10_000
    timeout: Positive = 1_000
    healthy: Positive = 2
    unhealthy: Positive = 3
    service: str = ""


HashSource = Literal["header", "cookie", "query", "identity", "address"]


class HashKeySpec(Spec, frozen=True, kw_only=True):
    """
    What consistent hashing looks at.

    Attributes:
        source: `identity` is the SPIFFE ID of who calls, `address` its IP address.
        name: Of the header, cookie or query parameter.
        cookie_ttl: Milliseconds; a cookie that is missing is set for so long (0: for the session of
            the browser); None sets none.
    """

    source: HashSource
    name: str = ""
    cookie_ttl: Milliseconds | None = None


class LoadBalancingSpec(Spec, frozen=True, kw_only=True):
    """
    Which endpoint gets the next request.

    Attributes:
        algorithm: `peak-ewma` and `least-request` draw two and take the better one.
        hash_keys: For `ring-hash` and `maglev`; the first that the request has counts, and without
            any it goes anywhere.
        ring_size: Points that a ring has at least (`ring-hash`), or places of the table (`maglev`),
            rounded up to a prime; None for as many as are good for most.
        slow_start: Milliseconds in which a new endpoint's share grows from little to full.
        locality: Endpoints of lower `priority` first, the others as those fail (Envoy's priority
            levels with an overprovisioning factor of 1.4); otherwise all are equal.
    """

    algorithm: Literal[
        "peak-ewma", "least-request", "round-robin", "random", "ring-hash", "maglev"
    ] = "peak-ewma"
    hash_keys: tuple[HashKeySpec, ...] = ()
    ring_size: Positive | None = None
    slow_start: Milliseconds = 0
    locality: bool = True


class SessionPersistenceSpec(Spec, frozen=True, kw_only=True):
    """
    The same client, the same endpoint (Gateway API `sessionPersistence`, GEP-1619).

    Attributes:
        name: Of the cookie or header that says which endpoint.
        absolute_timeout: Milliseconds after which the session ends; None for never.
        permanent: The cookie outlives the browser's session (`lifetimeType: Permanent`).
    """

    name: Name
    type: Literal["cookie", "header"] = "cookie"
    absolute_timeout: Positive | None = None
    permanent: bool = False


Criticality = Literal["critical", "default", "sheddable"]
"""Value of `x-mesh-criticality`, most important first."""


class SheddingSpec(Spec, frozen=True, kw_only=True):
    """
    How many requests the app is given at once, and who is turned away first above that.

    Attributes:
        min_limit: Concurrent requests; never fewer.
        max_limit: Never more.
        initial: Where the search begins.
        adaptive: Find the limit between the two by the gradient of latency; otherwise `initial` is it.
        default_criticality: Of requests that say nothing.
    """

    min_limit: Positive = 4
    max_limit: Positive = 1_000
    initial: Positive = 20
    adaptive: bool = True
    default_criticality: Criticality = "default"


# What is done to requests that go well --------------------------------------------------------------


class MirrorSpec(Spec, frozen=True, kw_only=True):
    """HTTPRoute filter RequestMirror: the same request to another cluster, whose answer is dropped."""

    cluster: Name
    percent: Percent = 100.0


class FaultSpec(Spec, frozen=True, kw_only=True):
    """
    Trouble on purpose (kind FaultInjection).

    Attributes:
        match: Requests that are meant.
        source: Callers that are meant: where the caller is a local app, its own identity.
        delay: Milliseconds before the request goes on.
        delay_percent: Of the requests that are meant.
        abort_status: HTTP status of the answer that is given instead.
        abort_grpc_status: The same for gRPC calls; the HTTP status decides where it is None.
        abort_percent: Of the requests that are meant.
    """

    name: Name
    match: MatchSpec = MatchSpec()
    source: IdentityMatchSpec = IdentityMatchSpec()
    delay: Milliseconds = 0
    delay_percent: Percent = 0.0
    abort_status: Annotated[int, Meta(ge=200, le=599)] | None = None
    abort_grpc_status: Annotated[int, Meta(ge=1, le=16)] | None = None
    abort_percent: Percent = 0.0


class RateLimitSpec(Spec, frozen=True, kw_only=True):
    """
    A token bucket, or one for each caller (kind RateLimitPolicy).

    Attributes:
        name: For metrics and the `RateLimit-Policy` header.
        match: Requests that are counted.
        source: Callers that are counted.
        per: One bucket for `all`, or one for each `identity`, or for each value of `header`.
        requests: Tokens added per `interval` milliseconds.
        burst: Tokens that a bucket holds at most; None for `requests`.
    """

    name: Name
    match: MatchSpec = MatchSpec()
    source: IdentityMatchSpec = IdentityMatchSpec()
    per: Literal["all", "identity", "header"] = "all"
    header: str = ""
    requests: Positive
    interval: Positive = 1_000
    burst: Positive | None = None
