"""nginx, HAProxy and Envoy as plain reverse proxies: their own defaults, one backend, Host passed on."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.programs import MissingError, find, version
from tests.helpers.ports import free_port

STARTING = 60.0

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{app};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
    }}
  }}
}}
"""

_HAPROXY = """\
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend in
    bind 127.0.0.1:{port}
    default_backend app
backend app
    server app 127.0.0.1:{app}
"""


def _nginx(folder: Path, port: int, app: int, _chosen: Path | None) -> list[str]:
    path = folder / "nginx.conf"
    path.write_text(_NGINX.format(folder=folder, port=port, app=app))
    return [find("nginx"), "-c", str(path), "-e", str(folder / "nginx.log")]


def _haproxy(folder: Path, port: int, app: int, _chosen: Path | None) -> list[str]:
    path = folder / "haproxy.cfg"
    path.write_text(_HAPROXY.format(port=port, app=app))
    return [find("haproxy"), "-db", "-f", str(path)]


def _envoy(folder: Path, port: int, app: int, chosen: Path | None) -> list[str]:
    def address(number: int) -> object:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    kind = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "app",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{kind}.http.router.v3.Router"},
            }
        ],
    }
    endpoint = {"endpoint": {"address": address(app)}}
    config = {
        "static_resources": {
            "listeners": [
                {
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "app",
                    "load_assignment": {
                        "cluster_name": "app",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
            ],
        }
    }
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return [find("envoy", chosen), "-c", str(path), *options]


Command = Callable[[Path, int, int, Path | None], list[str]]

PEERS: dict[str, Command] = {"nginx": _nginx, "HAProxy": _haproxy, "Envoy": _envoy}


def version_of(name: str, chosen: Path | None) -> str | None:
    """Return the version of a peer, or None where it is not installed."""
    try:
        return version(find(name.lower(), chosen if name == "Envoy" else None), name.lower())
    except MissingError:
        return None


@contextmanager
def running(name: str, folder: Path, app: int, chosen: Path | None) -> Iterator[int]:
    """Run a peer before the app; give its port."""
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            PEERS[name](folder, port, app, chosen), stdout=log, stderr=log, cwd=folder
        )
    try:
        deadline = time.monotonic() + STARTING
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, f"{name} does not listen"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(20)
