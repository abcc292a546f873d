"""
What the sidecar of one workload would say to one request: by the proxy's own code, with the reasons.

The verdict is that of `meshproxy.policies.authorization` over the specs that the sidecar obeys.  So
are the reasons: why a rule did not match is found by asking the same code about its parts, one by
one, and never by reading the rule a second time here.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from control_plane.outline import Behind
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.resources import (
    DestinationSpec,
    ListenerSpec,
    Snapshot,
    VirtualHostSpec,
)
from meshproxy.message import RequestHead
from meshproxy.policies.authorization import Authorization, Claims, Source, Verdict

SHOWN_VALUES = 3

By = Literal["rule", "no-policy", "no-rule", "mtls", "revoked", "token"]


class Asked(Struct, frozen=True):
    """
    Attributes:
        identity: Of the caller; None for one that shows no certificate.
        address: None where nobody has said.
        head: None for a connection on which there are no requests.
        claims: Of a right token; None without one.
    """

    identity: str | None
    address: str | None = None
    head: RequestHead | None = None
    claims: Mapping[str, Any] | None = None


class Unmatched(Struct, frozen=True):
    """A rule that did not match, and the first thing in the way."""

    policy: str
    action: str
    rule: str
    why: str


class Decision(Struct, frozen=True, kw_only=True):
    """
    Attributes:
        allowed: Whether the app would see it.
        mtls: What the port wants: strict, permissive or disabled.
        by: What decided: a rule, that there is none, mutual TLS, a revocation, the token.
        policy: ``namespace/name``, where a rule decided.
        audited: Policies that would have denied it, were they not AUDIT.
        notes: What of the question has no meaning here.
    """

    workload: str
    port: int
    allowed: bool
    mtls: str
    by: By
    policy: str = ""
    rule: str = ""
    audited: tuple[str, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    notes: tuple[str, ...] = ()


def decide(snapshot: Snapshot, at: Behind, asked: Asked) -> Decision:
    """Return what the sidecar that obeys `snapshot` would say at one of its app's ports."""
    decision = Decision(
        workload=at.workload,
        port=at.port,
        allowed=True,
        mtls=_mtls(snapshot, at.port),
        by="no-policy",
    )
    notes: list[str] = []
    denied = _without_policies(snapshot, at, asked, decision.mtls)
    if denied is not None:
        return msgspec.structs.replace(decision, allowed=False, by=denied)
    specs, asked = _as_understood(snapshot, at, asked, decision.mtls, notes)
    source = Source.of(asked.identity, asked.address)
    verdict = _judge(specs, source, asked.head, asked.claims)
    by: By = "rule"
    if not verdict.policy:
        by = "no-policy" if verdict.allowed else "no-rule"
    return msgspec.structs.replace(
        decision,
        allowed=verdict.allowed,
        by=by,
        policy=verdict.policy,
        rule=verdict.rule,
        audited=tuple(policy for policy, _ in verdict.audited),
        unmatched=tuple(_unmatched(specs, source, asked.head, asked.claims)),
        notes=tuple(notes),
    )


def _mtls(snapshot: Snapshot, port: int) -> str:
    """Return what a port wants; of captured ones of which nothing is said, what they all do."""
    name = f"inbound:{port}"
    doors: tuple[ListenerSpec | DestinationSpec, ...] = (
        *snapshot.destinations,
        *snapshot.listeners,
    )
    inbound = [one for one in doors if one.direction == "inbound"]
    own = [one.mtls for one in inbound if one.name == name]
    return next((mtls for mtls in (*own, *(one.mtls for one in inbound)) if mtls), "strict")


def _without_policies(snapshot: Snapshot, at: Behind, asked: Asked, mtls: str) -> By | None:
    """Return what denies before any policy is asked, if anything does."""
    if mtls == "strict" and asked.identity is None:
        return "mtls"
    if mtls != "disabled" and any(asked.identity in trust.revoked for trust in snapshot.trust):
        return "revoked"
    host = _host(snapshot, at.port)
    if asked.head is not None and asked.claims is not None and host is not None and host.jwt:
        issuers = {one.issuer for one in host.jwt}
        if asked.claims.get("iss", host.jwt[0].issuer) not in issuers:
            return "token"
    return None


def _as_understood(
    snapshot: Snapshot, at: Behind, asked: Asked, mtls: str, notes: list[str]
) -> tuple[tuple[AuthorizationSpec, ...], Asked]:
    """Return the policies of a port, and what of the question it sees; say what it does not."""
    host, head, claims = _host(snapshot, at.port), asked.head, asked.claims
    identity = asked.identity
    if mtls == "disabled" and identity is not None:
        notes.append("without mutual TLS nobody's identity is proved: judged as nobody's")
        identity = None
    if head is not None and host is None:
        notes.append(f"port {at.port} is opaque TCP: judged as a connection")
        head = claims = None
    if claims is not None and (host is None or not host.jwt):
        notes.append("no RequestAuthentication is about this workload: tokens mean nothing")
        claims = None
    elif claims is not None and host is not None and "iss" not in claims:
        claims = {"iss": host.jwt[0].issuer, **claims}
    # As in the proxy: where there may be requests, the policies are those of the virtual host.
    route = next((one for one in snapshot.tcp_routes if one.name == f"inbound:{at.port}"), None)
    guarded = host or route
    specs = () if guarded is None else guarded.authorization
    if asked.address is None and any(map(_by_address, specs)):
        notes.append("policies ask for the caller's address: say it with --address")
    return specs, Asked(identity=identity, address=asked.address, head=head, claims=claims)


def _host(snapshot: Snapshot, port: int) -> VirtualHostSpec | None:
    name = f"inbound:{port}"
    return next((one for one in snapshot.virtual_hosts if one.name == name), None)


def _by_address(spec: AuthorizationSpec) -> bool:
    return Authorization((spec,)).by_address


def _judge(
    specs: tuple[AuthorizationSpec, ...],
    source: Source,
    head: RequestHead | None,
    claims: Claims | None,
) -> Verdict:
    standing = Authorization(specs).standing(source)
    return standing.judge_connection() if head is None else standing.judge(head, claims)


# Why not --------------------------------------------------------------------------------------------


def _unmatched(
    specs: tuple[AuthorizationSpec, ...],
    source: Source,
    head: RequestHead | None,
    claims: Claims | None,
) -> Iterator[Unmatched]:
    for spec in specs:

        def matches(rule: AuthorizationRuleSpec, spec: AuthorizationSpec = spec) -> bool:
            alone = msgspec.structs.replace(spec, rules=(rule,))
            verdict = _judge((alone,), source, head, claims)
            return bool(verdict.policy or verdict.audited)

        for number, rule in enumerate(spec.rules):
            if matches(rule):
                continue
            why = "; ".join(_in_the_way(rule, matches))
            yield Unmatched(spec.name, spec.action, rule.name or str(number), why)
        if not spec.rules:
            yield Unmatched(spec.name, spec.action, "", "has no rule for this port")


def _in_the_way(rule: AuthorizationRuleSpec, matches: Any) -> Iterator[str]:
    """Yield which parts of a rule, each by itself, do not match."""
    sources = AuthorizationRuleSpec(sources=rule.sources)
    if rule.sources and not matches(sources):
        yield "wants " + ", or ".join(
            _fields(one, lambda field: matches(AuthorizationRuleSpec(sources=(field,))))
            for one in rule.sources
        )
    operations = AuthorizationRuleSpec(operations=rule.operations)
    if rule.operations and not matches(operations):
        yield "wants " + ", or ".join(
            _fields(one, lambda field: matches(AuthorizationRuleSpec(operations=(field,))))
            for one in rule.operations
        )
    for fact in rule.facts:
        if not matches(AuthorizationRuleSpec(facts=(fact,))):
            yield f"wants {_fact(fact)}"


def _fields(spec: SourceSpec | OperationSpec, matches: Any) -> str:
    """Return those fields of a source or an operation that do not match, each by itself."""
    found = [
        _said(name, value)
        for name in spec.__struct_fields__
        if (value := getattr(spec, name)) and not matches(type(spec)(**{name: value}))
    ]
    return " and ".join(found) or "all of it at once"


def _fact(fact: FactSpec) -> str:
    name = f"header {fact.name}" if fact.kind == "header" else f"claim {'.'.join(fact.path)}"
    return ", ".join(
        f"{name} {other}{_listed(values)}"
        for other, values in (("", fact.values), ("other than ", fact.not_values))
        if values
    )


def _said(name: str, values: tuple[str, ...]) -> str:
    negative = name.startswith("not_")
    word = name.removeprefix("not_").replace("_", " ").removesuffix("s")
    return f"{word} {'other than ' if negative else ''}{_listed(values)}"


def _listed(values: tuple[str, ...]) -> str:
    more = len(values) - SHOWN_VALUES
    listed = " or ".join(values[:SHOWN_VALUES])
    return f"{listed} or {more} more" if more > 0 else listed
