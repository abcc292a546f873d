"""Who may do what, through two sidecars with mutual TLS: paths, tokens, opaque connections, live."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt as tokens
from joserfc.jwk import ECKey

from meshproxy.contract.authentication import JwtSpec
from meshproxy.contract.authorization import (
    AuthorizationRuleSpec,
    AuthorizationSpec,
    FactSpec,
    OperationSpec,
    SourceSpec,
)
from meshproxy.contract.resources import Snapshot
from tests.helpers.client import connect, denial_in, get
from tests.helpers.http2 import GET, Wire
from tests.helpers.origin import hello, origin
from tests.helpers.pair import Pair, spiffe
from tests.helpers.running_mesh import RunningMesh, shop
from tests.meshproxy.routing.test_readings import BELOW, SPELLINGS

pytestmark = pytest.mark.integration


def policy(action: Any, *rules: AuthorizationRuleSpec) -> AuthorizationSpec:
    return AuthorizationSpec(name=f"default/{action}", action=action, rules=rules)


def guarded(*policies: AuthorizationSpec, jwt: tuple[JwtSpec, ...] = ()) -> Callable[..., Snapshot]:
    """Return what puts policies before the app of the second sidecar."""

    def change(snapshot: Snapshot) -> Snapshot:
        hosts = tuple(
            msgspec.structs.replace(host, authorization=policies, jwt=jwt)
            for host in snapshot.virtual_hosts
        )
        return msgspec.structs.replace(snapshot, virtual_hosts=hosts)

    return change


@contextlib.asynccontextmanager
async def pair(directory: Path, app: int, change: Callable[..., Snapshot]) -> Any:
    two = Pair(directory, app, change_b=change)
    await asyncio.to_thread(two.__enter__)
    try:
        yield two
    finally:
        await asyncio.to_thread(two.__exit__)


ADMIN = AuthorizationRuleSpec(
    name="admin", operations=(OperationSpec(paths=("/admin", "/admin/*")),)
)


# What is no path at all, and is one to somebody all the same; the last ones not behind a host.
NO_PATHS = [
    "/admin#x", "/x#/../admin", "/admin\t", "/x/..\t/admin", "/ad\tmin", "/admin\0", "/admin\x7f", "/admin ", "/ admin",
    "/%u002fadmin", "/%u0061dmin", "/x/%uff0e%uff0e/admin", "/%gdmin", "/admin%", "/admin%0", "/%%61dmin", "/%25%", "/x/..%/admin",
    "/\xc0\xaf../admin", "/x/\xc0\xae\xc0\xae/admin", "/\xef\xbc\x8fadmin", "/admin\xa0", "//x:y@/admin#", "/admin<", "/admin^", "/adm`in",
    "/{admin}", "\\admin", "*/admin", "admin", "../admin", "http:/admin", "file:///admin",
]  # fmt: skip
ALL = (*SPELLINGS, *BELOW, *NO_PATHS)


def batched(items: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


async def test_no_spelling_of_a_denied_path_reaches_the_app(tmp_path: Path) -> None:
    """HTTP/1.1 at the client, HTTP/2 between the sidecars: denied or refused, and nothing else."""
    asked = [(spelling, f"{spelling} HTTP/1.1\r\nHost: catalog") for spelling in ALL]
    asked += [(one, f"http://catalog{one} HTTP/1.1\r\nHost: x") for one in ALL if one[0] == "/"]
    async with origin(hello) as app, pair(tmp_path, app.port, guarded(policy("deny", ADMIN))) as it:
        while asked:
            async with connect(it.door) as client:
                status = 403
                while asked and status == 403:  # any other ends the connection
                    spelling, rest = asked.pop()
                    await client.send(f"GET {rest}\r\n\r\n".encode("latin-1"))
                    status = (await client.response()).status
                    assert status in ((400,) if spelling in NO_PATHS else (400, 403)), rest
        assert app.requests == []
        assert (await get(it.door, "/public")).status == 200
        async with asyncio.timeout(10):
            while "rule 'admin' of AuthorizationPolicy default/deny" not in it.b.log():
                await asyncio.sleep(0.02)
        metrics = await asyncio.to_thread(it.b.metrics)
        assert 'mesh_authorization_denied_total{policy="default/deny"}' in metrics


async def test_nor_does_one_over_http2(tmp_path: Path) -> None:
    """What HTTP/1.1 refuses on its first line is a field there; the rules are the same."""
    async with origin(hello) as app, pair(tmp_path, app.port, guarded(policy("deny", ADMIN))) as it:
        for spellings in batched(ALL, 50):
            wire = Wire()
            verdicts: dict[int, str] = {}
            async with connect(it.door) as client, asyncio.timeout(20):
                await client.send(wire.hello())
                for number, spelling in enumerate(spellings):
                    head = (*GET[:3], (":path", spelling))
                    await client.send(wire.headers(2 * number + 1, head))
                while len(verdicts) < len(spellings):
                    data = await client.reader.read(65536)
                    assert data, "the connection lives on"
                    for one in wire.hear(data):
                        if one.headers or one.kind == "RstStream":
                            status = dict(one.headers or ()).get(":status", "reset")
                            verdicts.setdefault(one.stream, status)
            assert set(verdicts.values()) <= {"400", "403", "reset"}, (spellings, verdicts)
        assert app.requests == []


async def test_a_denied_caller_learns_nothing(tmp_path: Path) -> None:
    """A number; not who denied it, nor what there is."""
    async with origin(hello) as app, pair(tmp_path, app.port, guarded(policy("deny", ADMIN))) as it:
        response = await get(it.door, "/admin")
        assert response.status == 403
        assert response.header("x-mesh-refusal") == "access-denied"
        number = denial_in(response)
        async with asyncio.timeout(10):  # the log is written by a thread of its own
            while number not in await asyncio.to_thread(it.b.log):
                await asyncio.sleep(0.02)
        for secret in (b"catalog", b"default", b"rule", b"/admin"):
            assert secret not in response.body


async def test_identities_are_those_that_mutual_tls_has_proved(tmp_path: Path) -> None:
    """What a client says of itself changes nothing."""
    only = AuthorizationRuleSpec(sources=(SourceSpec(principals=(spiffe("storefront"),)),))
    other = AuthorizationRuleSpec(sources=(SourceSpec(principals=(spiffe("admin"),)),))
    async with origin(hello) as app:
        async with pair(tmp_path, app.port, guarded(policy("allow", only))) as it:
            assert (await get(it.door, "/")).status == 200
        (tmp_path / "second").mkdir()
        async with (
            pair(tmp_path / "second", app.port, guarded(policy("allow", other))) as it,
            connect(it.door) as client,
        ):
            forged = f"x-forwarded-client-cert: URI={spiffe('admin')}\r\n"
            await client.send(f"GET / HTTP/1.1\r\nHost: catalog\r\n{forged}\r\n".encode())
            assert (await client.response()).status == 403


KEY = ECKey.generate_key("P-256", {"kid": "1"})
ISSUER = "https://id.example"


def token(**claims: Any) -> str:
    return tokens.encode(
        {"alg": "ES256", "kid": "1"},
        {"iss": ISSUER, "exp": 4_000_000_000, **claims},
        KEY,
        algorithms=["ES256"],
    )


async def test_end_users_by_their_tokens(tmp_path: Path) -> None:
    """A right one brings claims, a wrong one is refused, none claims nothing; the app sees none."""
    keys = json.dumps({"keys": [KEY.as_dict(private=False)]})
    issuer = JwtSpec(name="default/users", issuer=ISSUER, keys=keys)
    role = FactSpec(kind="claim", path=("role",), values=("admin",))
    change = guarded(policy("allow", AuthorizationRuleSpec(facts=(role,))), jwt=(issuer,))
    async with origin(hello) as app, pair(tmp_path, app.port, change) as it:
        asked = {
            200: token(role="admin"),
            403: token(role="user"),
            401: token(role="admin")[:-4] + "AAAA",
        }
        for status, one in asked.items():
            async with connect(it.door) as client:
                await client.send(
                    f"GET / HTTP/1.1\r\nHost: catalog\r\nAuthorization: Bearer {one}\r\n\r\n".encode()
                )
                response = await client.response()
            assert response.status == status
            if status == 401:
                assert response.header("www-authenticate") == 'Bearer error="invalid_token"'
        assert (await get(it.door, "/")).status == 403
        [request] = app.requests
        assert b"authorization" not in request.lower()


# Live ---------------------------------------------------------------------------------------------

POLICY = """
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: reading}
spec:
  selector: {matchLabels: {app: catalog}}
  action: ACTION
  rules:
    - to: [{operation: {METHODS: [GET]}}]
"""


def reading(action: str, methods: str = "methods") -> str:
    return POLICY.replace("ACTION", action).replace("METHODS", methods)


async def test_a_policy_holds_for_the_next_request_of_an_open_connection(tmp_path: Path) -> None:
    """Saved, turned round, made AUDIT, taken away: each time without a new connection."""
    mesh = RunningMesh(tmp_path, shop())
    await asyncio.to_thread(mesh.__enter__)
    try:
        async with connect(mesh.door()) as client:

            async def becomes(status: int) -> None:
                async with asyncio.timeout(30):
                    while True:
                        await client.send(b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n")
                        if (await client.response()).status == status:
                            return
                        await asyncio.sleep(0.02)

            await becomes(200)
            mesh.write("policy.yaml", reading("DENY"))
            await becomes(403)
            denied = await get(mesh.door())
            number = denial_in(denied)
            told = await asyncio.to_thread(mesh.meshctl, "explain", number)
            assert told.returncode == 0, told.stderr
            assert "default/reading" in told.stdout
            mesh.write("policy.yaml", reading("ALLOW"))
            await becomes(200)
            mesh.write("policy.yaml", reading("ALLOW", "notMethods"))
            await becomes(403)
            mesh.write("policy.yaml", reading("AUDIT"))
            await becomes(200)
            await becomes(200)  # the first may be one that was already allowed
            line = "would be denied: 'GET catalog/' of spiffe://test.mesh/ns/default/sa/door"
            await asyncio.to_thread(mesh.until, lambda: line in mesh.output(), "the audit's line")
            mesh.write("policy.yaml", reading("DENY").replace("DENY", "PERMIT"))
            await asyncio.to_thread(
                mesh.until, lambda: len(mesh.api("/api/v1/status")["findings"]) == 1, "a finding"
            )
            await becomes(200)
    finally:
        await asyncio.to_thread(mesh.__exit__)


CONNECTING = """
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: connecting}
spec:
  selector: {matchLabels: {app: catalog}}
  action: DENY
  rules:
    - from: [{source: {principals: [test.mesh/ns/default/sa/WHO]}}]
"""


async def test_a_policy_ends_opaque_connections_that_it_forbids(tmp_path: Path) -> None:
    """By a reset, not an end; those that it does not forbid go on."""
    files = shop()
    files["services.yaml"] = files["services.yaml"].replace(
        "targetPort: 8080}", "targetPort: 8080, appProtocol: tcp}"
    )
    del files["route.yaml"]
    mesh = RunningMesh(tmp_path, files)
    await asyncio.to_thread(mesh.__enter__)
    try:
        async with connect(mesh.door()) as client:
            asked = b"GET / HTTP/1.1\r\nHost: catalog\r\n\r\n"
            await client.send(asked)
            assert (await client.response()).status == 200
            mesh.write("policy.yaml", CONNECTING.replace("WHO", "somebody"))
            await asyncio.to_thread(mesh.until, mesh.synced, "the policy to hold")
            await client.send(asked)
            assert (await client.response()).status == 200
            mesh.write("policy.yaml", CONNECTING.replace("WHO", "door"))
            async with asyncio.timeout(30):
                with pytest.raises(ConnectionError):
                    await client.rest()
        with contextlib.suppress(ConnectionError):  # it may be known before connecting has ended
            async with asyncio.timeout(30), connect(mesh.door()) as client:
                await client.send(asked)
                assert await client.rest() == b""
    finally:
        await asyncio.to_thread(mesh.__exit__)
