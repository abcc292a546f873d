"""The process: `python -m tests.helpers.fault_server --ports 8080 8081 8082`."""

import argparse

import uvloop

from .control import Server

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ports", type=int, nargs=3, required=True)
    uvloop.run(Server(parser.parse_args().ports).run())
