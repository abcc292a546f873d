import hmac
import logging
import stat
from pathlib import Path

import pytest

from control_plane.attestation import Claim, NotAttested
from control_plane.join_tokens import JoinTokens
from meshproxy import private_file
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.contract.wire import ContractError

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
REVIEWS = SpiffeId.of("mesh.local", "default", "reviews")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def claim(
    token: str,
    workload: str = "default/catalog-v1",
    identity: SpiffeId = CATALOG,
    key: str = "key",
) -> Claim:
    return Claim(workload, identity, token, None, key)


async def test_a_token_opens_once(tmp_path: Path) -> None:
    """For any other key the second use is a copy's; also after a restart."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    assert await tokens.attest(claim(token)) == "token"
    for opened in (tokens, JoinTokens(tmp_path / "tokens.json")):
        with pytest.raises(NotAttested, match="token-used") as caught:
            await opened.attest(claim(token, key="another"))
        assert not caught.value.retry


async def test_who_has_lost_the_answer_may_ask_again(tmp_path: Path) -> None:
    """The same key with the same token is answered, also after a restart; but not for ever."""
    clock = Clock()
    path = tmp_path / "tokens.json"
    token, _expires = JoinTokens(path, clock).issue("default/catalog-v1", CATALOG)
    hows = [await JoinTokens(path, clock).attest(claim(token)) for _ in range(10)]
    assert hows[:2] == ["token", "token, for the same key as 1 before"]
    with pytest.raises(NotAttested, match="token-used"):
        await JoinTokens(path, clock).attest(claim(token))
    clock.now += 3600
    with pytest.raises(NotAttested, match="token-unknown"):
        await JoinTokens(path, clock).attest(claim(token))


async def test_a_used_token_still_opens_nothing_for_another(tmp_path: Path) -> None:
    """Neither for another workload nor for another identity, with the right key or not."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    await tokens.attest(claim(token))
    for other in (claim(token, workload="default/reviews"), claim(token, identity=REVIEWS)):
        with pytest.raises(NotAttested, match="token-of-another"):
            await tokens.attest(other)


async def test_a_token_lives_an_hour(tmp_path: Path) -> None:
    """Then it is forgotten, on disk too."""
    clock = Clock()
    tokens = JoinTokens(tmp_path / "tokens.json", clock)
    token, expires = tokens.issue("default/catalog-v1", CATALOG)
    assert expires == clock.now + 3600
    clock.now += 3600
    with pytest.raises(NotAttested, match="token-unknown"):
        await tokens.attest(claim(token))
    assert len(JoinTokens(tmp_path / "tokens.json", clock)) == 0


async def test_only_a_comparison_in_constant_time_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were there another way to find a token, its time would tell how much of a guess is right."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    compared: list[str] = []

    def never(_kept: str, presented: str) -> bool:
        compared.append(presented)
        return False

    with monkeypatch.context() as patched:
        patched.setattr(hmac, "compare_digest", never)
        with pytest.raises(NotAttested):
            await tokens.attest(claim(token))
    assert len(compared) == 1
    assert token not in compared  # nor is it the token itself that is compared
    await tokens.attest(claim(token))


@pytest.mark.parametrize(
    "other",
    [claim("", workload="default/reviews"), claim("", identity=REVIEWS)],
    ids=["workload", "identity"],
)
async def test_a_token_is_bound_and_survives_misuse(other: Claim, tmp_path: Path) -> None:
    """For another workload, or one whose service account has changed since, it opens nothing."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    token, _expires = tokens.issue("default/catalog-v1", CATALOG)
    with pytest.raises(NotAttested, match="token-of-another"):
        await tokens.attest(other._replace(token=token))
    assert await tokens.attest(claim(token)) == "token"


async def test_a_restart_keeps_tokens_but_nobody_can_read_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On disk lies a hash, 0600; in the log neither."""
    path = tmp_path / "tokens.json"
    with caplog.at_level(logging.DEBUG):
        token, _expires = JoinTokens(path).issue("default/catalog-v1", CATALOG)
        assert token not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await JoinTokens(path).attest(claim(token)) == "token"
        assert len(JoinTokens(path)) == 0
    assert token not in caplog.text
    assert "join token issued for default/catalog-v1" in caplog.text


async def test_a_damaged_token_file_is_an_error(tmp_path: Path) -> None:
    """Starting without the tokens that were given out would be a riddle to their owners."""
    private_file.write(tmp_path / "tokens.json", b"{")
    with pytest.raises(ContractError):
        JoinTokens(tmp_path / "tokens.json")


@pytest.mark.parametrize("token", ["", "x", "é", "a" * 100_000])
async def test_what_never_was_a_token_is_refused(token: str, tmp_path: Path) -> None:
    """Any text at all is answered, not only those of the right form."""
    tokens = JoinTokens(tmp_path / "tokens.json")
    tokens.issue("default/catalog-v1", CATALOG)
    with pytest.raises(NotAttested, match="token-unknown"):
        await tokens.attest(claim(token))
