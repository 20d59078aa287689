"""Versions never change, never repeat a name, and are refused when they are not what was published."""

from collections.abc import Callable
from pathlib import Path

import pytest

from registry import ArtifactError, Manifest, PolicyState, Registry
from registry.artifact import check_name
from tests.registry.conftest import BASE_DIGEST

Publish = Callable[..., Manifest]


def test_a_published_version_is_fetched_whole(registry: Registry, publish: Publish, tmp_path: Path) -> None:
    manifest = publish(registry, content="weights")
    directory = registry.fetch(manifest.version, tmp_path / "cache")
    assert "weights" in (directory / "adapter" / "adapter_config.json").read_text()
    assert registry.manifest(manifest.version) == manifest
    assert registry.fetch(manifest.version, tmp_path / "cache") == directory


def test_names_follow_the_content(registry: Registry, publish: Publish) -> None:
    first, second = publish(registry, content="a"), publish(registry, content="b")
    assert first.version.startswith("p000001-")
    assert first.version != second.version


def test_the_same_again_is_the_same_version(registry: Registry, publish: Publish) -> None:
    assert publish(registry, content="a") == publish(registry, content="a")


def test_the_base_policy_is_published_once(registry: Registry) -> None:
    first = registry.publish_base("tiny", BASE_DIGEST)
    assert registry.publish_base("tiny", BASE_DIGEST) == first
    assert first.version.startswith("p000000-")


def test_an_unknown_version_is_absent(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="p000009-00000000 is not in the registry") as caught:
        registry.fetch("p000009-00000000", tmp_path)
    assert caught.value.reason == "absent"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda file: file.write_text(file.read_text()[:-3]), "truncated"),
        (lambda file: file.write_text(file.read_text().replace("content", "tnetnoc")), "hash"),
        (lambda file: file.unlink(), "absent"),
    ],
    ids=["truncated", "changed", "deleted"],
)
def test_damage_on_disk_is_refused(
    damage: Callable[[Path], object], reason: str, publish: Publish, tmp_path: Path
) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    manifest = publish(registry)
    damage(registry.fetch(manifest.version, tmp_path) / "adapter" / "adapter_config.json")
    with pytest.raises(ArtifactError, match=r"adapter_config\.json") as caught:
        registry.fetch(manifest.version, tmp_path)
    assert caught.value.reason == reason


def test_a_link_out_of_the_version_is_refused(publish: Publish, tmp_path: Path) -> None:
    registry = Registry((tmp_path / "registry").as_uri())
    manifest = publish(registry)
    file = registry.fetch(manifest.version, tmp_path) / "adapter" / "adapter_config.json"
    outside = tmp_path / "outside.json"
    file.rename(outside)
    file.symlink_to(outside)
    with pytest.raises(ArtifactError) as caught:
        registry.fetch(manifest.version, tmp_path)
    assert caught.value.reason == "path"


@pytest.mark.parametrize("name", ["../x.json", "/etc/x.json", "a\\..\\x.json", ""])
def test_paths_that_escape_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_name(name)
    assert caught.value.reason == "path"


@pytest.mark.parametrize("name", ["weights.pt", "model.bin", "x.pkl", "run.py"])
def test_formats_that_run_code_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        check_name(name)
    assert caught.value.reason == "format"


def test_a_pickle_cannot_be_published(registry: Registry, tmp_path: Path) -> None:
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(ArtifactError, match="safetensors"):
        registry.publish(draft, step=1, parent="", base="tiny", base_digest=BASE_DIGEST, figures={})


def test_collecting_spares_what_may_serve_again(registry: Registry, publish: Publish) -> None:
    base = registry.publish_base("tiny", BASE_DIGEST)
    registry.transition(base.version, PolicyState.ACTIVE, reason="first", actor="test")
    versions = [base.version]
    for step in range(1, 6):
        manifest = publish(registry, step=step, parent=versions[-1])
        registry.transition(manifest.version, PolicyState.CANDIDATE, reason="new", actor="test")
        registry.transition(manifest.version, PolicyState.ACTIVE, reason="better", actor="test")
        versions.append(manifest.version)
    assert registry.collect(keep=1) == versions[1:3]
    for version in [base.version, *versions[3:]]:
        assert registry.manifest(version).version == version
    with pytest.raises(ArtifactError):
        registry.manifest(versions[1])
    assert registry.state().states[versions[1]] is PolicyState.RETIRED
