"""The conversations end to end: a sidecar's client against the control plane, real sockets, real TLS."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from control_plane.authority import Authority
from control_plane.debounce import Debounce
from control_plane.snapshots import State
from meshproxy.config.delta import apply
from meshproxy.contract import wire
from meshproxy.contract.discovery import Ack, Hello, Nack, Refused, Update
from meshproxy.contract.resources import ClusterSpec, EndpointSpec, EndpointsSpec, Snapshot
from meshproxy.contract.wire import ContractError
from meshproxy.identity import signing_request, tls
from meshproxy.identity.certificates import CannotSign
from tests.helpers.plane import CATALOG, REVIEWS, Plane, Sidecar, until
from tests.helpers.ports import free_port

WORKLOAD = "default/catalog-v1"


def mesh(port: int = 8080, *clusters: str) -> Snapshot:
    names = clusters or ("reviews",)
    return Snapshot(
        clusters=tuple(ClusterSpec(name=name) for name in names),
        endpoints=tuple(
            EndpointsSpec(cluster=name, endpoints=(EndpointSpec(address="127.0.0.1", port=port),))
            for name in names
        ),
    )


async def test_first_contact_by_token_then_update_and_ack(tmp_path: Path) -> None:
    """A token becomes a certificate, the certificate a stream, the stream a snapshot in force."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        async with Sidecar(plane, tmp_path / "sidecar", token=token).running() as sidecar:
            await until(lambda: sidecar.client.snapshot.version == wanted.version)
            proxy = plane.discovery.proxies[WORKLOAD]
            await until(lambda: proxy.state is State.SYNCED)

            assert sidecar.applied == [wanted]
            assert sidecar.certificates.ready
            assert proxy.acked_version == wanted.version
            assert proxy.identity == str(CATALOG)
            assert len(plane.tokens) == 0

            wanted = plane.want(WORKLOAD, mesh(9090))
            await until(lambda: proxy.acked_version == wanted.version)
            assert sidecar.applied[-1] == wanted
        await until(lambda: proxy.state is State.DISCONNECTED)


async def joined(plane: Plane, state: Path) -> Sidecar:
    """Return a sidecar that has its certificate and snapshot from `plane`, and is stopped again."""
    token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
    sidecar = Sidecar(plane, state, token=token)
    async with sidecar.running():
        await until(lambda: sidecar.client.snapshot.version == plane.wanted[WORKLOAD].version)
        await until((state / "snapshot.json").exists)
        await until(lambda: synced(plane, WORKLOAD))
    await until(lambda: plane.discovery.proxies[WORKLOAD].state is State.DISCONNECTED)
    return sidecar


def synced(plane: Plane, workload: str) -> bool:
    proxy = plane.discovery.proxies.get(workload)
    return proxy is not None and proxy.state is State.SYNCED


def sent(plane: Plane) -> float | None:
    return plane.metrics.registry.get_sample_value("mesh_discovery_updates_total")


def refusals(plane: Plane, reason: str) -> float | None:
    labels = {"reason": reason}
    return plane.metrics.registry.get_sample_value("mesh_discovery_refusals_total", labels)


def signings(plane: Plane, result: str) -> float | None:
    labels = {"result": result}
    return plane.metrics.registry.get_sample_value("mesh_signings_total", labels)


async def test_nack_keeps_the_old_snapshot_and_says_why(tmp_path: Path) -> None:
    """What the proxy cannot obey is refused with path and reason; the version before stays."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        first = plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        async with sidecar.running():
            proxy = plane.discovery.proxies[WORKLOAD]
            await until(lambda: proxy.state is State.SYNCED)
            sidecar.refuse = ContractError("cluster/a connect_timeout", "too long")
            bad = plane.want(WORKLOAD, mesh(8080, "a"))
            await until(lambda: proxy.state is State.REFUSED)

            assert (proxy.path, proxy.reason) == ("cluster/a connect_timeout", "too long")
            assert proxy.sent_version == bad.version
            assert proxy.acked_version == first.version
            assert sidecar.client.snapshot == first
            assert sidecar.client.last_error is not None

            # The same is not sent again; something better is, against what the proxy still holds.
            sidecar.refuse = None
            good = plane.want(WORKLOAD, mesh(8080, "b", "reviews"))
            await until(lambda: proxy.state is State.SYNCED)
            assert sidecar.client.snapshot == good
            assert sidecar.client.last_error is None


async def test_reconnecting_proxy_gets_only_the_difference(tmp_path: Path) -> None:
    """A proxy that was away while one of three clusters changed is sent that one."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh(8080, "a", "b", "c"))
        sidecar = await joined(plane, tmp_path / "sidecar")
        wanted = plane.want(WORKLOAD, mesh(8080, "a", "b"))
        updates: list[Update] = []

        def recording(snapshot: Snapshot, update: Update) -> Snapshot:
            updates.append(update)
            return apply(snapshot, update)

        with mock.patch("meshproxy.config.delta.apply", recording):
            async with sidecar.running():
                await until(lambda: sidecar.client.snapshot == wanted)
        (update,) = updates
        assert update.changed == ()
        assert {(r.kind, r.name) for r in update.removed} == {("cluster", "c"), ("endpoints", "c")}


async def test_restarted_plane_has_nothing_to_say_to_those_who_hold_everything(
    tmp_path: Path,
) -> None:
    """A new control plane on the same state directory takes its proxies back without an update."""
    port = free_port()
    async with Plane(tmp_path / "plane", port).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
    async with sidecar.running():
        await until(lambda: sidecar.client.last_error is not None)
        assert sidecar.client.snapshot == wanted
        assert sidecar.certificates.ready
        async with Plane(tmp_path / "plane", port).running() as plane:
            assert plane.want(WORKLOAD, mesh()) == wanted
            await until(lambda: WORKLOAD in plane.discovery.proxies)
            await until(lambda: plane.discovery.proxies[WORKLOAD].state is State.SYNCED)
            assert sent(plane) == 0
            assert plane.discovery.proxies[WORKLOAD].acked_version == wanted.version
            assert sidecar.client.last_error is None


async def test_restarted_sidecar_serves_without_its_control_plane(tmp_path: Path) -> None:
    """Certificate and snapshot of the last run are enough; the error says who is missing."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        await joined(plane, tmp_path / "sidecar")
    restarted = Sidecar(plane, tmp_path / "sidecar")
    async with restarted.running():
        await until(lambda: restarted.client.last_error)
        assert restarted.applied == [wanted]
        assert restarted.certificates.ready
        assert f"127.0.0.1:{plane.port}" in (restarted.client.last_error or "")


async def test_token_opens_once(tmp_path: Path) -> None:
    """A second sidecar with the same token is refused, for good, in a clear sentence."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        async with Sidecar(plane, tmp_path / "one", token=token).running() as one:
            await until(lambda: one.certificates.ready)
        async with Sidecar(plane, tmp_path / "two", token=token).running() as two:
            await until(lambda: two.certificates.last_error)
            assert "token-used" in (two.certificates.last_error or "")
            await until(lambda: "put a new one there" in (two.certificates.last_error or ""))
            assert not two.certificates.ready
            assert two.applied == []
        assert signings(plane, "token-used") == 1


async def test_expired_token_is_refused(tmp_path: Path) -> None:
    """A token that was left lying opens nothing."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG, lifetime=-1)
        async with Sidecar(plane, tmp_path / "sidecar", token=token).running() as sidecar:
            await until(lambda: sidecar.certificates.last_error)
        assert signings(plane, "token-unknown") == 1


async def test_token_of_another_workload_is_refused_and_not_used_up(tmp_path: Path) -> None:
    """A token is bound to one workload; its owner can still join."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        token, _expires = plane.tokens.issue("default/reviews", REVIEWS)
        async with Sidecar(plane, tmp_path / "sidecar", token=token).running() as sidecar:
            await until(lambda: sidecar.certificates.last_error)
            assert "token-of-another" in (sidecar.certificates.last_error or "")
        assert len(plane.tokens) == 1


async def test_plane_of_another_root_hears_nothing(tmp_path: Path) -> None:
    """With a root that does not vouch for the plane, not even the token leaves the sidecar."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        other = tmp_path / "other.pem"
        other.write_text("".join(Authority(tmp_path / "other", "mesh.local").roots()))
        sidecar = Sidecar(plane, tmp_path / "sidecar", token=token, roots=other)
        async with sidecar.running():
            await until(lambda: sidecar.certificates.last_error)
            assert "not vouched for" in (sidecar.certificates.last_error or "")
        assert len(plane.tokens) == 1
        assert signings(plane, "signed") is None


async def test_plane_of_another_identity_hears_nothing(tmp_path: Path) -> None:
    """A certificate of the mesh is not enough: any workload has one.  The identity must fit."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        sidecar = Sidecar(plane, tmp_path / "sidecar", token=token, plane_identity=REVIEWS)
        async with sidecar.running():
            await until(lambda: sidecar.certificates.last_error)
            assert f"expected {REVIEWS}" in (sidecar.certificates.last_error or "")
        assert len(plane.tokens) == 1


async def test_hello_for_another_workload_is_refused(tmp_path: Path) -> None:
    """Who a proxy is, its certificate says; what it says does not change that."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        plane.want("default/reviews", mesh(7070))
        await joined(plane, tmp_path / "sidecar")
        liar = Sidecar(plane, tmp_path / "sidecar", workload="default/reviews")
        async with liar.running():
            await until(lambda: "wrong-identity" in (liar.client.last_error or ""))
        assert refusals(plane, "wrong-identity") == 1
        assert "default/reviews" not in plane.discovery.proxies


async def test_a_revoked_identity_loses_its_stream_until_it_is_forgiven(tmp_path: Path) -> None:
    """At once, and it may neither come back nor renew; others do not notice."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        plane.want("default/reviews", mesh(7070))
        await joined(plane, tmp_path / "catalog")
        token, _expires = plane.tokens.issue("default/reviews", REVIEWS)
        catalog = Sidecar(plane, tmp_path / "catalog")
        reviews = Sidecar(
            plane, tmp_path / "reviews", workload="default/reviews", identity=REVIEWS, token=token
        )
        async with catalog.running(), reviews.running():
            await until(lambda: synced(plane, WORKLOAD) and synced(plane, "default/reviews"))
            plane.revocations.revoke(CATALOG)
            plane.discovery.cut()
            await until(lambda: "identity-revoked" in (catalog.client.last_error or ""))
            with pytest.raises(CannotSign, match="identity-revoked"):
                await catalog.client.sign((await signing_request.make()).csr)
            assert reviews.client.connected
            plane.revocations.lift(CATALOG)
            await until(lambda: synced(plane, WORKLOAD), 20)


async def test_what_a_proxy_believes_is_known_from_what_it_has_acknowledged(tmp_path: Path) -> None:
    """The version of the trust bundle, as Hello and Ack say it; and who signed its certificate."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        await joined(plane, tmp_path / "sidecar")
        proxy = plane.discovery.proxies[WORKLOAD]
        assert proxy.trust == wire.resource_version(wanted.trust[0])
        assert proxy.certificate_issuer == plane.authority.signer.issuer_id
        assert proxy.certificate_serial == plane.authority.ledger.last[WORKLOAD].serial
        plane.authority.begin("root")
        wanted = plane.want(WORKLOAD, mesh())
        sidecar = Sidecar(plane, tmp_path / "sidecar")
        sidecar.refuse = ContractError("x", "no")
        async with sidecar.running():
            await until(lambda: proxy.state is State.REFUSED)
            assert proxy.trust != wire.resource_version(wanted.trust[0])
            sidecar.refuse = None
            wanted = plane.want(WORKLOAD, mesh(7070))
            await until(lambda: proxy.trust == wire.resource_version(wanted.trust[0]))


async def test_certificate_is_renewed_with_the_certificate(tmp_path: Path) -> None:
    """At half the life of a certificate of 60 s comes the next, without a token; nothing is cut."""
    clock = 0.0
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.lifetime = timedelta(seconds=60)
        plane.want(WORKLOAD, mesh())
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        napping = asyncio.Event()
        wake = asyncio.Event()

        async def pause(_seconds: float) -> None:
            napping.set()
            await wake.wait()
            wake.clear()

        sidecar = Sidecar(
            plane,
            tmp_path / "sidecar",
            token=token,
            clock=lambda: time.time() + clock,
            pause=pause,
        )
        async with sidecar.running():
            await until(lambda: sidecar.client.connected and WORKLOAD in plane.discovery.proxies)
            await until(lambda: plane.discovery.proxies[WORKLOAD].state is State.SYNCED)
            await napping.wait()
            contexts = sidecar.certificates.server, sidecar.certificates.client
            clock = 34.0  # half of 60 s, and the jitter
            wake.set()
            await until(lambda: signings(plane, "signed") == 2)
            await until(lambda: sidecar.certificates.server is not contexts[0])
            assert sidecar.certificates.client is not contexts[1]
            # The stream comes back with the new certificate, and is told nothing that it holds.
            not_after = sidecar.certificates.not_after
            proxy = plane.discovery.proxies[WORKLOAD]
            await until(lambda: proxy.certificate_not_after == not_after)
            await until(lambda: proxy.state is State.SYNCED)
            assert sent(plane) == 1
            assert sidecar.client.last_error is None
            assert sidecar.certificates.last_error is None


async def test_endpoints_do_not_wait_for_quiet(tmp_path: Path) -> None:
    """A change of endpoints alone is in force before the debounce of 100 s would let it through."""
    plane = Plane(tmp_path / "plane", free_port(), debounce=Debounce(quiet=100, most=100))
    async with plane.running():
        plane.want(WORKLOAD, mesh())
        token, _expires = plane.tokens.issue(WORKLOAD, CATALOG)
        async with Sidecar(plane, tmp_path / "sidecar", token=token).running() as sidecar:
            await until(lambda: len(sidecar.applied) == 1)
            wanted = plane.want(WORKLOAD, mesh(9999))
            await until(lambda: sidecar.client.snapshot == wanted)


async def test_garbage_before_and_after_hello_harms_nobody(tmp_path: Path) -> None:
    """Whatever is sent, the sender is refused, the plane lives, and other proxies do not notice."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        anonymous = tls.plane_context("".join(plane.authority.roots()))
        known = tls.plane_context("".join(plane.authority.roots()), sidecar.certificates.file)
        nonsense = ["", "{", "[]", "null", '{"type":"ack","nonce":"1","version":""}', "[" * 100_000]
        for path in ("/v1/identity", "/v1/discovery"):
            for context in (anonymous, known):
                for text in nonsense:
                    uri = f"wss://127.0.0.1:{plane.port}{path}"
                    async with connect(uri, ssl=context, proxy=None, close_timeout=1) as socket:
                        with suppress(ConnectionClosed):
                            await socket.send(text)
                            async for answer in socket:
                                assert wire.decode(answer, Refused).reason
        async with sidecar.running():
            await until(lambda: plane.discovery.proxies[WORKLOAD].state is State.SYNCED)
        assert sidecar.client.snapshot == wanted


async def test_garbage_instead_of_tls_harms_nobody(tmp_path: Path) -> None:
    """Plain HTTP, random bytes, nothing at all: the port goes on serving those who can speak."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        held = []
        for data in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\xff\xff" + bytes(range(256)) * 8,
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", plane.port)
            writer.write(data)
            held.append((reader, writer))
        await joined(plane, tmp_path / "sidecar")
        for _reader, writer in held:
            writer.close()


@asynccontextmanager
async def by_hand(plane: Plane, sidecar: Sidecar) -> AsyncIterator[ClientConnection]:
    """Connect with a sidecar's certificate and say Hello; what follows is the test's affair."""
    context = tls.plane_context("".join(plane.authority.roots()), sidecar.certificates.file)
    uri = f"wss://127.0.0.1:{plane.port}/v1/discovery"
    async with connect(uri, ssl=context, proxy=None, close_timeout=0.1) as connection:
        await connection.send(wire.encode(Hello(workload=WORKLOAD)).decode())
        yield connection


async def test_a_proxy_that_never_answers_delays_nobody(tmp_path: Path) -> None:
    """One is frozen in the middle of an update; the next change reaches its neighbour at once."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        frozen = await joined(plane, tmp_path / "sidecar")
        plane.want("default/reviews", mesh())
        token, _expires = plane.tokens.issue("default/reviews", REVIEWS)
        neighbour = Sidecar(
            plane, tmp_path / "neighbour", workload="default/reviews", identity=REVIEWS, token=token
        )
        async with by_hand(plane, frozen) as connection, neighbour.running():
            await connection.recv()
            await until(lambda: neighbour.applied)
            plane.want(WORKLOAD, mesh(8080, "new"))
            wanted = plane.want("default/reviews", mesh(8080, "new"))
            await until(lambda: neighbour.client.snapshot == wanted, seconds=2)
            proxy = plane.discovery.proxies[WORKLOAD]
            assert proxy.state is State.STALE
            # One update in flight: the newer one waits for the answer to the older.
            assert proxy.sent_version != plane.wanted[WORKLOAD].version


async def test_what_a_proxy_says_of_itself_is_not_kept_without_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Megabytes of reasons, or of a name, are neither shown nor logged."""
    huge = "x" * 1_500_000
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        async with by_hand(plane, sidecar) as connection:
            update = wire.decode(await connection.recv(), Update)
            nack = Nack(nonce=update.nonce, version="", path=huge, reason=huge)
            await connection.send(wire.encode(nack).decode())
            proxy = plane.discovery.proxies[WORKLOAD]
            await until(lambda: proxy.state is State.REFUSED)
        assert len(proxy.reason) + len(proxy.path) < 5_000
        context = tls.plane_context("".join(plane.authority.roots()), sidecar.certificates.file)
        uri = f"wss://127.0.0.1:{plane.port}/v1/discovery"
        async with connect(uri, ssl=context, proxy=None, close_timeout=0.1) as connection:
            await connection.send(wire.encode(Hello(workload=huge)).decode())
            assert len(await connection.recv()) < 5_000
    assert all(len(record.getMessage()) < 10_000 for record in caplog.records)


async def test_the_newest_connection_of_a_proxy_wins(tmp_path: Path) -> None:
    """A connection that the proxy has given up, but we have not noticed, must not stand in its way."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        async with by_hand(plane, sidecar) as old:
            await old.recv()
            async with by_hand(plane, sidecar) as new:
                update = wire.decode(await new.recv(), Update)
                await new.send(
                    wire.encode(Ack(nonce=update.nonce, version=wanted.version)).decode()
                )
                with pytest.raises(ConnectionClosed):
                    await old.recv()
                await until(lambda: synced(plane, WORKLOAD))


async def test_an_answer_to_another_question_ends_the_stream(tmp_path: Path) -> None:
    """An Ack of a nonce that was never sent acknowledges nothing."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        wanted = plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        async with by_hand(plane, sidecar) as connection:
            await connection.recv()
            await connection.send(wire.encode(Ack(nonce="x", version=wanted.version)).decode())
            assert wire.decode(await connection.recv(), Refused).code == "unexpected-answer"
        assert plane.discovery.proxies[WORKLOAD].acked_version == ""


async def test_an_unexpected_error_in_one_snapshot_leaves_the_others_served(tmp_path: Path) -> None:
    """A proxy whose snapshot cannot be made goes on with its last; its neighbour gets the new one."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        token, _expires = plane.tokens.issue("default/reviews", REVIEWS)
        neighbour = Sidecar(
            plane,
            tmp_path / "neighbour",
            workload="default/reviews",
            identity=REVIEWS,
            token=token,
        )
        plane.want("default/reviews", mesh())
        async with sidecar.running(), neighbour.running():
            await until(lambda: sidecar.client.connected and neighbour.applied)
            plane.broken.add(WORKLOAD)
            wanted = plane.want("default/reviews", mesh(1234, "z"))
            await until(lambda: neighbour.client.snapshot == wanted)
            assert sidecar.client.connected


async def test_what_is_no_workload_any_more_is_forgotten(tmp_path: Path) -> None:
    """Pods have a new name each: what is kept of them must not grow with every release."""
    async with Plane(tmp_path / "plane", free_port()).running() as plane:
        plane.want(WORKLOAD, mesh())
        sidecar = await joined(plane, tmp_path / "sidecar")
        async with sidecar.running():
            await until(lambda: synced(plane, WORKLOAD))
        await until(lambda: plane.discovery.proxies[WORKLOAD].state is State.DISCONNECTED)
        del plane.identities[WORKLOAD]
        plane.discovery.changed()
        await until(lambda: not plane.discovery.proxies)
