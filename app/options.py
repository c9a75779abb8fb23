"""Options, read from environment variables. The server declares its own in `app.settings`, each adapter its own."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class SettingsError(Exception):
    """The configuration cannot be used. The text names each variable that is wrong, and says what to do."""


_STORED = "stored_values"


class Options(BaseSettings):
    """A group of options. A subclass sets `env_prefix`: an option's variable is the prefix and its name."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    renamed: ClassVar[dict[str, str]] = {}
    """Variables that have a new name: the old name, and the option's. They work for one version, with a warning."""
    removed: ClassVar[dict[str, str]] = {}
    """Variables that must not be set any more, and what to do instead."""

    @classmethod
    def variable(cls, option: str) -> str:
        """The name of the option's environment variable."""
        return f"{cls.model_config['env_prefix']}{option}".upper()

    @classmethod
    def read(cls) -> Self:
        """The options as the environment has them. Raises `SettingsError`."""
        cls.refuse_removed()
        try:
            return cls()
        except ValidationError as error:
            raise cls.explain(error) from None

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Options that were stored by name. The environment adds nothing. Raises `SettingsError`."""
        try:
            stored: dict[str, Any] = {_STORED: values}
            return cls(**stored)
        except ValidationError as error:
            raise cls.explain(error, variable=str) from None

    @classmethod
    def refuse_removed(cls) -> None:
        """Raises `SettingsError` if a removed variable is set."""
        for variable, what_to_do in cls.removed.items():
            if os.environ.get(variable):
                raise SettingsError(f"{variable} is not a setting any more. {what_to_do}")

    @classmethod
    def explain(cls, error: ValidationError, *, variable: Callable[[str], str] | None = None) -> SettingsError:
        """Every fault by the name of its variable, or what `variable` makes of its option. Values are not shown,
        because they may be secret."""
        lines = []
        for fault in error.errors():
            name = (variable or cls.variable)("_".join(str(part) for part in fault["loc"])) if fault["loc"] else ""
            text = cls._missing() if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {text}" if name else text)
        header = "The configuration cannot be used:"
        return SettingsError("\n  ".join([header, *lines]) if len(lines) > 1 else lines[0])

    @classmethod
    def _missing(cls) -> str:
        return "is not set"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        stored = init_settings().get(_STORED)
        if stored is not None:  # `from_values`
            return (InitSettingsSource(settings_cls, stored),)
        return init_settings, env_settings, _RenamedVariables(settings_cls, cls), *cls._more_sources(settings_cls)

    @classmethod
    def _more_sources(cls, settings_cls: type[BaseSettings]) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where options are read from if no variable sets them."""
        return ()


class _RenamedVariables(PydanticBaseSettingsSource):
    """Options whose variables are set by their old names only."""

    def __init__(self, settings_cls: type[BaseSettings], options: type[Options]) -> None:
        super().__init__(settings_cls)
        self._options = options

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # `__call__` reads all at once

    def __call__(self) -> dict[str, Any]:
        values = {}
        for old, option in self._options.renamed.items():
            new = self._options.variable(option)
            if old in os.environ and new not in os.environ:
                logging.getLogger("ringback").warning(
                    "%s is called %s now. Rename it: the old name stops working in the next version", old, new
                )
                values[option] = os.environ[old]
        return values
