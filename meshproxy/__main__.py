"""`meshproxy`: the sidecar's command line."""

import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meshproxy import __version__, descriptors, malloc
from meshproxy.confinement import confine, warning_of_root
from meshproxy.interpreter import SAID, advice, import_argparse, import_msgspec
from meshproxy.one_line import log_to_standard_error, one_line

if TYPE_CHECKING:
    import argparse

    from meshproxy.proxy import Takeover

LEVELS = ("debug", "info", "warning", "error")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (it did not work) or 2 (usage)."""
    # Imports make many objects and no garbage: a collector that looks at them every 700 allocations
    # takes a tenth of the start.  Hence, too, what is large is imported below, not above.
    gc.set_threshold(50_000, 50, 1_000)
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["intercept"]:  # it has options of its own, and a sidecar needs none of it
        from meshproxy.interception import command

        sys.exit(command.main(words[1:]))
    options = parser.parse_args(words)
    if options.verb == "worker":
        if arguments is None:  # a process of our own, which may give things up
            confine(keep=(options.channel,))
        log_to_standard_error(options.log_level, f"worker {options.number} ")
        sys.exit(_work(options.channel))
    if arguments is None:
        confine()
    log_to_standard_error(options.log_level)
    if not options.allow_root and (warning := warning_of_root()):
        logging.getLogger("meshproxy").warning(warning)
    sys.exit(_run(options.bootstrap, options.takeover, options.workers))


def _parser() -> "argparse.ArgumentParser":
    import_argparse()
    import argparse

    class Help(argparse.HelpFormatter):
        """As wide as the terminal.  To learn that, argparse would load `shutil` and three compressions."""

        def __init__(self, prog: str) -> None:
            asked = os.environ.get("COLUMNS", "")
            try:
                columns = int(asked) if asked.isdecimal() else os.get_terminal_size().columns
            except OSError:  # no terminal
                columns = 80
            super().__init__(prog, width=columns - 2)

    parser = argparse.ArgumentParser(
        prog="meshproxy", description="A readable sidecar proxy.", formatter_class=Help
    )
    parser.add_argument("--version", action="version", version=f"meshproxy {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = verbs.add_parser(
        "run",
        formatter_class=Help,
        help="run a sidecar until SIGTERM or SIGINT",
        description="Run a sidecar. SIGTERM or SIGINT drains it: requests under way finish, then it"
        " ends with 0; a second signal ends it at once. Start another one with the same state"
        " directory, and it takes over without a refused connection (hot restart).",
    )
    run.add_argument(
        "--bootstrap",
        type=Path,
        required=True,
        metavar="FILE",
        help="who it is, and where its configuration comes from; JSON or YAML"
        " (an example: configs/static/bootstrap.yaml)",
    )
    run.add_argument("--log-level", default="info", choices=LEVELS, help="default: info")
    run.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that serve traffic; counts more than the bootstrap's `workers` (default 1)",
    )
    run.add_argument(
        "--takeover",
        default="auto",
        choices=("auto", "require", "never"),
        help="hot restart: take over from the sidecar that serves with the same state directory, if"
        " there is one (auto, the default); fail without one (require); do not (never)",
    )
    run.add_argument(
        "--allow-root", action="store_true", help="do not warn of running as root; it is meant"
    )
    worker = verbs.add_parser(
        "worker", formatter_class=Help
    )  # no help: a parent starts it, nobody else
    worker.add_argument("--channel", type=int, required=True)
    worker.add_argument("--number", type=int, required=True)
    worker.add_argument("--log-level", default="info", choices=LEVELS)
    verbs.add_parser(
        "intercept", formatter_class=Help, help="capture the traffic of an app, or let it go"
    )
    return parser


def _work(channel: int) -> int:
    malloc.tune()
    import_msgspec()
    import uvloop

    from meshproxy.lifecycle.channel import ChannelError
    from meshproxy.lifecycle.worker import work

    try:
        uvloop.run(work(channel))
    except ChannelError as error:
        logging.getLogger("meshproxy").error("%s", error)
        return 1
    return 0


def _run(path: Path, takeover: "Takeover", workers: int | None) -> int:
    import_msgspec()
    from meshproxy.config.bootstrap import BootstrapError, read, with_workers

    try:
        bootstrap = read(path.absolute())  # so that messages name the folder, too
        if workers is not None:
            bootstrap = with_workers(bootstrap, workers)
    except BootstrapError as error:
        return _said(error, 2)
    if SAID not in os.environ and (warning := advice(sys.version_info[:3])):
        logging.getLogger("meshproxy").warning(warning)
    malloc.tune()
    descriptors.set_aside()
    import asyncio

    import uvloop

    from meshproxy.contract.wire import ContractError
    from meshproxy.identity.x509 import CertificateError
    from meshproxy.lifecycle.takeover import TakeoverError
    from meshproxy.proxy import Proxy

    async def serve() -> None:
        proxy = Proxy(bootstrap, takeover)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, proxy.finished.set)
        starting = loop.create_task(proxy.start())
        finished = loop.create_task(proxy.finished.wait())
        try:
            # A start may wait for long (for workers, for its turn to take over): it can be ended.
            await asyncio.wait((starting, finished), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return
            await starting
            await finished
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, proxy.hurry)
            await proxy.drain()
        finally:
            starting.cancel()
            finished.cancel()
            await asyncio.gather(starting, finished, return_exceptions=True)
            await proxy.stop()

    try:
        uvloop.run(serve())
    except (ContractError, CertificateError, TakeoverError, OSError) as error:
        return _said(error, 1)
    return 0


def _said(error: Exception, code: int) -> int:
    """Say why we end, after everything that has been logged."""
    logging.shutdown()
    print(f"meshproxy: {one_line(str(error))}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
