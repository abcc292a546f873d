"""A listening socket, real clients, and who may pass."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meshproxy.contract.resources import ListenerSpec, RouteSpec, VirtualHostSpec
from meshproxy.contract.wire import ContractError
from meshproxy.downstream import http1
from meshproxy.downstream import listener as listener_module
from meshproxy.downstream.admission import Admission
from meshproxy.downstream.handshakes import Handshakes
from meshproxy.downstream.listener import Listener
from meshproxy.downstream.sockets import listen
from meshproxy.identity import tls
from meshproxy.neighbours import Cluster
from meshproxy.routing.table import Authorities, VirtualHost, compile_virtual_host
from tests.helpers.certificates import TestAuthority
from tests.helpers.client import Client, connect
from tests.helpers.environment import Environment, until
from tests.helpers.ports import free_port

GET = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"
STOREFRONT = "spiffe://test.mesh/ns/default/sa/storefront"
REVIEWS = "spiffe://test.mesh/ns/default/sa/reviews"
CATALOG = "spiffe://test.mesh/ns/default/sa/catalog"

# A route to nowhere: the listener's part is done when an exchange answers at all.
_SPEC = VirtualHostSpec(name="inbound", routes=(RouteSpec(name="nowhere"),))
HOST: VirtualHost[Cluster] = compile_virtual_host(_SPEC, {})
NOBODY: Authorities[Cluster] = Authorities([])


@asynccontextmanager
async def listening(
    environment: Environment, mtls: Any = "disabled", direction: Any = "inbound"
) -> AsyncIterator[Listener]:
    spec = ListenerSpec(
        name="inbound:80", direction=direction, address="127.0.0.1", port=free_port(), mtls=mtls
    )
    listener = Listener(spec, environment)
    listener.bind()
    listener.obey(spec, HOST, NOBODY)
    listener.start()
    try:
        yield listener
    finally:
        listener.close()
        await until(lambda: listener.connections == 0)


@pytest.fixture
async def environment() -> Environment:
    return Environment()


class Mutual:
    """Contexts of an authority, for clients right and wrong."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.authority = TestAuthority()

    def server(self) -> ssl.SSLContext:
        files = self.authority.issue(CATALOG, self._directory, "server")
        return tls.server_context(*files, self.authority.root)

    def client(
        self, identity: str = STOREFRONT, issuer: TestAuthority | None = None
    ) -> ssl.SSLContext:
        files = (issuer or self.authority).issue(identity, self._directory, "client")
        context = tls.client_context(*files, self.authority.root)
        context.set_alpn_protocols([tls.ALPN_HTTP1])
        return context


@pytest.fixture
def mutual(environment: Environment, tmp_path: Path) -> Mutual:
    mutual = Mutual(tmp_path)
    environment.server_context = mutual.server()
    return mutual


def _anonymous(mutual: Mutual) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=mutual.authority.root)
    return context


def _old(mutual: Mutual) -> ssl.SSLContext:
    context = mutual.client()
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


async def ask(port: int, context: ssl.SSLContext | None = None) -> int:
    """Return the status of an answer."""
    async with connect(port, ssl=context, server_hostname="" if context else None) as client:
        await client.send(GET)
        return (await client.response()).status


async def ended(client: Client) -> None:
    """The other side says nothing and closes; with RST where it had not read all."""
    with contextlib.suppress(ConnectionResetError):
        assert await client.rest() == b""


def handshakes(environment: Environment) -> dict[tuple[str, ...], int]:
    return environment.metrics._handshake_failures.counts


async def test_a_taken_port_is_a_clear_error(environment: Environment) -> None:
    """The error names the listener, the place and the reason."""
    async with listening(environment) as one:
        two = Listener(one.spec, environment)
        with pytest.raises(
            ContractError, match=r"listener/inbound:80 port: cannot listen on .*use"
        ):
            two.bind()


@pytest.mark.parametrize("address", ["nul\0byte", "a" * 70 + ".example", "192.0.2.1"])
async def test_an_impossible_address_is_a_clear_error(
    environment: Environment, address: str
) -> None:
    """Whatever is wrong with it, it is a ContractError."""
    spec = ListenerSpec(name="a", direction="inbound", address=address, port=free_port())
    with pytest.raises(ContractError, match="cannot listen on"):
        Listener(spec, environment).bind()


async def test_plaintext_where_it_is_allowed(environment: Environment) -> None:
    """`disabled` looks at nothing; connections are counted; the source is nobody's name."""
    async with listening(environment) as listener:
        assert await ask(listener.spec.port) == 500
        assert repr(listener) == f"<Listener inbound:80 127.0.0.1:{listener.spec.port} open>"
        await until(lambda: listener.connections == 0)

    counts = environment.metrics.connection("downstream", "inbound")
    assert (counts.opened, counts.closed) == (1, 1)
    [(key, _)] = environment.metrics.all_requests()
    assert key[:3] == ("inbound", "plaintext", "default/catalog")


@pytest.mark.parametrize("mode", ["strict", "permissive"])
async def test_mutual_tls_proves_who_calls(
    environment: Environment, mutual: Mutual, mode: str
) -> None:
    """The identity in the certificate becomes the source."""
    async with listening(environment, mode) as listener:
        assert await ask(listener.spec.port, mutual.client()) == 500
        assert await ask(listener.spec.port, mutual.client()) == 500
        caller = listener.destination.caller(STOREFRONT)

    assert caller.identity_field is not None
    assert caller.identity_field[1] == f"By={CATALOG};URI={STOREFRONT}".encode()
    [(key, series)] = environment.metrics.all_requests()
    assert key[1] == STOREFRONT
    assert sum(series.outcomes.values()) == 2


@pytest.mark.parametrize("request_", [GET, b"PROPFIND /a/path/longer/than/the/peek HTTP/1.1\r\n"])
async def test_strict_refuses_plaintext(environment: Environment, request_: bytes) -> None:
    """HTTP is told why; whatever it is, no exchange begins and it is counted."""
    async with listening(environment, "strict") as listener, connect(listener.spec.port) as client:
        await client.send(request_)
        answer = await client.rest()

    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"x-mesh-refusal: mtls-required" in answer
    assert b"Connection: close" in answer
    assert environment.refusals == [("inbound", "mtls-required")]
    assert handshakes(environment) == {("downstream", "plaintext"): 1}
    assert list(environment.metrics.all_requests()) == []


async def test_strict_lets_an_upload_read_the_refusal(environment: Environment) -> None:
    """A client in the middle of a large body still learns why, instead of a reset."""
    upload = b"PUT / HTTP/1.1\r\nHost: catalog\r\nContent-Length: 4000000\r\n\r\n"
    async with listening(environment, "strict") as listener, connect(listener.spec.port) as client:
        await client.send(upload)
        await client.send(b"x" * 4_000_000)
        assert (await client.response()).status == 403


async def test_strict_closes_on_what_is_not_http(environment: Environment) -> None:
    """There is nobody to explain it to."""
    async with listening(environment, "strict") as listener, connect(listener.spec.port) as client:
        await client.send(b"\x00\x01\x02 nothing known")
        await ended(client)

    assert environment.refusals == [("inbound", "mtls-required")]


@pytest.mark.parametrize("method", ["GET", "PROPFIND"])
async def test_permissive_takes_plaintext_of_any_method(
    environment: Environment, method: str
) -> None:
    """Also when the first bytes do not end the verdict."""
    parts = (method[:2], method[2:], " /a/path/longer/than/the/peek HTTP/1.1\r\nHost: a\r\n\r\n")
    async with (
        listening(environment, "permissive") as listener,
        connect(listener.spec.port) as client,
    ):
        for part in parts:
            await client.send(part.encode())
            await asyncio.sleep(0)
        assert (await client.response()).status == 500


@pytest.mark.parametrize(
    "client",
    [
        lambda mutual: mutual.client(issuer=TestAuthority()),
        _anonymous,
        _old,
    ],
    ids=["another authority", "no certificate", "TLS 1.2"],
)
async def test_a_handshake_that_proves_nothing_is_refused(
    environment: Environment, mutual: Mutual, client: Callable[[Mutual], ssl.SSLContext]
) -> None:
    """Counted with the reason; not a byte of HTTP is read."""
    async with listening(environment, "strict") as listener:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(listener.spec.port, client(mutual))
        await until(lambda: handshakes(environment))

    assert list(environment.metrics.all_requests()) == []


async def test_a_certificate_without_an_identity_of_ours_is_refused(
    environment: Environment, mutual: Mutual
) -> None:
    """The chain is right, the trust domain is not."""
    stranger = mutual.client("spiffe://other.mesh/ns/default/sa/storefront")
    async with listening(environment, "strict") as listener:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(listener.spec.port, stranger)
        await until(lambda: handshakes(environment))

    assert handshakes(environment) == {("downstream", "no-spiffe-id"): 1}


async def test_a_revoked_identity_is_cut_off_until_it_is_forgiven(
    environment: Environment, mutual: Mutual
) -> None:
    """Its open connection ends, its next one too, although the certificate is good; others stay."""
    async with (
        listening(environment, "strict") as listener,
        connect(listener.spec.port, ssl=mutual.client(), server_hostname="") as denied,
        connect(listener.spec.port, ssl=mutual.client(REVIEWS), server_hostname="") as other,
    ):
        for client in (denied, other):
            await client.send(GET)
            assert (await client.response()).status == 500
        environment.revoked = frozenset({STOREFRONT})
        listener.expel()
        await ended(denied)
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(listener.spec.port, mutual.client())
        await until(lambda: handshakes(environment))
        await other.send(GET)
        assert (await other.response()).status == 500
        environment.revoked = frozenset()
        assert await ask(listener.spec.port, mutual.client()) == 500

    assert handshakes(environment) == {("downstream", "identity-revoked"): 1}


async def test_without_a_certificate_of_our_own_tls_is_closed(
    environment: Environment, mutual: Mutual
) -> None:
    """A proxy that has none yet does not serve peers; it does not fall back either."""
    environment.server_context = None
    async with listening(environment, "permissive") as listener:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(listener.spec.port, mutual.client())


# Slow and rude clients ----------------------------------------------------------------------------


async def test_slow_greetings_end_and_disturb_nobody(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three bytes and silence: the loop sleeps meanwhile, others are served, then it is closed."""
    monkeypatch.setattr(listener_module, "HELLO_TIMEOUT", 0.4)
    looks = 0

    class Watched(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            nonlocal looks
            looks += flags == socket.MSG_PEEK
            return super().recv(size, flags)

    def accept(listening: socket.socket, family: int) -> tuple[socket.socket, object]:
        sock, peer = listening.accept()
        return Watched(family, socket.SOCK_STREAM, 0, sock.detach()), peer

    monkeypatch.setattr(listener_module, "accept", accept)
    async with listening(environment, "permissive") as listener:
        async with connect(listener.spec.port) as slow, connect(listener.spec.port) as silent:
            await slow.send(b"\x16\x03\x01")
            await until(lambda: listener.connections == 2)
            assert await ask(listener.spec.port) == 500
            await ended(slow)
            await ended(silent)
        assert looks <= 3 * 2  # at each of the three at once, and when something has come


async def test_a_client_that_leaves_in_the_middle_of_its_greeting(environment: Environment) -> None:
    """It is noticed at once, not at the timeout."""
    async with listening(environment, "permissive") as listener:
        async with connect(listener.spec.port) as client:
            await client.send(b"\x16\x03")
            client.writer.write_eof()
            await ended(client)
        await until(lambda: listener.connections == 0)


async def test_out_of_descriptors(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepting pauses instead of spinning, and goes on by itself."""
    async with listening(environment) as listener:
        listener._pause_accepting(listener.sockets[0], OSError(24, "Too many open files"))
        asked = asyncio.create_task(ask(listener.spec.port))
        assert await asked == 500


# Changes and endings ------------------------------------------------------------------------------


async def test_strict_ends_those_who_speak_plaintext(
    environment: Environment, mutual: Mutual
) -> None:
    """A connection made before STRICT came into force does not outlive it; TLS ones do."""
    async with listening(environment, "permissive") as listener:
        context = mutual.client()
        port = listener.spec.port
        async with connect(port) as plain, connect(port, ssl=context, server_hostname="") as safe:
            for client in (plain, safe):
                await client.send(GET)
                assert (await client.response()).status == 500
            strict = ListenerSpec(
                name="renamed", direction="inbound", address="127.0.0.1", port=port, mtls="strict"
            )
            listener.obey(strict, HOST, NOBODY)
            assert await plain.rest() == b""
            await safe.send(GET)
            assert (await safe.response()).status == 500


async def test_who_speaks_plaintext_is_counted(environment: Environment, mutual: Mutual) -> None:
    """Where mutual TLS could have been spoken: who is open, who came, who was refused."""

    def plaintext() -> dict[str, float]:
        text = environment.metrics.render(0.0).decode()
        return {
            line.partition(" ")[0].removeprefix("mesh_plaintext_connections_"): float(
                line.split()[1]
            )
            for line in text.splitlines()
            if line.startswith("mesh_plaintext_connections_") and "_created" not in line
        }

    who = 'client="127.0.0.1",port="80"'
    async with listening(environment, "permissive") as listener:
        context = mutual.client()
        port = listener.spec.port
        async with connect(port) as plain, connect(port, ssl=context, server_hostname=""):
            await plain.send(GET)
            await plain.response()
            assert plaintext() == {
                f'total{{{who},verdict="accepted"}}': 1,
                f"active{{{who}}}": 1,
            }
        await until(lambda: listener.connections == 0)
        assert plaintext()[f"active{{{who}}}"] == 0
    assert environment.metrics.connection("downstream", "inbound").active == 0
    async with listening(environment, "strict") as listener, connect(listener.spec.port) as client:
        await client.send(GET)
        assert (await client.response()).status == 403
    assert plaintext()[f'total{{{who},verdict="refused"}}'] == 1


@pytest.mark.parametrize(("mtls", "direction"), [("disabled", "inbound"), ("disabled", "outbound")])
async def test_plaintext_without_a_choice_is_not_counted(
    environment: Environment, mtls: str, direction: str
) -> None:
    """Of a mesh without certificates, and of the app's own calls."""
    async with listening(environment, mtls, direction) as listener:
        async with connect(listener.spec.port) as client:
            await client.send(GET)
            await client.response()
        assert b"mesh_plaintext_connections_total{" not in environment.metrics.render(0.0)


async def test_draining_refuses_new_connections_and_forgets_itself(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is free again, and once the last client has gone no timer is left behind."""
    monkeypatch.setattr(listener_module, "SWEEP", 0.01)
    async with listening(environment) as listener:
        async with connect(listener.spec.port) as client:
            await client.send(GET)
            await client.response()
            listener.drain()
        with pytest.raises(ConnectionRefusedError):
            await ask(listener.spec.port)
        await until(lambda: listener._sweep is None)
        assert repr(listener).endswith(" draining>")


async def test_draining_fails_no_request_that_is_on_its_way(environment: Environment) -> None:
    """
    Idle, half of a head sent, connected without a word, still in the kernel's queue: each gets its
    answer, which says that there will be no other.
    """
    async with listening(environment, "permissive") as listener, AsyncExitStack() as stack:
        port = listener.spec.port
        idle, half, silent = [await stack.enter_async_context(connect(port)) for _ in range(3)]
        await idle.send(GET)
        assert (await idle.response()).header("connection") is None
        await half.send(GET[:10])
        await until(lambda: listener.connections == 3)
        queued = await stack.enter_async_context(connect(port))
        listener.drain()
        for client, rest in ((idle, GET), (half, GET[10:]), (silent, GET), (queued, GET)):
            await client.send(rest)
            assert (await client.response()).header("connection") == "close"
            assert await client.rest() == b""


async def test_an_answer_survives_the_request_after_it(environment: Environment) -> None:
    """
    While draining, who has sent its next request before it read `Connection: close` reads that
    answer to its end: no RST destroys it (RFC 9112 section 9.6).
    """
    async with listening(environment) as listener, connect(listener.spec.port) as client:
        await client.send(GET)
        await client.response()
        listener.drain()
        await client.send(GET + GET)
        await until(lambda: next(iter(listener._connections))._lingering)  # type: ignore[union-attr]
        await client.send(GET)
        assert (await client.response()).status == 500
        assert await client.rest() == b""


async def test_who_stays_idle_is_closed_in_the_end(environment: Environment) -> None:
    """At the end of the drain time; also where only the listener has gone, not the proxy."""
    environment.drain_seconds = 0.05
    async with listening(environment) as listener, connect(listener.spec.port) as client:
        await client.send(GET)
        await client.response()
        listener.drain()
        assert await client.rest() == b""


async def test_two_sockets_in_one_place(environment: Environment) -> None:
    """As after workers have been given up: both queues are served."""
    place = ("127.0.0.1", free_port())
    environment.sockets.hand(place, listen(place, 2))
    spec = ListenerSpec(name="a", direction="inbound", address=place[0], port=place[1])
    listener = Listener(spec, environment)
    listener.bind()
    listener.obey(spec, HOST, NOBODY)
    listener.start()
    assert len(listener.sockets) == 2
    assert {await ask(place[1]) for _ in range(30)} == {500}
    listener.close()


async def test_closing_leaves_no_socket_behind(environment: Environment) -> None:
    """Also those whose first bytes were still awaited."""
    async with listening(environment, "permissive") as listener:
        with socket.create_connection(("127.0.0.1", listener.spec.port)) as client:
            client.send(b"\x16")
            await until(lambda: listener.connections == 1)
            listener.close()
            await until(lambda: listener.connections == 0)
            client.settimeout(30)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""


async def test_the_sweep_ends_waits_that_are_over(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a head is answered 408 when its time has come."""
    monkeypatch.setattr(listener_module, "SWEEP", 0.01)
    monkeypatch.setattr(http1, "HEAD_TIMEOUT", 0.05)
    async with listening(environment) as listener, connect(listener.spec.port) as client:
        await client.send(GET[:-2])
        assert (await client.response()).status == 408
    assert environment.refusals == [("inbound", "head-timeout")]


def refused(environment: Environment) -> dict[tuple[str, ...], int]:
    return environment.metrics._connections_refused.counts


async def test_more_than_it_may_take_in_a_second(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    """They are reset, counted, and the log says so once; the next second is served again."""
    environment.admission.accept_rate = 3
    async with listening(environment) as listener:
        port = listener.spec.port
        answers = await asyncio.gather(*(ask(port) for _ in range(10)), return_exceptions=True)
        assert answers.count(500) == 3
        assert sum(isinstance(answer, OSError) for answer in answers) == 7
        assert refused(environment) == {("inbound", "accept-rate"): 7}
        assert environment.refusals.count(("inbound", "proxy-overloaded")) == 7
        [line] = [record.message for record in caplog.records]
        assert "more connections come in a second" in line
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(OSError):
                    if await ask(port) == 500:
                        break


async def test_who_has_waited_to_be_accepted_is_served_by_a_process_that_leaves(
    environment: Environment,
) -> None:
    """A limit of new connections is not about those who have been promised an answer."""
    environment.admission.accept_rate = 1
    loop = asyncio.get_running_loop()
    async with listening(environment) as listener:
        # One after the other into the kernel's queue, while our loop has no time to look.
        waiting = [socket.create_connection(("127.0.0.1", listener.spec.port)) for _ in range(5)]
        listener.drain()
        for sock in waiting:
            with sock:
                sock.setblocking(False)
                await loop.sock_sendall(sock, GET)
                assert (await loop.sock_recv(sock, 100)).startswith(b"HTTP/1.1 500 ")
    assert refused(environment) == {}


@pytest.mark.parametrize("mtls", ["strict", "permissive"])
async def test_more_handshakes_than_may_wait(
    environment: Environment, mutual: Mutual, mtls: str
) -> None:
    """They are reset; those that wait get their turn, and so does the next who comes."""
    loop = asyncio.get_running_loop()
    environment.handshakes = Handshakes(loop, each_turn=1, most_waiting=2)
    context = mutual.client()
    async with listening(environment, mtls) as listener:
        port = listener.spec.port
        answers = await asyncio.gather(
            *(ask(port, context) for _ in range(30)), return_exceptions=True
        )
        served = answers.count(500)
        assert served + sum(isinstance(answer, OSError) for answer in answers) == 30
        assert served >= 2
        assert refused(environment).get(("inbound", "handshakes"), 0) == 30 - served
        assert await ask(port, context) == 500


async def test_out_of_memory_is_a_reason_of_its_own(environment: Environment) -> None:
    """Whoever speaks HTTP is told; the metric says what there was too much of."""
    environment.admission = Admission(1000, 1, now=environment.now)
    async with listening(environment) as listener:
        assert await ask(listener.spec.port) == 503
    assert refused(environment) == {("inbound", "memory"): 1}
