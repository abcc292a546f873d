"""
`meshproxy intercept` against the kernel: where do connections of a captured namespace arrive?

The namespace *pod* has a stand-in for a sidecar, which says what it was called for; *peer* is the
rest of the world, where everything is sent to.
"""

import sys
from collections.abc import Iterator

import pytest

from tests.helpers.namespaces import Namespace, join, needs_namespaces, unusable

pytestmark = [pytest.mark.integration, needs_namespaces]

SIDECAR, APP = 1337, 1000

CALL = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5) as connection:
        print(connection.makefile().read())
except OSError as error:
    print(type(error).__name__)
"""
POD, PEER = "10.99.0.1", "10.99.0.2"
POD6, PEER6 = "fd99::1", "fd99::2"


class Pair:
    """A captured pod, and its peer."""

    def __init__(self) -> None:
        self.pod, self.peer = Namespace(), Namespace()

    def open(self) -> None:
        join(self.pod, self.peer)
        self._serve(
            self.pod,
            SIDECAR,
            "--captured",
            "127.0.0.1:15001",
            "::1:15001",
            "0.0.0.0:15006",
            ":::15006",
        )
        self._serve(self.pod, APP, "0.0.0.0:8080", ":::8080", "0.0.0.0:15020")
        self._serve(self.peer, 0, "0.0.0.0:80", ":::80", "0.0.0.0:25")

    def _serve(self, where: Namespace, uid: int, *words: str) -> None:
        server = where.start(sys.executable, "-m", "tests.helpers.answering", *words, uid=uid)
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"

    def intercept(self, *options: str) -> str:
        """Run the command; return what it says."""
        done = self.pod.run(sys.executable, "-m", "meshproxy", "intercept", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rules(self, program: str = "iptables") -> list[str]:
        """Return the rules that are in force; comments carry the time."""
        saved = self.pod.run(f"{program}-save", "-t", "nat").stdout
        return [line for line in saved.splitlines() if line.startswith("-A")]

    def call(self, host: str, port: int, uid: int = APP) -> str:
        """Call from inside the pod; return who answers."""
        return self.pod.python(CALL, host, str(port), uid=uid)

    def called(self, host: str, port: int) -> str:
        """Call from outside; return who answers."""
        return self.peer.python(CALL, host, str(port))

    def close(self) -> None:
        self.pod.close()
        self.peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    try:
        made.open()
        yield made
    finally:
        made.close()


def test_what_is_captured_and_what_is_not(pair: Pair) -> None:
    """Calls of the app and to it arrive at the sidecar with where they were meant for; nothing else."""
    assert pair.call(PEER, 80) == "80"
    pair.intercept()

    # Out of the app: any address, any port, also where nobody listens.
    assert pair.call(PEER, 80) == f"15001 for {PEER} 80"
    assert pair.call("203.0.113.7", 9999) == "15001 for 203.0.113.7 9999"
    assert pair.call(PEER6, 80) == f"15001 for {PEER6} 80"
    assert pair.call("2001:db8::7", 443) == "15001 for 2001:db8::7 443"
    assert pair.call(PEER, 80, uid=0) == f"15001 for {PEER} 80"

    # The sidecar's own connections leave.
    assert pair.call(PEER, 80, uid=SIDECAR) == "80"
    assert pair.call(PEER6, 80, uid=SIDECAR) == "80"

    # The app calls itself, over the loopback and by the pod's address.
    assert pair.call("127.0.0.1", 8080) == "8080"
    assert pair.call("::1", 8080) == "8080"
    assert pair.call(POD, 8080) == "8080"
    assert pair.call(POD6, 8080) == "8080"

    # The sidecar calls its app over the loopback, and its own pod as a stranger would.
    assert pair.call("127.0.0.1", 8080, uid=SIDECAR) == "8080"
    assert pair.call("::1", 8080, uid=SIDECAR) == "8080"
    assert pair.call(POD, 8080, uid=SIDECAR) == f"15006 for {POD} 8080"
    assert pair.call(POD6, 8080, uid=SIDECAR) == f"15006 for {POD6} 8080"

    # Into the app; not into the sidecar's health.
    assert pair.called(POD, 8080) == f"15006 for {POD} 8080"
    assert pair.called(POD6, 8080) == f"15006 for {POD6} 8080"
    assert pair.called(POD, 22) == f"15006 for {POD} 22"
    assert pair.called(POD, 15001) == f"15006 for {POD} 15001"
    assert pair.called(POD, 15020) == "15020"

    # Whoever calls a capturing port by its own address has been redirected nowhere.
    assert pair.call("127.0.0.1", 15001) == "15001"
    assert pair.called(POD, 15006) == "15006"


def test_the_sidecar_reaches_its_app_by_the_pods_address_from_the_loopback(pair: Pair) -> None:
    """
    An app that listens on the pod's address alone can be dialled there: a connection from a
    loopback address is known to be the last leg, and is not captured once more.
    """
    pair.intercept()
    bound = """
import socket, sys
address = (sys.argv[1], 8080)
with socket.create_connection(address, timeout=5, source_address=(sys.argv[2], 0)) as connection:
    print(connection.makefile().read())
"""
    assert pair.pod.python(bound, POD, "127.0.0.1", uid=SIDECAR) == "8080"
    assert pair.pod.python(bound, POD6, "::1", uid=SIDECAR) == "8080"


def test_exclusions(pair: Pair) -> None:
    """Ports, addresses, users and groups that are excluded go their way without the sidecar."""
    pair.intercept(
        "--exclude-outbound-ports", "25,8000-8010",
        "--exclude-inbound-ports", "8080",
        "--exclude-uids", "1001-1003",
    )  # fmt: skip
    assert pair.call(PEER, 25) == "25"
    assert pair.call(PEER, 8005) == "ConnectionRefusedError"
    assert pair.call(PEER, 80) == f"15001 for {PEER} 80"
    assert pair.call(PEER, 80, uid=1002) == "80"
    assert pair.called(POD, 8080) == "8080"
    assert pair.called(POD, 22) == f"15006 for {POD} 22"
    # Excluded inbound is excluded for every caller: a peer, and the sidecar of the pod itself.
    assert pair.call(POD, 8080, uid=SIDECAR) == "8080"

    pair.intercept("--exclude-outbound-cidrs", f"{PEER}/32,{PEER6}/128", "--exclude-gids", "1001")
    assert pair.call(PEER, 80) == pair.call(PEER6, 80) == "80"
    assert pair.call("10.99.0.3", 80) == "15001 for 10.99.0.3 80"
    assert pair.call("10.99.0.3", 25) == "15001 for 10.99.0.3 25"

    pair.intercept("--include-outbound-cidrs", "10.99.0.3,fd99::3")
    assert pair.call(PEER, 80) == pair.call(PEER6, 80) == "80"
    assert pair.call("10.99.0.3", 80) == "15001 for 10.99.0.3 80"
    assert pair.call("fd99::3", 80) == "15001 for fd99::3 80"

    pair.intercept("--no-ipv6")
    assert pair.call(PEER6, 80) == "80"
    assert pair.call(PEER, 80) == f"15001 for {PEER} 80"


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_once_is_twice_and_nothing_else_is_touched(pair: Pair, backend: str) -> None:
    """The same command again changes nothing, other options replace; foreign rules stay as they are."""
    programs = (f"iptables-{backend}", f"ip6tables-{backend}")
    for program in programs:
        if problem := unusable(pair.pod.name, program):
            pytest.skip(problem)
    for program in programs:
        for rule in (
            ("-N", "FOREIGN"),
            ("-A", "FOREIGN", "-p", "tcp", "--dport", "1", "-j", "RETURN"),
            (
                "-A",
                "OUTPUT",
                "-p",
                "tcp",
                "-m",
                "comment",
                "--comment",
                "not ours",
                "-j",
                "FOREIGN",
            ),
            ("-A", "PREROUTING", "-p", "tcp", "--dport", "2", "-j", "REDIRECT", "--to-ports", "3"),
        ):
            assert pair.pod.run(program, "-t", "nat", *rule).returncode == 0
    foreign = [pair.rules(program) for program in programs]

    pair.intercept("--backend", backend, "--proxy-uid", "7,8")
    others = [pair.rules(program) for program in programs]
    pair.intercept("--backend", backend)
    once = [pair.rules(program) for program in programs]
    assert once != others
    said = pair.intercept("--backend", backend)
    assert [pair.rules(program) for program in programs] == once
    assert said.splitlines() == [
        f"IPv6: captured (ip6tables-{backend}, {backend})",
        f"IPv4: captured (iptables-{backend}, {backend})",
    ]
    for rules, theirs in zip(once, foreign, strict=True):
        assert [rule for rule in rules if "MESH_" not in rule and "1500" not in rule] == theirs
    assert pair.call(PEER, 80) == f"15001 for {PEER} 80"

    pair.intercept("--remove", "--backend", backend)
    assert [pair.rules(program) for program in programs] == foreign
    assert pair.call(PEER, 80) == "80"
    assert pair.called(POD, 8080) == "8080"
    assert "was not captured" in pair.intercept("--remove", "--backend", backend)


def test_rules_in_the_other_packet_filter_are_found(pair: Pair) -> None:
    """Who captured with one iptables and captures or lets go with the other has no rules left in the first."""
    for program in ("iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"):
        if problem := unusable(pair.pod.name, program):
            pytest.skip(problem)
    pair.intercept("--backend", "legacy")
    pair.intercept("--backend", "nft")
    assert pair.rules("iptables-legacy") == pair.rules("ip6tables-legacy") == []
    assert pair.call(PEER, 80) == f"15001 for {PEER} 80"
    pair.intercept("--backend", "legacy", "--remove")
    assert pair.rules("iptables-nft") == pair.rules("ip6tables-nft") == []
    assert pair.call(PEER, 80) == "80"


def test_open_connections_stay(pair: Pair) -> None:
    """Capturing a namespace, and letting it go, does not touch the connections that are open."""
    held = """
import socket, subprocess, sys
server = socket.create_server(("0.0.0.0", 7000))
with socket.create_connection((sys.argv[1], 7000)) as one, server.accept()[0] as other:
    for options in ([], ["--remove"]):
        command = [sys.executable, "-m", "meshproxy", "intercept", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        one.sendall(b"there")
        assert other.recv(9) == b"there"
        other.sendall(b"and back")
        assert one.recv(9) == b"and back"
"""
    pair.pod.python(held, POD)


def test_dry_run_is_what_is_done(pair: Pair) -> None:
    """What is printed can be given to `iptables-restore` as it is, and comes to the same rules."""
    options = ("--exclude-uids", "7", "--exclude-outbound-cidrs", "10.0.0.0/8", "--no-ipv6")
    text = pair.pod.run(
        sys.executable, "-m", "meshproxy", "intercept", "--dry-run", *options, uid=APP
    )
    assert text.returncode == 0, text.stderr
    assert pair.rules() == []
    assert pair.pod.run("iptables-restore", "--noflush", text=text.stdout).returncode == 0
    printed = pair.rules()
    pair.intercept(*options)
    assert pair.rules() == printed
    text = pair.pod.run(
        sys.executable, "-m", "meshproxy", "intercept", "--remove", "--dry-run", *options
    )
    assert pair.pod.run("iptables-restore", "--noflush", text=text.stdout).returncode == 0
    assert pair.rules() == []


def test_without_the_right_to(pair: Pair) -> None:
    """Who may not change rules is told what is missing; nothing has changed."""
    done = pair.pod.run(sys.executable, "-m", "meshproxy", "intercept", uid=APP)
    assert done.returncode == 1
    assert "needs root, or CAP_NET_ADMIN" in done.stderr
    assert pair.rules() == []
