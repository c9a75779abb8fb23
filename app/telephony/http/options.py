"""Which template is used, and the values that it needs."""

from pathlib import Path

from pydantic import AnyHttpUrl, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from app.options import Options, SettingsError
from app.telephony.http.template import Template, TemplateError, read_template

TEMPLATES = Path(__file__).parent / "templates"


class HttpOptions(Options):
    """With `RINGBACK_TELEPHONY_PROVIDER=http`. Only `template` is required, and the values that it asks for."""

    model_config = SettingsConfigDict(env_prefix="RINGBACK_HTTP_")

    template: str = Field(
        min_length=1, description="A ready-made template (`knowlarity`, `smartflo`), or a file's path"
    )
    values: SecretStr | None = Field(
        None, description="What the template asks for, as `name=value`, one a line or separated by `;`"
    )
    url: AnyHttpUrl | None = Field(None, description="The service's address, if it is not the template's")
    caller_id: str | None = Field(None, min_length=1, description="Number that is shown, if nothing else names one")
    agent_channel: int = Field(1, ge=1, le=2, description="The channel of recordings that has the agent: `1` or `2`")

    def load(self) -> Template:
        """The template. Raises `SettingsError`."""
        names = sorted(path.stem for path in TEMPLATES.glob("*.toml"))
        path = TEMPLATES / f"{self.template}.toml" if self.template in names else Path(self.template)
        try:
            return read_template(path)
        except OSError as error:
            ready = ", ".join(names)
            raise SettingsError(f"template: {path}: {error.strerror}. Ready-made ones are {ready}") from None
        except TemplateError as error:
            raise SettingsError(f"template: {error}") from None

    def read_values(self, template: Template) -> dict[str, str]:
        """The values by name. Raises `SettingsError`."""
        found = {}
        written = "" if self.values is None else self.values.get_secret_value()
        for line in written.replace(";", "\n").splitlines():
            name, equals, value = line.partition("=")
            if line.strip() and not equals:
                raise SettingsError("values: each must be name=value")
            if line.strip():
                found[name.strip()] = value.strip()
        missing = [f"{name} ({meaning})" for name, meaning in template.values.items() if not found.get(name)]
        if missing:
            raise SettingsError(f"values: the template needs {', '.join(missing)}")
        unknown = sorted(set(found) - set(template.values))
        if unknown:
            raise SettingsError(f"values: the template has no {', '.join(unknown)}")
        return found
