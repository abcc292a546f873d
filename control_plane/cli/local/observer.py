"""
Look after the processes of a local mesh, and write down how they are.

Whether an app listens on the ports it was given is found out as Kubernetes' startup probes do it:
by connecting until that succeeds once, and then no more, because an app may log each connection.
"""

import asyncio
import socket
import time
from collections.abc import Iterable, Mapping

import msgspec

from control_plane.cli.local.logs import Console
from control_plane.cli.local.namespace import socket_in
from control_plane.cli.local.process import ManagedProcess
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from control_plane.cli.processes import LISTENS_AFTER, Process, Report, Role


class Observer:
    """Sees each process of a mesh; `look` is to be called again and again."""

    def __init__(self, directory: RunDirectory, console: Console) -> None:
        self._directory = directory
        self._console = console
        self._listening: set[tuple[int, int]] = set()
        self._told: set[int] = set()
        self._written = b""

    async def look(
        self,
        plane: ManagedProcess,
        workloads: Mapping[str, LocalWorkload],
        warnings: Iterable[str],
    ) -> Report:
        """Look at all of them once; tell what is new to the terminal and to the file."""
        found = [_process(plane, "", "control-plane", ())]
        for name, workload in list(workloads.items()):
            if workload.app is not None:
                missing = await self._missing(workload.app, workload)
                self._tell(workload.app, missing)
                found.append(_process(workload.app, name, "app", missing))
            found.append(_process(workload.sidecar, name, "proxy", ()))
        report = Report(processes=tuple(found), warnings=tuple(warnings))
        content = msgspec.json.format(msgspec.json.encode(report))
        if content != self._written:
            self._directory.write(self._directory.processes, content)
            self._written = content
        return report

    async def _missing(self, app: ManagedProcess, workload: LocalWorkload) -> tuple[str, ...]:
        pid = app.pid
        if pid is None:
            return ()
        missing = []
        for index, port in enumerate(workload.unit.workload.spec.ports):
            number = workload.placement.app_ports[port.port]
            if (pid, number) in self._listening:
                continue
            if await accepts(workload.app_address, number, workload.namespace):
                self._listening.add((pid, number))
            else:
                named = f" of the port {port.name or port.port}"
                missing.append(f"$PORT ({number})" if index == 0 else f"{number}{named}")
        return tuple(missing)

    def _tell(self, app: ManagedProcess, missing: tuple[str, ...]) -> None:
        if app.pid is None or app.life.state != "running":
            return
        if missing and app.pid not in self._told and time.time() > app.life.since + LISTENS_AFTER:
            self._told.add(app.pid)
            ports = " and ".join(missing)
            self._console.say(app.name, f"does not listen on its {ports} yet", trouble=True)
        elif not missing and app.pid in self._told:
            self._told.discard(app.pid)
            self._console.say(app.name, "listens now")


def _process(
    process: ManagedProcess, workload: str, role: Role, missing: tuple[str, ...]
) -> Process:
    return Process(
        name=process.name,
        workload=workload,
        role=role,
        life=process.life,
        missing=missing,
        log=str(process.log),
    )


async def accepts(address: str, port: int, namespace: str | None = None) -> bool:
    """Say whether somebody listens there, in our network namespace or another one."""
    try:
        with socket.socket() if namespace is None else socket_in(namespace) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except OSError:
        return False
    return True
