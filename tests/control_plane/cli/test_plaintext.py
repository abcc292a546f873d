"""Who calls without mutual TLS."""

import json
import time

import pytest

from control_plane.cli.main import main
from control_plane.cli.plaintext import HEADERS, records, render
from control_plane.cli.traffic import parse
from tests.control_plane.cli.conftest import Api

ADMINS = {"1:15000": "default/catalog", "2:15000": "default/reviews"}


def page(accepted: int, opened: int = 0, refused: int = 0, client: str = "10.0.0.1") -> str:
    who = f'port="8080",client="{client}"'
    return (
        "# TYPE mesh_plaintext_connections counter\n"
        f'mesh_plaintext_connections_total{{{who},verdict="accepted"}} {accepted}\n'
        f'mesh_plaintext_connections_total{{{who},verdict="refused"}} {refused}\n'
        "# TYPE mesh_plaintext_connections_active gauge\n"
        f"mesh_plaintext_connections_active{{{who}}} {opened}\n"
    )


def test_records_tell_now_from_before() -> None:
    """Those who are there now come first; a sidecar that restarted counts from zero."""
    before = {"1:15000": parse(page(5)), "2:15000": parse(page(9, client="10.0.0.2"))}
    after = {"1:15000": parse(page(5, 0, 3)), "2:15000": parse(page(2, 1, client="10.0.0.2"))}
    first, second = records(ADMINS, before, after)
    assert first == {
        "workload": "default/reviews", "port": "8080", "client": "10.0.0.2",
        "open": 1, "new": 2, "before": 0, "refused": 0,
    }  # fmt: skip
    assert second == {
        "workload": "default/catalog", "port": "8080", "client": "10.0.0.1",
        "open": 0, "new": 0, "before": 5, "refused": 3,
    }  # fmt: skip


def test_the_table_says_what_it_means() -> None:
    """One line for each client, and the answer."""
    rows = records(ADMINS, {"1:15000": {}}, {"1:15000": parse(page(5, 2))})
    header, row, _, answer = render(rows, [], 80, safe=False).splitlines()
    assert header.split() == list(HEADERS)
    assert row.split()[1:] == ["8080", "10.0.0.1", "2", "5", "0", "0"]
    assert answer == "STRICT would refuse those with OPEN or NEW connections"
    assert render([], [], safe=True) == "STRICT would refuse nobody: no plaintext now"


def test_who_gives_no_answer_is_not_safe() -> None:
    """Nobody knows who calls there."""
    assert render([], ["default/a"], safe=False) == (
        "no answer from default/a: nobody knows who calls there"
    )


@pytest.mark.parametrize(
    ("later", "words", "code"),
    [
        (page(5), ("catalog",), 0),
        (page(6), ("catalog",), 1),
        (page(5, 1), ("default/catalog",), 1),
        (page(5, 0, 7), (), 0),
    ],
)
def test_the_exit_code_is_the_answer(
    api: Api,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    later: str,
    words: tuple[str, ...],
    code: int,
) -> None:
    """0 when STRICT would refuse nobody: a script can wait for it."""
    api.answers["/api/v1/proxies"] = (200, [{"workload": "default/catalog", "admin": api.address}])
    api.answers["/metrics"] = (200, page(5))

    def sleep(seconds: float) -> None:
        assert seconds == 0.25
        api.answers["/metrics"] = (200, later)

    monkeypatch.setattr(time, "sleep", sleep)
    window = ("--window", "250ms", "--context", str(api.context))
    assert main(["plaintext", *words, *window, "-o", "json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert (told["safe"], told["unknown"]) == (code == 0, [])


def test_a_proxy_that_is_not_there(
    api: Api, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Disconnected, it has no admin address; that is no yes."""
    api.answers["/api/v1/proxies"] = (200, [{"workload": "default/catalog", "admin": None}])
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    assert main(["plaintext", "--context", str(api.context)]) == 1
    assert "no answer from default/catalog" in capsys.readouterr().out
    assert main(["plaintext", "katalog", "--context", str(api.context)]) == 1
    assert "did you mean default/catalog?" in capsys.readouterr().err
