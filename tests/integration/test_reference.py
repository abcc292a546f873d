"""`configs/reference` as a running mesh: what its comments say of a call is what a call gets."""

import json
import socket
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from joserfc import jwt as tokens
from joserfc.jwk import OKPKey

from tests.helpers.certificates import tls_server
from tests.helpers.running_mesh import ROOT, RunningMesh

pytestmark = pytest.mark.integration

APP = Path(__file__).parent.parent / "helpers" / "echo_app.py"
KEY = OKPKey.import_key(  # RFC 8037 appendix A.1, whose public half is in request-authentication.yaml
    {
        "kty": "OKP", "crv": "Ed25519", "kid": "2026-01",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    }
)  # fmt: skip
STAFF = {"group": "staff", "sub": "ann"}


def token(**claims: object) -> str:
    said = {"iss": "https://id.example", "aud": "books", "exp": 4_000_000_000, **claims}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # EdDSA has got a new name
        return tokens.encode({"alg": "EdDSA", "kid": "2026-01"}, said, KEY, algorithms=["EdDSA"])


class Answer(NamedTuple):
    """
    Attributes:
        seen: What the app says that it was asked; empty where the answer is a proxy's.
    """

    status: int
    headers: dict[str, str]
    seen: dict[str, Any]


class Reference(RunningMesh):
    def curl(self, url: str, *words: str) -> Answer:
        """Ask as `meshctl up` says that one asks."""
        proxy = f"http://127.0.0.1:{self.placement('books-v1')['outbound_port']}"
        done = subprocess.run(
            ["curl", "-sS", "-i", "-m", "20", "-x", proxy, *words, url],
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        head, _, body = done.stdout.partition("\n\n")
        first, *lines = head.splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines)
        seen = json.loads(body) if body.startswith("{") else {}
        return Answer(int(first.split()[1]), headers, seen)

    def port(self, service: str) -> int:
        found: int = self.placement("books-v1")["service_ports"][f"default/{service}"]
        return found


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("reference")
    certificate, key = tls_server(folder, "books.example.com")
    files = {}
    for path in sorted((ROOT / "configs" / "reference").glob("*.yaml")):
        text = path.read_text()
        if path.name == "workload.yaml":  # whose app serves files, on the first of its ports
            shown = '["$(MESH_PYTHON)", "-m", "http.server", "--bind", "127.0.0.1", "$(PORT)"]'
            assert text.count(shown) == 2
            own = f'["$(MESH_PYTHON)", "{APP}"]\n    env: {{CERT: "{certificate}", KEY: "{key}"}}'
            greeting = "    env:\n      GREETING: hello from $(MESH_WORKLOAD)\n"
            assert greeting in text
            text = text.replace(greeting, "").replace(shown, own)
        files[path.name] = text
    with Reference(folder, files) as running:
        yield running


def names(mesh: Reference, url: str, *words: str, times: int = 4) -> set[str]:
    answers = [mesh.curl(url, *words) for _ in range(times)]
    assert {answer.status for answer in answers} == {200}
    return {answer.seen["name"] for answer in answers}


def test_services_are_called_by_their_names(mesh: Reference) -> None:
    """service.yaml: in all four spellings; each version has one of its own, and so a local port."""
    for name in ("books", "books.default", "books.default.svc", "books.default.svc.cluster.local"):
        assert mesh.curl(f"http://{name}/").status == 200
    assert names(mesh, "http://books-v1/", times=2) == {"books-v1"}
    assert names(mesh, "http://books-v2/", times=2) == {"books-v2"}
    assert (
        mesh.curl(f"http://127.0.0.1:{mesh.port('books-v2:80')}/", "--noproxy", "*").status == 200
    )


def test_matches_of_the_http_route(mesh: Reference) -> None:
    """http-route.yaml: the most specific match decides; whoever matches none of them is a canary."""
    assert names(mesh, "http://books/health") == {"books-v1"}
    assert names(mesh, "http://books/isbn/1234567890123") == {"books-v1"}
    conditions = ("-H", "x-preview: yes", "-A", "A Firefox of mine")
    assert names(mesh, "http://books/api/x?debug=1&lang=de", *conditions) == {"books-v2"}
    assert names(mesh, "http://books/any", "-H", "x-canary: always") == {"books-v2"}
    shares = Counter(mesh.curl("http://books/").seen["name"] for _ in range(20))
    assert shares["books-v1"] > shares["books-v2"]


def test_filters_of_the_http_route(mesh: Reference) -> None:
    """http-route.yaml: what the app sees, what the client gets, and what nobody but the sidecar answers."""
    by_version = {}
    for _ in range(30):
        answer = mesh.curl("http://books/stamped/x", "-H", "x-seen: me", "-H", "x-debug: 1")
        seen = answer.seen["headers"]
        assert (seen["x-shelf"], seen["x-seen"]) in {("fiction", "mesh"), ("fiction", "me,mesh")}
        assert "x-debug" not in seen
        assert (answer.headers["cache-control"], answer.headers["x-served-by"]) == (
            "no-store",
            "mesh",
        )
        assert "server" not in answer.headers
        by_version[answer.seen["name"]] = (seen.get("x-version"), answer.headers.get("x-version"))
        if len(by_version) == 2:
            break
    assert by_version == {"books-v1": ("v1", "v1"), "books-v2": (None, None)}
    moved = mesh.curl("http://books/old/page?a=1")
    assert (moved.status, moved.headers["location"]) == (301, "http://books/new/page?a=1")
    rewritten = mesh.curl("http://books/shop/books/12").seen
    assert (rewritten["path"], rewritten["headers"]["host"]) == ("/12", "books.example")
    assert mesh.curl("http://books/preview").status == 200
    assert "report=" in mesh.curl("http://books/reports").headers["set-cookie"]


def test_who_may_do_what(mesh: Reference) -> None:
    """authorization-policy.yaml, request-authentication.yaml: everybody reads, staff with a token writes."""
    assert mesh.curl("http://books/", "-I").status == 200
    bearer = ("-H", f"Authorization: Bearer {token(**STAFF)}", "-H", "x-tenant: green")
    answer = mesh.curl("http://books/books", "-X", "POST", *bearer, "-H", "x-reader: eve")
    assert answer.status == 200
    assert answer.seen["headers"]["x-reader"] == "ann"
    assert "authorization" not in answer.seen["headers"]
    for path in ("books/7/reviews/1", "shelves/a/b", "drafts/x", "index.json"):
        assert mesh.curl(f"http://books/{path}", "-X", "PUT", *bearer).status == 200, path
    denied = {
        "no token": ("http://books/books", "-X", "POST", *bearer[2:]),
        "no tenant": ("http://books/books", "-X", "POST", *bearer[:2]),
        "not this tenant": ("http://books/books", "-X", "POST", *bearer[:3], "x-tenant: blue-test"),
        "not these paths": ("http://books/books/internal/x", "-X", "POST", *bearer),
        "nowhere named": ("http://books/other", "-X", "POST", *bearer),
        "not this method": ("http://books/books", "-X", "DELETE", *bearer),
        "not this host": ("http://books-v1/books", "-X", "POST", *bearer),
        "not this group": (
            *("http://books/books", "-X", "POST", "-H", "x-tenant: green"),
            *("-H", f"Authorization: Bearer {token(sub='bob', group='guests')}"),
        ),
    }
    for why, (url, *words) in denied.items():
        refused = mesh.curl(url, *words)
        assert (refused.status, refused.headers["x-mesh-refusal"]) == (403, "access-denied"), why
    wrong = mesh.curl("http://books/", "-H", f"x-reader-token: {token(**STAFF, aud='others')}")
    assert (wrong.status, wrong.headers["x-mesh-refusal"]) == (401, "invalid-token")


def test_limits_are_told(mesh: Reference) -> None:
    """rate-limit.yaml: each answer says what is left, of the limit that is nearest."""
    answer = mesh.curl("http://books/", "-H", "x-user: ann")
    assert "each-caller" in answer.headers["ratelimit-policy"]
    assert "each-user" in answer.headers["ratelimit-policy"]
    assert "r=" in answer.headers["ratelimit"]


def test_calls_of_grpc(mesh: Reference) -> None:
    """grpc-route.yaml: by method, service, expression, metadata; the checks of health-check.yaml pass."""
    with grpc.insecure_channel(f"127.0.0.1:{mesh.port('books:9000')}") as channel:

        def call(method: str, **metadata: str) -> str:
            answer: bytes = channel.unary_unary(method)(
                b"", metadata=list(metadata.items()), timeout=20
            )
            return answer.decode()

        bearer = {"authorization": f"Bearer {token(**STAFF)}", "x-tenant": "green"}
        assert call("/grpc.health.v1.Health/Check") == "\x08\x01"
        assert call("/library.v1.Books/GetBook") == "books-v2"
        assert call("/library.v1.Loans/Lend", **bearer) == "books-v1"
        assert call("/library.v1.Books/ListBooks") == "books-v1"
        assert call("/library.v1.Books/Find", **{"x-preview": "yes"}) == "books-v2"
        assert call("/library.v1.Reports/GetReport") == "books-v1"
        with pytest.raises(grpc.RpcError) as denied:
            call("/library.v1.Loans/Lend")
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "grpc.health.v1.Health/Check" not in mesh.output()  # where denials are logged


def test_what_nobody_looks_into(mesh: Reference) -> None:
    """tcp-route.yaml, tls-route.yaml: connections by weight, and the app's own TLS by server name."""
    with socket.create_connection(("127.0.0.1", mesh.port("books:5432")), 20) as client:
        assert client.recv(100) in (b"books-v1\n", b"books-v2\n")
    port = mesh.port("books:443")

    def ask(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("curl", "-sSk", "-m", "20", "--connect-to", f"{name}:443:127.0.0.1:{port}"),
                f"https://{name}/x",
            ],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    for name in ("books.example.com", "a.b.books.example.com"):
        assert json.loads(ask(name).stdout)["path"] == "/x"
    assert ask("example.com").returncode != 0
