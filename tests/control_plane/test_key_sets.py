"""Keys of token issuers: fetched from a real server, read from real files, and never lost or tricked."""

import asyncio
import gzip
import json
import ssl
import stat
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.x509 import IPAddress
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from control_plane.generate.snapshot import generate
from control_plane.key_sets import LARGEST, MOST_KEYS, KeySets
from control_plane.metrics import Metrics
from control_plane.placement import Placements
from control_plane.resources.collection import choose, examine, state_of
from control_plane.store import State
from meshproxy.message import RequestHead, field
from meshproxy.policies.jwt import InvalidToken, Jwt
from tests.helpers.certificates import TestAuthority, key_pem, write
from tests.helpers.mesh import TRUST, workload
from tests.helpers.plane import until

NOW = 1_800_000_000.0
ISSUER = "https://id.example"
NAME = ("default/users", ISSUER)
OLD = ECKey.generate_key("P-256", {"kid": "old"})
NEW = ECKey.generate_key("P-256", {"kid": "new"})


def key_set(*keys: Any, private: bool = False) -> str:
    return json.dumps({"keys": [key.as_dict(private=private) for key in keys]})


def token(key: ECKey) -> str:
    header = {"alg": "ES256", "kid": key.kid}
    claims = json.dumps({"iss": ISSUER, "sub": "alice", "exp": NOW + 60})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jws.serialize_compact(header, claims, key)


def policy(where: str, hosts: str = "") -> str:
    return f"""
apiVersion: meshproxy.io/v1alpha1
kind: MeshConfig
metadata: {{name: mesh}}
spec: {{jwks: {{allowedHosts: [{hosts}]}}}}
---
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {{name: users}}
spec: {{jwtRules: [{{issuer: "{ISSUER}", {where}}}]}}
---
{workload("catalog")}
"""


def state(text: str, folder: Path) -> State:
    path = folder / "mesh.yaml"
    return state_of(choose({path: examine(text, path)}, {}), Placements())


def accepts(sets: KeySets, mesh: State, key: ECKey) -> bool:
    """Say whether the proxy beside catalog would believe a token of this key now."""
    snapshot = generate(mesh, "default/catalog", TRUST, sets.known)
    (host,) = [one for one in snapshot.virtual_hosts if one.name == "inbound:8080"]
    bearer = field(b"authorization", b"Bearer " + token(key).encode())
    try:
        return Jwt(host.jwt).check(RequestHead(b"GET", b"catalog", b"/", [bearer]), NOW) is not None
    except InvalidToken:
        return False


class Issuer:
    """
    A server with keys.

    Attributes:
        answer: What it says.
        asked: How often it was asked, by path.
        host: Where it is.
    """

    def __init__(self) -> None:
        self.answer: Callable[[], web.StreamResponse] = lambda: web.Response(text=key_set(OLD))
        self.asked: dict[str, int] = {}
        self.host = ""

    def serve(self, text: str) -> None:
        self.answer = lambda: web.Response(text=text)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked[request.path] = self.asked.get(request.path, 0) + 1
        return self.answer()


@asynccontextmanager
async def serving(handle: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve with a handler, and yield the authority under which it is reached."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    async with serving(made.handle) as made.host:
        yield made


@asynccontextmanager
async def running(sets: KeySets) -> AsyncIterator[None]:
    task = asyncio.create_task(sets.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def key_sets(folder: Path, **options: Any) -> KeySets:
    times = {"refresh": 0.02, "look": 0.02, "retry": 0.02}
    return KeySets(folder / "key-sets", [folder], **{**times, **options})


async def test_keys_are_fetched_and_rotate_without_a_gap(tmp_path: Path) -> None:
    """At no moment is a token of a key refused that is published; one that was removed is refused."""
    async with issuer() as server:
        mesh = state(policy(f"jwksUri: 'http://{server.host}/keys'", server.host), tmp_path)
        sets, told = key_sets(tmp_path), asyncio.Event()
        sets.on_changed = told.set
        sets.follow(mesh)
        assert not accepts(sets, mesh, OLD)  # not known yet
        async with running(sets):
            await until(lambda: NAME in sets.known)
            assert told.is_set()
            assert accepts(sets, mesh, OLD)
            assert not accepts(sets, mesh, NEW)
            server.serve(key_set(OLD, NEW))
            await until(lambda: accepts(sets, mesh, NEW))
            assert accepts(sets, mesh, OLD)
            server.serve(key_set(NEW))
            await until(lambda: not accepts(sets, mesh, OLD))
            assert accepts(sets, mesh, NEW)
            assert list(sets.findings()) == []


def _redirect(to: str) -> Callable[[], web.StreamResponse]:
    return lambda: web.Response(status=302, headers={"Location": to})


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_redirect("/elsewhere"), "was answered with 302, and redirects are not followed"),
        (lambda: web.Response(status=404), "was answered with 404"),
        (lambda: web.Response(status=500, text=key_set(NEW)), "was answered with 500"),
        (lambda: web.Response(text="root:x:0:0"), "is not a JSON Web Key Set"),
        (lambda: web.Response(text="[" * 100_000), "is not a JSON Web Key Set"),
        (lambda: web.Response(text='{"keys": []}'), "has no key"),
        (lambda: web.Response(text='{"keys": ["secret"]}'), "is not a JSON Web Key Set"),
        (lambda: web.Response(body=b" " * (LARGEST + 1)), "is larger than 1 MiB"),
        (
            lambda: web.Response(
                body=gzip.compress(key_set(NEW).encode()), headers={"Content-Encoding": "gzip"}
            ),
            "compressed",
        ),
        (lambda: web.Response(text=key_set(NEW, private=True)), "is a private or symmetric key"),
        (
            lambda: web.Response(text=key_set(NEW, OctKey.generate_key(256), private=True)),
            "is a private or symmetric key",
        ),
        (lambda: web.Response(text=key_set(*[NEW] * (MOST_KEYS + 1))), "has 101 keys"),
    ],
)
async def test_what_is_no_key_set_changes_nothing(
    answer: Callable[[], web.StreamResponse], said: str, tmp_path: Path
) -> None:
    """The last good keys hold, the reason is a finding without a word of the answer, and it is asked again."""
    async with issuer() as server:
        mesh = state(policy(f"jwksUri: 'http://{server.host}/keys'", server.host), tmp_path)
        sets = key_sets(tmp_path)
        sets.follow(mesh)
        async with running(sets):
            await until(lambda: NAME in sets.known)
            server.answer = answer
            await until(lambda: list(sets.findings()))
            (finding,) = sets.findings()
            assert said in finding.message
            assert "hold until then" in finding.message
            assert "root:x" not in finding.message
            assert finding.file == str(tmp_path / "mesh.yaml")
            assert finding.line == 7
            assert finding.field == "spec.jwtRules[0].jwksUri"
            assert accepts(sets, mesh, OLD)
            assert not accepts(sets, mesh, NEW)
            server.serve(key_set(OLD))
            await until(lambda: not list(sets.findings()))
        assert set(server.asked) == {"/keys"}


@pytest.mark.parametrize(
    ("piece", "said"),
    [(b" ", "was not answered within 0.5 s"), (b" " * 65536, "larger than 1 MiB")],
)
async def test_an_answer_without_an_end_is_given_up(
    piece: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drop by drop it takes the time that there is, at full speed the room; others do not wait for it."""
    monkeypatch.setattr("control_plane.key_sets.WITHIN", 0.5)

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(piece)
                await asyncio.sleep(0.01)
        return answer

    async with serving(endless) as host, issuer() as server:
        mesh = state(
            policy(f"jwksUri: 'http://{host}/keys'", f"'{host}', '{server.host}'").replace(
                "jwtRules: [", f"jwtRules: [{{issuer: good, jwksUri: 'http://{server.host}/k'}}, "
            ),
            tmp_path,
        )
        sets = key_sets(tmp_path)
        sets.follow(mesh)
        async with running(sets):
            await until(lambda: ("default/users", "good") in sets.known)
            await until(lambda: any(said in finding.message for finding in sets.findings()))
            assert NAME not in sets.known


async def test_a_redirect_to_another_host_reaches_nobody(tmp_path: Path) -> None:
    """An allowed host cannot lend us to one that is not."""
    async with issuer() as server, issuer() as inside:
        server.answer = _redirect(f"http://{inside.host}/metadata")
        mesh = state(policy(f"jwksUri: 'http://{server.host}/keys'", server.host), tmp_path)
        sets = key_sets(tmp_path)
        sets.follow(mesh)
        async with running(sets):
            await until(lambda: server.asked.get("/keys", 0) >= 3)
        assert inside.asked == {}
        assert sets.known == {}


async def test_only_listed_hosts_are_asked(tmp_path: Path) -> None:
    """A policy alone makes nobody ask anything; listed, it does; unlisted again, its keys go."""
    async with issuer() as server:
        uri = f"jwksUri: 'http://{server.host}/keys'"
        denied = state(policy(uri, "id.example"), tmp_path)
        sets = key_sets(tmp_path)
        sets.follow(denied)
        async with running(sets):
            sets.follow(state(policy(uri, server.host), tmp_path))
            await until(lambda: NAME in sets.known)
            assert list((tmp_path / "key-sets").iterdir())
            sets.follow(denied)
            assert sets.known == {}
            assert not list((tmp_path / "key-sets").iterdir())
        sets = key_sets(tmp_path)
        sets.follow(denied)
        asked = dict(server.asked)
        async with running(sets):
            await asyncio.sleep(0)
        assert server.asked == asked


async def test_https_is_checked(tmp_path: Path) -> None:
    """A server that shows no certificate of the roots that hold gives no keys."""
    authority = TestAuthority("somebody")
    (tmp_path / "cert.pem").write_text(authority.pem)
    (tmp_path / "key.pem").write_bytes(key_pem(authority.key).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    made = Issuer()
    async with serving(made.handle, context) as host:
        mesh = state(policy(f"jwksUri: 'https://{host}/keys'", host), tmp_path)
        sets = key_sets(tmp_path)
        sets.follow(mesh)
        async with running(sets):
            await until(lambda: not sets.awaited())
            (finding,) = sets.findings()
            assert "certificate is not right" in finding.message
            assert "no token of this issuer is right until then" in finding.message
            assert made.asked == {}


async def test_old_versions_of_tls_give_no_keys(tmp_path: Path, monkeypatch: Any) -> None:
    """1.2 is the least, also of a server whose certificate is right."""
    authority = TestAuthority("keys")
    (tmp_path / "root.pem").write_text(authority.pem)
    address = IPAddress(ip_address("127.0.0.1"))
    own = write(tmp_path / "own.pem", *authority.leaf(address))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    ours = ssl.create_default_context()  # as aiohttp's, which is made when that is imported
    for newest, given in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = newest
        async with serving(Issuer().handle, context) as host:
            mesh = state(policy(f"jwksUri: 'https://{host}/keys'", host), tmp_path)
            sets = key_sets(tmp_path / newest.name, tls=ours)
            sets.follow(mesh)
            async with running(sets):
                await until(lambda: not sets.awaited())  # noqa: B023
            assert bool(sets.known) is given


async def test_a_restart_keeps_good_keys(tmp_path: Path) -> None:
    """They hold before anything was fetched, and when there is nobody to fetch from; nobody else can read them."""
    async with issuer() as server:
        text = policy(f"jwksUri: 'http://{server.host}/keys'", server.host)
        sets = key_sets(tmp_path)
        sets.follow(state(text, tmp_path))
        async with running(sets):
            await until(lambda: NAME in sets.known)
    (kept,) = (tmp_path / "key-sets").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    again, mesh = key_sets(tmp_path), state(text, tmp_path)
    again.follow(mesh)
    assert accepts(again, mesh, OLD)
    async with running(again):
        await until(lambda: list(again.findings()))
    (finding,) = again.findings()
    assert "cannot be reached" in finding.message
    assert "hold until then" in finding.message
    kept.chmod(0o644)  # others could have changed it
    doubtful = key_sets(tmp_path)
    doubtful.follow(mesh)
    assert doubtful.known == {}


async def test_a_file_beside_the_policy_is_followed(tmp_path: Path) -> None:
    """Known at once, also before anything runs; a change is told; damage and loss change nothing."""
    keys = tmp_path / "keys.json"
    keys.write_text(key_set(OLD))
    mesh = state(policy("jwksFile: keys.json"), tmp_path)
    sets, told = key_sets(tmp_path), asyncio.Event()
    sets.on_changed = told.set
    sets.follow(mesh)
    assert accepts(sets, mesh, OLD)
    told.clear()
    async with running(sets):
        keys.write_text(key_set(NEW))
        await told.wait()
        assert accepts(sets, mesh, NEW)
        assert not accepts(sets, mesh, OLD)
        keys.write_text("{")
        await until(lambda: list(sets.findings()))
        assert accepts(sets, mesh, NEW)
        keys.unlink()
        await until(lambda: any("No such file" in one.message for one in sets.findings()))
        (finding,) = sets.findings()
        assert finding.field == "spec.jwtRules[0].jwksFile"
        assert accepts(sets, mesh, NEW)
        keys.write_text(key_set(NEW, private=True))
        await until(lambda: any("replace it" in one.message for one in sets.findings()))
        keys.write_text(key_set(NEW))
        await until(lambda: not list(sets.findings()))
    again = key_sets(tmp_path)
    keys.unlink()
    again.follow(mesh)
    assert accepts(again, mesh, NEW)


async def test_a_file_that_comes_to_lie_outside_is_no_longer_believed(tmp_path: Path) -> None:
    """A link that is bent takes its keys along, also those of the copy; bent back, it is read again."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "keys.json").write_text(key_set(OLD))
    (tmp_path / "outside.json").write_text(key_set(NEW))
    link = tmp_path / "config" / "link"
    link.symlink_to("keys.json")
    mesh = state(policy("jwksFile: link"), tmp_path / "config")

    def confined() -> KeySets:
        return KeySets(tmp_path / "key-sets", [tmp_path / "config"], look=0.02)

    def bend(to: str) -> None:
        (tmp_path / "new").symlink_to(to)
        (tmp_path / "new").rename(link)

    sets = confined()
    sets.follow(mesh)
    async with running(sets):
        assert accepts(sets, mesh, OLD)
        bend("../outside.json")
        await until(lambda: not accepts(sets, mesh, OLD))
        assert not accepts(sets, mesh, NEW)
        (finding,) = sets.findings()
        assert "leads out of the folders of the configuration" in finding.message
        assert "no token of this issuer is right until then" in finding.message
        assert not list((tmp_path / "key-sets").iterdir())
        bend("keys.json")
        await until(lambda: accepts(sets, mesh, OLD))
    bend("../outside.json")
    again = confined()
    again.follow(mesh)
    assert again.known == {}


async def test_the_mesh_config_says_how_often(tmp_path: Path) -> None:
    """What it says holds at once: nobody waits for the end of an hour."""
    async with issuer() as server:

        def asking(refresh: str) -> State:
            text = policy(f"jwksUri: 'http://{server.host}/keys'", server.host)
            return state(text.replace("jwks: {", f"jwks: {{refresh: {refresh}, "), tmp_path)

        sets = key_sets(tmp_path, refresh=None)
        sets.follow(asking("1h"))
        async with running(sets):
            await until(lambda: NAME in sets.known)
            server.serve(key_set(NEW))
            sets.follow(asking("1s"))
            await until(lambda: accepts(sets, asking("1s"), NEW))
            await until(lambda: server.asked["/keys"] >= 3)


async def test_the_first_answer_is_awaited_whatever_it_is(tmp_path: Path) -> None:
    """Said while nothing is known, and told when that ends: with keys, or with a reason why not."""
    go, asked = asyncio.Event(), list[str]()

    async def slow(request: web.Request) -> web.Response:
        asked.append(request.path)
        await go.wait()
        return web.Response(text=answer)

    async with serving(slow) as host:
        mesh = state(policy(f"jwksUri: 'http://{host}/keys'", host), tmp_path)
        for answer in (key_set(OLD), "no keys"):
            go.clear()
            asked.clear()
            sets, told = key_sets(tmp_path / answer[:2]), asyncio.Event()
            sets.on_changed = told.set
            sets.follow(mesh)
            async with running(sets):
                await until(lambda: asked)
                assert [one.metadata.name for one in sets.awaited()] == ["users"]
                (finding,) = sets.findings()
                assert "is asked for the first time" in finding.message
                assert not told.is_set()
                go.set()
                await told.wait()
                assert sets.awaited() == []


def test_what_is_told_to_proxies_is_only_what_they_need(tmp_path: Path) -> None:
    """Certificates and comments of a published set are not sent to every sidecar."""
    noisy = {"keys": [{**OLD.as_dict(private=False), "x5c": ["MII…"], "note": "hello"}]}
    (tmp_path / "keys.json").write_text(json.dumps({**noisy, "more": 1}))
    sets = key_sets(tmp_path)
    sets.follow(state(policy("jwksFile: keys.json"), tmp_path))
    (key,) = json.loads(sets.known[NAME])["keys"]
    assert key.keys() == {"kty", "crv", "x", "y", "kid"}


def test_figures(tmp_path: Path) -> None:
    """Age and failures by issuer; an issuer whose keys were never had has no age."""
    now = [NOW]
    keys = tmp_path / "keys.json"
    sets = key_sets(tmp_path, wall=lambda: now[0])
    mesh = state(policy("jwksFile: keys.json"), tmp_path)
    metrics = Metrics()
    metrics.watch_key_sets(sets.figures)
    sets.follow(mesh)
    value = metrics.registry.get_sample_value
    labels = {"issuer": ISSUER}
    assert value("mesh_key_set_age_seconds", labels) is None
    assert value("mesh_key_set_failures_total", labels) == 1
    keys.write_text(key_set(OLD))
    sets.follow(State())
    sets.follow(mesh)
    now[0] += 7
    assert value("mesh_key_set_age_seconds", labels) == 7
    assert value("mesh_key_set_failures_total", labels) == 0
    assert repr(sets) == "<KeySets 1 places [1 key sets]>"
