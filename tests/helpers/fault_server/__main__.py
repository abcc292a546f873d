"""The process: `python -m tests.helpers.fault_server --port 8080`."""

import argparse

import uvloop

from .control import Server

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(Server(parser.parse_args().port).run())
