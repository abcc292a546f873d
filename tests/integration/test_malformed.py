"""
Malformed messages against a real sidecar: the app behind it hears not one byte of them.

The classes are those that have brought down proxies or let attackers past them: two framings,
odd lengths, odd chunks, odd line ends, odd targets, and answers that say more than was asked.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshproxy.contract.resources import (
    BackendSpec,
    ClusterSpec,
    EndpointSpec,
    EndpointsSpec,
    ListenerSpec,
    RouteSpec,
    Snapshot,
    VirtualHostSpec,
)
from tests.helpers.client import connect, get
from tests.helpers.origin import Conversation, hello, origin
from tests.helpers.pair import Sidecar
from tests.helpers.ports import free_port

pytestmark = pytest.mark.integration


class Behind:
    """A sidecar's port, and all bytes that have come out on the other side."""

    def __init__(self, directory: Path, app: int) -> None:
        self.port = free_port()
        route = RouteSpec(name="all", backends=(BackendSpec(cluster="app"),))
        endpoint = EndpointSpec(address="127.0.0.1", port=app)
        snapshot = Snapshot(
            clusters=(ClusterSpec(name="app"),),
            endpoints=(EndpointsSpec(cluster="app", endpoints=(endpoint,)),),
            virtual_hosts=(VirtualHostSpec(name="app", routes=(route,)),),
            listeners=(
                ListenerSpec(
                    name="in", direction="inbound", address="127.0.0.1", port=self.port, virtual_host="app"
                ),
            ),
        )  # fmt: skip
        self.sidecar = Sidecar(directory, "catalog", snapshot, None)


@contextlib.asynccontextmanager
async def behind(directory: Path, app: int) -> AsyncIterator[Behind]:
    it = Behind(directory, app)
    await asyncio.to_thread(it.sidecar.start)
    try:
        yield it
    finally:
        await asyncio.to_thread(it.sidecar.__exit__)


HOST = b"Host: catalog\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: catalog\r\n\r\n"


def head(*lines: bytes, start: bytes = b"POST / HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: catalog", *lines, b"", b""])


CHUNKED = b"Transfer-Encoding: chunked"

# Refused before anything is forwarded.
HEADS: dict[str, bytes] = {
    "CL and TE": head(b"Content-Length: 6", CHUNKED) + b"0\r\n\r\nG",
    "TE and CL": head(CHUNKED, b"Content-Length: 3") + b"8\r\nSMUGGLED\r\n0\r\n\r\n",
    "TE xchunked": head(b"Transfer-Encoding: xchunked"),
    "TE identity": head(b"Transfer-Encoding: identity"),
    "TE chunked, identity": head(b"Transfer-Encoding: chunked, identity"),
    "TE gzip, chunked": head(b"Transfer-Encoding: gzip, chunked"),
    "TE twice": head(CHUNKED, CHUNKED),
    "TE two values": head(CHUNKED, b"Transfer-Encoding: x"),
    "TE vertical tab": head(b"Transfer-Encoding: \x0bchunked"),
    "TE quoted": head(b'Transfer-Encoding: "chunked"'),
    "TE empty": head(b"Transfer-Encoding:"),
    "TE space before colon": head(b"Transfer-Encoding : chunked"),
    "TE underscore": head(b"Transfer_Encoding: chunked"),
    "TE in 1.0": head(CHUNKED, start=b"POST / HTTP/1.0"),
    "CL plus": head(b"Content-Length: +5"),
    "CL minus": head(b"Content-Length: -5"),
    "CL underscore": head(b"Content-Length: 1_0"),
    "CL hex": head(b"Content-Length: 0x5"),
    "CL differing list": head(b"Content-Length: 5,6"),
    "CL differing lines": head(b"Content-Length: 5", b"Content-Length: 6"),
    "CL arabic digits": head("Content-Length: ٣".encode()),
    "CL 2^64+5": head(b"Content-Length: 18446744073709551621"),
    "CL 5000 digits": head(b"Content-Length: " + b"1" * 5000),
    "CL empty": head(b"Content-Length:"),
    "CL decimals": head(b"Content-Length: 5.0"),
    "obs-fold": head(b"X-A: 1", b" folded"),
    "tab fold": head(b"X-A: 1", b"\tfolded"),
    "bare LF in head": b"GET / HTTP/1.1\nHost: catalog\n\n",
    "bare LF in field": head(b"X-A: 1\nX-B: 2"),
    "bare CR in field": head(b"X-A: 1\rX-B: 2"),
    "NUL in value": head(b"X-A: 1\x002"),
    "NUL in name": head(b"X-\x00A: 1"),
    "control in value": head(b"X-A: 1\x7f"),
    "no colon": head(b"X-A"),
    "empty name": head(b": 1"),
    "name with bracket": head(b"X[A]: 1"),
    "first line folded": b"GET / HTTP/1.1\r\n Host: catalog\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": head(b"Host: evil", start=b"GET / HTTP/1.1"),
    "Host with comma": b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
    "Host with user": b"GET / HTTP/1.1\r\nHost: u@catalog\r\n\r\n",
    "Host with path": b"GET / HTTP/1.1\r\nHost: catalog/x\r\n\r\n",
    "Host port too large": b"GET / HTTP/1.1\r\nHost: catalog:99999\r\n\r\n",
    "fragment": head(start=b"GET /a#/admin HTTP/1.1"),
    "relative target": head(start=b"GET a HTTP/1.1"),
    "raw bytes in target": head(start=b"GET /\xc3\xa4 HTTP/1.1"),
    "backslash in target": head(start=rb"GET /a\b HTTP/1.1"),
    "broken escape": head(start=b"GET /%zz HTTP/1.1"),
    "asterisk GET": head(start=b"GET * HTTP/1.1"),
    "absolute with user": head(start=b"GET http://u@catalog/ HTTP/1.1"),
    "absolute ftp": head(start=b"GET ftp://catalog/ HTTP/1.1"),
    "two spaces": head(start=b"GET  / HTTP/1.1"),
    "tab": head(start=b"GET\t/ HTTP/1.1"),
    "space at the end": head(start=b"GET / HTTP/1.1 "),
    "leading space": head(start=b" GET / HTTP/1.1"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": head(start=b"GET / HTTP/1.2"),
    "http lower case": head(start=b"GET / http/1.1"),
    "HTTP/01.1": head(start=b"GET / HTTP/01.1"),
    "method with bracket": head(start=b"G[T / HTTP/1.1"),
    "two blank lines": b"\r\n\r\n" + head(start=b"GET / HTTP/1.1"),
    "unknown expectation": head(b"Expect: 200-ok", b"Content-Length: 1"),
    "bad connection option": head(b"Connection: a b"),
}

# Refused inside the body: the head may have been forwarded, an end of the body never is.
BODIES: dict[str, bytes] = {
    "size 0x5": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "size +5": b"+5\r\nabcde\r\n0\r\n\r\n",
    "size -1": b"-1\r\n\r\n",
    "size 5_0": b"5_0\r\n",
    "size with space": b"5 \r\nabcde\r\n0\r\n\r\n",
    "leading space": b" 5\r\nabcde\r\n0\r\n\r\n",
    "no size": b"\r\nabc\r\n",
    "2^64+5": b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    "2^63": b"8000000000000000\r\nabcde",
    "LF after size": b"5\nabcde\r\n0\r\n\r\n",
    "CR after size": b"5\rabcde\r\n0\r\n\r\n",
    "two bytes for CRLF": b"5\r\nabcdeXX0\r\n\r\n",
    "LF after data": b"5\r\nabcde\n0\r\n\r\n",
    "LF in extension": b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
    "CR in extension": b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    "quoted CRLF in extension": b'5;a="\r\n"\r\nabcde\r\n0\r\n\r\n',
    "extension without a name": b"5;\r\nabcde\r\n0\r\n\r\n",
    "long extension": b"5;" + b"a" * 20_000 + b"\r\nabcde\r\n0\r\n\r\n",
    "bare LF at the end": b"0\n\n",
    "trailer without colon": b"0\r\nX\r\n\r\n",
    "trailer folded": b"0\r\nX: 1\r\n 2\r\n\r\n",
    "trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
}

OTHERS: dict[int, bytes] = {
    431: head(b"X-A: " + b"a" * 70_000),
    414: head(start=b"GET /" + b"a" * 20_000 + b" HTTP/1.1"),
    505: head(start=b"GET / HTTP/2.0"),
}


async def test_malformed_heads_reach_nobody(tmp_path: Path) -> None:
    """Each is answered and closed; what follows on the connection is not looked at."""
    async with origin(hello) as app, behind(tmp_path, app.port) as it:
        cases = {**{name: (400, data) for name, data in HEADS.items()},
                 **{str(status): (status, data) for status, data in OTHERS.items()}}  # fmt: skip
        for name, (status, data) in cases.items():
            async with connect(it.port) as client:
                client.writer.write(data + SMUGGLED)
                answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 %d " % status), (name, answer)
            assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
            assert b"x-mesh-refusal: " in answer, name
            assert b"\r\nConnection: close\r\n" in answer, name
            assert app.connections == 0, name
        # Behind an answered request the same holds.
        async with connect(it.port) as client:
            await client.send(head(start=b"GET / HTTP/1.1") + HEADS["two spaces"] + SMUGGLED)
            answer = await client.rest()
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"400"]
        assert len(app.requests) == 1


async def test_malformed_bodies_are_never_completed(tmp_path: Path) -> None:
    """The app sees at most an unfinished request, and never one that was hidden in it."""
    ends: list[bytes] = []

    async def records(conversation: Conversation) -> None:
        ends.append(await conversation.reader.read())

    async with origin(records) as app, behind(tmp_path, app.port) as it:
        for name, data in BODIES.items():
            async with connect(it.port) as client:
                client.writer.write(head(CHUNKED) + data + SMUGGLED)
                answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 4"), (name, answer)
            assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        async with asyncio.timeout(5):
            while len(ends) < len(app.requests):
                await asyncio.sleep(0.01)
        assert all(request.startswith(b"POST / ") for request in app.requests)
        for end in ends:
            assert b"smuggled" not in end
            assert not end.endswith(b"0\r\n\r\n")


ANSWERS: dict[str, bytes] = {
    "nonsense": b"nonsense\r\n\r\n",
    "no version": b"200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "status 99": b"HTTP/1.1 99 X\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 X\r\n\r\n",
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "TE in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length +1": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX: 1\rY: 2\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX: \x00\r\nContent-Length: 0\r\n\r\n",
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "endless 1xx": b"HTTP/1.1 102 Processing\r\n\r\n" * 100,
    "head without end": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
}


async def test_malformed_answers_are_502_and_end_their_connection(tmp_path: Path) -> None:
    """Nothing of them reaches the client, and nobody is answered on that connection again."""
    current = b""

    async def lies(conversation: Conversation) -> None:
        await conversation.send(current)

    async with origin(lies) as app, behind(tmp_path, app.port) as it:
        for number, (name, answer) in enumerate(ANSWERS.items(), 1):
            current = answer
            async with connect(it.port) as client:
                await client.send(head(start=b"GET / HTTP/1.1"))
                response = await client.head()
                while response.status == 102:
                    response = await client.head()
            told = (response.status, response.header("x-mesh-refusal"))
            assert told == (502, "upstream-protocol-error"), name
            assert app.connections == number, name


async def test_a_body_gone_wrong_tears_the_answer(tmp_path: Path) -> None:
    """The head has been sent: the client must see that what follows is not all."""

    async def lies(conversation: Conversation) -> None:
        await conversation.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n0\r\n\r\n"
        )

    async with origin(lies) as app, behind(tmp_path, app.port) as it, connect(it.port) as client:
        await client.send(head(start=b"GET / HTTP/1.1"))
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await client.rest()
        assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("later", [False, True])
async def test_what_was_not_asked_for_answers_nobody(tmp_path: Path, later: bool) -> None:
    """Bytes behind an answer, at once or while the connection rests, are not the next answer."""

    async def poisons(conversation: Conversation) -> None:
        poison = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        await conversation.send(answer if later else answer + poison)
        if later:
            await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                await conversation.send(poison)

    async with origin(poisons) as app, behind(tmp_path, app.port) as it:
        for number in range(1, 11):
            response = await get(it.port)
            assert (response.status, response.body) == (200, b"ok")
            if later:
                await _closed(it, number)
        assert app.connections == 10


async def _closed(it: Behind, opened: int) -> None:
    """Wait until the sidecar has closed its connection to the app."""
    async with asyncio.timeout(5):
        while True:
            [cluster] = await asyncio.to_thread(it.sidecar.get, "/clusters")
            if cluster["endpoints"][0]["connections"] == 0:
                return
            await asyncio.sleep(0.01)
