import stat
from pathlib import Path

import pytest

from control_plane.ledger import Entry, Ledger
from meshproxy.private_file import PrivateFileError


def entry(
    workload: str = "default/a", issuer: str = "i1", root: str = "r1", not_after: float = 100.0
) -> Entry:
    return Entry(workload=workload, serial="5e", issuer=issuer, root=root, not_after=not_after)


def test_it_knows_until_when_a_key_is_needed(tmp_path: Path) -> None:
    """The latest end of what an issuing key, or anything under a root, has signed."""
    ledger = Ledger(tmp_path / "issued", 0.0)
    for one in (entry(not_after=50), entry("default/b", not_after=90), entry(not_after=70),
                entry(issuer="i2", not_after=95), entry(issuer="i3", root="r2", not_after=99)):  # fmt: skip
        ledger.note(one, 0.0)
    assert [ledger.until(issuer=key) for key in ("i1", "i2", "i3", "i4")] == [90, 95, 99, 0]
    assert [ledger.until(root=root) for root in ("r1", "r2")] == [95, 99]
    assert ledger.last["default/a"].not_after == 99


def test_a_restart_forgets_only_what_has_ended(tmp_path: Path) -> None:
    """The file is private, and half a line at its end is no reason not to start."""
    path = tmp_path / "issued"
    ledger = Ledger(path, 0.0)
    ledger.note(entry(not_after=50), 0.0)
    ledger.note(entry("default/b", not_after=90), 0.0)
    with path.open("ab") as file:
        file.write(b'{"workload": "default/c", "ser')
    again = Ledger(path, 60.0)
    assert set(again.last) == {"default/b"}
    assert again.until(issuer="i1") == 90
    assert path.read_text().count("\n") <= 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_longer_certificate_is_remembered_behind_a_shorter_one(tmp_path: Path) -> None:
    """After the lifetime was lowered, the old certificates still are what a rotation waits for."""
    ledger = Ledger(tmp_path / "issued", 0.0)
    ledger.note(entry(not_after=86400), 0.0)
    ledger.note(entry(not_after=60), 0.0)
    assert ledger.until(root="r1") == Ledger(tmp_path / "issued", 0.0).until(root="r1") == 86400


def test_it_does_not_grow_for_ever(tmp_path: Path) -> None:
    """A hundred workloads that renew for weeks need a few hundred lines."""
    path = tmp_path / "issued"
    ledger = Ledger(path, 0.0)
    for moment in range(30):
        for number in range(100):
            ledger.note(entry(f"default/{number}", not_after=moment + 60), moment)
    assert path.read_text().count("\n") < 1500
    assert Ledger(path, 30.0).last == ledger.last


def test_what_cannot_be_written_down_is_an_error(tmp_path: Path) -> None:
    """The certificate is then not handed out."""
    ledger = Ledger(tmp_path / "issued", 0.0)
    (tmp_path / "issued").mkdir()
    with pytest.raises(PrivateFileError, match="cannot be written"):
        ledger.note(entry(), 0.0)
    assert not ledger.last
