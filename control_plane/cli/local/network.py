"""
A network for one mesh, on one machine: a namespace for each workload, and a hub between them.

    this machine                  hub                         each workload
    mesh-1a2b3c  10.N.0.1 ─────── bridge 10.N.0.2 ─────────── eth0 10.N.x.y
    control plane, meshctl        way out: unreachable        sidecar (1337), app; captured

The hub is a namespace, too, so that neither packet filter rules of the machine (Docker's, say) nor
its forwarding matter, and so that removing it removes every cable.  There is no way out of it: what
is no address of the mesh is unreachable, and said to be so at once.

All names begin with a mark that is made from the place of the run directory.  What an earlier run
of the same mesh has left, because it was killed, is known by it and removed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from ipaddress import IPv4Network
from pathlib import Path

from control_plane.cli.errors import CommandError
from control_plane.cli.local import namespace
from control_plane.cli.local.addresses import ADMIN_PORT, Plan, plan
from control_plane.cli.local.namespace import NamespaceError, ip
from control_plane.cli.local.plane import own_environment, own_program
from control_plane.cli.local.process import User
from control_plane.placement import Placement
from control_plane.resources.model import Service

SIDECAR = User(1337, 1337, read_all=True)
"""
Whom sidecars run as: their traffic is known by it.

They may read any file, since Python, this program and the run directory may lie where only root can
look, and write nothing but what is theirs.
"""

PROGRAMS = {"ip": "iproute2", "iptables": "iptables", "ip6tables": "iptables"}
LONGEST_NAME = 200
BRIDGE, UPLINK = "bridge", "uplink"


def mark_of(run_directory: Path) -> str:
    """Return what all names of a mesh begin with; also the name of its hub and our interface."""
    return f"mesh-{sha256(str(run_directory).encode()).hexdigest()[:6]}"


def name_of(mark: str, workload: str) -> str:
    """Return the namespace of ``namespace/name``: short where it can be, a file name always."""
    name = workload.removeprefix("default/").replace("/", ".")
    if len(name) > LONGEST_NAME:
        name = f"{name[:LONGEST_NAME]}-{sha256(name.encode()).hexdigest()[:8]}"
    return f"{mark}-{name}"


def check(effective_uid: int) -> None:
    """
    Say what is missing before anything is started.

    Raises:
        CommandError: There can be no network here.
    """
    if effective_uid != 0:
        raise CommandError(
            "--netns needs root, to make network namespaces; without it, `meshctl up` runs the "
            "same files on the loopback, as any user"
        )
    missing = {package for program, package in PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        packages = " and ".join(sorted(missing))
        raise CommandError(f"--netns needs programs of {packages}: apt install {packages}")


def app_user(environment: Mapping[str, str]) -> User | None:
    """
    Return whom apps run as: who called `sudo`; None, for us, where nobody did.

    Raises:
        CommandError: It is the sidecars' user, whose traffic is not captured.
    """
    uid, gid = environment.get("SUDO_UID", ""), environment.get("SUDO_GID", "")
    if not uid.isdigit() or not gid.isdigit() or uid == "0":
        return None
    if int(uid) == SIDECAR.uid:
        raise CommandError(f"user {uid} is the sidecars' own: apps cannot run as it with --netns")
    return User(int(uid), int(gid))


class Network:
    """
    The namespaces of one mesh, with everything in them.

    Args:
        run_directory: Of the mesh.
        app_user: Whom apps run as; None for us.

    Attributes:
        mark: See `mark_of`.
        plan: Its addresses; from `open` on.
        on_made: Hears of each namespace that was made.
    """

    def __init__(self, run_directory: Path, app_user: User | None) -> None:
        self.mark = mark_of(run_directory)
        self.app_user = app_user
        self.on_made: Callable[[str], None] = lambda _name: None
        self.plan: Plan
        self._run_directory = run_directory

    def namespace(self, workload: str) -> str:
        return name_of(self.mark, workload)

    async def open(self) -> None:
        """
        Make the hub, after removing what an earlier run has left.

        Raises:
            CommandError: It cannot be made.
        """
        await self.close()
        self.plan = plan(self._run_directory, await _taken())
        own, gateway = self.plan.own, self.plan.gateway
        await ip([f"netns add {self.mark}"])
        self.on_made(self.mark)
        await ip(
            [
                f"link add {self.mark} type veth peer name {UPLINK} netns {self.mark}",
                f"address add {own}/17 dev {self.mark}",
                f"link set {self.mark} up",
            ]
        )
        await ip(
            [
                "link set lo up",
                f"link add {BRIDGE} type bridge",
                f"link set {UPLINK} master {BRIDGE} up",
                f"address add {gateway[0]}/17 dev {BRIDGE}",
                f"address add {gateway[1]}/64 dev {BRIDGE} nodad",
                f"link set {BRIDGE} up",
            ],
            self.mark,
        )
        # A router tells senders what it knows no way to; who does not forward drops it silently.
        await _set(self.mark, {"net/ipv4/ip_forward": 1, "net/ipv6/conf/all/forwarding": 1})

    async def add(self, workload: str, placement: Placement, hosts: str) -> None:
        """
        Make a workload's namespace, connect it, capture it.

        Raises:
            NamespaceError: It cannot be made.
        """
        name = self.namespace(workload)
        cable = "v" + placement.address.partition(".")[2].replace(".", "-")
        self.tell(workload, hosts)
        await ip([f"netns add {name}"])
        self.on_made(name)
        await ip([f"link add eth0 netns {name} type veth peer name {cable} netns {self.mark}"])
        await ip([f"link set {cable} master {BRIDGE} up"], self.mark)
        await ip(
            [
                "link set lo up",
                f"address add {placement.address}/17 dev eth0",
                f"address add {placement.ipv6}/64 dev eth0 nodad",
                "link set eth0 up",
                f"route add default via {self.plan.gateway[0]}",
                f"route add ::/0 via {self.plan.gateway[1]}",
            ],
            name,
        )
        # As in a pod: any port is an app's to listen on, whoever it runs as.
        await _set(name, {"net/ipv4/ip_unprivileged_port_start": 0})
        inside = namespace.enter(name)
        await namespace.run(
            *inside, *own_program("meshproxy", "intercept"), environment=own_environment(os.environ)
        )
        # Neighbours have no business with the sidecar's administration; meshctl has.
        await namespace.run(
            *inside, "iptables", "-A", "INPUT", "-i", "eth0", "!", "-s", self.plan.own, "-p", "tcp",
            "--dport", str(ADMIN_PORT), "-j", "REJECT", "--reject-with", "tcp-reset",
        )  # fmt: skip

    def tell(self, workload: str, hosts: str) -> None:
        """Let a workload's programs know the names of the services."""
        name = self.namespace(workload)
        namespace.give_file(name, "hosts", hosts)
        if Path("/etc/resolv.conf").exists():
            namespace.give_file(name, "resolv.conf", NO_DNS)

    async def remove(self, workload: str) -> None:
        """Take a workload's namespace away, with its cable."""
        await _delete(self.namespace(workload))

    async def close(self) -> None:
        """Take everything away that bears our mark."""
        # A namespace, and a cable with it, ends some time after its name; by itself, a cable at once.
        with contextlib.suppress(NamespaceError):  # there was none
            await ip([f"link delete {self.mark}"])
        for name in namespace.named(self.mark):
            await _delete(name)
        for folder in namespace.FILES.glob(f"{self.mark}-*"):
            namespace.take_files(folder.name)


NO_DNS = (
    "# No name server: the names of the mesh are in /etc/hosts, and there is no way out of it.\n"
)


def hosts_file(
    workload_namespace: str,
    services: Iterable[Service],
    service_addresses: Mapping[str, Sequence[str]],
) -> str:
    """
    Return the /etc/hosts of a workload: every service, by the names that cluster DNS gives it.

    The bare name belongs to the workload's own namespace, as in `generate.virtual_hosts`.
    """
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    for service in services:
        name, home = service.metadata.name, service.metadata.namespace
        names = [f"{name}.{home}", f"{name}.{home}.svc", f"{name}.{home}.svc.cluster.local"]
        if home == workload_namespace:
            names.insert(0, name)
        addresses = service_addresses.get(f"{home}/{name}", ())
        lines.extend(f"{address} {' '.join(names)}" for address in addresses)
    return "\n".join([*lines, ""])


async def _set(name: str, values: Mapping[str, int]) -> None:
    """Set kernel parameters of a namespace."""
    script = "; ".join(f"echo {value} > /proc/sys/{key}" for key, value in values.items())
    await namespace.run(*namespace.enter(name), "sh", "-ec", script)


async def _delete(name: str) -> None:
    with contextlib.suppress(NamespaceError):  # somebody was faster, which is as well
        await namespace.run("ip", "netns", "delete", name)
    namespace.take_files(name)


async def _taken() -> list[IPv4Network]:
    """Return the networks that the machine has routes to, other than its way out."""
    routes = json.loads(await namespace.run("ip", "-json", "-4", "route", "show", "table", "all"))
    return [
        IPv4Network(route["dst"], strict=False) for route in routes if route["dst"] != "default"
    ]
