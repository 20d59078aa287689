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


def published_file(registry: Registry, version: str, name: str) -> str:
    """Where the registry has it, on its own filesystem."""
    return f"{registry._version_path(version)}/{name}"


@pytest.mark.parametrize("used", ["adapter", "weights"])
@pytest.mark.parametrize("damage", ["changed", "deleted"])
def test_what_is_not_used_is_not_read_and_what_is_used_is_verified(
    registry: Registry, publish: Publish, tmp_path: Path, used: str, damage: str
) -> None:
    [unused] = {"adapter", "weights"} - {used}
    for folder in (unused, used):
        version = publish(registry).version
        file = published_file(registry, version, f"{folder}/model.safetensors")
        if damage == "deleted":
            registry._fs.rm(file)
        else:
            registry._fs.pipe_file(file, registry._fs.cat_file(file)[::-1])
        if folder == unused:
            directory = registry.fetch(version, tmp_path / "cache", only=[f"{used}/"])
            assert (directory / used / "model.safetensors").read_text().startswith(used)
        else:
            with pytest.raises(ArtifactError, match=rf"{used}/model\.safetensors") as caught:
                registry.fetch(version, tmp_path / "cache", only=[f"{used}/"])
            assert caught.value.reason == ("absent" if damage == "deleted" else "hash")
        with pytest.raises(ArtifactError):
            registry.fetch(version, tmp_path / "cache")


def test_a_copy_grows_by_what_is_asked_for(publish: Publish, tmp_path: Path) -> None:
    registry, cache = Registry("memory://grows"), tmp_path / "cache"
    version = publish(registry).version
    directory = registry.fetch(version, cache, only=["adapter/"])
    assert not (directory / "weights").exists()
    assert registry.fetch(version, cache) == directory
    assert (directory / "weights" / "model.safetensors").is_file()
    assert [path.name for path in cache.iterdir()] == [version]


def test_a_copy_that_was_damaged_is_made_anew(publish: Publish, tmp_path: Path) -> None:
    """The version itself is whole: it must not be refused for ever because of this machine's disk."""
    registry = Registry("memory://damaged")
    version = publish(registry).version
    file = registry.fetch(version, tmp_path) / "weights" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert (registry.fetch(version, tmp_path) / "weights" / "model.safetensors").read_bytes() == whole


def test_a_file_that_was_slipped_in_is_refused(publish: Publish, tmp_path: Path) -> None:
    """Whoever loads `weights/*.safetensors` would load it, and no hash covers it."""
    registry = Registry((tmp_path / "registry").as_uri())
    version = publish(registry).version
    slipped = registry.fetch(version, tmp_path) / "weights" / "zzz.safetensors"
    slipped.write_bytes(b"stolen")
    with pytest.raises(ArtifactError, match=r"weights/zzz\.safetensors was not published") as caught:
        registry.fetch(version, tmp_path)
    assert caught.value.reason == "unknown"
    assert registry.fetch(version, tmp_path, only=["adapter/"])


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


def test_what_may_serve_again_is_kept_before_what_may_not(registry: Registry, publish: Publish) -> None:
    """A rollback can be taken back, however many versions the gate refused since."""
    first, second, *refused = (publish(registry, step=step) for step in range(1, 6))
    for manifest in (first, second, *refused):
        registry.transition(manifest.version, PolicyState.CANDIDATE, reason="new", actor="test")
    for manifest in (first, second):
        registry.transition(manifest.version, PolicyState.ACTIVE, reason="better", actor="test")
    for manifest in refused:
        registry.transition(manifest.version, PolicyState.REJECTED, reason="KL", actor="test")
    registry.rollback(None, reason="worse", actor="operator")
    assert registry.collect(keep=2) == [manifest.version for manifest in refused[:2]]
    registry.transition(second.version, PolicyState.ACTIVE, reason="after all", actor="operator")
    assert registry.state().active == second.version
