"""
A local mesh as one thing: start it, follow its files, stop it.

Order of starting: the control plane; then all sidecars at once; each app as soon as its own
sidecar is ready.  Order of stopping: the apps; the sidecars, which finish what they have; the
control plane.  In between every process is kept running (see `process`), and after each edit of
the files only what the edit changed is touched.  An edit that is broken changes nothing here, as
it changes nothing in the control plane.
"""

import asyncio
import sys
from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec

from control_plane import placement
from control_plane.cli.local import minder
from control_plane.cli.local.allocation import allocate
from control_plane.cli.local.desired import Desired, Located, changes, desire
from control_plane.cli.local.logs import Console
from control_plane.cli.local.plane import LocalControlPlane
from control_plane.cli.local.polling import until
from control_plane.cli.local.process import ManagedProcess
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from meshproxy.contract import wire


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the files say.

    Attributes:
        located: All resources, each with its file.
        problems: One line for each finding that makes the files unfit, in `validate`'s format.
    """

    located: tuple[Located, ...] = ()
    problems: tuple[str, ...] = ()


class BrokenFilesError(Exception):
    """The files cannot be started from; carries their problems, one a line."""

    def __init__(self, problems: Iterable[str]) -> None:
        super().__init__("\n".join(problems))


class Supervisor:
    """
    All processes of a local mesh.

    Args:
        files: What the control plane reads; `read` reads the same.
        read: Reads them.

    Attributes:
        workloads: What runs, by ``namespace/name``.
    """

    def __init__(
        self,
        files: list[Path],
        directory: RunDirectory,
        read: Callable[[], Reading],
        console: Console,
    ) -> None:
        self.workloads: dict[str, LocalWorkload] = {}
        self._files = files
        self._directory = directory
        self._read = read
        self._console = console
        self._placements = placement.Placements()
        self._minder: asyncio.subprocess.Process | None = None
        self._plane: LocalControlPlane | None = None

    @property
    def plane(self) -> LocalControlPlane:
        assert self._plane is not None, "not started"
        return self._plane

    # Starting -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Start everything; returns when the control plane is ready and the rest is on its way.

        Raises:
            BrokenFilesError: The files are not fit to start from; nothing was started.
            StartError: The control plane did not start.
        """
        reading = self._read()
        if reading.problems:
            raise BrokenFilesError(reading.problems)
        desired = desire(reading.located)
        self._minder = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", minder.__file__,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        self._plane = LocalControlPlane(
            self._directory, self._files, desired.trust_domain, self._console, self._on_group
        )
        self._placements = placement.read(self._directory.placements)
        self._place(desired)
        await self._plane.start()
        self._directory.write(self._directory.context, wire.encode(self._plane.context))
        self._add(desired, desired.units)

    async def settled(self) -> None:
        """Wait until every sidecar is ready and every app accepts connections on its ports."""
        for workload in list(self.workloads.values()):
            await until(workload.is_ready)
            if workload.unit.app is None:
                continue
            for port in workload.placement.app_ports.values():
                await until(partial(_accepts, workload.placement.address, port))

    # Following the files --------------------------------------------------------------------------

    async def follow(self, edits: AsyncIterable[object]) -> None:
        """Adapt the mesh after each edit, for ever."""
        async for _ in edits:
            await self.adapt()

    async def adapt(self) -> None:
        """Read the files again and touch what is different, nothing else."""
        reading = self._read()
        if reading.problems:
            self._console.announce(
                "edit refused, the old configuration stays in force:", trouble=True
            )
            for problem in reading.problems:
                self._console.announce(f"    {problem}", trouble=True)
            return
        desired = desire(reading.located)
        running = {name: workload.unit for name, workload in self.workloads.items()}
        difference = changes(running, desired.units)
        self._place(desired)
        for name in difference.removed:
            self._console.announce(f"{name} was removed: stopping it")
            await self.workloads[name].stop()
            del self.workloads[name]  # not before: who is on the list is stopped at the end
        for name, workload in self.workloads.items():
            workload.unit = desired.units[name]
            workload.placement = self._placements.workloads[name]
            workload.services = desired.services
        for name in difference.sidecars:
            self._console.announce(f"{name} has a new identity or version: restarting its sidecar")
            await self.workloads[name].restart_sidecar()
        for name in difference.apps:
            self._console.announce(f"{name} runs something else now: restarting its app")
            await self.workloads[name].restart_app()
        for name in difference.added:
            self._console.announce(f"{name} is new: starting it")
        self._add(desired, difference.added)

    def _add(self, desired: Desired, names: Iterable[str]) -> None:
        for name in names:
            workload = self.workloads[name] = LocalWorkload(
                desired.units[name],
                self._placements.workloads[name],
                desired.services,
                trust_domain=desired.trust_domain,
                plane=self.plane,
                directory=self._directory,
                console=self._console,
                on_group=self._on_group,
            )
            workload.start()

    def _place(self, desired: Desired) -> None:
        """Hand out ports and tell the control plane, which watches the file."""
        placements = allocate(
            desired.resources,
            self._placements,
            reserved=(self.plane.discovery, self.plane.api),
            running=self.workloads.keys(),
        )
        if placements != self._placements or not self._directory.placements.exists():
            self._directory.write(
                self._directory.placements, msgspec.json.format(wire.encode(placements))
            )
        self._placements = placements

    # Stopping -------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop everything, in the order in which it hurts least."""
        workloads = list(self.workloads.values())
        await asyncio.gather(*(workload.stop_app() for workload in workloads))
        await asyncio.gather(*(workload.sidecar.stop() for workload in workloads))
        if self._plane is not None:
            await self._plane.process.stop()
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.close()
            await self._minder.wait()

    def kill(self) -> None:
        """End everything now; `stop` still has to be waited for."""
        for process in self._processes():
            process.kill()

    def _processes(self) -> list[ManagedProcess]:
        processes = [p for workload in self.workloads.values() for p in workload.processes()]
        return [*processes, self._plane.process] if self._plane is not None else processes

    def _on_group(self, group: int, alive: bool) -> None:
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.write(b"%d\n" % (group if alive else -group))


async def _accepts(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True
