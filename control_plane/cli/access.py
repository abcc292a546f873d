"""What stands before the ports of a workload, in words: mutual TLS, policies, issuers of tokens."""

from collections.abc import Iterator

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.resources import Snapshot

Row = tuple[str, str, str]


def rows(snapshot: Snapshot) -> Iterator[Row]:
    """Yield port, what it is about, and what holds."""
    policies, hosts = _policies(snapshot), {host.name: host for host in snapshot.virtual_hosts}
    for name, mtls in mtls_of(snapshot).items():
        yield name, "mtls", mtls
        for policy in policies.get(name, ()):
            for said in _policy(policy):
                yield name, "authorization", said
        for issuer in hosts[name].jwt if name in hosts else ():
            yield name, "tokens", _issuer(issuer)


def mtls_of(snapshot: Snapshot) -> dict[str, str]:
    """Return what each inbound port accepts; `inbound`, of captured connections, is any other."""
    found: dict[str, str] = {
        one.name: one.mtls for one in snapshot.listeners if one.direction == "inbound"
    }
    for one in snapshot.destinations:
        if one.direction == "inbound":
            found[one.name] = one.mtls or found["inbound"]
    return {name: mtls for name, mtls in found.items() if not name.startswith("inbound/")}


def _policies(snapshot: Snapshot) -> dict[str, tuple[AuthorizationSpec, ...]]:
    """Return the policies by port: of its requests, or of its connections where those are the same."""
    streams = {one.name: one.authorization for one in snapshot.tcp_routes}
    return streams | {one.name: one.authorization for one in snapshot.virtual_hosts}


def _policy(policy: AuthorizationSpec) -> Iterator[str]:
    begin = f"{policy.action.upper()} {policy.name}"
    if not policy.rules:
        yield f"{begin}: {'nothing is allowed' if policy.action == 'allow' else 'no rule'}"
    for rule in policy.rules:
        yield f"{begin} rule {rule.name}: {_rule(rule)}"


def _rule(rule: AuthorizationRuleSpec) -> str:
    parts = []
    if rule.sources:
        parts.append("from " + " or ".join(map(_listed, rule.sources)))
    if rule.operations and OperationSpec() not in rule.operations:
        parts.append("to " + " or ".join(map(_listed, rule.operations)))
    if rule.facts:
        parts.append("when " + " and ".join(map(_fact, rule.facts)))
    return ", ".join(parts) or "everything"


def _listed(spec: SourceSpec | OperationSpec) -> str:
    """Return the fields that say something, each with its values: ``paths /a or /b``."""
    return " and ".join(
        f"{'no ' if name.startswith('not_') else ''}{_words(name)} {' or '.join(values)}"
        for name in spec.__struct_fields__
        if (values := getattr(spec, name))
    )


def _words(name: str) -> str:
    return name.removeprefix("not_").replace("_", " ")


def _fact(fact: FactSpec) -> str:
    name = f"header {fact.name}" if fact.kind == "header" else f"claim {'.'.join(fact.path)}"
    yes = f" {' or '.join(fact.values)}" if fact.values else ""
    no = f" not {' or '.join(fact.not_values)}" if fact.not_values else ""
    return f"{name}{yes}{no}"


def _issuer(issuer: JwtSpec) -> str:
    places = [f"header {one.name}" for one in issuer.headers]
    places += [f"parameter {one}" for one in issuer.params]
    said = [
        f"{issuer.issuer} of RequestAuthentication {issuer.name}",
        f"for {' or '.join(issuer.audiences)}" if issuer.audiences else "",
        f"in {' or '.join(places)}" if places else "",
        "handed on" if issuer.forward else "",
        *(f"{one.header} from {one.claim}" for one in issuer.claim_headers),
        "" if issuer.keys else "NO KEYS YET: none of its tokens is right",
    ]
    return ", ".join(filter(None, said))
