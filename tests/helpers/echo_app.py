"""
An app for the workloads of `configs/reference`: on each port, it says its name and what it was asked.

    http    JSON of the request: name, method, path, headers
    grpc    the app's name, whatever the method; health: SERVING
    sql     the app's name in a line, then bytes as they come
    tls     as http, over TLS of its own: the certificate in $CERT, its key in $KEY
"""

import json
import os
import socketserver
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc

NAME = os.environ["MESH_WORKLOAD"]


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = json.dumps(
            {
                "name": NAME,
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  # the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True


class Lines(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(NAME.encode() + b"\n")
        while data := self.rfile.readline():
            self.wfile.write(data)


class Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # no types
    def service(self, details: Any) -> Any:
        healthy = details.method == "/grpc.health.v1.Health/Check"
        said = b"\x08\x01" if healthy else NAME.encode()
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: said)


def port(name: str) -> tuple[str, int]:
    return "127.0.0.1", int(os.environ[f"PORT_{name}"])


if __name__ == "__main__":
    calls = grpc.server(ThreadPoolExecutor(4), handlers=(Calls(),))
    calls.add_insecure_port("{}:{}".format(*port("GRPC")))
    calls.start()
    secure = Server(port("TLS"), Http)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    socketserver.ThreadingTCPServer.daemon_threads = True
    lines = socketserver.ThreadingTCPServer(port("SQL"), Lines)
    for server in (secure, lines):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    Server(port("HTTP"), Http).serve_forever()
