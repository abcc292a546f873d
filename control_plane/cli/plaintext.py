"""
`meshctl plaintext`: who still calls without mutual TLS, and would be refused by STRICT.

The sidecars count connections that prove nothing, where mutual TLS is possible, by port and by the
address that they come from: of who proves nothing, that is all that is known.  OPEN are open now, NEW
came while the verb looked; as long as there is one of either, STRICT would refuse somebody.  BEFORE
came earlier, since the sidecar began, and REFUSED were refused since then, where a port is STRICT.
"""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from control_plane.cli.arguments import (
    Verbs,
    add_context,
    add_output,
    client_of,
    duration,
)
from control_plane.cli.errors import NO, OK
from control_plane.cli.names import resolved
from control_plane.cli.output import fitted, show, terminal_width
from control_plane.cli.scrape import scrape
from control_plane.cli.traffic import PLAINTEXT_CONNECTIONS, PLAINTEXT_OPEN, Counters

HEADERS = ("WORKLOAD", "PORT", "CLIENT", "OPEN", "NEW", "BEFORE", "REFUSED")
WINDOW = 2.0


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "plaintext",
        help="who calls without mutual TLS: is STRICT safe?",
        description="List the clients that call without mutual TLS. Exit code 0 when there are none, "
        "so that STRICT would refuse nobody; 1 when there are.",
    )
    parser.add_argument(
        "workload",
        nargs="?",
        metavar="WORKLOAD",
        help="only this one: name or namespace/name (default: all)",
    )
    parser.add_argument(
        "--window",
        metavar="DURATION",
        type=duration,
        default=WINDOW,
        help="how long to look for new connections (default: 2s)",
    )
    add_context(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look twice, and say who is there."""
    proxies = client_of(arguments).get("/api/v1/proxies")
    if arguments.workload is not None:
        name = resolved(arguments.workload, [proxy["workload"] for proxy in proxies])
        proxies = [proxy for proxy in proxies if proxy["workload"] == name]
    admins = {proxy["admin"]: proxy["workload"] for proxy in proxies if proxy.get("admin")}
    before = scrape(admins)
    time.sleep(arguments.window)
    after = scrape(admins)
    silent = sorted(
        {proxy["workload"] for proxy in proxies}
        - {admins[admin] for admin in before.keys() & after}
    )
    rows = records(admins, before, after)
    safe = not silent and not any(row["open"] or row["new"] for row in rows)
    text = render(rows, silent, terminal_width(), safe=safe)
    show({"safe": safe, "unknown": silent, "clients": rows}, arguments.output, text)
    return OK if safe else NO


def records(
    admins: Mapping[str, str], before: Mapping[str, Counters], after: Mapping[str, Counters]
) -> list[dict[str, Any]]:
    """Return one record for each workload, port and client; those of today first."""
    rows = []
    for admin in before.keys() & after:
        then, now = _by_client(before[admin]), _by_client(after[admin])
        for (port, client), counts in now.items():
            accepted, old = counts["accepted"], then.get((port, client), _NONE)["accepted"]
            if old > accepted:  # it has restarted, and counts from zero
                old = 0
            rows.append(
                {
                    "workload": admins[admin],
                    "port": port,
                    "client": client,
                    "open": counts["open"],
                    "new": accepted - old,
                    "before": old,
                    "refused": counts["refused"],
                }
            )
    return sorted(
        rows,
        key=lambda row: (
            not (row["open"] or row["new"]), row["workload"], row["port"], row["client"],
        ),
    )  # fmt: skip


_NONE: Mapping[str, int] = {"accepted": 0, "refused": 0, "open": 0}


def _by_client(counters: Counters) -> dict[tuple[str, str], dict[str, int]]:
    found: dict[tuple[str, str], dict[str, int]] = {}
    for (name, pairs), value in counters.items():
        if name not in (PLAINTEXT_CONNECTIONS, PLAINTEXT_OPEN):
            continue
        labels = dict(pairs)
        counts = found.setdefault((labels["port"], labels["client"]), dict(_NONE))
        counts[labels.get("verdict", "open")] += int(value)
    return found


def render(
    rows: list[dict[str, Any]], silent: list[str], width: int | None = None, *, safe: bool
) -> str:
    """Return the table, and what it means."""
    lines = []
    if rows:
        columns = ("workload", "port", "client", "open", "new", "before", "refused")
        lines += [
            fitted(HEADERS, [tuple(row[name] for name in columns) for row in rows], width),
            "",
        ]
    if silent:
        lines.append(f"no answer from {', '.join(silent)}: nobody knows who calls there")
    if safe:
        lines.append("STRICT would refuse nobody: no plaintext now")
    elif any(row["open"] or row["new"] for row in rows):
        lines.append("STRICT would refuse those with OPEN or NEW connections")
    return "\n".join(lines)
