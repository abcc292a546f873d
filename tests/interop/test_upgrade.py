"""
Upgrade and extended CONNECT with programs that are not ours, through two real sidecars.

`tests/integration/test_upgrade.py` has what the protocols say; here are node, which makes sockets
of them in both versions of HTTP, and nginx, which passes WebSockets on to the mesh.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio
import websockets
from websockets.asyncio.server import ServerConnection

from tests.helpers.ports import free_port
from tests.helpers.programs import found, listening, needs, output_of, running
from tests.helpers.services import Service, Services
from tests.interop.clients import NODE
from tests.interop.witness import BODY

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs("node", "nginx"),
]

NGINX = """
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2;
  fastcgi_temp_path {directory}/t3; uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
  server {{
    listen 127.0.0.1:{listen};
    location / {{
      proxy_pass http://127.0.0.1:{to};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
  }}
}}
"""
SERVICES = ["http1", "http1-plain", "http2"]


async def echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Services, int]]:
    """Yield the sidecars and the port of an nginx that leads to the service of websockets."""
    directory = tmp_path_factory.mktemp("upgrade")
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            websockets.serve(echo, "127.0.0.1", 0, max_size=None)
        )
        one, two, listen = free_port(), free_port(), free_port()
        services = Services(
            directory,
            [
                Service("http1", one),
                Service("http1-plain", one, plaintext=True),
                Service("http2", two, "http2"),
                Service("websockets", next(iter(server.sockets)).getsockname()[1]),
            ],
        )
        (directory / "nginx.conf").write_text(
            NGINX.format(directory=directory, listen=listen, to=services.doors["websockets"])
        )
        for program in (
            running(
                found("node"), NODE / "upgrade_server.mjs", str(one), str(two),
                log=directory / "node.log", ready=listening(two),
            ),
            running(
                found("nginx"), "-p", directory, "-c", directory / "nginx.conf",
                log=directory / "nginx.log", ready=listening(listen),
            ),
            services,
        ):  # fmt: skip
            await asyncio.to_thread(stack.enter_context, program)
        yield services, listen


async def node(module: str, url: str, size: int) -> Any:
    """Return what node's client says that it has heard."""
    return json.loads(await output_of("node", NODE / "upgrade_client.mjs", module, url, str(size)))


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("module", ["http", "http2"])
async def test_node(mesh: tuple[Services, int], module: str, service: str) -> None:
    """
    5 MB of bytes there and back, whichever version of HTTP either end speaks; the client's end is
    not the server's, and a refusal is an ordinary answer.
    """
    services, _ = mesh
    assert await node(module, services.url(service, "/"), 5_000_000) == {"same": True}
    assert await node(module, services.url(service, "/no"), 1) == {"status": 403}


async def test_nginx_passes_websockets_on(mesh: tuple[Services, int]) -> None:
    """Text, bytes of MiBs, pings, and the close with its code and reason."""
    _, port = mesh
    async with websockets.connect(f"ws://127.0.0.1:{port}/", max_size=None) as it:
        await it.send("hello")
        assert await it.recv() == "hello"
        await it.send(BODY * 14)
        assert await it.recv() == BODY * 14
        await (await it.ping())
        await it.close(4001, "enough")
        assert it.protocol.close_rcvd is not None
        assert (it.protocol.close_rcvd.code, it.protocol.close_rcvd.reason) == (4001, "enough")
