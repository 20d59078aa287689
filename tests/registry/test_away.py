"""A registry whose storage has gone is not mistaken for one where nothing is new."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry import Manifest, Registry, RegistryAway
from registry.metrics import RegistryCollector
from tests.registry.test_lifecycle import activate


def up(registry: Registry) -> float:
    [family] = RegistryCollector(registry).collect()
    [sample] = family.samples
    return float(sample.value)


def test_it_says_so_until_it_is_back(tmp_path: Path, publish: Callable[..., Manifest]) -> None:
    folder = tmp_path / "registry"
    registry = Registry(folder.as_uri())
    assert registry.state().active is None
    activate(registry, first := publish(registry))
    assert up(registry) == 1.0

    folder.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(RegistryAway, match="is the registry's volume mounted"):
            registry.state()
    assert up(registry) == 0.0

    (tmp_path / "elsewhere").rename(folder)
    assert registry.state().active == first.version
    assert up(registry) == 1.0


def test_storage_that_fails_counts_as_away(tmp_path: Path, publish: Callable[..., Manifest]) -> None:
    folder = tmp_path / "registry"
    registry = Registry(folder.as_uri())
    activate(registry, publish(registry))
    (folder / "transitions").rename(tmp_path / "aside")
    (folder / "transitions").write_text("a file where a folder was")
    with pytest.raises(OSError, match="transitions"):
        registry.state()
    assert up(registry) == 0.0
