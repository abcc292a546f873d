"""PostgreSQL and psql, as opaque TCP through two real sidecars; TLS is negotiated inside."""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from tests.helpers.certificates import tls_server
from tests.helpers.ports import free_port
from tests.helpers.programs import found, needs, output_of, running
from tests.helpers.services import Service, Services

pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    needs("initdb", "postgres", "psql"),
]

DOORS = ["tcp", "detect"]


def somebody() -> str | None:
    """Return whom to run the server as: it refuses to be root."""
    if os.getuid() != 0:
        return None
    users = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in users else "nobody"


@contextmanager
def server() -> Iterator[int]:
    """Run a database of its own, with TLS, until the end of the block."""
    user, port = somebody(), free_port()
    # Not below pytest's folder, which nobody else may enter.
    directory = Path(tempfile.mkdtemp(prefix="postgresql"))
    try:
        certificate, key = tls_server(directory, "db.example")
        if user is not None:
            for path in (directory, certificate, key):
                shutil.chown(path, user)
        data = directory / "data"
        command = [
            found("initdb"),
            "-D",
            str(data),
            "-U",
            "someone",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "-N",
        ]
        subprocess.run(
            command, check=True, user=user, group=user, capture_output=True, cwd=directory
        )
        settings = {
            "port": port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "shared_buffers": "8MB", "ssl": "on", "ssl_cert_file": certificate,
            "ssl_key_file": key,
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        ready = [
            found("psql"),
            "-c",
            "",
            f"host=127.0.0.1 port={port} user=someone dbname=postgres",
        ]
        with running(
            found("postgres"), "-D", data, *options, log=directory / "log", user=user,
            ready=lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0,
        ) as process:  # fmt: skip
            yield port
            process.send_signal(signal.SIGINT)  # "fast": does not wait for clients
    finally:
        shutil.rmtree(directory)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    with ExitStack() as stack:
        port = await asyncio.to_thread(stack.enter_context, server())
        mesh = Services(
            tmp_path_factory.mktemp("postgresql"),
            [Service(door, port, door) for door in DOORS],  # type: ignore[arg-type]
        )
        yield await asyncio.to_thread(stack.enter_context, mesh)
        await asyncio.to_thread(stack.close)


def to(services: Services, door: str, mode: str) -> list[str]:
    """Return the command that talks to the database through a door of the mesh."""
    where = f"host=127.0.0.1 port={services.doors[door]} user=someone dbname=postgres"
    return [found("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", f"{where} sslmode={mode}"]


@pytest.mark.parametrize("mode", ["disable", "require"])
@pytest.mark.parametrize("door", DOORS)
async def test_queries(services: Services, door: str, mode: str) -> None:
    """A large result, a large COPY, an error, a notification: with TLS of their own and without."""
    command = to(services, door, mode)
    secret = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
    assert (await output_of(*command, "-c", secret)).strip() == ("t" if mode == "require" else "f")
    rows = await output_of(*command, "-c", "select md5(n::text) from generate_series(1, 100000) n")
    assert len(rows) == 33 * 100_000
    again = "create temporary table t (m text); copy t from stdin;\n" + rows + "\\.\n"
    again += "select count(*), md5(string_agg(m, ',')) from t;"
    there = "select count(*), md5(string_agg(md5(n::text), ',')) from generate_series(1, 100000) n"
    assert await output_of(*command, stdin=again.encode()) == await output_of(*command, "-c", there)
    heard = await output_of(*command, "-c", "listen news", "-c", "notify news, 'hello'")
    assert 'Asynchronous notification "news" with payload "hello"' in heard
    with pytest.raises(AssertionError, match="division by zero"):
        await output_of(*command, "-c", "select 1/0")


@pytest.mark.parametrize("door", DOORS)
async def test_a_query_is_cancelled(services: Services, door: str) -> None:
    """The request to cancel comes on a connection of its own, which the server closes unanswered."""
    process = await asyncio.create_subprocess_exec(
        *to(services, door, "disable"), "-c", "select pg_sleep(100)", stderr=asyncio.subprocess.PIPE
    )
    active = "select count(*) from pg_stat_activity where query = 'select pg_sleep(100)'"
    async with asyncio.timeout(20):
        while (await output_of(*to(services, door, "disable"), "-c", active)).strip() != "1":
            pass
        process.send_signal(signal.SIGINT)
        _, error = await process.communicate()
    assert b"canceling statement due to user request" in error
