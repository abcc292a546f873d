"""
Which policies hold for a service port (GEP-713).

* A policy targets Services of its own namespace through `targetRefs`: whoever owns a Service says how
  it is called, whoever calls.  `sectionName` names one of its ports.
* Of two TrafficPolicies for a port one decides, whole: "a Policy that targets a section … takes
  precedence over a Policy that targets the resource", then "the oldest … based on creation timestamp",
  then the first in alphabetical order by ``{namespace}/{name}``.  Sections are never mixed, so that
  what holds can be read in one place.
* RateLimitPolicies and FaultInjections add up, the oldest first.

`generate` and the findings ask the same functions, so what is said and what is done cannot differ.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from .attachment import age
from .model import Service, ServicePort
from .policies import Policy, TargetRef, TrafficPolicy

P = TypeVar("P", bound=Policy)
Targeted = Mapping[str, list[Policy]]
"""``namespace/name`` of a Service → the policies that target it."""


def by_target(policies: Iterable[Policy]) -> dict[str, list[Policy]]:
    """Return the policies that target each Service, the oldest first."""
    found: dict[str, list[Policy]] = {}
    for policy in sorted(policies, key=age):
        for name in {target_name(ref, policy) for ref in policy.spec.target_refs}:
            found.setdefault(name, []).append(policy)
    return found


def target_name(ref: TargetRef, policy: Policy) -> str:
    """Return ``namespace/name`` of the Service that a targetRef means."""
    return f"{policy.metadata.namespace}/{ref.name}"


def selects(ref: TargetRef, port: ServicePort) -> bool:
    """Say whether a targetRef to the Service means this port of it."""
    return ref.section_name in (None, port.name)


def all_for(kind: type[P], service: Service, port: ServicePort, targeted: Targeted) -> list[P]:
    """Return the policies of a kind that target a service port, the oldest first."""
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    return [
        policy
        for policy in targeted.get(name, ())
        if isinstance(policy, kind) and specificity(policy, name, port) is not None
    ]


def deciding(service: Service, port: ServicePort, targeted: Targeted) -> TrafficPolicy | None:
    """Return the one TrafficPolicy that holds for a service port."""
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    # `min` takes the first of equals, and they are in the order of age.
    return min(
        all_for(TrafficPolicy, service, port, targeted),
        key=lambda policy: not specificity(policy, name, port),
        default=None,
    )


def specificity(policy: Policy, name: str, port: ServicePort) -> bool | None:
    """Say whether a policy means this very port (True), or all of the Service (False), or neither."""
    refs = [
        ref
        for ref in policy.spec.target_refs
        if target_name(ref, policy) == name and selects(ref, port)
    ]
    return any(ref.section_name is not None for ref in refs) if refs else None
