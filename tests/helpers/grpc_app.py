"""
A gRPC app for meshes under test: every method of every service answers with the app's name.

Messages are bytes; `/shop.Books/Unknown` is UNIMPLEMENTED by the app itself, which says its name.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

NAME = os.environ.get("NAME", "?")


class App(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            self._unknown if details.method.endswith("/Unknown") else self._answer
        )

    def _answer(self, _request: bytes, _context: Any) -> bytes:
        return NAME.encode()

    def _unknown(self, _request: bytes, context: Any) -> None:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, NAME)


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(8), handlers=(App(),))
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()
