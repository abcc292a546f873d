"""
`meshctl proxies`: who runs which configuration.

SYNCED: it obeys the newest.  STALE: the newest is on its way.  REFUSED: it would not take the
newest, says why, and goes on with the one before.  DISCONNECTED: it is not there; if it lives, it
serves with what it has.  REVOKED: nobody speaks with it, because its identity has been revoked.  APP is the process beside it, where `meshctl up` runs that.
"""

import argparse
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from control_plane.cli import processes
from control_plane.cli.arguments import (
    Verbs,
    add_context,
    add_output,
    add_watch,
    client_of,
)
from control_plane.cli.client import Client
from control_plane.cli.errors import OK
from control_plane.cli.output import age, fitted, printable, show, shown, table, terminal_width

HEADERS = ("PROXY", "STATE", "APP", "VERSION", "LAST ACK", "CERTIFICATE", "ADMIN", "IDENTITY")
WIDE = (
    "PROXY", "STATE", "APP", "SENT", "ACKNOWLEDGED", "LAST ACK", "CERTIFICATE", "BUILD", "ADMIN",
    "IDENTITY", "REASON",
)  # fmt: skip


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "proxies",
        help="who runs which configuration",
        description="List the proxies: SYNCED, STALE (the newest configuration is on its way), "
        "REFUSED (with the reason), DISCONNECTED, REVOKED (its identity has been).",
    )
    add_context(parser)
    add_output(parser, ("table", "wide", "json", "yaml"))
    add_watch(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the proxies, once or again and again."""
    client = client_of(arguments)
    shown(partial(_show, client, arguments.output), watch=arguments.watch)
    return OK


def _show(client: Client, output: str) -> None:
    proxies, report, now = client.get("/api/v1/proxies"), processes.of(client.context), time.time()
    apps = {one.workload: one for one in report.processes if one.role == "app"}
    words = {name: app.word(now) for name, app in apps.items()}
    if output == "wide":
        text = wide(proxies, words, now)
    else:
        text = render(proxies, words, now, terminal_width())
        problems = [problem for one in report.processes if (problem := one.problem(now))]
        text = "\n".join([text, *([""] if problems else []), *problems])
    data = [{**proxy, "app": words.get(proxy["workload"])} for proxy in proxies]
    show(data, output, text)


def render(
    proxies: list[dict[str, Any]],
    apps: Mapping[str, str],
    now: float,
    width: int | None = None,
) -> str:
    """Return the proxies as a table, and below it why who does not obey."""
    rows = [
        (
            proxy["workload"],
            proxy["state"],
            apps.get(proxy["workload"]),
            proxy.get("acked_version"),
            age(proxy.get("last_ack_age_seconds")),
            _life(proxy.get("certificate_not_after"), now),
            proxy.get("admin"),
            proxy.get("identity"),
        )
        for proxy in proxies
    ]
    reasons = [
        f"{proxy['workload']} {proxy['state']}: {reason}"
        for proxy in proxies
        if proxy["state"] != "SYNCED" and (reason := _reason(proxy))
    ]
    return "\n".join([fitted(HEADERS, rows, width), *([""] if reasons else []), *reasons])


def wide(proxies: list[dict[str, Any]], apps: Mapping[str, str], now: float) -> str:
    """Return all that is known, a line for each proxy, however long."""
    rows = [
        (
            proxy["workload"],
            proxy["state"],
            apps.get(proxy["workload"]),
            proxy.get("sent_version"),
            proxy.get("acked_version"),
            age(proxy.get("last_ack_age_seconds")),
            _life(proxy.get("certificate_not_after"), now),
            proxy.get("build"),
            proxy.get("admin"),
            proxy.get("identity"),
            _reason(proxy),
        )
        for proxy in proxies
    ]
    return table(WIDE, rows)


def _reason(proxy: dict[str, Any]) -> str:
    return printable(": ".join(filter(None, (proxy.get("path"), proxy.get("reason")))))


def _life(not_after: float | None, now: float) -> str:
    if not_after is None:
        return "-"
    return age(not_after - now) if not_after > now else "EXPIRED"
