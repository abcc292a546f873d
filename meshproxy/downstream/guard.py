"""
What stands between one caller and the app: whose tokens count, and what the caller may do.

Made when a caller comes or the policies change, and None where there are none: a request then costs
one look.  `policies/authorization.py` and `policies/jwt.py` decide; here it is counted and noted.

Where policies ask for addresses, each request and connection is judged by its own: one identity calls
from many, and a connection that is older than the policy has an address, too.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Protocol

from meshproxy import neighbours
from meshproxy.message import Field, RequestHead, field
from meshproxy.policies.authorization import Claims, Standing, Verdict
from meshproxy.policies.jwt import InvalidToken, Jwt
from meshproxy.telemetry.denials import Denials
from meshproxy.telemetry.metrics import Metrics

_BEARER: Final = field(b"WWW-Authenticate", b'Bearer error="invalid_token"')
"""RFC 6750 section 3; nothing of what was wrong with it."""

REMEMBERED: Final = 1024
"""Addresses of one caller whose standing is kept at hand."""


class Environment(Protocol):
    """What a guard needs of the process."""

    metrics: Metrics
    wall: Callable[[], float]

    @property
    def denials(self) -> Denials: ...


class Downstream(Protocol):
    """Who asks; its address is empty where it has gone."""

    @property
    def address(self) -> str | None: ...


class Guard(neighbours.Guard):
    """Of one caller at one port."""

    __slots__ = ("_at", "_environment", "_jwt", "_source", "_standing", "_standings")

    def __init__(
        self,
        environment: Environment,
        source: str,
        standing: Standing | None,
        jwt: Jwt | None,
        at: Callable[[str], Standing] | None = None,
    ) -> None:
        """
        Args:
            environment: Where it is counted and noted.
            source: Identity of the caller, or empty.
            jwt: The issuers that are believed; None where nobody looks for tokens.
            standing: What the caller may do; None where no policy says.
            at: Instead of `standing`, what it may do from an address, where that matters.
        """
        self._environment = environment
        self._source = source
        self._standing = standing
        self._jwt = jwt
        self._at = at
        self._standings: dict[str, Standing] = {}

    def _standing_of(self, downstream: Downstream) -> Standing | None:
        at = self._at
        if at is None:
            return self._standing
        address = downstream.address or ""
        standing = self._standings.get(address)
        if standing is None:
            if len(self._standings) >= REMEMBERED:
                self._standings.clear()  # made anew for those who come again
            standing = self._standings[address] = at(address)
        return standing

    def stop(
        self, head: RequestHead, downstream: Downstream
    ) -> tuple[str, str, Sequence[Field]] | None:
        """Return why a request may not pass: code, id of the denial, fields; None where it may."""
        claims: Claims | None = None
        if self._jwt is not None:
            try:
                claims = self._jwt.check(head, self._environment.wall())
            except InvalidToken as wrong:
                number = self._note(head, reason=str(wrong))
                return "invalid-token", number, (_BEARER,)
            if claims is not None:
                head.claims = claims
        standing = self._standing_of(downstream)
        if standing is None:
            return None
        verdict = standing.judge(head, claims)
        self._audit(verdict, head)
        if verdict.allowed:
            return None
        self._environment.metrics.access_denied(verdict.policy)
        number = self._note(head, policy=verdict.policy, rule=verdict.rule)
        return "access-denied", number, ()

    def forbids(self, head: RequestHead, downstream: Downstream) -> str:
        """
        Return the id of the denial of a stream that other policies have let in; empty for none.

        What its token has proved when it began holds; a token that nobody has asked for then is
        looked at now.
        """
        standing = self._standing_of(downstream)
        if standing is None:
            return ""
        claims: Claims | None = getattr(head, "claims", None)
        if claims is None and self._jwt is not None:
            copy = RequestHead(head.method, head.authority, head.path, list(head.fields))
            with suppress(InvalidToken):  # nothing is proved
                claims = self._jwt.check(copy, self._environment.wall())
        verdict = standing.judge(head, claims)
        if verdict.allowed:
            return ""
        self._environment.metrics.access_denied(verdict.policy)
        return self._note(head, policy=verdict.policy, rule=verdict.rule)

    def stop_connection(self, downstream: Downstream) -> bool:
        """Say whether a connection may not be, on which no requests can be told apart."""
        standing = self._standing_of(downstream)
        if standing is None:
            return False
        verdict = standing.judge_connection()
        self._audit(verdict, None)
        if not verdict.allowed:
            environment = self._environment
            environment.metrics.access_denied(verdict.policy)
            environment.denials.note(self._source, policy=verdict.policy, rule=verdict.rule)
        return not verdict.allowed

    def _audit(self, verdict: Verdict, head: RequestHead | None) -> None:
        for policy, rule in verdict.audited:
            self._environment.metrics.access_audited(policy)
            self._environment.denials.audit(self._source, policy, rule, head)

    def _note(
        self, head: RequestHead, *, policy: str = "", rule: str = "", reason: str = ""
    ) -> str:
        return self._environment.denials.note(
            self._source,
            method=head.method.decode("latin-1"),
            authority=head.authority.decode("latin-1"),
            path=head.path.partition(b"?")[0].decode("latin-1"),  # a query may hold secrets
            policy=policy,
            rule=rule,
            reason=reason,
        )
