"""An app for meshes under test that speaks first, as SMTP does: its name, and then what it is told."""

import os
import socketserver

NAME = os.environ.get("NAME", "?")


class App(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"{NAME}\n".encode())
        while data := self.request.recv(65536):
            self.request.sendall(data)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), App).serve_forever()
