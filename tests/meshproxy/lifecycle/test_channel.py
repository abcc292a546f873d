"""Two ends of a channel in one process."""

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from meshproxy.contract.spec import Spec
from meshproxy.lifecycle import channel as channel_module
from meshproxy.lifecycle.channel import DESCRIPTORS, Channel, ChannelError


class Note(Spec, frozen=True, kw_only=True, tag="note", tag_field="type"):
    text: str


class Ends:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.raw = theirs
        self.one, self.two = Channel(ours), Channel(theirs)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    yield ends
    ends.one.close()
    ends.two.close()


async def test_messages_arrive_whole_and_in_order(ends: Ends) -> None:
    """Also one that is much larger than the kernel's buffers, also several at once."""
    large = Note(text="x" * 3_000_000)

    async def send() -> None:
        for message in (Note(text="a"), large, Note(text="b")):
            await ends.one.send(message)

    sending = asyncio.create_task(send())
    received = [(await ends.two.receive(Note))[0] for _ in range(3)]
    await sending
    assert received == [Note(text="a"), large, Note(text="b")]


async def test_sockets_come_along(ends: Ends) -> None:
    """As many as a message may carry; they are not inherited by programs that are started."""
    listening = socket.create_server(("127.0.0.1", 0))
    await ends.one.send(Note(text="a"), [listening.fileno()] * DESCRIPTORS)
    await ends.one.send(Note(text="b"))
    _, sockets = await ends.two.receive(Note)
    assert len(sockets) == DESCRIPTORS
    assert {sock.getsockname() for sock in sockets} == {listening.getsockname()}
    assert not any(os.get_inheritable(sock.fileno()) for sock in sockets)
    assert (await ends.two.receive(Note))[1] == []
    for sock in (*sockets, listening):
        sock.close()


async def test_what_is_not_a_socket_is_closed(ends: Ends) -> None:
    """Nobody asked for it."""
    reading, writing = os.pipe()
    await ends.one.send(Note(text="a"), [writing])
    os.close(writing)
    assert (await ends.two.receive(Note))[1] == []
    assert os.read(reading, 1) == b""
    os.close(reading)


async def test_the_kernel_says_who_it_is(ends: Ends) -> None:
    """Process and user of the other end."""
    assert (ends.one.pid, ends.one.uid) == (os.getpid(), os.geteuid())


async def test_the_end_is_an_error(ends: Ends) -> None:
    """For who receives, also in the middle of a message, and for who sends."""
    ends.raw.send(b"\0")
    ends.raw.shutdown(socket.SHUT_RDWR)
    ends.two.close()
    with pytest.raises(ChannelError, match="gone"):
        await ends.one.receive(Note)
    with pytest.raises(ChannelError, match="gone"):
        await ends.one.send(Note(text="a"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"{", "truncated"),
        (b'{"type": "else"}', "else"),
        (b'{"type": "note", "text": 5}', "Expected `str`"),
    ],
)
async def test_nonsense_is_an_error(ends: Ends, data: bytes, expected: str) -> None:
    """One that says what was expected."""
    ends.raw.send(struct.pack(">I", len(data)) + data)
    with pytest.raises(ChannelError, match=expected):
        await ends.one.receive(Note)


async def test_nobody_fills_our_memory(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A length above the limit is refused before a byte of it is read."""
    monkeypatch.setattr(channel_module, "LARGEST", 100)
    ends.raw.send(struct.pack(">I", 101))
    with pytest.raises(ChannelError, match="expected at most 100"):
        await ends.one.receive(Note)
