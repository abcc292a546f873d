"""The server that misbehaves must misbehave exactly as asked: what it proves rests on that."""

import asyncio
import contextlib
import struct
from collections.abc import Iterator

import pytest

from tests.helpers.client import Client, connect
from tests.helpers.fault_server.fault import NONE, Fault, FaultError, read
from tests.helpers.fault_server.handle import FaultServer
from tests.helpers.fault_server.ledger import Ledger
from tests.helpers.http2_peers import End, Message, http2_client

integration = pytest.mark.integration


# What is asked for --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", NONE),
        ("status=503 first=2", Fault(status=503, first=2)),
        ("at=body+3 do=reset", Fault(at="body", after=3, do="reset")),
        ("at=request do=rst:7 executes", Fault(at="request", do="rst", code=7, executes=True)),
        ("at=head pace=2.5", Fault(at="head", pace=0.0025)),
        ("length=-5 framing=length size=20", Fault(length=-5, size=20)),
        ("share=0.5 seed=3 key=all reused", Fault(share=0.5, seed=3, key="all", reused=True)),
        ("late=20 twin", Fault(late=0.02, twin=True)),
        ("grpc=14 only retry-after=2", Fault(grpc=14, only=True, retry_after="2")),
    ],
)
def test_what_is_understood(text: str, fault: Fault) -> None:
    """Every word says one thing."""
    assert read(text) == fault


@pytest.mark.parametrize(
    "text",
    [
        "what", "size", "at=body", "do=reset", "at=tail do=reset", "at=body+x do=reset",
        "at=head do=explode", "at=head do=rst", "at=head do=reset:1", "length=5", "framing=none",
        "status=bad", "share=much", "at=request pace=1",
    ],
)  # fmt: skip
def test_what_is_not_understood(text: str) -> None:
    """A slip is refused, and never taken for a server without faults."""
    with pytest.raises(FaultError, match="x-fault"):
        read(text)


# When it strikes ----------------------------------------------------------------------------------


def struck(fault: Fault, times: int, *, id_: str = "a", served: int = 0) -> str:
    ledger = Ledger()
    return "".join(".x"[ledger.strikes(fault, id_, served=served)] for _ in range(times))


def test_always_the_first_or_each_so_many() -> None:
    """The times are counted from 1."""
    assert struck(Fault(status=503), 3) == "xxx"
    assert struck(Fault(first=2), 4) == "xx.."
    assert struck(Fault(every=3), 7) == "..x..x."


def test_a_share_is_chosen_by_a_seed() -> None:
    """The same seed strikes the same times, another one others."""
    once, again = (struck(Fault(share=0.3, seed=1), 1000) for _ in range(2))
    assert once == again
    assert once != struck(Fault(share=0.3, seed=2), 1000)
    assert 250 < once.count("x") < 350


def test_only_on_a_connection_that_has_served() -> None:
    """A new one is spared, and that does not count as one of the times."""
    ledger = Ledger()
    fault = Fault(reused=True, first=1)
    assert [ledger.strikes(fault, "a", served=served) for served in (0, 1, 2)] == [
        False,
        True,
        False,
    ]


def test_times_are_those_of_an_id_or_of_a_key() -> None:
    """Two requests have turns of their own, unless they share a key."""
    ledger = Ledger()
    assert [ledger.strikes(Fault(first=1), id_, served=0) for id_ in "ab"] == [True, True]
    shared = Fault(first=1, key="all")
    assert [ledger.strikes(shared, id_, served=0) for id_ in "ab"] == [True, False]


def test_only_at_the_second_endpoint() -> None:
    """Its times are its own, and what it executes is told apart."""
    ledger = Ledger()
    twin = ledger.at("twin")
    fault = Fault(twin=True, first=1)
    assert [one.strikes(fault, "a", served=0) for one in (ledger, twin, twin)] == [
        False,
        True,
        False,
    ]
    ledger.execute("a")
    twin.execute("a")
    assert (ledger.counts()["executed"], ledger.counts()["elsewhere"]) == ({"a": 2}, {"a": 1})


# On the wire --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer() as it:
        yield it


@pytest.fixture(autouse=True)
def anew(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("integration"):
        request.getfixturevalue("server").forget()


def http1(fault: str, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nX-Id: 1\r\nX-Fault: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        fault.encode(), len(body), body,
    )  # fmt: skip


async def said(client: Client) -> tuple[bytes, str]:
    """Return what came, and how it ended: `reset` or `end`."""
    got = b""
    async with asyncio.timeout(10):
        try:
            while data := await client.reader.read(1 << 16):
                got += data
        except ConnectionResetError:
            return got, "reset"
    return got, "end"


@integration
@pytest.mark.parametrize(
    ("fault", "answer", "end", "executed"),
    [
        ("at=request do=reset", b"", "reset", 0),
        ("at=request+2 do=close executes", b"", "end", 1),
        ("at=head do=reset", b"", "reset", 1),
        ("at=head+8 do=close", b"HTTP/1.1", "end", 1),
        ("at=body do=reset size=2", b"HTTP/1.1 200 Whatever\r\nContent-Length: 2\r\n\r\n", "reset", 1),
        ("at=body+1 do=close size=2", b"HTTP/1.1 200 Whatever\r\nContent-Length: 2\r\n\r\n1", "end", 1),
        ("at=end do=close size=1 length=+4", b"HTTP/1.1 200 Whatever\r\nContent-Length: 5\r\n\r\n1", "end", 1),
        ("framing=close size=1", b"HTTP/1.1 200 Whatever\r\n\r\n1", "end", 1),
        ("status=503 framing=close size=1", b"HTTP/1.1 503 Whatever\r\n\r\n1", "end", 1),
        (
            "framing=lie at=end do=close size=4",
            b"HTTP/1.1 200 Whatever\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n1\n\r\n2\r\n..\r\n",
            "end",
            1,
        ),
    ],
)  # fmt: skip
async def test_http1(
    server: FaultServer, fault: str, answer: bytes, end: str, executed: int
) -> None:
    """Not a byte more and not a byte less than asked for, and the end that was asked for."""
    async with connect(server.port) as client:
        await client.send(http1(fault, b"abc"))
        assert await said(client) == (answer, end)
    assert server.counts().executed.get("1", 0) == executed
    assert server.counts().received == {"1": 1}


@integration
async def test_http1_goes_on(server: FaultServer) -> None:
    """What was good, slow, chunked or a slip leaves the connection open for the next request."""
    async with connect(server.port) as client:
        for fault, status in (
            ("", 200), ("at=head pace=0.1 size=5", 200), ("status=429 retry-after=3", 429),
            ("nonsense", 400), ("at=head do=rst:8", 400), ("framing=chunked size=7", 200),
        ):  # fmt: skip
            await client.send(http1(fault, b"abc"))
            answer = await client.response()
            assert answer.status == status
        assert answer.body == b"1\n....."
    assert server.counts().executed == {"1": 4}
    assert server.counts().connections == 1


@integration
async def test_http1_stalls_until_the_client_goes(server: FaultServer) -> None:
    """Nothing is said, and that it was abandoned is counted."""
    async with connect(server.port) as client:
        await client.send(http1("at=body+1 do=stall"))
        assert await client.reader.readuntil(b"\r\n\r\n1")
    await until_abandoned(server)


async def until_abandoned(server: FaultServer) -> None:
    async with asyncio.timeout(10):
        while server.counts().abandoned != {"1": 1}:
            await asyncio.sleep(0.01)


def ask(client: End, fault: str, **more: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/"),
        ("x-id", "1"), ("x-fault", fault), *((k.replace("_", "-"), v) for k, v in more.items()),
    ]  # fmt: skip


LOST = 2**32 - 1


@integration
@pytest.mark.parametrize(
    ("fault", "status", "size", "reset", "executed"),
    [
        ("", "200", 100, None, 1),
        ("at=request do=rst:7", None, 0, 7, 0),
        ("at=head do=rst:2", None, 0, 2, 1),
        ("at=body+3 do=rst:8", "200", 3, 8, 1),
        ("at=head do=reset", None, 0, LOST, 1),
        ("at=head+4 do=reset", None, 0, LOST, 1),
        ("at=body+3 do=close", "200", 3, LOST, 1),
        ("at=end do=leave", "200", 100, None, 1),
        ("at=head pace=0.1 size=5", "200", 5, None, 1),
        ("status=503", "503", 100, None, 1),
        ("what", "400", 34, None, 0),
    ],
)
async def test_http2(
    server: FaultServer, fault: str, status: str | None, size: int, reset: int | None, executed: int
) -> None:
    """The same over HTTP/2, where a stream can end without its connection."""
    async with http2_client(server.port) as client:
        answer = await client.ask(ask(client, fault)).message()
    assert (answer.status, len(answer.body), answer.reset) == (status, size, reset)
    assert server.counts().executed.get("1", 0) == executed


@integration
async def test_http2_goes_away(server: FaultServer) -> None:
    """Below our stream, nothing becomes of it or of any later one; the earlier one is answered."""
    async with http2_client(server.port) as client:
        first = client.ask(ask(client, ""), end=False)
        client.ask(ask(client, "at=request do=goaway"))
        client.ask(ask(client, ""))
        async with asyncio.timeout(10):
            while not client.goaways:
                await asyncio.sleep(0.01)
        first.end()
        assert (await first.message()).status == "200"
        assert client.goaways == [(1, 0)]
    assert server.counts().executed == {"1": 1}
    assert server.counts().received == {"1": 2}


@integration
async def test_http2_stalls_until_the_client_resets(server: FaultServer) -> None:
    """The stream alone stalls: another on the same connection is answered."""
    async with http2_client(server.port) as client:
        stalled = client.ask(ask(client, "at=head do=stall"))
        assert (await client.ask(ask(client, "")).message()).status == "200"
        assert stalled.heard.empty()
        stalled.reset()
        await until_abandoned(server)


@integration
async def test_http2_stalls_within_a_frame(server: FaultServer) -> None:
    """Then nobody on that connection hears anything any more."""
    async with http2_client(server.port) as client:
        client.ask(ask(client, "at=head+5 do=stall"))
        async with asyncio.timeout(10):
            while not server.counts().executed:
                await asyncio.sleep(0.01)
        other = client.ask(ask(client, ""))
        async with asyncio.timeout(10):
            while server.counts().executed != {"1": 2}:
                await asyncio.sleep(0.01)
        assert other.heard.empty()


@integration
@pytest.mark.parametrize(
    ("fault", "body", "trailers"),
    [
        ("size=5", struct.pack(">?I", False, 5) + b"1\n...", [("grpc-status", "0")]),
        ("grpc=14", b"", [("grpc-status", "14"), ("grpc-message", "as asked")]),
        ("grpc=14 only", b"", []),
    ],
)
async def test_grpc(
    server: FaultServer, fault: str, body: bytes, trailers: list[tuple[str, str]]
) -> None:
    """The status comes last, or with the head where there is nothing else."""
    async with http2_client(server.port) as client:
        stream = client.ask(ask(client, fault, content_type="application/grpc"))
        answer: Message = await stream.message()
    assert (answer.body, answer.trailers) == (body, trailers)
    assert answer.header("grpc-status") == ("14" if "only" in fault else None)


@integration
@pytest.mark.parametrize("place", ["port", "twin", "ill"])
async def test_health(place: str) -> None:
    """HTTP and gRPC are told the same; only the one that is ill says so, until it is healed."""
    with FaultServer() as server:
        for healed in (False, True):
            well = healed or place != "ill"
            port = getattr(server, place)
            async with connect(port) as client:
                await client.send(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await client.response()).status == (200 if well else 503)
            async with http2_client(port) as client:
                head = ask(client, "")
                for path in ("/health", "/grpc.health.v1.Health/Check"):
                    asked = [
                        (":path", path) if name == ":path" else (name, value)
                        for name, value in head
                    ]
                    answer = await client.ask(asked).message()
                    if path == "/health":
                        assert answer.status == ("200" if well else "503")
                    else:
                        assert answer.body[5:] == (b"\x08\x01" if well else b"\x08\x02")
            assert server.counts().received == {}
            server.heal()


# The whole server ---------------------------------------------------------------------------------


@integration
async def test_modes() -> None:
    """Refused, reset, silent and nonsense are four things, and each ends what the one before had."""
    with FaultServer() as server:
        async with connect(server.port) as client:
            await client.send(http1(""))
            assert (await client.response()).status == 200
            server.mode("closed")
            assert (await said(client))[1] == "reset"
        with pytest.raises(ConnectionRefusedError):
            async with connect(server.port):
                pass
        server.mode("reset")
        with contextlib.suppress(ConnectionResetError):  # as early as while connecting
            async with connect(server.port) as client:
                assert (await said(client)) == (b"", "reset")
        server.mode("silent")
        async with connect(server.port) as silent:
            await silent.send(http1(""))
            async with asyncio.timeout(10):
                while server.counts().connections < 3:
                    await asyncio.sleep(0.01)
            server.mode("serve")
            assert (await said(silent)) == (b"", "reset")
        server.mode("nonsense")
        async with connect(server.port) as client:
            assert (await said(client))[0].startswith(b"220 ")
        server.mode("serve")
        async with connect(server.port) as client:
            await client.send(http1(""))
            assert (await client.response()).status == 200
            assert server.hang_up() == 1
            assert (await said(client)) == (b"", "reset")
