"""A parent in the test's own process, with real workers."""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from msgspec import structs

from meshproxy.config.bootstrap import Bootstrap, Static
from meshproxy.contract.resources import ListenerSpec
from meshproxy.contract.wire import ContractError
from meshproxy.downstream.sockets import Place, Sockets, listen
from meshproxy.identity.certificates import Certificates
from meshproxy.lifecycle import crew as crew_module
from meshproxy.lifecycle.crew import Crew, Member
from meshproxy.lifecycle.orders import Answer, Order, Prepare
from meshproxy.telemetry.metrics import Metrics
from tests.helpers.client import connect, get
from tests.helpers.plane import until
from tests.helpers.ports import free_port
from tests.meshproxy.lifecycle.test_worker import IDENTITY, snapshot

pytestmark = pytest.mark.integration  # of processes, like those

PATIENCE = 60.0


@pytest.fixture
def place() -> Place:
    return ("127.0.0.1", free_port())


@contextlib.asynccontextmanager
async def running(
    directory: Path, sockets: Sockets | None = None, *, hold: bool = False
) -> AsyncIterator[Crew]:
    subject = Bootstrap(
        workload="default/storefront",
        identity=IDENTITY,
        state=directory,
        workers=2,
        drain_seconds=5.0,
        static=Static(snapshot=directory),
    )
    crew = Crew(subject, Certificates(IDENTITY), Metrics(), sockets or Sockets())
    if hold:
        crew.hold()
    await crew.start()
    try:
        yield crew
    finally:
        await crew.close()


async def served(crew: Crew) -> list[int]:
    """Return how many requests each worker has counted."""
    await asyncio.to_thread(crew.counted)
    return [
        sum(count for series in member.counts.requests for _, _, count in series.outcomes)
        for member in crew._members
    ]


async def test_all_serve(tmp_path: Path, place: Place) -> None:
    """Both get connections; together they count what was asked."""
    async with running(tmp_path) as crew:
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        for _ in range(60):
            assert (await get(place[1])).status == 500
        counts = await served(crew)
        assert sum(counts) == 60
        assert min(counts) > 5
        assert len(crew.sockets[place]) == 2
        assert await asyncio.to_thread(crew.clusters) == []
        assert await asyncio.to_thread(crew.denials, "") == []


async def test_all_obey_or_nobody(tmp_path: Path, place: Place) -> None:
    """A refusal keeps what was, and the ports of what was refused are nobody's."""
    other = ("127.0.0.1", free_port())
    good = snapshot(place)
    bad = snapshot(other, "nothing")
    async with running(tmp_path) as crew:
        await crew.adopt(good)
        await until(lambda: crew.ready, PATIENCE)
        with pytest.raises(ContractError, match="there is no 'nothing'"):
            await crew.adopt(bad)
        with pytest.raises(ConnectionRefusedError):
            await get(other[1])
        taken = listen(other)
        with pytest.raises(
            ContractError, match=rf"listener/door port: .*:{other[1]}: Address already"
        ):
            await crew.adopt(snapshot(other))
        taken[0].close()
        assert (await get(place[1])).status == 500

        more = ListenerSpec(
            name="more", direction="outbound", address=other[0], port=other[1], virtual_host="all"
        )
        await crew.adopt(structs.replace(good, listeners=(*good.listeners, more)))
        assert {(await get(port)).status for port in (place[1], other[1])} == {500}
        await crew.adopt(snapshot(other))
        with pytest.raises(ConnectionRefusedError):
            await get(place[1])
        assert list(crew.sockets) == [other]


async def test_a_dead_worker_is_replaced(tmp_path: Path, place: Place) -> None:
    """Whoever connects meanwhile is served; what the dead one counted is not lost."""
    async with running(tmp_path) as crew:
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        for _ in range(20):
            await get(place[1])
        before = await served(crew)
        dead = crew._members[0].process
        crew._members[0].kill()
        answers = await asyncio.gather(*(get(place[1]) for _ in range(20)))
        assert {answer.status for answer in answers} == {500}
        await until(lambda: crew.ready and crew._members[0].process is not dead, PATIENCE)
        total = await asyncio.to_thread(crew.counted)
        assert sum(sum(series.buckets) for _, series in total.all_requests()) == sum(before) + 20


async def test_a_stuck_worker_is_replaced(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer is killed; configuration does not wait for it for ever."""
    async with running(tmp_path) as crew:
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        stuck = crew._members[1].process
        assert stuck is not None
        monkeypatch.setattr(crew_module, "ANSWER_WITHIN", 0.5)
        stuck.send_signal(signal.SIGSTOP)
        await crew.adopt(structs.replace(snapshot(place), version="two"))
        monkeypatch.undo()
        assert await stuck.wait() == -9
        await until(lambda: crew.ready and crew._members[1].process is not stuck, PATIENCE)


async def test_held_back_and_handed_over(tmp_path: Path, place: Place) -> None:
    """It uses the socket it was given and adds another; nobody is accepted before `open`."""
    given = listen(place)
    sockets = Sockets()
    sockets.hand(place, given)
    async with running(tmp_path, sockets, hold=True) as crew:
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        assert crew.sockets[place][0] is given[0]
        async with connect(place[1]) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await served(crew) == [0, 0]
            await crew.open()
            assert (await client.response()).status == 500


async def test_draining(tmp_path: Path, place: Place) -> None:
    """The workers end by themselves when nothing is left to do, or when they are told to hurry."""
    for hurried in (False, True):
        async with running(tmp_path) as crew:
            await crew.adopt(snapshot(place))
            await until(lambda crew=crew: crew.ready, PATIENCE)  # type: ignore[misc]
            async with connect(place[1]) as client:
                await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                await client.response()
                draining = asyncio.create_task(crew.drain())
                await until(lambda crew=crew: not crew.sockets)  # type: ignore[misc]
                assert not draining.done()
                if hurried:
                    crew.hurry()
                    await draining
            await draining
            members = [member.process for member in crew._members]
            assert [process.returncode for process in members if process is not None] == [0, 0]


async def test_a_snapshot_that_kills_is_refused(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If workers die over it, it does not come into force; their successors obey the one before."""
    async with running(tmp_path) as crew:
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        ask = Member.ask

        async def deadly(
            self: Member, order: Order, sockets: Iterable[socket.socket] = ()
        ) -> Answer:
            if isinstance(order, Prepare) and order.snapshot.version == "deadly":
                self.kill()
            return await ask(self, order, sockets)

        monkeypatch.setattr(Member, "ask", deadly)
        with pytest.raises(ContractError, match="workers die over it"):
            await crew.adopt(structs.replace(snapshot(place), version="deadly"))
        await until(lambda: crew.ready, PATIENCE)
        assert (await get(place[1])).status == 500


async def test_a_worker_that_cannot_be_started(
    tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again, for as long as it takes."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    async with running(tmp_path) as crew:
        await until(lambda: "cannot be started" in caplog.text)
        assert not crew.ready
        monkeypatch.undo()
        await crew.adopt(snapshot(place))
        await until(lambda: crew.ready, PATIENCE)
        assert "has died" not in caplog.text
