"""A GRPCRoute in a running mesh: a control plane, sidecars, gRPC apps, each in its own process."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.helpers.client import get
from tests.helpers.running_mesh import PATIENCE, RunningMesh, shop

pytestmark = pytest.mark.integration

APP = Path(__file__).parent.parent / "helpers" / "grpc_app.py"

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
    - name: get
      matches: [{method: {service: shop.Books, method: GetBook}}]
      backendRefs: [{name: catalog-v2, port: 80}]
    - name: others
      matches: [{method: {service: shop.Books}}]
      backendRefs: [{name: catalog-v1, port: 80}]
    - name: half
      matches: [{headers: [{name: x-half, value: "yes"}]}]
      backendRefs: [{name: catalog-v1, port: 80}, {name: missing, port: 80}]
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """Nobody says what the apps speak: that they are backends of a GRPCRoute is enough."""
    files = shop() | {"route.yaml": ROUTE}
    files["workloads.yaml"] = files["workloads.yaml"].replace("app.py", "grpc_app.py")
    assert str(APP) in files["workloads.yaml"]
    with RunningMesh(tmp_path_factory.mktemp("mesh"), files) as running:
        yield running


async def call(channel: Any, method: str, *metadata: tuple[str, str]) -> str:
    """Return the name of the app that answers, or the status that came instead."""
    try:
        answer = await channel.unary_unary(method)(b"", metadata=metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return bytes(answer).decode()


async def test_calls_are_routed_by_method(mesh: RunningMesh) -> None:
    """One connection of the client, and each call goes where its method says."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.door()}") as channel:
        for _ in range(5):
            assert await call(channel, "/shop.Books/GetBook") == "catalog-v2"
            assert await call(channel, "/shop.Books/ListBooks") == "catalog-v1"
        # Like a slip in a method's name: the app's own answer passes.
        assert await call(channel, "/shop.Books/Unknown") == "UNIMPLEMENTED: catalog-v1"


async def test_what_no_rule_matches_is_unimplemented(mesh: RunningMesh) -> None:
    """By the sidecar, which says so; a request that is no gRPC is answered as HTTP."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.door()}") as channel:
        said = await call(channel, "/shop.Loans/GetLoan")
        assert said.startswith("UNIMPLEMENTED: no-route: ")
    response = await get(mesh.door(), "/shop.Books/GetBook")
    assert response.status == 404


async def test_a_backend_that_is_not_there_is_unavailable(mesh: RunningMesh) -> None:
    """Its share of calls, and no other."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.door()}") as channel:
        said = [await call(channel, "/any.Service/Method", ("x-half", "yes")) for _ in range(40)]
    assert {text.split(":")[0] for text in said} == {"catalog-v1", "UNAVAILABLE"}
    findings = mesh.meshctl("status").stdout
    assert "GRPCRoute/default/catalog: spec.rules[2].backendRefs[1]" in findings


async def test_a_saved_change_moves_the_calls(mesh: RunningMesh) -> None:
    """On the connection that the client already has."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{mesh.door()}") as channel:
        assert await call(channel, "/shop.Books/GetBook") == "catalog-v2"
        mesh.write("route.yaml", ROUTE.replace("catalog-v2", "catalog-v1"))
        deadline = time.monotonic() + PATIENCE
        while await call(channel, "/shop.Books/GetBook") != "catalog-v1":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        mesh.write("route.yaml", ROUTE)
        while await call(channel, "/shop.Books/GetBook") != "catalog-v2":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_what_a_proxy_was_told_can_be_seen(mesh: RunningMesh) -> None:
    """Which calls go where, and which ports speak what."""
    routes = mesh.meshctl("config", "door", "routes").stdout
    assert "gRPC, Exact /shop.Books/GetBook" in routes
    assert "CONNECTIONS TO" in routes
    listeners = mesh.meshctl("config", "door", "listeners").stdout
    assert [line.split()[4] for line in listeners.splitlines() if "catalog:80" in line] == ["http"]
