"""
Session persistence: the same client, the same endpoint (Gateway API, GEP-1619).

The first answer of a session gives the client a token (see `tokens`) in a cookie or a header, and
whoever comes with it is sent to the endpoint that gave this answer.  When that endpoint is gone, out
of service, or fails this very request, the request goes where any other would, and its answer begins
a new session.

**Time.**  A session ends when its absolute timeout has passed, whatever the client does; a permanent
cookie says the same with Max-Age.  Without a timeout it ends with the browser's session.

**Scope.**  "Route rules referencing the same service MUST NOT share persistent sessions": the name of
the rule is sealed into the token.  A session of a rule is one with an endpoint, not with a service:
it comes before the weights, "even if the weight is set to 0".  Its cookie has the rule's path; a
cluster's has none ("MUST be left unset"), which is that of the first request.

Called from: `affinity`.   Configured by: `SessionPersistenceSpec`.
"""

from meshproxy.contract.policies import SessionPersistenceSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, field, value_of

from .cookies import cookie_of, set_cookie
from .tokens import Tokens


class Session:
    """The sessions of one rule or cluster."""

    __slots__ = ("_lifetime", "_name", "_path", "_timeout", "spec")

    def __init__(
        self, spec: SessionPersistenceSpec, path: bytes = b"", where: str = "session"
    ) -> None:
        """
        Args:
            spec: As configured.
            path: Below which a cookie is sent back; empty for that of the request.
            where: For errors.

        Raises:
            ContractError: The name cannot be that of a cookie or header, or there is no timeout for
                a permanent cookie.
        """
        if not spec.name.isascii() or not all(c.isalnum() or c in _TOKEN for c in spec.name):
            raise ContractError(
                f"{where}.name", f"expected the name of a {spec.type}, got {spec.name!r}"
            )
        if spec.permanent and spec.absolute_timeout is None:
            raise ContractError(
                f"{where}.absolute_timeout", "is missing: a permanent cookie must end sometime"
            )
        self.spec = spec
        self._name = spec.name.encode()
        self._path = path
        self._timeout = None if spec.absolute_timeout is None else spec.absolute_timeout / 1000
        permanent = spec.permanent and self._timeout is not None
        self._lifetime = max(1, int(self._timeout or 0)) if permanent else None

    def read(self, head: RequestHead, scope: str, tokens: Tokens) -> bytes | None:
        """Return the endpoint (`Tokens.id_of`) that a request belongs to, if it has a token that counts."""
        if self.spec.type == "cookie":
            token = cookie_of(head.fields, self._name)
        else:
            token = value_of(head.fields, self._name.lower())
        return None if token is None else tokens.read(token, scope, self._timeout)

    def begin(self, endpoint: bytes, head: RequestHead, scope: str, tokens: Tokens) -> Field:
        """Return the field by which the answer to a request begins a session."""
        token = tokens.make(endpoint, scope)
        if self.spec.type == "header":
            return field(self._name, token)
        return set_cookie(
            self._name,
            token,
            path=self._path,
            max_age=self._lifetime,
            secure=head.scheme == b"https",
        )


_TOKEN = "!#$%&'*+-.^_`|~"
