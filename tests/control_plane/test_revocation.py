import logging
import stat
from pathlib import Path

import pytest

from control_plane.revocation import Revocation, Revocations
from meshproxy.contract.spiffe import SpiffeId
from meshproxy.private_file import PrivateFileError

CATALOG = SpiffeId.of("mesh.local", "default", "catalog")
REVIEWS = SpiffeId.of("mesh.local", "default", "reviews")


def test_a_denied_identity_stays_denied_until_it_is_lifted(tmp_path: Path) -> None:
    """Also after a restart; whoever depends on it is told of each change, once."""
    path = tmp_path / "revoked.json"
    revocations = Revocations(path, lambda: 7.0)
    told: list[int] = []
    revocations.on_changed = lambda: told.append(len(revocations))
    assert revocations.revoke(CATALOG, "stolen laptop")
    assert not revocations.revoke(CATALOG)
    assert CATALOG in revocations
    assert REVIEWS not in revocations

    again = Revocations(path)
    assert again.entries == [Revocation(identity=str(CATALOG), since=7.0, reason="stolen laptop")]
    assert again.identities() == (str(CATALOG),)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    assert revocations.lift(CATALOG)
    assert not revocations.lift(CATALOG)
    assert (CATALOG in revocations, told) == (False, [1, 0])
    assert Revocations(path).entries == []


def test_what_could_not_be_written_down_does_not_hold(tmp_path: Path) -> None:
    """The operator hears an error, and not that it is done."""
    path = tmp_path / "revoked.json"
    revocations = Revocations(path)
    path.mkdir()
    with pytest.raises(PrivateFileError):
        revocations.revoke(CATALOG)
    assert CATALOG not in revocations


def test_the_log_cannot_be_forged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reason is an operator's text, and stays on its line."""
    with caplog.at_level(logging.WARNING):
        Revocations(tmp_path / "revoked.json").revoke(CATALOG, "a\nINFO: b")
    assert "'a\\nINFO: b'" in caplog.text
