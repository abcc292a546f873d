"""Bytes in and out of one connection."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path

import pytest
import uvloop

from meshproxy.flow import (
    COUNTED,
    FLUSH_AT,
    HIGH_WATER,
    LOW_WATER,
    MUCH,
    RECEIVED,
    TIGHT,
    Connection,
    as_protocol,
)
from meshproxy.upstream.tunnel import EndpointTunnel
from tests.helpers.certificates import TestAuthority
from tests.helpers.environment import until
from tests.helpers.recorder import Recorder
from tests.helpers.transport import FakeLoop, arrive, connected


def telling(loop: FakeLoop) -> tuple[Connection, Recorder]:
    """Return a connection that fills in all hooks, and who hears of them."""
    heard = Recorder()
    return EndpointTunnel(loop.as_loop, heard, heard), heard


def test_what_is_written_in_one_turn_leaves_at_once() -> None:
    """Head, body and end cost one system call, at the end of the turn."""
    loop = FakeLoop()
    connection = Connection(loop.as_loop)
    transport = connected(connection)
    for part in (b"head ", b"body ", b"end"):
        connection.write(part)
    assert transport.writes == 0

    loop.turn()

    assert (transport.sent, transport.writes) == (b"head body end", 1)
    loop.turn()
    assert transport.writes == 1


def test_much_leaves_without_waiting_for_the_end_of_the_turn() -> None:
    """What is collected is bounded, so that a fast sender meets back-pressure at once."""
    connection = Connection(FakeLoop().as_loop)
    transport = connected(connection)
    connection.write(b"x" * (FLUSH_AT - 1))
    assert transport.writes == 0
    connection.write(b"y")

    assert len(transport.sent) == FLUSH_AT


def test_bytes_are_copied_out_of_the_shared_buffer() -> None:
    """Two connections read into the same memory; neither sees the other's bytes later."""
    loop = FakeLoop()
    (one, heard_by_one), (two, heard_by_two) = telling(loop), telling(loop)
    for connection in (one, two):
        connected(connection)
    arrive(one, b"one")
    arrive(two, b"two")

    assert heard_by_one.heard == [("on_response_data", b"one")]
    assert heard_by_two.heard == [("on_response_data", b"two")]


def test_blocked_is_told_and_remembered() -> None:
    """A neighbour that comes later can see that the transport is full."""
    connection, heard = telling(FakeLoop())
    connected(connection)
    states = []
    for change in (connection.pause_writing, connection.resume_writing):
        change()
        states.append(connection.blocked)

    assert states == [True, False]
    assert heard.words == ["on_upstream_blocked", "on_upstream_writable"]


def test_close_lets_out_what_was_written_and_abort_does_not() -> None:
    """`close` flushes first; `abort` drops what has not left."""
    loop = FakeLoop()
    polite, rude = Connection(loop.as_loop), Connection(loop.as_loop)
    first, second = connected(polite), connected(rude)
    for connection in (polite, rude):
        connection.write(b"bye")
    polite.close()
    rude.abort()
    loop.turn()

    assert (first.sent, first.state) == (b"bye", "closing")
    assert (second.sent, second.state) == (b"", "aborted")


def test_after_the_loss_nothing_is_done_any_more() -> None:
    """Calls that come too late find no transport and do no harm."""
    loop = FakeLoop()
    connection, heard = telling(loop)
    transport = connected(connection)
    connection.write(b"too late")
    connection.connection_lost(ConnectionResetError())
    told = [("on_response_reset", "upstream-reset", False), ("lost", connection)]
    assert heard.heard == told
    connection.write(b"x" * FLUSH_AT)
    connection.pause_reading()
    connection.resume_reading()
    connection.close()
    connection.abort()
    loop.turn()

    assert heard.heard == told
    assert (transport.sent, transport.state) == (b"", "open")
    assert connection.eof_received() is False


@pytest.mark.parametrize("late", [False, True])
def test_a_connection_that_fails_to_flush_does_not_keep_the_others(late: bool) -> None:
    """All connections share the callback at the end of a turn, but not each other's fate."""
    loop = FakeLoop()
    connections = [Connection(loop.as_loop) for _ in range(3)]
    transports = [connected(connection) for connection in connections]
    for connection in connections:
        connection.write(b"x")
    if late:
        turn = connections[0].turn
        turn.waiting, turn.late = turn.late, turn.waiting
        turn.schedule_late()
        loop.turn()

    def fail(data: bytes) -> None:
        raise RuntimeError(data)

    transports[1].write = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        loop.turn()
    loop.turn()
    assert [transport.sent for transport in transports] == [b"x", b"", b"x"]


def test_while_memory_is_short_each_holds_little() -> None:
    """
    Those that are there are told when they write, new ones at once; and again when there is enough.

    Nobody is told who holds nothing: there may be thousands of them.
    """
    loop = FakeLoop()
    idle, busy = Connection(loop.as_loop), Connection(loop.as_loop)
    transports = [connected(connection) for connection in (idle, busy)]
    assert [one.limits for one in transports] == [(HIGH_WATER, LOW_WATER)] * 2
    assert len(busy.get_buffer(-1)) == len(RECEIVED)

    busy.turn.tighten(True)
    assert len(busy.get_buffer(-1)) == TIGHT
    encrypted = Connection(loop.as_loop)
    connected(encrypted, tls=True)
    assert len(encrypted.get_buffer(-1)) == len(RECEIVED)
    busy.write(b"x")
    loop.turn()
    assert transports[0].limits == (HIGH_WATER, LOW_WATER)
    assert transports[1].limits == (TIGHT, TIGHT // 4)
    idle.write(b"x")
    idle.write(b"y" * FLUSH_AT)
    assert transports[0].limits == (TIGHT, TIGHT // 4)
    assert connected(Connection(loop.as_loop)).limits == (TIGHT, TIGHT // 4)

    busy.turn.tighten(False)
    assert len(busy.get_buffer(-1)) == len(RECEIVED)
    for connection in (idle, busy):
        connection.pause_writing()
        connection.resume_writing()
    assert [one.limits for one in transports] == [(HIGH_WATER, LOW_WATER)] * 2


def test_who_is_blocked_by_the_new_mark_does_not_go_on() -> None:
    """A transport goes on below its old low-water mark, which may be above the new high one."""
    loop = FakeLoop()
    connection, heard = telling(loop)
    transport = connected(connection)
    connection.pause_writing()
    connection.turn.tighten(True)

    def block(high: int, low: int) -> None:
        connection.pause_writing()

    transport.set_write_buffer_limits = block  # type: ignore[method-assign]
    connection.resume_writing()
    assert connection.blocked
    assert heard.words == ["on_upstream_blocked"] * 2


def test_when_much_has_come_somebody_is_told() -> None:
    """Of whichever connection; small reads, which are most of them, are not counted."""
    loop = FakeLoop()
    connections = [telling(loop)[0] for _ in range(2)]
    told: list[int] = []
    for connection in connections:
        connected(connection)
        connection.turn.on_much = lambda: told.append(1)
    for _ in range(MUCH // (2 * COUNTED) - 1):
        for connection in connections:
            connection.buffer_updated(COUNTED)
            connection.buffer_updated(COUNTED - 1)
    assert not told
    for connection in connections:
        connection.buffer_updated(COUNTED)
    assert told == [1]


def test_a_transport_that_closes_is_told_nothing() -> None:
    """Its protocol may be gone already, and uvloop complains that it cannot be told."""
    loop = FakeLoop()
    connection = Connection(loop.as_loop)
    transport = connected(connection)
    connection.turn.tighten(True)
    transport.close()
    connection.mark()
    assert transport.limits == (HIGH_WATER, LOW_WATER)


def test_what_tls_has_taken_is_heard_to_its_end(tmp_path: Path) -> None:
    """
    However short memory is: uvloop drops what is not decrypted when it sees the peer's end.
    """
    certificate, key = TestAuthority().issue("spiffe://test.mesh/ns/default/sa/it", tmp_path, "it")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    said = bytes(200_000)

    async def heard_of() -> int:
        loop = asyncio.get_running_loop()
        heard = Recorder()
        connection = EndpointTunnel(loop, heard, heard)
        connection.turn.tighten(True)
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            listening.bind(("127.0.0.1", 0))
            server = await loop.create_server(
                lambda: as_protocol(connection), sock=listening, ssl=context
            )
            with socket.create_connection(listening.getsockname()) as peer:
                await _say_and_leave(peer, said)
                await until(lambda: connection.transport is None)
            server.close()
        return sum(len(what[1]) for what in heard.heard if what[0] == "on_response_data")

    assert uvloop.run(heard_of()) == len(said)


async def _say_and_leave(peer: socket.socket, said: bytes) -> None:
    """Say it and the end of TLS and of TCP, all before anybody reads."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    loop = asyncio.get_running_loop()
    peer.setblocking(False)
    while True:
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
            break
        await loop.sock_sendall(peer, outgoing.read())
        incoming.write(await loop.sock_recv(peer, 65536))
    await loop.sock_sendall(peer, outgoing.read())
    incoming.write(await loop.sock_recv(peer, 65536))  # its tickets: it has finished, too
    tls.write(said)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.unwrap()
    peer.setblocking(True)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.sendall(outgoing.read())
    peer.shutdown(socket.SHUT_WR)
