"""Who runs which configuration."""

import pytest

from control_plane.cli.main import main
from control_plane.cli.proxies import render
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
    header, row = render([PROXY], now=0).splitlines()

    assert header.split("  ")[0] == "PROXY"
    assert row.split() == [
        "default/shop", "SYNCED", "abc", "abc", "1m15s", "1h", "0.1.0", "127.0.0.1:9",
        "spiffe://td/ns/default/sa/shop", "-",
    ]  # fmt: skip


def test_a_refusal_comes_with_its_reason() -> None:
    """Where in the configuration, and why."""
    text = render(
        [{**PROXY, "state": "REFUSED", "path": "routes[2]", "reason": "bad regex"}], now=0
    )

    assert text.endswith("routes[2]: bad regex")


def test_a_certificate_that_ended_is_said() -> None:
    """Not as an age."""
    assert " EXPIRED " in render([PROXY], now=3600)


def test_the_verb_lists_them(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """As the control plane knows them."""
    api.answers["/api/v1/proxies"] = (200, [PROXY])

    assert main(["proxies", "--context", str(api.context)]) == 0
    assert "default/shop" in capsys.readouterr().out
