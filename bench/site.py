"""
What all peers have in common: services with their ports, certificates, the apps, a folder.

A pair leads each service through two proxies, a single hop through one:

    load → entry (A) ═ mTLS, three endpoints ═ between (B) → app
    load → entry ────────── three endpoints ─────────────→ app

The apps are the same for all and cheap, so that they are never what is measured: nginx answers
small requests (h2c with trailers as gRPC would), `bench.origin` takes uploads, gives downloads and
talks TCP.
"""

import http.client
import itertools
import os
import pwd
import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

from .authority import Authority
from .process import Process, Processes
from .programs import find, python
from .tree import search_path

TRUST_DOMAIN = "bench.mesh"
A, B = (f"spiffe://{TRUST_DOMAIN}/ns/bench/sa/{name}" for name in "ab")
ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
HOSTS, PREFIXES = 10, 5
SIZES = (100, 1024)
GRPC_RESPONSE = 37  # a message of 32 bytes with its prefix of five

# Below what the kernel hands out to outgoing connections, so that no port that was free when it was
# chosen is taken by one of thousands of these when its turn comes.
_PORTS = range(10_000, 20_000)


@dataclass(frozen=True)
class Service:
    """
    One service, as one peer serves it.

    Attributes:
        app: Port of the app, on each of `ADDRESSES`.
        entry: Where the load goes in, on 127.0.0.1.
        between: Where B listens, on each of `ADDRESSES`; 0 for a single hop.
    """

    name: str
    protocol: Literal["http1", "http2", "tcp"]
    app: int
    entry: int = 0
    between: int = 0

    @property
    def http(self) -> bool:
        return self.protocol != "tcp"

    def hosts(self) -> list[str]:
        return [f"{self.name}-{number}.bench" for number in range(HOSTS)]

    @staticmethod
    def prefixes() -> list[str]:
        return [f"/team-{number}" for number in range(PREFIXES)]

    @property
    def host(self) -> str:
        """The authority that is asked for: neither the first nor the last of the routes."""
        return self.hosts()[HOSTS // 2]

    def path(self, rest: object) -> str:
        return f"{self.prefixes()[PREFIXES // 2]}/{rest}"

    def url(self, rest: object) -> str:
        return f"http://127.0.0.1:{self.entry}{self.path(rest)}"


@dataclass(frozen=True)
class Identity:
    """
    A side's SPIFFE ID and its files.

    Attributes:
        both: Certificate and key in one file, as HAProxy wants them.
    """

    name: str
    certificate: Path
    key: Path
    both: Path


class Ports:
    """Free ports, none given twice in a run."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def free(self, addresses: Sequence[str] = ("127.0.0.1",)) -> int:
        """Return a port that is free on all `addresses` at this moment."""
        while True:
            port = random.choice(_PORTS)
            if port not in self._given and all(_is_free(address, port) for address in addresses):
                self._given.add(port)
                return port


class Site:
    """One run's folder, certificates, apps and processes; leaving the `with` block ends them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes()
        self.ports = Ports()
        authority = Authority()
        self.root_pem = authority.root_pem()
        self.root = folder / "root.pem"
        self.root.write_text(self.root_pem)
        self.a = _identity(authority, A, folder / "identity-a")
        self.b = _identity(authority, B, folder / "identity-b")
        self.services: tuple[Service, ...] = ()
        self._count = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.processes.__exit__()

    def start_apps(self) -> None:
        """
        Start the apps behind all peers.

        Raises:
            MissingError: nginx is not installed.
            StartError: One of them does not start.
        """
        web, grpc, bulk, tcp, brief = (self.ports.free(ADDRESSES) for _ in range(5))
        folder = self.subfolder("apps")
        (folder / "nginx.conf").write_text(nginx_app(web, grpc, brief))
        nginx = self.processes.start(
            "nginx-app", [find("nginx"), "-p", str(folder), "-c", "nginx.conf"], folder
        )
        origin = self.python("origin", folder, "bench.origin", str(bulk), str(tcp))
        for process, ports in ((nginx, (web, grpc, brief)), (origin, (bulk, tcp))):
            for port in ports:
                process.until(f"port {port} answers", lambda port=port: accepts(port))  # type: ignore[misc]
        self.services = (
            Service("web", "http1", web),
            Service("grpc", "http2", grpc),
            Service("bulk", "http1", bulk),
            Service("tcp", "tcp", tcp),
            Service("brief", "tcp", brief),
        )

    def unique(self, name: str) -> str:
        """A name that no folder has had yet."""
        return f"{name}-{next(self._count)}"

    def subfolder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        return folder

    def direct(self) -> tuple[Service, ...]:
        """The apps without any proxy."""
        return tuple(replace(service, entry=service.app) for service in self.services)

    def placed(self, services: Sequence[Service], *, between: bool) -> tuple[Service, ...]:
        """Give each service ports of its own for one peer."""
        return tuple(
            replace(
                service,
                entry=self.ports.free(),
                between=self.ports.free(ADDRESSES) if between else 0,
            )
            for service in services
        )

    def with_new_entries(self, services: Sequence[Service]) -> tuple[Service, ...]:
        """The same services behind the same B, for a second A."""
        return tuple(replace(service, entry=self.ports.free()) for service in services)

    def python(
        self, name: str, folder: Path, *command: str, given: Mapping[str, str] = os.environ
    ) -> Process:
        """Start a module of this checkout."""
        environment = dict(given) | {
            "PYTHONPATH": search_path(),
            # As installed programs are: compiled once.  Where this is forbidden or not possible,
            # each start would compile everything, and hold the memory that this takes.
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return self.processes.start(name, python(*command), folder, environment)


def _identity(authority: Authority, name: str, folder: Path) -> Identity:
    folder.mkdir(mode=0o700)
    certificate, key = authority.issue(name, folder)
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return Identity(name, certificate, key, both)


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as sock:  # without SO_REUSEADDR, which would share with a silent owner
        try:
            sock.bind((address, port))
        except OSError:
            return False
    return True


# Asking -------------------------------------------------------------------------------------------


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(service: Service, rest: object = SIZES[0]) -> bool:
    """Say whether a request through the entry of an HTTP/1.1 service is answered 200."""
    connection = http.client.HTTPConnection("127.0.0.1", service.entry, timeout=2)
    try:
        connection.request("GET", service.path(rest), headers={"Host": service.host})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# nginx as an app ----------------------------------------------------------------------------------


def nginx_frame(http: str) -> str:
    """Return a configuration of one worker that keeps all its files in its folder."""
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};\n" if os.geteuid() == 0 else ""
    temporary = "".join(
        f"  {kind}_temp_path {kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return (
        f"{user}daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr warn;\n"
        "worker_rlimit_nofile 20000;\n"
        "events { worker_connections 10000; }\n"
        "http {\n  access_log off;\n  server_tokens off;\n"
        "  keepalive_requests 1000000000;\n  keepalive_timeout 600s;\n"
        f"{temporary}{http}}}\n"
    )


def nginx_app(web: int, grpc: int, brief: int) -> str:
    """
    HTTP/1.1 answers of a size that the path ends with; h2c ones that end with trailers.

    On the port `brief`, each connection is closed after one answer.
    """
    locations = "".join(
        f'    location ~ /{size}$ {{ return 200 "{"x" * size}"; }}\n' for size in SIZES
    )
    listen_web = "".join(f"    listen {address}:{web};\n" for address in ADDRESSES)
    listen_grpc = "".join(f"    listen {address}:{grpc} http2;\n" for address in ADDRESSES)
    listen_brief = "".join(f"    listen {address}:{brief};\n" for address in ADDRESSES)
    return nginx_frame(
        f"  default_type text/plain;\n"
        f"  server {{\n{listen_web}{locations}  }}\n"
        f"  server {{\n{listen_brief}    keepalive_timeout 0;\n{locations}  }}\n"
        f"  server {{\n{listen_grpc}"
        "    http2_max_concurrent_streams 1000;\n"
        "    default_type application/grpc;\n"
        "    add_trailer grpc-status 0 always;\n"
        f'    location / {{ return 200 "{"x" * GRPC_RESPONSE}"; }}\n  }}\n'
    )
