"""
`meshctl`: the hand of whoever runs a mesh.

One file per verb beside this one.  Exit codes: 0 it is so, 1 the answer is no (not valid, not
healthy, not there), 2 the command line is wrong or leads to no mesh.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence

from control_plane.cli import (
    authz,
    certs,
    config,
    demo,
    explain,
    plaintext,
    proxies,
    stat,
    status,
    token,
    up,
)
from control_plane.cli.arguments import Verbs, add_files, add_output
from control_plane.cli.errors import OK, USAGE, CommandError
from meshproxy import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    parser = build_parser()
    try:
        _check_verb(words, parser)
        arguments = parser.parse_args(words)
        code = int(arguments.run(arguments))
        sys.stdout.flush()
        return code
    except CommandError as error:
        print(f"meshctl: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130  # what a shell answers for a program that Ctrl-C ended
    except BrokenPipeError:
        # `meshctl … | head` has seen enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _open_standard_streams() -> None:
    """Give a program that was started with closed streams (``>&-``) others, which lead nowhere."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115, PTH123 (for as long as we live)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="meshctl",
        description="Run and inspect a service mesh.",
        epilog="`meshctl VERB --help` explains a verb. Exit codes: 0 ok, 1 the answer is no, 2 usage.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"meshctl {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    demo.register(verbs)
    up.register(verbs)
    _register_validate(verbs)
    status.register(verbs)
    proxies.register(verbs)
    config.register(verbs)
    stat.register(verbs)
    authz.register(verbs)
    explain.register(verbs)
    plaintext.register(verbs)
    token.register(verbs)
    certs.register(verbs)
    return parser


def _register_validate(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    parser = verbs.add_parser(
        "validate",
        help="check files, without a running mesh",
        description="Report everything that is wrong with files, one line per finding; needs no "
        "running mesh. Exit code 1 when something is.",
    )
    add_files(parser)
    add_output(parser, ("table", "json"))
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace) -> int:
    from control_plane.cli import validate

    return validate.run(arguments.files, arguments.output)


def _check_verb(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Name the verb that was meant, where argparse would list them all."""
    if not words or words[0].startswith("-"):
        return
    known = next(
        list(action.choices)
        for action in parser._actions  # noqa: SLF001 (argparse has no other way to ask)
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )
    if words[0] in known:
        return
    near = difflib.get_close_matches(words[0], known, n=2)
    if near:
        meant = f"did you mean {' or '.join(f'`{verb}`' for verb in near)}?"
    else:
        meant = f"the verbs are {', '.join(known)}"
    raise CommandError(f"unknown verb {words[0]!r}; {meant}", USAGE)


if __name__ == "__main__":
    sys.exit(main())
