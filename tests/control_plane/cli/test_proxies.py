"""Who runs which configuration."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from control_plane.cli.main import main
from control_plane.cli.processes import FILE, Life, Process, Report
from control_plane.cli.proxies import render, wide
from tests.control_plane.cli.conftest import Api

PROXY = {
    "workload": "default/shop",
    "identity": "spiffe://td/ns/default/sa/shop",
    "state": "SYNCED",
    "reason": None,
    "path": None,
    "sent_version": "abc",
    "acked_version": "abc",
    "build": "0.1.0",
    "admin": "127.0.0.1:9",
    "connected_since": 0.0,
    "last_ack_age_seconds": 75.2,
    "certificate_not_after": 3600,
}


def test_a_row_says_it_all() -> None:
    """State, versions, ages, and a dash for what is not known."""
    header, row = render([PROXY], {}, now=0).splitlines()

    assert header.split("  ")[0] == "PROXY"
    assert row.split() == [
        "default/shop", "SYNCED", "-", "abc", "1m15s", "1h", "127.0.0.1:9",
        "spiffe://td/ns/default/sa/shop",
    ]  # fmt: skip
    assert wide([PROXY], {"default/shop": "running"}, now=0).splitlines()[1].split() == [
        "default/shop", "SYNCED", "running", "abc", "abc", "1m15s", "1h", "0.1.0", "127.0.0.1:9",
        "spiffe://td/ns/default/sa/shop", "-",
    ]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120])
def test_it_fits_a_terminal(width: int) -> None:
    """Columns that do not fit are left out from the right; of an identity its end is shown."""
    text = render([PROXY], {"default/shop": "not listening"}, 0, width)

    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text.replace(" …", "")
    if width >= 100:
        assert text.endswith("sa/shop")


def test_what_an_app_does_is_a_column(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is wrong with it a line below."""
    life = Life(state="running", since=time.time() - 60)
    app = Process(
        name="shop/app", workload="default/shop", role="app", life=life, missing=("$PORT (9)",)
    )
    (tmp_path / FILE).write_bytes(msgspec.json.encode(Report(processes=(app,))))
    api.answers["/api/v1/proxies"] = (200, [PROXY])

    assert main(["proxies", "--context", str(api.context)]) == 0
    said = capsys.readouterr().out
    assert "not listening" in said.splitlines()[1]
    assert "shop/app does not listen on its $PORT (9), 1m after its start" in said
    assert main(["proxies", "-o", "json", "--context", str(api.context)]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["app"] == "not listening"
    assert record["certificate_not_after"] == "1970-01-01T01:00:00Z"


def test_a_refusal_comes_with_its_reason() -> None:
    """Where in the configuration, and why."""
    refused = {**PROXY, "state": "REFUSED", "path": "routes[2]", "reason": "bad regex"}
    text = render([refused], {}, 0, 80)

    assert text.endswith("\n\ndefault/shop REFUSED: routes[2]: bad regex")


def test_a_certificate_that_ended_is_said() -> None:
    """Not as an age."""
    assert " EXPIRED " in render([PROXY], {}, now=3600)


def test_the_verb_lists_them(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """As the control plane knows them."""
    api.answers["/api/v1/proxies"] = (200, [PROXY])

    assert main(["proxies", "--context", str(api.context)]) == 0
    assert "default/shop" in capsys.readouterr().out
