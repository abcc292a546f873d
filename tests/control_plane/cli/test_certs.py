"""Certificates, rotations and revocations on the command line."""

import copy
import json
import threading
import time
from typing import Any

import pytest

from control_plane.cli import certs
from control_plane.cli.client import Client, UnreachableError
from control_plane.cli.context import Context
from control_plane.cli.main import main
from tests.control_plane.cli.conftest import Api

NOW = 1_000_000.0
CATALOG = "spiffe://mesh.local/ns/default/sa/catalog"
PATH = "/api/v1/certificates"


def root(subject: str, *, signs: bool = True) -> dict[str, Any]:
    return {"subject": subject, "key": "aa", "sha256": "bb", "not_before": 0.0,
            "not_after": NOW + 86400, "signs": signs}  # fmt: skip


def proxy(name: str, **changes: Any) -> dict[str, Any]:
    return {"workload": f"default/{name}", "identity": CATALOG, "connected": True, "serial": "5e" * 16,
            "not_after": NOW + 3600, "issuer": "i", "of_current_issuer": True,
            "believes_all_roots": True, **changes}  # fmt: skip


FACTS: dict[str, Any] = {
    "trust_domain": "mesh.local",
    "issuing": {k: v for k, v in root("CN=issuing").items() if k != "signs"},
    "roots": [root("CN=old")],
    "rotation": None,
    "proxies": [proxy("a")],
    "revoked": [],
}
SPREADING = {
    **FACTS,
    "roots": [root("CN=old"), root("CN=new", signs=False)],
    "rotation": {
        "what": "root", "phase": "spreading", "aborted": False, "started_at": NOW, "old_ends_at": None,
        "lagging": [{"workload": "default/b", "away": True, "reason": "is away; its certificate ends"}],
    },
    "proxies": [proxy("a"), proxy("b", connected=False, believes_all_roots=False)],
}  # fmt: skip
RENEWING = copy.deepcopy(SPREADING) | {
    "rotation": {**SPREADING["rotation"], "phase": "renewing", "old_ends_at": NOW + 65, "lagging": []}
}  # fmt: skip


def run(api: Api, *words: str) -> int:
    return main(["certs", "--context", str(api.context), *words])


def test_a_table_of_who_holds_what() -> None:
    """Authority first; then each proxy with its issuer, what it believes, and what is left."""
    text = certs.render(FACTS, NOW)
    assert "root        CN=old       1970-01-13T13:46:40Z   1d" in text
    assert "default/a   connected   current   all     1h" in text
    assert "REVOKED" not in text


def test_who_lags_stands_out() -> None:
    """In the table in capitals, and below it with the reason."""
    facts = {**SPREADING, "proxies": [
        proxy("a", believes_all_roots=False), proxy("b", connected=False, believes_all_roots=False),
        proxy("c", of_current_issuer=False, not_after=NOW - 1),
    ]}  # fmt: skip
    text = certs.render(facts, NOW)
    assert "default/a   connected   current   LAGS" in text
    assert "default/b   away        current   -" in text
    assert "default/c   connected   OLD       all     EXPIRED" in text
    assert "rotation of the root, 1/3: 2 of 3 proxies believe the new root" in text
    assert "  default/b is away; its certificate ends" in text


def test_revoked_identities_are_listed() -> None:
    """With since when and why; what somebody wrote cannot command a terminal."""
    facts = {**FACTS, "revoked": [{"identity": CATALOG, "since": 0.0, "reason": "x\x1b[2J"}]}
    text = certs.render(facts, NOW)
    assert f"{CATALOG}   1970-01-01T00:00:00Z" in text
    assert "\x1b" not in text


def test_json_has_all_of_it(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """With moments for people."""
    api.answers[PATH] = (200, SPREADING)
    assert run(api, "-o", "json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["rotation"]["started_at"] == "1970-01-12T13:46:40Z"
    assert shown["proxies"][1]["connected"] is False


def test_a_rotation_is_begun_and_not_watched(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`--no-wait` tells where it stands and leaves the rest to the control plane."""
    api.answers[PATH] = (200, FACTS)
    api.posted_answer(f"{PATH}/rotation", 200, SPREADING)
    assert run(api, "rotate-root", "--no-wait") == 0
    assert api.posted[f"{PATH}/rotation"] == {"do": "begin", "what": "root"}
    assert "1 of 2 proxies believe the new root" in capsys.readouterr().out


def test_one_that_is_under_way_is_watched_on(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command again begins nothing."""
    api.answers[PATH] = (200, RENEWING)
    assert run(api, "rotate-root", "--no-wait") == 0
    assert f"{PATH}/rotation" not in api.posted
    assert "2/3: the new one signs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("facts", "words", "reason"),
    [
        (SPREADING, ["rotate-issuer"], "let it end, or abort it"),
        (FACTS, ["rotate-root", "--abort"], "no rotation is under way"),
        (FACTS, ["rotate-root", "--skip-away"], "no rotation is under way"),
    ],
)
def test_what_cannot_be_now_is_said(
    facts: dict[str, Any],
    words: list[str],
    reason: str,
    api: Api,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is asked for, and the exit code is that of a no."""
    api.answers[PATH] = (200, facts)
    assert run(api, *words) == 1
    assert reason in capsys.readouterr().err
    assert api.posted == {}


def test_a_refusal_is_said_in_the_control_planes_words(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong order is no fault of the command line."""
    api.answers[PATH] = (200, SPREADING)
    api.posted_answer(f"{PATH}/rotation", 409, {"error": "default/a is here and lags."})
    assert run(api, "rotate-root", "--skip-away") == 1
    assert capsys.readouterr().err == "meshctl: default/a is here and lags.\n"


def test_an_abort_before_anybody_holds_anything(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is over at once."""
    api.answers[PATH] = (200, SPREADING)
    api.posted_answer(f"{PATH}/rotation", 200, FACTS)
    assert run(api, "rotate-root", "--abort") == 0
    assert api.posted[f"{PATH}/rotation"] == {"do": "abort"}
    assert "taken back" in capsys.readouterr().out


ABORTED = RENEWING | {
    "rotation": {
        **RENEWING["rotation"], "aborted": True,
        "lagging": [{"workload": "default/b", "away": False, "reason": "holds it for 59m"}],
    }
}  # fmt: skip


def test_an_abort_returns_when_it_is_recorded(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """What is still to come may take a day: it is told, with whom it hangs on, and not waited for."""
    api.answers[PATH] = (200, RENEWING)
    api.posted_answer(f"{PATH}/rotation", 200, ABORTED)
    assert run(api, "rotate-root", "--abort") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("taken back; rotation of the root, 2/3: the old one signs again")
    assert said[0].endswith("1 hold it")
    assert said[1:] == [
        "  default/b holds it for 59m",
        "the control plane goes on by itself; `meshctl certs` shows how far it is",
    ]


def test_who_wants_waits_for_an_abort(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """`--wait` watches until nothing is left of it; not both of the two."""
    api.answers[PATH] = (200, RENEWING)
    api.posted_answer(f"{PATH}/rotation", 200, ABORTED)

    def end() -> None:
        while f"{PATH}/rotation" not in api.posted:
            time.sleep(0.01)
        api.answers[PATH] = (200, FACTS)

    ending = threading.Thread(target=end)
    ending.start()
    assert run(api, "rotate-root", "--abort", "--wait") == 0
    ending.join()
    assert "rotation over, 3/3: CN=issuing under CN=old signs" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(api, "rotate-root", "--abort", "--wait", "--no-wait")


class Script(Client):
    """A control plane that answers what is written down, one after the other."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        super().__init__(Context(api="http://127.0.0.1:1"))
        self._answers = list(answers)

    def get(self, path: str) -> Any:
        assert path == PATH
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            raise UnreachableError("nothing listens")
        return answer


def test_watching_tells_what_is_new_until_it_is_over() -> None:
    """A control plane that restarts meanwhile is waited for; the end names who signs."""
    said: list[str] = []
    over = {**FACTS, "roots": [root("CN=new")]}
    script = Script(SPREADING, SPREADING, None, RENEWING, RENEWING, over)
    slept: list[float] = []
    assert certs.follow(script, said.append, sleep=slept.append, clock=lambda: NOW) == 0
    assert [line.partition(":")[0] for line in said] == [
        "rotation of the root, 1/3",
        "rotation of the root, 2/3",
        "rotation over, 3/3",
    ]
    assert "default/b is away" in said[0]
    assert "ends in 1m5s" in said[1]
    assert "CN=issuing under CN=new signs" in said[2]


def test_on_a_terminal_the_countdown_is_news() -> None:
    """The text is said again when a number in it has changed."""
    said: list[str] = []
    times = iter([NOW, NOW + 1, NOW + 1])
    script = Script(RENEWING, RENEWING, RENEWING, FACTS)
    certs.follow(
        script, said.append, countdown=True, sleep=lambda _: None, clock=lambda: next(times)
    )
    assert len(said) == 3


def test_a_control_plane_that_stays_away_ends_the_watching() -> None:
    """After a minute; until then it may be restarting."""
    times = iter([NOW, NOW, NOW + 30, NOW + 61])
    with pytest.raises(UnreachableError):
        certs.follow(Script(None), lambda _: None, sleep=lambda _: None, clock=lambda: next(times))


def test_many_who_lag_are_counted() -> None:
    """Three by name, the others by number."""
    lagging = [{"workload": f"default/{n}", "away": False, "reason": "lags"} for n in range(5)]
    facts = {**SPREADING, "rotation": {**SPREADING["rotation"], "lagging": lagging}}
    said: list[str] = []
    certs.follow(Script(facts, FACTS), said.append, sleep=lambda _: None, clock=lambda: NOW)
    assert said[0].endswith("… and 2 more")


def test_an_identity_is_revoked(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """What looks like a slip is done, and pointed out: who has no certificate may still be denied."""
    api.answers[PATH] = (200, FACTS)
    slip = CATALOG.replace("catalog", "catalgo")
    answer = {"identity": slip, "revoked": True, "changed": True}
    api.posted_answer(f"{PATH}/revoke", 200, answer)
    assert run(api, "revoke", slip, "--reason", "stolen") == 0
    assert api.posted[f"{PATH}/revoke"] == {"identity": slip, "reason": "stolen"}
    said = capsys.readouterr()
    assert said.out == f"{slip} is revoked\n"
    assert f"did you mean {CATALOG}?" in said.err


def test_an_identity_is_forgiven(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 for one that was not revoked: a slip must not look like success."""
    answer = {"identity": CATALOG, "revoked": False, "changed": True}
    api.posted_answer(f"{PATH}/lift", 200, answer)
    assert run(api, "unrevoke", CATALOG) == 0
    assert "no longer revoked" in capsys.readouterr().out
    api.posted_answer(f"{PATH}/lift", 200, {**answer, "changed": False})
    assert run(api, "unrevoke", CATALOG) == 1


def test_the_context_may_stand_before_or_after(api: Api) -> None:
    """Wherever people put it."""
    api.answers[PATH] = (200, FACTS)
    api.posted_answer(f"{PATH}/rotation", 200, SPREADING)
    context = ["--context", str(api.context)]
    assert main(["certs", "rotate-root", "--no-wait", *context]) == 0
    assert main(["certs", *context, "rotate-root", "--no-wait"]) == 0
    with pytest.raises(SystemExit):
        main(["certs", "rotate-leaf"])
