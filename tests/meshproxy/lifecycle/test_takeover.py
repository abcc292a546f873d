"""The conversation of a hot restart, without the processes around it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshproxy.downstream.sockets import Place, listen
from meshproxy.lifecycle import takeover
from meshproxy.lifecycle.channel import DESCRIPTORS, Channel
from meshproxy.lifecycle.takeover import Door, Refused, Take, TakeoverError, find
from meshproxy.private_file import PrivateFileError
from tests.helpers.environment import until
from tests.helpers.ports import free_port


class Old:
    """The process that serves; `heard` is what its door told it."""

    def __init__(self, state: Path) -> None:
        self.place: Place = ("127.0.0.1", free_port())
        self.sockets = {self.place: listen(self.place)}
        self.heard: list[str] = []
        self.door = Door(
            state,
            sockets=lambda: self.sockets,
            on_asked=self._on_asked,
            on_failed=lambda: self.heard.append("failed"),
            on_taken=self._on_taken,
        )

    async def _on_asked(self) -> None:
        self.heard.append("asked")

    async def _on_taken(self) -> None:
        self.heard.append("taken")

    def close(self) -> None:
        self.door.close()
        for group in self.sockets.values():
            for sock in group:
                sock.close()


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[Old]:
    old = Old(tmp_path)
    old.door.open()
    yield old
    old.close()
    await until(lambda: not old.door._visits)


def close(handed: dict[Place, list[socket.socket]]) -> None:
    for group in handed.values():
        for sock in group:
            sock.close()


async def knock(state: Path) -> Channel:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(state / "takeover.sock"))
    return Channel(sock)


async def test_nobody_serves(tmp_path: Path) -> None:
    """No directory, no socket, or that of a process that was killed: there is nobody to relieve."""
    assert await find(tmp_path / "nothing") is None
    assert await find(tmp_path) is None
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "takeover.sock"))
    dead.close()
    assert await find(tmp_path) is None


async def test_a_takeover(tmp_path: Path, old: Old) -> None:
    """Asked, handed the very sockets, relieved; then the path belongs to the successor."""
    predecessor = await find(tmp_path)
    assert predecessor is not None
    handed = await predecessor.sockets()
    assert old.heard == ["asked"]
    client = socket.create_connection(old.place)
    handed[old.place][0].accept()[0].close()
    client.close()
    await predecessor.relieve()
    assert old.heard == ["asked", "taken"]

    new = Old(tmp_path)
    new.door.open()
    old.close()
    assert (tmp_path / "takeover.sock").exists()
    again = await find(tmp_path)
    assert again is not None
    close(await again.sockets())
    assert new.heard == ["asked"]
    again.close()
    await until(lambda: new.heard == ["asked", "failed"])
    new.close()
    close(handed)
    assert not (tmp_path / "takeover.sock").exists()


async def test_more_sockets_than_a_message_holds(tmp_path: Path, old: Old) -> None:
    """All arrive, each with its place."""
    [sock] = old.sockets[old.place]
    copies = [socket.socket(fileno=os.dup(sock.fileno())) for _ in range(2 * DESCRIPTORS + 5)]
    old.sockets |= {("10.0.0.1", port): [copy] for port, copy in enumerate(copies, 1)}
    predecessor = await find(tmp_path)
    assert predecessor is not None
    handed = await predecessor.sockets()
    assert handed.keys() == old.sockets.keys()
    predecessor.close()
    close(handed)


async def test_who_dies_before_it_serves_has_changed_nothing(tmp_path: Path, old: Old) -> None:
    """At any moment; the next one may try again."""
    for _ in range(3):
        predecessor = await find(tmp_path)
        assert predecessor is not None
        close(await predecessor.sockets())
        predecessor.close()
        await until(lambda: old.heard[-1] == "failed")
    assert old.heard == ["asked", "failed"] * 3


async def test_one_at_a_time(tmp_path: Path, old: Old) -> None:
    """The second is told who was faster, before and after that one serves."""
    first, second, third = [await find(tmp_path) for _ in range(3)]
    assert first is not None
    assert second is not None
    assert third is not None
    close(await first.sockets())
    with pytest.raises(TakeoverError, match=rf"process {os.getpid()} is taking over already"):
        await second.sockets()
    await first.relieve()
    with pytest.raises(TakeoverError, match="has taken over"):
        await third.sockets()
    second.close()
    third.close()


async def test_another_version_is_refused(tmp_path: Path, old: Old) -> None:
    """With both versions in the sentence, whatever else the other would have to say."""
    channel = await knock(tmp_path)
    await channel.send(Take(protocol=2))
    answer, _ = await channel.receive(Refused)
    assert answer.reason == "it speaks version 1 of the hand-over, not 2"
    assert old.heard == []
    channel.close()


async def test_nonsense_changes_nothing(
    tmp_path: Path, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next one is served."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(tmp_path / "takeover.sock"))
    sock.send(b"GET / HTTP/1.1\r\n\r\n")
    await until(lambda: "expected at most" in caplog.text)
    sock.close()
    assert old.heard == []
    predecessor = await find(tmp_path)
    assert predecessor is not None
    close(await predecessor.sockets())
    predecessor.close()


async def test_patience_ends(tmp_path: Path, old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who never gets ready is told so when it finally does, and nobody waits for it any longer."""
    monkeypatch.setattr(takeover, "READY_WITHIN", -takeover.ANSWER_WITHIN + 0.05)
    predecessor = await find(tmp_path)
    assert predecessor is not None
    close(await predecessor.sockets())
    await until(lambda: old.heard == ["asked", "failed"])
    with pytest.raises(TakeoverError, match="did not become ready in time"):
        await predecessor.relieve()


async def test_an_old_process_that_is_gone_is_relieved_all_the_same(
    tmp_path: Path, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    """Its ports are ours, whatever it has to say."""
    predecessor = await find(tmp_path)
    assert predecessor is not None
    close(await predecessor.sockets())
    old.close()
    await predecessor.relieve()
    assert "without its word" in caplog.text


async def test_the_socket_is_ours_alone(tmp_path: Path, old: Old) -> None:
    """Mode 0600 in a directory of mode 0700."""
    assert (tmp_path / "takeover.sock").stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")
async def test_another_user_is_refused(
    tmp_path: Path, old: Old, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if the directory stood open: the kernel says who knocks."""
    code = """
import os, socket, sys
sock = socket.socket(socket.AF_UNIX)
os.chdir(sys.argv[1])
os.setuid(65534)
sock.connect("takeover.sock")
assert sock.recv(1) == b""
"""
    (tmp_path / "takeover.sock").chmod(0o666)
    tmp_path.chmod(0o711)
    stranger = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code, str(tmp_path)], check=False, timeout=30
    )
    assert stranger.returncode == 0
    assert "of user 65534 refused" in caplog.text
    assert old.heard == []


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """The address of a Unix socket holds 107 bytes; a state directory may lie deeper."""
    deep = tmp_path / ("d" * 120)
    old = Old(deep)
    old.door.open()
    predecessor = await find(deep)
    assert predecessor is not None
    assert "Predecessor" in repr(predecessor)
    close(await predecessor.sockets())
    predecessor.close()
    await until(lambda: old.heard == ["asked", "failed"])
    old.close()
    await until(lambda: not old.door._visits)


async def test_a_state_directory_that_is_none(tmp_path: Path) -> None:
    """Says so; the proxy can do without."""
    (tmp_path / "file").write_text("")
    old = Old(tmp_path / "file")
    with pytest.raises(PrivateFileError, match="state directory"):
        old.door.open()
    old.close()
