import stat
from pathlib import Path

import pytest

from control_plane import access
from control_plane.access import Access, Caller, Role
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.private_file import PrivateFileError

ALICE, BOB, EVE = (SpiffeId.of("mesh.local", "people", name) for name in ("alice", "bob", "eve"))


def rules(**more: object) -> Access:
    return Access(
        operate="operate-secret",
        view="view-secret",
        operators=[str(ALICE)],
        viewers=[str(BOB)],
        **more,  # type: ignore[arg-type]  # of the test's own making
    )


@pytest.mark.parametrize(
    ("authorization", "role"),
    [
        ("Bearer operate-secret", Role.OPERATE),
        ("bearer   operate-secret ", Role.OPERATE),
        ("Bearer view-secret", Role.VIEW),
        ("Bearer operate-secre", None),
        ("Bearer operate-secrett", None),
        ("Bearer Operate-secret", None),
        ("Bearer \ud800", None),
        ("Bearer é", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        ("Basic operate-secret", None),
        ("operate-secret", None),
    ],
)
def test_a_token_gives_the_role_it_is_of(authorization: str, role: Role | None) -> None:
    """The whole token, as a Bearer; nothing else gives anything."""
    caller = rules().of(authorization, None)
    assert role == (caller and caller.role)


def test_certificates_count_when_their_identity_is_listed() -> None:
    """To be of the mesh is not enough."""
    assert Caller(str(ALICE), Role.OPERATE) == rules().of(None, ALICE)
    assert Caller(str(BOB), Role.VIEW) == rules().of(None, BOB)
    assert rules().of(None, EVE) is None
    assert rules().of(None, None) is None


def test_a_revoked_identity_has_no_role() -> None:
    """Although its certificate has not ended."""
    assert rules(revoked={ALICE}).of(None, ALICE) is None


def test_a_wrong_token_is_not_mended_by_a_certificate() -> None:
    """What the caller says about itself must be true."""
    assert rules().of("Bearer wrong", ALICE) is None


def test_a_token_is_made_once_and_private(tmp_path: Path) -> None:
    """0600, long, the same after a restart, and another in each file."""
    path = tmp_path / access.OPERATE_TOKEN
    token = access.token(path)
    assert len(token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token == access.token(path)
    assert token != access.token(tmp_path / access.VIEW_TOKEN)


@pytest.mark.parametrize(("mode", "content"), [(0o600, ""), (0o600, " \n"), (0o644, "x" * 43)])
def test_a_token_that_is_none_or_known_to_others_is_refused(
    mode: int, content: str, tmp_path: Path
) -> None:
    """An empty file must not let in whoever shows an empty token."""
    path = tmp_path / "token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(PrivateFileError, match=str(path)):
        access.token(path)
