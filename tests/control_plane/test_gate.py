"""The gate, with a small application behind it and all kinds of visitors in front of it."""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from control_plane.access import Access
from control_plane.gate import HARDENING, Gate, audit

OPERATE = {"Authorization": "Bearer operate-secret"}
VIEW = {"Authorization": "Bearer view-secret"}
PATHS = ("/healthz/live", "/thing", "/boom", "/nothing")


class Visit:
    def __init__(self, http: "TestClient[Any, Any]", refused: Counter[str]) -> None:
        self.refused = refused
        self._http = http

    async def ask(
        self, method: str = "GET", path: str = "/thing", **options: Any
    ) -> tuple[int, str, dict[str, str]]:
        answer = await self._http.request(method, path, **options)
        return answer.status, await answer.text(), dict(answer.headers)


@asynccontextmanager
async def gate() -> AsyncIterator[Visit]:
    async def thing(request: web.Request) -> web.Response:
        if request.method == "POST":
            audit(request, f"thing {await request.text()}")
        return web.Response(text="the thing")

    async def boom(_request: web.Request) -> web.Response:
        raise ValueError("secret of ours, from /etc/secret")

    refused: Counter[str] = Counter()
    app = web.Application(client_max_size=1000)
    app.router.add_get("/healthz/live", thing)
    app.router.add_get("/thing", thing)
    app.router.add_post("/thing", thing)
    app.router.add_get("/boom", boom)
    access = Access(operate="operate-secret", view="view-secret")
    Gate(access, "mesh.local", lambda why: refused.update([why]), ["mesh.example"]).guard(app)
    async with TestClient(TestServer(app)) as http:
        yield Visit(http, refused)


async def test_health_is_for_everybody_and_nothing_else_is() -> None:
    """Without a role there is not even the difference between a page and none."""
    async with gate() as visit:
        assert (await visit.ask(path="/healthz/live"))[0] == 200
        answers = [await visit.ask(path=path) for path in ("/thing", "/nothing", "/boom")]
        assert [status for status, _, _ in answers] == [401] * 3
        assert len({body for _, body, _ in answers}) == 1
        assert visit.refused == {"nobody": 3}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
async def test_who_may_look_may_not_act(method: str) -> None:
    """Whatever is not known to be reading counts as acting."""
    async with gate() as visit:
        assert (await visit.ask(headers=VIEW))[:2] == (200, "the thing")
        status, body, _ = await visit.ask(method, headers=VIEW)
        assert (status, "role operate" in body) == (403, True)
        assert visit.refused == {"role": 1}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:15014", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:15014", 200),
        ("mesh.example:15014", 200),
        ("evil.example", 421),
        ("localhost.evil.example:15014", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("[evil.example]", 421),
    ],
)
async def test_a_name_in_host_is_refused(host: str, status: int) -> None:
    """DNS rebinding needs a name of the attacker's there."""
    async with gate() as visit:
        assert (await visit.ask(headers={**OPERATE, "Host": host}))[0] == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:1"}, 200),
        ({"Origin": "http://127.0.0.1:2"}, 403),
        ({"Origin": "https://127.0.0.1:1"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_web_sites_are_not_served(
    method: str, headers: dict[str, str], status: int
) -> None:
    """Although the browser that they use is let in (CSRF)."""
    async with gate() as visit:
        body: dict[str, Any] = {"json": {}} if method == "POST" else {}
        sent = {**OPERATE, "Host": "127.0.0.1:1", **headers}
        assert (await visit.ask(method, headers=sent, **body))[0] == status


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_what_a_form_can_send_does_nothing(kind: str | None) -> None:
    """Only JSON acts: a page of another origin would have to ask before, and nobody says yes."""
    async with gate() as visit:
        headers = OPERATE if kind is None else {**OPERATE, "Content-Type": kind}
        assert (await visit.ask("POST", headers=headers, data=b"{}"))[0] == 415
        status, _, answered = await visit.ask(
            "OPTIONS",
            headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"},
        )
        assert status == 403
        assert not [name for name in answered if name.lower().startswith("access-control")]


async def test_every_answer_is_hardened() -> None:
    """Also errors, ours and those of the web framework; and it tells no versions."""
    async with gate() as visit:
        answers = [await visit.ask(path=path, headers=OPERATE) for path in PATHS]
        answers.append(await visit.ask())
        answers.append(await visit.ask(headers={"Host": "evil.example"}))
        answers.append(await visit.ask("DELETE", headers=OPERATE))
        answers.append(await visit.ask("POST", headers=OPERATE, json="x" * 2000))
        assert [a[0] for a in answers] == [200, 200, 500, 404, 401, 421, 415, 413]
        for _, _, headers in answers:
            assert HARDENING.items() <= headers.items()
            assert "Set-Cookie" not in headers


async def test_a_mistake_of_ours_is_told_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets an id with which the log can be searched."""
    async with gate() as visit:
        status, body, _ = await visit.ask(path="/boom", headers=VIEW)
    assert (status, "secret" in body) == (500, False)
    assert "ValueError: secret of ours" in caplog.text
    assert body.rpartition(" ")[2].strip('."}') in caplog.text


async def test_what_acts_is_in_the_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    """Who, from where, what, and how it ended; also when it was refused; never a token."""
    caplog.set_level(logging.ERROR)  # an audit that a log level switches off would be none
    caplog.handler.setLevel(logging.NOTSET)
    async with gate() as visit:
        await visit.ask("POST", headers=OPERATE, json={"a": 1})
        await visit.ask("POST", headers=VIEW, json={})
        await visit.ask("POST", headers=OPERATE, data=b"form")
        await visit.ask(headers=OPERATE)
    lines = [record.getMessage() for record in caplog.records if record.name.endswith(".audit")]
    assert lines == [
        'the operator\'s token, from 127.0.0.1: POST /thing: thing {"a": 1}: 200',
        "the viewer's token, from 127.0.0.1: POST /thing: -: 403",
        "the operator's token, from 127.0.0.1: POST /thing: -: 415",
    ]
    assert "secret" not in caplog.text
