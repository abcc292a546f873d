"""A control plane's API that answers what a test wrote down."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

TOKEN = "secret"


class Api:
    """
    Attributes:
        answers: Path → status and JSON (or text).
        posted: What was sent, by path.
        open: Paths that need no token.
    """

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.posted: dict[str, Any] = {}
        self._posted_answers: dict[str, tuple[int, Any]] = {}
        self.open = {"/metrics"}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_port}"
        (folder / "token").write_text(TOKEN)
        (folder / "token").chmod(0o600)
        self.context = folder / "context.json"
        self.context.write_text(
            json.dumps(
                {
                    "api": f"http://{self.address}",
                    "token_file": str(folder / "token"),
                    "run_dir": str(folder),
                    "pid": 1,
                }
            )
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def posted_answer(self, path: str, status: int, answer: Any) -> None:
        """Answer a POST so, and not as a GET of the same path."""
        self._posted_answers[path] = (status, answer)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(api) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (`self` is the handler's)
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, answer = api.answers.get(self.path, (404, {"error": "no such thing"}))
                authorized = self.headers["authorization"] == f"Bearer {TOKEN}"
                if not authorized and self.path not in api.open:
                    status, answer = 401, {"error": "who are you?"}
                body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                api.posted[self.path] = json.loads(body)
                if self.path in api._posted_answers:
                    api.answers[self.path] = api._posted_answers[self.path]
                self.do_GET()

            def log_message(self, *_: object) -> None: ...

        return Handler


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    api = Api(tmp_path)
    yield api
    api.close()
