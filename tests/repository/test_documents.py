"""What the documents tell people to type, and point them to, exists."""

import os
import re
from pathlib import Path

import pytest

from tests.repository.files import ROOT, TOOLS, run, text, tracked

MAKE = re.compile(r"(?:`|^\s*(?:\$ )?)make ([a-z][a-z-]*)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


def documents() -> list[Path]:
    """The README, which must exist, and every other tracked page."""
    return sorted({Path("README.md"), *tracked("*.md")})


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_readme_names_both_commands() -> None:
    named = set(MAKE.findall((ROOT / "README.md").read_text()))
    assert {"run", "test"} <= named


@pytest.mark.parametrize("document", documents(), ids=str)
def test_make_targets_exist(document: Path) -> None:
    unknown = set(MAKE.findall(text(document) or "")) - targets()
    assert not unknown, f"{document}: no target in the Makefile for {sorted(unknown)}"


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    directory = (ROOT / document).parent
    dead = [link for link in LINK.findall(text(document) or "") if not (directory / link).exists()]
    assert not dead, f"{document}: {dead}"


BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARKS = ("# needs a cluster\n", "# needs helm\n", "# needs a running Foldback\n")
GUIDES = sorted(path for path in tracked("docs/*.md"))


@pytest.mark.parametrize("document", GUIDES, ids=str)
def test_commands_run_or_say_what_they_need(document: Path, tmp_path: Path) -> None:
    """In a folder of their own: what a guide makes, like keys, does not end up in the repository."""
    for block in BLOCK.findall(text(document) or ""):
        if block.startswith(MARKS):
            assert all((ROOT / file).exists() for file in re.findall(r"helm/foldback[\w./-]*", block)), block
        else:
            assert not re.search(r"\b(kubectl|helm)\b", block), f"mark it '# needs a cluster':\n{block}"
            run("env", f"PATH={TOOLS}:{os.environ['PATH']}", "bash", "-euc", block, cwd=tmp_path)
