"""RateLimitPolicies and FaultInjections: one spec of the contract for each of their rules."""

from typing import Literal, get_args

from control_plane.resources.duration import milliseconds
from control_plane.resources.policies import (
    FaultInjection,
    FaultRule,
    GRPCCode,
    RateLimitPolicy,
    RateLimitRule,
)
from meshproxy.contract.matching import IdentityMatchSpec
from meshproxy.contract.policies import FaultSpec, RateLimitSpec

from .matches import of_policy

GRPC_STATUS = {name: number for number, name in enumerate(get_args(GRPCCode), 1)}

_PER: dict[str, Literal["all", "identity", "header"]] = {
    "All": "all",
    "Identity": "identity",
    "Header": "header",
}


def rate_limits(policy: RateLimitPolicy) -> tuple[RateLimitSpec, ...]:
    """Return the token buckets of a policy."""
    return tuple(
        RateLimitSpec(
            name=_name(policy, rule, number),
            match=of_policy(rule.match),
            source=IdentityMatchSpec(principals=rule.source.principals),
            per=_PER[rule.per.type],
            header=rule.per.header or "",
            requests=rule.requests,
            interval=milliseconds(rule.interval),
            burst=rule.burst,
        )
        for number, rule in enumerate(policy.spec.rules)
    )


def faults(policy: FaultInjection) -> tuple[FaultSpec, ...]:
    """Return the faults of a policy."""
    return tuple(
        FaultSpec(
            name=_name(policy, rule, number),
            match=of_policy(rule.match),
            source=IdentityMatchSpec(principals=rule.source.principals),
            delay=0 if rule.delay is None else milliseconds(rule.delay.fixed_delay),
            delay_percent=0.0 if rule.delay is None else rule.delay.percent,
            abort_status=None if rule.abort is None else rule.abort.http_status,
            abort_grpc_status=_grpc_status(rule),
            abort_percent=0.0 if rule.abort is None else rule.abort.percent,
        )
        for number, rule in enumerate(policy.spec.rules)
    )


def _grpc_status(rule: FaultRule) -> int | None:
    if rule.abort is None or rule.abort.grpc_status is None:
        return None
    return GRPC_STATUS[rule.abort.grpc_status]


def _name(
    policy: RateLimitPolicy | FaultInjection, rule: RateLimitRule | FaultRule, number: int
) -> str:
    metadata = policy.metadata
    return f"{policy.kind}/{metadata.namespace}/{metadata.name}/{rule.name or number}"
