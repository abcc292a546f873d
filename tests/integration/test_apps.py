"""What an app finds in its environment, and that it leads to its peers with its own identity."""

import asyncio
import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.client import get
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    with RunningMesh(tmp_path_factory.mktemp("mesh"), shop()) as mesh:
        yield mesh


async def test_apps_reach_each_other_by_proxy_and_by_port(mesh: RunningMesh) -> None:
    """HTTP_PROXY and <SERVICE>_SERVICE_HOST/_PORT both lead there, as the app's own identity."""
    door = mesh.door("catalog-v1")
    environment = json.loads((await get(door, "/env")).body)
    service = environment["CATALOG_V2_SERVICE_HOST"], environment["CATALOG_V2_SERVICE_PORT"]
    expected = b"catalog-v2 called by By=spiffe://test.mesh/ns/default/sa/catalog;"

    assert environment["HTTP_PROXY"] == environment["http_proxy"]
    assert "catalog" not in environment.get("NO_PROXY", "")
    for url in ("http://catalog-v2/", f"http://{service[0]}:{service[1]}/"):
        answer = await get(door, f"/call?{url}")
        assert answer.status == 200, answer
        assert answer.body.startswith(expected), answer.body
        assert answer.body.endswith(b"URI=spiffe://test.mesh/ns/default/sa/catalog")


async def test_a_returning_control_plane_sends_only_what_changed(mesh: RunningMesh) -> None:
    """Proxies say what they hold; when nothing differs, nothing is sent."""
    before = mesh.control_plane()
    before.kill()

    def back() -> bool:
        return mesh.control_plane().pid != before.pid and mesh.synced()

    await asyncio.to_thread(mesh.until, back, "the control plane to be back")
    context = json.loads((mesh.run / "context.json").read_text())
    token = Path(mesh.run, context["token_file"]).read_text().strip()
    connection = http.client.HTTPConnection(context["api"].removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {token}"})
        metrics = connection.getresponse().read().decode()
    [updates] = [
        line for line in metrics.splitlines() if line.startswith("mesh_discovery_updates_total ")
    ]
    assert updates.split()[-1] == "0.0"


async def test_secrets_stay_in_private_files(mesh: RunningMesh) -> None:
    """Keys and tokens stand in files of mode 0600 alone: in no log, no output, no command line."""
    family = mesh.family()
    commands = "\n".join(" ".join(process.cmdline()) for process in family)
    shown = await asyncio.to_thread(_reveals, mesh.run, mesh.output() + commands)
    assert shown == []


def _reveals(run: Path, public: str) -> list[str]:
    """Return what is wrong: a secret in a public text, or in a file that others may read."""
    secrets = {
        path.read_text().strip()
        for path in run.rglob("*token*")
        if path.is_file() and path.suffix != ".json"
    }
    assert secrets
    wrong = []
    keys = 0
    for path in [file for file in run.rglob("*") if file.is_file()]:
        text = path.read_text(errors="replace")
        secret = "PRIVATE KEY" in text or any(one in text for one in secrets)
        keys += "PRIVATE KEY" in text
        if secret and path.stat().st_mode & 0o077:
            wrong.append(f"{path} has mode {path.stat().st_mode & 0o777:o}")
        if secret and path.suffix == ".log":
            wrong.append(f"{path} tells a secret")
    assert keys >= 5  # three sidecars, the root, the issuer
    if "PRIVATE KEY" in public or any(one in public for one in secrets):
        wrong.append("a secret is printed or stands on a command line")
    return wrong
