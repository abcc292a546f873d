"""`mesh-control-plane`: arguments, event loop, signals."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from pathlib import Path

import uvloop

from meshproxy import __version__
from meshproxy.confinement import confine, warning_of_root
from meshproxy.interpreter import SAID, advice
from meshproxy.one_line import log_to_standard_error

from . import config
from .plane import Plane, StartError

_EPILOG = """\
The configuration is a JSON or YAML file; paths in it are relative to the file:

  state: state                 directory for authority, tokens and what was accepted last
  files: [mesh.yaml, routes/]  files and folders of resources; changes apply within a second
  placements: placements.json  where workloads run (written by `meshctl up`); may be left out
  discovery: {address: 127.0.0.1, port: 15012}
  api: {address: 127.0.0.1, port: 15014}
  log_level: info              debug, info, warning or error
  authority: {root: root.pem, certificate: issuing.pem, key: issuing.key}   your own root, if any
  kubernetes: {}               service account tokens are proof of identity; asks the API server

  access: {tls: true, operators: [spiffe://…], viewers: [spiffe://…]}       of the API

The API needs a token: state/operator.token acts, state/viewer.token looks; both are made at first
start.  docs/security.md has the rest.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return its exit code: 0 stopped by a signal, 1 cannot run, 2 usage."""
    parser = argparse.ArgumentParser(
        prog="mesh-control-plane",
        description="The control plane of a mesh: certificates and configuration for its sidecars.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="run")
    run = verbs.add_parser("run", help="run until SIGTERM or SIGINT")
    run.add_argument("--config", type=Path, required=True, metavar="FILE")
    run.add_argument(
        "--allow-root", action="store_true", help="do not warn of running as root; it is meant"
    )
    options = parser.parse_args(arguments)
    if arguments is None:  # a process of our own, which may give things up
        confine()
    try:
        settings = config.read(options.config)
        log_to_standard_error(settings.log_level)
        if not options.allow_root and (warning := warning_of_root()):
            logging.getLogger("control_plane").warning(warning)
        # It reports every change of a file, also of those in the state directory.
        logging.getLogger("watchfiles").setLevel(logging.WARNING)
        if SAID not in os.environ and (warning := advice(sys.version_info[:3])):
            logging.getLogger("control_plane").warning(warning)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings))
    except (config.ConfigError, StartError) as error:
        logging.shutdown()  # what was logged comes first
        print(f"mesh-control-plane: {error}", file=sys.stderr)
        return 1
    return 0


async def _run(settings: config.Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Plane(settings).run(stop)


if __name__ == "__main__":
    sys.exit(main())
