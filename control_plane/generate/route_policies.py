"""
What a rule of an HTTPRoute or GRPCRoute says besides where its requests go.

What it says replaces what the TrafficPolicy of a backend says of the same thing, whole: a rule with
`retry` has none of the policy's `retryOn`.  What it does not say, the policy decides.
"""

from collections.abc import Sequence

import msgspec

from control_plane.resources.attachment import Services
from control_plane.resources.duration import milliseconds
from control_plane.resources.gateway_api import (
    GRPCRoute,
    GRPCRouteFilter,
    GRPCRouteRule,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteRetry,
    HTTPRouteRule,
    RequestMirrorFilter,
)
from control_plane.resources.policies import FaultInjection, RateLimitPolicy
from control_plane.resources.references import Policies, Problem, extension
from meshproxy.contract.policies import FaultSpec, MirrorSpec, RateLimitSpec, RetrySpec
from meshproxy.contract.resources import RouteSpec

from .backends import cluster_of
from .traffic_policy import session_persistence
from .traffic_shaping import faults, rate_limits

Filters = Sequence[HTTPRouteFilter | GRPCRouteFilter]


def with_policies(
    spec: RouteSpec,
    rule: HTTPRouteRule | GRPCRouteRule,
    route: HTTPRoute | GRPCRoute,
    services: Services,
    policies: Policies,
) -> RouteSpec:
    """Return the spec of a rule with all that its policies and filters add."""
    timeouts, session = rule.timeouts, rule.session_persistence
    found = _extensions(rule.filters, route, policies)
    spec = msgspec.structs.replace(
        spec,
        request_timeout=_optional(timeouts.request if timeouts else None),
        backend_request_timeout=_optional(timeouts.backend_request if timeouts else None),
        session=None if session is None else session_persistence(session),
        mirrors=_mirrors(rule.filters, route, services),
        faults=_faults(found),
        rate_limits=_rate_limits(found),
    )
    if any(isinstance(one, Problem) for one in found):
        # "Unresolvable ExtensionRef … MUST NOT be skipped.  Instead requests that would have been
        # processed by that filter MUST receive a HTTP error response": a route to nowhere.
        return msgspec.structs.replace(spec, redirect=None, backends=())
    return spec


def retry(section: HTTPRouteRetry) -> RetrySpec:
    """
    Return the retries of a rule.

    The contract counts tries.  "Implementations … MAY cap the delay at an implementation-defined
    maximum, which SHOULD NOT be less than the base interval."
    """
    backoff = milliseconds(section.backoff)
    return RetrySpec(
        attempts=section.attempts + 1,
        codes=section.codes,
        backoff=backoff,
        max_backoff=max(backoff, RetrySpec().max_backoff),
    )


def _mirrors(
    filters: Filters, route: HTTPRoute | GRPCRoute, services: Services
) -> tuple[MirrorSpec, ...]:
    """Return where copies go; "if the referent cannot be found, [it] must be dropped"."""
    mirrors = [item.request_mirror for item in filters if item.request_mirror is not None]
    return tuple(
        MirrorSpec(cluster=cluster, percent=_percent(mirror))
        for mirror in mirrors
        if (cluster := cluster_of(mirror.backend_ref, route, services)) is not None
    )


def _percent(mirror: RequestMirrorFilter) -> float:
    if mirror.fraction is not None:
        return 100 * mirror.fraction.numerator / mirror.fraction.denominator
    return 100.0 if mirror.percent is None else float(mirror.percent)


Found = Sequence[FaultInjection | RateLimitPolicy | Problem]


def _extensions(filters: Filters, route: HTTPRoute | GRPCRoute, policies: Policies) -> Found:
    refs = [item.extension_ref for item in filters if item.extension_ref is not None]
    return [extension(ref, route, policies) for ref in refs]


def _faults(found: Found) -> tuple[FaultSpec, ...]:
    return tuple(fault for one in found if isinstance(one, FaultInjection) for fault in faults(one))


def _rate_limits(found: Found) -> tuple[RateLimitSpec, ...]:
    return tuple(
        limit for one in found if isinstance(one, RateLimitPolicy) for limit in rate_limits(one)
    )


def _optional(duration: str | None) -> int | None:
    return None if duration is None else milliseconds(duration)
