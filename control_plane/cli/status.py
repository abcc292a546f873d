"""
`meshctl status`: is the mesh well, and if not, what is to be mended.

Exit code 1 when a file has a finding, when a proxy refused its configuration or is gone, or when a
process of a local mesh ends again and again or does not listen where it should.  A proxy that is
STALE is being told at this moment; that alone is no trouble.  A warning is none either.  A workload
whose identity has been revoked is trouble until it has another one, or is gone.
"""

import argparse
import time
from typing import Any

import msgspec

from control_plane.cli import processes
from control_plane.cli.arguments import Verbs, add_context, add_output, client_of
from control_plane.cli.errors import NO, OK
from control_plane.cli.output import age, printable, show
from control_plane.resources.finding import Finding

TROUBLED = ("REFUSED", "DISCONNECTED", "REVOKED")


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "status",
        help="is the mesh well, and what is to be mended",
        description="Show the control plane, its resources and proxies, and every finding until "
        "it is mended. Exit code 1 when there is something to mend.",
    )
    add_context(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show the state of the mesh."""
    client = client_of(arguments)
    status, report = client.get("/api/v1/status"), processes.of(client.context)
    now = time.time()
    problems = [problem for one in report.processes if (problem := one.problem(now))]
    data = {
        **status,
        "processes": msgspec.to_builtins(report.processes),
        "problems": problems,
        "warnings": list(report.warnings),
    }
    text = render(status, client.address, report, problems, now)
    show(data, arguments.output, text)
    return NO if problems or is_troubled(status) else OK


def render(
    status: dict[str, Any],
    address: str,
    report: processes.Report,
    problems: list[str],
    now: float,
) -> str:
    """Return the status as text."""
    resources = ", ".join(f"{count} {kind}" for kind, count in status["resources"].items())
    proxies = ", ".join(f"{count} {state}" for state, count in status["proxies"].items() if count)
    up = age(status.get("uptime_seconds"))
    lines = [
        f"control plane   {address}   build {status.get('build') or '-'}   up {up}",
        f"trust domain    {status['trust_domain']}",
        f"revision        {status['revision']}",
        f"resources       {resources or 'none'}",
        f"proxies         {proxies or 'none'}",
    ]
    if report.processes:
        count = len(report.processes)
        lines.append(
            f"processes       {count}, {f'{len(problems)} in trouble' if problems else 'all well'}"
        )
        lines.extend(f"  {printable(problem)}" for problem in problems)
    revoked = status.get("revoked", [])
    if revoked:
        lines.append(f"revoked         {len(revoked)}")
        lines.extend(printable(f"  {_revoked(one, now)}") for one in revoked)
    findings = msgspec.convert(status["findings"], list[Finding])
    lines.append(f"findings        {len(findings) or 'none'}")
    for finding in findings:
        what = "unresolved: " if finding.severity == "unresolved" else ""
        lines.append(printable(f"  {what}{finding}"))
    if report.warnings:
        lines.append(f"warnings        {len(report.warnings)}")
        lines.extend(f"  {printable(warning)}" for warning in report.warnings)
    return "\n".join(lines)


def _revoked(one: dict[str, Any], now: float) -> str:
    """Say which identity is cut off, since when, why, and who is so with it."""
    why = f": {one['reason']}" if one["reason"] else ""
    who = ", ".join(one["workloads"]) or "no workload"
    return f"{one['identity']} for {age(now - one['since'])}{why} ({who})"


def is_troubled(status: dict[str, Any]) -> bool:
    """Say whether something is to be mended."""
    return bool(status["findings"]) or any(status["proxies"].get(state) for state in TROUBLED)
