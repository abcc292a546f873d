"""
The mesh of a lesson: first without its policies, then with them, and nothing is restarted between.

The files are copied to a folder of the run, all but `policies.yaml`; to learn what that is good for,
it is saved there, as an operator would save it, and the mesh obeys.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from control_plane.cli.errors import CommandError
from control_plane.cli.local.logs import Console
from control_plane.cli.local.polling import until
from control_plane.cli.local.run import run as run_mesh
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.supervisor import Supervisor

CONFIGS = Path(__file__).parent.parent / "configs" / "lessons"
READY_WITHIN = 60.0
DOOR = "default/visitors"
"""Whose sidecar lets requests in; it has no app."""


class Mesh:
    """A mesh that runs, without policies to begin with."""

    def __init__(self, supervisor: Supervisor, folder: Path, files: Path) -> None:
        self._supervisor = supervisor
        self._folder = folder
        self._files = files
        self._policies: str | None = None

    def service(self, name: str) -> str:
        """Return where a service is called from outside."""
        placement = self._supervisor.workloads[DOOR].placement
        port = placement.service_ports[f"default/{name}:80"]
        return f"http://{placement.address}:{port}"

    def app(self, workload: str) -> str:
        """Return where an app listens, to talk to it behind the mesh's back."""
        running = self._supervisor.workloads[f"default/{workload}"]
        [port] = running.placement.app_ports.values()
        return f"http://{running.app_address}:{port}"

    async def ready(self) -> None:
        """
        Wait until every app listens and every sidecar obeys.

        Raises:
            CommandError: That took too long.
        """
        try:
            async with asyncio.timeout(READY_WITHIN):
                await self._supervisor.settled()
                await until(self._supervisor.synced)
        except TimeoutError:
            raise CommandError(f"the mesh was not ready within {READY_WITHIN:g} s") from None

    async def obey(self, policies: str | None, *changed: str) -> None:
        """
        Put a file of policies in force, instead of the one before.

        Args:
            policies: Its name; None for none.
            changed: Workloads whose sidecars have something new to obey.

        Raises:
            CommandError: They do not.
        """
        if policies == self._policies:
            return
        before = await self._versions()
        in_force = self._files / "policies.yaml"
        if policies is None:
            in_force.unlink()
        else:  # as an editor saves: whole, or not at all
            new = self._files / ".policies.new"
            shutil.copy(self._folder / policies, new)
            new.rename(in_force)
        self._policies = policies

        async def obeyed() -> bool:
            now = await self._versions()
            return await self._supervisor.synced() and all(
                now.get(f"default/{name}") != before[f"default/{name}"] for name in changed
            )

        try:
            async with asyncio.timeout(READY_WITHIN):
                await until(obeyed)
        except TimeoutError:
            findings = "; ".join(map(str, self._supervisor.state.findings))
            raise CommandError(f"{policies} is not in force: {findings}") from None

    async def _versions(self) -> dict[str, str]:
        proxies: list[dict[str, Any]] = await asyncio.to_thread(
            self._supervisor.plane.client.get, "/api/v1/proxies"
        )
        return {proxy["workload"]: proxy["acked_version"] for proxy in proxies}


def run(lesson: str, work: Callable[[Mesh], Awaitable[None]]) -> None:
    """
    Run the mesh of a lesson, and the work with it.

    Raises:
        CommandError: The mesh does not start.
    """
    folder = CONFIGS / lesson
    with tempfile.TemporaryDirectory(prefix=f"lesson-{lesson}-") as place:
        files = Path(place) / "files"
        shutil.copytree(folder, files, ignore=shutil.ignore_patterns("policies*.yaml"))
        directory = RunDirectory(Path(place) / "run")

        async def with_mesh(supervisor: Supervisor) -> None:
            mesh = Mesh(supervisor, folder, files)
            await mesh.ready()
            await work(mesh)

        try:
            asyncio.run(run_mesh([files], directory, Console(echo=False), with_mesh))
        finally:
            directory.release()
