"""A whole mesh, started by `meshctl up` or `demo`, with everything in processes of their own."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from control_plane.cli.local.namespace import socket_in
from control_plane.cli.local.network import mark_of, name_of
from tests.helpers.client import Client, connect

ROOT = Path(__file__).parent.parent.parent
APP = Path(__file__).parent / "app.py"
MESHCTL = (sys.executable, "-m", "control_plane.cli.main")
PATIENCE = 60.0
"""Seconds after which a test gives up; what is waited for takes a hundredth of it, or all our CPUs."""
EARLY = (OSError, http.client.HTTPException, ValueError, KeyError, psutil.Error)
"""What looking at a mesh that is only just starting may raise."""

MESH = """
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {name: mesh}
spec: {trustDomain: test.mesh, mtls: STRICT}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec:
  selector: SELECTOR
  ports: [{port: 80, targetPort: 8080}]
"""

WORKLOAD = """
apiVersion: meshproxy.io/v1alpha1
kind: Workload
metadata: {name: NAME, labels: LABELS}
spec:
  serviceAccount: ACCOUNT
"""

RUN = """
  ports: [{port: 8080}]
  run: {command: ["$(MESH_PYTHON)", APP], env: {NAME: NAME_}}
"""

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: catalog}
spec:
  parentRefs: [{group: "", kind: Service, name: catalog}]
  rules:
    - backendRefs:
        - {name: catalog-v1, port: 80, weight: ONE}
        - {name: catalog-v2, port: 80, weight: TWO}
"""


def service(name: str, selector: dict[str, str]) -> str:
    return SERVICE.replace("NAME", name).replace("SELECTOR", json.dumps(selector))


def workload(name: str, labels: dict[str, str], *, account: str = "", app: bool = True) -> str:
    text = WORKLOAD.replace("ACCOUNT", account or name).replace("LABELS", json.dumps(labels))
    if app:
        text += RUN.replace("APP", json.dumps(str(APP))).replace("NAME_", name)
    return text.replace("NAME", name, 1)


def route(one: int | str, two: int | str) -> str:
    return ROUTE.replace("ONE", str(one)).replace("TWO", str(two))


def shop() -> dict[str, str]:
    """A door, a catalog in two versions, and a route that sends all to the first."""
    return {
        "mesh.yaml": MESH,
        "services.yaml": "---".join(
            [
                service("catalog", {"app": "catalog"}),
                service("catalog-v1", {"app": "catalog", "version": "v1"}),
                service("catalog-v2", {"app": "catalog", "version": "v2"}),
            ]
        ),
        "workloads.yaml": "---".join(
            [
                workload("door", {"app": "door"}, app=False),
                workload("catalog-v1", {"app": "catalog", "version": "v1"}, account="catalog"),
                workload("catalog-v2", {"app": "catalog", "version": "v2"}, account="catalog"),
            ]
        ),
        "route.yaml": route(100, 0),
    }


class RunningMesh:
    """
    `with` starts it and waits until every proxy obeys; the end leaves nothing behind.

    Args:
        directory: Where everything lies.
        files: What `meshctl up` runs; None for `meshctl demo`.
        words: More words of the command line.
    """

    def __init__(self, directory: Path, files: dict[str, str] | None, *words: str) -> None:
        self.config = directory / "config"
        self.config.mkdir()
        self.run = directory / "run"
        self._output = directory / "output"
        for name, text in (files or {}).items():
            self.write(name, text)
        verb = ["demo"] if files is None else ["up", "-f", str(self.config)]
        self._command = [*MESHCTL, *verb, "--run-dir", str(self.run), *words]
        self.process: subprocess.Popen[bytes]

    def write(self, name: str, text: str) -> None:
        """Save as an editor does: a new file takes the place of the old one."""
        new = self.config / f".{name}.swp"
        new.write_text(text)
        new.rename(self.config / name)

    def __enter__(self) -> Self:
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            self.until(self.synced, "every proxy to be SYNCED")
            self.until(self.served, "every app to listen")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    # Waiting ----------------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while True:
            assert self.process.poll() is None, f"meshctl up has ended:\n{self.output()[-4000:]}"
            with contextlib.suppress(*EARLY):
                if condition():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {patience} s for {what}:\n{self.output()[-4000:]}")
            time.sleep(0.05)

    def synced(self) -> bool:
        proxies = self.api("/api/v1/proxies")
        return bool(proxies) and {"SYNCED"} == {proxy["state"] for proxy in proxies}

    def served(self) -> bool:
        placements = json.loads((self.run / "placements.json").read_text())
        for name, placed in placements["workloads"].items():
            for port in placed.get("app_ports", {}).values():
                inside = placed.get("captured", False)
                with socket_in(self.namespace(name)) if inside else socket.socket() as sock:
                    sock.settimeout(1)
                    sock.connect(("127.0.0.1", port))
        return True

    # Looking ----------------------------------------------------------------------------------

    def api(self, path: str) -> Any:
        return json.loads(self.text(path))

    def text(self, path: str) -> str:
        """Return what the control plane's API says."""
        context = json.loads((self.run / "context.json").read_text())
        token = Path(self.run, context["token_file"]).read_text().strip()
        host = context["api"].removeprefix("http://")
        connection = http.client.HTTPConnection(host, timeout=5)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def meshctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*MESHCTL, *arguments],
            cwd=ROOT,
            env={**os.environ, "MESHCTL_CONTEXT": str(self.run / "context.json")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def placement(self, name: str) -> dict[str, Any]:
        placements = json.loads((self.run / "placements.json").read_text())
        found: dict[str, Any] = placements["workloads"][f"default/{name}"]
        return found

    def namespace(self, name: str) -> str:
        """Return the network namespace of a workload, with `--netns`."""
        return name_of(mark_of(self.run), name if "/" in name else f"default/{name}")

    def inside(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program in a workload's network namespace, with `--netns`."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace(name), *command],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def door(self, name: str = "catalog") -> int:
        """Port at the door's sidecar that leads to a service."""
        port: int = self.placement("door")["service_ports"][f"default/{name}:80"]
        return port

    def find(self, *words: str) -> psutil.Process:
        """Return the one process of the mesh whose command line has all the words."""
        [found] = [
            process
            for process in self.family()
            if all(any(word in part for part in process.cmdline()) for word in words)
        ]
        return found

    def family(self) -> list[psutil.Process]:
        """Return every process below `meshctl`."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def control_plane(self) -> psutil.Process:
        return self.find("control_plane", "--config")

    def sidecar(self, name: str) -> psutil.Process:
        return self.find("meshproxy", "--bootstrap", f"/{name}.")


@dataclass
class Load:
    """
    What a steady load saw.

    Attributes:
        answers: (seconds since the start, body) of each request that was answered with 200.
        failures: What went wrong with the others.
    """

    answers: list[tuple[float, bytes]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def now(self) -> float:
        return time.monotonic() - self.started

    def since(self, moment: float) -> set[bytes]:
        """Return the first words of the answers after a moment."""
        return {body.split()[0] for at, body in self.answers if at > moment}


@contextlib.asynccontextmanager
async def load(port: int, clients: int = 8) -> Any:
    """Ask all the time, on connections that are kept and on fresh ones, until the block ends."""
    result = Load()
    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(_ask(port, result, fresh=number % 4 == 3))
        yield result
        result.over.set()


async def _ask(port: int, result: Load, *, fresh: bool) -> None:
    while not result.over.is_set():
        try:
            async with connect(port) as client:
                await _ask_on(client, result, once=fresh)
        except OSError as error:
            result.failures.append(f"{result.now():.2f} s: connection: {error!r}")


async def _ask_on(client: Client, result: Load, *, once: bool) -> None:
    while not result.over.is_set():
        try:
            await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
            response = await client.response()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            result.failures.append(f"{result.now():.2f} s: {error!r}")
            return
        if response.status == 200:
            result.answers.append((result.now(), response.body))
        else:
            result.failures.append(f"{result.now():.2f} s: {response.status} {response.body!r}")
        await asyncio.sleep(0.03)
        if once:
            return


def ports_of(process: psutil.Process) -> Iterator[int]:
    for connection in process.net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            yield connection.laddr.port
