"""
`meshctl token WORKLOAD`: a one-time join token, with which a sidecar gets its first certificate.

The token alone goes to standard output, so that it can be redirected into the file that the
sidecar's bootstrap names; what it is good for goes to standard error.
"""

import argparse
import sys

from control_plane.cli.arguments import Verbs, add_context, add_output, client_of
from control_plane.cli.errors import OK
from control_plane.cli.names import qualified
from control_plane.cli.output import moment, show


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "token",
        help="a join token for a sidecar's first certificate",
        description="Issue a one-time join token, bound to the identity of one workload.",
    )
    parser.add_argument("workload", metavar="WORKLOAD", help="name or namespace/name")
    add_context(parser)
    add_output(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Issue a token."""
    workload = qualified(arguments.workload)
    answer = client_of(arguments).post("/api/v1/tokens", {"workload": workload})
    until = moment(answer["expires_at"])
    print(f"join token for {answer['identity']}, good once, until {until}", file=sys.stderr)
    show(answer, arguments.output, str(answer["token"]))
    return OK
