"""
A local mesh as one thing: start it, follow its files, stop it.

Order of starting: the control plane; then all sidecars at once; each app as soon as its own
sidecar is ready.  Order of stopping: the apps; the sidecars, which finish what they have; the
control plane.  In between every process is kept running (see `process`), and after each edit of
the files only what the edit changed is touched.  The files are read by
the control plane's own rules: an edit that is broken changes nothing there and nothing here.
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from control_plane import placement
from control_plane.cli.errors import CommandError
from control_plane.cli.local import addresses, minder
from control_plane.cli.local.allocation import Ports, allocate, ports_of
from control_plane.cli.local.desired import Unit, changes, desire, trust_domain_of
from control_plane.cli.local.logs import NAME, Console
from control_plane.cli.local.namespace import inode
from control_plane.cli.local.network import Network, hosts_file
from control_plane.cli.local.observer import Observer, accepts
from control_plane.cli.local.plane import LocalControlPlane
from control_plane.cli.local.polling import until
from control_plane.cli.local.process import ManagedProcess
from control_plane.cli.local.reservation import ADDRESS
from control_plane.cli.local.rundir import RunDirectory
from control_plane.cli.local.workload import LocalWorkload
from control_plane.cli.processes import Report
from control_plane.cli.warnings import warnings
from control_plane.resources.finding import Finding
from control_plane.sources.files import FilesSource
from control_plane.store import State, Store
from meshproxy.contract import wire

WATCH_EVERY = 1.0
"""Seconds between two looks at whether every sidecar obeys."""
OBSERVE_EVERY = 0.5
"""Seconds between two looks at how the processes are."""


class BrokenFilesError(Exception):
    """The files cannot be started from; says why, one finding a line."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        super().__init__("\n".join(map(str, findings)))


class Supervisor:
    """
    All processes of a local mesh.

    Args:
        files: What the control plane reads.
        source: Reads the same, here, by the same rules.
        store: Where `source` puts what it read.
        network: Where each workload has a network namespace of its own; None for our own network.

    Attributes:
        workloads: What runs, by ``namespace/name``.
        report: How every process was at the last look.
    """

    def __init__(
        self,
        files: list[Path],
        directory: RunDirectory,
        source: FilesSource,
        store: Store,
        console: Console,
        network: Network | None = None,
    ) -> None:
        self.workloads: dict[str, LocalWorkload] = {}
        self.report = Report()
        self._files = files
        self._directory = directory
        self._source = source
        self._store = store
        self._findings: tuple[Finding, ...] = ()
        self._trust_domain = ""
        self._console = console
        self._observer = Observer(directory, console)
        self._placements = placement.Placements()
        self._ports = Ports()
        self._network = network
        self._minder: asyncio.subprocess.Process | None = None
        self._plane: LocalControlPlane | None = None

    @property
    def state(self) -> State:
        """What the files say, as far as it is in force."""
        return self._store.state

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
            CommandError: There is nothing in them.
            StartError: The control plane did not start.
        """
        self._source.load()
        state = self._store.state
        if any(finding.severity == "error" for finding in state.findings):
            raise BrokenFilesError(state.findings)
        if not state.locations:
            raise CommandError(f"no resources found in {', '.join(map(str, self._files))}")
        self._tell_findings(state)
        self._trust_domain = trust_domain_of(state)
        self._minder = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", minder.__file__,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )  # fmt: skip
        if self._network is not None:
            self._network.on_made = self._on_namespace
            await self._network.open()
        self._plane = LocalControlPlane(
            self._directory, self._files, self._trust_domain, self._console, self._on_group,
            self._ports, ADDRESS if self._network is None else self._network.plan.own,
        )  # fmt: skip
        try:
            self._placements = placement.read(self._directory.placements)
        except wire.ContractError as error:
            file = self._directory.placements
            self._console.say(
                NAME, f"{file} is damaged, new ports are taken: {error}", trouble=True
            )
        self._place(state)
        await self._plane.start()
        self._directory.processes.unlink(missing_ok=True)  # of a run that was killed
        self._directory.write(self._directory.context, wire.encode(self._plane.context))
        units = desire(state, self._trust_domain)
        await self._add(state, units, units)

    async def settled(self) -> None:
        """Wait until every sidecar is ready and every app accepts connections on its ports."""
        for workload in list(self.workloads.values()):
            await until(workload.is_ready)
            if workload.unit.app is None:
                continue
            for port in workload.placement.app_ports.values():
                await until(partial(accepts, workload.app_address, port, workload.namespace))

    async def synced(self) -> bool:
        """Say whether every sidecar obeys the newest configuration, by the control plane's word."""
        states = {proxy["workload"]: proxy["state"] for proxy in await self._proxies()}
        return all(states.get(name) == "SYNCED" for name in self.workloads)

    async def _proxies(self) -> list[dict[str, Any]]:
        """Return what the control plane knows of each sidecar; nothing while it is away."""
        try:
            found: list[dict[str, Any]] = await asyncio.to_thread(
                self.plane.client.get, "/api/v1/proxies"
            )
        except CommandError:
            return []
        return found

    # Following the files --------------------------------------------------------------------------

    async def follow(self) -> None:
        """Adapt the mesh to its files after each edit, for ever."""
        edited = asyncio.Event()
        unsubscribe = self._store.subscribe(lambda _state: edited.set())
        watching = asyncio.create_task(self._watch_proxies())
        observing = asyncio.create_task(self._observe())
        reading = asyncio.create_task(self._source.run())
        reading.add_done_callback(lambda _reading: edited.set())
        try:
            while not reading.done():
                await edited.wait()
                edited.clear()
                await self.adapt(self._store.state)
            await reading  # it runs for ever: this raises what ended it
        finally:
            unsubscribe()
            for task in (reading, watching, observing):
                task.cancel()
            await asyncio.gather(reading, watching, observing, return_exceptions=True)

    async def adapt(self, state: State) -> None:
        """Touch what is different in `state`, nothing else."""
        self._tell_findings(state)
        units = desire(state, self._trust_domain)
        running = {name: workload.unit for name, workload in self.workloads.items()}
        difference = changes(running, units)
        self._place(state)
        for name in difference.removed:
            self._console.say(NAME, f"{name} was removed: stopping it")
            await self.workloads[name].stop()
            if self._network is not None:
                await self._network.remove(name)
            del self.workloads[name]  # not before: who is on the list is stopped at the end
        for name, workload in self.workloads.items():
            workload.unit = units[name]
            workload.placement = self._placements.workloads[name]
            workload.services = tuple(state.services.values())
            workload.service_addresses = self._placements.service_addresses
            if self._network is not None:
                self._network.tell(name, self._hosts(state, name))
        for name in difference.sidecars:
            self._console.say(NAME, f"{name} has a new identity or version: restarting its sidecar")
            await self.workloads[name].restart_sidecar()
        for name in difference.apps:
            self._console.say(NAME, f"{name} runs something else now: restarting its app")
            await self.workloads[name].restart_app()
        for name in difference.added:
            self._console.say(NAME, f"{name} is new: starting it")
        await self._add(state, units, difference.added)

    async def _watch_proxies(self) -> None:
        """Say which sidecar refuses its configuration, and why: its app cannot know."""
        told: dict[str, str] = {}
        while True:
            for proxy in await self._proxies():
                name = proxy["workload"]
                if proxy["state"] == "REFUSED":
                    why = ": ".join(filter(None, (proxy["path"], proxy["reason"])))
                    if told.get(name) != why:
                        told[name] = why
                        self._console.say(
                            NAME, f"{name} refused its configuration: {why}", trouble=True
                        )
                elif proxy["state"] == "SYNCED" and told.pop(name, None) is not None:
                    self._console.say(NAME, f"{name} obeys its configuration again")
            await asyncio.sleep(WATCH_EVERY)

    async def _observe(self) -> None:
        """Keep the report on the processes new, for ever."""
        while True:
            self.report = await self._observer.look(
                self.plane.process, self.workloads, warnings(self._store.state)
            )
            await asyncio.sleep(OBSERVE_EVERY)

    async def _add(self, state: State, units: Mapping[str, Unit], names: Iterable[str]) -> None:
        names = tuple(names)
        if self._network is not None:
            add, placements = self._network.add, self._placements.workloads
            await asyncio.gather(
                *(add(name, placements[name], self._hosts(state, name)) for name in names)
            )
        for name in names:
            workload = self.workloads[name] = LocalWorkload(
                units[name],
                self._placements.workloads[name],
                tuple(state.services.values()),
                trust_domain=self._trust_domain,
                plane=self.plane,
                directory=self._directory,
                console=self._console,
                on_group=self._on_group,
                ports=self._ports,
                network=self._network,
            )
            workload.service_addresses = self._placements.service_addresses
            workload.start()

    def _place(self, state: State) -> None:
        """Hand out ports or addresses and tell the control plane, which watches the file."""
        others = (self.plane.discovery, self.plane.api)
        services, before = state.services.values(), self._placements
        if self._network is not None:
            plan = self._network.plan
            placements = addresses.allocate(state.workloads, services, before, plan)
            self._ports.retain(others)
        else:
            placements = allocate(state.workloads, services, before, self._ports, others=others)
            placed = (port for one in placements.workloads.values() for port in ports_of(one))
            self._ports.retain({*others, *placed})
        if placements != self._placements or not self._directory.placements.exists():
            self._directory.write(
                self._directory.placements, msgspec.json.format(msgspec.json.encode(placements))
            )
        self._placements = placements

    def _hosts(self, state: State, workload: str) -> str:
        """Return the hosts file of a workload."""
        return hosts_file(
            workload.partition("/")[0], state.services.values(), self._placements.service_addresses
        )

    def _tell_findings(self, state: State) -> None:
        """Say what came up since the last edit, and that all is mended when it is."""
        for finding in state.findings:
            if finding not in self._findings:
                refused = finding.severity == "error"
                what = "refused, the old version stays in force" if refused else "unresolved"
                self._console.say(NAME, f"{what}: {finding}", trouble=refused)
        if self._findings and not state.findings:
            self._console.say(NAME, "all findings are mended")
        self._findings = state.findings

    # Stopping -------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Stop everything, in the order in which it hurts least."""
        workloads = list(self.workloads.values())
        await asyncio.gather(*(workload.stop_app() for workload in workloads))
        await asyncio.gather(*(workload.sidecar.stop() for workload in workloads))
        if self._plane is not None:
            await self._plane.process.stop()
        self._ports.retain(())
        if self._network is not None:
            await self._network.close()
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

    def _on_namespace(self, name: str) -> None:
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.write(b"netns %s %d\n" % (name.encode(), inode(name)))

    def _on_group(self, group: int, alive: bool) -> None:
        if self._minder is not None and self._minder.stdin is not None:
            self._minder.stdin.write(b"%d\n" % (group if alive else -group))
