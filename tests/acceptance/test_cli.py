"""`ringback` beside a running instance, which it finds by the data folder alone."""

from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import Instance, environment, ringback


def test_users_from_creation_to_deactivation(instance: Instance) -> None:
    def login(password: str) -> httpx.Response:
        body = {"email": "ravi@example.com", "password": password}
        return httpx.post(f"{instance.base_url}/api/developer/login", json=body)

    # in its own process, as from another shell
    arguments = ("users", "create", "Ravi@Example.com", "--unverified")
    created = ringback(instance.environment, *arguments, stdin="first password\n")
    assert created.returncode == 0, created.stderr
    again = instance.ringback("users", "create", "ravi@example.com", "--password", "x")
    assert again.returncode == 1
    assert "already" in again.stderr
    assert login("first password").json()["error"] == "Unverified user"
    assert instance.ringback("users", "verify", "ravi@example.com").returncode == 0
    token = login("first password").json()["data"]["access_token"]

    def create() -> httpx.Response:
        body = {"customer_number": "15005550001", "agent_number": "918888888888"}
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.post(f"{instance.base_url}/api/developer/calls/click2call", json=body, headers=headers)

    assert create().status_code == 200
    assert "Ended 1 logins" in instance.ringback("users", "logout", "ravi@example.com").stdout
    assert create().status_code == 401
    assert instance.ringback("users", "set-password", "ravi@example.com", "--password", "second").returncode == 0
    assert login("first password").status_code == 400
    token = login("second").json()["data"]["access_token"]
    assert instance.ringback("users", "deactivate", "ravi@example.com").returncode == 0
    assert create().status_code == 400
    assert login("second").json()["error"] == "Inactive user"
    assert instance.ringback("users", "activate", "ravi@example.com").returncode == 0
    assert create().status_code == 401, "earlier logins stay ended"
    assert login("second").status_code == 200
    assert "Ravi@Example.com" in instance.ringback("users", "list").stdout


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["users", "verify", "nobody@example.com"], "There is no user"),
        (["users", "create", "no-address", "--password", "x"], "name@example.com"),
        (["users", "create", "a@example.com", "--password", ""], "must not be empty"),
        (["calls", "show", "call_0000000000000000"], "There is no call"),
        (["call", "12", "918888888888", "--user", "demo@ringback.local"], "8 to 15 digits"),
        (["models", "verify", "large-v3"], "ringback models fetch large-v3"),
        (["models", "fetch", "indicwhisper-medium-hi"], "models convert FOLDER"),
        (["models", "convert", "."], "config.json cannot be read"),
    ],
)
def test_what_goes_wrong_is_explained(instance: Instance, command: list[str], expected: str) -> None:
    failed = instance.ringback(*command)
    assert failed.returncode == 1
    assert expected in failed.stderr
    assert "Traceback" not in failed.stderr


def test_call_follows_a_call_to_its_end(instance: Instance) -> None:
    busy = instance.ringback("call", "15005550001", "918888888888", "--user", "demo@ringback.local")
    assert busy.returncode == 1
    assert "The customer's line is busy" in busy.stdout
    answered = instance.ringback("call", "15005550005", "918888888888", "--user", "demo@ringback.local")
    assert answered.returncode == 0, answered.stderr
    assert "Outcome: No conversation" in answered.stdout


def test_models(instance: Instance) -> None:
    listed = instance.ringback("models", "list").stdout
    assert "bundled" in listed
    assert "ai4bharat/indic-conformer-600m-multilingual" in listed
    assert "tiny.en is whole" in instance.ringback("models", "verify").stdout


def test_without_a_running_instance(tmp_path: Path) -> None:
    failed = ringback(environment(tmp_path, 8000), "users", "list")
    assert failed.returncode == 1
    assert "make up" in failed.stderr
