"""The specs of request authentication: whose JSON Web Tokens an end user may come with."""

from .spec import Milliseconds, Name, Spec


class ClaimHeaderSpec(Spec, frozen=True, kw_only=True):
    """A header that tells the app a claim; what a client sends under that name is removed."""

    header: Name
    claim: Name


class JwtSpec(Spec, frozen=True, kw_only=True):
    """
    One issuer of tokens (kind RequestAuthentication, `jwtRules[]`).

    Attributes:
        issuer: Value of `iss`, compared as it stands.
        audiences: Of which `aud` must name one; empty to ask for none.
        keys: A JSON Web Key Set (RFC 7517) of public keys; empty while they are not known.
        headers: Where the token is, after a prefix (``Authorization: Bearer …`` when empty).
        params: Query parameters that may hold it.
        forward: Let the app see the token.
        claim_headers: What the app is told of it.
        leeway: Milliseconds that clocks may differ.
    """

    name: Name
    issuer: Name
    audiences: tuple[str, ...] = ()
    keys: str
    headers: tuple["TokenHeaderSpec", ...] = ()
    params: tuple[str, ...] = ()
    forward: bool = False
    claim_headers: tuple[ClaimHeaderSpec, ...] = ()
    leeway: Milliseconds = 60_000


class TokenHeaderSpec(Spec, frozen=True, kw_only=True):
    """Attributes: prefix: What stands before the token, such as ``Bearer`` and a space."""

    name: Name
    prefix: str = ""
