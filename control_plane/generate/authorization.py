"""AuthorizationPolicies to the contract: those that select a workload."""

from collections.abc import Iterable

from control_plane.resources.authorization_policy import CLAIM, KEY, principal
from control_plane.resources.model import MeshConfig, Workload
from control_plane.resources.security import (
    AuthorizationPolicy,
    AuthorizationRule,
    Condition,
    GRPCOperation,
    Operation,
    SecurityPolicy,
    Source,
)
from control_plane.resources.selection import includes, means, selected
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)

_ACTIONS = {"ALLOW": "allow", "DENY": "deny", "AUDIT": "audit"}


def authorization(
    workload: Workload, port: int, policies: Iterable[SecurityPolicy], mesh: MeshConfig
) -> tuple[AuthorizationSpec, ...]:
    """
    Return what holds for one of the workload's ports; empty where everything is allowed.

    An ALLOW policy whose rules are all about other ports is there, without rules: it allows nothing.
    """
    return tuple(
        _policy(policy, port) for policy in selected(AuthorizationPolicy, workload, policies, mesh)
    )


def _policy(policy: AuthorizationPolicy, port: int) -> AuthorizationSpec:
    metadata = policy.metadata
    return AuthorizationSpec(
        name=f"{metadata.namespace}/{metadata.name}",
        action=_ACTIONS[policy.spec.action],  # type: ignore[arg-type]
        rules=tuple(
            _rule(rule.name or str(number), rule, port)
            for number, rule in enumerate(policy.spec.rules)
            if means(rule, port)
        ),
    )


def _rule(name: str, rule: AuthorizationRule, port: int) -> AuthorizationRuleSpec:
    return AuthorizationRuleSpec(
        name=name,
        sources=tuple(_source(one.source) for one in rule.sources),
        operations=tuple(
            _operation(one.operation) for one in rule.to if includes(one.operation, port)
        ),
        facts=tuple(_fact(condition) for condition in rule.when),
    )


def _source(source: Source) -> SourceSpec:
    return SourceSpec(
        principals=tuple(map(principal, source.principals)),
        not_principals=tuple(map(principal, source.not_principals)),
        namespaces=source.namespaces,
        not_namespaces=source.not_namespaces,
        trust_domains=source.trust_domains,
        not_trust_domains=source.not_trust_domains,
        ip_blocks=source.ip_blocks,
        not_ip_blocks=source.not_ip_blocks,
        request_principals=source.request_principals,
        not_request_principals=source.not_request_principals,
    )


def _operation(operation: Operation) -> OperationSpec:
    return OperationSpec(
        hosts=operation.hosts,
        not_hosts=operation.not_hosts,
        methods=("POST",) if operation.grpc else operation.methods,
        not_methods=operation.not_methods,
        paths=tuple(map(_path, operation.grpc)) or operation.paths,
        not_paths=operation.not_paths,
    )


def _path(call: GRPCOperation) -> str:
    """Return the path of a gRPC method: ``/package.Service/Method``."""
    if call.service == "*":
        return f"*/{call.method}"
    if call.service.endswith("*"):
        return f"/{call.service}"
    return f"/{call.service}/{call.method}"


def _fact(condition: Condition) -> FactSpec:
    found = KEY.fullmatch(condition.key)
    assert found is not None  # validated
    if found[1] is not None:
        return FactSpec(
            kind="header",
            name=found[1],
            values=condition.values,
            not_values=condition.not_values,
        )
    return FactSpec(
        kind="claim",
        path=tuple(CLAIM.findall(found[2])),
        values=condition.values,
        not_values=condition.not_values,
    )
