import json

import pytest
from joserfc.jwk import ECKey, OctKey

from control_plane.resources.request_authentication import problem_of_key_set
from control_plane.resources.route import MAX_ITEMS
from tests.helpers.mesh import messages, security

EC = ECKey.generate_key("P-256", {"kid": "1"})
KEYS = json.dumps({"keys": [EC.as_dict(private=False)]})
ISSUER = "issuer: https://id.example"


def found(rules: str) -> list[str]:
    prefix = "f.yaml:5: RequestAuthentication/default/p: spec.jwtRules"
    text = security("RequestAuthentication", f"jwtRules: [{rules}]")
    return [one.removeprefix(prefix) for one in messages(text)]


@pytest.mark.parametrize(
    "rule",
    [
        f"jwks: '{KEYS}'",
        "jwksFile: keys.json",
        "jwksUri: https://id.example/keys.json",
        "jwksUri: https://id.example:8443/keys?set=1",
        "jwksUri: http://127.0.0.1:8080/keys",
        "jwksUri: 'http://[::1]/keys'",
        "jwksFile: k, audiences: [shop], leeway: 0s, forwardOriginalToken: true",
        "jwksFile: k, fromHeaders: [{name: x-token}, {name: Authorization, prefix: 'Bearer '}]",
        "jwksFile: k, fromParams: [token], outputClaimToHeaders: [{header: x-user, claim: sub}]",
    ],
)
def test_accepted(rule: str) -> None:
    """Keys from the policy, a file or an address; tokens from wherever they are."""
    assert found(f"{{{ISSUER}, {rule}}}") == []


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("", "[0]: has none of them, expected one of jwks, jwksFile, jwksUri"),
        (
            "jwksFile: k, jwksUri: 'https://id.example/k'",
            "[0]: has jwksFile and jwksUri, expected one of jwks, jwksFile, jwksUri",
        ),
        ("jwks: x", "[0].jwks: expected a JSON Web Key Set: {'keys': [ … ]}"),
        ("jwks: '{\"keys\": []}'", "[0].jwks: has no key for RS, PS, ES or EdDSA signatures"),
        *(
            (f"jwksUri: {address}", f'[0].jwksUri: "{address}" {reason}')
            for address, reason in (
                (
                    "file:///etc/passwd",
                    "is no URL of the web, expected such as https://id.example/",
                ),
                ("id.example/keys", "is no URL of the web"),
                ("https:///keys", "is no URL of the web"),
                ("https://id.example:0/k", "is no URL of the web"),
                ("https://id.example:99999/k", "is no URL: "),
                ("http://id.example/keys", "is not encrypted: who is between could be any issuer"),
                ("http://127.0.0.1.nip.io/keys", "is not encrypted"),
                ("https://me@id.example/keys", "has a user or a fragment, expected such as"),
                ("https://id.example/keys#1", "has a user or a fragment"),
            )
        ),
        (
            "jwksFile: k, fromHeaders: [{name: a b}]",
            '[0].fromHeaders[0].name: "a b" is not a header',
        ),
        ("jwksFile: k, fromHeaders: [{}]", "[0].fromHeaders[0].name: is missing"),
        (
            "jwksFile: k, outputClaimToHeaders: [{header: 'a:', claim: sub}]",
            '[0].outputClaimToHeaders[0].header: "a:" is not a header',
        ),
        (
            "jwksFile: k, outputClaimToHeaders: [{header: content-length, claim: sub}]",
            "[0].outputClaimToHeaders[0].header: content-length is the proxy's own to write",
        ),
        (
            "jwksFile: k, outputClaimToHeaders: [{header: a, claim: ''}]",
            "[0].outputClaimToHeaders[0].claim: is empty, expected the name of a claim",
        ),
        ("jwksFile: k, leeway: soon", '[0].leeway: "soon" is not a duration'),
        ("jwksFile: k, timeout: 5s", "[0].timeout: unknown field"),
    ],
)
def test_refused(rule: str, expected: str) -> None:
    """Each is one finding, with its field; secrets of a key set are not repeated."""
    (only,) = found(f"{{{ISSUER}, {rule}}}")
    assert only.startswith(expected)


def test_issuers() -> None:
    """At least one, each once, none without a name."""
    (none,) = found("")
    assert none == ": is empty, expected at least one issuer"
    (twice,) = found(f"{{{ISSUER}, jwksFile: a}}, {{{ISSUER}, jwksFile: b}}")
    assert twice == '[1].issuer: "https://id.example" is also that of jwtRules[0]'
    (empty,) = found("{issuer: '', jwksFile: a}")
    assert empty == "[0].issuer: is empty, expected the `iss` of its tokens"
    many = ", ".join(f"{{issuer: i{number}, jwksFile: k}}" for number in range(MAX_ITEMS + 1))
    (more,) = found(many)
    assert str(MAX_ITEMS) in more


def test_a_key_set() -> None:
    """What a proxy would refuse, in its own words, with the place in the set."""
    assert problem_of_key_set(KEYS) is None
    private = json.dumps({"keys": [EC.as_dict(private=True)]})
    assert problem_of_key_set(private) == "keys[0] is a private key; the issuer alone may have that"
    secret = json.dumps({"keys": [OctKey.import_key("secret-of-many-letters").as_dict()]})
    assert problem_of_key_set(secret) == "has no key for RS, PS, ES or EdDSA signatures"
    wrong = json.dumps({"keys": [{**EC.as_dict(private=False), "alg": "RS256"}]})
    assert (problem_of_key_set(wrong) or "").startswith("keys[0].alg 'RS256' does not go with")
    assert problem_of_key_set("[]") is not None
