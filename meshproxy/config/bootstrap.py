"""
The one file a proxy is started with: who it is, and where its configuration comes from.

Either a control plane or a static snapshot; JSON, or YAML where PyYAML is installed (it is
imported only for a ``.yaml`` file: a sidecar started from JSON never pays for it).  Paths are
relative to the bootstrap file, so that a directory with everything in it can be moved.
"""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from meshproxy.config import strict_yaml
from meshproxy.contract import wire
from meshproxy.contract.spec import Name, Port
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.policies.replay import MOST

WorkloadName = Annotated[
    str, Meta(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]


Workers = Annotated[int, Meta(ge=1, le=256)]


class BootstrapError(Exception):
    """The bootstrap file cannot be used; names the file, the field and what was expected."""


class _Part(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the structures below: strict about unknown fields."""


class Admin(_Part, frozen=True, kw_only=True):
    """
    Where metrics, health and diagnostics are served; loopback unless told otherwise.

    Attributes:
        socket: A Unix socket instead of address and port; only the proxy's own user may connect.
        drain: ``POST /drain`` does what SIGTERM does.  Otherwise nothing can be done there.
    """

    address: Name = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 15000
    socket: Path | None = None
    drain: bool = False

    @property
    def place(self) -> tuple[str, int]:
        """Where to listen, as `downstream.sockets` has it."""
        return (self.address, self.port) if self.socket is None else (str(self.socket), 0)

    def __str__(self) -> str:
        """How others are told to find it."""
        return f"{self.address}:{self.port}" if self.socket is None else f"unix:{self.socket}"


class ControlPlane(_Part, frozen=True, kw_only=True):
    """
    Attributes:
        identity: SPIFFE ID that the control plane must prove before it is told anything.
        roots: PEM file with the roots that vouch for it.
        token: File with a one-time join token, for the first contact.
    """

    address: Name
    port: Port = 15012
    identity: str
    roots: Path
    token: Path | None = None


class Static(_Part, frozen=True, kw_only=True):
    """A configuration without a control plane; without a certificate, no mutual TLS."""

    snapshot: Path
    certificate: Path | None = None
    key: Path | None = None


class Limits(_Part, frozen=True, kw_only=True):
    """
    What one process takes before it refuses more (`docs/limits.md`).

    Attributes:
        connections: From clients; what descriptors allow, where nothing is said, or less than that.
        memory: Bytes of the process above which no connection is accepted; 0 for any number.
            Four fifths of what the container has, where nothing is said.
        replay: Bytes of all request bodies that are kept for another attempt; beyond, requests
            are sent once.
        accept_rate: Connections that one listener may take in a second; 0 for any number.
    """

    connections: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    memory: Annotated[int, Meta(ge=0)] | None = None
    replay: Annotated[int, Meta(ge=0)] = MOST
    accept_rate: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0


class Bootstrap(_Part, frozen=True, kw_only=True):
    """
    Attributes:
        workload: ``namespace/name`` of the workload that the proxy stands beside.
        identity: Its SPIFFE ID.
        version: Of the workload; a label in metrics.
        state: Directory, mode 0700, for key, certificate and the last snapshot.
        workers: Processes that serve traffic; with more than one, a further one leads them.
        limits: Of connections, memory, and what is kept for retries.
        half_closing_clients: A client of HTTP/1.1 in plaintext that ends its half of the connection
            still gets its answer; otherwise it has gone (`docs/decisions/0025`).
        drain_seconds: How long requests may go on after SIGTERM or after a hot restart.
    """

    workload: WorkloadName
    identity: str
    state: Path
    version: str = ""
    admin: Admin = Admin()
    workers: Workers = 1
    drain_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    half_closing_clients: bool = False
    limits: Limits = Limits()
    control_plane: ControlPlane | None = None
    static: Static | None = None


def read(path: Path) -> Bootstrap:
    """
    Read a bootstrap file.

    Raises:
        BootstrapError: It cannot be read, or a field is wrong, missing, unknown or contradictory.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise BootstrapError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise BootstrapError(f"{path}: cannot be read: {error}") from error
    try:
        bootstrap = msgspec.convert(
            _parse(path, text), Bootstrap, dec_hook=_paths_relative_to(path.parent)
        )
    except msgspec.ValidationError as error:
        raise BootstrapError(f"{path}: {_located(error)}") from None
    _check(path, bootstrap)
    return bootstrap


def with_workers(bootstrap: Bootstrap, workers: int) -> Bootstrap:
    """
    Return it with another number of workers, as the command line wants it.

    Raises:
        BootstrapError: That number is out of bounds.
    """
    try:
        msgspec.convert(workers, Workers)
    except msgspec.ValidationError as error:
        raise BootstrapError(f"--workers: {error}, found {workers}") from None
    return msgspec.structs.replace(bootstrap, workers=workers)


def encode(bootstrap: Bootstrap) -> bytes:
    """Return it as JSON, for another process of ours."""
    return msgspec.json.encode(bootstrap, enc_hook=str)


def decode(data: bytes) -> Bootstrap:
    """Return what was encoded."""
    return msgspec.json.decode(data, type=Bootstrap, dec_hook=_paths_relative_to(Path("/")))


def _parse(path: Path, text: str) -> Any:
    if path.suffix not in (".yaml", ".yml"):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BootstrapError(f"{path}: expected JSON: {error}") from None
    try:
        return strict_yaml.load(text)
    except strict_yaml.YamlError as error:
        raise BootstrapError(f"{path}: {error}") from None


def _paths_relative_to(folder: Path) -> Any:
    def hook(kind: type, value: Any) -> Any:
        if kind is Path and isinstance(value, str) and value:
            return folder / value
        raise ValueError(f"expected a path, found {value!r}")

    return hook


def _located(error: msgspec.ValidationError) -> str:
    located = wire.located(error, Bootstrap)
    if located.path == "workload" and "regex" in located.reason:
        return "workload: expected namespace/name in lower case, such as default/catalog-v1"
    return f"{located.path or 'the whole file'}: {located.reason}"


def _check(path: Path, bootstrap: Bootstrap) -> None:
    identities = {"identity": bootstrap.identity}
    if bootstrap.control_plane is not None:
        identities["control_plane.identity"] = bootstrap.control_plane.identity
    for field, identity in identities.items():
        try:
            SpiffeId.parse_service_account(identity)
        except SpiffeError as error:
            raise BootstrapError(f"{path}: {field}: {error}") from None
    if (bootstrap.control_plane is None) == (bootstrap.static is None):
        raise BootstrapError(f"{path}: expected exactly one of control_plane and static")
    static = bootstrap.static
    if static is not None and (static.certificate is None) != (static.key is None):
        raise BootstrapError(f"{path}: static: expected both certificate and key, or neither")
