"""
`meshctl authz check --from WHO --to WHAT`: may it, and which rule says so?

Asked of files before they are saved, or of the mesh that runs; decided by the proxy's own code.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import msgspec

from control_plane.cli import asking
from control_plane.cli.arguments import Verbs, add_context, add_output
from control_plane.cli.decision import Asked, Decision, decide
from control_plane.cli.errors import NO, OK, USAGE, CommandError
from control_plane.cli.mesh import Mesh
from control_plane.cli.names import qualified
from control_plane.cli.output import printable, show

_ACTIONS = {"allow": "ALLOW", "deny": "DENY", "audit": "AUDIT"}


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "authz",
        help="whether somebody may do something, and which rule says so",
        description="Ask the policies of authorization.",
    )
    inner = parser.add_subparsers(title="verbs", metavar="check", required=True)
    check = inner.add_parser(
        "check",
        help="judge one request, or one connection",
        description="Say whether a request would reach the app, which policy and rule decide, what "
        "was audited, and why other rules did not match. Exit code 0 it would, 1 it would not.",
    )
    check.add_argument(
        "--from",
        dest="caller",
        metavar="WHO",
        required=True,
        help="workload, SPIFFE ID (spiffe://…), or `none` for a caller without a certificate",
    )
    check.add_argument(
        "--to",
        dest="called",
        metavar="WHAT",
        required=True,
        help="service or workload, with or without :port",
    )
    asking.add_request(check, ("--method", "-X"))
    check.add_argument("--path", default="/", help="default: /")
    check.add_argument("--host", help="authority of the request (default: the name in --to)")
    check.add_argument(
        "--address", metavar="IP", type=asking.address, help="where the connection comes from"
    )
    check.add_argument(
        "--connection", action="store_true", help="judge an opaque connection, not a request"
    )
    asking.add_mesh(check)
    add_context(check)
    add_output(check, ("table", "json"))
    check.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge; return 0 where it is allowed at every server that could be reached, else 1."""
    if arguments.connection and (arguments.headers or arguments.claims):
        raise CommandError("a connection has no headers and no token", USAGE)
    mesh = asking.mesh_of(arguments)
    decisions = check(mesh, arguments)
    text = "\n\n".join("\n".join(in_words(mesh, one)) for one in decisions)
    question = _question(mesh, arguments)
    data = {
        "allowed": all(one.allowed for one in decisions),
        "asked": question,
        "decisions": [as_data(mesh, one) for one in decisions],
    }
    show(data, arguments.output, f"{question}\n\n{text}")
    return OK if data["allowed"] else NO


def check(mesh: Mesh, arguments: argparse.Namespace) -> list[Decision]:
    """Return what each server says that is meant."""
    identity = asking.caller(mesh, arguments.caller)
    servers = mesh.servers(arguments.called)
    request = None
    if not arguments.connection:
        host = arguments.host or _host(arguments.called)
        request = asking.head(arguments.method, host, arguments.path, arguments.headers)
    asked = Asked(
        identity=identity,
        address=arguments.address,
        head=request,
        claims=asking.claims(arguments.claims),
    )
    return [decide(mesh.snapshot(server.workload), server, asked) for server in servers]


def _host(typed: str) -> str:
    """Return the name by which an app would call it."""
    name, colon, port = typed.partition(":")
    namespace, _, name = qualified(name).partition("/")
    short = name if namespace == "default" else f"{name}.{namespace}"
    return f"{short}{colon}{port}"


def _question(mesh: Mesh, arguments: argparse.Namespace) -> str:
    who = asking.caller(mesh, arguments.caller) or "nobody"
    what = "a connection"
    if not arguments.connection:
        what = f"{arguments.method} {arguments.path}"
    return printable(f"{who} → {arguments.called}: {what}")


# In words -------------------------------------------------------------------------------------------


def in_words(mesh: Mesh, decision: Decision, *, reasons: bool = True) -> Iterator[str]:
    """Yield the lines that tell a decision."""
    verdict = "allowed" if decision.allowed else "DENIED"
    where = f"{decision.workload}:{decision.port}"
    yield printable(f"{where}  {verdict}: {_because(mesh, decision)}")
    yield f"  mTLS of the port: {decision.mtls.upper()}"
    for policy in decision.audited:
        yield printable(f"  audited by {_policy(mesh, policy)}: would have been denied")
    for note in decision.notes:
        yield printable(f"  note: {note}")
    if reasons and decision.unmatched:
        yield "  did not match:"
        for one in decision.unmatched:
            rule = f" rule {one.rule}" if one.rule else ""
            place = mesh.place(_key(one.policy), one.rule or None)
            yield printable(
                f"    {_ACTIONS[one.action]} {one.policy}{rule}{place and f' ({place})'}: {one.why}"
            )


def as_data(mesh: Mesh, decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON has it."""
    data: dict[str, Any] = msgspec.to_builtins(decision)
    data["reason"] = _because(mesh, decision)
    data["location"] = mesh.place(_key(decision.policy), decision.rule) if decision.policy else ""
    for one in data["unmatched"]:
        one["location"] = mesh.place(_key(one["policy"]), one["rule"] or None)
    return data


def _because(mesh: Mesh, decision: Decision) -> str:
    match decision.by:
        case "rule":
            return f"rule {decision.rule} of {_policy(mesh, decision.policy, decision.rule)}"
        case "no-policy":
            return "no ALLOW policy selects this workload, and no DENY rule matches"
        case "no-rule":
            return "ALLOW policies select this workload, and none of their rules matches"
        case "mtls":
            return "the port takes no plaintext (mTLS STRICT), and the caller has no certificate"
        case "revoked":
            return "the identity has been revoked"
        case "token":
            return "the token is of an issuer that this workload does not believe (401)"


def _policy(mesh: Mesh, name: str, rule: str | None = None) -> str:
    place = mesh.place(_key(name), rule)
    return f"AuthorizationPolicy {name}{place and f' ({place})'}"


def _key(policy: str) -> str:
    return f"AuthorizationPolicy/{policy}"
