"""Tokens: what proves something, what does not, and that nothing else gets through."""

import base64
import hmac
import json
import subprocess
import sys
import warnings
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from meshproxy.contract.authentication import ClaimHeaderSpec, JwtSpec, TokenHeaderSpec
from meshproxy.contract.wire import ContractError
from meshproxy.message import RequestHead, field, value_of
from meshproxy.policies.jwt import REMEMBERED, InvalidToken, Jwt

NOW = 1_800_000_000.0
RSA = RSAKey.generate_key(2048, {"kid": "r1"})
PS = RSAKey.generate_key(2048, {"kid": "p1", "alg": "PS256"})
EC = ECKey.generate_key("P-256", {"kid": "e1"})
ED = OKPKey.generate_key("Ed25519", {"kid": "d1"})
STRANGER = RSAKey.generate_key(2048, {"kid": "r1"})
KEYS = (RSA, PS, EC, ED)
CLAIMS = {"iss": "https://id.example", "sub": "alice", "aud": "shop", "exp": NOW + 60}


def key_set(*keys: Key) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def issuer(**options: Any) -> JwtSpec:
    options = {"keys": key_set(*KEYS), "audiences": ("shop",), **options}
    return JwtSpec(name="shop/users", issuer="https://id.example", **options)


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(key: Any, header: dict[str, Any], payload: Any = None) -> str:
    body = json.dumps(CLAIMS if payload is None else payload)
    return sign(key, header, body.encode())


def sign(key: Any, header: dict[str, Any], payload: bytes) -> str:
    registry = jws.JWSRegistry(algorithms=[header["alg"]], strict_check_header=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.serialize_compact(header, payload, key, registry=registry)


def ask(token: str | bytes | None, *fields: tuple[str, str], path: str = "/") -> RequestHead:
    made = [field(name.encode(), value.encode()) for name, value in fields]
    if token is not None:
        raw = token.encode() if isinstance(token, str) else token
        made.append(field(b"Authorization", b"Bearer " + raw))
    return RequestHead(b"GET", b"shop", path.encode(), made)


GOOD = {
    "RS256": signed(RSA, {"alg": "RS256", "kid": "r1"}),
    "PS256": signed(PS, {"alg": "PS256", "kid": "p1"}),
    "ES256": signed(EC, {"alg": "ES256", "kid": "e1"}),
    "EdDSA": signed(ED, {"alg": "EdDSA", "kid": "d1"}),
    "no kid": signed(RSA, {"alg": "RS256"}),
    "Ed25519": signed(ED, {"alg": "Ed25519", "kid": "d1"}),
    "another typ": signed(EC, {"alg": "ES256", "kid": "e1", "typ": "at+jwt"}),
}


@pytest.mark.parametrize("name", GOOD)
def test_right_tokens_give_their_claims(name: str) -> None:
    """Signed by a key of the issuer, with that key's algorithm, for us, and in time."""
    claims = Jwt((issuer(),)).check(ask(GOOD[name]), NOW)
    assert claims == CLAIMS


def test_without_a_token_nothing_is_claimed() -> None:
    """That is no error: authorization decides what it is worth."""
    jwt = Jwt((issuer(),))
    assert jwt.check(ask(None), NOW) is None
    assert jwt.check(ask(None, ("Authorization", "Basic Zm9vOmJhcg==")), NOW) is None


PEM = RSA.as_pem(private=False)
DER = RSA.as_der(private=False)
EC_R_S_0 = ".".join([part({"alg": "ES256", "kid": "e1"}), part(CLAIMS), part(bytes(64))])
RS = {"alg": "RS256", "kid": "r1"}


def by_hmac(secret: bytes) -> str:
    """Return a token whose "secret" is what everybody knows; no library of ours would make it."""
    said = f"{part({'alg': 'HS256', 'kid': 'r1'})}.{part(CLAIMS)}"
    return f"{said}.{part(hmac.digest(secret, said.encode(), 'sha256'))}"


WRONG: dict[str, str | bytes] = {
    "none": f"{part({'alg': 'none'})}.{part(CLAIMS)}.",
    "None": f"{part({'alg': 'None', 'kid': 'r1'})}.{part(CLAIMS)}.",
    "no alg": f"{part({'kid': 'r1'})}.{part(CLAIMS)}.AAAA",
    "alg as a list": f"{part({'alg': ['RS256'], 'kid': 'r1'})}.{part(CLAIMS)}.AAAA",
    "HS256 with the public key as PEM": by_hmac(PEM),
    "HS256 with the public key as DER": by_hmac(DER),
    "HS256 with the public key as JWK": by_hmac(json.dumps(RSA.as_dict(private=False)).encode()),
    "HS256 with the key set": by_hmac(key_set(RSA).encode()),
    "HS256 with nothing": by_hmac(b""),
    "RS512 with a key for RS256": signed(RSA, {"alg": "RS512", "kid": "r1"}),
    "RS256 with a key for PS256": signed(RSAKey.import_key(PS.as_pem(private=True)), {"alg": "RS256", "kid": "p1"}),
    "signed by a stranger": signed(STRANGER, RS),
    "its own key": signed(STRANGER, {**RS, "jwk": STRANGER.as_dict(private=False)}),
    "a link to its own key": signed(STRANGER, {**RS, "jku": "https://evil.example/keys"}),
    "its own certificate": signed(STRANGER, {**RS, "x5u": "https://evil.example/c"}),
    "kid that is a path": signed(STRANGER, {"alg": "RS256", "kid": "../../dev/null"}),
    "kid that is SQL": signed(RSA, {"alg": "RS256", "kid": "' OR 1=1 --"}),
    "kid of another kind": f"{part({'alg': 'RS256', 'kid': 7})}.{part(CLAIMS)}.AAAA",
    "kid that is an object": f"{part({'alg': 'RS256', 'kid': {}})}.{part(CLAIMS)}.AAAA",
    "unknown crit": f"{part({**RS, 'crit': ['x']})}.{part(CLAIMS)}.{GOOD['RS256'].rpartition('.')[2]}",
    "empty crit": f"{part({**RS, 'crit': []})}.{part(CLAIMS)}.{GOOD['RS256'].rpartition('.')[2]}",
    "b64 false": f"{part({**RS, 'b64': False})}.{part(CLAIMS)}.{GOOD['RS256'].rpartition('.')[2]}",
    "ES256 r=s=0": EC_R_S_0,
    "another header over the same signature": f"{part({**RS, 'x': 1})}.{GOOD['RS256'].partition('.')[2]}",
    "another payload over the same signature": ".".join([GOOD["RS256"].split(".")[0], part({**CLAIMS, "sub": "root"}), GOOD["RS256"].split(".")[2]]),
    "no signature": GOOD["RS256"].rpartition(".")[0] + ".",
    "two parts": GOOD["RS256"].rpartition(".")[0],
    "five parts": GOOD["RS256"] + ".AAAA.AAAA",
    "padding": GOOD["RS256"] + "=",
    "standard base64": GOOD["RS256"].replace("_", "/").replace("-", "+") + "+",
    "nothing": "",
    "not base64": "a.b.c",
    "a header that is no object": f"{part([1])}.{part(CLAIMS)}.AAAA",
    "a payload that is no object": signed(RSA, RS, [CLAIMS]),
    "a deep payload": f"{part(RS)}.{part(b'[' * 9_000)}.AAAA",
    "a key twice": sign(RSA, RS, json.dumps(CLAIMS).replace('"sub"', '"sub": "x", "sub"').encode()),
    "NaN": sign(RSA, RS, json.dumps(CLAIMS).replace(str(NOW + 60), "NaN").encode()),
    "too long": GOOD["RS256"] + "A" * (1 << 20),
    "not UTF-8": b"\xff.\xfe.\xfd",
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tokens_prove_nothing(name: str) -> None:
    """Each is an attack that has worked somewhere, or a token that two readers would read apart."""
    jwt = Jwt((issuer(),))
    with pytest.raises(InvalidToken):
        jwt.check(ask(WRONG[name]), NOW)
    assert jwt.check(ask(GOOD["RS256"]), NOW) == CLAIMS  # and nothing has changed by it


@pytest.mark.parametrize(
    "change",
    [
        {"exp": None}, {"exp": "1"}, {"exp": True}, {"exp": -1}, {"exp": NOW - 61}, {"exp": 1e400}, {"exp": 10**400},
        {"nbf": NOW + 61}, {"nbf": "now"}, {"nbf": None}, {"iat": []}, {"aud": "other"}, {"aud": ["other", 7]}, {"aud": None},
        {"aud": {"shop": 1}}, {"iss": "HTTPS://id.example"}, {"iss": "https://id.example/"}, {"iss": None}, {"iss": ["https://id.example"]},
    ],
    ids=str,
)  # fmt: skip
def test_claims_that_are_not_right(change: dict[str, Any]) -> None:
    """Who, for whom, and when: all are asked, and a claim of the wrong kind is no claim."""
    payload = json.dumps({**CLAIMS, **change}).replace("Infinity", "1e400").encode()
    with pytest.raises(InvalidToken):
        Jwt((issuer(),)).check(ask(sign(RSA, RS, payload)), NOW)


@pytest.mark.parametrize("missing", ["exp", "iss", "aud"])
def test_claims_that_are_missing(missing: str) -> None:
    """A token for ever, of nobody, for everybody: none of them."""
    claims = {name: value for name, value in CLAIMS.items() if name != missing}
    with pytest.raises(InvalidToken):
        Jwt((issuer(),)).check(ask(signed(RSA, RS, claims)), NOW)


def test_time_passes_for_remembered_tokens_too() -> None:
    """What was right a minute ago is asked again each time."""
    jwt = Jwt((issuer(leeway=0),))
    head = ask(GOOD["RS256"])
    assert jwt.check(ask(GOOD["RS256"]), NOW) == CLAIMS
    assert jwt.check(head, NOW + 59) == CLAIMS
    with pytest.raises(InvalidToken, match="expired"):
        jwt.check(ask(GOOD["RS256"]), NOW + 60)


def test_clocks_may_differ_a_little() -> None:
    """By the leeway, to both sides."""
    early = signed(RSA, RS, {**CLAIMS, "nbf": NOW + 10})
    assert Jwt((issuer(),)).check(ask(early), NOW) is not None
    assert Jwt((issuer(),)).check(ask(GOOD["RS256"]), NOW + 110) is not None
    with pytest.raises(InvalidToken, match="not valid yet"):
        Jwt((issuer(leeway=9_000),)).check(ask(early), NOW)


def test_what_is_remembered_is_bounded() -> None:
    """Wrong ones are not remembered at all: they cost the client more than us."""
    jwt = Jwt((issuer(),))
    for number in range(3):
        with pytest.raises(InvalidToken):
            jwt.check(ask(f"{number}.{number}.{number}"), NOW)
    assert len(jwt._remembered) == 0
    jwt.check(ask(GOOD["ES256"]), NOW)
    entry = jwt._remembered[GOOD["ES256"].encode()]
    jwt._remembered.update({b"%d" % number: entry for number in range(REMEMBERED - 1)})
    jwt.check(ask(GOOD["RS256"]), NOW)
    assert len(jwt._remembered) == 1


# Where it is, and what the app sees of it ---------------------------------------------------------


def test_several_tokens_are_none() -> None:
    """The app might read the one that we did not check."""
    head = ask(GOOD["RS256"], ("Authorization", f"Bearer {GOOD['ES256']}"))
    with pytest.raises(InvalidToken, match="several"):
        Jwt((issuer(),)).check(head, NOW)


def test_other_places() -> None:
    """Only those that were said, and then not Authorization."""
    jwt = Jwt((issuer(headers=(TokenHeaderSpec(name="X-Token", prefix="Token "),), params=("t",)),))
    token = GOOD["EdDSA"]
    assert jwt.check(ask(None, ("x-token", f"Token {token}")), NOW) == CLAIMS
    assert jwt.check(ask(None, path=f"/?a=b&t={token}"), NOW) == CLAIMS
    assert jwt.check(ask(token), NOW) is None
    assert jwt.check(ask(None, ("x-token", token)), NOW) is None


def test_the_app_sees_the_token_only_if_it_shall() -> None:
    """`forward` is off by default: a token that was leaked cannot be used again."""
    for forward in (False, True):
        head = ask(GOOD["RS256"], ("Accept", "*/*"))
        Jwt((issuer(forward=forward),)).check(head, NOW)
        assert (value_of(head.fields, b"authorization") is not None) is forward
        assert value_of(head.fields, b"accept") == b"*/*"


def test_the_app_is_told_claims() -> None:
    """Under names that nobody else can use, and with nothing in them that could end a line."""
    told = (
        ClaimHeaderSpec(header="X-User", claim="sub"),
        ClaimHeaderSpec(header="X-Roles", claim="realm.roles"),
        ClaimHeaderSpec(header="X-None", claim="none"),
    )
    jwt = Jwt((issuer(claim_headers=told),))
    claims = {**CLAIMS, "sub": "a\r\nx-admin: 1%\u20ac", "realm": {"roles": ["a", "b"]}}
    head = ask(signed(RSA, RS, claims), ("x-user", "root"), ("X-Roles", "root"), ("X-None", "root"))
    jwt.check(head, NOW)
    assert value_of(head.fields, b"x-user") == b"a%0D%0Ax-admin: 1%25%E2%82%AC"
    assert value_of(head.fields, b"x-roles") == b'["a","b"]'
    assert value_of(head.fields, b"x-none") is None
    nobody = ask(None, ("x-user", "root"))
    assert jwt.check(nobody, NOW) is None
    assert value_of(nobody.fields, b"x-user") is None


def test_issuers_are_told_apart() -> None:
    """Each has its own keys: one cannot sign for the other."""
    other = JwtSpec(name="o", issuer="https://other.example", keys=key_set(STRANGER))
    jwt = Jwt((issuer(keys=key_set(RSA)), other))
    theirs = {"iss": "https://other.example", "exp": NOW + 9}
    assert jwt.check(ask(signed(STRANGER, RS, theirs)), NOW) == theirs
    with pytest.raises(InvalidToken):
        jwt.check(ask(signed(STRANGER, RS)), NOW)
    with pytest.raises(InvalidToken):
        jwt.check(ask(signed(RSA, RS, theirs)), NOW)


# Key sets -----------------------------------------------------------------------------------------


SHORT = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
SHORT_KEY = {"kty": "RSA", "e": "AQAB", "n": part(SHORT.n.to_bytes(128, "big"))}


def public(key: Key, **change: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **change}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("{}", "expected a JSON Web Key Set"),
        ("[", "expected a JSON Web Key Set"),
        ('{"keys": 1}', "expected a JSON Web Key Set"),
        ('{"keys": []}', "has no key"),
        ('{"keys": [1]}', r"keys\[0\]: expected an object"),
        (json.dumps({"keys": [OctKey.generate_key(256).as_dict()]}), "has no key"),
        (json.dumps({"keys": [RSA.as_dict(private=True)]}), "is a private key"),
        (json.dumps({"keys": [public(RSA, use="enc")]}), "has no key"),
        (json.dumps({"keys": [public(RSA, alg="HS256")]}), "'HS256' does not go with"),
        (json.dumps({"keys": [public(EC, alg="ES384")]}), "'ES384' does not go with"),
        (json.dumps({"keys": [public(EC, x="AAAA")]}), "is no valid key"),
        (json.dumps({"keys": [SHORT_KEY]}), "less than 2048"),
    ],
    ids=lambda text: "keys" if text.startswith(("{", "[")) else text,
)  # fmt: skip
def test_key_sets_that_prove_nothing_are_refused(keys: str, reason: str) -> None:
    """When the policy comes, not when the first token does."""
    with pytest.raises(ContractError, match=reason):
        Jwt((issuer(keys=keys),), "jwt")


def test_keys_of_unknown_kinds_are_no_error() -> None:
    """RFC 7517 section 5: an issuer may have keys that we do not know, beside those that we do."""
    keys = json.dumps({"keys": [{"kty": "PQ", "x": 1}, public(RSA)]})
    assert Jwt((issuer(keys=keys),)).check(ask(GOOD["RS256"]), NOW) == CLAIMS


def test_an_issuer_is_given_once() -> None:
    """Which of two would be believed?"""
    with pytest.raises(ContractError, match=r"jwt\[1\].issuer: .* is given twice"):
        Jwt((issuer(), issuer()), "jwt")


# Whatever comes -----------------------------------------------------------------------------------


TEXT = st.text('ABab01-_.=+/{}\\"é', max_size=60)


@given(
    st.one_of(st.binary(max_size=80), TEXT.map(str.encode)),
    st.sampled_from(["raw", "header", "payload"]),
)
def test_any_bytes_are_refused_in_peace(noise: bytes, place: str) -> None:
    """Never another exception than the one that makes a 401."""
    made = {
        "raw": noise or b"x",
        "header": f"{part(noise)}.{part(CLAIMS)}.AAAA".encode(),
        "payload": f"{part(RS)}.{part(noise)}.AAAA".encode(),
    }
    with pytest.raises(InvalidToken):
        Jwt((issuer(),)).check(ask(made[place]), NOW)


def test_the_libraries_are_loaded_only_when_needed() -> None:
    """A sidecar without tokens does not pay for them in memory."""
    program = (
        "import sys\n"
        "from meshproxy.policies.jwt import Jwt\n"
        "Jwt(())\n"
        "assert not {'joserfc', 'cryptography'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# Found by attacking it -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-User", "x_user", "X_USER"])
@pytest.mark.parametrize("token", [None, GOOD["ES256"]])
def test_nobody_tells_the_app_who_the_user_is_but_us(name: str, token: str | None) -> None:
    """Nor with a name that CGI-style servers (WSGI, PHP) cannot tell from ours."""
    told = issuer(claim_headers=(ClaimHeaderSpec(header="X-User", claim="sub"),))
    head = ask(token, (name, "root"))
    Jwt((told,)).check(head, NOW)
    values = [one[1] for one in head.fields if one[0].replace(b"_", b"-") == b"x-user"]
    assert values == ([] if token is None else [b"alice"])


def test_white_space_hides_no_token() -> None:
    """A server that splits at any white space would read what nobody has checked."""
    head = ask(None, ("Authorization", "Bearer\t" + WRONG_SIGNATURE))
    with pytest.raises(InvalidToken):
        Jwt((issuer(),)).check(head, NOW)


WRONG_SIGNATURE = signed(STRANGER, {"alg": "RS256", "kid": "r1"})


def test_an_issuer_speaks_for_no_other() -> None:
    """Users are known as issuer/subject; where one issuer's name begins with another's, both count."""
    staff = msgspec.structs.replace(issuer(), issuer="https://id.example/staff")
    both = Jwt((issuer(), staff))
    posing = signed(EC, {"alg": "ES256", "kid": "e1"}, {**CLAIMS, "sub": "staff/ann"})
    with pytest.raises(InvalidToken, match="another issuer"):
        both.check(ask(posing), NOW)
    assert Jwt((issuer(),)).check(ask(posing), NOW) is not None
    right = {**CLAIMS, "iss": "https://id.example/staff", "sub": "ann"}
    assert both.check(ask(signed(EC, {"alg": "ES256", "kid": "e1"}, right)), NOW) == right


@pytest.mark.parametrize(
    "header",
    ["Content-Length", "Transfer-Encoding", "Host", "Connection", "X-Mesh-Peer",
     "x-forwarded-client-cert", "a b"],
)  # fmt: skip
def test_claims_are_told_in_fields_of_their_own(header: str) -> None:
    """What a user's token says must neither frame the message nor say who called."""
    told = issuer(claim_headers=(ClaimHeaderSpec(header=header, claim="sub"),))
    with pytest.raises(ContractError, match=r"claim_headers\[0\]\.header"):
        Jwt((told,))


def test_a_key_that_is_slow_to_check_is_refused() -> None:
    """An exponent of 3,071 bits costs two hundred times as much with each token, right or wrong."""
    slow = {**RSA.as_dict(private=False), "e": part(b"\x01" + bytes(254) + b"\x01")}
    with pytest.raises(ContractError, match="exponent"):
        Jwt((issuer(keys=json.dumps({"keys": [slow]})),))


@pytest.mark.parametrize("name", ["x-jwt-assertion", "x_jwt_assertion", "X-Jwt_Assertion"])
@pytest.mark.parametrize("configured", ["X-Jwt-Assertion", "x_jwt_assertion"])
def test_underscores_hide_no_token(name: str, configured: str) -> None:
    """To CGI-style servers both are one field: what they would believe is checked."""
    jwt = Jwt((issuer(headers=(TokenHeaderSpec(name=configured),)),))
    assert jwt.check(ask(None, (name, GOOD["ES256"])), NOW) == CLAIMS
    with pytest.raises(InvalidToken):
        jwt.check(ask(None, (name, WRONG_SIGNATURE)), NOW)
    both = (("x-jwt-assertion", GOOD["ES256"]), ("x_jwt_assertion", WRONG_SIGNATURE))
    with pytest.raises(InvalidToken, match="several"):
        jwt.check(ask(None, *both), NOW)


def test_no_separator_of_parameters_hides_a_token() -> None:
    """`;` is one to some servers."""
    jwt = Jwt((issuer(params=("access_token",)),))
    for between in ("&", ";"):
        path = f"/?a=b{between}access_token="
        assert jwt.check(ask(None, path=path + GOOD["ES256"]), NOW) == CLAIMS
        with pytest.raises(InvalidToken):
            jwt.check(ask(None, path=path + WRONG_SIGNATURE), NOW)
