"""
The control plane of a local mesh: its configuration, its process, and what the mesh asks of it.
"""

import asyncio
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import control_plane
from control_plane.access import OPERATE_TOKEN, VIEW_TOKEN
from control_plane.cli.client import Client
from control_plane.cli.context import Context
from control_plane.cli.errors import CommandError
from control_plane.cli.local.allocation import Ports
from control_plane.cli.local.logs import Console
from control_plane.cli.local.process import Command, Groups, ManagedProcess, NotReadyError
from control_plane.cli.local.reservation import ADDRESS
from control_plane.cli.local.rundir import RunDirectory
from meshproxy.interpreter import SAID

NAME = "control-plane"
ACCOUNT = "ns/mesh-system/sa/control-plane"
GRACE = 5.0
START_WITHIN = 30.0
TOKEN_WITHIN = 5.0
POLL = 0.05


class StartError(CommandError):
    """The mesh cannot start; says what a child said last."""


def own_program(module: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of one of our own programs; -P: never from the current directory."""
    return (sys.executable, "-P", "-m", module, *arguments)


def own_environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """
    Return an environment in which our programs are found also when they are not installed.

    What there is to say of the interpreter, `run` says: each of them has the same.
    """
    root = str(Path(control_plane.__file__).parent.parent)
    path = [root, *filter(None, [inherited.get("PYTHONPATH")])]
    ours = {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", SAID: "1"}
    return {**inherited, **ours}


class LocalControlPlane:
    """
    One control plane that reads the mesh's files.

    Args:
        address: Where sidecars reach it; the API stays on the loopback.

    Attributes:
        discovery: Port that sidecars connect to.
        api: Port of the HTTP API.
    """

    def __init__(
        self,
        directory: RunDirectory,
        files: Iterable[Path],
        trust_domain: str,
        console: Console,
        on_group: Groups,
        ports: Ports,
        address: str = ADDRESS,
    ) -> None:
        self.identity = f"spiffe://{trust_domain}/{ACCOUNT}"
        self.state = directory.state(trust_domain, NAME)
        self._address = address
        self._directory = directory
        self._files = [str(path.absolute()) for path in files]
        self.discovery, self.api = (
            port if port is not None and ports.keep(port) else ports.new()
            for port in _previous_ports(directory.control_plane)
        )
        self.context = Context(
            api=f"http://{ADDRESS}:{self.api}",
            token_file=str(self.state / OPERATE_TOKEN),
            view_token_file=str(self.state / VIEW_TOKEN),
            run_dir=str(directory.path),
            pid=os.getpid(),
        )
        self.client = Client(self.context)
        self.process = ManagedProcess(
            NAME,
            self._prepare,
            console,
            directory.logs / f"{NAME}.log",
            grace=GRACE,
            on_group=on_group,
            own=True,
        )

    async def start(self) -> None:
        """
        Start it and wait until it is ready.

        Raises:
            StartError: It ended, or was not ready in time.
        """
        self.process.start()
        try:
            async with asyncio.timeout(START_WITHIN):
                while not await asyncio.to_thread(self.client.is_ready):
                    if self.process.failures:
                        raise self._start_error("did not start")
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise self._start_error(f"was not ready within {START_WITHIN:g} s") from None
        await self._keep_roots()

    async def _keep_roots(self) -> None:
        roots = await asyncio.to_thread(self.client.text, "/api/v1/roots")
        # Not in the thread: several workloads ask for tokens at once, and there is one draft.
        self._directory.write(self._directory.roots, roots.encode())

    async def token(self, workload: str) -> str:
        """
        Return a fresh join token for a workload; the roots for its first contact are then fresh, too.

        Raises:
            NotReadyError: The control plane cannot give one now; it may not have read the
                workload's file yet, or be away.
        """
        problem = ""
        try:
            async with asyncio.timeout(TOKEN_WITHIN):
                while True:
                    try:
                        answer = await asyncio.to_thread(
                            self.client.post, "/api/v1/tokens", {"workload": workload}
                        )
                        await self._keep_roots()
                        return str(answer["token"])
                    except CommandError as error:
                        problem = str(error)
                    await asyncio.sleep(POLL)
        except TimeoutError:
            raise NotReadyError(f"no join token: {problem}") from None

    def described(self) -> dict[str, Any]:
        """Return how a sidecar's bootstrap names it."""
        return {
            "address": self._address,
            "port": self.discovery,
            "identity": self.identity,
            "roots": str(self._directory.roots),
        }

    async def _prepare(self) -> Command:
        config = {
            "state": str(self.state),
            "files": self._files,
            "placements": str(self._directory.placements),
            "discovery": {"address": self._address, "port": self.discovery},
            "api": {"address": ADDRESS, "port": self.api},
        }
        path = self._directory.control_plane
        self._directory.write(path, json.dumps(config, indent=2).encode())
        return Command(
            own_program("control_plane", "run", "--config", str(path), "--allow-root"),
            own_environment(os.environ),
            self._directory.path,
        )

    def _start_error(self, what: str) -> StartError:
        said = "".join(f"\n    {line}" for line in self.process.last_lines)
        return StartError(f"the control plane {what}" + (f"; it said:{said}" if said else ""))


def _previous_ports(config: Path) -> tuple[int | None, int | None]:
    try:
        old = json.loads(config.read_bytes())
        return int(old["discovery"]["port"]), int(old["api"]["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None  # the first start here, or a file that will be written anew
