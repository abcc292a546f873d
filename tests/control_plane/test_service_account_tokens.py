"""Tokens of Kubernetes, against an API server of our own that speaks as the real one does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from control_plane.attestation import Claim, NotAttested
from control_plane.service_account_tokens import ApiServer, ServiceAccountTokens
from meshproxy.contract.spiffe import SpiffeId

CATALOG = SpiffeId.of("mesh.local", "shop", "catalog")
WORKLOAD = "shop/catalog-7d4f"
TOKEN = "eyJh.eyJp.c2ln"


class FakeApiServer:
    """
    The TokenReview part of an API server.

    Attributes:
        pods: Those that exist; tokens of others are not authenticated.
        known: Of each token: service account, pod and the audiences it is meant for.
        asked: The bodies that came.
        broken: What to answer instead, if anything.
    """

    def __init__(self) -> None:
        self.pods = {"catalog-7d4f", "catalog-9a1b"}
        self.known = {TOKEN: ("shop:catalog", "catalog-7d4f", ["meshproxy"])}
        self.asked: list[dict[str, Any]] = []
        self.broken: web.Response | None = None

    async def review(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer ours":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if self.broken is not None:
            return self.broken
        body = await request.json()
        self.asked.append(body)
        return web.json_response(
            {"apiVersion": body["apiVersion"], "kind": "TokenReview", "metadata": {},
             "spec": body["spec"], "status": self._status(body["spec"])},
            status=201,
        )  # fmt: skip

    def _status(self, spec: dict[str, Any]) -> dict[str, Any]:
        account, pod, audiences = self.known.get(spec["token"], ("", "", []))
        confirmed = [one for one in spec["audiences"] if one in audiences]
        if not confirmed:
            error = f"[invalid bearer token, token audiences {audiences} is invalid]"
            return {"user": {}, "error": error}
        if pod and pod not in self.pods:
            return {"user": {}, "error": "[invalid bearer token, pod not found]"}
        extra = {"authentication.kubernetes.io/pod-name": [pod]} if pod else {}
        user = {"username": f"system:serviceaccount:{account}", "uid": "1", "extra": extra,
                "groups": ["system:serviceaccounts", "system:authenticated"]}  # fmt: skip
        return {"authenticated": True, "user": user, "audiences": confirmed}


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[FakeApiServer, ServiceAccountTokens]]:
    fake = FakeApiServer()
    app = web.Application()
    app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", fake.review)
    (folder / "token").write_text("ours\n")
    async with TestServer(app) as server:
        yield fake, ServiceAccountTokens(ApiServer(str(server.make_url("/")), folder / "token"))


def claim(token: str = TOKEN, workload: str = WORKLOAD, identity: SpiffeId = CATALOG) -> Claim:
    return Claim(workload, identity, token, None, "key")


async def test_a_pods_token_proves_its_workload(tmp_path: Path) -> None:
    """As often as it likes; the review asks for our audience and no other."""
    async with cluster(tmp_path) as (fake, tokens):
        for _ in range(2):
            assert "pod catalog-7d4f" in await tokens.attest(claim())
    assert fake.asked[0]["spec"] == {"token": TOKEN, "audiences": ["meshproxy"]}


@pytest.mark.parametrize(
    ("known", "asked", "code"),
    [
        (("shop:catalog", "catalog-7d4f", ["https://kubernetes.default.svc"]), claim(), "token-not-authentic"),
        (("shop:reviews", "catalog-7d4f", ["meshproxy"]), claim(), "wrong-identity"),
        (("other:catalog", "catalog-7d4f", ["meshproxy"]), claim(), "wrong-identity"),
        (("shop:catalog:x", "catalog-7d4f", ["meshproxy"]), claim(), "wrong-identity"),
        (("shop:catalog", "catalog-9a1b", ["meshproxy"]), claim(), "token-of-another"),
        (("shop:catalog", "", ["meshproxy"]), claim(), "token-of-another"),
        (("shop:catalog", "catalog-7d4f", ["meshproxy"]), claim("eyJh.eyJp.Zm9yZ2Vk"), "token-not-authentic"),
    ],
    ids=["audience", "account", "namespace", "spelling", "stolen from another pod", "no pod", "forged"],
)  # fmt: skip
async def test_what_proves_something_else_is_refused(
    known: tuple[str, str, list[str]], asked: Claim, code: str, tmp_path: Path
) -> None:
    """Each with a code of its own, for the log and the count."""
    async with cluster(tmp_path) as (fake, tokens):
        fake.known[TOKEN] = known
        with pytest.raises(NotAttested) as caught:
            await tokens.attest(asked)
    assert caught.value.code == code


async def test_the_token_of_a_deleted_pod_is_refused(tmp_path: Path) -> None:
    """Although it has not expired: it is bound to the pod."""
    async with cluster(tmp_path) as (fake, tokens):
        await tokens.attest(claim())
        fake.pods.remove("catalog-7d4f")
        with pytest.raises(NotAttested, match="token-not-authentic") as caught:
            await tokens.attest(claim())
    assert caught.value.retry


async def test_a_server_that_knows_nothing_of_audiences_is_not_believed(tmp_path: Path) -> None:
    """It would authenticate any token; Kubernetes says to look at what the review confirms."""
    async with cluster(tmp_path) as (fake, tokens):
        user = {"username": "system:serviceaccount:shop:catalog"}
        fake.broken = web.json_response({"status": {"authenticated": True, "user": user}})
        with pytest.raises(NotAttested, match="token-of-another-audience"):
            await tokens.attest(claim())


@pytest.mark.parametrize(
    "answer",
    [
        web.json_response({"kind": "Status", "message": "no"}, status=403),
        web.Response(text="<html>", status=200),
        web.json_response({"status": {"authenticated": "yes"}}),
        web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}),
    ],
    ids=["forbidden", "no JSON", "another shape", "redirect"],
)
async def test_without_a_verdict_nobody_gets_in(answer: web.Response, tmp_path: Path) -> None:
    """But may ask again: it is not the sidecar's fault.  Our own token is followed nowhere."""
    async with cluster(tmp_path) as (fake, tokens):
        fake.broken = answer
        with pytest.raises(NotAttested, match="review-failed") as caught:
            await tokens.attest(claim())
    assert caught.value.retry


async def test_a_server_that_is_away_or_a_token_that_is_not_there(tmp_path: Path) -> None:
    """The same: no verdict."""
    away = ApiServer("http://127.0.0.1:1", tmp_path / "token")
    for _ in range(2):
        with pytest.raises(NotAttested, match="review-failed"):
            await ServiceAccountTokens(away).attest(claim())
        (tmp_path / "token").write_text("ours")
