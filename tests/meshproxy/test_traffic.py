"""What one process serves with: held back, opened, drained; the rest is in `test_proxy.py`."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshproxy.config.bootstrap import Bootstrap, Limits, Static
from meshproxy.contract.resources import ListenerSpec, RouteSpec, Snapshot, VirtualHostSpec
from meshproxy.downstream.sockets import Sockets
from meshproxy.identity.certificates import Certificates
from meshproxy.telemetry.metrics import Metrics
from meshproxy.traffic import Traffic
from tests.helpers.client import connect, get
from tests.helpers.environment import until
from tests.helpers.ports import free_port
from tests.meshproxy.test_exchange import Scene

IDENTITY = "spiffe://test.mesh/ns/default/sa/storefront"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """It tunes the collector for its process, which here is that of all tests."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def traffic(directory: Path, drain_seconds: float = 5.0, limits: Limits | None = None) -> Traffic:
    bootstrap = Bootstrap(
        workload="default/storefront",
        identity=IDENTITY,
        state=directory,
        drain_seconds=drain_seconds,
        limits=limits or Limits(),
        static=Static(snapshot=directory),
    )
    return Traffic(bootstrap, Certificates(IDENTITY), Metrics(), Sockets())


def snapshot(port: int) -> Snapshot:
    """Return one that answers everything with 500."""
    return Snapshot(
        virtual_hosts=(VirtualHostSpec(name="all", routes=(RouteSpec(name="nowhere"),)),),
        listeners=(
            ListenerSpec(
                name="door",
                direction="outbound",
                address="127.0.0.1",
                port=port,
                virtual_host="all",
            ),
        ),
    )


async def test_held_back_it_accepts_nobody(tmp_path: Path) -> None:
    """Who comes meanwhile waits in the queue, and is served once it is opened."""
    subject, port = traffic(tmp_path), free_port()
    subject.hold()
    await subject.start()
    await subject.adopt(snapshot(port))
    assert list(subject.sockets) == [("127.0.0.1", port)]
    async with connect(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await get_elsewhere(subject)) == 0
        await subject.open()
        assert (await client.response()).status == 500
    await subject.close()


async def get_elsewhere(subject: Traffic) -> int:
    """Let the loop turn by a whole exchange of another proxy; return our connections."""
    other, port = traffic(Path()), free_port()
    await other.start()
    await other.adopt(snapshot(port))
    assert (await get(port)).status == 500
    await other.close()
    return subject.mesh.connections


async def test_a_drain_waits_for_idle_clients_only_so_long(tmp_path: Path) -> None:
    """They may ask once more within the drain time; it ends early when all have gone."""
    subject, port = traffic(tmp_path, drain_seconds=0.2), free_port()
    await subject.start()
    await subject.adopt(snapshot(port))
    async with connect(port) as client:
        await until(lambda: subject.mesh.connections == 1)
        await subject.drain()
        await subject.close()
        assert await client.rest() == b""
    await until(lambda: subject.mesh.connections == 0)


async def test_the_first_retry_that_was_not_made_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each service and reason; all of them are counted."""
    caplog.set_level("INFO", "meshproxy")
    subject = traffic(tmp_path)
    for service, reason in (("a", "budget"), ("a", "budget"), ("a", "of-retry"), ("b", "budget")):
        subject.environment.retry_skipped(service, reason)
    said = [record.message.split("; ")[0] for record in caplog.records]
    assert said == [
        "a: a retry was not made: budget",
        "a: a retry was not made: of-retry",
        "b: a retry was not made: budget",
    ]
    counted = subject.counted().render(0.0).decode()
    assert 'mesh_retries_skipped_total{cluster="a",reason="budget"} 2.0' in counted


async def test_somebody_goes_round_the_exchanges_that_last(tmp_path: Path) -> None:
    """Limits that are far away are armed then, so no exchange may be left out."""
    subject = traffic(tmp_path)
    scene = Scene(protocol="http2")
    scene.ask(b"POST", length=6)
    armed = [scene.exchange.timer]
    subject.environment.exchanges.add(scene.exchange)
    await subject.start()
    armed.append(scene.exchange.timer)
    assert [timer is not None for timer in armed] == [False, True], "its body may not come"
    await subject.close()


async def test_whether_calls_were_joined_is_counted(tmp_path: Path) -> None:
    """What the table has counted goes into the metrics, where those of all workers are summed."""
    subject = traffic(tmp_path)
    subject.environment.propagation.find((b"nobody's",), b"")
    [counted] = [pair for pair in subject.counted().counts().counters["propagation"] if pair[1]]
    assert counted == (("unknown",), 1)


async def test_kept_bodies_have_the_bound_that_is_configured(tmp_path: Path) -> None:
    """Together; and nothing is kept when the process takes more than it may."""
    subject = traffic(tmp_path, limits=Limits(replay=1000, memory=0))
    kept = subject.environment.replay.keep([b"x" * 600], 600)
    assert subject.environment.replay.keep([b"x" * 600], 600) is None
    assert kept is not None
    assert "mesh_replay_bytes 600.0" in subject.counted().render(0.0).decode()

    crowded = traffic(tmp_path, limits=Limits(memory=1))
    assert crowded.environment.replay.keep([b"x"], 1) is None
