"""Parts of docker-compose.yml that no other test uses."""

import os
import re
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
PODMAN = (ROOT / "deploy/podman/compose.yml").read_text()


class Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_the_health_check_of_the_api_needs_no_proxy() -> None:
    found = re.search(r"(?<=- \|\n)(?: {10}.*\n)+", COMPOSE)
    assert found
    with HTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for port, code in ((server.server_port, 0), (1, 1)):
            command = textwrap.dedent(found[0]).replace("8000", str(port))
            environment = {**os.environ, "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
            done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, timeout=60)
            assert done.returncode == code, done.stderr
        server.shutdown()


def test_with_podman_nothing_depends_on_what_ends() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    depending = {name for name, service in services.items() if "depends_on" in service}
    changed = yaml.safe_load(PODMAN.replace("!reset {}", "reset"))["services"]
    assert {name for name, service in changed.items() if service["depends_on"] == "reset"} == depending
