import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from control_plane.placement import Placement, Placements
from control_plane.sources.files import SETTLE, FilesSource, look
from control_plane.store import State, Store
from tests.helpers.mesh import service

Until = Callable[[Callable[[State], bool]], Awaitable[None]]
BROKEN = "kind: Foo\n"


class Mesh:
    """A folder of files, and a store that follows it."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "config"
        self.folder.mkdir()
        self.accepted = root / "accepted"
        self.placements = root / "placements.json"
        self.store = Store()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def load(self) -> Store:
        """Start anew, as a control plane that was restarted."""
        self.store = Store()
        self.source().load()
        return self.store

    def source(self) -> FilesSource:
        return FilesSource([self.folder], self.store, self.accepted, self.placements)

    @property
    def services(self) -> list[str]:
        return sorted(self.store.state.services)

    @property
    def findings(self) -> list[str]:
        return [str(finding) for finding in self.store.state.findings]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


@asynccontextmanager
async def following(mesh: Mesh) -> AsyncIterator[Until]:
    """Run the source; yields what waits until a state is as it should be."""
    changed = asyncio.Event()
    mesh.store.subscribe(lambda _: changed.set())

    async def until(condition: Callable[[State], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition(mesh.store.state):
                changed.clear()
                await changed.wait()

    task = asyncio.create_task(mesh.source().run())
    try:
        yield until
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# One look -----------------------------------------------------------------------------------------


def test_loads_folders_of_yaml_and_nothing_else(mesh: Mesh) -> None:
    """Both suffixes, any depth; hidden files and editors' backups are not ours."""
    mesh.write("a.yaml", service("a"))
    mesh.write("sub/b.yml", service("b"))
    for name in (".c.yaml", "c.yaml~", "c.yaml.swp", "#c.yaml#", ".git/c.yaml", "c.txt"):
        mesh.write(name, service("c"))
    mesh.load()
    assert mesh.services == ["default/a", "default/b"]
    assert mesh.findings == []


def test_a_broken_file_keeps_its_last_good_version_over_a_restart(mesh: Mesh) -> None:
    """What was in force is kept, readable by its owner only."""
    path = mesh.write("a.yaml", service("a"))
    mesh.load()
    path.write_text(BROKEN)
    mesh.load()
    assert mesh.services == ["default/a"]
    assert len(mesh.findings) == 1
    assert f"{path}:1: Foo: kind: " in mesh.findings[0]
    (kept,) = mesh.accepted.iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(mesh.accepted.stat().st_mode) == 0o700


def test_a_file_that_never_was_good_has_nothing_in_force(mesh: Mesh) -> None:
    """Its finding is all there is of it; other files proceed."""
    mesh.write("a.yaml", BROKEN)
    mesh.write("b.yaml", service("b"))
    mesh.load()
    assert mesh.services == ["default/b"]
    assert len(mesh.findings) == 1


def test_a_file_deleted_while_nobody_watched_is_gone(mesh: Mesh) -> None:
    """A real deletion is obeyed, and nothing of it is kept."""
    path = mesh.write("a.yaml", service("a"))
    mesh.load()
    path.unlink()
    mesh.load()
    assert mesh.services == []
    assert list(mesh.accepted.iterdir()) == []


def test_a_folder_that_vanished_takes_nothing_along(mesh: Mesh) -> None:
    """An unmounted disk is no deletion, also after a restart."""
    mesh.write("a.yaml", service("a"))
    mesh.load()
    shutil.rmtree(mesh.folder)
    mesh.load()
    assert mesh.services == ["default/a"]
    assert mesh.findings == [
        (
            f"{mesh.folder}: cannot be read: No such file or directory; "
            "what was known of it stays in force"
        )
    ]


def test_a_file_that_cannot_be_read_stays_in_force(mesh: Mesh) -> None:
    """A link whose target is being replaced, or bytes that are no text."""
    mesh.write("a.yaml", service("a"))
    mesh.write("b.yaml", service("b"))
    mesh.load()
    (mesh.folder / "a.yaml").unlink()
    (mesh.folder / "a.yaml").symlink_to("nowhere")
    (mesh.folder / "b.yaml").write_bytes(b"a: \xff")
    mesh.load()
    assert mesh.services == ["default/a", "default/b"]
    assert "a.yaml: cannot be read: No such file or directory; what" in mesh.findings[0]
    assert "b.yaml: is not UTF-8 text (byte 3); what" in mesh.findings[1]


def test_what_is_no_regular_file_or_too_large_is_refused(mesh: Mesh) -> None:
    """A pipe would block for ever; a huge file would take the memory."""
    os.mkfifo(mesh.folder / "a.yaml")
    with (mesh.folder / "b.yaml").open("wb") as file:
        file.truncate(11 * 2**20)
    disk = look([mesh.folder])
    assert disk.texts == {}
    assert ["regular file" in str(found) for found in disk.unknown.values()] == [True, False]
    assert "larger than 10 MiB" in str(disk.unknown[mesh.folder / "b.yaml"])


def test_damaged_memory_is_not_used(mesh: Mesh) -> None:
    """A kept text that cannot be read is as good as none."""
    path = mesh.write("a.yaml", service("a"))
    mesh.load()
    for kept in mesh.accepted.iterdir():
        kept.write_text("{")
    path.write_text(BROKEN)
    mesh.load()
    assert mesh.services == []


def test_a_place_to_remember_that_cannot_be_written(mesh: Mesh) -> None:
    """A full disk costs the memory of a version, not the version."""
    mesh.accepted.write_text("a file where a folder is wanted")
    mesh.write("a.yaml", service("a"))
    mesh.load()
    assert mesh.services == ["default/a"]


def test_broken_placements_keep_the_last_ones(mesh: Mesh) -> None:
    """Endpoints do not vanish because a file was caught half written."""
    source = mesh.source()
    placements = Placements(workloads={"a/b": Placement()})
    mesh.placements.write_bytes(msgspec.json.encode(placements))
    source.load()
    assert mesh.store.state.placements == placements
    mesh.placements.write_text('{"workloads": {"a/b": {"admin_port": 0}}}')
    source.load()
    assert mesh.store.state.placements == placements
    assert "placements.json: workloads[...].admin_port: Expected `int` >= 1" in mesh.findings[0]


# Watching -----------------------------------------------------------------------------------------


async def test_saves_are_followed(mesh: Mesh) -> None:
    """Written in place, renamed into place, in a new folder, deleted."""
    path = mesh.write("a.yaml", service("a"))
    async with following(mesh) as until:
        await until(lambda state: list(state.services) == ["default/a"])
        path.write_text(service("b"))
        await until(lambda state: list(state.services) == ["default/b"])
        new = mesh.write(".a.yaml.tmp", service("c"))
        new.replace(path)
        await until(lambda state: list(state.services) == ["default/c"])
        mesh.write("sub/d.yaml", service("d"))
        await until(lambda state: "default/d" in state.services)
        path.unlink()
        await until(lambda state: list(state.services) == ["default/d"])


async def test_a_relative_folder_is_followed(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Findings show the path as it was given."""
    monkeypatch.chdir(mesh.folder.parent)
    path = mesh.write("a.yaml", service("a"))
    source = FilesSource([Path("config")], mesh.store, mesh.accepted)
    mesh.source = lambda: source  # type: ignore[method-assign]
    async with following(mesh) as until:
        await until(lambda state: bool(state.services))
        path.write_text(service("a", port=81))
        await until(lambda state: state.services["default/a"].spec.ports[0].port == 81)
        path.write_text(BROKEN)
        await until(lambda state: bool(state.findings))
        assert mesh.store.state.findings[0].file == "config/a.yaml"


async def test_a_broken_edit_is_reported_until_it_is_mended(mesh: Mesh) -> None:
    """And never takes the good version's place."""
    path = mesh.write("a.yaml", service("a"))
    async with following(mesh) as until:
        await until(lambda state: bool(state.services))
        path.write_text(BROKEN)
        await until(lambda state: bool(state.findings))
        assert mesh.services == ["default/a"]
        path.write_text(service("b"))
        await until(lambda state: not state.findings)
        assert mesh.services == ["default/b"]


@pytest.mark.parametrize("first", ["emptied", "deleted"])
async def test_a_save_that_is_caught_half_done_takes_nothing_away(mesh: Mesh, first: str) -> None:
    """Some editors empty a file before they write it, some delete it before they make it anew."""
    path = mesh.write("a.yaml", service("a"))
    async with following(mesh) as until:
        await until(lambda state: bool(state.services))
        seen: list[list[str]] = []
        mesh.store.subscribe(lambda state: seen.append(sorted(state.services)))
        if first == "emptied":
            path.write_text("")
        else:
            path.unlink()
        await asyncio.sleep(SETTLE / 2000)  # the moment in between is what this is about
        path.write_text(service("a", port=81))
        await until(lambda state: state.services["default/a"].spec.ports[0].port == 81)
        assert seen == [["default/a"]]


async def test_a_folder_that_vanishes_and_comes_back(mesh: Mesh) -> None:
    """Its files stay in force in between, and are watched again after."""
    mesh.write("a.yaml", service("a"))
    async with following(mesh) as until:
        await until(lambda state: bool(state.services))
        mesh.folder.rename(mesh.folder.with_name("away"))
        await until(lambda state: bool(state.findings))
        assert mesh.services == ["default/a"]
        mesh.folder.mkdir()
        mesh.write("b.yaml", service("b"))
        await until(lambda state: list(state.services) == ["default/b"])
        mesh.write("b.yaml", service("c"))
        await until(lambda state: list(state.services) == ["default/c"])


async def test_single_files_and_placements_are_followed(mesh: Mesh) -> None:
    """Also through a save that replaces the file."""
    path = mesh.write("a.yaml", service("a"))
    source = FilesSource([path], mesh.store, mesh.accepted, mesh.placements)
    mesh.source = lambda: source  # type: ignore[method-assign]
    async with following(mesh) as until:
        await until(lambda state: bool(state.services))
        mesh.write("other.tmp", service("b")).replace(path)
        await until(lambda state: list(state.services) == ["default/b"])
        placements = Placements(workloads={"a/b": Placement()})
        mesh.placements.write_bytes(msgspec.json.encode(placements))
        await until(lambda state: state.placements == placements)
