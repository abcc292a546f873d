"""Pieces of command lines that several verbs share."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from control_plane.cli.client import Client
from control_plane.cli.context import Context, find
from control_plane.resources.duration import milliseconds

Verbs = argparse._SubParsersAction  # noqa: SLF001 (argparse names the type of its own answer so)


def duration(text: str) -> float:
    """Return the seconds of ``1m30s``, written as in the files."""
    try:
        return milliseconds(text) / 1000
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def existing(text: str) -> Path:
    """Return the path of a file or folder that is there."""
    path = Path(text)
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def add_files(parser: argparse.ArgumentParser) -> None:
    """``-f PATH``, as often as wanted; fills `files`."""
    parser.add_argument(
        "-f",
        "--filename",
        dest="files",
        metavar="PATH",
        action="append",
        type=existing,
        required=True,
        help="YAML file, or folder with YAML files; may be given several times",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of the verbs that run a local mesh; fills `seconds` and `run_dir`."""
    parser.add_argument(
        "--for",
        dest="seconds",
        metavar="DURATION",
        type=duration,
        help="stop by itself after this time, such as 20s (default: on Ctrl-C)",
    )
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="where state, logs and the context file go (default: $MESH_RUN_DIR, else .mesh)",
    )


def add_context(parser: argparse.ArgumentParser) -> None:
    """``--context FILE``, for the verbs that ask a running mesh."""
    parser.add_argument(
        "--context",
        metavar="FILE",
        help="context file of the mesh (default: $MESHCTL_CONTEXT, else the nearest "
        ".mesh/context.json, else ~/.config/meshproxy/context.json)",
    )


def add_output(
    parser: argparse.ArgumentParser, formats: Sequence[str] = ("table", "json", "yaml")
) -> None:
    """``-o table|json|yaml``; fills `output`."""
    parser.add_argument(
        "-o", "--output", choices=formats, default="table", help="format (default: table)"
    )


def add_watch(parser: argparse.ArgumentParser) -> None:
    """``--watch``; fills `watch`."""
    parser.add_argument(
        "-w", "--watch", action="store_true", help="show it again and again, until Ctrl-C"
    )


def context_of(arguments: argparse.Namespace) -> Context:
    """Return the context that the command line and the environment lead to."""
    return find(arguments.context, os.environ, Path.cwd(), Path.home())


def client_of(arguments: argparse.Namespace) -> Client:
    """Return a client of the mesh that the command line and the environment lead to."""
    return Client(context_of(arguments))
