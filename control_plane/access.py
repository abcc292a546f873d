"""
Who may do what at the API: two roles, each proved by a token or by a client certificate.

    view      asks: GET and HEAD
    operate   asks and acts: every other verb too (join tokens, revocation, rotation…)

The tokens lie in the state directory, each in a file of its own, so that a dashboard or Prometheus
can be given the one and not the other.  Certificates count where the API speaks TLS, and only those
whose identity the configuration lists: to be of the mesh is not enough, every workload is.
"""

import hmac
import secrets
from collections.abc import Collection, Container
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId

OPERATE_TOKEN = "operator.token"
VIEW_TOKEN = "viewer.token"

READING = frozenset({"GET", "HEAD"})
"""What a viewer may do.  Any other verb counts as acting, also one that nobody has thought of."""


class Role(IntEnum):
    VIEW = 1
    OPERATE = 2


class Caller(NamedTuple):
    """
    Attributes:
        name: For the audit log: an identity, or which token.
        role: What it may do.
    """

    name: str
    role: Role


class Access:
    """
    Args:
        operate: Token of those who may act.
        view: Token of those who may ask.
        operators: SPIFFE IDs whose certificate is as good as the operator's token.
        viewers: The same for viewers.
        revoked: Identities whose certificate proves nothing any more.
    """

    def __init__(
        self,
        *,
        operate: str,
        view: str,
        operators: Collection[str] = (),
        viewers: Collection[str] = (),
        revoked: Container[SpiffeId] = (),
    ) -> None:
        self._tokens = (
            (operate.encode(), Caller("the operator's token", Role.OPERATE)),
            (view.encode(), Caller("the viewer's token", Role.VIEW)),
        )
        self._roles = {
            **dict.fromkeys(viewers, Role.VIEW),
            **dict.fromkeys(operators, Role.OPERATE),
        }
        self._revoked = revoked

    def of(self, authorization: str | None, certified: SpiffeId | None) -> Caller | None:
        """
        Return who is asking, or None for nobody that we know.

        Args:
            authorization: The header's value; where there is one, it alone counts.
            certified: The identity that the client certificate proves.
        """
        if authorization is not None:
            scheme, _space, token = authorization.partition(" ")
            return self._of_token(token.strip()) if scheme.lower() == "bearer" else None
        if certified is None or certified in self._revoked:
            return None
        role = self._roles.get(str(certified))
        return None if role is None else Caller(str(certified), role)

    def _of_token(self, shown: str) -> Caller | None:
        data = shown.encode(errors="replace")
        found = None
        for token, caller in self._tokens:  # all of them, whichever it is: time tells nothing
            if hmac.compare_digest(data, token):
                found = caller
        return found


def token(path: Path) -> str:
    """
    Return the token in a file, made at first start.

    Raises:
        PrivateFileError: It cannot be read or written, others can read it, or it holds none.
    """
    data = private_file.read(path)
    if data is None:
        data = secrets.token_urlsafe(32).encode()
        private_file.write(path, data)
    found = data.decode("ascii", "replace").strip()
    if len(found) < _SHORTEST:
        raise private_file.PrivateFileError(
            f"{path}: expected a token of at least {_SHORTEST} characters; remove the file, and"
            " another one is made"
        )
    return found


_SHORTEST = 16
"""Characters.  An empty file must not open the door to an empty token."""
