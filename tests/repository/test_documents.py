"""What the documents tell people to type, and point them to, exists."""

import re
from pathlib import Path

import pytest

from tests.repository.files import ROOT, text, tracked

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
