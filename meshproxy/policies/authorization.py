"""
Authorization: may this caller do this here?

Theory of operation
===================

Policies select a workload; none selects it, and everybody may do everything.  From then on:

1) A matching rule of a `deny` policy denies.
2) Otherwise, where there is no `allow` policy at all, the request passes.
3) Otherwise a matching rule of one of them lets it pass, and what none mentions is denied.

`audit` policies decide nothing: what their rules match is counted and logged, as if they denied.

**Two steps.**  Who calls is known when the connection stands, what is asked only with each request.
So a connection takes a *standing* from the policies of its port: the rules whose callers it is not
among are gone, and what is left of the others is only what they ask of requests.  Where that is
nothing, a request costs one look.  The standing is taken anew when the policies change, so a change
holds for the next request of an open connection.

**In doubt, no.**  Paths and headers can be read in several ways (`routing/readings.py`; a field sent
twice, a method in small letters): a rule that denies matches when any reading does, one that
allows when all do.  Who has left already has no address: rules that deny by address mean it.  On a
connection that is not HTTP there are no requests: a rule that allows and asks about them never
matches there, one that denies and asks about them does, since nobody can know that it would not.

Called from: `Exchange.on_request_head`, `Relay`; compiled by `config/snapshot.py`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead
from meshproxy.routing.authority import normalized
from meshproxy.routing.pattern import Patterns
from meshproxy.routing.readings import readings
from meshproxy.routing.template import Paths

Address = IPv4Address | IPv6Address
Claims = Mapping[str, Any]
_LONE: Final = "surrogatepass"
"""JSON can hold halves of characters; they stand for themselves, so that two texts stay two."""

Quantifier = Callable[[Iterable[object]], bool]
"""`any` or `all`."""


class Source(NamedTuple):
    """
    Who is at the other end of a connection.

    Attributes:
        principal: The SPIFFE ID that mutual TLS has proved; empty where nobody was.
        address: None where there is none.
    """

    principal: bytes = b""
    namespace: bytes = b""
    trust_domain: bytes = b""
    address: Address | None = None

    @classmethod
    def of(cls, identity: str | None, address: str | None = None) -> "Source":
        """Take apart what a connection knows; an empty address is none."""
        place = None
        if address:  # who has left already has none
            place = ip_address(address.partition("%")[0])
            if isinstance(place, IPv6Address) and place.ipv4_mapped is not None:
                place = place.ipv4_mapped  # one spelling, or a block of IPv4 would miss it
        if identity is None:
            return cls(address=place)
        try:
            spiffe = SpiffeId.parse(identity)
        except SpiffeError:  # proved, but nobody of ours: no namespace, no trust domain
            return cls(identity.encode(), address=place)
        parts = spiffe.path.split("/")
        namespace = parts[2] if len(parts) > 2 and parts[1] == "ns" else ""
        return cls(identity.encode(), namespace.encode(), spiffe.trust_domain.encode(), place)


class Verdict(NamedTuple):
    """
    What was decided, and by whom.

    Attributes:
        policy: ``namespace/name``; empty where no rule matched.
        rule: Its name, or its number.
        audited: Policies that would have denied, if they were not `audit`, each with its rule.
    """

    allowed: bool
    policy: str = ""
    rule: str = ""
    audited: tuple[tuple[str, str], ...] = ()


ALLOWED: Final = Verdict(allowed=True)
DENIED: Final = Verdict(allowed=False)


class Authorization:
    """The policies of one port of a workload."""

    __slots__ = ("_allow", "_audit", "_deny", "by_address", "specs")

    def __init__(self, specs: Sequence[AuthorizationSpec], where: str = "") -> None:
        """
        Args:
            specs: All policies that hold for the port.
            where: For errors.

        Raises:
            ContractError: A pattern, template or address block is wrong.
        """
        self.specs = tuple(specs)
        self._deny: list[_Rule] = []
        self._audit: list[_Rule] = []
        self._allow: list[_Rule] | None = None
        for index, spec in enumerate(specs):
            rules = [
                _Rule(spec.name, rule.name or str(number), rule, f"{here}.rules[{number}]")
                for here in (f"{where}[{index}]",)
                for number, rule in enumerate(spec.rules)
            ]
            if spec.action == "deny":
                self._deny += rules
            elif spec.action == "audit":
                self._audit += rules
            else:
                self._allow = (self._allow or []) + rules
        everything = [*self._deny, *self._audit, *(self._allow or ())]
        self.by_address = any(rule.by_address for rule in everything)
        """Whether it matters from which address somebody calls."""

    def standing(self, source: Source) -> "Standing":
        """Return what is left to be asked of the requests of a connection."""
        allow = None if self._allow is None else _left(self._allow, source, in_doubt=False)
        deny = _left(self._deny, source, in_doubt=True)
        return Standing(deny, _left(self._audit, source, in_doubt=True), allow)


class Standing:
    """
    What one caller may do.

    Attributes:
        free: Every request passes, and none is looked at.
    """

    __slots__ = ("_allow", "_audit", "_deny", "free")

    def __init__(
        self, deny: "list[_Left]", audit: "list[_Left]", allow: "list[_Left] | None"
    ) -> None:
        self._deny = deny
        self._audit = audit
        self._allow = allow
        allowed = allow is None or any(left.unconditional for left in allow)
        self.free = allowed and not deny and not audit

    def judge(self, head: RequestHead, claims: Claims | None = None) -> Verdict:
        """
        Decide about a request.

        Args:
            head: As the caller has sent it.
            claims: Of its JWT, whose signature and issuer were found right; None without one.
        """
        paths = readings(head.path)
        audited: tuple[tuple[str, str], ...] = ()
        if self._audit:
            audited = tuple(
                (left.policy, left.rule)
                for left in self._audit
                if left.matches(head, paths, claims, any)
            )
        for left in self._deny:
            if left.matches(head, paths, claims, any):
                return Verdict(False, left.policy, left.rule, audited)
        if self._allow is None:
            return Verdict(True, audited=audited) if audited else ALLOWED
        for left in self._allow:
            if left.matches(head, paths, claims, all):
                return Verdict(True, left.policy, left.rule, audited) if audited else left.allowed
        return Verdict(False, audited=audited)

    def judge_connection(self) -> Verdict:
        """Decide about a connection on which no requests can be told apart."""
        audited = tuple((left.policy, left.rule) for left in self._audit)
        for left in self._deny:
            return Verdict(False, left.policy, left.rule, audited)
        if self._allow is None:
            return Verdict(True, audited=audited)
        for left in self._allow:
            if left.unconditional:
                return Verdict(True, left.policy, left.rule, audited)
        return Verdict(False, audited=audited)


# Rules ----------------------------------------------------------------------------------------------


class _Rule:
    """One rule, compiled."""

    def __init__(self, policy: str, name: str, spec: AuthorizationRuleSpec, where: str) -> None:
        self.policy = policy
        self.name = name
        self._sources = [
            _Source(source, f"{where}.sources[{index}]")
            for index, source in enumerate(spec.sources)
        ]
        self._operations = [
            _Operation(operation, f"{where}.operations[{index}]")
            for index, operation in enumerate(spec.operations)
        ]
        self._facts = [
            _Fact(fact, f"{where}.facts[{index}]") for index, fact in enumerate(spec.facts)
        ]
        if any(operation.empty for operation in self._operations):
            self._operations = []  # one of them takes every request
        self.by_address = any(source.by_address for source in self._sources)

    def left(self, source: Source, *, in_doubt: bool) -> "_Left | None":
        """
        Return what the rule asks of the requests of `source`; None if it is not meant.

        Args:
            source: Who calls.
            in_doubt: What is said about an address that is not known.
        """
        sources = [one for one in self._sources if one.matches(source, in_doubt=in_doubt)]
        if self._sources and not sources:
            return None
        if any(one.requests is None for one in sources):
            sources = []  # one of them asks nothing more
        requests = [one.requests for one in sources if one.requests is not None]
        return _Left(self.policy, self.name, requests, self._operations, self._facts)


class _Left:
    """
    What a rule asks of requests, once the caller is known to be meant.

    Attributes:
        allowed: The verdict where it allows and nothing is audited: as nearly always the same.
    """

    __slots__ = ("_facts", "_operations", "_subjects", "allowed", "policy", "rule", "unconditional")

    def __init__(
        self,
        policy: str,
        rule: str,
        subjects: "list[_Subject]",
        operations: "list[_Operation]",
        facts: "list[_Fact]",
    ) -> None:
        self.policy = policy
        self.rule = rule
        self.allowed = Verdict(True, policy, rule)
        self._subjects = subjects
        self._operations = operations
        self._facts = facts
        self.unconditional = not (subjects or operations or facts)

    def matches(
        self,
        head: RequestHead,
        paths: Sequence[bytes] | None,
        claims: Claims | None,
        over: Quantifier,
    ) -> bool:
        """Say whether the request is meant; `over` readings: `any` to deny, `all` to allow."""
        if self._subjects and not any(one.matches(claims) for one in self._subjects):
            return False
        if self._operations:
            asked = [one for one in self._operations if one.takes(head, over)]
            if paths is None:  # it may mean any
                if not any(over is any or not one.by_path for one in asked):
                    return False
            elif not _covered(asked, paths, over):
                return False
        return not self._facts or all(fact.matches(head, claims, over) for fact in self._facts)


def _covered(asked: "Sequence[_Operation]", paths: Sequence[bytes], over: Quantifier) -> bool:
    """
    Say whether the readings of a path are covered, any or all of them.

    Loops, not `over(… for …)`: a path may have hundreds of readings, and what is compiled would make
    a list of all verdicts before it looks at the first.
    """
    wanted = over is any
    for path in paths:
        for one in asked:
            if one.covers(path):
                if wanted:
                    return True
                break
        else:
            if not wanted:
                return False
    return not wanted


def _left(rules: Iterable[_Rule], source: Source, *, in_doubt: bool) -> list[_Left]:
    lefts = (rule.left(source, in_doubt=in_doubt) for rule in rules)
    return [left for left in lefts if left is not None]


# Who ------------------------------------------------------------------------------------------------


class _Either:
    """Patterns of which one must match, and others of which none may."""

    __slots__ = ("_no", "_yes")

    def __init__(self, yes: Sequence[str], no: Sequence[str], where: str, name: str) -> None:
        self._yes = Patterns(yes, f"{where}.{name}") if yes else None
        self._no = Patterns(no, f"{where}.not_{name}") if no else None

    @property
    def empty(self) -> bool:
        return self._yes is None and self._no is None

    def matches(self, *spellings: bytes) -> bool:
        """Say whether one of the spellings is among those wanted, and none among the others."""
        if self._yes is not None and not any(map(self._yes.match, spellings)):
            return False
        return self._no is None or not any(map(self._no.match, spellings))


class _Source:
    """
    Attributes:
        requests: What it asks of requests, too; None for nothing.
    """

    def __init__(self, spec: SourceSpec, where: str) -> None:
        self._principals = _Either(spec.principals, spec.not_principals, where, "principals")
        self._namespaces = _Either(spec.namespaces, spec.not_namespaces, where, "namespaces")
        self._trust_domains = _Either(
            spec.trust_domains, spec.not_trust_domains, where, "trust_domains"
        )
        self._blocks = _blocks(spec.ip_blocks, f"{where}.ip_blocks")
        self._not_blocks = _blocks(spec.not_ip_blocks, f"{where}.not_ip_blocks")
        self.by_address = bool(self._blocks or self._not_blocks)
        wanted = _Either(
            spec.request_principals, spec.not_request_principals, where, "request_principals"
        )
        self.requests = None if wanted.empty else _Subject(wanted)

    def matches(self, source: Source, *, in_doubt: bool) -> bool:
        return (
            self._principals.matches(source.principal)
            and self._namespaces.matches(source.namespace)
            and self._trust_domains.matches(source.trust_domain)
            and self._in_place(source.address, in_doubt=in_doubt)
        )

    def _in_place(self, address: Address | None, *, in_doubt: bool) -> bool:
        if not self.by_address:
            return True
        if address is None:
            return in_doubt
        if self._blocks and not any(address in block for block in self._blocks):
            return False
        return not any(address in block for block in self._not_blocks)


def _blocks(texts: Iterable[str], where: str) -> tuple[IPv4Network | IPv6Network, ...]:
    blocks = []
    for index, text in enumerate(texts):
        try:
            blocks.append(ip_network(text))
        except ValueError as error:
            reason = f"expected an address or a network such as 10.0.0.0/8: {error}"
            raise ContractError(f"{where}[{index}]", reason) from None
    return tuple(blocks)


class _Subject:
    """The end user for whom a request is made, by its JWT."""

    __slots__ = ("_wanted",)

    def __init__(self, wanted: _Either) -> None:
        self._wanted = wanted

    def matches(self, claims: Claims | None) -> bool:
        text = b""
        if claims is not None:
            text = f"{claims.get('iss', '')}/{claims.get('sub', '')}".encode(errors=_LONE)
        return self._wanted.matches(text)


# What -----------------------------------------------------------------------------------------------


class _Operation:
    """
    Attributes:
        by_path: It asks for the path.
        empty: It asks nothing.
    """

    def __init__(self, spec: OperationSpec, where: str) -> None:
        self._hosts = _Either(
            [host.lower() for host in spec.hosts], [host.lower() for host in spec.not_hosts],
            where, "hosts",
        )  # fmt: skip
        self._methods = _Either(spec.methods, spec.not_methods, where, "methods")
        self._paths = Paths(spec.paths, f"{where}.paths") if spec.paths else None
        self._not_paths = Paths(spec.not_paths, f"{where}.not_paths") if spec.not_paths else None
        self.by_path = self._paths is not None or self._not_paths is not None
        self.empty = self._hosts.empty and self._methods.empty and not self.by_path

    def takes(self, head: RequestHead, over: Quantifier) -> bool:
        """Say whether host and method are meant."""
        method = head.method
        if self._methods.empty:
            pass
        elif not self._methods.matches(method):
            upper = method.upper()  # as which some frameworks take it (Werkzeug, Django)
            if over is all or upper == method or not self._methods.matches(upper):
                return False
        elif over is all and not self._methods.matches(method.upper()):
            return False
        if self._hosts.empty:
            return True
        authority = normalized(head.authority)
        if authority is None:
            return over is any  # whoever answers it may take it for any host
        return self._hosts.matches(authority, authority.rpartition(b":")[0])

    def covers(self, path: bytes) -> bool:
        """Say whether a path is meant."""
        if self._paths is not None and not self._paths.match(path):
            return False
        return self._not_paths is None or not self._not_paths.match(path)


class _Fact:
    __slots__ = ("_header", "_name", "_no", "_path", "_yes")

    def __init__(self, spec: FactSpec, where: str) -> None:
        self._name = spec.name.lower().encode().replace(b"_", b"-")
        self._header = spec.kind == "header"
        self._path = spec.path
        self._yes = Patterns(spec.values, f"{where}.values") if spec.values else None
        self._no = Patterns(spec.not_values, f"{where}.not_values") if spec.not_values else None

    def matches(
        self,
        head: RequestHead,
        claims: Claims | None,
        over: Quantifier,
    ) -> bool:
        if not self._header:
            return self._accepts(self._claimed(claims))
        if self._name == b"host":
            authority = normalized(head.authority)
            if authority is None:
                return over is any
            return self._accepts([authority, authority.rpartition(b":")[0]])
        # CGI-style servers fold `_` into `-`: there both are one field.
        values = [one[1] for one in head.fields if one[0].replace(b"_", b"-") == self._name]
        if len(values) < 2:
            return self._accepts(values)
        values.append(b", ".join(values))  # servers take the first, the last, or all of them
        return over([self._accepts([value]) for value in values])

    def _accepts(self, values: Sequence[bytes]) -> bool:
        """Say whether one of the values is wanted, and none of them is not."""
        if self._yes is not None and not any(map(self._yes.match, values)):
            return False
        return self._no is None or not any(map(self._no.match, values))

    def _claimed(self, claims: Claims | None) -> list[bytes]:
        found: Any = claims
        for key in self._path:
            if not isinstance(found, Mapping) or key not in found:
                return []
            found = found[key]
        listed = found if isinstance(found, list) else [found]
        return [_text(one) for one in listed if isinstance(one, str | int | float)]


def _text(value: str | float) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    return str(value).encode(errors=_LONE)
