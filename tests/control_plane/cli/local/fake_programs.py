"""
Stand in for the two programs that a local mesh starts, with just enough of their manners.

What the control plane says of proxies is read from ``proxies.json`` in its state.

    python fake_programs.py control_plane run --config FILE
    python fake_programs.py meshproxy run --bootstrap FILE
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class ControlPlane(BaseHTTPRequestHandler):
    proxies = Path()

    def do_GET(self) -> None:
        if self.path == "/api/v1/proxies":
            self.answer(self.proxies.read_bytes() if self.proxies.exists() else b"[]")
        else:
            self.answer(b"the roots" if self.path == "/api/v1/roots" else b"{}")

    def do_POST(self) -> None:
        workload = json.loads(self.rfile.read(int(self.headers["content-length"])))["workload"]
        self.answer(json.dumps({"token": f"token of {workload}"}).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


class Sidecar(ControlPlane):
    pass


def main(program: str, file: str) -> None:
    said = json.loads(Path(file).read_text())
    print(f"{program} starts")
    if program == "control_plane":
        place, handler = said["api"], ControlPlane
        handler.proxies = Path(said["state"], "proxies.json")
        for name in ("operator.token", "viewer.token"):
            token = Path(said["state"], name)
            token.touch(0o600)
            token.write_text("secret")
    else:
        place, handler = said["admin"], Sidecar
    HTTPServer((place["address"], place["port"]), handler).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[4])
