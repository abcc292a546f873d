"""What a sidecar would say, and why: against the proxy's own verdict."""

import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from control_plane.cli.decision import Asked, Decision, decide
from control_plane.cli.mesh import Mesh, of_files
from control_plane.outline import Behind
from meshproxy.contract.resources import Snapshot
from meshproxy.message import RequestHead
from meshproxy.policies.authorization import Authorization, Source
from tests.control_plane.cli.policed import folder

STOREFRONT = "spiffe://mesh.local/ns/default/sa/storefront"
STRANGER = "spiffe://mesh.local/ns/other/sa/stranger"
V1 = Behind("default/catalog-v1", 8080)
V2 = Behind("default/catalog-v2", 8080)
DB = Behind("data/db", 5432)


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return of_files([folder(tmp_path)])


def get(path: str, method: str = "GET") -> RequestHead:
    return RequestHead(method.encode(), b"catalog", path.encode(), [])


def asked(mesh: Mesh, at: Behind, identity: str | None = STOREFRONT, **rest: Any) -> Decision:
    return decide(mesh.snapshot(at.workload), at, Asked(identity=identity, **rest))


def test_a_rule_allows(mesh: Mesh) -> None:
    """The first that matches is named; the others say what was in the way."""
    found = asked(mesh, V1, head=get("/items/1"))
    assert (found.allowed, found.by, found.policy, found.rule) == (
        True, "rule", "default/catalog", "0",
    )  # fmt: skip
    assert found.mtls == "strict"
    why = {(one.policy, one.rule): one.why for one in found.unmatched}
    assert why == {
        ("default/catalog", "admins"): "wants claim role admin",
        ("default/no-secrets", "0"): "wants path /secret*",
    }


def test_no_rule_allows(mesh: Mesh) -> None:
    """Every part in the way of a rule is named, and no other."""
    found = asked(mesh, V1, STRANGER, head=get("/items/1", "PUT"))
    assert (found.allowed, found.by, found.policy) == (False, "no-rule", "")
    first = next(one for one in found.unmatched if one.rule == "0")
    assert first.why == "wants principal */ns/default/sa/storefront; wants method GET"


def test_a_denial_wins_however_a_path_is_spelled(mesh: Mesh) -> None:
    """The readings are the proxy's."""
    for path in ("/secret", "/items/../secret", "/items/%2e%2e/%73ecret"):
        found = asked(mesh, V1, head=get(path))
        assert (found.allowed, found.policy, found.rule) == (False, "default/no-secrets", "0")


def test_audits_are_told_and_decide_nothing(mesh: Mesh) -> None:
    """Beside the verdict."""
    found = asked(mesh, V2, head=get("/items/1"))
    assert found.allowed
    assert found.audited == ("default/watched",)


def test_nobody_at_a_strict_port(mesh: Mesh) -> None:
    """Mutual TLS comes before all policies; a revoked identity likewise."""
    found = asked(mesh, V1, None, head=get("/"))
    assert (found.allowed, found.by, found.unmatched) == (False, "mtls", ())
    snapshot = mesh.snapshot(V1.workload)
    trust = (msgspec.structs.replace(snapshot.trust[0], revoked=(STOREFRONT,)),)
    revoked = msgspec.structs.replace(snapshot, trust=trust)
    found = decide(revoked, V1, Asked(identity=STOREFRONT, head=get("/items/1")))
    assert (found.allowed, found.by) == (False, "revoked")


def test_without_mutual_tls_nobody_is_proved(mesh: Mesh) -> None:
    """Then a rule about principals matches nobody, whoever asks."""
    snapshot = mesh.snapshot(V1.workload)
    listeners = tuple(msgspec.structs.replace(one, mtls="disabled") for one in snapshot.listeners)
    plain = msgspec.structs.replace(snapshot, listeners=listeners)
    found = decide(plain, V1, Asked(identity=STOREFRONT, head=get("/items/1")))
    assert not found.allowed
    assert "nobody's identity is proved" in found.notes[0]


def test_tokens_count_where_their_issuer_is_believed(mesh: Mesh) -> None:
    """An unknown issuer is refused; where nobody asks for tokens, claims mean nothing."""
    admin = {"role": "admin"}
    found = asked(mesh, V1, STRANGER, head=get("/"), claims=admin)
    assert (found.allowed, found.rule) == (True, "admins")
    found = asked(mesh, V1, STRANGER, head=get("/"), claims={**admin, "iss": "https://other"})
    assert (found.allowed, found.by) == (False, "token")
    found = asked(mesh, V2, STRANGER, head=get("/"), claims=admin)
    assert not found.allowed
    assert "tokens mean nothing" in found.notes[0]


def test_connections(mesh: Mesh) -> None:
    """A request to an opaque port is judged as the connection it is; addresses count if they are said."""
    found = asked(mesh, DB, head=get("/"))
    assert (found.allowed, found.rule) == (True, "0")
    assert any("opaque TCP" in note for note in found.notes)
    found = asked(mesh, DB, STRANGER)
    assert not found.allowed
    assert any("--address" in note for note in found.notes)
    assert [one.why for one in found.unmatched] == [
        "wants namespace default",
        "wants ip block 10.0.0.0/8",
    ]
    assert asked(mesh, DB, STRANGER, address="10.1.2.3").allowed
    found = asked(mesh, V1)  # a connection to a port of requests
    assert not found.allowed
    assert found.unmatched[0].why == "wants method GET and path /items/*"


def test_the_verdict_is_the_proxys(mesh: Mesh) -> None:
    """For every combination of a few callers, methods, paths and claims."""
    snapshot: Snapshot = mesh.snapshot(V1.workload)
    (host,) = [one for one in snapshot.virtual_hosts if one.name == "inbound:8080"]
    policies = Authorization(host.authorization)
    claimed = {"iss": "https://id.example", "role": "admin"}
    for identity, method, path, claims in itertools.product(
        (STOREFRONT, STRANGER), ("GET", "PUT"), ("/items/1", "/", "/secret"), (None, claimed)
    ):
        head = get(path, method)
        verdict = policies.standing(Source.of(identity)).judge(head, claims)
        found = asked(mesh, V1, identity, head=head, claims=claims)
        assert (found.allowed, found.policy, found.rule) == verdict[:3]
