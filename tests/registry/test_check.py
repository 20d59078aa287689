"""`python -m registry check`, as `foldback doctor` runs it, on whole and on damaged registries."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from registry import PolicyState, Registry


def run(url: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FOLDBACK_REGISTRY__URL": url}
    command = [sys.executable, "-m", "registry", "check"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A registry whose active version has one file."""
    registry = Registry((tmp_path / "registry").as_uri())
    base = registry.publish_base("tiny", "0" * 64)
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "adapter.safetensors").write_bytes(b"weights")
    made = registry.publish(
        draft, step=1, parent=base.version, base="tiny", base_digest="0" * 64, figures={"kl_nats": 1.0}
    )
    registry.transition(base.version, PolicyState.ACTIVE, reason="", actor="server")
    for state in (PolicyState.TRAINING, PolicyState.CANDIDATE, PolicyState.ACTIVE):
        registry.transition(made.version, state, reason="", actor="trainer")
    return tmp_path / "registry"


def test_a_whole_registry(folder: Path) -> None:
    found = json.loads(run(folder.as_uri()).stdout)
    assert found["active"].startswith("p000001-")
    assert (found["versions"], len(found["verified"]), found["broken"]) == (2, 2, {})


def test_a_changed_file_is_named(folder: Path) -> None:
    [weights] = folder.glob("versions/p000001-*/adapter.safetensors")
    weights.write_bytes(b"WEIGHTS")
    found = json.loads(run(folder.as_uri()).stdout)
    [good] = found["verified"]
    assert good.startswith("p000000-")
    assert "adapter.safetensors is not what was published" in found["broken"][found["active"]]


def test_nothing_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    url = (tmp_path / "absent").as_uri()
    assert json.loads(run(url).stdout)["exists"] is False
    assert not (tmp_path / "absent").exists()


@pytest.mark.slow
def test_what_cannot_be_read_is_told_in_a_line(folder: Path, tmp_path: Path) -> None:
    (folder / "transitions/000000000002.json").write_text("{")
    (tmp_path / "file").write_text("no folder")
    for url in (folder.as_uri(), (tmp_path / "file").as_uri(), "nowhere://registry"):
        done = run(url)
        assert done.returncode == 1
        assert url in done.stderr
        assert "Traceback" not in done.stderr
