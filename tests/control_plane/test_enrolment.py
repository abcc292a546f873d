import asyncio
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.attestation import Attestation, RateLimit, Renewal
from control_plane.authority import Authority
from control_plane.enrolment import Enrolment
from control_plane.join_tokens import JoinTokens
from control_plane.metrics import Metrics
from meshproxy.contract import wire
from meshproxy.contract.discovery import Refused, SigningAnswer, SigningRequest
from meshproxy.contract.spiffe import SpiffeId
from tests.control_plane.test_authority import CSR, KEY, request

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
REVIEWS = SpiffeId.of("mesh.local", "default", "reviews")
WORKLOAD = "default/catalog-v1"


class Desk:
    """An enrolment with everything it needs."""

    def __init__(self, folder: Path) -> None:
        self.tokens = JoinTokens(folder / "tokens.json")
        self.metrics = Metrics()
        self.authority = Authority(folder / "authority", "mesh.local")
        self.enrolment = Enrolment(
            authority=self.authority,
            attestation=Attestation(self.tokens, Renewal(), RateLimit()),
            identity_of={WORKLOAD: CATALOG}.get,
            lifetime=lambda: timedelta(hours=1),
            metrics=self.metrics,
        )

    async def ask(
        self,
        token: str | None = None,
        proved: SpiffeId | None = None,
        workload: str = WORKLOAD,
        csr: str = CSR,
    ) -> SigningAnswer | Refused:
        request = SigningRequest(workload=workload, csr=csr, token=token)
        return await self.enrolment.answer(wire.encode(request).decode(), proved)

    def count(self, result: str) -> float | None:
        return self.metrics.registry.get_sample_value("mesh_signings_total", {"result": result})


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


async def test_a_token_gets_the_identity_that_the_workload_is_entitled_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the request nor the token chooses the name: the workload's service account does."""
    caplog.set_level(logging.INFO)
    desk = Desk(tmp_path)
    token, _expires = desk.tokens.issue(WORKLOAD, CATALOG)
    answer = await desk.ask(token)
    assert isinstance(answer, SigningAnswer)
    assert answer.identity == str(CATALOG)
    assert answer.roots
    assert desk.count("signed") == 1
    assert f"certificate of {CATALOG} signed for {WORKLOAD}" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("asked", "code", "retry"),
    [
        ({}, "no-credential", False),
        ({"token": "x"}, "token-unknown", False),
        ({"proved": REVIEWS}, "wrong-identity", False),
        ({"proved": CATALOG, "workload": "default/new"}, "unknown-workload", True),
        ({"proved": CATALOG, "csr": "nonsense"}, "bad-request", False),
        ({"proved": CATALOG, "csr": request(KEY, subject="admin")}, "asks-for-more", False),
        ({"token": "eyJh.eyJp.c2ln"}, "token-of-nobody", False),
    ],
)
async def test_a_refusal_says_why_and_whether_to_come_again(
    asked: dict[str, str],
    code: str,
    retry: bool,
    desk: Desk,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A stable code, a sentence, a count, and a line of the log."""
    answer = await desk.ask(**asked)  # type: ignore[arg-type]
    assert isinstance(answer, Refused)
    assert (answer.code, answer.retry) == (code, retry)
    assert answer.reason.endswith(".")
    assert desk.count(code) == 1
    assert f"({code})" in caplog.text


async def test_a_replay_is_refused_logged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The same token with another key is a copy; with the same key, somebody who lost the answer."""
    desk = Desk(tmp_path)
    token, _expires = desk.tokens.issue(WORKLOAD, CATALOG)
    for _ in range(2):
        assert isinstance(await desk.ask(token), SigningAnswer)
    refused = await desk.ask(token, csr=request(ec.generate_private_key(ec.SECP256R1())))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry) == ("token-used", False)
    assert desk.count("token-used") == 1
    assert "no certificate for 'default/catalog-v1'" in caplog.text
    assert token not in caplog.text


async def test_an_authority_that_has_ended_says_so(tmp_path: Path) -> None:
    """It is not the sidecar's fault: it may come again."""
    desk = Desk(tmp_path)
    ended = datetime.now(UTC) + timedelta(days=3649, hours=23)
    desk.authority._clock = lambda: ended
    desk.authority._signer = desk.authority._signer._replace(root_key=None)
    refused = await desk.ask(proved=CATALOG)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry) == ("authority-expired", True)


async def test_a_bad_request_does_not_use_up_the_token(tmp_path: Path) -> None:
    """A mistake in the sidecar must not cost the operator another token."""
    desk = Desk(tmp_path)
    token, _expires = desk.tokens.issue(WORKLOAD, CATALOG)
    assert isinstance(await desk.ask(token, csr="nonsense"), Refused)
    assert isinstance(await desk.ask(token), SigningAnswer)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300))
def test_any_message_is_answered(desk: Desk, message: str) -> None:
    """Unauthenticated garbage gets a refusal; nothing is raised."""
    assert isinstance(asyncio.run(desk.enrolment.answer(message, None)), Refused)


async def test_a_disk_that_fails_is_an_answer_too(tmp_path: Path) -> None:
    """A token whose use cannot be noted gets nothing, and may come again; nobody is left waiting."""
    desk = Desk(tmp_path)
    token, _expires = desk.tokens.issue(WORKLOAD, CATALOG)
    (tmp_path / "tokens.json").unlink()
    (tmp_path / "tokens.json").mkdir()
    refused = await desk.ask(token)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.retry) == ("state-not-writable", True)
    (tmp_path / "tokens.json").rmdir()
    assert isinstance(await desk.ask(token), SigningAnswer)
