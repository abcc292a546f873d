"""
What somebody tries who may put files where the control plane reads them: bombs, traps and nonsense.

Each is written beside a good file of somebody else, of which a later edit must still be obeyed.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from tests.helpers.mesh import service
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration

PATIENCE = 20.0
MEMORY = 192 << 20
"""Bytes that the control plane may grow by; what bombs would take are gigabytes."""

HEAD = "apiVersion: v1\nkind: Service\nmetadata: {name: evil}\n"


class Plane:
    """One control plane process, and the folder that it reads."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "config"
        self.folder.mkdir()
        (self.folder / "good.yaml").write_text(service("good"))
        self.port = free_port()
        self.state = directory / "state"
        config = directory / "plane.json"
        config.write_text(
            json.dumps(
                {
                    "state": str(self.state),
                    "files": [str(self.folder)],
                    "discovery": {"port": 0},
                    "api": {"port": self.port},
                }
            )
        )
        self.log = directory / "log"
        self.command = [sys.executable, "-m", "control_plane", "run", "--config", str(config)]
        self.process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log)
        self.until(lambda: self.status()["resources"]["Service"] >= 1)
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait(10)

    def status(self) -> Any:
        token = (self.state / "viewer.token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/status",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            with contextlib.suppress(OSError, KeyError):
                if condition():
                    return
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with Plane(tmp_path_factory.mktemp("plane")) as it:
        yield it


# Who writes them, and what is said of them ---------------------------------------------------------


def deep_folders(folder: Path) -> None:
    """Deeper than a recursion may go."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(1500):
            os.mkdir("d")  # noqa: PTH102 - the path would be too long
            os.chdir("d")
        Path("a.yaml").write_text(HEAD)
    finally:
        os.chdir(before)


def name_that_is_no_text(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe\n\x1b[31m.yaml")).write_text(service("odd"))


def endless_log_of_the_kernel(folder: Path) -> None:
    """A regular file, as far as its type says: who reads it waits."""
    (folder / "a.yaml").symlink_to("/proc/kmsg")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "a.yaml")


def device(folder: Path) -> None:
    (folder / "a.yaml").symlink_to("/dev/zero")


def link_to_itself(folder: Path) -> None:
    (folder / "a.yaml").symlink_to("a.yaml")


def link_to_everything(folder: Path) -> None:
    (folder / "root").symlink_to("/")
    (folder / "a.yaml").write_text("kind: Foo\n")


def text(content: str | bytes) -> Callable[[Path], None]:
    data = content if isinstance(content, bytes) else content.encode()

    def write(folder: Path) -> None:
        (folder / "a.yaml").write_bytes(data)

    return write


def many_large_files(folder: Path) -> None:
    for number in range(40):
        with (folder / f"{number}.yaml").open("wb") as file:
            file.write(b"#")
            file.truncate(9 << 20)


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)
REPEATED = f"{HEAD}spec: {{selector: {{a: &x {'A' * 2_000_000}}}, ports: [{'{port: 1, name: *x},' * 20_000}]}}\n"

ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "aliases": (text(LAUGHS), "more than 1000000 values"),
    "one long value, repeated": (text(REPEATED), "its aliases repeat"),
    "nested lists": (text("[" * 500_000), "nested more than 64 levels"),
    "a long key, twice": (text(f"? {'A' * 4_000_000}\n: 1\n" * 2), "stands twice"),
    "a number of many digits": (text(f"{HEAD}spec: {{ports: [{{port: {'9' * 500_000}}}]}}\n"), "expected"),
    "many documents": (text("---\nkind: Foo\n" * 100_000), "not looked for"),
    "many fields": (text(f"{HEAD}spec: {{{','.join(f'f{n}: 1' for n in range(100_000))}}}\n"), "not looked for"),
    "a key twice": (text(f"{HEAD}spec: {{}}\nspec: {{}}\n"), "stands twice"),
    "not UTF-8": (text(b"a: \xff"), "not UTF-8"),
    "UTF-16": (text("a: b".encode("utf-16")), "not UTF-8"),
    "NUL": (text("a: \0"), "not YAML"),
    "code": (text("a: !!python/object/apply:os.system [id]\n"), "is not supported"),
    "a list of resources": (text("apiVersion: v1\nkind: List\nitems: []\n"), "is not a kind"),
    "other types": (text("apiVersion: [v1]\nkind: {a: b}\nmetadata: 7\n---\n7\n---\n- a\n"), "expected"),
    "types within": (
        text("apiVersion: v1\nkind: Service\nmetadata: {name: {a: b}, labels: 5}\nspec: []\n"),
        "expected",
    ),
    "deep folders": (deep_folders, "deeper than"),
    "a name that is no text": (name_that_is_no_text, "name"),
    # What is wrong with it depends on what the kernel has said last.
    "the kernel's log": (endless_log_of_the_kernel, ""),
    "a pipe": (pipe, "not a regular file"),
    "a device": (device, "not a regular file"),
    "a link to itself": (link_to_itself, "cannot be read"),
    "a link to everything": (link_to_everything, "is not a kind"),
    "many large files": (many_large_files, "together"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_traps_among_the_files(plane: Plane, name: str) -> None:
    """It is named in a finding that is no bomb itself; what others write is obeyed as before."""
    attack, told = ATTACKS[name]
    before = plane.memory()
    aside = plane.folder.parent / "aside"
    aside.mkdir()
    attack(aside)
    evil = plane.folder / "evil"
    aside.rename(evil)
    try:
        plane.until(lambda: _told(plane, told))
        (plane.folder / "good.yaml").write_text(service("good") + "---" + service("better"))
        plane.until(lambda: plane.status()["resources"]["Service"] >= 2)
        assert len(json.dumps(plane.status())) < 200_000
        assert plane.memory() < before + MEMORY
    finally:
        subprocess.run(["rm", "-rf", str(evil)], check=True)
        (plane.folder / "good.yaml").write_text(service("good"))
        plane.until(lambda: plane.status()["findings"] == [])


def _told(plane: Plane, what: str) -> bool:
    findings = plane.status()["findings"]
    return any(one in finding["message"] for finding in findings for one in what.split("|"))
