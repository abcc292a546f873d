"""
JSON Web Tokens: who the end user is, on the word of an issuer that we were told to believe.

Theory of operation
===================

A request without a token passes and claims nothing; authorization decides what that is worth.  A
request with one passes only if the token is right, and then its claims are facts.

A token chooses nothing about how it is checked.  Its `alg` must be the one algorithm of the key that
it names (the key's own `alg`, or what its type implies), so neither ``none`` nor an HMAC made with a
public key ever comes to a signature check.  Keys come from the configuration alone: `jwk`, `jku` and
`x5u` in a token are not looked at, `crit` and `b64` are refused (RFC 8725, RFC 7515 section 4.1.11).
JSON with a key twice is refused, since two readers would read two tokens.  `exp` is required.

Signatures are checked by joserfc and cryptography.  They are loaded when a snapshot holds an issuer,
not before: a sidecar without tokens keeps their 15 MB.  A token that was right is remembered until it
expires, and so are a bounded number of others: a browser sends the same one with every request.

Called from: `Exchange.on_request_head`; compiled by `config/snapshot.py`.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import Field, RequestHead, field
from meshproxy.routing import writable

if TYPE_CHECKING:
    from joserfc.jwk import Key

LONGEST: Final = 16 << 10
"""Bytes of a token; more than any header line that we accept would be useless."""

REMEMBERED: Final = 1024
_END_OF_TIME: Final = 1 << 53

_ED25519: Final = frozenset({"EdDSA", "Ed25519"})
_ALGORITHMS: Final[Mapping[str, frozenset[str]]] = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "EC": frozenset({"ES256", "ES384", "ES512"}),
    "OKP": _ED25519,
}
_OF_CURVE: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_SMALLEST_RSA: Final = 2048
_LARGEST_EXPONENT: Final = (1 << 32) - 1
"""Usual is 65537; a check costs in proportion to its bits, so an issuer could make each one slow."""

Claims = Mapping[str, Any]


class InvalidToken(ValueError):  # noqa: N818 - a fact about the request
    """A token that proves nothing; says why, for the log, and nothing of its contents."""


class Jwt:
    """The issuers that one port believes."""

    __slots__ = ("_by_issuer", "_headers", "_params", "_remembered", "_told")

    def __init__(self, specs: Sequence[JwtSpec], where: str = "") -> None:
        """
        Raises:
            ContractError: A key set is not one, two entries are of one issuer, or a claim is to be
                told in a field that is not theirs.
        """
        self._by_issuer: dict[str, _Issuer] = {}
        self._headers: dict[bytes, tuple[bytes, ...]] = {}
        self._params: set[bytes] = set()
        self._remembered: dict[bytes, tuple[_Issuer, Claims]] = {}
        self._told: set[bytes] = set()
        for index, spec in enumerate(specs):
            here = f"{where}[{index}]"
            if spec.issuer in self._by_issuer:
                raise ContractError(f"{here}.issuer", f"{spec.issuer!r} is given twice")
            for number, told in enumerate(spec.claim_headers):
                # A claim that frames the message, or says who called, would be an end user's word.
                if wrong := writable.wrong_name(told.header):
                    raise ContractError(f"{here}.claim_headers[{number}].header", wrong)
            issuer = _Issuer(spec, here)
            self._by_issuer[spec.issuer] = issuer
            places = [(one.name.lower().encode(), one.prefix.encode()) for one in spec.headers]
            if not places and not spec.params:
                places = [(b"authorization", b"Bearer ")]
            for name, prefix in places:
                name = name.replace(b"_", b"-")
                known = self._headers.get(name, ())
                if prefix not in known:
                    self._headers[name] = (*known, prefix)
            self._params.update(param.encode() for param in spec.params)
            self._told.update(name.replace(b"_", b"-") for name, _ in issuer.told)

    def check(self, head: RequestHead, now: float) -> Claims | None:
        """
        Return the claims of the request's token, or None when it has none.

        What the app is to see of it is put into the head's fields, and what it is not to see is
        taken out.

        Args:
            head: As sent.
            now: Seconds since 1970, by the clock on the wall.

        Raises:
            InvalidToken: It has one that does not prove anything, or several.
        """
        if self._told:
            # CGI-style servers fold `_` into `-`: there `x_user` would speak for `x-user`.
            head.fields = [
                one for one in head.fields if one[0].replace(b"_", b"-") not in self._told
            ]
        found = self._find(head)
        if not found:
            return None
        token, *others = {token for token, _ in found}
        if others:
            raise InvalidToken("the request has several tokens")
        issuer, claims = self._verified(token, now)
        if not issuer.spec.forward:
            taken = {id(one) for _, one in found if one is not None}
            head.fields = [one for one in head.fields if id(one) not in taken]
        for name, path in issuer.told:
            value = _value_of(claims, path)
            if value is not None:
                head.fields.append(field(name, value))
        return claims

    # Where the token is ---------------------------------------------------------------------------

    def _find(self, head: RequestHead) -> list[tuple[bytes, Field | None]]:
        found: list[tuple[bytes, Field | None]] = []
        for one in head.fields:
            # CGI-style servers fold `_` into `-`: what they take for the field is it.
            for prefix in self._headers.get(one[0].replace(b"_", b"-"), ()):
                # Between scheme and token some servers take any white space.
                value = one[1].replace(b"\t", b" ")
                # The scheme of Authorization is case-insensitive (RFC 9110 section 11.1).
                if value[: len(prefix)].lower() == prefix.lower():
                    found.append((value[len(prefix) :].strip(), one))
                    break
        if self._params and b"?" in head.path:
            # Some servers take `;` for `&`, as HTML 4 advised them to.
            for pair in head.path.partition(b"?")[2].replace(b";", b"&").split(b"&"):
                name, _, value = pair.partition(b"=")
                if name in self._params or unquote_to_bytes(name) in self._params:
                    found.append((unquote_to_bytes(value), None))
        return found

    # Whether it is right --------------------------------------------------------------------------

    def _verified(self, token: bytes, now: float) -> "tuple[_Issuer, Claims]":
        remembered = self._remembered.get(token)
        if remembered is None:
            if len(token) > LONGEST:
                raise InvalidToken("the token is too long")
            remembered = self._verify(token)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()  # starting over costs less than keeping count of use
            self._remembered[token] = remembered
        issuer, claims = remembered
        leeway = issuer.spec.leeway / 1000
        if now >= claims["exp"] + leeway:
            raise InvalidToken("the token has expired")
        if now < claims.get("nbf", 0) - leeway:
            raise InvalidToken("the token is not valid yet")
        return remembered

    def _verify(self, token: bytes) -> "tuple[_Issuer, Claims]":
        parts = token.split(b".")
        if len(parts) != 3:
            raise InvalidToken("the token is not a signed JWT in compact form")
        header = _object(parts[0], "header")
        if "crit" in header or "b64" in header:
            raise InvalidToken("the token asks for an extension")
        claims = _object(parts[1], "payload")
        issuer = self._by_issuer.get(claims.get("iss", None) or "") if _is_text(claims) else None
        if issuer is None:
            raise InvalidToken("the token is of an unknown issuer")
        issuer.verify(token, header)
        issuer.check(claims)
        self._check_subject(issuer.spec.issuer, claims)
        return issuer, claims

    def _check_subject(self, issuer: str, claims: Claims) -> None:
        """
        Refuse a subject with which a token would speak for another issuer.

        Policies know users as ``issuer/subject``: of ``https://id.example``, ``staff/ann`` would be
        ``ann`` of ``https://id.example/staff``.
        """
        subject = f"{issuer}/{claims.get('sub', '')}"
        for other in self._by_issuer:
            if len(other) > len(issuer) and subject.startswith(f"{other}/"):
                raise InvalidToken("the token's subject names another issuer")


def _is_text(claims: Claims) -> bool:
    return isinstance(claims.get("iss"), str)


def _object(part: bytes, what: str) -> dict[str, Any]:
    import json
    from base64 import urlsafe_b64decode

    try:
        text = urlsafe_b64decode(part + b"=" * (-len(part) % 4))
        if b"=" in part or len(part) % 4 == 1 or b"+" in part or b"/" in part:
            raise ValueError("not base64url")
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidToken(f"the token's {what} is not base64url of JSON") from error
    if not isinstance(found, dict):
        raise InvalidToken(f"the token's {what} is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


# Issuers ------------------------------------------------------------------------------------------


class _PinnedKey(NamedTuple):
    kid: str | None
    algorithms: frozenset[str]  # one, under all its names
    key: "Key"


class _Issuer:
    """
    Attributes:
        told: Header and claim path of what the app is told.
    """

    def __init__(self, spec: JwtSpec, where: str) -> None:
        self.spec = spec
        self.told = tuple(
            (one.header.lower().encode(), tuple(one.claim.split("."))) for one in spec.claim_headers
        )
        self._keys = _keys(spec.keys, f"{where}.keys")

    def verify(self, token: bytes, header: Mapping[str, Any]) -> None:
        """
        Check the signature.

        Raises:
            InvalidToken: No key of the issuer has made it.
        """
        from joserfc.errors import JoseError, SecurityWarning
        from joserfc.jws import JWSRegistry, deserialize_compact

        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(algorithm, str):
            raise InvalidToken("the token names no algorithm")
        registry = JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        for pinned in self._keys:
            if algorithm not in pinned.algorithms:
                continue
            if kid is not None and pinned.kid not in (kid, None):
                continue
            with warnings.catch_warnings(), suppress(JoseError, ValueError):
                # RFC 9864 has given EdDSA a new name; issuers go on using the old one.
                warnings.simplefilter("ignore", SecurityWarning)
                deserialize_compact(token, pinned.key, registry=registry)
                return
            # Keys without a name are tried one after the other.
        raise InvalidToken("no key of the issuer has signed the token")

    def check(self, claims: Claims) -> None:
        """
        Check what does not depend on the time.

        Raises:
            InvalidToken: A claim is missing or of the wrong kind, or the token is for others.
        """
        for name in ("exp", "nbf", "iat"):
            value = claims.get(name)
            if value is None and name != "exp" and name not in claims:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < _END_OF_TIME:  # type: ignore[operator]  # nor is NaN
                raise InvalidToken(f"the token's {name!r} is missing or no time")
        audience = claims.get("aud", ())
        named = {audience} if isinstance(audience, str) else set()
        if isinstance(audience, list):
            named = {one for one in audience if isinstance(one, str)}
        if self.spec.audiences and not named & set(self.spec.audiences):
            raise InvalidToken("the token is for another audience")


def _keys(text: str, where: str) -> tuple[_PinnedKey, ...]:
    if not text:
        return ()  # not known yet: nothing that the issuer has signed can be right
    import json

    try:
        listed = json.loads(text)["keys"]
        if not isinstance(listed, list):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ContractError(where, "expected a JSON Web Key Set: {'keys': [ … ]}") from None
    found = [_key(entry, f"{where} keys[{index}]") for index, entry in enumerate(listed)]
    keys = tuple(key for key in found if key is not None)
    if not keys:
        raise ContractError(where, "has no key for RS, PS, ES or EdDSA signatures")
    return keys


def _key(entry: Any, where: str) -> _PinnedKey | None:
    """Return a key with its algorithm; None if it is for other things than our signatures."""
    from joserfc.errors import JoseError, SecurityWarning
    from joserfc.jwk import import_key

    if not isinstance(entry, dict):
        raise ContractError(where, "expected an object")
    if entry.get("use", "sig") != "sig":
        return None
    algorithm = _algorithm(entry, where)
    if algorithm is None:  # RFC 7517 section 5 wants kinds ignored that are not understood
        return None
    if "d" in entry:
        raise ContractError(where, "is a private key; the issuer alone may have that")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SecurityWarning)  # what is too short is refused below
            key = import_key(entry)
    except (JoseError, ValueError, TypeError) as error:
        raise ContractError(where, f"is no valid key: {error}") from None
    if entry["kty"] == "RSA" and key.public_key.key_size < _SMALLEST_RSA:  # type: ignore[union-attr]
        raise ContractError(where, f"RSA keys of less than {_SMALLEST_RSA} bits prove nothing")
    if entry["kty"] == "RSA" and key.public_key.public_numbers().e > _LARGEST_EXPONENT:  # type: ignore[union-attr]
        raise ContractError(where, "an RSA key's exponent of more than 32 bits is nobody's")
    kid = entry.get("kid")
    names = _ED25519 if algorithm in _ED25519 else frozenset({algorithm})
    return _PinnedKey(kid if isinstance(kid, str) else None, names, key)


def _algorithm(entry: Mapping[str, Any], where: str) -> str | None:
    """Return the one algorithm of a key; None for kinds of keys that are not used for tokens."""
    kind, curve = str(entry.get("kty")), str(entry.get("crv"))
    if kind not in _ALGORITHMS:
        return None  # `oct` among them: a secret shared with the issuer could sign for it
    implied = {"RSA": "RS256", "EC": _OF_CURVE.get(curve), "OKP": "EdDSA"}[kind]
    if kind == "OKP" and curve != "Ed25519":
        return None
    given = entry.get("alg", implied)
    if given is None:
        return None
    if given not in _ALGORITHMS[kind] or (kind == "EC" and given != implied):
        raise ContractError(f"{where}.alg", f"{given!r} does not go with a key of type {kind}")
    return str(given)


def _as_json(found: Any) -> str:
    import json

    return json.dumps(found, separators=(",", ":"))


def _value_of(claims: Claims, path: tuple[str, ...]) -> bytes | None:
    found: Any = claims.get(".".join(path))  # names with dots are usual: https://shop.example/role
    if found is None:
        found = claims
        for key in path:
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
    text = found if isinstance(found, str) else _as_json(found)
    # What cannot stand in a header is escaped: a claim could bring a header of its own.
    return (
        "".join(
            one
            if " " <= one <= "~" and one != "%"
            else "".join(f"%{byte:02X}" for byte in one.encode(errors="replace"))
            for one in text
        )
        .strip()
        .encode()
    )
