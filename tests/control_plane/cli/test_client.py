"""Speak to a control plane's API; say well what goes wrong."""

import socket
from pathlib import Path

import pytest
from msgspec import structs

from control_plane.cli.client import Client, NotFoundError, UnreachableError, request
from control_plane.cli.context import Context, read
from control_plane.cli.errors import CommandError
from meshproxy import private_file
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


def test_questions_are_asked_with_the_viewers_token(api: Api, tmp_path: Path) -> None:
    """The operator's travels only with orders; a context without it is good for questions alone."""
    private_file.write(tmp_path / "view", b"view")
    context = read(api.context)
    api.answers = {"/thing": (200, {})}
    both = Client(structs.replace(context, view_token_file=str(tmp_path / "view")))
    viewer = Client(
        structs.replace(context, view_token_file=str(tmp_path / "view"), token_file=None)
    )

    both.post("/thing", {})
    with pytest.raises(CommandError, match=r"/view\): who are you"):  # this API knows one token
        both.get("/thing")
    with pytest.raises(CommandError, match="none was sent"):
        viewer.post("/thing", {})


def test_a_token_that_others_can_read_is_not_sent(api: Api, tmp_path: Path) -> None:
    """It would be nobody's secret."""
    (tmp_path / "token").chmod(0o644)

    with pytest.raises(CommandError, match="has mode 0644, expected 0600"):
        Client(read(api.context)).get("/thing")


def test_files_for_tls_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    context = Context(api="https://127.0.0.1:1", roots=str(tmp_path / "roots.pem"), identity="x")

    with pytest.raises(CommandError, match=rf"cannot use {tmp_path}/roots\.pem: .*No such file"):
        Client(context).get("/thing")


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
