"""What comes while a lane is open, in a mesh of real processes: policies, and the end of an identity."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshproxy.policies.flow_sizes import MOST
from tests.helpers.client import Client, connect
from tests.helpers.enrolled_mesh import EnrolledMesh
from tests.helpers.plane import until
from tests.helpers.running_mesh import MESHCTL, ROOT
from tests.integration.test_tcp import served, torn

pytestmark = pytest.mark.integration


def policy(action: str, who: str) -> str:
    return POLICY.replace("ACTION", action).replace("WHO", who)


POLICY = """---
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: connecting}
spec:
  selector: {matchLabels: {app: app}}
  action: ACTION
  rules:
    - from: [{source: {principals: [test.mesh/ns/default/sa/WHO]}}]
"""
PERMISSIVE = """---
apiVersion: meshproxy.io/v1alpha1
kind: PeerAuthentication
metadata: {name: lines}
spec: {mtls: {mode: PERMISSIVE}}
"""
STRICT = PERMISSIVE.replace("PERMISSIVE", "STRICT")
DOOR = "spiffe://test.mesh/ns/default/sa/door"


class App:
    """
    Echoes; swallows what begins with a NUL, as `teach` does.

    Attributes:
        ends: How the others have ended.
    """

    def __init__(self) -> None:
        self.ends: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 20):
                if data[0]:
                    writer.write(data)
        except ConnectionResetError:
            self.ends.append("reset")
        else:
            self.ends.append("end")


class Scene:
    """A mesh that runs, of which a file says what is wanted besides."""

    def __init__(self, mesh: EnrolledMesh) -> None:
        self.mesh = mesh
        self._file = mesh.directory / "mesh.yaml"
        self._common = self._file.read_text()

    def want(self, *more: str) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(self._common + "".join(more))
        new.rename(self._file)

    async def obeyed(self, *words: str) -> None:
        """Wait until all of them stand in what the app's sidecar obeys."""
        async with asyncio.timeout(30):
            while True:
                said = (await asyncio.to_thread(self.mesh.page, "app", "/config")).decode()
                if all(word in said for word in words):
                    return
                await asyncio.sleep(0.02)

    async def revoke(self) -> None:
        """Take the door's identity from it."""
        command = (*MESHCTL, "certs", "revoke", DOOR)
        context = {**os.environ, "MESHCTL_CONTEXT": str(self.mesh.context)}
        done = await asyncio.to_thread(
            subprocess.run, command, env=context, cwd=ROOT, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr

    async def trunks(self) -> dict[str, int]:
        """Return what the door's sidecar has to the port of lines."""
        page = json.loads(await asyncio.to_thread(self.mesh.page, "door", "/clusters"))
        [endpoint] = next(one for one in page if "lines" in one["name"])["endpoints"]
        numbers: dict[str, int] = endpoint["trunks"]
        return numbers

    async def denied(self) -> float:
        """Return how often the app's sidecar has denied something."""
        page = (await asyncio.to_thread(self.mesh.page, "app", "/metrics")).decode()
        wanted = 'mesh_refusals_total{code="access-denied",direction="inbound"}'
        return sum(float(line.split()[1]) for line in page.splitlines() if line.startswith(wanted))

    async def teach(self) -> None:
        """Let the door's sidecar expect much of each connection."""
        async with connect(self.mesh.doors["lines"]) as client:
            for _ in range(MOST >> 20):
                await client.send(bytes(1 << 20))
            client.writer.write_eof()
            assert await client.rest() == b""

    @contextlib.asynccontextmanager
    async def lane(self) -> AsyncIterator[Client]:
        async with connect(self.mesh.doors["lines"]) as client:
            await talk(client)
            assert (await self.trunks())["lanes"] == 1
            yield client

    async def refused(self) -> None:
        """A connection that begins now is reset, and nothing is left of it."""
        async with connect(self.mesh.doors["lines"]) as client:
            with contextlib.suppress(ConnectionError):
                await client.send(b"hello")
            await torn(client)
        async with asyncio.timeout(20):
            while (numbers := await self.trunks())["lanes"] or numbers["idle"] < numbers[
                "connections"
            ]:
                await asyncio.sleep(0.02)


async def talk(client: Client) -> None:
    await client.send(b"hello")
    async with asyncio.timeout(20):
        assert await client.reader.readexactly(5) == b"hello"


async def test_who_is_not_allowed_any_more_is_reset(tmp_path: Path) -> None:
    """
    By DENY, by an ALLOW for somebody else, by revocation: client and app see a reset.  STRICT, and
    what is about others, changes nothing.  The next one is refused, once, and nothing is left of it.
    """
    app = App()
    async with served(app) as port:
        made = EnrolledMesh(tmp_path, 3600, {8080: 1, 9000: 1, 7000: port})
        async with made.running() as mesh:
            scene = Scene(mesh)
            await scene.teach()
            harmless = policy("DENY", "somebody")
            for forbidding in (policy("DENY", "door"), policy("ALLOW", "nobody")):
                scene.want(harmless, PERMISSIVE)
                await scene.obeyed("somebody", '"permissive"')
                async with scene.lane() as client:
                    scene.want(harmless, STRICT)
                    await scene.obeyed("somebody", '"strict"')
                    await talk(client)
                    app.ends.clear()
                    before = await scene.denied()
                    scene.want(forbidding)
                    await torn(client)
                    await until(lambda: app.ends == ["reset"])
                assert await scene.denied() == before + 1
                await scene.refused()
                assert await scene.denied() == before + 2
                assert app.ends == ["reset"]  # the app has not heard of the other one

            scene.want(harmless)
            await scene.obeyed("somebody")
            async with scene.lane() as client:
                app.ends.clear()
                await scene.revoke()
                await torn(client)
                await until(lambda: app.ends == ["reset"])
            await scene.refused()
            assert app.ends == ["reset"]
