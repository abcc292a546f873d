"""Speak to a control plane's API; say well what goes wrong."""

import socket
from pathlib import Path

import pytest

from control_plane.cli.client import Client, NotFoundError, UnreachableError, request
from control_plane.cli.context import read
from control_plane.cli.errors import CommandError
from tests.control_plane.cli.conftest import Api


def test_it_asks_with_the_token(api: Api) -> None:
    """JSON comes back as data, text as it is."""
    api.answers = {"/json": (200, [1]), "/text": (200, "PEM")}
    client = Client(read(api.context))

    assert client.get("/json") == [1]
    assert client.text("/text") == "PEM"


def test_it_posts_json(api: Api) -> None:
    """The body arrives as it was meant."""
    api.answers = {"/tokens": (200, {"token": "t"})}

    assert Client(read(api.context)).post("/tokens", {"workload": "a"}) == {"token": "t"}
    assert api.posted == {"/tokens": {"workload": "a"}}


def test_a_wrong_token_is_said(api: Api, tmp_path: Path) -> None:
    """With the file that it came from."""
    (tmp_path / "token").write_text("wrong")

    with pytest.raises(CommandError, match=rf"{tmp_path}/token\): who are you\?"):
        Client(read(api.context)).get("/json")


def test_what_cannot_be_done_now_is_said_in_the_control_planes_words(api: Api) -> None:
    """The question was right, and the answer is no."""
    api.answers = {"/rotation": (409, {"error": "One is under way."})}

    with pytest.raises(CommandError, match=r"^One is under way\.$") as caught:
        Client(read(api.context)).post("/rotation", {})
    assert caught.value.code == 1


def test_what_is_not_there_is_an_error_of_its_own(api: Api) -> None:
    """So that a verb can name the nearest."""
    with pytest.raises(NotFoundError, match="no such thing"):
        Client(read(api.context)).get("/nothing")


def test_a_failing_api_is_quoted(api: Api) -> None:
    """Status, path and sentence."""
    api.answers = {"/x": (500, "boom")}

    with pytest.raises(CommandError, match="answered 500 to /x: boom"):
        Client(read(api.context)).get("/x")


def test_nobody_there_is_said_with_what_to_do(api: Api) -> None:
    """A context may outlive its mesh."""
    client = Client(read(api.context))
    api.close()

    with pytest.raises(
        UnreachableError, match=r"nothing listens on .*; the mesh of .* has stopped"
    ):
        client.get("/x")
    assert not client.is_ready()


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    """The time is in the sentence."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(UnreachableError, match=r"did not answer within 0\.05 s"):
            request(address, "GET", "/", timeout=0.05)
