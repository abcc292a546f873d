"""
Who was denied what, by the id that the caller was told: `meshctl explain ID`.

Each sidecar remembers its own denials, so all of them are asked.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from control_plane import placement
from control_plane.cli.client import Client, UnreachableError, request
from control_plane.cli.errors import OK, CommandError
from control_plane.cli.mesh import running
from control_plane.cli.output import moment, printable, show
from meshproxy.contract.wire import ContractError

AT_ONCE = 8
TIMEOUT = 2.0


def explain(client: Client, number: str, output: str) -> int:
    """
    Print what is known of a denial.

    Raises:
        CommandError: No sidecar that answers remembers it.
    """
    admins = _admins(client)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda one: (one[0], _asked(one[1], number)), admins.items()))
    silent = sorted(workload for workload, found in answers if found is None)
    denials = [
        {"workload": workload, **denial} for workload, found in answers for denial in found or ()
    ]
    if not denials:
        more = f"; {', '.join(silent)} gave no answer" if silent else ""
        raise CommandError(
            f"no sidecar remembers a denial {number}: each keeps its last thousand, until it is "
            f"restarted{more}"
        )
    mesh = running(client)
    for denial in denials:
        denial["location"] = ""
        if denial.get("policy"):
            key = f"AuthorizationPolicy/{denial['policy']}"
            denial["location"] = mesh.place(key, denial.get("rule") or None)
    data = [{**one, "at": moment(one["at"])} for one in denials]
    show(data, output, "\n\n".join(_in_words(one) for one in data))
    return OK


def _admins(client: Client) -> dict[str, str]:
    """Return the admin addresses of the sidecars, as they told them or as they were placed."""
    found: dict[str, str] = {}
    if client.context.run_dir is not None:
        try:
            placements = placement.read(Path(client.context.run_dir, "placements.json"))
        except (OSError, ContractError):
            placements = placement.Placements()
        for name, one in placements.workloads.items():
            found[name] = f"{one.address}:{one.admin_port}"
    for proxy in client.get("/api/v1/proxies"):
        if proxy.get("admin"):
            found[proxy["workload"]] = proxy["admin"]
    return found


def _asked(admin: str, number: str) -> list[dict[str, Any]] | None:
    """Return what one sidecar remembers; None where it gives no answer."""
    try:
        status, body = request(admin, "GET", f"/denials?id={number}", timeout=TIMEOUT)
        if status != 200:
            return None
        found = json.loads(body)
    except (UnreachableError, ValueError):
        return None
    listed: Iterable[Any] = found.get("denials", ()) if isinstance(found, dict) else found
    return [one for one in listed if str(one.get("id", "")).startswith(number)]


def _in_words(denial: dict[str, Any]) -> str:
    what = "a connection"
    if denial["method"]:
        what = f"{denial['method']} {denial['authority']}{denial['path']}"
    why = denial["reason"] or "no rule of the ALLOW policies matches"
    if denial["policy"]:
        place = denial["location"]
        why = f"rule {denial['rule']} of AuthorizationPolicy {denial['policy']}"
        why += place and f" ({place})"
    rows = (
        f"{denial['id']}  denied at {denial['at']} by the sidecar of {denial['workload']}",
        f"  caller: {denial['source'] or 'unknown (no certificate)'}",
        f"  asked:  {what}",
        f"  why:    {why}",
    )
    return "\n".join(map(printable, rows))
