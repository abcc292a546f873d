"""The demo, for real: all processes, the load, live edits, and what is left afterwards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.cli.client import request
from control_plane.cli.demo import demo_files
from control_plane.cli.errors import CommandError

pytestmark = pytest.mark.integration

START_WITHIN = 60.0


def meshctl(*words: str) -> list[str]:
    return [sys.executable, "-m", "control_plane.cli.main", *words]


def processes_of(run_dir: Path) -> list[int]:
    """Return the processes that mention the run directory, or inherited its mesh."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        marked = f"DEMO_TEST={run_dir}".encode() in environment
        if marked or str(run_dir).encode() in words:
            found.append(int(folder.name))
    return found


def ports_of(run_dir: Path) -> set[int]:
    """Return every port that the mesh listened on, from what it wrote down."""
    text = (run_dir / "placements.json").read_text() + (run_dir / "control-plane.json").read_text()
    return {int(port) for port in re.findall(r": (2\d{4}|3[01]\d{3})\b", text)}


def listening() -> set[int]:
    """Return the ports that anybody listens on (state 0A of /proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A"}


class Demo:
    """A running `meshctl demo` on a copy of its files."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.run_dir = folder / "run"
        self.log = folder / "demo.log"
        environment = {**os.environ, "DEMO_TEST": str(self.run_dir)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                meshctl("demo", "--run-dir", str(self.run_dir), *words),
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        context = str(self.run_dir / "context.json")
        return subprocess.run(
            meshctl(*words, "--context", context), capture_output=True, text=True, check=False
        )

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + START_WITHIN
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)

    def nothing_is_left(self) -> bool:
        deadline = time.monotonic() + 5
        while processes_of(self.run_dir):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return not ports_of(self.run_dir) & listening()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for pid in processes_of(tmp_path / "run"):
        os.kill(pid, signal.SIGKILL)


def test_twenty_seconds_of_demo_are_a_success(folder: Path) -> None:
    """Every request succeeds, every hop is mutual TLS, nothing is left behind."""
    demo = Demo(folder, "--for", "20s")

    assert demo.process.wait(120) == 0, demo.log.read_text()
    said = demo.log.read_text()
    assert re.search(r"\d{3,} requests from outside in .*: \d+ answered, 0 failed", said)
    proved = re.search(
        r"^(\d+) of (\d+) requests between sidecars were mutual TLS", said, re.MULTILINE
    )
    assert proved is not None
    assert proved[1] == proved[2]
    assert demo.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(folder: Path, number: signal.Signals) -> None:
    """Judged as if its time had been over; nothing is left behind."""
    demo = Demo(folder)
    demo.wait_for("requests from outside, 0 failed")
    demo.process.send_signal(number)

    assert demo.process.wait(60) == 0, demo.log.read_text()
    assert "answered, 0 failed" in demo.log.read_text()
    assert demo.nothing_is_left()


def test_a_killed_meshctl_leaves_no_orphan(folder: Path) -> None:
    """SIGKILL cannot be handled; the kernel and the minder end the rest."""
    demo = Demo(folder)
    demo.wait_for("requests from outside, 0 failed")
    demo.process.kill()
    demo.process.wait()

    assert demo.nothing_is_left()


def test_the_other_verbs_see_the_demo(folder: Path) -> None:
    """Health, proxies and traffic of the running mesh."""
    demo = Demo(folder)
    demo.wait_for("requests from outside, 0 failed")

    status = demo.ask("status", "-o", "json")
    proxies = json.loads(demo.ask("proxies", "-o", "json").stdout)
    traffic = json.loads(demo.ask("stat", "-o", "json").stdout)
    config = demo.ask("config", "storefront", "routes")
    demo.process.terminate()
    demo.process.wait(60)

    assert status.returncode == 0, status.stdout
    assert {proxy["state"] for proxy in proxies} == {"SYNCED"}
    assert len(proxies) == 5
    hops = {(row["source"], row["destination"]) for row in traffic}
    assert ("default/visitors", "default/storefront") in hops
    assert all(row["identity"].startswith("spiffe://demo.mesh/") for row in traffic)
    assert "catalog-v1:80 90%" in config.stdout


class Shop:
    """A mesh of `meshctl up` on a copy of the demo's files, and its door."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "demo"
        shutil.copytree(demo_files(), self.files)
        self.run_dir = folder / "run"
        with (folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                meshctl("up", "-f", str(self.files), "--run-dir", str(self.run_dir)),
                stdout=log,
                env={**os.environ, "DEMO_TEST": str(self.run_dir)},
            )

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        context = str(self.run_dir / "context.json")
        return subprocess.run(
            meshctl(*words, "--context", context), capture_output=True, text=True, check=False
        )

    def until(self, words: tuple[str, ...], expected: str, within: float) -> None:
        deadline = time.monotonic() + within
        while expected not in (said := self.ask(*words)).stdout:
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def visit(self) -> tuple[int, str]:
        """Send a request through the door; return status and the version of the catalog."""
        place = json.loads((self.run_dir / "placements.json").read_text())["workloads"]
        port = place["default/visitors"]["service_ports"]["default/storefront:80"]
        status, body = request(f"127.0.0.1:{port}", "GET", "/")
        return status, json.loads(body)["catalog"] if status == 200 else body.decode()

    def is_open(self) -> bool:
        try:
            return self.visit()[0] == 200
        except (OSError, CommandError):
            return False


def test_an_edit_of_the_weights_moves_the_traffic(folder: Path) -> None:
    """Within a second, with no failed request; a broken edit changes nothing and is shown."""
    shop = Shop(folder)
    deadline = time.monotonic() + START_WITHIN
    while not shop.is_open():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    routes = shop.files / "routes.yaml"
    good = routes.read_text()

    routes.write_text(good.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100"))
    edited, last_v1 = time.monotonic(), 0.0
    while (since := time.monotonic() - edited) < 3:
        status, version = shop.visit()
        assert status == 200, version
        if version == "v1":
            last_v1 = since
    assert last_v1 < 1

    routes.write_text(good.replace("weight: 90", "weight: ten"))
    shop.until(("status",), 'weight: "ten" is a string', 5)
    assert shop.ask("status").returncode == 1
    assert {shop.visit() for _ in range(20)} == {(200, "v2")}

    routes.write_text(good)
    shop.until(("status",), "findings        none", 5)
    shop.process.terminate()
    assert shop.process.wait(60) == 0
