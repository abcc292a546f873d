"""
The policies that one proxy obeys, in words: `meshctl config PROXY policies`.

The first rows are the defaults, which hold wherever nobody said otherwise; then comes what differs from
them, by cluster, and what routes and inbound ports add, who may come there included.  As JSON,
everything is written out, also the defaults.
"""

from collections.abc import Callable, Iterator
from typing import Any

from control_plane.cli import access
from control_plane.cli.matching import described
from control_plane.cli.output import table
from control_plane.resources.duration import text_of
from meshproxy.contract.matching import IdentityMatchSpec, MatchSpec
from meshproxy.contract.policies import (
    CircuitBreakerSpec,
    FaultSpec,
    HashKeySpec,
    HealthCheckSpec,
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
from meshproxy.contract.resources import ClusterSpec, RouteSpec, Snapshot
from meshproxy.contract.spec import Spec

Row = tuple[str, str, str]
DEFAULTS = ClusterSpec(name="(default)")
OF_CLUSTERS = (
    "connect_timeout", "idle_timeout", "max_connection_age", "request_timeout",
    "backend_request_timeout", "stream_idle_timeout", "tunnel_idle_timeout", "max_stream_duration", "retry", "retry_budget",
    "limits", "endpoint_limits", "breaker", "outliers", "health_check", "balancing", "session",
    "shedding",
)  # fmt: skip
"""What a cluster has besides a name and servers."""
OF_ROUTES = (
    "request_timeout", "backend_request_timeout", "retry", "session", "mirrors", "faults",
    "rate_limits",
)  # fmt: skip


def data(snapshot: Snapshot) -> dict[str, Any]:
    """Return all policies, with every default written out."""
    return {
        "clusters": [{"name": one.name, **_written(one, OF_CLUSTERS)} for one in snapshot.clusters],
        "routes": [
            {"virtual_host": host.name, "name": one.name, **_written(one, OF_ROUTES)}
            for host in snapshot.virtual_hosts
            for one in host.routes
        ],
        "virtual_hosts": [
            {"name": host.name, **_written(host, ("rate_limits", "authorization", "jwt"))}
            for host in snapshot.virtual_hosts
        ],
        "tcp_routes": [
            {"name": one.name, **_written(one, ("authorization",))} for one in snapshot.tcp_routes
        ],
        "mtls": access.mtls_of(snapshot),
    }


def _written(spec: Spec, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(getattr(spec, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def as_table(snapshot: Snapshot, width: int | None) -> str:
    """Return what holds by default, and what differs from it."""
    rows = [*_of_cluster(DEFAULTS, None)]
    for cluster in snapshot.clusters:
        rows += _of_cluster(cluster, DEFAULTS)
    for host in snapshot.virtual_hosts:
        seen: set[Row] = set()  # a rule has a route for each of its matches
        for route in host.routes:
            for row in _of_route(host.name, route):
                if row not in seen:
                    seen.add(row)
                    rows.append(row)
        rows += [(host.name, "rate limit", _rate_limit(one)) for one in host.rate_limits]
    rows += access.rows(snapshot)
    return table(("AT", "POLICY", "SETTING"), rows, width=width)


def _of_cluster(cluster: ClusterSpec, usual: ClusterSpec | None) -> Iterator[Row]:
    timeouts = _timeouts(cluster)
    if usual is None or timeouts != _timeouts(usual):
        yield cluster.name, "timeouts", timeouts
    for attribute, name, in_words in _SECTIONS:
        value = getattr(cluster, attribute)
        if usual is None or value != getattr(usual, attribute):
            yield cluster.name, name, "off" if value is None else in_words(value)


def _of_route(host: str, route: RouteSpec) -> Iterator[Row]:
    where = route.name if route.name.count("/") > 2 else host
    timeouts = _listed(
        _limit("request", route.request_timeout),
        _limit("backend request", route.backend_request_timeout),
    )
    if timeouts:
        yield where, "timeouts", timeouts
    if route.retry is not None:
        yield where, "retry", _retry(route.retry)
    if route.session is not None:
        yield where, "session persistence", _session(route.session)
    for mirror in route.mirrors:
        yield where, "mirror", _mirror(mirror)
    for fault in route.faults:
        yield where, "fault", _fault(fault)
    for limit in route.rate_limits:
        yield where, "rate limit", _rate_limit(limit)


# The sections in words ----------------------------------------------------------------------------


def _timeouts(cluster: ClusterSpec) -> str:
    return _listed(
        _limit("request", cluster.request_timeout),
        _limit("backend request", cluster.backend_request_timeout),
        _limit("connect", cluster.connect_timeout),
        _limit("stream idle", cluster.stream_idle_timeout),
        _limit("tunnel idle", cluster.tunnel_idle_timeout),
        _limit("max stream", cluster.max_stream_duration),
        _limit("idle connection", cluster.idle_timeout),
        cluster.max_connection_age and f"connection age {text_of(cluster.max_connection_age)}",
    )


def _retry(retry: RetrySpec) -> str:
    if retry.attempts == 1:
        return "none"
    return _listed(
        f"at most {retry.attempts - 1}",
        "also of " + ", ".join([*map(str, retry.codes), *retry.conditions])
        if retry.codes or retry.conditions
        else "of what was not processed",
        "any method" if retry.any_method else "",
        "of retries, too" if retry.of_retries else "",
        f"backoff {text_of(retry.backoff)} to {text_of(retry.max_backoff)}",
        retry.per_try_timeout and f"each try {text_of(retry.per_try_timeout)}",
        f"bodies to {retry.replay_limit} bytes",
        retry.hedge
        and f"hedged after p{retry.hedge.percentile:g} and {text_of(retry.hedge.min_delay)}",
    )


def _retry_budget(budget: RetryBudgetSpec) -> str:
    return (
        f"{budget.percent:g}% of the requests of {text_of(budget.interval)}, "
        f"at least {budget.min_count} in {text_of(budget.min_interval)}"
    )


def _limits(limits: LimitsSpec) -> str:
    given = [(name, getattr(limits, name)) for name in limits.__struct_fields__]
    return ", ".join(f"{name} {value}" for name, value in given if value is not None) or "none"


def _breaker(breaker: CircuitBreakerSpec) -> str:
    trips = [
        f"{breaker.failure_percent:g}% failed" if breaker.failure_percent is not None else "",
        f"{breaker.slow_percent:g}% slower than {text_of(breaker.slow_threshold)}"
        if breaker.slow_percent is not None
        else "",
    ]
    return _listed(
        f"opens when {' or '.join(filter(None, trips))}",
        f"of at least {breaker.min_requests} in {text_of(breaker.window)}",
        f"for {text_of(breaker.open_time)} to {text_of(breaker.max_open_time)}",
        f"{breaker.probes} probes",
    )


def _outliers(outliers: OutlierSpec) -> str:
    return _listed(
        outliers.consecutive_5xx and f"{outliers.consecutive_5xx} 5xx in a row",
        outliers.consecutive_gateway_errors
        and f"{outliers.consecutive_gateway_errors} gateway errors in a row",
        outliers.consecutive_local_failures
        and f"{outliers.consecutive_local_failures} local failures in a row",
        outliers.success_rate and f"success rate {outliers.stdev_factor / 1000:g} stdev below",
        outliers.failure_percent and f"{outliers.failure_percent:g}% failed",
        f"ejected for {text_of(outliers.base_ejection)} to {text_of(outliers.max_ejection)}",
        f"at most {outliers.max_ejected_percent:g}%",
        f"panic below {outliers.panic_percent:g}%",
    )


def _health_check(check: HealthCheckSpec) -> str:
    target = {"http": check.path, "grpc": check.service, "tcp": ""}[check.type]
    return _listed(
        f"{check.type} {target}".strip(),
        check.statuses and f"expecting {', '.join(map(str, check.statuses))}",
        f"every {text_of(check.interval)}",
        f"timeout {text_of(check.timeout)}",
        f"healthy after {check.healthy}",
        f"unhealthy after {check.unhealthy}",
    )


def _balancing(balancing: LoadBalancingSpec) -> str:
    return _listed(
        balancing.algorithm,
        balancing.hash_keys and f"by {', then '.join(map(_hash_key, balancing.hash_keys))}",
        balancing.ring_size and f"ring size {balancing.ring_size}",
        balancing.slow_start and f"slow start {text_of(balancing.slow_start)}",
        "near first" if balancing.locality else "wherever they are",
    )


def _hash_key(key: HashKeySpec) -> str:
    ttl = "" if key.cookie_ttl is None else f" (set for {text_of(key.cookie_ttl)})"
    return f"{key.source} {key.name}".strip() + ttl


def _session(session: SessionPersistenceSpec) -> str:
    return _listed(
        f"by {session.type} {session.name}",
        session.absolute_timeout and f"for {text_of(session.absolute_timeout)}",
        session.permanent and "permanent",
    )


def _shedding(shedding: SheddingSpec) -> str:
    if not shedding.adaptive:
        return f"above {shedding.initial} at once, {shedding.default_criticality} when unsaid"
    return (
        f"above {shedding.min_limit} to {shedding.max_limit} at once, as latency says, "
        f"{shedding.default_criticality} when unsaid"
    )


def _mirror(mirror: MirrorSpec) -> str:
    return f"{mirror.percent:g}% to {mirror.cluster}"


def _fault(fault: FaultSpec) -> str:
    statuses = [
        f"{fault.abort_status}" if fault.abort_status is not None else "",
        f"gRPC {fault.abort_grpc_status}" if fault.abort_grpc_status is not None else "",
    ]
    return _listed(
        fault.delay and f"delay {text_of(fault.delay)} of {fault.delay_percent:g}%",
        any(statuses)
        and f"abort {' and '.join(filter(None, statuses))} of {fault.abort_percent:g}%",
        _meant(fault.match, fault.source),
        fault.name,
    )


def _rate_limit(limit: RateLimitSpec) -> str:
    per = {"all": "", "identity": " for each identity", "header": f" for each {limit.header}"}
    return _listed(
        f"{limit.requests} in {text_of(limit.interval)}{per[limit.per]}",
        f"burst {limit.burst or limit.requests}",
        _meant(limit.match, limit.source),
        limit.name,
    )


def _meant(match: MatchSpec, source: IdentityMatchSpec) -> str:
    return _listed(
        match != MatchSpec() and f"of {described(match)}",
        source.principals and f"from {' or '.join(source.principals)}",
    )


def _limit(name: str, milliseconds: int | None) -> str:
    return (
        "" if milliseconds is None else f"{name} {text_of(milliseconds) if milliseconds else '-'}"
    )


def _listed(*parts: object) -> str:
    return ", ".join(str(part) for part in parts if part)


_SECTIONS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("retry", "retry", _retry),
    ("retry_budget", "retry constraint", _retry_budget),
    ("limits", "limits", _limits),
    ("endpoint_limits", "limits per endpoint", _limits),
    ("breaker", "circuit breaker", _breaker),
    ("outliers", "outlier detection", _outliers),
    ("health_check", "health check", _health_check),
    ("balancing", "load balancing", _balancing),
    ("session", "session persistence", _session),
    ("shedding", "load shedding", _shedding),
)
"""Attribute of a cluster, what it is called in a TrafficPolicy, how it is said."""
