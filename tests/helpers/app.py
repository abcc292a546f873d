"""
An app for meshes under test; standard library only.

    /            the app's name, and who called according to its sidecar
    /stream?N    N chunks, one every 50 ms
    /call?URL    fetch URL through $HTTP_PROXY and return the body
    /env         the environment it was given
"""

import json
import os
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(int(query)):
                line = b"%d\n" % number
                self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
                time.sleep(0.05)
            self.wfile.write(b"0\r\n\r\n")
            return
        if path == "/call":
            with urllib.request.urlopen(unquote(query), timeout=10) as answer:
                body = answer.read()
        elif path == "/env":
            body = json.dumps(dict(os.environ)).encode()
        else:
            caller = self.headers.get("x-forwarded-client-cert", "nobody")
            body = f"{os.environ.get('NAME', '?')} called by {caller}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
