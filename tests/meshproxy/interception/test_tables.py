import os
import stat
from pathlib import Path

import pytest

from meshproxy.interception import tables
from meshproxy.interception.rules import IPV4, IPV6
from meshproxy.interception.tables import Tables, TablesError, choose, others


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for programs before all others; iptables is only found in it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(tables, "LEGACY_TABLES", {4: tmp_path / "legacy4", 6: tmp_path / "legacy6"})
    return tmp_path


def test_the_line_that_failed_is_shown(programs: Path) -> None:
    """iptables counts lines of its input, which nobody else has seen."""
    said = "iptables-restore: line 3 failed"
    program(programs, "some-restore", f"cat > /dev/null; echo '{said}' >&2; exit 1")
    with pytest.raises(TablesError) as error:
        Tables(IPV4, "some").restore("*nat\n-A MESH_OUTBOUND -j RETURN\n-D OUTPUT -p udp\nCOMMIT\n")
    assert str(error.value) == f"some-restore: {said}\n  line 3 is: -D OUTPUT -p udp"


def test_a_line_that_is_not_ours_is_not_looked_for(programs: Path) -> None:
    """What a program says may hold any number."""
    program(programs, "some-restore", "cat > /dev/null; echo 'line 99 failed' >&2; exit 1")
    with pytest.raises(TablesError, match="line 99 failed"):
        Tables(IPV4, "some").restore("*nat\nCOMMIT\n")


def test_a_failure_without_a_word(programs: Path) -> None:
    """There is always something to say."""
    program(programs, "some-save", "exit 3")
    with pytest.raises(TablesError, match=r"^some-save: ended with exit code 3$"):
        Tables(IPV4, "some").saved()


def test_nothing_is_installed(programs: Path) -> None:
    """The names that were looked for are in the message, and what to do."""
    assert programs.is_dir()
    with pytest.raises(TablesError) as error:
        choose(IPV6, None)
    assert str(error.value) == (
        "there is no ip6tables-restore or ip6tables-nft-restore or ip6tables-legacy-restore: "
        "install iptables"
    )


def test_plain_iptables_is_preferred(programs: Path) -> None:
    """Which of the two it is, is the distribution's decision."""
    for name in ("iptables", "iptables-nft", "iptables-legacy"):
        program(programs, f"{name}-restore", "")
        program(programs, f"{name}-save", "")
    assert choose(IPV4, None).program == "iptables"
    assert choose(IPV4, "legacy").program == "iptables-legacy"


def test_the_first_that_works_is_taken(programs: Path) -> None:
    """A kernel may lack what one of the two needs."""
    program(programs, "iptables-restore", "")
    program(programs, "iptables-save", "echo 'no such table' >&2; exit 1")
    program(programs, "iptables-legacy-restore", "")
    program(programs, "iptables-legacy-save", "")
    assert choose(IPV4, None).program == "iptables-legacy"
    with pytest.raises(TablesError, match="no iptables-nft-restore"):
        choose(IPV4, "nft")
    (programs / "iptables-legacy-restore").unlink()
    with pytest.raises(TablesError, match="iptables-save: no such table"):
        choose(IPV4, None)


def test_the_other_packet_filter_is_asked_only_where_it_is_in_use(programs: Path) -> None:
    """Asking legacy iptables for its table would make the table."""
    program(programs, "iptables-restore", "echo 'iptables-restore v1.8.9 (nf_tables)'")
    program(programs, "iptables-legacy-save", "")
    mine = Tables(IPV4, "iptables")
    assert mine.backend == "nft"
    assert others(mine) == []
    (programs / "legacy4").write_text("filter\nnat\n")
    assert [other.program for other in others(mine)] == ["iptables-legacy"]

    program(programs, "iptables-restore", "echo 'iptables-restore v1.4.21'")
    program(programs, "iptables-nft-save", "")
    mine = Tables(IPV4, "iptables")
    assert mine.backend == "legacy"
    assert [other.program for other in others(mine)] == ["iptables-nft"]


def test_the_right_to_change_rules() -> None:
    """Root has it, unless it was taken away; nobody else has, unless it was given."""
    if os.geteuid() != 0:
        assert not tables.is_allowed()


def test_a_namespace_without_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched off, the file is empty; absent from the kernel, there is none."""
    monkeypatch.setattr(tables, "ADDRESSES", tmp_path / "if_inet6")
    assert not tables.speaks_ipv6()
    (tmp_path / "if_inet6").write_text("")
    assert not tables.speaks_ipv6()
    (tmp_path / "if_inet6").write_text("00000000000000000000000000000001 01 80 10 80       lo\n")
    assert tables.speaks_ipv6()
