"""
What binds one request to an endpoint, over all its attempts: a session, a key, or both.

The session decides where it can, and the key where it cannot: "If the request contains a session
persistence identity, then route it directly to the backend […].  If not, load balance as per load
balancing configuration" (GEP-1619).

Called from: `Exchange._bind`, `begin_attempt`, `on_response_head`.
"""

from typing import Generic, Protocol, TypeVar

from meshproxy.message import Field, RequestHead

from .session import Session
from .tokens import Tokens


class Named(Protocol):
    """An endpoint; see `endpoint.Endpoint`."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


class Affinity(Generic[N]):
    """
    Attributes:
        endpoint: That of the session, for the first attempt.
        key: For `Balancer.pick`.
    """

    __slots__ = ("_cookie", "_head", "_scope", "_session", "_tokens", "endpoint", "key")

    def __init__(
        self,
        head: RequestHead,
        scope: str,
        session: Session | None,
        tokens: Tokens | None,
    ) -> None:
        """
        Args:
            head: Of the request.
            scope: Name of its route.
            session: None where none is configured.
            tokens: None where there are no sessions.
        """
        self.endpoint: N | None = None
        self.key: int | None = None
        self._cookie: Field | None = None
        self._head = head
        self._scope = scope
        self._session = session
        self._tokens = tokens

    def wanted(self) -> bytes | None:
        """Return the endpoint (`Tokens.id_of`) that the request asks for, if it may."""
        if self._session is None or self._tokens is None:
            return None
        return self._session.read(self._head, self._scope, self._tokens)

    def hashed(self, key: int | None, cookie: Field | None) -> None:
        """Keep together what has this key; the client gets the cookie, if there is one."""
        self.key = key
        self._cookie = cookie

    def answer(self, endpoint: N | None) -> list[Field]:
        """Return what an answer of this endpoint has to tell the client."""
        fields = [] if self._cookie is None else [self._cookie]
        session, tokens = self._session, self._tokens
        if session is None or tokens is None or endpoint is None or endpoint is self.endpoint:
            return fields
        named = tokens.id_of(endpoint.name)
        fields.append(session.begin(named, self._head, self._scope, tokens))
        return fields
