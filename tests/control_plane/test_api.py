from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control_plane.access import Access
from control_plane.api import Api
from control_plane.authority import Authority
from control_plane.gate import Gate
from control_plane.join_tokens import JoinTokens
from control_plane.metrics import Metrics
from control_plane.resources.fields import Metadata
from control_plane.resources.finding import Finding
from control_plane.resources.model import Workload
from control_plane.revocation import Revocation
from control_plane.snapshots import Proxy
from control_plane.snapshots import State as ProxyState
from control_plane.store import State
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.spiffe import SpiffeId

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
DENIED = SpiffeId.of("mesh.local", "default", "denied")
WORKLOAD = "default/catalog-v1"
BEARER = {"Authorization": "Bearer secret", "Content-Type": "application/json"}


class Part:
    """A part of the API in a file of its own."""

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/api/v1/part", self._answer)

    async def _answer(self, _request: web.Request) -> web.Response:
        return web.json_response("done")


@asynccontextmanager
async def client(folder: Path) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    workload = Workload(
        api_version="meshproxy.io/v1alpha1", kind="Workload", metadata=Metadata(name="catalog-v1")
    )
    denied = Workload(
        api_version="meshproxy.io/v1alpha1", kind="Workload", metadata=Metadata(name="denied")
    )
    never = Workload(
        api_version="meshproxy.io/v1alpha1", kind="Workload", metadata=Metadata(name="never")
    )
    state = State(
        revision=7,
        workloads={WORKLOAD: workload, "default/denied": denied, "default/never": never},
        findings=(Finding(file="a.yaml", line=3, message="wrong"),),
    )
    proxy = Proxy(workload=WORKLOAD, identity=str(CATALOG), state=ProxyState.SYNCED, last_ack=1.0)
    metrics = Metrics()
    subject = Api(
        gate=Gate(Access(operate="secret", view="other"), "mesh.local", metrics.api_refused),
        state=lambda: state,
        proxies={WORKLOAD: proxy},
        identity_of={
            WORKLOAD: CATALOG,
            "default/denied": DENIED,
        }.get,
        snapshot_for={WORKLOAD: Snapshot(version="v1")}.get,
        authority=Authority(folder / "authority", "mesh.local"),
        tokens=JoinTokens(folder / "tokens.json"),
        metrics=metrics,
        revoked={DENIED},
        revocations=lambda: [Revocation(identity=str(DENIED), since=5.0, reason="stolen")],
        parts=[Part()],
    )
    async with TestClient(TestServer(subject.application())) as made:
        yield made


async def test_status_tells_what_is_so(tmp_path: Path) -> None:
    """Revision, resources, findings, proxies by state."""
    async with client(tmp_path) as http:
        answer = await http.get("/api/v1/status", headers=BEARER)
        status = await answer.json()
    assert status["revision"] == 7
    assert status["trust_domain"] == "mesh.local"
    assert status["resources"]["Workload"] == 3
    assert status["findings"][0]["file"] == "a.yaml"
    assert status["proxies"] == {
        "SYNCED": 1, "STALE": 0, "REFUSED": 0, "DISCONNECTED": 1, "REVOKED": 1,
    }  # fmt: skip
    assert status["revoked"] == [
        {"identity": str(DENIED), "since": 5.0, "reason": "stolen", "workloads": ["default/denied"]}
    ]


async def test_all_parts_need_the_operators_token(tmp_path: Path) -> None:
    """Also those that live in other files."""
    async with client(tmp_path) as http:
        assert (await http.post("/api/v1/part")).status == 401
        assert (await http.post("/api/v1/part", headers=BEARER)).status == 200


async def test_a_revoked_identity_gets_no_token(tmp_path: Path) -> None:
    """The operator is told at once, and not by a sidecar's log."""
    async with client(tmp_path) as http:
        asked = http.post("/api/v1/tokens", json={"workload": "default/denied"}, headers=BEARER)
        async with asked as answer:
            assert answer.status == 409
            assert "has been revoked" in (await answer.json())["error"]


async def test_every_workload_has_a_proxy_connected_or_not(tmp_path: Path) -> None:
    """Who has never come is shown with the reason."""
    async with client(tmp_path) as http:
        answer = await http.get("/api/v1/proxies", headers=BEARER)
        synced, denied, never = await answer.json()
    assert (synced["workload"], synced["state"]) == (WORKLOAD, "SYNCED")
    assert synced["last_ack_age_seconds"] > 0
    assert (never["state"], never["last_ack_age_seconds"]) == ("DISCONNECTED", None)
    assert "has not connected" in never["reason"]
    assert (denied["state"], denied["reason"]) == (
        "REVOKED", "Its identity has been revoked: stolen"
    )  # fmt: skip


async def test_snapshot_roots_and_metrics(tmp_path: Path) -> None:
    """What the plane would say to a proxy, whom to believe, and figures."""
    async with client(tmp_path) as http:
        answer = await http.get(f"/api/v1/proxies/{WORKLOAD}/snapshot", headers=BEARER)
        assert await answer.json() == {"version": "v1"}
        answer = await http.get("/api/v1/proxies/default/x/snapshot", headers=BEARER)
        assert answer.status == 404
        answer = await http.get("/api/v1/roots", headers=BEARER)
        assert (await answer.text()).startswith("-----BEGIN CERTIFICATE-----")
        answer = await http.get("/metrics", headers=BEARER)
        assert 'mesh_proxies{state="SYNCED"} 1.0' in await answer.text()


async def test_a_token_is_issued_for_a_workload_that_exists(tmp_path: Path) -> None:
    """With its identity and expiry; anything else is an error with a sentence."""
    async with client(tmp_path) as http:

        async def ask(body: str) -> tuple[int, dict[str, str]]:
            answer = await http.post("/api/v1/tokens", data=body, headers=BEARER)
            return answer.status, await answer.json()

        status, granted = await ask('{"workload": "default/catalog-v1"}')
        assert (status, granted["identity"]) == (200, str(CATALOG))
        assert len(granted["token"]) >= 43
        assert (await ask('{"workload": "default/x"}'))[0] == 404
        for body in ("{", "[]", '{"workload": 1}', '{"workload": "a/b", "for": 1}', "\0"):
            status, refused = await ask(body)
            assert status == 400
            assert refused["error"].startswith("Expected")
        assert (await ask(" " * 100_000))[0] == 413


async def test_an_unknown_path_is_an_error_in_json(tmp_path: Path) -> None:
    """Also what aiohttp itself refuses speaks our way."""
    async with client(tmp_path) as http:
        answer = await http.get("/nothing", headers=BEARER)
        assert (answer.status, await answer.json()) == (404, {"error": "GET /nothing: Not Found"})
        assert (await http.delete("/api/v1/status", headers=BEARER)).status == 405
