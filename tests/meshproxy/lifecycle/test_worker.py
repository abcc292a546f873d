"""A worker in the test's own process: what it does with each order."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec import Raw

from meshproxy.config import bootstrap
from meshproxy.config.bootstrap import Bootstrap, Static
from meshproxy.contract.resources import ListenerSpec, RouteSpec, Snapshot, VirtualHostSpec
from meshproxy.downstream.sockets import Place, listen
from meshproxy.lifecycle.channel import Channel, ChannelError
from meshproxy.lifecycle.orders import (
    Answer,
    Begin,
    Believe,
    Commit,
    Count,
    Counted,
    Describe,
    Described,
    Discard,
    Done,
    Drain,
    Failed,
    Hand,
    Hurry,
    Open,
    Order,
    Prepare,
    Recall,
    Recalled,
    Retreat,
)
from meshproxy.lifecycle.worker import Worker, work
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import connect, get
from tests.helpers.environment import until
from tests.helpers.ports import free_port

IDENTITY = "spiffe://test.mesh/ns/default/sa/storefront"


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """It tunes the collector for its process, which here is that of all tests."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def begin(directory: Path, *, hold: bool = False) -> Begin:
    subject = Bootstrap(
        workload="default/storefront",
        identity=IDENTITY,
        state=directory,
        static=Static(snapshot=directory),
    )
    return Begin(bootstrap=Raw(bootstrap.encode(subject)), hold=hold)


def snapshot(place: Place, virtual_host: str = "all") -> Snapshot:
    """Return one that answers everything with 500."""
    door = ListenerSpec(
        name="door",
        direction="outbound",
        address=place[0],
        port=place[1],
        virtual_host=virtual_host,
    )
    hosts = (VirtualHostSpec(name="all", routes=(RouteSpec(name="nowhere"),)),)
    return Snapshot(virtual_hosts=hosts, listeners=(door,))


@pytest.fixture
def place() -> Place:
    return ("127.0.0.1", free_port())


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    worker = Worker(begin(tmp_path))
    await worker.start()
    yield worker
    await worker.close()


async def obey(worker: Worker, *orders: Order) -> list[Answer]:
    return [await worker.obey(order, []) for order in orders]


async def test_it_serves_on_the_socket_it_was_handed(worker: Worker, place: Place) -> None:
    """Not on one of its own: its siblings share the port."""
    sockets = listen(place)
    assert await worker.obey(Hand(places=(place,)), sockets) == Done()
    assert await obey(worker, Prepare(snapshot=snapshot(place)), Commit()) == [Done(), Done()]
    assert (await get(place[1])).status == 500

    counted, described = await obey(worker, Count(), Describe())
    assert isinstance(counted, Counted)
    assert counted.counts.requests[0].outcomes == [(500, "NC", 1)]
    assert described == Described(clusters=[])
    assert await obey(worker, Recall(number="")) == [Recalled(denials=[])]
    assert await obey(worker, Retreat()) == [Done()]
    with pytest.raises(ConnectionRefusedError):
        await get(place[1])


async def test_what_it_cannot_obey_it_refuses(worker: Worker, place: Place) -> None:
    """With path and reason; the configuration before it stays."""
    await worker.obey(Hand(places=(place,)), listen(place))
    await obey(worker, Prepare(snapshot=snapshot(place)), Commit())
    answers = await obey(worker, Prepare(snapshot=snapshot(place, "nothing")), Discard())
    assert answers == [
        Failed(path="listener/door virtual_host", reason="there is no 'nothing'"),
        Done(),
    ]
    assert (await get(place[1])).status == 500


async def test_what_is_discarded_leaves_nothing(worker: Worker, place: Place) -> None:
    """Another worker could not obey: the new port is nobody's again."""
    await worker.obey(Hand(places=(place,)), listen(place))
    assert await obey(worker, Prepare(snapshot=snapshot(place)), Discard()) == [Done(), Done()]
    with pytest.raises(ConnectionRefusedError):
        await get(place[1])


async def test_held_back(tmp_path: Path, place: Place) -> None:
    """It accepts when it is told to, not before."""
    worker = Worker(begin(tmp_path, hold=True))
    await worker.start()
    await worker.obey(Hand(places=(place,)), listen(place))
    await obey(worker, Prepare(snapshot=snapshot(place)), Commit())
    async with connect(place[1]) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await obey(worker, Open())
        assert (await client.response()).status == 500
    await worker.close()


async def test_it_uses_the_certificate_of_its_parent(worker: Worker, tmp_path: Path) -> None:
    """And says so when it cannot; roots may come first."""
    authority = TestAuthority()
    certificate, key = authority.issue(IDENTITY, tmp_path, "a")
    stranger, its_key = authority.issue("spiffe://test.mesh/ns/x/sa/y", tmp_path, "b")
    answers = await obey(
        worker,
        Believe(certificate=None, key=None, roots=authority.pem),
        Believe(certificate=str(certificate), key=str(key), roots=authority.pem),
        Believe(certificate=str(stranger), key=str(its_key), roots=authority.pem),
        Believe(certificate=None, key=None, roots="nonsense"),
    )
    assert answers[:2] == [Done(), Done()]
    for answer in answers[2:]:
        assert isinstance(answer, Failed)
        assert answer.path == "certificate"
    assert worker._certificates.ready


@pytest.mark.parametrize("hurried", [False, True])
async def test_it_ends_when_what_runs_has_ended(
    worker: Worker, place: Place, hurried: bool
) -> None:
    """Or as soon as it is told to hurry."""
    await worker.obey(Hand(places=(place,)), listen(place))
    await obey(worker, Prepare(snapshot=snapshot(place)), Commit())
    async with connect(place[1]) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await client.response()
        assert await obey(worker, Drain()) == [Done()]
        assert not worker.ended.is_set()
        if hurried:
            await obey(worker, Hurry())
        else:
            client.writer.close()
        await until(worker.ended.is_set)


async def test_it_begins_once(worker: Worker, tmp_path: Path) -> None:
    """A parent that says so twice is told that it is wrong."""
    [answer] = await obey(worker, begin(tmp_path))
    assert isinstance(answer, Failed)


async def test_without_its_parent_it_ends(
    tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would renew its certificate or tell it anything: it drains, and the port is free."""
    ours, theirs = socket.socketpair()
    working = asyncio.create_task(work(theirs.detach()))
    parent = Channel(ours)
    await parent.send(begin(tmp_path))
    assert (await parent.receive(Answer))[0] == Done()
    sockets = listen(place)
    await parent.send(Hand(places=(place,)), [sockets[0].fileno()])
    sockets[0].close()
    for order in (Prepare(snapshot=snapshot(place)), Commit()):
        await parent.receive(Answer)
        await parent.send(order)
    await parent.receive(Answer)
    assert (await get(place[1])).status == 500
    parent.close()
    await working
    assert "the parent cannot be heard" in caplog.text
    with pytest.raises(ConnectionRefusedError):
        await get(place[1])


async def test_what_it_cannot_do_at_all_ends_it(tmp_path: Path, place: Place) -> None:
    """A worker that hears no more orders would keep its parent waiting; another takes its place."""
    ours, theirs = socket.socketpair()
    working = asyncio.create_task(work(theirs.detach()))
    parent = Channel(ours)
    await parent.send(begin(tmp_path))
    assert (await parent.receive(Answer))[0] == Done()
    await parent.send(Hand(places=(place,)))  # and no socket with it
    with pytest.raises(ValueError, match="zip"):
        await working
    with pytest.raises(ChannelError):
        await parent.receive(Answer)
    parent.close()
