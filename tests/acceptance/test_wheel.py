"""The wheel, installed into an empty environment away from the checkout, runs the product."""

import os
import signal
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import httpx
import pytest

from bench.installation import free_port
from tests.acceptance.conftest import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
# uv does not read pip's configuration, but installs a hundred cached wheels in two seconds instead of a minute.
_PIP_TO_UV = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_FIND_LINKS": "UV_FIND_LINKS", "PIP_NO_INDEX": "UV_NO_INDEX"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder], cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


def run(command: list[str | Path], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_has_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"ringback-{version('ringback')}.dist-info/METADATA").decode()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"app", "worker", "migrations"}
    for name in ("app/py.typed", "worker/py.typed", "migrations/script.py.mako", "app/api/reference/static/start.js"):
        assert name in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert "Provides-Extra: embedded" in metadata
    assert "Provides-Extra: tracing" in metadata


def test_up_from_the_wheel_ends_in_a_transcript(wheel: Path, tmp_path: Path) -> None:
    elsewhere = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    index = {uv: os.environ[pip].replace(" ", ",") for pip, uv in _PIP_TO_UV.items() if pip in os.environ}
    uv = [sys.executable, "-m", "uv"]
    python = tmp_path / "env/bin/python"
    run([*uv, "venv", "--python", sys.executable, tmp_path / "env"], cwd=tmp_path)
    # Only what the wheel declares is installed. The lock chooses the versions.
    install: list[str | Path] = [
        *uv,
        "pip",
        "install",
        "--python",
        python,
        "--constraint",
        ROOT / "requirements/embedded.txt",
    ]
    run([*install, f"ringback[embedded] @ {wheel.as_uri()}"], cwd=tmp_path, env=index | elsewhere)
    run([*uv, "pip", "check", "--python", python], cwd=tmp_path)
    ringback = tmp_path / "env/bin/ringback"
    assert run([ringback, "--version"], cwd=tmp_path, env=elsewhere) == f"ringback {version('ringback')}\n"
    # Import everything once, so that the processes of `up` do not each compile it.
    imported = run([python, "-c", "import app.main, worker.main; print(app.__file__)"], cwd=tmp_path, env=elsewhere)
    assert str(tmp_path) in imported

    port = free_port()
    settings = {"RINGBACK_DATA_DIR": str(tmp_path / "data"), "RINGBACK_PORT": str(port)}
    with subprocess.Popen(
        [ringback, "up"],
        cwd=tmp_path,
        env=elsewhere | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = ""
        try:
            for line in process.stdout:
                output += line
                if "Ctrl-C stops" in line:
                    break
            assert "Transcript: ready" in output, output
            for path in ("/docs/start.js", "/login", "/static/console.css", "/static/vendor/inter.woff2"):
                assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200, path
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()
        assert process.wait(PATIENCE_SECONDS) == 0
