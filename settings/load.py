"""Reads `foldback.yaml` and `FOLDBACK_*` variables; refuses what it does not know by name."""

import os
from pathlib import Path

from pydantic import Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from settings.console import ConsoleSettings
from settings.feedback import FeedbackSettings
from settings.model import ModelSettings
from settings.registry import RegistrySettings
from settings.server import ServerSettings
from settings.trainer import TrainerSettings

DEFAULT_FILE = Path("foldback.yaml")


class SettingsError(ValueError):
    """Settings that cannot be used; the message names each field, its value and what is asked of it."""


class Settings(BaseSettings):
    """Everything that can be set. `FOLDBACK_SERVER__PORT=…` overrides `server: {port: …}` in the file."""

    model_config = SettingsConfigDict(
        env_prefix="FOLDBACK_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    data_dir: Path = Path(".foldback")
    """Where this installation keeps what it must not lose: registry, spool, preference store, keys."""
    model: ModelSettings = Field(default_factory=ModelSettings)
    feedback: FeedbackSettings = Field(default_factory=FeedbackSettings)
    registry: RegistrySettings = Field(default_factory=RegistrySettings)
    server: ServerSettings = Field(default_factory=ServerSettings)
    trainer: TrainerSettings = Field(default_factory=TrainerSettings)
    console: ConsoleSettings = Field(default_factory=ConsoleSettings)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = YamlConfigSettingsSource(settings_cls, yaml_file=settings_file())
        return init_settings, env_settings, file

    @property
    def registry_url(self) -> str:
        return self.registry.url or (self.data_dir / "registry").absolute().as_uri()


def settings_file() -> Path:
    """`FOLDBACK_CONFIG` if set, else `foldback.yaml` in the working directory."""
    return Path(os.environ.get("FOLDBACK_CONFIG", DEFAULT_FILE))


def load() -> Settings:
    """The settings of this process.

    Raises:
        SettingsError: the file named by FOLDBACK_CONFIG is absent, or a key or value is refused.
    """
    path = settings_file()
    if "FOLDBACK_CONFIG" in os.environ and not path.is_file():
        raise SettingsError(f"FOLDBACK_CONFIG={path}: no such file; unset it or write the file")
    unknown = unknown_variables()
    if unknown:
        raise SettingsError(
            f"{', '.join(unknown)}: no such setting; 'foldback config check' lists the fields there are"
        )
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError(_explain(error, path)) from None


def unknown_variables() -> list[str]:
    """FOLDBACK_ variables whose section does not exist (pydantic-settings passes over them silently)."""
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    sections = (name.removeprefix("FOLDBACK_").split("__")[0].upper() for name in os.environ)
    return [
        name
        for name, section in zip(os.environ, sections, strict=True)
        if name.startswith("FOLDBACK_") and section not in known
    ]


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"settings refused (from {path} and FOLDBACK_* variables):"]
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {field}: no such field; remove it or check its spelling")
        else:
            lines.append(f"  {field}={problem['input']!r}: {problem['msg']}")
    return "\n".join(lines)
