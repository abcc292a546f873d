"""A TrafficPolicy in a running mesh: saved, contradicted, broken, removed; what holds is what is shown."""

import asyncio
from pathlib import Path

import pytest

from tests.helpers.client import connect
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration

POLICY = """
apiVersion: meshproxy.io/v1alpha1
kind: TrafficPolicy
metadata: {name: NAME}
spec:
  targetRefs: [{group: "", kind: Service, name: catalog-v1}]
  timeouts: {request: REQUEST}
"""
ASKED = b"GET /stream?10 HTTP/1.1\r\nHost: catalog\r\n\r\n"
"""Half a second of answer."""


def policy(name: str, request: str) -> str:
    return POLICY.replace("NAME", name).replace("REQUEST", request)


async def answers_whole(port: int) -> bool:
    async with connect(port) as client:
        await client.send(ASKED)
        try:
            response = await client.response()
        except (OSError, asyncio.IncompleteReadError, ValueError):  # torn: no whole chunk
            return False
        return response.status == 200


def whole(mesh: RunningMesh, expected: bool) -> None:
    what = "answers to be whole" if expected else "answers to be cut short"
    mesh.until(lambda: asyncio.run(answers_whole(mesh.door())) is expected, what)


def findings(mesh: RunningMesh, *expected: str) -> None:
    def told() -> bool:
        found = [finding["message"] for finding in mesh.api("/api/v1/status")["findings"]]
        return len(found) == len(expected) and all(
            clue in message for clue, message in zip(expected, found, strict=True)
        )

    mesh.until(told, f"findings {expected}")


def shown(mesh: RunningMesh) -> str:
    """Return what `meshctl` says of the timeouts of the cluster that the policy is for."""
    (row,) = [
        line
        for line in mesh.meshctl("config", "door", "policies").stdout.splitlines()
        if line.startswith("default/catalog-v1:80") and " timeouts " in line
    ]
    return row


def test_a_policy_holds_from_one_save_to_the_next(tmp_path: Path) -> None:
    """Through the route of another Service, for each caller; a broken edit leaves the one in force."""
    with RunningMesh(tmp_path, shop()) as mesh:
        whole(mesh, True)

        mesh.write("policy.yaml", policy("b", "100ms"))
        whole(mesh, False)
        assert "request 100ms" in shown(mesh)

        mesh.write("second.yaml", policy("c", "1m"))
        findings(mesh, "Accepted=False (Conflicted): port 80 of Service default/catalog-v1 follows")
        assert "request 100ms" in shown(mesh)

        mesh.write("policy.yaml", policy("b", "a while"))
        findings(mesh, '"a while" is not a duration', "Accepted=False (Conflicted)")
        assert "request 100ms" in shown(mesh)

        (mesh.config / "policy.yaml").unlink()
        whole(mesh, True)
        findings(mesh)
        assert "request 1m" in shown(mesh)
