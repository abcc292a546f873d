"""
`meshctl certs`: who holds which certificate; replace a root; deny an identity.

    certs                     authority, proxies, revoked identities, the rotation under way
    certs rotate-root         guide the mesh to a new root, without an outage
    certs rotate-issuer       the same for the issuing certificate alone
    certs revoke IDENTITY     cut an identity off, everywhere, within seconds
    certs unrevoke IDENTITY   and let it in again

The control plane does the rotating: a command that is interrupted, or a control plane that is
restarted, loses nothing, and the same command watches on.
"""

import argparse
import difflib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from control_plane.cli.arguments import Verbs, add_context, add_output, add_watch, client_of
from control_plane.cli.client import Client, UnreachableError
from control_plane.cli.errors import NO, OK, CommandError
from control_plane.cli.output import age, fitted, moment, show, shown, table, terminal_width

Facts = dict[str, Any]
LOOK = 0.5
"""Seconds between two looks at a rotation."""
PATIENCE = 60.0
"""Seconds for which a control plane may be away, in its restart, before watching ends."""
_PATH = "/api/v1/certificates"
_HEADERS = ("PROXY", "STATE", "ISSUER", "ROOTS", "LEFT", "SERIAL", "IDENTITY")
_DETACHED = "the control plane goes on by itself; `meshctl certs` shows how far it is"


def register(verbs: "Verbs[argparse.ArgumentParser]") -> None:
    """Add the verb to the command line."""
    parser = verbs.add_parser(
        "certs",
        help="who holds which certificate; rotate a root, revoke an identity",
        description="Without a further word: authority, proxies and their certificates, revoked "
        "identities, and the rotation under way with whom it waits for.",
    )
    add_context(parser)
    add_output(parser)
    add_watch(parser)
    parser.set_defaults(run=run)
    further = parser.add_subparsers(title="further words", metavar="", required=False)
    for what, name in (("root", "rotate-root"), ("issuer", "rotate-issuer")):
        rotate = further.add_parser(
            name,
            help=f"replace the {'root' if what == 'root' else 'issuing certificate'}, guided",
            description="Begin, or watch on: all proxies are told to believe the new root; when they "
            "do, it signs; when the last certificate of the old one has ended, that is forgotten. "
            "May be interrupted at any time. Taking it back is done when it is recorded: what is "
            "still to come then is told, and watched with --wait."
            if what == "root"
            else "Begin, or watch on: a new issuing certificate under the same root signs; when the "
            "last certificate of the old one has ended, that is forgotten.",
        )
        _add_context(rotate)
        watch = rotate.add_mutually_exclusive_group()
        watch.add_argument("--no-wait", action="store_true", help="do not watch until it is over")
        watch.add_argument("--wait", action="store_true", help="watch also what --abort leaves")
        group = rotate.add_mutually_exclusive_group()
        group.add_argument("--abort", action="store_true", help="take the rotation back")
        group.add_argument(
            "--skip-away",
            action="store_true",
            help="go on without the proxies that are away; refused while one that is here lags",
        )
        rotate.set_defaults(run=_rotate, what=what)
    for name, text in (
        ("revoke", "cut an identity off: its streams and connections end, it gets no certificate"),
        ("unrevoke", "let a revoked identity in again"),
    ):
        deny = further.add_parser(name, help=text, description=text.capitalize() + ".")
        deny.add_argument("identity", metavar="IDENTITY", help="spiffe://…, as `certs` shows it")
        _add_context(deny)
        if name == "revoke":
            deny.add_argument("--reason", default="", help="for whoever looks at the list later")
        deny.set_defaults(run=_revoke if name == "revoke" else _unrevoke)


def _add_context(parser: argparse.ArgumentParser) -> None:
    # Without a default: what was said before the further word still counts.
    parser.add_argument("--context", metavar="FILE", default=argparse.SUPPRESS,
                        help="context file of the mesh")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Show the certificates, once or again and again."""
    client = client_of(arguments)
    shown(partial(_show, client, arguments.output), watch=arguments.watch)
    return OK


def _show(client: Client, output: str) -> None:
    facts = client.get(_PATH)
    show(facts, output, render(facts, time.time(), terminal_width()))


def render(facts: Facts, now: float, width: int | None = None) -> str:
    """Return tables of authority, proxies and revoked identities, and the rotation in words."""
    signs = [("issuing", facts["issuing"])] + [
        ("root" if root["signs"] else "root, believed", root) for root in facts["roots"]
    ]
    authority = [
        (role, one["subject"], moment(one["not_after"]), _left(one["not_after"], now), one["key"])
        for role, one in signs
    ]
    parts = [table(("AUTHORITY", "SUBJECT", "NOT AFTER", "LEFT", "KEY"), authority, width=width)]
    proxies = [
        (
            proxy["workload"],
            "connected" if proxy["connected"] else "away",
            "current" if proxy["of_current_issuer"] else "OLD",
            "all" if proxy["believes_all_roots"] else "LAGS" if proxy["connected"] else None,
            _left(proxy["not_after"], now),
            proxy["serial"][:12],
            proxy["identity"],
        )
        for proxy in facts["proxies"]
    ]
    parts.append(fitted(_HEADERS, proxies, width))
    if facts["revoked"]:
        revoked = [(r["identity"], moment(r["since"]), r["reason"]) for r in facts["revoked"]]
        parts.append(table(("REVOKED", "SINCE", "REASON"), revoked, width=width))
    if facts["rotation"]:
        parts.append("\n".join([progress(facts, now), *_lagging(facts["rotation"])]))
    return "\n\n".join(parts)


def progress(facts: Facts, now: float) -> str:
    """Return how far the rotation under way is, in one line."""
    rotation = facts["rotation"]
    what = {"root": "the root", "issuer": "the issuing certificate"}[rotation["what"]]
    lagging = len(rotation["lagging"])
    if rotation["phase"] == "spreading":
        told = len(facts["proxies"])
        return f"rotation of {what}, 1/3: {told - lagging} of {told} proxies believe the new root"
    left = age(max(0.0, rotation["old_ends_at"] - now))
    signs, ends = (
        ("the old one signs again", "new") if rotation["aborted"] else ("the new one signs", "old")
    )
    return f"rotation of {what}, 2/3: {signs}; the {ends} one ends in {left}, {lagging} hold it"


def _lagging(rotation: Facts) -> list[str]:
    return [f"  {lag['workload']} {lag['reason']}" for lag in rotation["lagging"]]


def _some(lags: list[str]) -> list[str]:
    return lags if len(lags) <= 3 else [*lags[:3], f"  … and {len(lags) - 3} more"]


def _left(not_after: float, now: float) -> str:
    return age(not_after - now) if not_after > now else "EXPIRED"


# A rotation ---------------------------------------------------------------------------------------


def _rotate(arguments: argparse.Namespace) -> int:
    client, what = client_of(arguments), arguments.what
    facts = client.get(_PATH)
    rotation = facts["rotation"]
    if rotation and rotation["what"] != what:
        raise CommandError(f"{progress(facts, time.time())}; let it end, or abort it")
    if (arguments.abort or arguments.skip_away) and not rotation:
        raise CommandError("no rotation is under way")
    if arguments.abort:
        facts = client.post(f"{_PATH}/rotation", {"do": "abort"})
        if not facts["rotation"]:
            print("taken back: nobody holds anything of the new one")
            return OK
        if not arguments.wait:
            lags = _some(_lagging(facts["rotation"]))
            print("\n".join([f"taken back; {progress(facts, time.time())}", *lags, _DETACHED]))
            return OK
    elif arguments.skip_away:
        facts = client.post(f"{_PATH}/rotation", {"do": "skip-away"})
    elif not rotation:
        facts = client.post(f"{_PATH}/rotation", {"do": "begin", "what": what})
    if arguments.no_wait:
        print(progress(facts, time.time()))
        return OK
    try:
        terminal = sys.stdout.isatty()
        return follow(client, _Screen() if terminal else print, countdown=terminal)
    except KeyboardInterrupt:
        print(f"\n{_DETACHED}", file=sys.stderr)
        return NO


def follow(
    client: Client,
    say: Callable[[str], None],
    *,
    countdown: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> int:
    """
    Tell how far the rotation is whenever that changes, until it is over.

    Args:
        client: Of the control plane.
        say: Takes a few lines.
        countdown: That time passes is news, too.
        sleep: Waits.
        clock: Seconds since the epoch.

    Raises:
        UnreachableError: The control plane has been away for too long.
    """
    said = ""
    away_since: float | None = None
    while True:
        try:
            facts = client.get(_PATH)
        except UnreachableError:
            away_since = away_since or clock()
            if clock() - away_since > PATIENCE:
                raise
            sleep(LOOK)
            continue
        away_since = None
        if not facts["rotation"]:
            root = next(root for root in facts["roots"] if root["signs"])
            issuing = facts["issuing"]["subject"]
            say(f"rotation over, 3/3: {issuing} under {root['subject']} signs, the other is gone")
            return OK
        lags = _lagging(facts["rotation"])
        now = "\n".join([progress(facts, clock()), *_some(lags)])
        news = now if countdown else f"{facts['rotation']['phase']} {len(lags)}"
        if news != said:
            said = news
            say(now)
        sleep(LOOK)


class _Screen:
    """A terminal: what is said takes the place of what was said last."""

    def __init__(self) -> None:
        self._lines = 0

    def __call__(self, text: str) -> None:
        if self._lines:
            print(f"\x1b[{self._lines}A\x1b[J", end="")
        width = terminal_width() or 80
        lines = [line[: width - 1] for line in text.splitlines()]
        print("\n".join(lines), flush=True)
        self._lines = len(lines)


# Revocation ---------------------------------------------------------------------------------------


def _revoke(arguments: argparse.Namespace) -> int:
    client = client_of(arguments)
    facts = client.get(_PATH)
    known = sorted({proxy["identity"] for proxy in facts["proxies"] if proxy["identity"]})
    if known and arguments.identity not in known:
        near = difflib.get_close_matches(arguments.identity, known, n=1, cutoff=0.7)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(
            f"meshctl: nobody has a certificate of {arguments.identity} now{hint}", file=sys.stderr
        )
    body = {"identity": arguments.identity, "reason": arguments.reason}
    answer = client.post(f"{_PATH}/revoke", body)
    print(f"{answer['identity']} is revoked" + ("" if answer["changed"] else " already"))
    return OK


def _unrevoke(arguments: argparse.Namespace) -> int:
    answer = client_of(arguments).post(f"{_PATH}/lift", {"identity": arguments.identity})
    if not answer["changed"]:
        raise CommandError(f"{answer['identity']} was not revoked")
    print(f"{answer['identity']} is no longer revoked")
    return OK
