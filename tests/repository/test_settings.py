"""Every setting explains itself: `foldback config check`, the chart's schema and the docs show these texts."""

import sys
from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from settings import Settings
from settings.trainer import TrainerSettings


def fields(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field that holds a value, by its dotted path, sections entered."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from fields(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


FIELDS = dict(fields(Settings))


def test_there_are_fields_in_every_section() -> None:
    sections = {path.split(".")[0] for path in FIELDS if "." in path}
    assert sections == {"model", "feedback", "registry", "server", "trainer", "console"}


@pytest.mark.parametrize("path", FIELDS)
def test_field_is_documented(path: str) -> None:
    description = FIELDS[path].description or ""
    assert description.endswith("."), f"{path}: {description!r} is no sentence; write a docstring under the field"


def test_sections_are_documented() -> None:
    for field in Settings.model_fields.values():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            module = sys.modules[kind.__module__].__doc__ or ""
            assert len(module.split()) > 2, f"{kind.__module__}: say in its docstring what the section is for"


def test_every_field_has_a_default() -> None:
    """`make run` needs no foldback.yaml."""
    assert not [path for path, field in FIELDS.items() if field.is_required()]


@pytest.mark.parametrize(("cores", "asked", "expected"), [(1, 0, 1), (2, 0, 1), (4, 0, 2), (64, 0, 2), (2, 6, 6)])
def test_the_trainer_leaves_a_small_machine_a_core(
    monkeypatch: pytest.MonkeyPatch, cores: int, asked: int, expected: int
) -> None:
    monkeypatch.setattr("settings.trainer.cores", lambda: cores)
    assert TrainerSettings(torch_threads=asked).threads == expected
