"""
Speak to a control plane's API, and to the admin port of a sidecar.

Plain `http.client`, one request a connection: a command asks a handful of questions and should
start in a blink.  What can go wrong becomes a `CommandError` that says what to do about it.

Questions are asked with the viewer's token where the context has one, orders given with the
operator's: the stronger one travels only where it is needed.  Over TLS the control plane must prove
the identity that the context names, before it is told anything.
"""

import http.client
import json
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from control_plane.cli.context import Context
from control_plane.cli.errors import CommandError
from meshproxy import private_file

TIMEOUT = 5.0


class UnreachableError(CommandError):
    """Nobody answers."""


class NotFoundError(CommandError):
    """The control plane answers 404."""


class Client:
    """The API of one control plane, as a context names it."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def address(self) -> str:
        return self._context.api

    @property
    def context(self) -> Context:
        return self._context

    def get(self, path: str) -> Any:
        """Return the JSON that ``GET path`` answers."""
        return json.loads(self._request("GET", path, None))

    def text(self, path: str) -> str:
        """Return what ``GET path`` answers, as it is."""
        return self._request("GET", path, None).decode()

    def post(self, path: str, body: object) -> Any:
        """Return the JSON that ``POST path`` answers."""
        return json.loads(self._request("POST", path, json.dumps(body).encode()))

    def is_ready(self) -> bool:
        """Say whether the control plane answers and calls itself ready."""
        try:
            self._request("GET", "/healthz/ready", None)
        except CommandError:
            return False
        return True

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        address = urlsplit(self._context.api).netloc
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        file = self._token_file(method)
        if (token := _token(file)) is not None:
            headers["authorization"] = f"Bearer {token}"
        try:
            status, answer = request(address, method, path, headers, body, tls=self._tls())
        except UnreachableError as error:
            raise UnreachableError(f"{error}{self._what_to_do()}") from None
        if status < 300:
            return answer
        said = _message(answer)
        if status in (401, 403):
            raise CommandError(
                f"the control plane at {address} does not accept our token "
                f"({file or self._context.certificate or 'none was sent'}){said and ': ' + said}"
            )
        if status == 404:
            raise NotFoundError(said or f"the control plane knows no {path}")
        if status == 409:
            raise CommandError(said)  # asked rightly, but now is not the time: the answer is no
        raise CommandError(f"the control plane at {address} answered {status} to {path}: {said}")

    def _token_file(self, method: str) -> str | None:
        context = self._context
        return (method == "GET" and context.view_token_file) or context.token_file

    def _tls(self) -> "Tls | None":
        context = self._context
        if not context.api.startswith("https://"):
            return None
        assert context.roots is not None
        assert context.identity is not None  # the context was read so
        return Tls(context.roots, context.identity, context.certificate)

    def _what_to_do(self) -> str:
        if self._context.run_dir is None:
            return ""
        return (
            f"; the mesh of {self._context.run_dir} (meshctl, pid {self._context.pid}) "
            "has stopped, or its control plane is restarting"
        )


class Tls:
    """
    Whom to believe, and what to show.

    Args:
        roots: PEM file of the roots that vouch for the server.
        identity: SPIFFE ID that it must prove.
        certificate: PEM file of our own key and certificate.

    Raises:
        CommandError: A file cannot be used.
    """

    def __init__(self, roots: str, identity: str, certificate: str | None) -> None:
        self.identity = identity
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.check_hostname = False  # a SPIFFE ID is the name here, see `verify`
        try:
            self.context.load_verify_locations(roots)
            if certificate is not None:
                self.context.load_cert_chain(certificate)
        except OSError as error:  # ssl.SSLError is one
            raise CommandError(
                f"cannot use {roots}{f' and {certificate}' if certificate else ''}: {error}"
            ) from None

    def verify(self, connection: ssl.SSLSocket) -> None:
        """
        Make sure that the server is who it should be.

        Raises:
            ssl.SSLCertVerificationError: It is somebody else.
        """
        names = (connection.getpeercert() or {}).get("subjectAltName", ())
        if names != (("URI", self.identity),):
            raise ssl.SSLCertVerificationError(f"expected {self.identity}, found {names!r}")


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket of a sidecar's admin pages."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def request(
    address: str,
    method: str,
    path: str,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = TIMEOUT,
    tls: Tls | None = None,
) -> tuple[int, bytes]:
    """
    Send one request to ``address:port`` or ``unix:/path``; return status and body.

    Raises:
        UnreachableError: No whole answer came.
    """
    connection: http.client.HTTPConnection
    if tls is not None:
        connection = http.client.HTTPSConnection(address, timeout=timeout, context=tls.context)
    elif address.startswith("unix:"):
        connection = _UnixConnection(address.removeprefix("unix:"), timeout)
    else:
        connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        if tls is not None:
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            tls.verify(connection.sock)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionRefusedError:
        raise UnreachableError(f"nothing listens on {address}") from None
    except TimeoutError:
        raise UnreachableError(f"{address} did not answer within {timeout:g} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"{address} gave no answer: {str(error) or type(error).__name__}"
        ) from None
    finally:
        connection.close()


def _token(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        data = private_file.read(Path(file))
    except private_file.PrivateFileError as error:
        raise CommandError(f"cannot use the API token: {error}") from None
    # None: not written yet; the plane will say what it thinks of that.
    return None if data is None else data.decode(errors="replace").strip()


def _message(answer: bytes) -> str:
    """Take the sentence out of an error's JSON; what is not JSON is the sentence itself."""
    text = answer.decode(errors="replace").strip()
    try:
        data = json.loads(text)
    except ValueError:
        return text[:200]
    if isinstance(data, dict):
        for key in ("message", "error", "reason"):
            if isinstance(data.get(key), str):
                return str(data[key])
    return text[:200]
