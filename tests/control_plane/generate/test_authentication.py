import json

from joserfc.jwk import ECKey

from control_plane.generate.authentication import KeySets, authentication
from control_plane.resources.model import DEFAULT_MESH
from meshproxy.contract.authentication import ClaimHeaderSpec, JwtSpec, TokenHeaderSpec
from tests.helpers.mesh import security, state, workload

KEYS = json.dumps({"keys": [ECKey.generate_key("P-256", {"kid": "1"}).as_dict(private=False)]})
OLD = ", creationTimestamp: '2020-01-01T00:00:00Z'"


def made(*texts: str, key_sets: KeySets | None = None) -> tuple[JwtSpec, ...]:
    mesh = state(workload("a"), *texts)
    workloads, policies = mesh.workloads, mesh.security.values()
    return authentication(workloads["default/a"], policies, DEFAULT_MESH, key_sets or {})


def issuers(rules: str, name: str = "p", metadata: str = "") -> str:
    return security("RequestAuthentication", f"jwtRules: [{rules}]", name, metadata=metadata)


def test_whom_nobody_selects() -> None:
    """No issuer: tokens are nobody's business."""
    assert made() == ()
    other = "selector: {matchLabels: {app: b}}, jwtRules: [{issuer: i, jwksFile: k}]"
    assert made(security("RequestAuthentication", other)) == ()


def test_every_field() -> None:
    """Durations as milliseconds; headers and claims as they are."""
    rule = (
        f"{{issuer: 'https://id.example', audiences: [shop, till], jwks: '{KEYS}', "
        "fromHeaders: [{name: x-token}, {name: Authorization, prefix: 'Bearer '}], "
        "fromParams: [token], forwardOriginalToken: true, "
        "outputClaimToHeaders: [{header: x-user, claim: sub}], leeway: 90s}"
    )
    assert made(issuers(rule)) == (
        JwtSpec(
            name="default/p",
            issuer="https://id.example",
            audiences=("shop", "till"),
            keys=KEYS,
            headers=(
                TokenHeaderSpec(name="x-token"),
                TokenHeaderSpec(name="Authorization", prefix="Bearer "),
            ),
            params=("token",),
            forward=True,
            claim_headers=(ClaimHeaderSpec(header="x-user", claim="sub"),),
            leeway=90_000,
        ),
    )


def test_keys_from_elsewhere() -> None:
    """What was read or fetched; while it was not, none, and no token of that issuer is right."""
    text = issuers("{issuer: i, jwksFile: keys.json}, {issuer: j, jwksUri: 'https://id.example/k'}")
    first, second = made(text, key_sets={("default/p", "i"): KEYS})
    assert (first.issuer, first.keys) == ("i", KEYS)
    assert (second.issuer, second.keys) == ("j", "")


def test_keys_of_another_policy_are_not_its_own() -> None:
    """The same issuer, declared twice, with keys from different places."""
    text = issuers("{issuer: i, jwksFile: keys.json}")
    (only,) = made(text, key_sets={("other/p", "i"): KEYS})
    assert only.keys == ""


def test_two_policies_of_one_issuer() -> None:
    """The older decides; a proxy would not know whom to believe."""
    young = issuers("{issuer: i, jwksFile: k, audiences: [young]}, {issuer: j, jwksFile: k}", "p")
    old = issuers("{issuer: i, jwksFile: k, audiences: [old]}", "q", OLD)
    assert [(one.name, one.issuer, one.audiences) for one in made(young, old)] == [
        ("default/q", "i", ("old",)),
        ("default/p", "j", ()),
    ]
