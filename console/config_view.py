"""The settings in force, as a person reads them."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from rich.text import Text

from console.terminal import out
from settings import Settings
from settings.load import settings_file
from settings.rules import Constitution


def print_settings(settings: Settings) -> None:
    """Every field with its value, those that differ from the default in bold, and its documentation."""
    file = settings_file()
    out.print(f"[green]✓[/] settings accepted ({file if file.is_file() else f'no {file}'}, FOLDBACK_* variables)\n")
    for path, value, is_default, description in fields(settings):
        line = Text.assemble((path, "cyan"), " = ", (str(value), "" if is_default else "bold yellow"))
        line.append(f"   {description.splitlines()[0]}" if description else "", style="dim")
        out.print(line, no_wrap=True, overflow="ellipsis", crop=out.is_terminal)


def print_json(settings: Settings, constitution: Constitution) -> None:
    """Settings and rules as they would stand in their files."""
    told = {"settings": settings.model_dump(mode="json"), "rules": constitution.model_dump(mode="json")["rules"]}
    sys.stdout.write(json.dumps(told, indent=2) + "\n")


def print_rules(constitution: Constitution, file: Path) -> None:
    """Every rule that answers are held against, with what it asks for."""
    if not constitution.rules:
        out.print(f"\nno rules ({file if file.is_file() else f'no {file}'})")
        return
    out.print(f"\n[green]✓[/] rules accepted: {len(constitution.rules)} ({file})\n")
    for rule in constitution.rules:
        asked = ", ".join(f"{name}={value}" for name, value in rule.model_dump(exclude={"name"}).items())
        out.print(Text.assemble((rule.name, "cyan"), f"   {asked}"), no_wrap=True, overflow="ellipsis")


def fields(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, object, bool, str]]:
    """(path, value, is the default, description) of every field, sections opened; secrets stay masked."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from fields(value, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield f"{prefix}{name}", value, value == default, field.description or ""
