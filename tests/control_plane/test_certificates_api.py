from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control_plane.authority import Authority
from control_plane.certificates_api import CertificatesApi
from control_plane.revocation import Revocations
from control_plane.rotation import Guide, Holder
from meshproxy.contract.spiffe import SpiffeId

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
PLANE = SpiffeId.of("mesh.local", "mesh-system", "control-plane")


class Desk:
    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "authority", "mesh.local")
        self.revocations = Revocations(folder / "revoked.json")
        self.holders = [
            Holder("default/a", True, False, self.authority.signer.issuer_id, "5e", 9e9)
        ]
        self.guide = Guide(self.authority, lambda: self.holders, lambda: timedelta(hours=1))
        self.http: TestClient[Any, Any]

    async def ask(self, path: str = "", body: object = None) -> tuple[int, dict[str, Any]]:
        url = f"/api/v1/certificates{path}"
        answer = await (self.http.get(url) if body is None else self.http.post(url, json=body))
        return answer.status, await answer.json()


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    made = Desk(folder)
    app = web.Application()
    CertificatesApi(
        authority=made.authority,
        guide=made.guide,
        holders=lambda: made.holders,
        identity_of={"default/a": CATALOG}.get,
        revocations=made.revocations,
        own=PLANE,
    ).add_routes(app.router)
    async with TestClient(TestServer(app)) as made.http:
        yield made


async def test_it_tells_who_holds_what(tmp_path: Path) -> None:
    """Authority, proxies, revoked identities; never a key."""
    async with desk(tmp_path) as made:
        status, facts = await made.ask()
    assert status == 200
    assert [root["signs"] for root in facts["roots"]] == [True]
    assert facts["issuing"]["key"] == made.authority.signer.issuer_id
    assert facts["rotation"] is None
    (proxy,) = facts["proxies"]
    assert (proxy["workload"], proxy["identity"]) == ("default/a", str(CATALOG))
    assert (proxy["of_current_issuer"], proxy["believes_all_roots"]) == (True, False)
    assert "PRIVATE" not in str(facts)


async def test_a_rotation_is_begun_and_taken_back(tmp_path: Path) -> None:
    """What cannot be done now is 409 with the reason; what is not understood 400."""
    async with desk(tmp_path) as made:
        status, facts = await made.ask("/rotation", {"do": "begin", "what": "root"})
        assert (status, facts["rotation"]["phase"]) == (200, "spreading")
        assert facts["rotation"]["lagging"][0]["workload"] == "default/a"
        assert len(facts["roots"]) == 2
        for body in ({"do": "begin", "what": "issuer"}, {"do": "skip-away"}):
            status, answer = await made.ask("/rotation", body)
            assert status == 409
            assert answer["error"].endswith(".")
        status, facts = await made.ask("/rotation", {"do": "abort"})
        assert (status, facts["rotation"]) == (200, None)
        for wrong in ({"do": "begin"}, {"do": "remove"}, {"do": "begin", "what": "leaf"}):
            assert (await made.ask("/rotation", wrong))[0] == 400


async def test_an_identity_is_revoked_and_forgiven(tmp_path: Path) -> None:
    """Whether that changed anything is said; the list shows it."""
    async with desk(tmp_path) as made:
        asked = {"identity": str(CATALOG), "reason": "stolen"}
        assert (await made.ask("/revoke", asked))[1]["changed"] is True
        assert (await made.ask("/revoke", asked))[1]["changed"] is False
        (entry,) = (await made.ask())[1]["revoked"]
        assert (entry["identity"], entry["reason"]) == (str(CATALOG), "stolen")
        assert (await made.ask("/lift", {"identity": str(CATALOG)}))[1]["changed"] is True
        assert (await made.ask())[1]["revoked"] == []


@pytest.mark.parametrize(
    ("identity", "status", "reason"),
    [
        ("catalog", 400, "expected spiffe://"),
        ("spiffe://other.local/ns/a/sa/b", 400, "Expected an identity of mesh.local"),
        (str(PLANE), 409, "the control plane itself"),
        (None, 400, "identity"),
    ],
)
async def test_what_cannot_be_revoked(
    identity: str | None, status: int, reason: str, tmp_path: Path
) -> None:
    """A name that is none, of another mesh, or the one that everybody listens to."""
    async with desk(tmp_path) as made:
        answered, answer = await made.ask("/revoke", {"identity": identity})
    assert (answered, len(made.revocations)) == (status, 0)
    assert reason in answer["error"]


async def test_a_disk_that_fails_is_an_error(tmp_path: Path) -> None:
    """Nobody is told that it is done."""
    async with desk(tmp_path) as made:
        (tmp_path / "revoked.json").mkdir()
        (tmp_path / "authority" / "rotation.json").mkdir()
        assert (await made.ask("/revoke", {"identity": str(CATALOG)}))[0] == 500
        assert (await made.ask("/rotation", {"do": "begin", "what": "root"}))[0] == 500
