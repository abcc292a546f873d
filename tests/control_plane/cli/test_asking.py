"""Requests, callers and claims from a command line."""

import argparse
from pathlib import Path

import pytest

from control_plane.cli.asking import address, caller, claims, head
from control_plane.cli.errors import USAGE, CommandError
from control_plane.cli.mesh import of_files
from tests.control_plane.cli.policed import folder


def test_a_head_is_what_a_codec_would_have_read() -> None:
    """Names in lower case, both spellings of a header, Host as the authority."""
    made = head("PUT", "catalog", "/a?b=c", ["X-A=1", "X-B: 2=3", "Host: other:81"])
    assert (made.method, made.authority, made.path) == (b"PUT", b"other:81", b"/a?b=c")
    assert [(one[0], one[1]) for one in made.fields] == [(b"x-a", b"1"), (b"x-b", b"2=3")]


@pytest.mark.parametrize(
    ("path", "header", "said"),
    [
        ("a", "x=1", "does not begin with a slash"),
        ("/ä", "x=1", "is not ASCII"),
        ("/", "x", "has no value"),
        ("/", "=1", "has no value"),
        ("/", "a b=1", "is not a header name"),
        ("/", "x=\r\ny: z", "no control characters"),
        ("/", "x-mesh-peer=me", "only the mesh may"),
    ],
)
def test_what_is_no_request(path: str, header: str, said: str) -> None:
    """A usage error that says why."""
    with pytest.raises(CommandError, match=said) as raised:
        head("GET", "catalog", path, [header])
    assert raised.value.code == USAGE


def test_callers(tmp_path: Path) -> None:
    """A workload's identity, an identity, or nobody's."""
    mesh = of_files([folder(tmp_path)])
    identity = "spiffe://mesh.local/ns/default/sa/catalog"
    assert caller(mesh, "catalog-v1") == identity
    assert caller(mesh, identity) == identity
    assert caller(mesh, "none") is None
    with pytest.raises(CommandError, match="no SPIFFE ID"):
        caller(mesh, "spiffe://")
    with pytest.raises(CommandError, match="did you mean storefront"):
        caller(mesh, "storefrnt")


def test_claims() -> None:
    """Text, or JSON where it is JSON; None of them is no token."""
    assert claims([]) is None
    assert claims(["role=admin", 'groups=["a"]', "n=1", "e="]) == {
        "role": "admin",
        "groups": ["a"],
        "n": 1,
        "e": "",
    }
    with pytest.raises(CommandError, match="expected NAME=VALUE"):
        claims(["role"])


def test_addresses() -> None:
    """Of both families, and nothing else."""
    assert address("::1") == "::1"
    with pytest.raises(argparse.ArgumentTypeError, match="'x' is no IP address"):
        address("x")
