import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.cli.local import namespace
from control_plane.cli.local.namespace import (
    NamespaceError,
    give_file,
    inode,
    named,
    socket_in,
    take_files,
)
from tests.helpers.namespaces import Namespace, needs_namespaces


@pytest.fixture
def there() -> Iterator[Namespace]:
    made = Namespace()
    yield made
    made.close()


def test_the_names_of_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub and the workloads of one mesh; not those of a mesh whose mark begins the same."""
    monkeypatch.setattr(namespace, "NAMES", tmp_path / "netns")
    assert named("mesh-1") == []
    (tmp_path / "netns").mkdir()
    for name in ("mesh-1", "mesh-1-shop", "mesh-12-shop", "other"):
        (tmp_path / "netns" / name).touch()
    assert named("mesh-1") == ["mesh-1", "mesh-1-shop"]


def test_files_for_a_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are changed in place, and leave nothing behind; what is somebody else's stays."""
    monkeypatch.setattr(namespace, "FILES", tmp_path / "netns")
    give_file("mesh-1-shop", "hosts", "one")
    written = (tmp_path / "netns/mesh-1-shop/hosts").stat().st_ino
    give_file("mesh-1-shop", "hosts", "another")
    assert (tmp_path / "netns/mesh-1-shop/hosts").stat().st_ino == written
    assert (tmp_path / "netns/mesh-1-shop/hosts").read_text() == "another"
    give_file("theirs", "hosts", "")
    take_files("mesh-1-shop")
    assert [path.name for path in (tmp_path / "netns").iterdir()] == ["theirs"]
    take_files("theirs")
    assert [*tmp_path.iterdir()] == []
    take_files("theirs")


async def test_what_a_failing_program_said_is_kept() -> None:
    """On one line, after the command."""
    with pytest.raises(NamespaceError, match=r"^sh -c .*: first second$"):
        await namespace.run("sh", "-c", "echo first >&2; echo second >&2; exit 3")
    with pytest.raises(NamespaceError, match=r"^false: exit code 1$"):
        await namespace.run("false")
    assert await namespace.run("cat", text="said") == "said"


@needs_namespaces
def test_a_socket_lives_where_it_was_made(there: Namespace) -> None:
    """It reaches what listens on the loopback of its namespace, while we stay in ours."""
    source = """
import socket
server = socket.create_server(("127.0.0.1", 7000))
print("listening", flush=True)
while True:
    server.accept()[0].sendall(b"inside")
"""
    child = there.start(sys.executable, "-c", source)
    assert child.stdout is not None
    assert child.stdout.readline() == "listening\n"
    with socket_in(there.name) as inside:
        inside.connect(("127.0.0.1", 7000))
        assert inside.recv(10) == b"inside"
    with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
        outside.connect(("127.0.0.1", 7000))


def test_a_namespace_that_is_not_there() -> None:
    """This is an error, not a socket of ours."""
    with pytest.raises(OSError):
        socket_in("mesh-no-such-namespace")


@needs_namespaces
def test_two_namespaces_of_one_name(there: Namespace) -> None:
    """Made anew, it is another one."""
    other = Namespace()
    try:
        assert inode(there.name) != inode(other.name)
        assert inode(there.name) == inode(there.name)
    finally:
        other.close()
