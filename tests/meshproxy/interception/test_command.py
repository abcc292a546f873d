from ipaddress import ip_network
from pathlib import Path

import pytest

from meshproxy.interception import command, tables
from meshproxy.interception.rules import IPV4, IPV6, Capture, captured


def test_dry_run_prints_what_would_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Both families, each a file for `iptables-restore`; needs no right to anything."""
    options = [
        "--exclude-outbound-cidrs",
        "10.0.0.0/8,fd00::/8",
        "--exclude-outbound-cidrs",
        "192.0.2.1",
    ]
    assert command.main(["--dry-run", *options]) == 0
    networks = tuple(map(ip_network, ("10.0.0.0/8", "fd00::/8", "192.0.2.1")))
    capture = Capture(exclude_outbound_cidrs=networks)
    assert capsys.readouterr().out == (
        f"# iptables-restore --noflush\n{captured(IPV4, capture)}\n"
        f"# ip6tables-restore --noflush\n{captured(IPV6, capture)}\n"
    )


def test_every_option_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranges are written with a dash or a colon; lists with commas, or by giving the option again."""
    options = """
        --outbound-port 1 --inbound-port 2 --proxy-uid 3,4 --proxy-uid 5 --exclude-inbound-ports 6,7-8
        --exclude-outbound-ports 9:10 --include-outbound-cidrs 10.1.0.0/16 --exclude-uids 11-12,13
        --exclude-gids 14 --no-ipv6 --dry-run
    """
    assert command.main(options.split()) == 0
    capture = Capture(
        outbound_port=1,
        inbound_port=2,
        proxy_uids=(3, 4, 5),
        exclude_inbound_ports=((6, 6), (7, 8)),
        exclude_outbound_ports=((9, 10),),
        include_outbound_cidrs=(ip_network("10.1.0.0/16"),),
        exclude_uids=((11, 12), (13, 13)),
        exclude_gids=((14, 14),),
    )
    assert capsys.readouterr().out == f"# iptables-restore --noflush\n{captured(IPV4, capture)}\n"


def test_dry_run_of_removing(capsys: pytest.CaptureFixture[str]) -> None:
    """The ways in, the rules, the chains."""
    assert command.main(["--remove", "--dry-run", "--no-ipv6"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "# iptables-restore --noflush",
        "*nat",
        "-D OUTPUT -p tcp -j MESH_OUTBOUND",
        "-D PREROUTING -p tcp -m addrtype --dst-type LOCAL -j MESH_INBOUND",
        *(f"-F MESH_{name}" for name in ("OUTBOUND", "INBOUND", "REDIRECT")),
        *(f"-X MESH_{name}" for name in ("OUTBOUND", "INBOUND", "REDIRECT")),
        "COMMIT",
        "",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--outbound-port 0", "'0' is neither a number from 1 to 65535 nor a range"),
        ("--inbound-port 80-81", "80-81: expected one number, not a range"),
        ("--exclude-inbound-ports 80,http", "'http' is neither a number"),
        ("--exclude-outbound-ports 90-80", "'90-80' is neither a number"),
        ("--exclude-outbound-ports 1-2-3", "'1-2-3' is neither a number"),
        ("--exclude-uids 4294967295", "'4294967295' is neither a number from 0 to 4294967294"),
        ("--proxy-uid 1-2", "1-2: expected one number"),
        (
            "--exclude-outbound-cidrs 10.0.0.1/8",
            "has host bits set; expected an address or a network",
        ),
        (
            "--include-outbound-cidrs catalog",
            "expected an address or a network, such as 10.0.0.0/8",
        ),
        ("--outbound-port 5 --inbound-port 5", "--outbound-port and --inbound-port must differ"),
        ("--no-ipv6 --require-ipv6", "not allowed with"),
    ],
)
def test_misuse_is_told(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and what was expected."""
    with pytest.raises(SystemExit) as ended:
        command.main(options.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


# Where one of the families cannot be had ----------------------------------------------------------


@pytest.fixture
def without_ip6tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an iptables that takes everything, and no ip6tables; IPv6 has no addresses."""
    for name in ("iptables-save", "iptables-restore"):
        (tmp_path / name).write_text("#!/bin/sh\ncase $1 in --noflush) cat;; esac\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(tables, "is_allowed", lambda: True)
    monkeypatch.setattr(tables, "ADDRESSES", tmp_path / "if_inet6")
    return tmp_path


@pytest.mark.usefixtures("without_ip6tables")
def test_a_machine_without_ipv6_is_captured_without(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing can leave through IPv6: this is said, and IPv4 is captured."""
    assert command.main([]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(
        "IPv6: not captured, and there are no addresses to capture: there is no"
    )
    assert said[1] == "IPv4: captured (iptables, legacy)"


@pytest.mark.usefixtures("without_ip6tables")
def test_ipv6_may_be_required(capsys: pytest.CaptureFixture[str]) -> None:
    """Then its absence is a failure, and IPv4 is left as it was."""
    assert command.main(["--require-ipv6"]) == 1
    said = capsys.readouterr()
    assert "IPv6 is not captured: there is no ip6tables-restore" in said.err
    assert "IPv4" not in said.out


def test_ipv6_is_not_left_open(without_ip6tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With addresses, an app could call past its sidecar: an error, unless one says that it may."""
    (without_ip6tables / "if_inet6").write_text("… eth0\n")
    assert command.main([]) == 1
    assert "--no-ipv6 leaves their traffic alone" in capsys.readouterr().err
    assert command.main(["--no-ipv6"]) == 0
    assert "IPv4: captured" in capsys.readouterr().out


def test_no_iptables_at_all(without_ip6tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what to install."""
    (without_ip6tables / "iptables-restore").unlink()
    assert command.main([]) == 1
    assert "IPv4 is not captured: there is no iptables-restore" in capsys.readouterr().err
    assert command.main(["--remove"]) == 1
    assert "there is no iptables-restore" in capsys.readouterr().err
