"""
What types cannot say about a TrafficPolicy: one generator of problems for each section.

Sections are judged with their defaults in place: ``maxBackoff: 10ms`` alone contradicts a `backoff` of
25ms that nobody wrote.
"""

from . import session, syntax
from .duration import milliseconds
from .finding import Path
from .policies import (
    CircuitBreaker,
    HashKey,
    HealthCheck,
    LoadBalancing,
    LoadShedding,
    OutlierDetection,
    Retry,
    Timeouts,
    TrafficPolicy,
)
from .quantity import bytes_of
from .route import Problems, at_most, backend_within_request, no_repetition
from .target import problems_of_targets

MAX_BODY_LIMIT = 16 << 20
"""Held in the proxy's memory, for each request under way."""
MAX_HASH_KEYS = 8
_SPEC: Path = ("spec",)


def problems_of_policy(policy: TrafficPolicy) -> Problems:
    """Yield what is wrong with a policy, whatever it refers to."""
    spec = policy.spec
    yield from problems_of_targets(spec.target_refs, required=True)
    if spec.timeouts is not None:
        yield from _timeouts((*_SPEC, "timeouts"), spec.timeouts)
    if spec.retry is not None:
        yield from _retry((*_SPEC, "retry"), spec.retry)
    if spec.circuit_breaker is not None:
        yield from _circuit_breaker((*_SPEC, "circuitBreaker"), spec.circuit_breaker)
    if spec.outlier_detection is not None:
        yield from _outlier_detection((*_SPEC, "outlierDetection"), spec.outlier_detection)
    if spec.health_check is not None:
        yield from _health_check((*_SPEC, "healthCheck"), spec.health_check)
    if spec.load_balancing is not None:
        yield from _load_balancing((*_SPEC, "loadBalancing"), spec.load_balancing)
    if spec.session_persistence is not None:
        where = (*_SPEC, "sessionPersistence")
        yield from session.problems_of_session(where, spec.session_persistence)
    if spec.load_shedding is not None:
        yield from _load_shedding((*_SPEC, "loadShedding"), spec.load_shedding)


def _timeouts(path: Path, section: Timeouts) -> Problems:
    yield from backend_within_request(path, section.request, section.backend_request)
    request, connect = milliseconds(section.request), milliseconds(section.connect)
    if section.connect != Timeouts().connect and 0 < request < connect:
        message = f'"{section.connect}" is longer than request "{section.request}", expected less'
        yield (*path, "connect"), message


def _retry(path: Path, section: Retry) -> Problems:
    yield from no_repetition((*path, "codes"), section.codes)
    yield from no_repetition((*path, "retryOn"), section.retry_on)
    yield from _order(path, "backoff", section.backoff, "maxBackoff", section.max_backoff)
    try:
        limit = bytes_of(section.body_limit)
    except ValueError as error:
        yield (*path, "bodyLimit"), str(error)
    else:
        if limit > MAX_BODY_LIMIT:
            yield (*path, "bodyLimit"), f"{section.body_limit} is too large, expected at most 16Mi"
    if section.hedging is not None and not section.attempts:
        message = "needs a second attempt, expected attempts of at least 1"
        yield (*path, "hedging"), message
    if section.hedging is not None and section.per_try_timeout is not None:
        delay, limit_of_try = section.hedging.min_delay, section.per_try_timeout
        if milliseconds(delay) >= milliseconds(limit_of_try):
            message = f'"{delay}" is no less than perTryTimeout "{limit_of_try}", expected less'
            yield (*path, "hedging", "minDelay"), message


def _circuit_breaker(path: Path, section: CircuitBreaker) -> Problems:
    if not section.failure_percent and not section.slow_call_percent:
        message = "and slowCallPercent are 0: it would never trip, expected one of them above 0"
        yield (*path, "failurePercent"), message
    yield from _order(path, "openTime", section.open_time, "maxOpenTime", section.max_open_time)


def _outlier_detection(path: Path, section: OutlierDetection) -> Problems:
    if not section.enabled:
        return
    detectors = (
        section.consecutive_5xx_errors,
        section.consecutive_gateway_errors,
        section.consecutive_local_origin_failures,
        section.success_rate,
        section.failure_percent,
    )
    if not any(detectors):
        message = "has every detector off, expected one, or enabled: false"
        yield path, message
    yield from _order(
        path,
        "baseEjectionTime",
        section.base_ejection_time,
        "maxEjectionTime",
        section.max_ejection_time,
    )


def _health_check(path: Path, section: HealthCheck) -> Problems:
    kinds = {"http": section.http, "grpc": section.grpc, "tcp": section.tcp}
    given = [name for name, value in kinds.items() if value is not None]
    if not given:
        yield path, "has neither http nor grpc nor tcp, expected one of them"
    for name in given[1:]:
        yield (*path, name), f"cannot stand beside {given[0]}, expected one of them"
    if section.http is not None:
        where = (*path, "http")
        target, _, query = section.http.path.partition("?")
        if wrong := syntax.path(target) or (query and syntax.query(query)):
            yield (*where, "path"), wrong
        yield from no_repetition((*where, "statuses"), section.http.statuses)
    if section.grpc is not None and len(section.grpc.service) > 1024:
        length = len(section.grpc.service)
        yield (*path, "grpc", "service"), f"is {length} characters long, expected at most 1024"
    yield from _order(path, "timeout", section.timeout, "interval", section.interval)


def _load_balancing(path: Path, section: LoadBalancing) -> Problems:
    hashing = section.algorithm in ("RingHash", "Maglev")
    if hashing and not section.hash_keys:
        message = f"is missing, expected what {section.algorithm} looks at"
        yield (*path, "hashKeys"), message
    for name, given in (("hashKeys", section.hash_keys), ("ringSize", section.ring_size)):
        if given and not hashing:
            message = f"does not go with algorithm {section.algorithm}, expected RingHash or Maglev"
            yield (*path, name), message
    if hashing and milliseconds(section.slow_start):
        message = f"does not go with algorithm {section.algorithm}, which knows no shares that grow"
        yield (*path, "slowStart"), message
    if section.algorithm == "Maglev" and section.ring_size and not _is_prime(section.ring_size):
        message = f"{section.ring_size} is not prime, expected such as 65537 for Maglev"
        yield (*path, "ringSize"), message
    yield from at_most((*path, "hashKeys"), section.hash_keys, MAX_HASH_KEYS)
    for index, key in enumerate(section.hash_keys):
        yield from _hash_key((*path, "hashKeys", index), key)


def _hash_key(path: Path, key: HashKey) -> Problems:
    named = key.type in ("Header", "Cookie", "QueryParam")
    if named and not key.name:
        yield (*path, "name"), f"is missing, expected it with type {key.type}"
    elif not named and key.name is not None:
        yield (*path, "name"), f"does not go with type {key.type}"
    elif key.type in ("Header", "Cookie") and (wrong := syntax.header_name(key.name or "")):
        yield (*path, "name"), wrong
    if key.ttl is not None and key.type != "Cookie":
        yield (*path, "ttl"), f"does not go with type {key.type}, expected Cookie"


def _load_shedding(path: Path, section: LoadShedding) -> Problems:
    if section.min_limit > section.max_limit:
        message = (
            f"{section.min_limit} is above maxLimit {section.max_limit}, expected at most that"
        )
        yield (*path, "minLimit"), message
    elif section.adaptive and not section.min_limit <= section.initial_limit <= section.max_limit:
        message = (
            f"{section.initial_limit} is out of range, expected {section.min_limit} to "
            f"{section.max_limit} (minLimit to maxLimit)"
        )
        yield (*path, "initialLimit"), message


def _order(path: Path, first: str, less: str, second: str, more: str) -> Problems:
    """Yield that one duration is longer than another that it must not exceed."""
    if milliseconds(less) > milliseconds(more):
        yield (*path, first), f'"{less}" is longer than {second} "{more}", expected at most that'


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))
