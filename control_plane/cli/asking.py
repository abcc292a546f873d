"""Pieces of the command lines that describe a request: `meshctl authz check`, `meshctl explain`."""

import argparse
import json
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from control_plane.cli.arguments import client_of, existing
from control_plane.cli.errors import USAGE, CommandError
from control_plane.cli.mesh import Mesh, of_files, running
from meshproxy.contract.spiffe import SpiffeError, SpiffeId
from meshproxy.message import Fields, RequestHead, field
from meshproxy.routing.writable import wrong_name, wrong_value

NOBODY = "none"
_SCHEME = "spiffe://"


def add_mesh(parser: argparse.ArgumentParser) -> None:
    """``-f PATH``: ask files instead of the mesh that runs; fills `files`."""
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        metavar="PATH",
        action="append",
        type=existing,
        default=[],
        help="ask these files (or folders) instead of a running mesh; may be given several times",
    )


def add_request(parser: argparse.ArgumentParser, method: Sequence[str]) -> None:
    """What a request says besides its path; fills `method`, `headers`, `claims`."""
    parser.add_argument(
        *method, dest="method", metavar="METHOD", default="GET", help="default: GET"
    )
    parser.add_argument(
        "-H",
        "--header",
        dest="headers",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a header of the request; `Name: value` will do, too; may be given several times",
    )
    parser.add_argument(
        "--claim",
        dest="claims",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a claim of the request's token, which is taken to be right; VALUE may be JSON",
    )


def mesh_of(arguments: argparse.Namespace) -> Mesh:
    """Return the mesh that is asked about."""
    return of_files(arguments.files) if arguments.files else running(client_of(arguments))


def caller(mesh: Mesh, typed: str) -> str | None:
    """Return the identity of ``IDENTITY|WORKLOAD|none``; None for nobody's."""
    if typed == NOBODY:
        return None
    if not typed.startswith(_SCHEME):
        return mesh.outline.identities[mesh.workload(typed)]
    try:
        return str(SpiffeId.parse(typed))
    except SpiffeError as error:
        raise CommandError(f"{typed!r} is no SPIFFE ID: {error}", USAGE) from None


def address(text: str) -> str:
    """Return an IP address, as an argument."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address") from None


def head(method: str, authority: str, path: str, headers: Iterable[str]) -> RequestHead:
    """Return the head of a request, as a codec would have read it."""
    if not path.startswith("/"):
        raise CommandError(f"path {path!r} does not begin with a slash", USAGE)
    try:
        target = path.encode("ascii")
    except UnicodeEncodeError:
        raise CommandError(f"path {path!r} is not ASCII: escape it, as clients do", USAGE) from None
    fields: Fields = []
    for text in headers:
        at = min((i for i in (text.find("="), text.find(":")) if i > 0), default=-1)
        if at < 0:
            raise CommandError(f"header {text!r} has no value, expected NAME=VALUE", USAGE)
        name, value = text[:at].strip(), text[at + 1 :].strip(" \t")
        if name.lower() == "host":
            authority = value
        elif wrong := wrong_name(name) or wrong_value(value):
            raise CommandError(f"header {text!r}: {wrong}", USAGE)
        else:
            fields.append(field(name.encode(), value.encode()))
    return RequestHead(method.encode(), authority.encode(), target, fields)


def claims(texts: Iterable[str]) -> dict[str, Any] | None:
    """Return the claims of ``NAME=VALUE``; None without any."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise CommandError(f"claim {text!r} has no value, expected NAME=VALUE", USAGE)
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found or None
