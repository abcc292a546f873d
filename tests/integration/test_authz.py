"""What `meshctl` says of authorization is what a running mesh does."""

import asyncio
import json
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from joserfc import jws
from joserfc.jwk import ECKey

from tests.helpers.client import Response, connect
from tests.helpers.running_mesh import RunningMesh, shop

pytestmark = pytest.mark.integration

POLICY = """
apiVersion: meshproxy.io/v1alpha1
kind: AuthorizationPolicy
metadata: {name: catalog}
spec:
  selector: {matchLabels: {app: catalog}}
  rules:
    - from: [{source: {principals: ["*/sa/door"]}}]
      to: [{operation: {paths: ["/items*"]}}]
    - name: users
      from: [{source: {requestPrincipals: ["https://id.example/*"]}}]
"""
TOKENS = """
apiVersion: meshproxy.io/v1alpha1
kind: RequestAuthentication
metadata: {name: users}
spec: {jwtRules: [{issuer: "https://id.example", jwksFile: keys.json}]}
"""
OLD = ECKey.generate_key("P-256", {"kid": "old"})
NEW = ECKey.generate_key("P-256", {"kid": "new"})


def token(key: ECKey) -> str:
    claims = {"iss": "https://id.example", "sub": "alice", "exp": int(time.time()) + 600}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return jws.serialize_compact({"alg": "ES256", "kid": key.kid}, json.dumps(claims), key)


def key_set(*keys: ECKey) -> str:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]})


def ask(mesh: RunningMesh, path: str, bearer: str = "") -> Response:
    async def once() -> Response:
        more = f"Authorization: Bearer {bearer}\r\n" if bearer else ""
        async with connect(mesh.door()) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: catalog\r\n{more}\r\n".encode())
            return await client.response()

    return asyncio.run(once())


def answered(mesh: RunningMesh, path: str, status: int) -> bool:
    return ask(mesh, path).status == status


def test_what_is_said_is_what_is_done(tmp_path: Path) -> None:
    """Verdicts, exit codes and the way of a request, for requests that pass and that do not."""
    with RunningMesh(tmp_path, {**shop(), "policy.yaml": POLICY}) as mesh:
        place = f"{mesh.config / 'policy.yaml'}:"
        for path, status in (("/items/1", 200), ("/other", 403), ("/items/../other", 403)):
            mesh.until(partial(answered, mesh, path, status), f"{status} to {path}")
            checked = mesh.meshctl(
                "authz", "check", "--from", "door", "--to", "catalog-v1", "--path", path
            )
            explained = mesh.meshctl("explain", "--from", "door", f"http://catalog{path}")
            assert checked.returncode == explained.returncode == (0 if status == 200 else 1)
            assert place in checked.stdout
            assert "100% default/catalog-v1:80" in explained.stdout
            offline = mesh.meshctl(
                "authz", "check", "-f", str(mesh.config), "--from", "door", "--to", "catalog-v1",
                "--path", path,
            )  # fmt: skip
            assert offline.stdout == checked.stdout


def test_keys_rotate_in_a_running_mesh(tmp_path: Path) -> None:
    """A token of a published key passes all the time; one whose key was removed does not any more."""
    with RunningMesh(
        tmp_path,
        {**shop(), "policy.yaml": POLICY, "tokens.yaml": TOKENS, "keys.json": key_set(OLD)},
    ) as mesh:
        mesh.until(lambda: ask(mesh, "/x", token(OLD)).status == 200, "tokens to be believed")
        assert ask(mesh, "/x").status == 403
        assert ask(mesh, "/x", token(NEW)).status == 401
        mesh.write("keys.json", key_set(OLD, NEW))

        def both() -> bool:
            assert ask(mesh, "/x", token(OLD)).status == 200
            return ask(mesh, "/x", token(NEW)).status == 200

        mesh.until(both, "the new key")
        mesh.write("keys.json", key_set(NEW))

        def only_new() -> bool:
            assert ask(mesh, "/x", token(NEW)).status == 200
            return ask(mesh, "/x", token(OLD)).status == 401

        mesh.until(only_new, "the old key to be gone")
        mesh.write("keys.json", "garbage")
        mesh.until(
            lambda: any(
                "is not a JSON Web Key Set" in one["message"]
                for one in mesh.api("/api/v1/status")["findings"]
            ),
            "the finding",
        )
        assert ask(mesh, "/x", token(NEW)).status == 200
