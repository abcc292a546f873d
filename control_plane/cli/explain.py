"""
`meshctl explain`: what would happen to a request, step by step; or why one was denied.

    meshctl explain --from storefront http://catalog/items      step by step, by the proxies' own tables
    meshctl explain 4f0c2a9be31d7a58                            the id that a denied caller was told
"""

import argparse
import re
from collections.abc import Iterator
from typing import Any

from control_plane.cli import asking, denial, policies, steps
from control_plane.cli.arguments import Verbs, add_context, add_output, client_of
from control_plane.cli.authz import as_data, in_words
from control_plane.cli.errors import NO, OK, USAGE, CommandError
from control_plane.cli.mesh import Mesh
from control_plane.cli.output import printable, show, terminal_width
from control_plane.cli.steps import Steps, Target

_ID = re.compile(r"[0-9a-f]{4,16}")


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "explain",
        help="what would happen to a request; or why one was denied",
        description="Tell step by step what would happen to a request: which route, which servers, "
        "what they allow, which policies hold. With an id instead of a URL: why a request was denied.",
    )
    parser.add_argument(
        "what", metavar="URL|ID", help="such as http://catalog/items, tcp://db:5432, or an id"
    )
    parser.add_argument(
        "--from", dest="caller", metavar="WORKLOAD", help="whose app asks; needed with a URL"
    )
    asking.add_request(parser, ("-X", "--method"))
    asking.add_mesh(parser)
    add_context(parser)
    add_output(parser, ("table", "json"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Explain; return 0 where the request could reach an app, or the id was found, else 1."""
    if _ID.fullmatch(arguments.what):
        if arguments.files:
            raise CommandError("files know of no denials: an id needs the running mesh", USAGE)
        return denial.explain(client_of(arguments), arguments.what, arguments.output)
    if arguments.caller is None:
        raise CommandError(
            f"say whose app asks for {arguments.what}: --from WORKLOAD (`meshctl proxies` has them)",
            USAGE,
        )
    target = Target.parse(arguments.what)
    mesh = asking.mesh_of(arguments)
    caller = mesh.workload(arguments.caller)
    head = None
    if target.scheme == "http":
        head = asking.head(arguments.method, target.authority, target.path, arguments.headers)
    found = steps.follow(mesh, caller, target, head, asking.claims(arguments.claims))
    show(_data(mesh, found), arguments.output, "\n".join(_in_words(mesh, found)))
    return OK if found.answered else NO


def _data(mesh: Mesh, found: Steps) -> dict[str, Any]:
    return {
        "from": found.caller,
        "authority": found.authority,
        "virtual_host": found.virtual_host,
        "tcp_route": found.tcp_route,
        "route": found.route and found.route.name,
        "location": mesh.place(steps.key_of(found.route.name)) if found.route else "",
        "passed_over": [
            {"route": one.route, "match": one.match, "why": one.why} for one in found.passed_over
        ],
        "result": found.result,
        "seen_by_app": found.seen,
        "backends": [
            {
                "cluster": one.cluster,
                "share": one.share,
                "endpoints": [
                    {
                        "address": f"{server.endpoint.address}:{server.endpoint.port}",
                        "workload": server.endpoint.workload,
                        "weight": server.endpoint.weight,
                        "authorization": server.decision and as_data(mesh, server.decision),
                    }
                    for server in one.servers
                ],
            }
            for one in found.backends
        ],
        "policies": policies.data(found.part),
    }


def _in_words(mesh: Mesh, found: Steps) -> list[str]:
    lines = [f"{found.caller} asks for {found.asked}", "", *_routing(mesh, found)]
    if found.result:
        lines += ["", f"→ {found.result}"]
    if found.backends:
        lines += ["", *_servers(found)]
    if found.decisions:
        lines += ["", "4. authorization there"]
    for decision in found.decisions:
        words = in_words(mesh, decision, reasons=not decision.allowed)
        lines += [f"   {line}" for line in words]
    if found.backends:
        width = terminal_width()
        table = policies.as_table(found.part, None if width is None else width - 3)
        lines += ["", "5. policies: the defaults, then what differs"]
        lines += [f"   {line}" for line in table.splitlines()]
    return [printable(line) for line in lines]


def _routing(mesh: Mesh, found: Steps) -> Iterator[str]:
    known = found.virtual_host or found.tcp_route
    kind = "virtual host" if found.virtual_host else "opaque TCP of"
    yield f"1. {found.authority} is " + (f"{kind} {known}" if known else "nobody's")
    if found.route is not None:
        place = mesh.place(steps.key_of(found.route.name))
        yield ""
        yield f"2. route {found.route.name}{place and f' ({place})'}"
        yield f"   matches: {found.route.match}"
    elif known:
        yield ""
        yield "2. no route matches"
    for one in found.passed_over[: steps.SHOWN]:
        yield f"   not {one.route} [{one.match}]: {one.why}"
    if len(found.passed_over) > steps.SHOWN:
        yield f"   nor {len(found.passed_over) - steps.SHOWN} more before it (-o json)"


def _servers(found: Steps) -> Iterator[str]:
    yield "3. servers" + (f", which see {found.seen}" if found.seen else "")
    for backend in found.backends:
        yield f"   {backend.share} {backend.cluster or '(unresolved: 500)'}"
        for server in backend.servers:
            one = server.endpoint
            yield f"     {one.address}:{one.port} {one.workload} weight {one.weight}"
        if backend.cluster and not backend.servers:
            yield "     no endpoint: 503 no-healthy-endpoint"
