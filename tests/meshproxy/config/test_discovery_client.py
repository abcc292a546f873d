"""The client alone: what it does with what lies on disk, and with planes that talk nonsense.

The conversation with a real control plane is in `tests/control_plane/test_discovery.py`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

from control_plane import peer
from meshproxy.config.bootstrap import Bootstrap, ControlPlane, Static
from meshproxy.config.discovery_client import DiscoveryClient
from meshproxy.contract import wire
from meshproxy.contract.discovery import FromProxy, Nack, Refused, Update
from meshproxy.contract.resources import Snapshot
from meshproxy.contract.wire import ContractError
from meshproxy.identity.certificates import Certificates
from tests.helpers.certificates import TestAuthority
from tests.helpers.plane import until
from tests.meshproxy.config.test_delta import HELD

CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
PLANE = "spiffe://mesh.local/ns/mesh-system/sa/control-plane"
ROOT = TestAuthority()

Talk = Callable[[ServerConnection], Awaitable[None]]


def client(
    state: Path, applied: list[Snapshot], port: int = 9, *, refuse: bool = False
) -> DiscoveryClient:
    state.chmod(0o700)
    (state / "plane-roots.pem").write_text(ROOT.pem)
    for name, content in (("roots.pem", ROOT.pem), ("identity.pem", "")):
        (state / name).write_text(content)
        (state / name).chmod(0o600)
    ROOT.svid(state / "identity.pem", CATALOG)
    bootstrap = Bootstrap(
        workload="default/catalog-v1",
        identity=CATALOG,
        state=state,
        control_plane=ControlPlane(
            address="127.0.0.1", port=port, identity=PLANE, roots=state / "plane-roots.pem"
        ),
    )

    async def apply(snapshot: Snapshot) -> None:
        if refuse:
            raise ContractError("cluster/a", "no")
        applied.append(snapshot)

    return DiscoveryClient(bootstrap, Certificates(CATALOG, state), apply)


@asynccontextmanager
async def plane(folder: Path, talk: Talk) -> AsyncIterator[int]:
    """Serve `talk` as the control plane, and yield the port."""
    own = ROOT.svid(folder / "plane.pem", PLANE)
    context = peer.server_context(own, (ROOT.pem,))
    async with serve(talk, "127.0.0.1", 0, ssl=context) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def running(subject: DiscoveryClient) -> AsyncIterator[None]:
    task = asyncio.create_task(subject.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def keep(state: Path, text: bytes, mode: int = 0o600) -> None:
    (state / "snapshot.json").write_bytes(text)
    (state / "snapshot.json").chmod(mode)


async def test_the_last_snapshot_is_restored(tmp_path: Path) -> None:
    """What was in force when the last run ended is in force again."""
    applied: list[Snapshot] = []
    keep(tmp_path, wire.encode(HELD))
    subject = client(tmp_path, applied)
    assert await subject.restore()
    assert applied == [HELD]
    assert subject.snapshot == HELD
    assert HELD.version in repr(subject)


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (b"{", 0o600, "truncated"),
        (b'{"version": "0"}', 0o600, "expected 0"),
        (b'{"retries": 1}', 0o600, "unknown field"),
        (wire.encode(HELD), 0o644, "expected 0600"),
    ],
)
async def test_a_damaged_snapshot_is_left_alone(
    text: bytes, mode: int, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut off, changed, of a newer version, writable by others: start without, and say so."""
    applied: list[Snapshot] = []
    keep(tmp_path, text, mode)
    subject = client(tmp_path, applied)
    with caplog.at_level(logging.WARNING):
        assert not await subject.restore()
    assert applied == []
    assert reason in caplog.text


async def test_a_snapshot_that_is_refused_is_not_restored(tmp_path: Path) -> None:
    """A proxy that was downgraded may not obey what the newer one did."""
    keep(tmp_path, wire.encode(HELD))
    subject = client(tmp_path, [], refuse=True)
    assert not await subject.restore()
    assert subject.snapshot == Snapshot()


async def _ignore(snapshot: Snapshot) -> None:
    """Obey by doing nothing."""


def test_a_static_proxy_has_no_control_plane(tmp_path: Path) -> None:
    """The composition root must not build a client for nobody."""
    bootstrap = Bootstrap(
        workload="a/b", identity=CATALOG, state=tmp_path, static=Static(snapshot=tmp_path)
    )
    with pytest.raises(ValueError, match="static"):
        DiscoveryClient(bootstrap, Certificates(CATALOG), _ignore)


async def test_an_update_of_a_wrong_version_is_refused_and_the_old_stays(tmp_path: Path) -> None:
    """The answer names the version still in force."""
    answers: list[FromProxy] = []

    async def talk(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(wire.encode(Update(nonce="n", version="other")).decode())
        answers.append(wire.decode(await connection.recv(), FromProxy))  # type: ignore[arg-type]
        await connection.wait_closed()

    applied: list[Snapshot] = []
    keep(tmp_path, wire.encode(HELD))
    async with plane(tmp_path, talk) as port:
        subject = client(tmp_path, applied, port)
        async with running(subject):
            await until(lambda: answers)
            (nack,) = answers
            assert isinstance(nack, Nack)
            assert (nack.nonce, nack.version, nack.path) == ("n", HELD.version, "version")
            assert subject.connected
            assert "refused" in (subject.last_error or "")
    assert applied == [HELD]


@pytest.mark.parametrize(
    "nonsense",
    [
        "{",
        b"\x00\xff",
        "[" * 100_000,
        '{"type": "signed"}',
        '{"type": "update"}',
        '{"type": "update", "nonce": "1", "version": "NaN", "changed": [{"kind": "policy"}]}',
        wire.encode(Refused(code="unknown-workload", reason="Who are you?")).decode(),
    ],
)
async def test_nonsense_costs_the_connection_and_nothing_else(
    nonsense: str | bytes, tmp_path: Path
) -> None:
    """The client goes on with what it has, says what it heard, and connects again."""
    connections = 0

    async def talk(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.recv()
        await connection.send(nonsense)
        await connection.wait_closed()

    keep(tmp_path, wire.encode(HELD))
    async with plane(tmp_path, talk) as port:
        subject = client(tmp_path, [], port)
        async with running(subject):
            await until(lambda: connections >= 2)
            await until(lambda: subject.last_error)
        assert subject.snapshot == HELD


async def test_without_certificate_and_token_the_error_says_so(tmp_path: Path) -> None:
    """The operator reads what is missing, in the place where it is looked for."""
    subject = client(tmp_path, [])
    (tmp_path / "identity.pem").unlink()
    certificates = subject._certificates
    async with running(subject):
        await until(lambda: certificates.last_error)
    assert "the bootstrap names no join token" in (certificates.last_error or "")


async def test_the_file_of_roots_vouches_at_first_contact_alone(tmp_path: Path) -> None:
    """
    Once there is a certificate and a bundle, that alone is believed: a root that has been replaced,
    but still is in the file, opens nothing.
    """
    heard: list[None] = []

    async def talk(connection: ServerConnection) -> None:
        heard.append(None)
        await connection.wait_closed()

    other = TestAuthority("other")
    async with plane(tmp_path, talk) as port:
        subject = client(tmp_path, [], port)
        (tmp_path / "plane-roots.pem").write_text(ROOT.pem + other.pem)
        (tmp_path / "roots.pem").write_text(other.pem)
        async with running(subject):
            await until(lambda: subject.last_error)
    assert "not vouched for by the trust bundle" in (subject.last_error or "")
    assert heard == []


@pytest.mark.parametrize("when", ["while connecting", "later"])
async def test_a_renewed_certificate_is_shown_and_that_is_no_loss(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is left for another one; nobody is warned of a lost connection."""
    connections = 0

    async def talk(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.wait_closed()

    async with plane(tmp_path, talk) as port:
        subject = client(tmp_path, [], port)
        connect = subject._connect

        def renew() -> None:
            renewed, subject._certificates.renewed = subject._certificates.renewed, asyncio.Event()
            renewed.set()

        async def renew_meanwhile(path: str, largest: int) -> ClientConnection:
            connection = await connect(path, largest)
            monkeypatch.undo()
            renew()
            return connection

        if when == "while connecting":
            monkeypatch.setattr(subject, "_connect", renew_meanwhile)
        async with running(subject):
            await until(lambda: subject.connected)
            if when == "later":
                renew()
            await until(lambda: connections == 2)
            assert subject.last_error is None
