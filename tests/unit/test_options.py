"""Options from the environment: an error names the variable that is wrong, and old names work for one version."""

import logging

import pytest
from pydantic_settings import SettingsConfigDict

from app import providers
from app.options import Options, SettingsError
from app.settings import Settings


class Renamed(Options):
    model_config = SettingsConfigDict(env_prefix="TEST_")
    renamed = {"TEST_OLD": "new"}

    new: int | None = None


@pytest.mark.parametrize(
    ("options", "wrong", "variable"),
    [
        ("Simulator", {"RINGBACK_SIMULATOR_SPEED": "0"}, "RINGBACK_SIMULATOR_SPEED: Input should be greater than 0"),
        ("Asterisk", {}, "RINGBACK_ASTERISK_PASSWORD: is not set"),
        ("Local speech recognition", {"RINGBACK_WHISPER_THREADS": "many"}, "RINGBACK_WHISPER_THREADS: Input"),
        ("Speech endpoint", {}, "RINGBACK_SPEECH_URL: is not set"),
        ("Summary endpoint", {"RINGBACK_SUMMARY_URL": "nowhere"}, "RINGBACK_SUMMARY_URL: Input"),
        ("S3", {"RINGBACK_S3_ENDPOINT": "nowhere"}, "RINGBACK_S3_ENDPOINT: Input"),
    ],
)
def test_an_error_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, options: str, wrong: dict[str, str], variable: str
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=variable):
        providers.OPTIONS[options].read()


def test_every_adapter_has_its_own_prefix() -> None:
    groups: list[type[Options]] = [Settings, *providers.OPTIONS.values()]
    prefixes = [options.model_config["env_prefix"] for options in groups]
    assert len(set(prefixes)) == len(prefixes)


def test_an_old_name_works_and_says_what_it_is_called_now(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_OLD", "1")
    with caplog.at_level(logging.WARNING):
        assert Renamed.read().new == 1
    assert "TEST_OLD is called TEST_NEW now" in caplog.text
    monkeypatch.setenv("TEST_NEW", "2")
    assert Renamed.read().new == 2


def test_the_old_names_of_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGBACK_PROVIDER_USERNAME", "greeter")
    monkeypatch.setenv("RINGBACK_PROVIDER_PASSWORD", "secret")
    settings = Settings(
        database_url="postgresql+asyncpg://nobody@127.0.0.1/nothing",
        redis_url="redis://127.0.0.1",
        secret_key="0123456789abcdef0123456789abcdef",
    )
    assert settings.call_log_username == "greeter"
    assert settings.call_log_password is not None


def test_a_removed_variable_is_refused_whatever_dials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGBACK_ASTERISK_COUNTRY_CODE", "44")
    with pytest.raises(SettingsError, match="RINGBACK_HOME_COUNTRY"):
        providers.refuse_removed_variables()
